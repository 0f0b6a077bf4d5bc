"""What a finished patient leaves for its cohort, so that the driver reads little of thousands: a summary, and its rows of the training table.

The worker that analysed the patient makes both; the driver only puts them together.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files import whole_file, write_text

SUMMARY_FILE = "summary.json"
TRAINING_FILE = "training.csv"


@dataclass(frozen=True, slots=True)
class ScanSummary:
    """A row of quality.csv: how a time point was made, and how well it lies on the baseline."""

    timepoint: str
    day: int
    segmentation: str
    spacing_x_mm: float
    spacing_y_mm: float
    spacing_z_mm: float
    kvp: float | None
    kernel: str | None
    slice_thickness_mm: float | None
    contrast: bool | None
    manufacturer: str | None
    model: str | None
    alignment_engine: str | None
    alignment_verdict: str | None
    alignment_expected_error_mm: float | None
    alignment_reasons: str | None

    @property
    def scanner(self) -> str:
        """Manufacturer and model of the scanner as far as they are known, else an empty text."""
        return " ".join(part for part in (self.manufacturer, self.model) if part)


@dataclass(frozen=True, slots=True)
class FlagSummary:
    """The answer to one of the three questions, as patients.csv has it."""

    flag: str
    probability: float | None
    lower: float | None
    upper: float | None
    level: str
    applicability: str


@dataclass(frozen=True, slots=True)
class VisitSummary:
    """What the plots of a cohort show of a visit."""

    day: int
    irecist: str
    change_from_baseline_percent: float | None


@dataclass(frozen=True, slots=True)
class PatientSummary:
    """What the driver holds of a patient: its scans, visits and flags in short, and how many lesions and warnings there are."""

    scans: tuple[ScanSummary, ...]
    visits: tuple[VisitSummary, ...]
    flags: tuple[FlagSummary, ...]
    best_recist: str
    best_recist_confirmed: str
    best_irecist: str
    lesions: int
    warnings: int


def write_summary(result: Path, folder: Path) -> None:
    """Write summary.json and training.csv of the patient whose output folder is ``result``."""
    content = json.loads((result / "analysis.json").read_text(encoding="utf-8"))
    alignments = {record["timepoint"]: record for record in content["alignments"]}
    response = content["response"]
    summary = PatientSummary(
        tuple(_scan(record, alignments.get(record["name"])) for record in content["timepoints"]),
        tuple(VisitSummary(**{name: visit[name] for name in VisitSummary.__slots__}) for visit in response["visits"]),
        tuple(FlagSummary(**{name: flag[name] for name in FlagSummary.__slots__}) for flag in content["flags"]),
        response["best_recist"],
        response["best_recist_confirmed"],
        response["best_irecist"],
        len(content["lesions"]),
        len(content["warnings"]),
    )
    write_text(folder / SUMMARY_FILE, json.dumps(asdict(summary), ensure_ascii=False) + "\n")
    lesions = _training_rows(result, content["baseline"])
    columns = sorted({name for values in lesions.values() for name in values})
    with whole_file(folder / TRAINING_FILE) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("lesion", *columns))
        writer.writerows((lesion, *(values.get(name, "") for name in columns)) for lesion, values in lesions.items())


def read_summary(folder: Path) -> PatientSummary:
    """Read the summary.json of a patient's folder."""
    content = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    content["scans"] = tuple(ScanSummary(**item) for item in content["scans"])
    content["visits"] = tuple(VisitSummary(**item) for item in content["visits"])
    content["flags"] = tuple(FlagSummary(**item) for item in content["flags"])
    return PatientSummary(**content)


def _scan(record: dict[str, Any], alignment: dict[str, Any] | None) -> ScanSummary:
    made = record.get("acquisition") or {}
    quality = alignment["quality"] if alignment else {}
    x, y, z = record["spacing_mm"]
    return ScanSummary(
        timepoint=record["name"],
        day=record["day"],
        segmentation=record["segmentation"],
        spacing_x_mm=x,
        spacing_y_mm=y,
        spacing_z_mm=z,
        kvp=made.get("kvp"),
        kernel=made.get("kernel"),
        slice_thickness_mm=made.get("slice_thickness_mm"),
        contrast=made.get("contrast"),
        manufacturer=made.get("manufacturer"),
        model=made.get("model"),
        alignment_engine=alignment["engine"] if alignment else None,
        alignment_verdict=quality.get("verdict"),
        alignment_expected_error_mm=quality.get("expected_error_mm"),
        alignment_reasons="; ".join(quality["reasons"]) if alignment else None,
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _training_rows(result: Path, baseline: str) -> dict[str, dict[str, str]]:
    """Return the measurements of every lesion by their names in the training table, those of the lungs with each.

    Changes are relative, from the baseline: `delta.` to the first follow-up, `delta-NAME.` to a later one.
    """
    lesions: dict[str, dict[str, str]] = {}
    for row in _rows(result / "features.csv"):
        values = lesions.setdefault(row["lesion"], {})
        if row["value"]:
            values[f"{row['timepoint']}.{row['region']}.{row['feature']}"] = row["value"]
    # A scan before the baseline has a change too, which leads to the baseline.
    changes = [row for row in _rows(result / "delta.csv") if row["earlier"] == baseline]
    days = {row["later"]: int(row["days"]) for row in changes}
    later = sorted(days, key=lambda name: days[name])
    for row in changes:
        if row["relative"]:
            prefix = "delta" if row["later"] == later[0] else f"delta-{row['later']}"
            lesions.setdefault(row["lesion"], {})[f"{prefix}.{row['region']}.{row['feature']}"] = row["relative"]
    lungs = lesions.pop("", {})
    return {lesion: {**lesions[lesion], **lungs} for lesion in sorted(lesions)}
