"""Fitting one model to one set of rows, with every choice made inside them.

Columns are cleaned, clustered, selected and scaled on the fitting rows alone. The inner folds repeat all of it and predict each
row without having seen it; those predictions choose the settings and recalibrate. What stands outside of the
rows given here has no part in any of it, so the same function serves an outer fold and the final model.

Where there is little to find, what inner folds say of a model is mostly chance, and worse than that: rows that look separable leave
unseen rows that do not. So the weights of members are averaged over what is likely rather than fitted, and the slope is shrunk by its own uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..classifiers.trained import BatchCorrection, probability, score
from .folds import fold_count, fold_numbers
from .harmonisation import fit_correction
from .learners import LEARNERS, Kind, fit_learner, martingale_residuals
from .metrics import auc
from .selection import Method, imputed, representatives, select, usable_columns

# Beyond these quantiles of the fitting rows a value counts as the quantile: one outlier must not steer a weighted sum.
_TAIL = 0.01
# The slope of scores of spread one that tell nothing: not 0, which would tie every row, but an AUC of some 0.56.
_LEAST_SLOPE = 0.2
# Parameters that a slope is shrunk for: its own, and a part for the settings and shares that were chosen on the same rows. Settled with the
# least slope on four tables of radMLBench and 32 with labels made from their columns: 29 of the 36 have a slope from 0.7 to 1.3 in new rows.
_SHRUNK_FOR = 1.25
_SLOPES = np.linspace(-1.0, 6.0, 281)
_NEWTON_STEPS = 25
# Weighted sums of columns fade beside forests and their like where they do not tell unseen rows apart. Settled, as the least slope, on
# NSCLC-Radiogenomics, Ramella2018, WORC-Melanoma and Hosny2018A of radMLBench, and on labels made from their columns.
_ENOUGH_AUC, _AUC_WIDTH = 0.52, 0.02
# The share of weighted sums lies between these: LASSO with loose penalties has told the labels of those tables rather better than forests.
_SHARES = np.linspace(0.2, 1.0, 5)
_NO_SPREAD = 1e-6


@dataclass(frozen=True)
class Plan:
    """What is fitted: members, how columns are clustered and selected, and the number of inner folds."""

    members: tuple[Kind, ...]
    selection: Method
    count: int
    redundancy: float
    inner_folds: int


@dataclass(frozen=True)
class Batches:
    """What rows are harmonised over: the ``names`` of their batches and the places of the ``columns`` that are measured."""

    names: np.ndarray
    columns: np.ndarray

    def rows(self, index: np.ndarray) -> Batches:
        """Return those of some rows."""
        return Batches(self.names[index], self.columns)


@dataclass(frozen=True)
class Scaling:
    """How the chosen columns become what a model sees: empty cells to the median, tails cut, mean 0 and standard deviation 1."""

    medians: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Scaling:
        """Learn it from the fitting rows; every column has a known value."""
        medians = np.nanmedian(values, axis=0)
        filled = np.where(np.isnan(values), medians, values)
        lower, upper = np.quantile(filled, [_TAIL, 1 - _TAIL], axis=0)
        # A rare yes is no outlier.
        flat = (lower == upper) | (np.array([np.unique(column).size for column in filled.T]) <= 2)
        lower, upper = np.where(flat, filled.min(axis=0), lower), np.where(flat, filled.max(axis=0), upper)
        cut = np.clip(filled, lower, upper)
        deviations = cut.std(axis=0)
        return cls(medians, lower, upper, cut.mean(axis=0), np.where(deviations > 0, deviations, 1.0))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return rows as the model sees them."""
        filled = np.where(np.isnan(values), self.medians, values)
        return np.asarray((np.clip(filled, self.lower, self.upper) - self.means) / self.deviations)


@dataclass(frozen=True)
class Member:
    """One fitted model of a blend; its part is ``weight * (intercept + slope * score)``."""

    kind: Kind
    setting: float
    fitted: Any
    intercept: float
    slope: float
    weight: float


