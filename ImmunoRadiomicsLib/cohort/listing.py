"""The list of a cohort: one row per patient, with the path of its study, clinical columns and labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from ..delimited import read_rows, with_decimal_point
from ..dicom.clinical import COLUMNS as CLINICAL_COLUMNS
from ..errors import InputError

_SOURCE_COLUMNS = ("study", "path", "dicom")
_NAME_CHARACTERS = 16


@dataclass(frozen=True)
class CohortPatient:
    """One row: the patient's code, a study.yaml or a folder of DICOM files, and what the other columns say.

    ``facts`` are the cells of clinical columns, which win over study.yaml; ``extra`` those of all other columns, which are handed on to
    the tables as they are: labels, centre, scanner, a user's own measurements. Empty cells are left out.
    """

    patient: str
    source: Path
    facts: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of the patient's folder in the output, which does not tell who it is."""
        return hashlib.sha256(self.patient.encode()).hexdigest()[:_NAME_CHARACTERS]


@dataclass(frozen=True)
class Cohort:
    """The patients in the order of the list, and the names of the columns that are handed on."""

    patients: tuple[CohortPatient, ...]
    fact_columns: tuple[str, ...] = ()
    extra_columns: tuple[str, ...] = ()


def read_cohort(path: Path) -> Cohort:
    """Read COHORT.csv: columns `patient` and `study` (a study.yaml or a folder of DICOM files, relative to the list), and any others.

    Cells are parted by commas, or by semicolons or tabs if the header has more of those; then a comma in a number is the decimal one.
    Whether the studies can be analysed is not looked at: one that cannot fails alone.

    Raises
    ------
    InputError
        With every problem of the list, with line numbers.
    """
    rows, decimal_comma = read_rows(path, "a CSV table with the columns `patient` and `study`")
    header = [cell.strip() for cell in rows[0]] if rows else []
    lower = [name.lower() for name in header]
    source = next((name for name in _SOURCE_COLUMNS if name in lower), None)
    problems = [] if "patient" in lower else [f"{path}: there is no column `patient`."]
    if source is None:
        problems.append(f"{path}: there is no column `study` with the path of a study.yaml or a DICOM folder.")
    problems += [
        f"{path}: the column `{name}` is there twice." for name in sorted({n for n in lower if lower.count(n) > 1})
    ]
    if problems or source is None:
        raise InputError(problems)
    facts = tuple(name for name in lower if name in CLINICAL_COLUMNS and name != "patient")
    extra = tuple(
        name for name, low in zip(header, lower, strict=True) if low not in (*facts, "patient", source) and name
    )
    lines: dict[str, int] = {}
    patients = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        where = f"{path}, line {number}"
        if len(row) != len(header):
            problems.append(f"{where}: the row has {len(row)} cells under {len(header)} columns.")
            continue
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True) if cell.strip()}
        known = {name.lower(): cell for name, cell in cells.items()}
        handed = {name: with_decimal_point(cell) if decimal_comma else cell for name, cell in cells.items()}
        patient = known.get("patient", "")
        if not patient or source not in known:
            problems.append(f"{where}: the row has no `{'patient' if not patient else source}`.")
        elif patient in lines:
            problems.append(f"{where}: the patient {patient} stands in line {lines[patient]} already. Keep one.")
        else:
            lines[patient] = number
            patients.append(
                CohortPatient(
                    patient,
                    path.resolve().parent / known[source],
                    {name.lower(): cell for name, cell in handed.items() if name.lower() in facts},
                    {name: handed[name] for name in extra if name in handed},
                )
            )
    if not patients and not problems:
        problems.append(f"{path}: there is no patient in the table.")
    if problems:
        raise InputError(problems)
    return Cohort(tuple(patients), facts, extra)
