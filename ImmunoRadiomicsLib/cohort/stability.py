"""Which features hold still when another reader draws the lesion: contours are perturbed, features read again, and compared."""

from __future__ import annotations

import csv
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import radiomics
from ..files import whole_file
from ..images import RegionMask, read_segmentation, read_volume
from ..progress import Progress, silent
from ..radiomics.perturbation import perturbed
from ..radiomics.reliability import intraclass_correlation
from ..study import Study

PERTURBED_FILE = "perturbed.csv"
STABILITY_FILE = "stability.csv"
_COLUMNS = ("lesion", "reading", "feature", "value")
STABILITY_COLUMNS = ("feature", "icc", "lower", "upper", "lesions", "readings")


def write_perturbed(
    study: Study,
    result: Path,
    path: Path,
    *,
    preset: radiomics.Preset,
    readings: int,
    seed: int,
    cache: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Read the features of every lesion of the baseline in perturbed contours and write them, with those of the contour itself as reading 0.

    Parameters
    ----------
    result
        The output folder of the study's analysis.
    readings
        How many perturbed contours each lesion gets.
    """
    baseline = study.baseline
    volume = read_volume(baseline.ct)
    segmentation = read_segmentation(result / "segmentations" / f"{baseline.name}.regions.seg.nrrd", volume)
    spacing, shape = volume.GetSpacing()[::-1], volume.GetSize()[::-1]
    regions: list[RegionMask] = []
    numbers: list[int] = []
    for segment in segmentation.segments:
        lesion, _, region = segment.name.rpartition(".")
        if region != "core" or not lesion:
            continue
        core = RegionMask.from_array(baseline.name, lesion, "core", segmentation.array(segment.name))
        for number in range(readings + 1):
            drawn = core if number == 0 else perturbed(core, spacing, shape, seed, number)
            # Readings of one lesion are regions of their own: they must not be taken for each other.
            regions.append(replace(drawn, lesion=lesion, region=f"core~{number}"))
            numbers.append(number)
    found = radiomics.extract({baseline.name: volume}, regions, preset, cache=cache, progress=progress)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for number, item in zip(numbers, found, strict=True):
            for name, value in item.values.items():
                writer.writerow((item.lesion, number, name, "" if value is None else repr(float(value))))


def write_stability(files: Mapping[str, Path], path: Path, *, readings: int) -> None:
    """Write the intraclass correlation of every feature over the lesions of all patients; ``files`` are those of ``write_perturbed``.

    ``readings`` is the number of perturbed contours of each lesion. A feature that cannot be judged (fewer than three lesions, or missing in some reading)
    has empty cells. Held of each patient are its values alone, eight bytes each.
    """
    values: dict[str, array[float]] = defaultdict(lambda: array("d"))
    for file in files.values():
        for feature, lesions in _by_feature(file, readings + 1).items():
            for lesion in lesions.values():
                values[feature].extend(lesion)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(STABILITY_COLUMNS)
        for feature in sorted(values):
            writer.writerow(_row(feature, np.asarray(values[feature]).reshape(-1, readings + 1)))


def _by_feature(file: Path, readings: int) -> dict[str, dict[str, list[float]]]:
    """Return the values of one patient: by feature and lesion, one for each reading, NaN where there is none."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [np.nan] * readings))
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            lesion = found[row["feature"]][row["lesion"]]
            if row["value"]:
                lesion[int(row["reading"])] = float(row["value"])
    return found


def _row(feature: str, values: np.ndarray) -> tuple[object, ...]:
    found = intraclass_correlation(values)
    if found is None:
        return feature, "", "", "", *values.shape
    return feature, repr(found.icc), repr(found.lower), repr(found.upper), found.subjects, found.readings