@dataclass(frozen=True)
class FittedModel:
    """A model that reads ``columns`` (places in the table it was fitted on) and gives log-odds, or a log hazard for survival.

    ``correction``, where rows were harmonised, is that of ``columns``.
    """

    columns: np.ndarray
    scaling: Scaling
    members: tuple[Member, ...]
    intercept: float
    slope: float
    correction: BatchCorrection | None = None

    def scaled(self, values: np.ndarray, batch: np.ndarray | None = None) -> np.ndarray:
        """Return rows with all columns of the table, of their batches, as the members see them."""
        chosen = values[:, self.columns]
        if self.correction is not None and batch is not None:
            chosen = self.correction(chosen, batch)
        return self.scaling(chosen)

    def log_odds(self, values: np.ndarray, batch: np.ndarray | None = None) -> np.ndarray:
        """Return the log-odds of rows with all columns of the table, of their batches."""
        scaled = self.scaled(values, batch)
        total = sum(item.weight * (item.intercept + item.slope * score(item.fitted, scaled)) for item in self.members)
        return np.asarray(self.intercept + self.slope * total)

    def importance(self, rows: np.ndarray, batch: np.ndarray | None = None) -> np.ndarray:
        """Return how much each of ``columns`` moves the log-odds of these rows.

        The weighted sum of linear members' absolute coefficients on scaled columns; for other members the standard deviation of the
        score after each column in turn is set to its mean.
        """
        scaled = self.scaled(rows, batch)
        result = np.zeros(self.columns.size)
        for item in self.members:
            if isinstance(item.fitted, tuple):
                effect = np.abs(item.fitted[0])
            else:
                plain = score(item.fitted, scaled)
                effect = np.zeros(self.columns.size)
                for index in range(self.columns.size):
                    neutral = scaled.copy()
                    neutral[:, index] = 0.0
                    effect[index] = np.sqrt(np.mean((score(item.fitted, neutral) - plain) ** 2))
            result += item.weight * abs(item.slope) * effect
        return result * abs(self.slope)


def fit_model(
    plan: Plan,
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    time: np.ndarray | None,
    seed: int,
    jobs: int = 1,
    batches: Batches | None = None,
) -> FittedModel:
    """Fit a plan to rows.

    Parameters
    ----------
    plan
        What to fit.
    values
        (rows, columns), NaN where empty.
    labels, groups, time
        0 or 1, the number of the patient, and for survival the time, of each row.
    seed
        Of everything random.
    jobs
        Threads of a forest.
    batches
        What to harmonise over, if anything: the correction is fitted to these rows, and to those of each inner fold anew.
    """
    candidates = [(kind, setting) for kind in plan.members for setting in LEARNERS[kind].settings]
    if time is not None:
        chosen, lines, weights, last = [candidates[0]], [(0.0, 1.0)], [1.0], (0.0, 1.0)
    else:
        unseen = _inner_scores(plan, candidates, values, labels, groups, seed, jobs, batches)
        chosen, lines, weights, last = _choose(plan, candidates, unseen, labels)
    values, correction = _harmonised(values, batches)
    columns, thinned = _columns(plan, values, labels, time, seed)
    scaling = Scaling.of(values[:, columns])
    scaled = scaling(values[:, columns])
    members = tuple(
        Member(kind, setting, _fit_member(kind, setting, scaled, thinned, labels, time, seed, jobs), *line, weight)
        for (kind, setting), line, weight in zip(chosen, lines, weights, strict=True)
    )
    return FittedModel(columns, scaling, members, *last, None if correction is None else correction.take(columns))


def _harmonised(values: np.ndarray, batches: Batches | None) -> tuple[np.ndarray, BatchCorrection | None]:
    """Fit a correction to rows: return them with it, and the correction of all columns."""
    if batches is None:
        return values, None
    found = fit_correction(values[:, batches.columns], batches.names).among(batches.columns, values.shape[1])
    return found(values, batches.names), found


