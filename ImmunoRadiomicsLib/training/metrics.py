"""How well predictions did: discrimination, calibration, clinical use, and the uncertainty of each.

Predictions are probabilities of rows that were not in the fit. Comparisons of rows are made inside a fold, because models of two folds
have their own origin. Intervals come from drawing patients with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ..classifiers.trained import log_odds, probability

_NEWTON_STEPS = 50
_BINS = 8


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve."""

    x: float
    y: float


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of similar prediction: the mean prediction, the share with the event with its 95 % interval (Wilson), and their number."""

    predicted: float
    observed: float
    lower: float
    upper: float
    rows: int


@dataclass(frozen=True)
class DecisionPoint:
    """Net benefit at a threshold: of the model, of treating everyone, and of the clinical columns alone (None without)."""

    threshold: float
    model: float
    all: float
    clinical: float | None


def auc(scores: np.ndarray, labels: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Return the share of pairs with and without the event, of one stratum, that the scores put in order; ties count half.

    NaN where there is no such pair.
    """
    ordered = pairs = 0.0
    for stratum in np.unique(strata) if strata is not None else (None,):
        rows = slice(None) if stratum is None else strata == stratum
        marked = labels[rows] == 1
        events, others = int(marked.sum()), int((~marked).sum())
        ranks = rankdata(scores[rows])
        ordered += float(ranks[marked].sum()) - events * (events + 1) / 2
        pairs += events * others
    return ordered / pairs if pairs else float("nan")


