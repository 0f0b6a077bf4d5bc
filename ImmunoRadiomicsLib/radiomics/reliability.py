"""How much of a feature's spread is between lesions and not between readings: the intraclass correlation coefficient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_SUBJECTS = 3


@dataclass(frozen=True)
class Reliability:
    """ICC(1,1) with its 95 % interval, and what it was estimated from."""

    icc: float
    lower: float
    upper: float
    subjects: int
    readings: int


def intraclass_correlation(values: np.ndarray, confidence: float = 0.95) -> Reliability | None:
    """Return the ICC of single readings, one-way random effects (McGraw and Wong 1996, doi:10.1037/1082-989X.1.1.30, table 4 and 7).

    Parameters
    ----------
    values
        (subjects, readings). Subjects with a reading that is not finite are left out.

    Returns
    -------
    Reliability or None
        None with fewer than three subjects or two readings, or where nothing differs at all.
    """
    # Takes as long to load as a small patient's features, and most runs do without.
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    subjects, readings = values.shape
    if subjects < FEWEST_SUBJECTS or readings < 2:
        return None
    means = values.mean(axis=1)
    between = readings * means.var(ddof=1)
    within = float(((values - means[:, None]) ** 2).sum() / (subjects * (readings - 1)))
    if between + within <= 0:
        return None
    icc = (between - within) / (between + (readings - 1) * within)
    if within <= 0:
        return Reliability(1.0, 1.0, 1.0, subjects, readings)
    ratio = between / within
    numerator, denominator = subjects - 1, subjects * (readings - 1)
    tail = (1 + confidence) / 2
    low = ratio / stats.f.ppf(tail, numerator, denominator)
    high = ratio * stats.f.ppf(tail, denominator, numerator)
    return Reliability(
        float(icc),
        float((low - 1) / (low + readings - 1)),
        float((high - 1) / (high + readings - 1)),
        subjects,
        readings,
    )
