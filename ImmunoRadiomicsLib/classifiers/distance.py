"""How far a patient lies from the patients that a model was fitted on, several inputs at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2, rankdata

# A normal distribution has this standard deviation per median absolute deviation.
_SD_PER_MAD = 1.4826


def robust_location_scatter(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre (k,) and scatter matrix (k, k) of the rows of ``x`` (n, k), little moved by outliers.

    Centre: medians. Scales: median absolute deviations, standard deviations where more than half of the values are
    equal. Correlations: 2 sin(pi/6 * Spearman's rho), the correlation of a normal distribution with that rank
    correlation; eigenvalues are kept above 1e-3.
    """
    centre = np.median(x, axis=0)
    scales = _SD_PER_MAD * np.median(np.abs(x - centre), axis=0)
    scales = np.where(scales > 0, scales, x.std(axis=0, ddof=1))
    ranks = np.apply_along_axis(rankdata, 0, x)
    correlation = 2 * np.sin(np.pi / 6 * np.corrcoef(ranks, rowvar=False))
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    correlation = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    return centre, correlation * np.outer(scales, scales)


def share_farther_out(x: Sequence[float], location: Sequence[float], scatter: Sequence[Sequence[float]]) -> float:
    """Return the share of the fitting cohort expected to lie farther out than ``x``: chi-square of its robust distance.

    ``x`` and ``location`` have k entries, ``scatter`` is k x k; 1 is the centre, 0 far outside.
    """
    offset = np.asarray(x, dtype=float) - np.asarray(location, dtype=float)
    squared = float(offset @ np.linalg.solve(np.asarray(scatter, dtype=float), offset))
    return float(chi2.sf(squared, df=len(offset)))
