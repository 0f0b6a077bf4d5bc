"""Tables as spreadsheets write them: their cells are parted by commas, or by semicolons or tabs where a comma is the decimal one."""

from __future__ import annotations

import csv
import io
import re

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)


def split_rows(text: str) -> tuple[list[list[str]], bool]:
    """Return the rows of a table, and whether a comma in a number is the decimal one. What parts the cells is what the header has most of.

    Raises
    ------
    csv.Error
        If the text is no table.
    """
    delimiter = max(",;\t", key=next((line for line in text.splitlines() if line.strip()), "").count)
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), delimiter != ","


def with_decimal_point(cell: str) -> str:
    """Return a number with a decimal comma as one with a point, anything else as it is."""
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell.strip()) else cell
