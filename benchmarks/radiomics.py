"""Time the extraction against the command line of pyradiomics, paired on this machine, and compare every feature.

    python benchmarks/radiomics.py                                    # two time points, 8, 30 and 100 mm: 40 CPU minutes
    python benchmarks/radiomics.py --plain FOLDER --repeats 3         # the same; what plain pyradiomics gave is kept
    python benchmarks/radiomics.py --lesions 30 --timepoints 1 --jobs 2 --engines own
    python benchmarks/radiomics.py --lesions --lungs --timepoints 1 --preset original
    python benchmarks/radiomics.py --no-plain --repeats 3             # only ours: the gain of processes, and the memory
    python benchmarks/radiomics.py --images FOLDER                    # the images that pyradiomics is tested on, our engine

CTs of the given size are made up with balls as lesions, each measured as core, ring of 0-5 mm and ring of 5-10 mm. Plain
pyradiomics runs once for every region, as its users do; ours once for all, from files to a table. Printed for both: CPU and
wall seconds, peak memory of the largest process and, on Linux, of all processes together (each shared page counted once,
sampled twice a second); then the ratios and the largest relative difference of any feature, each beside what is demanded of it. The preset `full` is the original image, five Laplacians of Gaussian and the wavelets, in voxels as they
are; `original` is the original image alone.

With several numbers of processes, ours runs with each in turn, again and again, so that what else the machine does falls on
all of them; the gain is the median over the turns.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

# This script has the name of the package that it measures; Python would look here for it first.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

TEXTS = {
    "full": """# Original, Laplacian of Gaussian of 1 to 5 mm, wavelets
imageType: {Original: {}, LoG: {sigma: [1.0, 2.0, 3.0, 4.0, 5.0]}, Wavelet: {}}
setting: {binWidth: 25.0}
""",
    "original": """# Original
