"""How far a patient lies from the patients that a model was fitted on, several inputs at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

# A normal distribution has this standard deviation per median absolute deviation.
_SD_PER_MAD = 1.4826
# The directions of a joint distribution: as many as hold this share of the variance, but no more than so many, nor than one for so
# many rows, since a direction that few rows lie along is theirs and not that of the next patient.
_SHARE_OF_VARIANCE = 0.95
_MOST_DIRECTIONS = 12
_ROWS_PER_DIRECTION = 8
# Values farther from the median than so many standard deviations are taken for that far while the distribution is fitted.
_FITTED_TAIL = 3.5
# No direction is flatter than this share of the variance of one column: below, rounding would count as distance.
_LEAST_VARIANCE = 1e-3
_FOLDS = 10
_MOST_KEPT = 200


def robust_location_scatter(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre (k,) and scatter matrix (k, k) of the rows of ``x`` (n, k), little moved by outliers.

    Centre: medians. Scales: median absolute deviations, standard deviations where more than half of the values are
    equal. Correlations: 2 sin(pi/6 * Spearman's rho), the correlation of a normal distribution with that rank
    correlation; eigenvalues are kept above 1e-3.
    """
    # Takes as long to load as a small patient's features, and most runs do without.
    from scipy.stats import rankdata

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
    return float(chdtrc(len(offset), squared))


@dataclass(frozen=True)
class JointDistance:
    """The joint distribution of the inputs of a trained model, and how far out rows that it was not fitted to lie in it.

    A column is brought to its robust score, (value - centre) / scale, and a score z to sign(z) ln(1 + abs(z)), which tempers the long tails of
    radiomics features. The covariance is that of probabilistic principal components (doi:10.1111/1467-9868.00196): ``directions``
    (rows over columns) with their ``variances``, and one variance, ``noise``, in everything else, so that it can also be fitted where
    columns outnumber rows. The distance is the Mahalanobis distance in it. ``held_out`` are distances, in ascending order, of training rows from distributions
    fitted without their patients.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    mean: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    variances: tuple[float, ...]
    noise: float
    held_out: tuple[float, ...]

    def distances(self, values: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of rows (rows, columns) without empty cells."""
        offset = _tempered((values - np.array(self.centre)) / np.array(self.scale)) - np.array(self.mean)
        along = offset @ np.array(self.directions).T
        squared = (along**2 / np.array(self.variances)).sum(axis=1)
        if len(self.directions) < len(self.centre):
            squared += np.maximum((offset**2).sum(axis=1) - (along**2).sum(axis=1), 0.0) / self.noise
        return np.asarray(np.sqrt(squared))

    def share_farther_out(self, values: np.ndarray) -> np.ndarray:
        """Return for each row the share of rows not fitted to that lie at least as far out, the row itself counted among them."""
        nearer = np.searchsorted(np.array(self.held_out), self.distances(values), side="left")
        return np.asarray((len(self.held_out) - nearer + 1) / (len(self.held_out) + 1))

    def beyond_all(self, values: np.ndarray) -> np.ndarray:
        """Return for each row whether it lies farther out than every row that was held out."""
        return np.asarray(self.distances(values) > self.held_out[-1])

    def problems(self, columns: int) -> list[str]:
        """Return what does not fit together, given the number of columns of the model."""
        found = [
            f"the {name} of the joint distance has {len(values)} numbers for {columns} columns."
            for name, values in (("centre", self.centre), ("scale", self.scale), ("mean", self.mean))
            if len(values) != columns
        ]
        if any(len(row) != columns for row in self.directions) or len(self.directions) != len(self.variances):
            found.append(f"the directions of the joint distance are not {len(self.variances)} over {columns} columns.")
        if any(value <= 0 for value in (*self.scale, *self.variances, self.noise)):
            found.append("a scale or variance of the joint distance is not above 0.")
        if not self.held_out or list(self.held_out) != sorted(self.held_out) or self.held_out[0] < 0:
            found.append("the held-out distances are none, or not in ascending order.")
        return found


def fit_joint_distance(values: np.ndarray, groups: np.ndarray) -> JointDistance | None:
    """Fit the joint distribution of rows, and measure how far out each lies when its patient is left out.

    Parameters
    ----------
    values
        (rows, columns), completed: no empty cells.
    groups
        The number of the patient of each row.

    Returns
    -------
    JointDistance or None
        None with fewer than three patients: there is nothing to hold out.
    """
    patients = np.unique(groups)
    if patients.size < 3:
        return None
    fold_of = dict(zip(patients.tolist(), (np.arange(patients.size) % _FOLDS).tolist(), strict=True))
    fold = np.array([fold_of[item] for item in groups.tolist()])
    held = np.zeros(len(values))
    for number in np.unique(fold):
        out = fold == number
        held[out] = _fitted(values[~out], (0.0,)).distances(values[out])
    if held.size > _MOST_KEPT:
        held = np.quantile(held, np.linspace(0.0, 1.0, _MOST_KEPT))
    return _fitted(values, tuple(np.sort(held).tolist()))


def _fitted(values: np.ndarray, held_out: tuple[float, ...]) -> JointDistance:
    centre = np.median(values, axis=0)
    scale = _SD_PER_MAD * np.median(np.abs(values - centre), axis=0)
    scale = np.where(scale > 0, scale, values.std(axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    tempered = _tempered(np.clip((values - centre) / scale, -_FITTED_TAIL, _FITTED_TAIL))
    mean = tempered.mean(axis=0)
    rows, columns = values.shape
    _, singular, directions = np.linalg.svd(tempered - mean, full_matrices=False)
    found = singular**2 / max(rows - 1, 1)
    total = float(found.sum())
    least = _LEAST_VARIANCE * max(total / columns, 1e-12)
    enough = int(np.searchsorted(np.cumsum(found), _SHARE_OF_VARIANCE * total)) + 1
    kept = min(enough, _MOST_DIRECTIONS, max(1, rows // _ROWS_PER_DIRECTION), found.size)
    noise = max(float(found[kept:].sum()) / max(columns - kept, 1), least)
    return JointDistance(
        _short(centre),
        _short(scale),
        _short(mean),
        tuple(_short(row) for row in directions[:kept]),
        _short(np.maximum(found[:kept], least)),
        noise,
        held_out,
    )


def _tempered(scores: np.ndarray) -> np.ndarray:
    return np.asarray(np.sign(scores) * np.log1p(np.abs(scores)))


def _short(values: np.ndarray) -> tuple[float, ...]:
    """Return numbers with the digits that matter: a distribution over many columns has to stay small as JSON."""
    return tuple(float(f"{item:.8g}") for item in values)
