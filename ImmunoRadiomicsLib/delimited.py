"""Tables as spreadsheets write them: their cells are parted by commas, or by semicolons or tabs where a comma is the decimal one."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from .errors import InputError

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)


def read_rows(path: Path, wanted: str) -> tuple[list[list[str]], bool]:
    """Return what ``split_rows`` does of a file; ``wanted`` says what to give where there is none.

    Raises
    ------
    InputError
        If the file cannot be read, or is no table in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return split_rows(stream.read())
    except FileNotFoundError:
        raise InputError(f"{path}: the file does not exist. Give {wanted}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: the table cannot be read as UTF-8 text ({type(error).__name__}). Save it as CSV in UTF-8."
        ) from error


def delimiter_of(text: str, candidates: str = ",;\t") -> str:
    """Return what parts the cells of a table: of some characters the one that its header has most of."""
    return max(candidates, key=next((line for line in text.splitlines() if line.strip()), "").count)


def split_rows(text: str) -> tuple[list[list[str]], bool]:
    """Return the rows of a table, and whether a comma in a number is the decimal one. What parts the cells is what the header has most of.

    Raises
    ------
    csv.Error
        If the text is no table.
    """
    delimiter = delimiter_of(text)
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), delimiter != ","


def with_decimal_point(cell: str) -> str:
    """Return a number with a decimal comma as one with a point, anything else as it is."""
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell.strip()) else cell