imageType: {Original: {}}
setting: {binWidth: 25.0}
""",
}
SPACING = (0.75, 0.75, 1.25)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")

# What is demanded: how many times less CPU than plain for lesions and for lungs, GiB of a process for lesions and for lungs,
# the gain of two processes, and the largest relative difference.
LESIONS_CPU, LUNGS_CPU = 25.0, 10.0
LESIONS_GIB, LUNGS_GIB = 2.5, 6.0
TWO_PROCESSES = 1.7
DIFFERENCE = 1e-9


@dataclass
class Cost:
    """Seconds and GiB of one or several processes, run one after the other."""

    cpu: float = 0.0
    wall: float = 0.0
    peak_gib: float = 0.0
    together_gib: float = 0.0

    def add(self, command: list[str]) -> str:
        """Run a command, add what it took, and return what it printed."""
        start = time.perf_counter()
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(command, stdout=output, env={**os.environ, **ONE_THREAD})
            with memory_of_tree(process.pid) as together:
                _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}")
            output.seek(0)
            printed = output.read()
        seconds, wall = usage.ru_utime + usage.ru_stime, time.perf_counter() - start
        self.include(Cost(seconds, wall, usage.ru_maxrss / 2**20, max(together)))
        return printed

    def include(self, other: Cost) -> None:
        """Count what was run after this."""
        self.cpu += other.cpu
        self.wall += other.wall
        self.peak_gib = max(self.peak_gib, other.peak_gib)
        self.together_gib = max(self.together_gib, other.together_gib)

    def __str__(self) -> str:
        together = f", together {self.together_gib:.2f} GiB" if self.together_gib else ""
        return f"CPU {self.cpu:8.1f} s   wall {self.wall:8.1f} s   peak {self.peak_gib:5.2f} GiB{together}"


@contextlib.contextmanager
def memory_of_tree(process: int) -> Iterator[list[float]]:
    """Sample the memory (GiB) of a process and of those it started until the block ends; only zeros where there is no /proc."""
    found = [0.0]
    ended = threading.Event()

    def of(pid: int) -> int:
        place = Path(f"/proc/{pid}")
        try:
            rollup = (place / "smaps_rollup").read_text()
            children = (place / "task" / str(pid) / "children").read_text().split()
        except OSError:
            return 0
        own = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
        return own + sum(of(int(child)) for child in children)

    def watch() -> None:
        while not ended.wait(0.5):
            found.append(of(process) / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


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


def write_case(options: argparse.Namespace, folder: Path) -> None:
    """Write the images and masks; a mask is `<time point>-<lesion>-<region>.nrrd` beside the image `<time point>.nrrd`."""
    x, y, z = options.size
    for timepoint in range(options.timepoints):
        image, masks = make_ct((z, y, x), options.lesions, options.seed + timepoint, with_lungs=options.lungs)
        sitk.WriteImage(image, folder / f"t{timepoint}.nrrd")
        for number, mask in enumerate(masks):
            label = sitk.GetImageFromArray(mask.astype(np.uint8))
            label.CopyInformation(image)
            owner = number - len(masks) + 3 * len(options.lesions)
            name = f"l{owner // 3:03}-r{owner % 3}" if owner >= 0 else "lungs-whole"
            sitk.WriteImage(label, folder / f"t{timepoint}-{name}.nrrd", useCompression=True)


def run_plain(image: Path, mask: Path, parameters: Path, columns: set[str], kept: Path | None) -> tuple[Cost, dict]:
    """Run the command line of pyradiomics on one mask, or take over what it gave for the same files before."""
    place = None
    if kept is not None:
        digest = hashlib.sha256(metadata.version("pyradiomics-bhklab").encode())
        for path in (image, mask, parameters):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        place = kept / f"{mask.stem}-{digest.hexdigest()[:16]}.json"
        if place.is_file():
            content = json.loads(place.read_text())
            return Cost(**content["cost"]), content["values"]
    start = "import sys; from radiomics.scripts import parse_args; sys.exit(parse_args())"
    parts = [str(image), str(mask), "--param", str(parameters), "-f", "json", "-v", "1"]
    cost = Cost()
    (printed,) = json.loads(cost.add([sys.executable, "-c", start, *parts]))
    values = {key: float(value) for key, value in printed.items() if key in columns}
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"cost": asdict(cost), "values": values}))
    return cost, values


def run_ours(folder: Path, jobs: int, engine: str) -> None:
    """Extract every mask of a folder and print the values, in the order of the masks."""
    from ImmunoRadiomicsLib.images import RegionMask
    from ImmunoRadiomicsLib.radiomics import extract, load_preset

    def region_of(path: Path) -> RegionMask:
        label = sitk.ReadImage(path)
        return RegionMask.from_array(*path.stem.split("-"), sitk.GetArrayViewFromImage(label) != 0)

    scans = [path for path in sorted(folder.glob("*.nrrd")) if "-" not in path.stem]
    # Files are read by as many threads as there are processes afterwards: reading is part of what is timed.
    with ThreadPoolExecutor(jobs) as pool:
        images = dict(zip((path.stem for path in scans), pool.map(sitk.ReadImage, scans), strict=True))
        regions = list(pool.map(region_of, sorted(folder.glob("*-*-*.nrrd"))))
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


def verdict(fulfilled: bool) -> str:
    return "fulfilled" if fulfilled else "MISSED"


def compare_on_case(options: argparse.Namespace, folder: Path) -> None:
    """Run plain and ours on a made-up case and print what was reached."""
    from ImmunoRadiomicsLib.radiomics import load_preset

    parameters = folder / "parameters.yaml"
    parameters.write_text(TEXTS.get(options.preset) or load_preset(options.preset).to_yaml())
    columns = set(load_preset(parameters).columns)
    write_case(options, folder)
    plain, expected = Cost(), []
    for path in sorted(folder.glob("*-*-*.nrrd")) if not options.no_plain else ():
        image = folder / f"{path.stem.split('-')[0]}.nrrd"
        cost, values = run_plain(image, path, parameters, columns, options.plain)
        plain.include(cost)
        expected.append(values)
        print(f"plain, {path.stem:14}    {cost}", flush=True)
    if expected:
        print(f"plain, {len(expected)} regions        {plain}", flush=True)

    least, most = (LUNGS_CPU, LUNGS_GIB) if options.lungs else (LESIONS_CPU, LESIONS_GIB)
    for engine in options.engines:
        runs: dict[int, list[Cost]] = {jobs: [] for jobs in options.jobs}
        for _ in range(options.repeats):
            for jobs in options.jobs:
                mine = Cost()
                again = [sys.executable, __file__, "--only-ours", str(folder)]
                found = json.loads(mine.add([*again, "--jobs", str(jobs), "--engines", engine]))
                runs[jobs].append(mine)
                print(f"{engine}, {jobs} process(es)   {mine}", flush=True)
        one = runs[options.jobs[0]]
        every = [cost for costs in runs.values() for cost in costs]
        peak = max(max(cost.peak_gib, cost.together_gib) for cost in every)
        print(f"{engine}: peak {peak:.2f} GiB; no more than {most:g} demanded: {verdict(peak <= most)}")
        for jobs in options.jobs[1:]:
            gains = [first.wall / cost.wall for first, cost in zip(one, runs[jobs], strict=True)]
            said = f"{engine}: {jobs} processes are {statistics.median(gains):.2f} times as fast as {options.jobs[0]}"
            extra = statistics.median(cost.cpu for cost in runs[jobs]) / statistics.median(cost.cpu for cost in one)
            demand = f"; {TWO_PROCESSES:g} demanded: {verdict(statistics.median(gains) >= TWO_PROCESSES)}"
            print(f"{said}, with {extra:.2f} times the CPU{demand if jobs == 2 else ''}", flush=True)
        if not expected:
            continue
        ratio = plain.cpu / statistics.median(cost.cpu for cost in one)
        print(f"{engine}: CPU {ratio:.1f} times less than plain; {least:g} demanded: {verdict(ratio >= least)}")
        worst, feature = max(largest_difference(a, b) for a, b in zip(found, expected, strict=True))
        said = f"largest relative difference of {sum(map(len, expected))} features: {worst:.1e} {feature}"
        print(f"{engine}: {said}; {DIFFERENCE:g} demanded: {verdict(worst <= DIFFERENCE)}", flush=True)


def compare_on_images(folder: Path, repeats: int) -> None:
    """Compare our engine with plain pyradiomics, in one process, on each `<case>_image.nrrd` with its label 1."""
    import logging

    import radiomics
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    from ImmunoRadiomicsLib.images import RegionMask
    from ImmunoRadiomicsLib.radiomics import extract
    from ImmunoRadiomicsLib.radiomics.presets import parse_preset

    radiomics.setVerbosity(logging.CRITICAL + 10)
    for image_path in sorted(folder.glob("*_image.nrrd")):
        image = sitk.ReadImage(image_path)
        label = sitk.ReadImage(image_path.with_name(image_path.name.replace("_image", "_label")))
        mask = RegionMask.from_array("t", "lesion", "core", sitk.GetArrayFromImage(label) == 1)
        for name, text in TEXTS.items():
            preset = parse_preset(text, Path(name))
            plain = RadiomicsFeatureExtractor(preset.to_pyradiomics())
            seconds: dict[str, list[float]] = {"plain": [], "own": []}
            for _ in range(repeats):
                start = time.process_time()
                values: dict[str, Any] = plain.execute(image, mask.image(image))
                seconds["plain"].append(time.process_time() - start)
                start = time.process_time()
                (mine,) = extract({"t": image}, [mask], preset, engine="own")
                seconds["own"].append(time.process_time() - start)
            expected = {key: float(values[key]) for key in preset.columns if key in values}
            worst, feature = largest_difference(mine.values, expected)
            own, theirs = (statistics.median(seconds[key]) for key in ("own", "plain"))
            case = f"{image_path.name.removesuffix('_image.nrrd'):12} {name:9} {mask.count:7} voxels"
            print(
                f"{case}: CPU own {own:.3f} s, plain {theirs:.3f} s; no more demanded: {verdict(own <= theirs)}; ",
                end="",
            )
            said = f"largest relative difference of {len(expected)} features {worst:.1e} {feature}"
            print(f"{said}; {DIFFERENCE:g} demanded: {verdict(worst <= DIFFERENCE)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300), metavar=("X", "Y", "Z"))
    parser.add_argument("--lesions", type=float, nargs="*", default=[8.0, 30.0, 100.0], metavar="MM")
    parser.add_argument("--lungs", action="store_true", help="measure both lungs too")
    parser.add_argument("--timepoints", type=int, default=2)
    parser.add_argument(
        "--preset", default="full", help="full, original, a shipped preset or the path of a parameter file"
    )
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[1, 2], help="run ours with each of these numbers of processes"
    )
    parser.add_argument("--engines", nargs="+", default=["pyradiomics", "own"], choices=("pyradiomics", "own"))
    parser.add_argument("--repeats", type=int, default=1, help="run ours so many times")
    parser.add_argument("--no-plain", action="store_true", help="leave plain pyradiomics out: no ratio, no comparison")
    parser.add_argument("--plain", metavar="FOLDER", type=Path, help="keep here what plain pyradiomics gave and took")
    parser.add_argument("--images", metavar="FOLDER", type=Path, help="compare on these images instead, in one process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-ours", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_ours:
        run_ours(options.only_ours, options.jobs[0], options.engines[0])
    elif options.images:
        compare_on_images(options.images, options.repeats)
    else:
        with tempfile.TemporaryDirectory() as name:
            compare_on_case(options, Path(name))


if __name__ == "__main__":
    main()
