"""The tables of a cohort, put together from those of its patients one after the other, in the order of the list."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import whole_file
from .listing import Cohort, CohortPatient
from .work import RESULT, Outcome

# Tables that patients have under the same name.
JOINED = ("lesions", "features", "delta", "response", "best", "flags")
_FLAGS = ("pseudoprogression", "hyperprogression", "pneumonitis")
_FLAG_FACTS = ("probability", "lower", "upper", "level", "applicability")
_QUALITY_COLUMNS = (
    "patient",
    "timepoint",
    "day",
    "segmentation",
    "spacing_x_mm",
    "spacing_y_mm",
    "spacing_z_mm",
    "kvp",
    "kernel",
    "slice_thickness_mm",
    "contrast",
    "manufacturer",
    "model",
    "alignment_engine",
    "alignment_verdict",
    "alignment_expected_error_mm",
    "alignment_reasons",
    "warnings",
)


@dataclass(frozen=True)
class PatientResult:
    """One finished patient: its row of the list, and the folder of its result."""

    patient: CohortPatient
    folder: Path

    def rows(self, table: str) -> Iterator[dict[str, str]]:
        """Yield the rows of one of its tables."""
        with (self.folder / f"{table}.csv").open(encoding="utf-8", newline="") as stream:
            yield from csv.DictReader(stream)

    def analysis(self) -> dict[str, Any]:
        """Return the content of analysis.json."""
        content: dict[str, Any] = json.loads((self.folder / "analysis.json").read_text(encoding="utf-8"))
        return content


def write_tables(cohort: Cohort, outcomes: dict[str, Outcome], out: Path) -> tuple[PatientResult, ...]:
    """Write every table into ``out`` and return the finished patients; each table is either whole or as it was before."""
    finished = tuple(
        PatientResult(patient, out / "patients" / patient.folder / RESULT)
        for patient in cohort.patients
        if outcomes[patient.patient].status == "done"
    )
    for name in JOINED:
        _write_joined(name, finished, out / f"{name}.csv")
    _write(out / "patients.csv", *_patients(cohort, outcomes, finished))
    _write(out / "quality.csv", _QUALITY_COLUMNS, (row for item in finished for row in _quality(item)))
    failed = [outcomes[item.patient] for item in cohort.patients if outcomes[item.patient].status == "failed"]
    logs = {item.patient: f"patients/{item.folder}/failure.txt" for item in cohort.patients}
    _write(
        out / "failures.csv",
        ("patient", "stage", "reason", "log"),
        ((item.patient, item.stage, item.reason, logs[item.patient]) for item in failed),
    )
    _write_training(cohort, finished, out / "training.csv")
    return finished


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _write_joined(name: str, finished: Sequence[PatientResult], path: Path) -> None:
    """Put the tables of the patients below each other; all have the same columns, because the same code wrote them."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        for number, item in enumerate(finished):
            with (item.folder / f"{name}.csv").open(encoding="utf-8", newline="") as source:
                header = source.readline()
                if number == 0:
                    stream.write(header)
                shutil.copyfileobj(source, stream)


def _patients(
    cohort: Cohort, outcomes: dict[str, Outcome], finished: Sequence[PatientResult]
) -> tuple[tuple[str, ...], Iterator[list[object]]]:
    columns = (
        "patient",
        "folder",
        "status",
        "timepoints",
        "lesions",
        "bor",
        "confirmed_bor",
        "ibor",
        *(f"{flag}_{fact}" for flag in _FLAGS for fact in _FLAG_FACTS),
        *cohort.fact_columns,
        *cohort.extra_columns,
    )
    results = {item.patient.patient: item for item in finished}

    def rows() -> Iterator[list[object]]:
        for patient in cohort.patients:
            item = results.get(patient.patient)
            row: list[object] = [patient.patient, f"patients/{patient.folder}", outcomes[patient.patient].status]
            row += [""] * (5 + len(_FLAGS) * len(_FLAG_FACTS)) if item is None else _summary(item)
            row += [patient.facts.get(name, "") for name in cohort.fact_columns]
            row += [patient.extra.get(name, "") for name in cohort.extra_columns]
            yield row

    return columns, rows()


