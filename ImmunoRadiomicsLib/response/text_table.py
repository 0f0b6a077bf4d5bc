"""Delimited text tables of any spelling: header, rows, numbers and dates."""

from __future__ import annotations

import csv
import datetime
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from ..delimited import delimiter_of
from ..errors import InputError

EMPTY = ("", ".", "-", "na", "n/a", "nan", "null", "none")
LARGEST_DAY = 100_000
_DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d-%b-%Y", "%d %b %Y", "%d%b%Y", "%Y%m%d")


def spelling(text: str) -> str:
    """Return the lower-case letters and digits of a text, so that spellings compare equal."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a delimited text table: its header and its non-empty rows with their line numbers.

    The delimiter (comma, semicolon, tab or bar) is the one that the header uses most. A byte order mark is ignored.

    Raises
    ------
    InputError
        If the file is missing, is not text, has no header and row, or has rows of more cells than the header.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}). Save the table as CSV in UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text, ",;\t|"), skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise InputError(f"{path}: row {reader.line_num}: is not valid CSV ({error}).") from None
    if len(rows) < 2:
        raise InputError(f"{path}: the table is empty. It needs a header and at least one row.")
    header = rows[0][1]
    wide = [
        f"{path}: row {number}: has {len(cells)} cells, the header has {len(header)}. Quote a cell that holds the delimiter."
        for number, cells in rows[1:]
        if any(cells[len(header) :])
    ]
    if wide:
        raise InputError(wide)
    return header, rows[1:]


def find_columns(header: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Return where each known column is; of several spellings in one table the first listed synonym wins."""
    spelled = [spelling(name) for name in header]
    found = {}
    for key, synonyms in names.items():
        for synonym in synonyms:
            if synonym in spelled:
                found[key] = spelled.index(synonym)
                break
    return found


def suspected_misspellings(header: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return a sentence for every column that is not known but nearly the name of one that the table lacks."""
    found = find_columns(header, names)
    known = {synonym for synonyms in names.values() for synonym in synonyms}
    either = {"day", "date"} if {"day", "date"} & set(found) else set()
    missing = {synonyms[0]: key for key, synonyms in names.items() if key not in found and key not in either}
    result = []
    for name in header:
        bare = spelling(name)
        near = [] if bare in known else difflib.get_close_matches(bare, missing, n=1, cutoff=0.8)
        if near:
            result.append(f"column '{name}' is not known; is it {missing[near[0]]}? Rename it, or leave it out.")
    return result


def parse_number(text: str) -> Decimal | None:
    """Return a number, with a decimal point or comma; None for an empty cell.

    Raises
    ------
    InvalidOperation
        If it is no finite number.
    """
    if text.lower() in EMPTY:
        return None
    normal = text.replace(" ", "")
    if "," in normal and "." not in normal:
        normal = normal.replace(",", ".")
    value = Decimal(normal)
    if not value.is_finite():
        raise InvalidOperation
    return value


def parse_date(text: str) -> datetime.date:
    """Return a date written as 2024-03-02, 2024/03/02, 02.03.2024, 02-Mar-2024 or 20240302 (a time is ignored).

    Raises
    ------
    ValueError
        If it is none of these. Forms such as 02/03/2024 are refused: day and month cannot be told apart.
    """
    clean = re.split(r"[T ](?=\d{1,2}:)", text.strip())[0]
    for form in _DATE_FORMATS:
        try:
            return datetime.datetime.strptime(clean, form).date()
        except ValueError:
            continue
    raise ValueError(text)


def parse_partial_date(text: str) -> tuple[datetime.date, bool]:
    """Return a date, and whether its day was missing: 2024-03 is read as the middle of the month, 2024-03-15.

    Raises
    ------
    ValueError
        As `parse_date`.
    """
    if re.fullmatch(r"\d{4}-\d{2}(-{1,2})?", text.strip()):
        return parse_date(f"{text.strip()[:7]}-15"), True
    return parse_date(text), False


def whole_day(text: str) -> int:
    """Return a whole number of days, also where it is written as 56.0.

    Raises
    ------
    ValueError, InvalidOperation
        If it is no whole number, or beyond any life.
    """
    value = Decimal(text.replace(",", "."))
    if not value.is_finite() or abs(value) > LARGEST_DAY or value != value.to_integral_value():
        raise ValueError(text)
    return int(value)
