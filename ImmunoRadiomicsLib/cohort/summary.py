"""What a finished patient leaves for its cohort, so that the driver reads little of thousands: a summary, and its rows of the training table.

The worker that analysed the patient makes both; the driver only puts them together.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..analysis import AlignmentRecord, Flag, Response, TimepointRecord
from ..files import whole_file, write_text
from ..serialise import from_json

SUMMARY_FILE = "summary.json"
TRAINING_FILE = "training.csv"


@dataclass(frozen=True)
class PatientSummary:
    """Scans, alignments, response and flags of a patient, and how many lesions and warnings there are.

    What explains response and flags is left out: the driver holds the summaries of all patients.
    """

    timepoints: tuple[TimepointRecord, ...]
    alignments: tuple[AlignmentRecord, ...]
    response: Response
    flags: tuple[Flag, ...]
    lesions: int
    warnings: int


def write_summary(result: Path, folder: Path) -> None:
    """Write summary.json and training.csv of the patient whose output folder is ``result``."""
    content = json.loads((result / "analysis.json").read_text(encoding="utf-8"))
    summary: dict[str, Any] = {name: content[name] for name in ("timepoints", "alignments")}
    shortened = {"hyperprogression": [], "dissociated": [], "warnings": [], "narrative": ""}
    summary["response"] = {**content["response"], **shortened}
    summary["flags"] = [{**flag, "evidence": [], "counterfactuals": [], "definitions": []} for flag in content["flags"]]
    summary |= {"lesions": len(content["lesions"]), "warnings": len(content["warnings"])}
    write_text(folder / SUMMARY_FILE, json.dumps(summary, ensure_ascii=False) + "\n")
    lesions = _training_rows(result, content["baseline"])
    columns = sorted({name for values in lesions.values() for name in values})
    with whole_file(folder / TRAINING_FILE) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("lesion", *columns))
        writer.writerows((lesion, *(values.get(name, "") for name in columns)) for lesion, values in lesions.items())


def read_summary(folder: Path) -> PatientSummary:
    """Read the summary.json of a patient's folder."""
    summary: PatientSummary = from_json(PatientSummary, json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8")))
    return summary


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