def _summary(item: PatientResult) -> list[object]:
    lesions = list(item.rows("lesions"))
    best = next(item.rows("best"), {})
    flags = {row["flag"]: row for row in item.rows("flags")}
    return [
        len({row["timepoint"] for row in lesions}),
        len({row["lesion"] for row in lesions}),
        best.get("bor", ""),
        best.get("confirmed_bor", ""),
        best.get("ibor", ""),
        *(flags.get(flag, {}).get(fact, "") for flag in _FLAGS for fact in _FLAG_FACTS),
    ]


def _quality(item: PatientResult) -> Iterator[tuple[object, ...]]:
    content = item.analysis()
    alignments = {record["timepoint"]: record for record in content["alignments"]}
    for record in content["timepoints"]:
        made = record.get("acquisition") or {}
        alignment = alignments.get(record["name"])
        quality = alignment["quality"] if alignment else {}
        contrast = made.get("contrast")
        yield tuple(
            "" if value is None else value
            for value in (
                item.patient.patient,
                record["name"],
                record["day"],
                record["segmentation"],
                *record["spacing_mm"],
                made.get("kvp"),
                made.get("kernel"),
                made.get("slice_thickness_mm"),
                None if contrast is None else int(contrast),
                made.get("manufacturer"),
                made.get("model"),
                alignment["engine"] if alignment else None,
                quality.get("verdict"),
                quality.get("expected_error_mm"),
                "; ".join(quality.get("reasons", ())),
                len(content["warnings"]),
            )
        )


def _write_training(cohort: Cohort, finished: Sequence[PatientResult], path: Path) -> None:
    """Write one row per lesion, with the features of the lungs beside: the table that models are trained on.

    Changes are relative, from the baseline: `delta.` to the first follow-up, `delta-NAME.` to a later one.
    """
    names: dict[str, None] = {}
    for item in finished:
        for _, values in _training_rows(item):
            names.update(dict.fromkeys(values))
    # The columns must not depend on which patient came first.
    features = sorted(names)

    def rows() -> Iterator[list[str]]:
        for item in finished:
            facts = [item.patient.facts.get(name, "") for name in cohort.fact_columns]
            extra = [item.patient.extra.get(name, "") for name in cohort.extra_columns]
            for lesion, values in _training_rows(item):
                yield [item.patient.patient, lesion, *extra, *facts, *(values.get(name, "") for name in features)]

    _write(path, ("patient", "lesion", *cohort.extra_columns, *cohort.fact_columns, *features), rows())


def _training_rows(item: PatientResult) -> Iterator[tuple[str, dict[str, str]]]:
    lesions: dict[str, dict[str, str]] = {}
    for row in item.rows("features"):
        values = lesions.setdefault(row["lesion"], {})
        if row["value"]:
            values[f"{row['timepoint']}.{row['region']}.{row['feature']}"] = row["value"]
    days = {row["later"]: int(row["days"]) for row in item.rows("delta")}
    later = [name for name in sorted(days, key=lambda name: days[name]) if days[name] > 0]
    for row in item.rows("delta"):
        if row["later"] in later and row["relative"]:
            prefix = "delta" if row["later"] == later[0] else f"delta-{row['later']}"
            lesions.setdefault(row["lesion"], {})[f"{prefix}.{row['region']}.{row['feature']}"] = row["relative"]
    lungs = lesions.pop("", {})
    for lesion in sorted(lesions):
        yield lesion, {**lesions[lesion], **lungs}


def write_parquet(path: Path, finished: Sequence[PatientResult]) -> None:
    """Write all features as one Parquet table, a row group per patient.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(
        [(name, pyarrow.string()) for name in ("patient", "timepoint", "lesion", "region", "feature")]
        + [("value", pyarrow.float64()), ("reason", pyarrow.string())]
    )
    with whole_file(path) as temporary, ExitStack() as stack:
        writer = stack.enter_context(parquet.ParquetWriter(temporary, schema))
        for item in finished:
            rows = list(item.rows("features"))
            columns: dict[str, list[object]] = {name: [row[name] or None for row in rows] for name in schema.names}
            columns["value"] = [float(row["value"]) if row["value"] else None for row in rows]
            writer.write_table(pyarrow.table(columns, schema=schema))
