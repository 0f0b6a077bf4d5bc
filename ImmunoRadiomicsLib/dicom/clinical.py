"""Treatment and clinical data of patients from a CSV table."""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..delimited import read_rows, with_decimal_point
from ..errors import InputError
from ..study import Clinical, Study, Timepoint, Treatment, parse_study, save_study

_TREATMENT = {"treatment_start": "start", "agents": "agents", "regimen": "regimen", "line": "line"}
COLUMNS = ("patient", "tumour", *_TREATMENT, *(item.name for item in dataclasses.fields(Clinical)))


@dataclass(frozen=True)
class ClinicalRow:
    """What the table says of one patient; ``patient`` is the patient id of the DICOM files or the pseudonym."""

    patient: str
    tumour: str | None = None
    treatment: Treatment = field(default_factory=Treatment)
    clinical: Clinical = field(default_factory=Clinical)


def read_clinical(path: Path) -> dict[str, ClinicalRow]:
    """Read a table with one row per patient and the columns of ``COLUMNS``; all but `patient` may be missing or empty.

    Several agents share a cell, separated by semicolons. Truth values are 0 and 1, or true and false.

    Raises
    ------
    InputError
        With every problem of the table.
    """
    rows, decimal_comma = read_rows(path, "a CSV table with the column `patient`")
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    problems = []
    if "patient" not in header:
        problems.append(f"{path}: there is no column `patient`. The columns are: {', '.join(COLUMNS)}.")
    problems += [
        f"{path}: the column `{name}` is not known. The columns are: {', '.join(COLUMNS)}."
        for name in header
        if name not in COLUMNS
    ]
    problems += [
        f"{path}: the column `{name}` is there twice."
        for name in sorted({name for name in header if header.count(name) > 1})
    ]
    if problems:
        raise InputError(problems)
    found: dict[str, ClinicalRow] = {}
    for number, row in enumerate(rows[1:], start=2):
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=False) if cell.strip()}
        if not cells:
            continue
        where = f"{path}, line {number}"
        if len(row) > len(header) or "patient" not in cells:
            problems.append(f"{where}: the row has {len(row)} cells under {len(header)} columns, or no patient.")
            continue
        if cells["patient"] in found:
            problems.append(f"{where}: the patient of this row has a row already. Keep one.")
            continue
        if decimal_comma:
            cells = {name: cell if name == "patient" else with_decimal_point(cell) for name, cell in cells.items()}
        found[cells["patient"]], wrong = clinical_row(cells)
        problems += [f"{where}: {problem}" for problem in wrong]
    if problems:
        raise InputError(problems)
    return found


def clinical_row(cells: Mapping[str, str]) -> tuple[ClinicalRow, list[str]]:
    """Return what the cells of one row say, by column (empty ones left out), and every problem with them.

    Raises
    ------
    KeyError
        If there is no cell `patient`.
    """
    import yaml

    def load(cell: str) -> Any:
        try:
            found = yaml.safe_load(cell)
        except (ValueError, yaml.YAMLError):
            return cell
        if isinstance(found, float) and found.is_integer():
            return int(found)  # programs that know no missing whole number write 1.0
        # What means something else in YAML, such as `>50`, `-` or `#5`, is told as it was written.
        return found if isinstance(found, int | float | datetime.date) or cell.lower() in ("null", "~") else cell

    truths = {name for name, kind in typing.get_type_hints(Clinical).items() if bool in typing.get_args(kind)}
    values = {name: _value(name, cell, load, truths) for name, cell in cells.items() if name != "patient"}
    treatment = {own: values[name] for name, own in _TREATMENT.items() if name in values}
    clinical = {name: value for name, value in values.items() if name not in _TREATMENT and name != "tumour"}
    row = ClinicalRow(cells["patient"], values.get("tumour"), Treatment(**treatment), Clinical(**clinical))
    return row, _problems(row)


def _value(name: str, cell: str, load: Any, truths: set[str]) -> Any:
    if name == "agents":
        return tuple(part.strip() for part in cell.split(";") if part.strip())
    if name in ("tumour", "regimen", "histology", "smoking", "sex", "setting", "ctdna_change"):
        return cell
    value = load(cell)
    return bool(value) if name in truths and value in (0, 1) else value


def _problems(row: ClinicalRow) -> list[str]:
    """Let the reader of study.yaml judge the values: its limits and its words hold here too."""
    with tempfile.TemporaryDirectory(prefix="clinical-") as name:
        path = Path(name) / "study.yaml"
        days = (datetime.date(2000, 1, 1), datetime.date(2000, 1, 2))
        times = tuple(Timepoint(f"scan-{index}", day, path) for index, day in enumerate(days))
        save_study(Study("patient", times, row.tumour, row.treatment, row.clinical), path)
        _, problems = parse_study(path)
    return [problem.split(": ", 1)[1] for problem in problems]
