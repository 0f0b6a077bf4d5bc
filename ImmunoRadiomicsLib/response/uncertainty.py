"""How sure a threshold decision is, given that readers do not measure the same diameter twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

READER_SD_LN_DIAMETER = 0.120
"""Within-nodule standard deviation of ln(diameter) between readers: LIDC, 690 nodules of at least 10 mm, 3,240 reader pairs."""

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def sum_error(diameters_mm: Sequence[float], reader_sd: float = READER_SD_LN_DIAMETER) -> float:
    """Return the standard deviation of ln(sum of diameters) when every diameter is read with its own error.

    Errors of different lesions are independent, so the sum of many lesions is surer than one (delta method).

    >>> round(sum_error([10, 10, 10, 10], 0.12), 3)
    0.06
    """
    total = sum(diameters_mm)
    return 0.0 if total <= 0 else reader_sd * math.sqrt(sum(size * size for size in diameters_mm)) / total


def probability_of_progression(
    now_mm: Sequence[float],
    nadir_mm: Sequence[float],
    *,
    reader_sd: float = READER_SD_LN_DIAMETER,
    relative: float = 1.2,
    absolute_mm: float = 5.0,
) -> float | None:
    """Return the probability that the true sum is at least 20 % and 5 mm above the true nadir.

    ``now_mm`` and ``nadir_mm`` are the diameters of the same lesions at the two visits. Both sums are taken as log-normal
    around what was measured, with a flat prior; the true nadir is integrated over by Gauss-Hermite quadrature. Readers are
    taken to be independent at the two visits: one reader with both scans side by side errs less.
    None where a sum is 0, of which the error is not known.
    """
    now, nadir = sum(now_mm), sum(nadir_mm)
    if now <= 0 or nadir <= 0:
        return None
    now_sd, nadir_sd = sum_error(now_mm, reader_sd), sum_error(nadir_mm, reader_sd)
    true_nadir = nadir * np.exp(nadir_sd * _NODES)
    bar = np.maximum(relative * true_nadir, true_nadir + absolute_mm)
    if now_sd == 0:
        return float(np.sum(_WEIGHTS * (now >= bar)))
    return float(np.clip(np.sum(_WEIGHTS * ndtr((math.log(now) - np.log(bar)) / now_sd)), 0.0, 1.0))


def probability_of_response(
    now_mm: Sequence[float],
    baseline_mm: Sequence[float],
    *,
    reader_sd: float = READER_SD_LN_DIAMETER,
    relative: float = 0.7,
) -> float | None:
    """Return the probability that the true sum is at least 30 % below the true baseline, as `probability_of_progression`."""
    now, baseline = sum(now_mm), sum(baseline_mm)
    if now <= 0 or baseline <= 0:
        return None
    spread = math.hypot(sum_error(now_mm, reader_sd), sum_error(baseline_mm, reader_sd))
    distance = math.log(relative * baseline / now)
    if spread == 0:
        return float(distance >= 0)
    return float(ndtr(distance / spread))


def probability_of_further_growth(
    now_mm: Sequence[float],
    before_mm: Sequence[float],
    *,
    reader_sd: float = READER_SD_LN_DIAMETER,
    absolute_mm: float = 5.0,
) -> float | None:
    """Return the probability that the true sum grew by at least 5 mm, which confirms a progression by iRECIST."""
    return probability_of_progression(now_mm, before_mm, reader_sd=reader_sd, relative=1.0, absolute_mm=absolute_mm)
