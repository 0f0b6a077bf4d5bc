"""Features of a cohort without the mark of scanner or centre, beside those that were measured, and what that changed.

The whole cohort is harmonised at once, to describe it. A model that is trained on such a table has seen the patients that it is tested on:
`train` harmonises inside its folds instead.
"""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import InputError
from ..files import whole_file
from ..report.tables import FEATURE_COLUMNS
from .listing import Cohort
from .tables import PatientResult

if TYPE_CHECKING:
    from ..training.harmonisation import Harmonised

Batch = Literal["centre", "scanner"]
HARMONISED_FILE = "features_harmonised.csv"
_SPELLINGS = {"centre": ("centre", "center", "site"), "scanner": ("scanner",)}
# The scatter of more rows cannot be told apart, and the decomposition of as many is quick.
_MOST_SCATTERED = 1000


@dataclass(frozen=True)
class HarmonisedPart:
    """What harmonisation did to the regions of lesions, or to the lungs.

    ``shares`` are, for each feature, the share of its variance between batches before and after, from 0 to 1. ``scatter`` holds, for before
    and after, the first two principal components of rows (lesions or lungs at a time point), in standard deviations, (rows, 2);
    ``scattered`` names the batch of each of these rows.
    """

    name: str
    note: str
    batches: tuple[str, ...]
    shares: tuple[np.ndarray, np.ndarray]
    scatter: tuple[np.ndarray, np.ndarray]
    scattered: tuple[str, ...]


@dataclass(frozen=True)
class HarmonisedCohort:
    """The parts, how many scans each batch has, and how many scans have none and stay as they were."""

    by: Batch
    parts: tuple[HarmonisedPart, ...]
    scans: dict[str, int]
    without: int


@dataclass
class _Long:
    """Measurements in long form: the row, the column and the value of each; empty values are left out."""

    rows: dict[tuple[str, ...], int] = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)
    batches: list[str] = field(default_factory=list)
    places: tuple[array[int], array[int]] = field(default_factory=lambda: (array("l"), array("l")))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, row: tuple[str, ...], batch: str, column: str, value: float) -> None:
        if row not in self.rows:
            self.rows[row] = len(self.rows)
            self.batches.append(batch)
        self.places[0].append(self.rows[row])
        self.places[1].append(self.columns.setdefault(column, len(self.columns)))
        self.values.append(value)

    def table(self) -> np.ndarray:
        """Return the values as (rows, columns), NaN where there is none."""
        table = np.full((len(self.rows), len(self.columns)), np.nan)
        table[np.asarray(self.places[0]), np.asarray(self.places[1])] = self.values
        return table


def check_batch(cohort: Cohort, by: Batch) -> None:
    """Refuse what cannot be done before any patient is analysed.

    Raises
    ------
    InputError
        If the list has no column for centres. Scanners can be told from the images.
    """
    if by == "centre" and _column(cohort, by) is None:
        raise InputError("Harmonising by centre needs a column `centre` in the list of the cohort.")


def harmonise_features(cohort: Cohort, finished: Sequence[PatientResult], by: Batch, path: Path) -> HarmonisedCohort:
    """Write the harmonised features of all patients in the columns of features.csv and, after them, the batch of each row.

    Lesions and lungs are harmonised apart; a row is a lesion (or the lungs) at a time point, and what one scanner does to a feature is taken to be
    the same at every time point. Rows without a batch, and of batches with too few rows, stay as they were.
    """
    from ..training.harmonisation import harmonise  # with it comes all of training, and most runs do without

    column = _column(cohort, by)
    batches = {item.patient.patient: _batches_of(item, by, column) for item in finished}
    parts = {"lesions": _Long(), "lungs": _Long()}
    for row, batch in _features(finished, batches):
        if batch and row["value"]:
            part, place, name = _place(row)
            parts[part].add(place, batch, name, float(row["value"]))
    done = {name: harmonise(part.table(), part.batches) for name, part in parts.items() if part.rows}
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, (*FEATURE_COLUMNS, "batch"), lineterminator="\n")
        writer.writeheader()
        for row, batch in _features(finished, batches):
            if batch and row["value"]:
                part, place, name = _place(row)
                value = done[part].values[parts[part].rows[place], parts[part].columns[name]]
                row["value"] = repr(float(value))
            writer.writerow({**row, "batch": batch})
    scans = Counter(batch for of_patient in batches.values() for batch in of_patient.values())
    without = scans.pop("", 0)
    described = tuple(_described(name, parts[name], found) for name, found in done.items())
    return HarmonisedCohort(by, described, dict(sorted(scans.items())), without)


def _column(cohort: Cohort, by: Batch) -> str | None:
    return next((name for name in cohort.extra_columns if name.lower() in _SPELLINGS[by]), None)


def _batches_of(item: PatientResult, by: Batch, column: str | None) -> dict[str, str]:
    """Return the batch of each time point: what the list says, or else the manufacturer and model of the scanner; empty where neither is known."""
    told = item.patient.extra.get(column, "") if column else ""
    return {scan.timepoint: told or (scan.scanner if by == "scanner" else "") for scan in item.summary.scans}


def _features(
    finished: Sequence[PatientResult], batches: dict[str, dict[str, str]]
) -> Iterator[tuple[dict[str, str], str]]:
    for item in finished:
        of_patient = batches[item.patient.patient]
        with item.table("features").open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                yield row, of_patient.get(row["timepoint"], "")


def _place(row: dict[str, str]) -> tuple[str, tuple[str, ...], str]:
    """Return the part, the row and the column of a measurement."""
    part = "lesions" if row["lesion"] else "lungs"
    return part, (row["patient"], row["timepoint"], row["lesion"]), f"{row['region']}.{row['feature']}"


def _described(name: str, part: _Long, found: Harmonised) -> HarmonisedPart:
    batch = np.array(part.batches, dtype=object)
    chosen = np.flatnonzero(np.isin(batch, found.batches))
    if len(chosen) > _MOST_SCATTERED:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _MOST_SCATTERED, replace=False))
    before, after = part.table()[chosen], found.values[chosen]
    whole = np.isfinite(before).all(axis=0) & np.isfinite(after).all(axis=0)
    return HarmonisedPart(
        name,
        found.note,
        found.batches,
        (found.share_before, found.share_after),
        (_principal(before[:, whole]), _principal(after[:, whole])),
        tuple(batch[chosen]),
    )


def _principal(values: np.ndarray) -> np.ndarray:
    """Return the first two principal components of the standardised columns, (rows, 2), each in its own standard deviations."""
    spread = values.std(axis=0) if len(values) else np.zeros(values.shape[1])
    # Heavy tails of some textures would leave all other rows on one spot.
    standard = (
        np.clip((values - values.mean(axis=0))[:, spread > 0] / spread[spread > 0], -3, 3) if len(values) else values
    )
    if min(standard.shape) < 2:
        return np.zeros((len(values), 2))
    left, size, right = np.linalg.svd(standard - standard.mean(axis=0), full_matrices=False)
    # The sign of a component is arbitrary: its largest weight is made positive.
    sign = np.sign(right[np.arange(2), np.abs(right[:2]).argmax(axis=1)])
    points = left[:, :2] * size[:2] * sign
    return np.asarray(points / np.maximum(points.std(axis=0), 1e-12))
