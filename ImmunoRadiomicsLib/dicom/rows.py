"""The table of an import: each series, what became of it, and why."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

from .headers import Scan

TABLE = "series.csv"


@dataclass(frozen=True)
class SeriesRow:
    """One line of series.csv: a series, or a part of one, and what became of it.

    ``use`` is `ct`, `pet`, `segmentation`, `report` or `left out`; ``reason`` says why; ``notes`` what a reader should know.
    """

    patient: str
    date: str
    timepoint: str
    use: str
    reason: str
    modality: str
    images: int
    series: str
    description: str = ""
    kernel: str = ""
    kvp: float | None = None
    contrast: bool | None = None
    slice_thickness_mm: float | None = None
    step_mm: float | None = None
    coverage_mm: float | None = None
    notes: str = ""


def rows_of_files(scan: Scan) -> list[SeriesRow]:
    """Return lines for what belongs to no series: files that are not DICOM, that are damaged, and directories of media."""
    reasons: dict[str, int] = {}
    for _, reason in scan.unreadable:
        reasons[reason] = reasons.get(reason, 0) + 1
    if scan.foreign:
        reasons["not a DICOM file"] = scan.foreign
    if scan.indices:
        reasons["a directory of a medium (DICOMDIR); its files are found without it"] = scan.indices
    return [SeriesRow("", "", "", "left out", reason, "", count, "") for reason, count in reasons.items()]


def table_text(rows: Sequence[SeriesRow]) -> str:
    """Return the lines of series.csv, truth values as 0 and 1, what is not known as an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [item.name for item in fields(SeriesRow)]
    writer.writerow(columns)
    for row in rows:
        cells = (getattr(row, name) for name in columns)
        writer.writerow("" if cell is None else int(cell) if isinstance(cell, bool) else cell for cell in cells)
    return stream.getvalue()
