"""Taking the mark of a scanner or centre out of measurements: ComBat, fitted on some rows and applied to others.

ComBat takes each batch's own mean and spread out of every column, with estimates that lean on those of all columns of the batch
(W. E. Johnson et al., doi:10.1093/biostatistics/kxj037; with covariates J.-P. Fortin et al., doi:10.1016/j.neuroimage.2017.11.024). It is
written here because no package both does this and installs beside a current numpy under a free licence: combatlearn 2.3 takes its prior over
batches where it is to be taken over columns and leaves a good part of the difference, neuroHarmonize needs numpy 1, inmoose is GPL,
neuroCombat and pycombat rest. A test compares with neuroCombat. Without covariates the correction of a batch is a factor and a shift of each
column, so that it can be written down, and applied to rows that were not there when it was fitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..classifiers.trained import BatchCorrection
from ..errors import InputError

# The spread of a batch cannot be told from fewer rows.
FEWEST_ROWS_OF_A_BATCH = 5
_NO_SPREAD = 1e-9
_ENOUGH_CHANGE, _MOST_STEPS = 1e-4, 200


@dataclass(frozen=True)
class Harmonised:
    """Harmonised measurements. ``values`` is (rows, columns), NaN where it was.

    ``batches`` are those that were brought together, ``left`` those with too few rows, which stay as they were, as do the ``untouched`` columns
    (their places), which do not vary inside batches. ``share_before`` and ``share_after`` are, for each column, the share of its
    variance that lies between the batches, of the rows of ``batches``.
    """

    values: np.ndarray
    batches: tuple[str, ...]
    left: tuple[str, ...]
    untouched: tuple[int, ...]
    share_before: np.ndarray
    share_after: np.ndarray

    @property
    def note(self) -> str:
        """What was done, in a sentence."""
        if len(self.batches) < 2:
            return f"ComBat: nothing was done, fewer than two batches have {FEWEST_ROWS_OF_A_BATCH} rows."
        left = (
            f" Left as they were, with fewer than {FEWEST_ROWS_OF_A_BATCH} rows: {', '.join(self.left)}."
            if self.left
            else ""
        )
        return (
            f"ComBat over {len(self.batches)} batches ({', '.join(self.batches)}): the median share of a column's variance between them went from "
            f"{np.nanmedian(self.share_before):.1%} to {np.nanmedian(self.share_after):.1%}.{left}"
        )


def harmonise(
    values: np.ndarray, batch: Sequence[str] | np.ndarray, *, covariates: np.ndarray | None = None
) -> Harmonised:
    """Take the mark of the batches out of all rows of a table at once, for describing a cohort.

    What is fitted afterwards and tested on the same rows has seen them; training fits the correction inside its folds instead.

    Parameters
    ----------
    values
        (rows, columns), NaN where empty.
    batch
        The scanner or centre of each row.
    covariates
        (rows, covariates), complete numbers whose effect is to stay, such as age or stage: without them, what batches differ in for that
        reason is taken out too.

    Raises
    ------
    InputError
        If the numbers of rows differ or a covariate is empty somewhere.
    """
    values = np.asarray(values, dtype=float)
    names = np.array([str(item) for item in batch], dtype=object)
    if names.size != len(values) or (covariates is not None and len(covariates) != len(values)):
        raise InputError("Harmonisation needs one batch, and one row of covariates, for each row of measurements.")
    if covariates is not None and not np.isfinite(covariates).all():
        raise InputError(
            "A covariate of the harmonisation is empty in some rows; complete it, or leave these rows out."
        )
    kept, left = _batches(names)
    inside = np.isin(names, kept)
    columns = _columns(values, names, kept)
    result = values.copy()
    if len(kept) > 1 and columns.size:
        place = np.ix_(inside, columns)
        known = None if covariates is None else np.asarray(covariates, dtype=float)[inside]
        fitted = _fit(_filled(values, names, kept)[place], names[inside], kept, known)
        result[place] = fitted.adjusted(values[place], names[inside], kept, known)
    untouched = np.setdiff1d(np.arange(values.shape[1]), columns)
    return Harmonised(
        result,
        kept,
        left,
        tuple(int(item) for item in untouched),
        share_between(values[inside], names[inside]),
        share_between(result[inside], names[inside]),
    )


def fit_correction(values: np.ndarray, batch: Sequence[str] | np.ndarray) -> BatchCorrection:
    """Learn from some rows what brings batches together, as numbers that other rows of the same batches can be given to.

    Batches with fewer than five rows, and batches that are not there, are left as they are.
    """
    names = np.array([str(item) for item in batch], dtype=object)
    kept, _ = _batches(names)
    columns = _columns(values, names, kept)
    if len(kept) < 2 or not columns.size:
        return BatchCorrection((), (), ())
    inside = np.isin(names, kept)
    fitted = _fit(_filled(values, names, kept)[np.ix_(inside, columns)], names[inside], kept, None)
    factors = np.ones((len(kept), values.shape[1]))
    shifts = np.zeros((len(kept), values.shape[1]))
    factors[:, columns] = 1 / np.sqrt(fitted.scales)
    shifts[:, columns] = fitted.level - factors[:, columns] * (fitted.level + fitted.shifts * fitted.spread)
    return BatchCorrection(kept, _rows(factors), _rows(shifts))


def share_between(values: np.ndarray, batch: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return for each column the share of its variance that lies between batches, from 0 to 1; NaN where it does not vary."""
    names = np.array([str(item) for item in batch], dtype=object)
    if not len(values):
        return np.full(values.shape[1], np.nan)
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    count = known.sum(axis=0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    total = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
    between = np.zeros(values.shape[1])
    for name in np.unique(names):
        rows = names == name
        here = known[rows].sum(axis=0)
        between += here * (filled[rows].sum(axis=0) / np.maximum(here, 1) - mean) ** 2
    return np.where(total > 0, between / np.where(total > 0, total, 1.0), np.nan)


def _batches(names: np.ndarray) -> tuple[tuple[str, ...], tuple[str, ...]]:
    counts = Counter(names.tolist())
    kept = tuple(sorted(name for name, count in counts.items() if count >= FEWEST_ROWS_OF_A_BATCH))
    return kept, tuple(sorted(set(counts) - set(kept)))


def _columns(values: np.ndarray, names: np.ndarray, kept: Sequence[str]) -> np.ndarray:
    """Return the columns that vary inside every batch and are known in enough of its rows."""
    good = np.ones(values.shape[1], dtype=bool)
    for name in kept:
        rows = values[names == name]
        known = ~np.isnan(rows)
        low = np.where(known, rows, np.inf).min(axis=0)
        high = np.where(known, rows, -np.inf).max(axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        good &= (known.sum(axis=0) >= FEWEST_ROWS_OF_A_BATCH) & (high - low > _NO_SPREAD * size)
    return np.flatnonzero(good)


def _filled(values: np.ndarray, names: np.ndarray, kept: Sequence[str]) -> np.ndarray:
    """Return a copy in which an empty cell holds the median of its column inside its batch."""
    filled = np.array(values, dtype=float)
    for name in kept:
        rows = np.flatnonzero(names == name)
        part = filled[rows]
        holes = np.isnan(part)
        if holes.any():
            medians = np.nanmedian(np.where(holes.all(axis=0), 0.0, part), axis=0)
            part[holes] = np.broadcast_to(medians, part.shape)[holes]
            filled[rows] = part
    return filled


@dataclass(frozen=True)
class _Fitted:
    """ComBat's estimates. ``level``, ``spread`` (columns) and ``effects`` (covariates, columns) standardise; ``shifts`` and ``scales`` are (batches, columns)."""

    level: np.ndarray
    spread: np.ndarray
    effects: np.ndarray
    middle: np.ndarray
    shifts: np.ndarray
    scales: np.ndarray

    def adjusted(
        self, values: np.ndarray, names: np.ndarray, kept: Sequence[str], covariates: np.ndarray | None
    ) -> np.ndarray:
        """Return rows without the mark of their batch."""
        expected = self.level
        if covariates is not None:
            expected = expected + (covariates - self.middle) @ self.effects
        place = np.searchsorted(np.array(kept, dtype=object), names)
        standard = (values - expected) / self.spread
        return np.asarray(
            (standard - self.shifts[place]) / np.sqrt(self.scales[place]) * self.spread + expected, dtype=float
        )


def _fit(values: np.ndarray, names: np.ndarray, kept: Sequence[str], covariates: np.ndarray | None) -> _Fitted:
    """Estimate on complete rows; ``kept`` is in order."""
    member = (names[:, None] == np.array(kept, dtype=object)).astype(float)
    known = np.zeros((len(values), 0)) if covariates is None else covariates
    middle = known.mean(axis=0)
    design = np.hstack([member, known - middle])
    weights = np.linalg.lstsq(design, values, rcond=None)[0]
    counts = member.sum(axis=0)
    level, effects = counts @ weights[: len(kept)] / len(values), weights[len(kept) :]
    spread = np.sqrt(np.mean((values - design @ weights) ** 2, axis=0))
    standard = (values - level - (known - middle) @ effects) / spread
    shifts, scales = [], []
    for number in range(len(kept)):
        rows = standard[member[:, number] == 1]
        shift, scale = _shrunk(rows)
        shifts.append(shift)
        scales.append(scale)
    return _Fitted(level, spread, effects, middle, np.array(shifts), np.array(scales))


def _shrunk(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior mean and variance of each column of one batch.

    The prior of the means is normal and that of the variances inverse gamma, both with the moments that the columns of this batch show.
    """
    size = len(rows)
    mean, variance = rows.mean(axis=0), rows.var(axis=0, ddof=1)
    if mean.size < 2:
        return mean, variance
    centre, between = float(mean.mean()), float(mean.var(ddof=1))
    typical, varied = float(variance.mean()), max(float(variance.var(ddof=1)), 1e-12)
    shape = typical**2 / varied + 2
    rate = typical * (shape - 1)
    shift, scale = mean, variance
    for _ in range(_MOST_STEPS):
        new_shift = (between * size * mean + scale * centre) / (between * size + scale)
        squares = ((rows - new_shift) ** 2).sum(axis=0)
        new_scale = (0.5 * squares + rate) / (size / 2 + shape - 1)
        change = max(np.abs(new_shift - shift).max(), np.abs(new_scale / scale - 1).max())
        shift, scale = new_shift, new_scale
        if change < _ENOUGH_CHANGE:
            break
    return shift, scale


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(item) for item in row) for row in values)
