"""The CSV tables of one patient.

UTF-8, comma, one header row. A missing value is an empty cell, a truth value 0 or 1, a number is written so that reading it back gives
the same number. Several segments of one lesion share a cell, separated by semicolons.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..analysis import Analysis, Response, StageResult
from ..files import whole_file
from .measures import absolute_change, percent_change

Cell = str | float | int | None


Findings = Analysis | StageResult

LESION_COLUMNS = (
    "patient",
    "timepoint",
    "date",
    "day",
    "lesion",
    "organ",
    "organ_source",
    "node",
    "role",
    "role_reason",
    "status",
    "event",
    "segments",
    "merged_into",
    "source",
    "confidence",
    "check",
    "long_axis_mm",
    "short_axis_mm",
    "volume_ml",
    "mean_hu",
    "sd_hu",
    "voxels",
    "slice_index",
    "x_lps_mm",
    "y_lps_mm",
    "z_lps_mm",
    "local_alignment",
    "local_shift_mm",
    "long_axis_change_mm",
    "long_axis_change_percent",
    "short_axis_change_mm",
    "short_axis_change_percent",
    "volume_change_ml",
    "volume_change_percent",
    "mean_change_hu",
)
# What features begin with that are read from images beside the CT.
_BESIDE = frozenset({"suv", "mr", "fused"})
FEATURE_COLUMNS = ("patient", "timepoint", "lesion", "region", "feature", "value", "reason")
DELTA_COLUMNS = (
    "patient",
    "lesion",
    "region",
    "feature",
    "earlier",
    "later",
    "days",
    "absolute",
    "relative",
    "log_ratio",
    "per_month",
    "reason",
    "caution",
)
RESPONSE_COLUMNS = (
    "patient",
    "day",
    "sum_mm",
    "baseline_mm",
    "nadir_mm",
    "target",
    "non_target",
    "new_lesion",
    "recist",
    "irecist",
    "rule",
    "timepoint",
    "date",
    "irecist_rule",
    "confirmation",
    "new_lesion_sum_mm",
    "change_from_baseline_percent",
    "change_from_nadir_percent",
    "probability_of_progression",
    "probability_of_response",
)
BEST_COLUMNS = ("patient", "bor", "confirmed_bor", "ibor", "progression_day")
FLAG_COLUMNS = (
    "patient",
    "flag",
    "status",
    "probability",
    "lower",
    "upper",
    "prior",
    "level",
    "bundle",
    "bundle_version",
    "applicability",
    "reason",
)


def _number(value: float | None) -> float | int | str | None:
    """Return a number as the csv module writes it back exactly; what is not a number is missing."""
    if value is None or isinstance(value, int):
        return value
    return None if math.isnan(value) else repr(float(value))


def _lesion_rows(findings: Findings) -> Iterator[tuple[Cell, ...]]:
    """Yield one row per time point and lesion, time points in their order."""
    baseline = next((item.name for item in findings.timepoints if item.day == 0), "")
    for timepoint in findings.timepoints:
        for lesion in findings.lesions:
            seen = lesion.at(timepoint.name)
            if seen is None:
                continue
            start = lesion.at(baseline)
            centre = seen.centroid_lps_mm or (None, None, None)
            changes: list[Cell] = []
            for name in ("long_axis_mm", "short_axis_mm", "volume_ml"):
                pair = (getattr(start, name, None), getattr(seen, name))
                changes += [_number(absolute_change(*pair)), _number(percent_change(*pair))]
            changes.append(_number(absolute_change(getattr(start, "mean_hu", None), seen.mean_hu)))
            yield (
                findings.patient,
                timepoint.name,
                timepoint.date,
                timepoint.day,
                lesion.id,
                lesion.organ,
                lesion.organ_source,
                int(lesion.node),
                lesion.role,
                lesion.role_reason,
                seen.status,
                seen.event,
                ";".join(seen.segments),
                seen.merged_into,
                seen.source,
                _number(seen.confidence),
                seen.check,
                _number(seen.long_axis_mm),
                _number(seen.short_axis_mm),
                _number(seen.volume_ml),
                _number(seen.mean_hu),
                _number(seen.sd_hu),
                seen.voxels,
                seen.slice_index,
                *(_number(value) for value in centre),
                _number(seen.local_alignment),
                _number(seen.local_shift_mm),
                *changes,
            )


def _feature_rows(findings: Findings) -> Iterator[tuple[Cell, ...]]:
    """Yield one row per feature; one row without a feature where a region could not be measured."""
    for item in findings.features:
        start = (findings.patient, item.timepoint, item.lesion, item.region)
        if not item.values:
            yield (*start, None, None, item.reason)
        measured = {_image_of(name) for name, value in item.values.items() if _number(value) is not None}
        for name, value in item.values.items():
            number = _number(value)
            reason = _why_missing(name, measured) if number is None and item.reason is None else item.reason
            yield (*start, name, number, reason)


def _image_of(feature: str) -> str:
    """Return what the name of a feature begins with: the image it is read from."""
    return feature.split("_", 1)[0]


def _why_missing(feature: str, measured: set[str]) -> str:
    """Say why a region that could be measured lacks a feature; ``measured`` are the images that gave it others."""
    image = _image_of(feature)
    if image.startswith("log-sigma") and image not in measured:
        return "the image is smaller than this filter"
    if image in _BESIDE and image not in measured:
        return "the image beside the CT does not hold the whole region, or the region is too small on it"
    return "not defined for this region, most often because it has too few voxels or grey levels"


def _delta_rows(findings: Findings) -> Iterator[tuple[Cell, ...]]:
    """Yield one row per feature and pair of time points; one row without a feature where there is no pair to compare."""
    for item in findings.deltas:
        start = (findings.patient, item.lesion, item.region)
        between = (item.earlier, item.later, item.days)
        if not item.values:
            yield (*start, None, *between, None, None, None, None, item.reason, item.caution)
        for name, (absolute, relative, per_month) in item.values.items():
            change = (_number(absolute), _number(relative), _number(item.log_ratios.get(name)), _number(per_month))
            yield (*start, name, *between, *change, item.reason, item.caution)


def _response_rows(findings: Findings, response: Response) -> Iterator[tuple[Cell, ...]]:
    """Yield one row per visit."""
    dates = {item.name: item.date for item in findings.timepoints}
    for visit in response.visits:
        yield (
            findings.patient,
            visit.day,
            _number(visit.sum_mm),
            _number(visit.baseline_mm),
            _number(visit.nadir_mm),
            visit.target,
            visit.non_target,
            visit.new_lesion,
            visit.recist,
            visit.irecist,
            visit.rule,
            visit.timepoint,
            dates.get(visit.timepoint),
            visit.irecist_rule,
            visit.confirmation,
            _number(visit.new_lesion_sum_mm),
            _number(visit.change_from_baseline_percent),
            _number(visit.change_from_nadir_percent),
            _number(visit.probability_of_progression),
            _number(visit.probability_of_response),
        )


def _flag_rows(findings: Findings) -> Iterator[tuple[Cell, ...]]:
    """Yield one row per flag."""
    for flag in findings.flags:
        yield (
            findings.patient,
            flag.flag,
            flag.status,
            _number(flag.probability),
            _number(flag.lower),
            _number(flag.upper),
            _number(flag.prior),
            flag.level,
            flag.bundle,
            flag.bundle_version,
            flag.applicability,
            flag.reason,
        )


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[Cell, ...]]) -> None:
    """Write one table, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_tables(analysis: Analysis, folder: Path) -> None:
    """Write the tables of one patient into a folder, which is made if need be.

    ``lesions.csv`` has a row per lesion and time point with its changes against the baseline; ``features.csv`` and ``delta.csv`` are
    long, a row per feature; ``response.csv`` has a row per visit, ``best.csv`` one for the patient, ``flags.csv`` one per flag.
    Each file replaces an older one in one step.
    """
    folder = Path(folder)
    _write(folder / "lesions.csv", LESION_COLUMNS, _lesion_rows(analysis))
    _write(folder / "features.csv", FEATURE_COLUMNS, _feature_rows(analysis))
    _write(folder / "delta.csv", DELTA_COLUMNS, _delta_rows(analysis))
    _write_response(analysis, analysis.response, folder)
    _write(folder / "flags.csv", FLAG_COLUMNS, _flag_rows(analysis))


def write_stage_tables(found: StageResult, folder: Path) -> None:
    """Write those tables whose stage has run; a table without rows then says that nothing was found."""
    folder = Path(folder)
    if found.stage != "align":
        _write(folder / "lesions.csv", LESION_COLUMNS, _lesion_rows(found))
    if found.stage in ("extract", "flag", "analyze"):
        _write(folder / "features.csv", FEATURE_COLUMNS, _feature_rows(found))
        _write(folder / "delta.csv", DELTA_COLUMNS, _delta_rows(found))
    if found.response is not None:
        _write_response(found, found.response, folder)
    if found.stage in ("flag", "analyze"):
        _write(folder / "flags.csv", FLAG_COLUMNS, _flag_rows(found))


def _write_response(findings: Findings, response: Response, folder: Path) -> None:
    best = (
        findings.patient,
        response.best_recist,
        response.best_recist_confirmed,
        response.best_irecist,
        response.progression_day,
    )
    _write(folder / "response.csv", RESPONSE_COLUMNS, _response_rows(findings, response))
    _write(folder / "best.csv", BEST_COLUMNS, [best])
