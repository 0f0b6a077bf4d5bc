"""The tables of a cohort, put together from those of its patients one after the other, in the order of the list.

Nothing of a patient is held longer than it takes to write its rows, but for a short summary.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import whole_file
from ..report.tables import (
    BEST_COLUMNS,
    DELTA_COLUMNS,
    FEATURE_COLUMNS,
    FLAG_COLUMNS,
    LESION_COLUMNS,
    RESPONSE_COLUMNS,
)
from .listing import Cohort, CohortPatient
from .summary import TRAINING_FILE, PatientSummary, ScanSummary, read_summary
from .work import FAILURE_FILE, RESULT, Outcome

PARQUET_FILE = "features.parquet"
# Tables that patients have under the same name, and their columns.
JOINED = {
    "lesions": LESION_COLUMNS,
    "features": FEATURE_COLUMNS,
    "delta": DELTA_COLUMNS,
    "response": RESPONSE_COLUMNS,
    "best": BEST_COLUMNS,
    "flags": FLAG_COLUMNS,
}
FLAGS = ("pseudoprogression", "hyperprogression", "pneumonitis")
_FLAG_FACTS = ("probability", "lower", "upper", "level", "applicability")
PATIENT_COLUMNS = (
    "patient",
    "folder",
    "status",
    "timepoints",
    "lesions",
    "bor",
    "confirmed_bor",
    "ibor",
    *(f"{flag}_{fact}" for flag in FLAGS for fact in _FLAG_FACTS),
)
_TRAINING_COLUMNS = ("patient", "lesion")
_QUALITY_COLUMNS = ("patient", *ScanSummary.__slots__, "warnings")
# Readers of Parquet skip whole groups of rows: few and large ones are read fastest.
_ROWS_OF_A_GROUP = 200_000
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class PatientResult:
    """One finished patient: its row of the list, its folder, and the summary that its worker left there."""

    patient: CohortPatient
    folder: Path
    summary: PatientSummary

    def table(self, name: str) -> Path:
        """Return the path of one of its tables."""
        return self.folder / RESULT / f"{name}.csv"


def check_columns(cohort: Cohort) -> None:
    """Refuse columns of the list that would stand beside those of the same name in the tables.

    Raises
    ------
    InputError
        With every such column.
    """
    own = {*PATIENT_COLUMNS, *_TRAINING_COLUMNS}
    problems = [
        f"The column `{name}` of the list would stand twice in the tables of the cohort, which have one of this name. Rename it."
        for name in cohort.extra_columns
        if name.lower() in own
    ]
    if problems:
        raise InputError(problems)


def write_tables(cohort: Cohort, outcomes: dict[str, Outcome], out: Path) -> tuple[PatientResult, ...]:
    """Write every table into ``out`` and return the finished patients; each table is either whole or as it was before."""
    finished = tuple(
        PatientResult(patient, folder, read_summary(folder))
        for patient in cohort.patients
        if outcomes[patient.patient].status == "done" and (folder := out / "patients" / patient.folder)
    )
    for name, columns in JOINED.items():
        _write_joined(name, columns, finished, out / f"{name}.csv")
    _write(out / "patients.csv", *_patients(cohort, outcomes, finished))
    _write(out / "quality.csv", _QUALITY_COLUMNS, (row for item in finished for row in _quality(item)))
    failed = [outcomes[item.patient] for item in cohort.patients if outcomes[item.patient].status == "failed"]
    logs = {item.patient: f"patients/{item.folder}/{FAILURE_FILE}" for item in cohort.patients}
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


def _write_joined(name: str, columns: Sequence[str], finished: Sequence[PatientResult], path: Path) -> None:
    """Put the tables of the patients below each other; all have the same columns, because the same code wrote them."""
    header = (",".join(columns) + "\n").encode()
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        stream.write(header)
        for item in finished:
            with open(item.table(name), "rb", buffering=0) as source:
                source.seek(len(header))
                shutil.copyfileobj(source, stream, 1 << 20)


def _patients(
    cohort: Cohort, outcomes: dict[str, Outcome], finished: Sequence[PatientResult]
) -> tuple[tuple[str, ...], Iterator[list[object]]]:
    columns = (*PATIENT_COLUMNS, *cohort.fact_columns, *cohort.extra_columns)
    summaries = {item.patient.patient: item.summary for item in finished}

    def rows() -> Iterator[list[object]]:
        for patient in cohort.patients:
            summary = summaries.get(patient.patient)
            row: list[object] = [patient.patient, f"patients/{patient.folder}", outcomes[patient.patient].status]
            row += [None] * (5 + len(FLAGS) * len(_FLAG_FACTS)) if summary is None else _found(summary)
            row += _listed(cohort, patient, facts_first=True)
            yield row

    return columns, rows()


def _listed(cohort: Cohort, patient: CohortPatient, *, facts_first: bool) -> list[str]:
    """Return the cells of the list that are handed on to a table."""
    facts = [patient.facts.get(name, "") for name in cohort.fact_columns]
    extra = [patient.extra.get(name, "") for name in cohort.extra_columns]
    return facts + extra if facts_first else extra + facts


def _found(summary: PatientSummary) -> list[object]:
    flags = {item.flag: item for item in summary.flags}
    return [
        len(summary.scans),
        summary.lesions,
        summary.best_recist,
        summary.best_recist_confirmed,
        summary.best_irecist,
        *(getattr(flags.get(flag), fact, None) for flag in FLAGS for fact in _FLAG_FACTS),
    ]


def _quality(item: PatientResult) -> Iterator[tuple[object, ...]]:
    for scan in item.summary.scans:
        cells = (getattr(scan, name) for name in ScanSummary.__slots__)
        numbers = (int(cell) if isinstance(cell, bool) else cell for cell in cells)
        yield item.patient.patient, *numbers, item.summary.warnings


def _write_training(cohort: Cohort, finished: Sequence[PatientResult], path: Path) -> None:
    """Write one row per lesion, with the features of the lungs beside: the table that models are trained on.

    Where the list has no column `scanner` and the images tell, that of the baseline stands after the columns of the list.
    """
    scanners = {item.patient.patient: _scanner_of_baseline(item) for item in finished}
    told = any(scanners.values()) and not any(name.lower() == "scanner" for name in cohort.extra_columns)
    names: set[str] = set()
    # Most patients have the same columns: what is found out about a header is kept.
    seen: set[str] = set()
    for item in finished:
        with (item.folder / TRAINING_FILE).open(encoding="utf-8", newline="") as stream:
            header = stream.readline()
        if header not in seen:
            seen.add(header)
            names.update(next(csv.reader([header]))[1:])
    # The columns must not depend on which patient came first.
    features = sorted(names)
    columns = (*_TRAINING_COLUMNS, *cohort.extra_columns, *cohort.fact_columns, *(("scanner",) if told else ()))
    places: dict[str, list[int]] = {}
    in_place = list(range(1, len(features) + 1))
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((*columns, *features))
        for item in finished:
            listed = _listed(cohort, item.patient, facts_first=False)
            listed += [scanners[item.patient.patient]] if told else []
            with (item.folder / TRAINING_FILE).open(encoding="utf-8", newline="") as source:
                header, body = source.readline(), source.read()
            if header not in places:
                places[header] = _places(header, features)
            wanted = places[header]
            lines = io.StringIO(body, newline="\n")
            if features and wanted == in_place and '"' not in body:
                # The lines need not be taken apart.
                first, middle = _line([item.patient.patient]), _line(["", *listed, ""])
                for line in lines:
                    lesion, _, values = line.partition(",")
                    stream.write(f"{first},{lesion}{middle}{values}")
                continue
            for row in csv.reader(lines):
                row.append("")
                writer.writerow((item.patient.patient, row[0], *listed, *map(row.__getitem__, wanted)))


def _places(header: str, features: Sequence[str]) -> list[int]:
    """Return where each feature stands in the rows under a header; those that are not there stand after the last column."""
    own = next(csv.reader([header]))
    found = {name: place for place, name in enumerate(own)}
    return [found.get(name, len(own)) for name in features]


def _line(cells: Sequence[str]) -> str:
    """Return cells as a part of a line of a table."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(cells)
    return stream.getvalue()


def _scanner_of_baseline(item: PatientResult) -> str:
    return next((scan.scanner for scan in item.summary.scans if scan.day == 0), "")


def write_parquet(features: Path, path: Path) -> None:
    """Write features.csv of all patients as one Parquet table.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    import pyarrow
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    types = {name: pyarrow.float64() if name == "value" else pyarrow.string() for name in FEATURE_COLUMNS}
    as_typed = arrow_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    # The driver needs no second thread: the cores belong to the workers.
    alone = arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
    quoted = arrow_csv.ParseOptions(newlines_in_values=True)
    with whole_file(path) as temporary, ExitStack() as stack:
        reader = stack.enter_context(arrow_csv.open_csv(features, alone, quoted, as_typed))
        writer = stack.enter_context(parquet.ParquetWriter(temporary, pyarrow.schema(types.items())))
        waiting: list[pyarrow.RecordBatch] = []
        for batch in reader:
            waiting.append(batch)
            if sum(map(len, waiting)) >= _ROWS_OF_A_GROUP:
                writer.write_table(pyarrow.Table.from_batches(waiting).combine_chunks())
                waiting.clear()
        if waiting:
            writer.write_table(pyarrow.Table.from_batches(waiting).combine_chunks())
