"""The training table: read, checked, and turned into numbers; every row, column and cell that is left out is said.

Cells are parted by commas, or by semicolons or tabs if the header has more of those; then a comma in a number is the decimal one.
One row is a patient or a lesion. Columns: `patient` (also `id`), a label of 0 and 1, optional `lesion`, `centre`, `time` with `event`
for survival, clinical columns as in study.yaml, and features named `timepoint.region.name`. Columns of any other name are the user's own:
a recipe reads those that it names; where the table has no feature of the form above, all of them are features.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..classifiers.arm import CLINICAL_WORDS
from ..delimited import split_rows, with_decimal_point
from ..errors import InputError, MissingDependencyError
from ..files import sha256_of
from ..study import Clinical
from .metrics import auc, concordance

FEWEST_ROWS = 10
MOST_MISSING = 0.5
# Good agreement of readings begins here (T. Koo, M. Li, doi:10.1016/j.jcm.2016.02.012).
LEAST_ICC = 0.75
_MOST_PROBLEMS = 20
_ENOUGH_TO_TELL_APART = 5
# A single column that puts so many pairs of rows in order is more often known from the outcome than measured before it.
_SUSPECT_AUC = 0.95
# Squares of larger numbers, and sums of these over a table, are not finite.
_LARGEST = 1e100

PATIENT_NAMES = ("patient", "id", "patient_id", "patientid")
LABEL_NAMES = ("label", "target")
CENTRE_NAMES = ("centre", "center", "site")
TIME_NAMES = ("time", "time_days", "time_months")
EVENT_NAMES = ("event",)
# Answers, not questions: a model that reads one of these reads its own label.
OUTCOME_NAMES = frozenset(
    {
        "label", "target", "outcome", "time", "time_days", "time_months", "event", "pseudoprogression", "hyperprogression",
        "pneumonitis", "response", "bor", "confirmed_bor", "ibor", "pfs", "os", "pfs_days", "os_days", "progression", "death",
    }
)  # fmt: skip
_BOOKKEEPING = frozenset(
    {"lesion", "fold", "folder", "status", "tumour", "agents", "regimen", "treatment_start", "line"}
)
# What groups of patients are compared by, beside the clinical columns.
_DESCRIBING = frozenset({"tumour", "agents", "regimen", "line", "stage", "scanner", "manufacturer", "kernel"})
_MOST_LEVELS = 5
CLINICAL_NAMES = frozenset(item.name for item in dataclasses.fields(Clinical))
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "."})
_YES_NO = {"true": 1.0, "yes": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "no": 0.0, "0": 0.0, "0.0": 0.0}


@dataclass(frozen=True)
class Attribute:
    """Something that patients differ in by few levels, such as sex; ``levels`` has one entry for each row, empty where it is not known."""

    name: str
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A checked table of numbers.

    ``values`` (rows, columns) has NaN where a cell is empty. ``groups`` numbers the patients: rows with the same number are never parted
    between fitting and testing. ``time`` is in the unit of its column; ``labels`` then says whether the event was seen. ``notes`` say what
    was left out, and why. ``batches`` names the batch of each row where features are to be harmonised, and ``attributes`` are what rows
    can be told apart by, whether or not a model reads it.
    """

    source: str
    sha256: str
    label: str
    patients: tuple[str, ...]
    lesions: tuple[str, ...]
    centres: tuple[str, ...]
    groups: np.ndarray
    labels: np.ndarray
    time: np.ndarray | None
    columns: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...]
    batches: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()

    @property
    def harmonised_over(self) -> np.ndarray | None:
        """The batch of each row as an array; None where nothing is to be harmonised."""
        return np.array(self.batches, dtype=object) if self.batches else None

    @property
    def clinical(self) -> tuple[str, ...]:
        """The clinical columns."""
        return tuple(name for name in self.columns if name in CLINICAL_NAMES)

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that are measured from images; in a table without names of the form `timepoint.region.name`, all but clinical ones."""
        dotted = tuple(name for name in self.columns if is_feature(name))
        return dotted or tuple(name for name in self.columns if name not in CLINICAL_NAMES)

    def take(self, columns: Sequence[str]) -> Table:
        """Return the table with these columns only, in this order; KeyError for one that it lacks."""
        place = {name: index for index, name in enumerate(self.columns)}
        index = [place[name] for name in columns]
        return dataclasses.replace(self, columns=tuple(columns), values=self.values[:, index])

    def rows(self, index: np.ndarray) -> Table:
        """Return the table with these rows only."""
        chosen = [int(item) for item in index]
        return dataclasses.replace(
            self,
            patients=tuple(self.patients[item] for item in chosen),
            lesions=tuple(self.lesions[item] for item in chosen) if self.lesions else (),
            centres=tuple(self.centres[item] for item in chosen) if self.centres else (),
            groups=self.groups[chosen],
            labels=self.labels[chosen],
            time=None if self.time is None else self.time[chosen],
            values=self.values[chosen],
            batches=tuple(self.batches[item] for item in chosen) if self.batches else (),
            attributes=tuple(
                Attribute(item.name, tuple(item.levels[row] for row in chosen)) for item in self.attributes
            ),
        )


def is_feature(name: str) -> bool:
    """Say whether a column is named `timepoint.region.name`."""
    return name.count(".") >= 2


def read_header(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of a table.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    return tuple(name for name in _read_cells(path)[0] if name)


def read_table(
    path: Path,
    *,
    label: str | None = None,
    survival: bool = False,
    exclude: Sequence[str] = (),
    needed: Sequence[str] | None = None,
    batch: str | None = None,
) -> Table:
    """Read and check a table (CSV, also compressed with gzip, or Parquet).

    Parameters
    ----------
    path
        The file.
    label
        Column with the label; by default `label` or `target`.
    survival
        Read `time` and `event` in place of a label.
    exclude
        Columns to leave out.
    needed
        The columns that a model reads: these and no others are taken, as they are; without them, all usable columns.
    batch
        Column with the scanner or centre that features are to be harmonised over.

    Raises
    ------
    InputError
        With every problem: what is missing, cells that are no numbers, a single class, a column that repeats the label.
    """
    path = Path(path)
    header, rows, lines = _read_cells(path)
    lower = [name.lower() for name in header]
    problems = [
        f"{path}: the column `{header[lower.index(name)]}` is there {count} times. Rename one."
        for name, count in Counter(lower).items()
        if count > 1 and name
    ]
    patient_at = _find(lower, PATIENT_NAMES)
    if patient_at is None:
        problems.append(f"{path}: there is no column `patient`; it tells which rows belong together.")
    label_names: Sequence[str] = EVENT_NAMES if survival else (label.lower(),) if label else LABEL_NAMES
    label_at = _find(lower, label_names)
    if label_at is None:
        named = " or ".join(f"`{name}`" for name in label_names)
        problems.append(
            f"{path}: there is no column {named}. Name the column of 0 and 1 that is to be predicted with --label."
        )
    time_at = _find(lower, TIME_NAMES) if survival else None
    if survival and time_at is None:
        problems.append(f"{path}: there is no column `time` (follow-up until the event or the last visit).")
    for name in exclude:
        if name.lower() not in lower:
            problems.append(f"{path}: the column `{name}`, which is to be left out, is not there.")
    batch_at = (
        None if batch is None else _find(lower, CENTRE_NAMES if batch.lower() in CENTRE_NAMES else (batch.lower(),))
    )
    if batch is not None and batch_at is None:
        problems.append(f"{path}: there is no column `{batch}`, over which features are to be harmonised.")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header) and len(problems) < _MOST_PROBLEMS:
            problems.append(f"{path}, line {line}: the row has {len(row)} cells under {len(header)} columns.")
    if needed is not None:
        clinical_or_same = {name.lower() if name.lower() in CLINICAL_NAMES else name for name in header}
        problems += [
            f"{path}: there is no column `{name}`, which the model reads."
            for name in needed
            if name not in clinical_or_same
        ]
    if problems or patient_at is None:
        raise InputError(_shortened(problems))
    notes: list[str] = []
    all_rows = len(rows)
    rows, lines = _labelled_rows(rows, lines, (label_at, time_at), notes)
    labels = _labels(path, header, rows, lines, label_at, problems)
    time = _times(path, header, rows, lines, time_at, problems)
    patients = tuple(row[patient_at].strip() for row in rows)
    problems += [
        f"{path}, line {line}: there is no patient." for line, name in zip(lines, patients, strict=True) if not name
    ]
    lesion_at, centre_at = _find(lower, ("lesion",)), _find(lower, CENTRE_NAMES)
    lesions = () if lesion_at is None else tuple(row[lesion_at].strip() for row in rows)
    centres = () if centre_at is None else tuple(row[centre_at].strip() or "not stated" for row in rows)
    if lesions:
        for pair, count in Counter(zip(patients, lesions, strict=True)).items():
            if count > 1:
                problems.append(f"{path}: patient {pair[0]}, lesion {pair[1] or '(none)'} has {count} rows. Keep one.")
    skip = {
        patient_at,
        label_at,
        time_at,
        lesion_at,
        centre_at,
        batch_at,
        *(lower.index(name.lower()) for name in exclude),
    }
    if needed is not None:
        skip |= {at for at, name in enumerate(header) if name not in needed and name.lower() not in needed}
    columns, values = _columns(path, header, rows, lines, skip, problems, notes)
    if not problems:
        problems += _label_problems(path, header, label_at, labels, patients, survival)
    if problems:
        raise InputError(_shortened(problems))
    table = Table(
        source=path.name,
        sha256=sha256_of(path),
        label="event" if survival else header[label_at] if label_at is not None else "",
        patients=patients,
        lesions=lesions,
        centres=centres,
        groups=np.zeros(len(rows), dtype=int),
        labels=labels,
        time=time,
        columns=columns,
        values=values,
        notes=(),
        batches=() if batch_at is None else tuple(row[batch_at].strip() or "not stated" for row in rows),
        attributes=_attributes(header, rows, {patient_at, label_at, time_at}),
    )
    if needed is not None:
        table = table.take(needed)
    else:
        table = _without_empty_columns(table, all_rows, notes)
        if leaks := _leaking(table):
            raise InputError(
                [
                    f"{path}: the column `{name}` tells the label of every row, so it is no predictor but the answer in other words. "
                    f"Remove it, or leave it out with --exclude {name}."
                    for name in leaks
                ]
            )
        if near := _nearly_leaking(table):
            what = (
                "puts all or nearly all rows in the order of their events"
                if survival
                else "parts all or nearly all rows by the label"
            )
            notes.append(
                f"One column alone {what}: {_listed(near)}. Make sure that it was known before the outcome, or "
                "leave it out with --exclude."
            )
    if not table.columns:
        raise InputError([f"{path}: no column is left to learn from.", *notes])
    return dataclasses.replace(table, groups=_groups(table, lower, rows, notes), notes=tuple(notes))


def _read_cells(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the names of the columns, the rows that hold anything, and the line of each."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{path}: the file does not exist. Give a CSV or Parquet table with one row per patient or lesion."
        ) from None
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror}).") from error
    if content[:4] == b"PAR1":
        return _read_parquet(path)
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
        rows, decimal_comma = split_rows(text)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: the table cannot be read as UTF-8 text ({type(error).__name__}). Save it as CSV in UTF-8."
        ) from error
    lines = [line for line, row in enumerate(rows, start=1) if any(cell.strip() for cell in row)]
    rows = [rows[line - 1] for line in lines]
    if decimal_comma:
        rows = [rows[0], *([with_decimal_point(cell) for cell in row] for row in rows[1:])] if rows else rows
    if len(rows) < 2:
        raise InputError(f"{path}: the table is empty; a row of column names and rows of cells are needed.")
    return [cell.strip() for cell in rows[0]], rows[1:], lines[1:]


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: Parquet needs pyarrow; pip install pyarrow, or give the table as CSV."
        ) from error
    try:
        content = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: the table cannot be read as Parquet ({type(error).__name__}).") from error
    cells = [["" if item is None else str(item) for item in column.to_pylist()] for column in content.columns]
    if not cells or not cells[0]:
        raise InputError(f"{path}: the table is empty.")
    rows = [list(row) for row in zip(*cells, strict=True)]
    return [str(name).strip() for name in content.column_names], rows, list(range(2, len(rows) + 2))


def _find(lower: Sequence[str], names: Sequence[str]) -> int | None:
    return next((lower.index(name) for name in names if name in lower), None)


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _labelled_rows(
    rows: list[list[str]], lines: list[int], needed: tuple[int | None, ...], notes: list[str]
) -> tuple[list[list[str]], list[int]]:
    keep = [
        index for index, row in enumerate(rows) if not any(at is not None and _is_missing(row[at]) for at in needed)
    ]
    if missing := len(rows) - len(keep):
        notes.append(f"{missing} of {len(rows)} rows have no outcome and were left out.")
    return [rows[index] for index in keep], [lines[index] for index in keep]


def _labels(
    path: Path, header: list[str], rows: list[list[str]], lines: list[int], at: int | None, problems: list[str]
) -> np.ndarray:
    labels = np.zeros(len(rows), dtype=int)
    if at is None:
        return labels
    wrong: list[int] = []
    for index, row in enumerate(rows):
        value = _number(row[at]) if (said := _YES_NO.get(row[at].strip().lower())) is None else said
        if value in (0.0, 1.0):
            labels[index] = int(value)
        else:
            wrong.append(index)
    if wrong:
        shown = ", ".join(f"{rows[index][at].strip()[:40]!r} in line {lines[index]}" for index in wrong[:3])
        problems.append(
            f"{path}: the label `{header[at]}` has {len(wrong)} of {len(rows)} cells that are neither 0 nor 1 ({shown}). Write 1 for the event and "
            "0 for none (yes and no, true and false are read too); rows whose label is empty are left out."
        )
    return labels


def _times(
    path: Path, header: list[str], rows: list[list[str]], lines: list[int], at: int | None, problems: list[str]
) -> np.ndarray | None:
    if at is None:
        return None
    times = np.zeros(len(rows))
    for index, row in enumerate(rows):
        value = _number(row[at])
        if value is None or not value > 0:
            problems.append(
                f"{path}, line {lines[index]}: `{header[at]}` is {row[at].strip()[:40]!r}; a number above 0 and below {_LARGEST:g} is needed."
            )
        else:
            times[index] = value
    return times


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < _LARGEST else None


def _is_number(cell: str) -> bool:
    """Say whether a cell is written as a number, be it one that nothing can be reckoned with."""
    try:
        return not math.isnan(float(cell))
    except ValueError:
        return False


def _clinical_number(name: str) -> Callable[[str], float | None]:
    words = CLINICAL_WORDS.get(name)
    if words is not None:
        return lambda cell: words.get(cell.strip().lower(), _number(cell))
    if name == "histology":
        return lambda cell: float("squam" in cell.lower()) if _number(cell) is None else _number(cell)
    return lambda cell: _YES_NO.get(cell.strip().lower(), _number(cell))


def _columns(
    path: Path,
    header: list[str],
    rows: list[list[str]],
    lines: list[int],
    skip: set[int | None],
    problems: list[str],
    notes: list[str],
) -> tuple[tuple[str, ...], np.ndarray]:
    """Turn cells into numbers; columns of text that nobody named as a feature are left aside."""
    plain = not any(is_feature(name) for name in header)
    names: list[str] = []
    columns: list[np.ndarray] = []
    outcomes, texts = [], []
    nameless = sum(not name and any(row[at].strip() for row in rows) for at, name in enumerate(header))
    for at, name in enumerate(header):
        low = name.lower()
        if at in skip or low in _BOOKKEEPING or low in PATIENT_NAMES or not name:
            continue
        if low in OUTCOME_NAMES:
            outcomes.append(name)
            continue
        clinical = low in CLINICAL_NAMES
        values, wrong = _parse([row[at] for row in rows], _clinical_number(low) if clinical else _number)
        if wrong:
            filled = np.isfinite(values).sum() + len(wrong)
            words = [index for index in wrong if not _is_number(rows[index][at])]
            if not (clinical or is_feature(name)) and (not plain or 2 * len(words) > filled):
                texts.append(name)
                continue
            shown = ", ".join(f"{rows[index][at].strip()[:30]!r} in line {lines[index]}" for index in wrong[:3])
            problems.append(
                f"{path}: the column `{name}` has {len(wrong)} of {filled} cells that are no numbers{'' if words else ' below ' + f'{_LARGEST:g}'} ({shown}). Correct them, leave "
                f"them empty, or leave the column out with --exclude {name}."
            )
            continue
        names.append(low if clinical else name)
        columns.append(values)
    for found, why in ((outcomes, "they tell outcomes"), (texts, "they hold text")):
        if found:
            notes.append(f"Not used because {why}: {_listed(found)}.")
    if nameless:
        notes.append(f"Not used because the header has no name for it: {nameless} column{'s' if nameless > 1 else ''}.")
    return tuple(names), np.column_stack(columns) if columns else np.empty((len(rows), 0))


def _parse(cells: list[str], number: Callable[[str], float | None]) -> tuple[np.ndarray, list[int]]:
    values = np.full(len(cells), np.nan)
    wrong = []
    for index, cell in enumerate(cells):
        if _is_missing(cell):
            continue
        value = number(cell)
        if value is None:
            wrong.append(index)
        else:
            values[index] = value
    return values, wrong


def _label_problems(
    path: Path, header: list[str], at: int | None, labels: np.ndarray, patients: Sequence[str], survival: bool
) -> list[str]:
    if at is None:
        return []
    rows = labels.size
    if rows < FEWEST_ROWS:
        return [f"{path}: {rows} rows have an outcome; at least {FEWEST_ROWS} are needed to fit and test anything."]
    events = int(labels.sum())
    if survival:
        # Nobody need be alive at the end of a study; without an event there is no order.
        return (
            [] if events else [f"{path}: every `{header[at]}` is 0. Survival is learnt from those who had the event."]
        )
    if events in (0, rows):
        return [f"{path}: every `{header[at]}` is {labels[0]}. Both classes are needed to learn the difference."]
    several = "at least two are needed, one to fit and one to test."
    if min(events, rows - events) < 2:
        return [f"{path}: one class of `{header[at]}` has a single row; {several}"]
    holders = [{name for name, found in zip(patients, labels, strict=True) if found == value} for value in (0, 1)]
    if min(len(names) for names in holders) < 2:
        return [f"{path}: one class of `{header[at]}` has rows of a single patient; {several}"]
    return []


def _without_empty_columns(table: Table, rows: int, notes: list[str]) -> Table:
    """Leave out columns that cannot help: mostly missing, constant, numbering the ``rows`` of the file, or equal to one before.

    The label plays no part in this.
    """
    values = table.values
    missing = np.isnan(values).mean(axis=0)
    keep, constant, sparse, twins, counting = [], [], [], [], []
    seen: dict[bytes, str] = {}
    for index, name in enumerate(table.columns):
        column = values[:, index]
        known = column[~np.isnan(column)]
        if missing[index] > MOST_MISSING:
            sparse.append(f"{name} ({missing[index]:.0%})")
        elif known.size == 0 or known.min() == known.max():
            constant.append(name)
        elif name not in CLINICAL_NAMES and _counts_rows(column, rows):
            counting.append(name)
        elif (key := hashlib.sha256((column + 0.0).tobytes()).digest()) in seen:
            twins.append(f"{name} (as {seen[key]})")
        else:
            seen[key] = name
            keep.append(name)
    if sparse:
        notes.append(f"Left out, more than {MOST_MISSING:.0%} of the cells are empty: {_listed(sparse)}.")
    if constant:
        notes.append(f"Left out, the same value in every row: {_listed(constant)}.")
    if counting:
        notes.append(f"Left out, a running number of the rows: {_listed(counting)}.")
    if twins:
        notes.append(f"Left out, equal to another column: {_listed(twins)}.")
    return table.take(keep)


def _counts_rows(column: np.ndarray, rows: int) -> bool:
    """Say whether a column numbers the rows of a file upwards in whole numbers, some of which may have been left out."""
    if column.size < 2 or not np.array_equal(column, np.round(column)):
        return False
    return bool((np.diff(column) > 0).all() and column[-1] - column[0] < rows)


def _leaking(table: Table) -> list[str]:
    """Return the columns with two values that part the rows as the label does, all rows in which they are known."""
    found = []
    for index, name in enumerate(table.columns):
        column = table.values[:, index]
        known = ~np.isnan(column)
        marked = table.labels[known] == 1
        # A few cells agree by chance.
        if not known.all() and min(marked.sum(), (~marked).sum()) < _ENOUGH_TO_TELL_APART:
            continue
        levels = np.unique(column[known])
        if levels.size == 2:
            same = (column[known] == levels[1]) == marked
            if same.all() or not same.any():
                found.append(name)
    return found


def _attributes(header: Sequence[str], rows: Sequence[Sequence[str]], skip: set[int | None]) -> tuple[Attribute, ...]:
    """Return the clinical and descriptive columns by which patients fall into a few groups; numbers are parted at their median."""
    found = []
    for at, name in enumerate(header):
        low = name.lower()
        if at in skip or not (low in CLINICAL_NAMES or low in _DESCRIBING):
            continue
        cells = ["" if _is_missing(row[at]) else row[at].strip() for row in rows]
        distinct = {cell for cell in cells if cell}
        if len(distinct) > _MOST_LEVELS:
            numbers = [None if not cell else _number(cell) for cell in cells]
            known = [item for item in numbers if item is not None]
            if len(known) < sum(bool(cell) for cell in cells):
                continue
            middle = float(np.median(known))
            cells = ["" if item is None else f"{'up to' if item <= middle else 'above'} {middle:g}" for item in numbers]
            distinct = {cell for cell in cells if cell}
        if len(distinct) > 1:
            found.append(Attribute(name, tuple(cells)))
    return tuple(found)


def without_unstable(table: Table, path: Path, least: float) -> tuple[Table, str]:
    """Leave out the features whose readings do not agree: return the rest, and in a sentence what was done.

    Parameters
    ----------
    path
        CSV with the columns `feature` and `icc`, as `cohort` writes it in stability.csv; the part of a column after time point and region is
        looked up there. What the file does not have, or has without a figure, was not judged and stays.
    least
        The intraclass correlation below which a feature is left out.

    Raises
    ------
    InputError
        If the file cannot be read, an `icc` is no number, or nothing of the table is in it.
    """
    header, rows, lines = _read_cells(path)
    lower = [name.lower() for name in header]
    if not {"feature", "icc"} <= set(lower):
        raise InputError(f"{path}: the columns `feature` and `icc` are needed; `cohort --perturbations` writes them.")
    judged: dict[str, float] = {}
    problems = []
    for line, row in zip(lines, rows, strict=True):
        feature, cell = row[lower.index("feature")].strip(), row[lower.index("icc")]
        if _is_missing(cell):
            continue
        value = _number(cell)
        if value is None:
            problems.append(f"{path}, line {line}: the icc is {cell.strip()[:40]!r}; a number is needed.")
        else:
            judged[feature] = value
    measured = {name: name.split(".", 2)[-1] for name in table.features}
    known = [name for name, feature in measured.items() if feature in judged]
    if not problems and not known:
        problems.append(f"{path}: no feature of {table.source} is judged there; is it that of another preset?")
    if problems:
        raise InputError(_shortened(problems))
    dropped = {name for name in known if judged[measured[name]] < least}
    text = (
        f"{len(dropped)} of {len(known)} measured columns were left out because their intraclass correlation over perturbed contours is below {least:g}; "
        f"{len(measured) - len(known)} were not judged and stay."
    )
    return table.take([name for name in table.columns if name not in dropped]), text


def _nearly_leaking(table: Table) -> list[str]:
    """Return the columns that part rows with the label from rows without so well as measurements hardly ever do, with their AUC.

    For survival: that put rows in the order of their events, with Harrell's C.
    """
    found = []
    for index, name in enumerate(table.columns):
        column = table.values[:, index]
        known = ~np.isnan(column)
        labels = table.labels[known]
        others = labels.size if table.time is not None else labels.size - labels.sum()
        if min(labels.sum(), others) < _ENOUGH_TO_TELL_APART:
            continue
        if table.time is None:
            figure, told = "AUC", auc(column[known], labels)
        else:
            figure, told = "C", concordance(column[known], labels, table.time[known])
        if max(told, 1 - told) >= _SUSPECT_AUC:
            found.append(f"{name} ({figure} {max(told, 1 - told):.2f})")
    return found


def _groups(table: Table, lower: list[str], rows: list[list[str]], notes: list[str]) -> np.ndarray:
    """Give each patient a number; rows with the same numbers under two codes count as one patient."""
    parent = {name: name for name in table.patients}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    seen: dict[bytes, str] = {}
    twins = []
    if table.values.shape[1] >= _ENOUGH_TO_TELL_APART:
        for name, row in zip(table.patients, table.values, strict=True):
            other = seen.setdefault((row + 0.0).tobytes(), name)
            if root(other) != root(name):
                twins.append(f"{other} and {name}")
                parent[root(name)] = root(other)
    if twins:
        notes.append(f"The same measurements under two codes; kept in one fold: {_listed(twins)}.")
    several = sum(count > 1 for count in Counter(table.patients).values())
    if several:
        notes.append(
            f"{several} of {len(set(table.patients))} patients have several rows; all rows of a patient are kept in one fold."
        )
    if "fold" in lower:
        at = lower.index("fold")
        folds: dict[str, set[str]] = {}
        for name, row in zip(table.patients, rows, strict=True):
            folds.setdefault(name, set()).add(row[at].strip())
        split = [name for name, found in folds.items() if len(found) > 1]
        notes.append(
            "The column `fold` is not used: folds are drawn by patient."
            + (f" It parts the rows of {len(split)} patients: {_listed(split)}." if split else "")
        )
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(root(name), len(numbers)) for name in table.patients])


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _shortened(problems: list[str]) -> list[str]:
    if len(problems) <= _MOST_PROBLEMS:
        return problems
    return [*problems[:_MOST_PROBLEMS], f"and {len(problems) - _MOST_PROBLEMS} further problems of the same table."]
