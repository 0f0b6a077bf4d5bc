"""Time the extraction against the command line of pyradiomics, paired on this machine, and compare every feature.

    python benchmarks/radiomics.py                                    # two time points, 8, 30 and 100 mm: half an hour
    python benchmarks/radiomics.py --lesions 30 --timepoints 1 --jobs 2 --engine own
    python benchmarks/radiomics.py --lesions --lungs --timepoints 1 --preset ct-lung

CTs of the given size are made up with balls as lesions, each measured as core, ring of 0-5 mm and ring of 5-10 mm. Plain
pyradiomics runs once for every region, as its users do; ours once for all, from files to a table. Printed for both: CPU and
wall seconds and peak memory of a process, then the ratios and the largest relative difference of any feature. The preset
`full` is the original image, five Laplacians of Gaussian and the wavelets, in voxels as they are.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

# This script has the name of the package that it measures; Python would look here for it first.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

FULL = """# Original, Laplacian of Gaussian of 1 to 5 mm, wavelets
imageType: {Original: {}, LoG: {sigma: [1.0, 2.0, 3.0, 4.0, 5.0]}, Wavelet: {}}
setting: {binWidth: 25.0}
"""
SPACING = (0.75, 0.75, 1.25)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")


@dataclass
class Cost:
    """Seconds and GiB of one or several processes, run one after the other."""

    cpu: float = 0.0
    wall: float = 0.0
    peak_gib: float = 0.0

    def add(self, command: list[str]) -> str:
        """Run a command, add what it took, and return what it printed."""
        start = time.perf_counter()
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(command, stdout=output, env={**os.environ, **ONE_THREAD})
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}")
            output.seek(0)
            printed = output.read()
        self.wall += time.perf_counter() - start
        self.cpu += usage.ru_utime + usage.ru_stime
        self.peak_gib = max(self.peak_gib, usage.ru_maxrss / 2**20)
        return printed

    def __str__(self) -> str:
        return f"CPU {self.cpu:8.1f} s   wall {self.wall:8.1f} s   peak {self.peak_gib:5.2f} GiB"


def make_ct(
    shape_zyx: tuple[int, int, int], lesions_mm: list[float], seed: int, *, with_lungs: bool = False
) -> tuple[sitk.Image, list[np.ndarray]]:
    """Noise of a scanner over a body with two lungs, and balls with their rings as bool arrays."""
    rng = np.random.default_rng(seed)
    array = ndimage.gaussian_filter(rng.normal(0, 60, shape_zyx).astype(np.float32), 0.8)
    y, x = np.indices(shape_zyx[1:]) / np.array(shape_zyx[1:])[:, None, None] - 0.5
    body = (x / 0.45) ** 2 + (y / 0.35) ** 2 < 1
    lungs = ((np.abs(x) - 0.19) / 0.15) ** 2 + (y / 0.24) ** 2 < 1
    array += np.where(lungs, -820, np.where(body, 40, -1000)).astype(np.float32)
    array[:, x**2 + y**2 > 0.25] = -1024
    regions = [np.broadcast_to(lungs & body, shape_zyx)] if with_lungs else []
    for number, diameter in enumerate(lesions_mm):
        place = (number + 1) / (len(lesions_mm) + 1)
        centre = np.array([place * shape_zyx[0], 0.5 * shape_zyx[1], (0.31, 0.69)[number % 2] * shape_zyx[2]])
        reach = np.ceil((diameter / 2 + 11) / np.array(SPACING[::-1])).astype(int)
        low = np.maximum(centre.astype(int) - reach, 0)
        high = np.minimum(centre.astype(int) + reach + 1, shape_zyx)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        offsets = np.indices(tuple(high - low)) + (low - centre)[:, None, None, None]
        distance = np.sqrt(((offsets * np.array(SPACING[::-1])[:, None, None, None]) ** 2).sum(axis=0)) - diameter / 2
        array[box][distance <= 0] += 850 + 30 * rng.normal(size=int((distance <= 0).sum()))
        for inner, outer in ((-math.inf, 0), (0, 5), (5, 10)):
            mask = np.zeros(shape_zyx, bool)
            mask[box] = (distance > inner) & (distance <= outer)
            regions.append(mask)
    image = sitk.GetImageFromArray(np.clip(array, -1024, 3071).astype(np.int16))
    image.SetSpacing(SPACING)
    return image, regions


def run_ours(folder: Path, jobs: int, engine: str) -> None:
    """Extract every mask of a folder and print the values, in the order of the masks.

    A mask is `<time point>-<lesion>-<region>.nrrd` beside the image `<time point>.nrrd`.
    """
    from ImmunoRadiomicsLib.images import RegionMask
    from ImmunoRadiomicsLib.radiomics import extract, load_preset

    images = {path.stem: sitk.ReadImage(path) for path in sorted(folder.glob("*.nrrd")) if "-" not in path.stem}
    regions = [
        RegionMask.from_array(*path.stem.split("-"), sitk.GetArrayFromImage(sitk.ReadImage(path)) != 0)
        for path in sorted(folder.glob("*-*-*.nrrd"))
    ]
    preset = load_preset(folder / "parameters.yaml")
    json.dump([item.values for item in extract(images, regions, preset, jobs=jobs, engine=engine)], sys.stdout)


def largest_difference(ours: dict[str, float | None], plain: dict[str, float]) -> tuple[float, str]:
    """Return the largest relative difference and its feature; a feature that is only in one counts as infinite."""
    worst = (0.0, "")
    for name, expected in plain.items():
        found = ours.get(name)
        if found is None:
            difference = 0.0 if not math.isfinite(expected) else math.inf
        else:
            difference = abs(found - expected) / abs(expected) if expected else abs(found)
        worst = max(worst, (difference, name))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300), metavar=("X", "Y", "Z"))
    parser.add_argument("--lesions", type=float, nargs="*", default=[8.0, 30.0, 100.0], metavar="MM")
    parser.add_argument("--lungs", action="store_true", help="measure both lungs too")
    parser.add_argument("--timepoints", type=int, default=2)
    parser.add_argument("--preset", default="full", help="full, a shipped preset or the path of a parameter file")
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[1, 2], help="run ours with each of these numbers of processes"
    )
    parser.add_argument("--engine", default="auto", choices=("auto", "pyradiomics", "own"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-ours", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_ours:
        run_ours(options.only_ours, options.jobs[0], options.engine)
        return

    from ImmunoRadiomicsLib.radiomics import load_preset

    x, y, z = options.size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = folder / "parameters.yaml"
        parameters.write_text(FULL if options.preset == "full" else load_preset(options.preset).to_yaml())
        preset = load_preset(parameters)
        for timepoint in range(options.timepoints):
            image, masks = make_ct((z, y, x), options.lesions, options.seed + timepoint, with_lungs=options.lungs)
            sitk.WriteImage(image, folder / f"t{timepoint}.nrrd")
            for number, mask in enumerate(masks):
                label = sitk.GetImageFromArray(mask.astype(np.uint8))
                label.CopyInformation(image)
                owner = number - len(masks) + 3 * len(options.lesions)
                path = folder / f"t{timepoint}-l{owner // 3 % 1000:03}-r{owner % 3}.nrrd"
                sitk.WriteImage(label, path, useCompression=True)
            del image, masks

        start = "import sys; from radiomics.scripts import parse_args; sys.exit(parse_args())"
        plain = Cost()
        expected = []
        for path in sorted(folder.glob("*-*-*.nrrd")):
            whole = folder / f"{path.stem.split('-')[0]}.nrrd"
            parts = [str(whole), str(path), "--param", str(parameters), "-f", "json", "-v", "1"]
            (values,) = json.loads(plain.add([sys.executable, "-c", start, *parts]))
            expected.append({key: float(values[key]) for key in preset.columns if key in values})
        print(f"plain, {len(expected)} regions     {plain}")

        costs = []
        for jobs in options.jobs:
            mine = Cost()
            again = [sys.executable, __file__, "--only-ours", name, "--jobs", str(jobs), "--engine", options.engine]
            found = json.loads(mine.add(again))
            costs.append(mine)
            print(f"ours,  {jobs} process(es)   {mine}")

    mine = costs[0]
    differences = [largest_difference(a, b) for a, b in zip(found, expected, strict=True)]
    worst, feature = max(differences)
    print(f"ratio             CPU {plain.cpu / mine.cpu:.1f}   wall {plain.wall / mine.wall:.1f}")
    for jobs, cost in zip(options.jobs[1:], costs[1:], strict=True):
        print(f"{jobs} processes are {mine.wall / cost.wall:.2f} times as fast as {options.jobs[0]}")
    print(f"largest relative difference of {sum(map(len, expected))} features: {worst:.1e} {feature}")


if __name__ == "__main__":
    main()
