"""Time the import of a long CT series against SimpleITK reading the same series.

Run: python benchmarks/dicom.py [--slices 600] [--folder DIR]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Testing" / "Python"))

from dicom_writer import ct_series, save

from ImmunoRadiomicsLib.dicom import import_folder


def write(folder: Path, slices: int) -> None:
    """Write a series of 512 x 512 pixels with the noise of a CT."""
    noise = np.random.default_rng(0).normal(-200, 60, (slices + 64, 512, 512)).astype(np.int16)
    for start in range(0, slices, 50):
        image = sitk.GetImageFromArray(noise[start : start + 50][: slices - start])
        image.SetSpacing((0.75, 0.75, 0.6))
        image.SetOrigin((-190.0, -190.0, 0.6 * start))
        series = ct_series(image, series_uid="1.2.3.4", study_uid="1.2.3", frame_of_reference="1.2.5", thickness_mm=0.6)
        save(series, folder, lambda index, start=start: f"{(index + start) * 7919 % 100_003:06d}")


def measured(work) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def read_with_simpleitk(folder: Path) -> None:
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(
        str(folder), sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))[0]
    )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    reader.Execute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name) / "in"
        write(folder, options.slices)
        ticks: list[float] = []
        for turn in range(2):
            reading = measured(lambda: read_with_simpleitk(folder))
            out = Path(name) / f"out-{turn}"
            ticks.clear()
            importing = measured(
                lambda out=out: import_folder(folder, out, progress=lambda fraction, message: ticks.append(fraction))
            )
            print(
                f"{options.slices} slices: SimpleITK {reading[0]:.2f} s ({reading[1]:.2f} s CPU), "
                f"import {importing[0]:.2f} s ({importing[1]:.2f} s CPU), ratio {importing[0] / reading[0]:.2f} "
                f"({importing[1] / reading[1]:.2f} CPU), {len(ticks)} progress messages"
            )
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