def _columns(
    plan: Plan, values: np.ndarray, labels: np.ndarray, time: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns that the model will read, found on these rows alone, and the places among them of those for weighted sums.

    Copies of a column mislead weighted sums. Forests beside them take no harm and get all columns.
    """
    columns = usable_columns(values)
    if columns.size == 0:
        # Nothing varies among these rows; any column gives every row the same score.
        return np.array([int(np.argmin(np.isnan(values).mean(axis=0)))]), np.array([0])
    filled = imputed(values[:, columns])
    kept = representatives(filled, plan.redundancy) if plan.redundancy < 1 else np.arange(columns.size)
    sorts = {LEARNERS[kind].linear for kind in plan.members}
    if plan.selection == "none" and len(sorts) > 1:
        return columns, kept
    columns, filled = columns[kept], filled[:, kept]
    target = labels if time is None else martingale_residuals(labels, time)
    scaled = Scaling.of(filled)(filled)
    columns = columns[np.sort(select(plan.selection, scaled, target, plan.count, seed))]
    return columns, np.arange(columns.size)


def _fit_member(
    kind: Kind,
    setting: float,
    scaled: np.ndarray,
    thinned: np.ndarray,
    labels: np.ndarray,
    time: np.ndarray | None,
    seed: int,
    jobs: int,
) -> Any:
    """Fit a member to scaled rows; a weighted sum has no weight outside of the thinned columns."""
    if not LEARNERS[kind].linear or thinned.size == scaled.shape[1]:
        return fit_learner(kind, setting, scaled, labels, time, seed, jobs)
    weights, offset = fit_learner(kind, setting, scaled[:, thinned], labels, time, seed, jobs)
    spread = np.zeros(scaled.shape[1])
    spread[thinned] = weights
    return spread, offset


def _inner_scores(
    plan: Plan,
    candidates: Sequence[tuple[Kind, float]],
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    jobs: int,
    batches: Batches | None,
) -> np.ndarray:
    """Return (candidates, rows): the score that each candidate gives each row without having seen its patient."""
    count = fold_count(labels, groups, plan.inner_folds)
    fold = fold_numbers(labels, groups, count, [seed, 1])
    scores = np.zeros((len(candidates), labels.size))
    for number in range(count):
        held, seen = fold == number, fold != number
        inside, correction = _harmonised(values[seen], None if batches is None else batches.rows(seen))
        outside = values[held]
        if correction is not None and batches is not None:
            outside = correction(outside, batches.names[held])
        columns, thinned = _columns(plan, inside, labels[seen], None, seed)
        scaling = Scaling.of(inside[:, columns])
        fitting, testing = scaling(inside[:, columns]), scaling(outside[:, columns])
        for index, (kind, setting) in enumerate(candidates):
            fitted = _fit_member(kind, setting, fitting, thinned, labels[seen], None, seed, jobs)
            scores[index, held] = score(fitted, testing)
    return scores


def _choose(
    plan: Plan, candidates: Sequence[tuple[Kind, float]], scores: np.ndarray, labels: np.ndarray
) -> tuple[list[tuple[Kind, float]], list[tuple[float, float]], list[float], tuple[float, float]]:
    """Choose a setting per member, bring members to a common spread, weigh them, and recalibrate their sum, all on unseen rows.

    Return settings, lines (intercept and slope) and weights of the members, and the line of their sum. Members of one sort, weighted sums of
    columns or others, have equal weights: a few hundred rows cannot tell which deserves more. Where there are both, the share of weighted sums
    is its mean over all shares, each as likely as it makes the labels of unseen rows; and they fade where they do not tell these apart, as a
    forest's mean of many trees goes less far astray.
    """
    chosen, lines, brought = [], [], []
    for kind in plan.members:
        places = [index for index, item in enumerate(candidates) if item[0] == kind]
        best = min(places, key=lambda index: _unseen_loss(scores[index], labels)) if len(places) > 1 else places[0]
        spread = float(scores[best].std())
        # A member that says the same of every row adds nothing.
        line = (-float(scores[best].mean()) / spread, 1 / spread) if spread > _NO_SPREAD else (0.0, 0.0)
        chosen.append(candidates[best])
        lines.append(line)
        brought.append(line[0] + line[1] * scores[best])
    linear = np.array([LEARNERS[kind].linear for kind in plan.members])
    weights = np.zeros(linear.size)
    sums = []
    for sort in (True, False):
        same = linear == sort
        if same.any():
            together = np.sum(np.array(brought)[same], axis=0)
            weights[same] = 1 / max(float(np.std(together)), _NO_SPREAD)
            sums.append(weights[same][0] * together)
    if len(sums) > 1:
        share = _share_of_linear(sums[0], sums[1], labels)
        weights *= np.where(linear, share, 1 - share)
    total = weights @ np.array(brought)
    spread = max(float(total.std()), _NO_SPREAD)
    intercept, slope = recalibrate((total - total.mean()) / spread, labels)
    return (
        chosen,
        lines,
        [float(item) for item in weights],
        (intercept - slope * float(total.mean()) / spread, slope / spread),
    )


def _share_of_linear(linear: np.ndarray, other: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of weighted sums in a blend of unseen scores of spread one."""
    losses = np.array([_unseen_loss(share * linear + (1 - share) * other, labels) for share in _SHARES])
    if not np.isfinite(losses).any():
        # Nothing tells any row from another; every share says the same.
        return 0.5
    likely = np.exp(losses.min() - losses)
    told = float(probability(np.array((auc(linear, labels) - _ENOUGH_AUC) / _AUC_WIDTH)))
    return float(likely @ _SHARES / likely.sum()) * told


def _unseen_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the loss of scores with the best slope that does not turn them around."""
    spread = float(scores.std())
    if spread <= _NO_SPREAD:
        return float("inf")
    losses, _ = _losses_of_slopes((scores - scores.mean()) / spread, labels)
    return float(losses[_SLOPES >= 0].min())


def _loss(log_odds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0.0, np.where(labels == 1, -log_odds, log_odds)))


def recalibrate(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return intercept and slope of the logistic regression of labels on scores of spread one, the slope shrunk.

    A slope b with the standard error s that is found on some rows is too steep for others: it is multiplied by 1 - p s^2 / b^2, the heuristic
    shrinkage for p parameters (J. van Houwelingen, S. le Cessie, doi:10.1002/sim.4780091109). It does not fall below a least slope,
    which would turn a model around or tie every row.
    """
    losses, intercepts = _losses_of_slopes(scores, labels)
    best = int(np.argmin(losses))
    found = float(_SLOPES[best])
    slope = _LEAST_SLOPE
    if found > 0:
        expected = probability(intercepts[best] + found * scores)
        weight = expected * (1 - expected)
        middle = float(weight @ scores / weight.sum())
        variance = 1 / max(float(weight @ (scores - middle) ** 2), 1e-6)
        slope = max(found - _SHRUNK_FOR * variance / found, _LEAST_SLOPE)
    return float(np.interp(slope, _SLOPES, intercepts)), slope


def _losses_of_slopes(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of the slopes the loss with the intercept that suits it, and that intercept."""
    share = np.clip(labels.mean(), 0.5 / labels.size, 1 - 0.5 / labels.size)
    intercepts = np.full(_SLOPES.size, np.log(share / (1 - share)))
    for _ in range(_NEWTON_STEPS):
        expected = probability(intercepts[:, None] + _SLOPES[:, None] * scores)
        step = (expected - share).sum(axis=1) / np.maximum((expected * (1 - expected)).sum(axis=1), 1e-9)
        intercepts = intercepts - np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    return _loss(intercepts[:, None] + _SLOPES[:, None] * scores, labels).sum(axis=1), intercepts
