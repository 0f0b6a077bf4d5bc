"""CPU time and peak memory of the report at full size: eight lesions, 512x512x300, a displacement field, 50,000 features.

python benchmarks/time_report.py
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Testing" / "Python"))

from factories import example_analysis

from ImmunoRadiomicsLib.analysis import Analysis, Features, Lesion, LesionObservation
from ImmunoRadiomicsLib.images import RegionMask, Segmentation, segmentation_from_regions
from ImmunoRadiomicsLib.report import key_images, render_report, write_tables

SIZE = (512, 512, 300)
SPACING = (0.75, 0.75, 1.25)
LESIONS = 8


def timed(name: str, work: Callable[[], object]) -> object:
    start = time.process_time()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{name:<34}{time.process_time() - start:8.2f} CPU s   peak {peak:5.2f} GiB so far")
    return result


def material() -> tuple[Analysis, dict[str, sitk.Image], dict[str, Segmentation], dict[str, sitk.Transform]]:
    random = np.random.default_rng(0)
    names = ("baseline", "followup-1")
    volumes, segmentations = {}, {}
    centres = random.uniform((-120, -90, -120), (120, 90, 120), (LESIONS, 3))
    sizes = random.uniform(10, 60, LESIONS)
    origin = [-(count - 1) / 2 * length for count, length in zip(SIZE, SPACING, strict=True)]
    for name in names:
        voxels = random.integers(-900, -700, SIZE[::-1], dtype=np.int16)
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(SPACING)
        image.SetOrigin(origin)
        volumes[name] = image
        regions = []
        for number, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
            first = np.array(image.TransformPhysicalPointToIndex((centre - size / 2).tolist()))
            count = np.ceil(size / np.array(SPACING)).astype(int)
            ball = (np.indices(count[::-1]) - (count[::-1] - 1).reshape(3, 1, 1, 1) / 2) * np.reshape(
                SPACING[::-1], (3, 1, 1, 1)
            )
            inside = np.linalg.norm(ball, axis=0) < size / 2
            offset = tuple(int(value) for value in first[::-1])
            regions.append((f"L{number}", RegionMask(name, f"L{number}", "core", offset, inside)))
        segmentations[name] = segmentation_from_regions(regions, image)
    field = sitk.Image([128, 128, 75], sitk.sitkVectorFloat64, 3)
    field.SetSpacing([length * 4 for length in SPACING])
    field.SetOrigin(origin)
    lesions = tuple(
        Lesion(
            f"L{number}",
            "lung",
            "given",
            "target",
            "",
            False,
            tuple(
                LesionObservation(
                    name,
                    "measured",
                    "present",
                    long_axis_mm=size,
                    short_axis_mm=size,
                    centroid_lps_mm=tuple(centre.tolist()),
                    centroid_reference_lps_mm=tuple(centre.tolist()),
                )
                for name in names
            ),
        )
        for number, (centre, size) in enumerate(zip(centres, sizes, strict=True))
    )
    values = {f"feature_{number}": float(value) for number, value in enumerate(random.normal(size=1250))}
    features = tuple(
        Features(name, f"L{number}", region, 1000, None, values)
        for number in range(LESIONS)
        for name in names
        for region in ("core", "ring-0-5mm", "ring-5-10mm")
    )[:40]
    shown = tuple(item for item in example_analysis().timepoints if item.name in names)
    analysis = example_analysis(lesions=lesions, features=features, timepoints=shown)
    return analysis, volumes, segmentations, {"followup-1": sitk.DisplacementFieldTransform(field)}


def main() -> None:
    analysis, *rest = material()
    pictures = timed("key images", lambda: key_images(analysis, *rest))
    page = timed("page", lambda: render_report(analysis, pictures))
    print(f"{'size of the page':<34}{len(page) / 1e6:8.2f} MB")
    with tempfile.TemporaryDirectory() as folder:
        timed(
            f"tables, {sum(len(item.values) for item in analysis.features)} features",
            lambda: write_tables(analysis, Path(folder)),
        )


if __name__ == "__main__":
    main()