def concordance(scores: np.ndarray, events: np.ndarray, time: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Return Harrell's C inside strata: the share of usable pairs in which the earlier event has the higher score; ties count half."""
    ordered = pairs = 0.0
    for stratum in np.unique(strata) if strata is not None else (None,):
        rows = np.arange(scores.size) if stratum is None else np.flatnonzero(strata == stratum)
        for row in rows[events[rows] == 1]:
            later = rows[(time[rows] > time[row]) | ((time[rows] == time[row]) & (events[rows] == 0))]
            ordered += float((scores[later] < scores[row]).sum() + 0.5 * (scores[later] == scores[row]).sum())
            pairs += later.size
    return ordered / pairs if pairs else float("nan")


def brier(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean squared difference of prediction and outcome."""
    return float(np.mean((predicted - labels) ** 2))


def calibration_line(
    predicted: np.ndarray, labels: np.ndarray, strata: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the calibration intercept (with the slope held at 1) and slope; NaN where predictions do not differ.

    Slope: logistic regression of the outcome on the log-odds, with an intercept for each of the ``strata``. Folds are strata: the model of
    each has its own origin, which lies the lower, the more events its held rows happen to have, so that one intercept for all would
    take the drawing of folds for bad calibration. Intercept: the shift of the log-odds that makes the mean prediction right.
    """
    scores = log_odds(predicted)
    shift = _newton(np.ones((scores.size, 1)), labels, scores)
    groups = np.zeros(scores.size, dtype=int) if strata is None else np.unique(strata, return_inverse=True)[1]
    events, sizes = np.bincount(groups, weights=labels), np.bincount(groups)
    # A fold of one outcome tells nothing of the slope, and its own intercept has no end.
    told = ((events > 0) & (events < sizes))[groups]
    slope = float("nan")
    if told.any() and scores[told].std() > 1e-6:
        member = (groups[told][:, None] == np.unique(groups[told])).astype(float)
        line = _newton(np.column_stack([member, scores[told]]), labels[told], np.zeros(int(told.sum())))
        slope = float(line[-1])
    return float(shift[0]), slope


def _newton(design: np.ndarray, labels: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Fit a logistic regression by Newton's method; NaN where the classes are parted perfectly."""
    weights = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        expected = probability(design @ weights + offset)
        information = design.T @ (design * (expected * (1 - expected))[:, None])
        try:
            step = np.linalg.solve(information, design.T @ (labels - expected))
        except np.linalg.LinAlgError:
            return np.full(design.shape[1], np.nan)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            return weights
        if np.abs(weights).max() > 50:
            break
    return np.full(design.shape[1], np.nan)


def calibration_curve(predicted: np.ndarray, labels: np.ndarray) -> tuple[CalibrationBin, ...]:
    """Return groups of about equal size in the order of their prediction."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), max(2, min(_BINS, labels.size // 10)))
    found = []
    for part in parts:
        share, size, z = float(labels[part].mean()), part.size, 1.96
        centre = (share + z * z / (2 * size)) / (1 + z * z / size)
        half = z / (1 + z * z / size) * float(np.sqrt(share * (1 - share) / size + z * z / (4 * size * size)))
        found.append(CalibrationBin(float(predicted[part].mean()), share, centre - half, centre + half, size))
    return tuple(found)


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[CurvePoint, ...]:
    """Return (1 - specificity, sensitivity) at every threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    hits = np.cumsum(labels[order])[last] / max(int(labels.sum()), 1)
    false = np.cumsum(1 - labels[order])[last] / max(int((1 - labels).sum()), 1)
    return (CurvePoint(0.0, 0.0), *(CurvePoint(float(x), float(y)) for x, y in zip(false, hits, strict=True)))


def net_benefit(predicted: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """Return true positives less the false ones weighted by the odds of the threshold, per row (doi:10.1177/0272989X06295361)."""
    positive = predicted >= threshold
    true, false = float((positive & (labels == 1)).mean()), float((positive & (labels == 0)).mean())
    return true - false * threshold / (1 - threshold)


def decision_curve(
    predicted: np.ndarray,
    labels: np.ndarray,
    clinical: np.ndarray | None = None,
    *,
    thresholds: Sequence[float] | None = None,
) -> tuple[DecisionPoint, ...]:
    """Return the net benefit over thresholds, by default from 2 % to 80 %."""
    grid = thresholds if thresholds is not None else np.linspace(0.02, 0.8, 40)
    everyone = np.ones_like(predicted)
    return tuple(
        DecisionPoint(
            float(threshold),
            net_benefit(predicted, labels, threshold),
            net_benefit(everyone, labels, threshold),
            None if clinical is None else net_benefit(clinical, labels, threshold),
        )
        for threshold in grid
    )


def net_reclassification(new: np.ndarray, old: np.ndarray, labels: np.ndarray) -> float:
    """Return the category-free net reclassification improvement of new over old predictions, from -2 to 2 (doi:10.1002/sim.4085)."""
    better = np.sign(new - old)
    return float(better[labels == 1].mean() - better[labels == 0].mean())


def bootstrap(
    figure: Callable[[np.ndarray], float], groups: np.ndarray, *, draws: int = 500, seed: int = 0
) -> Interval:
    """Return ``figure`` of all rows with the 2.5th and 97.5th percentile of its value over draws of groups with replacement.

    ``figure`` is given the places of rows. Draws for which it is not defined are left out.
    """
    rng = np.random.default_rng(seed)
    value = figure(np.arange(groups.size))
    _, place = np.unique(groups, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(place.max() + 2))
    found = []
    for _ in range(draws):
        drawn = rng.integers(starts.size - 1, size=starts.size - 1)
        rows = np.concatenate([order[starts[item] : starts[item + 1]] for item in drawn])
        found.append(figure(rows))
    kept = np.array([item for item in found if np.isfinite(item)])
    if kept.size == 0:
        return Interval(value, float("nan"), float("nan"))
    lower, upper = np.quantile(kept, [0.025, 0.975])
    return Interval(value, float(lower), float(upper))


def label_permutation_p(
    scores: np.ndarray, labels: np.ndarray, strata: np.ndarray, *, draws: int = 999, seed: int = 0
) -> float:
    """Return how often labels shuffled inside the strata are told apart at least as well by the same scores."""
    rng = np.random.default_rng(seed)
    found = auc(scores, labels, strata)
    rows = [np.flatnonzero(strata == item) for item in np.unique(strata)]
    shuffled = labels.copy()
    hits = 0
    for _ in range(draws):
        for part in rows:
            shuffled[part] = rng.permutation(labels[part])
        hits += auc(scores, shuffled, strata) >= found
    return (hits + 1) / (draws + 1)
