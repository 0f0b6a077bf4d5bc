"""Fitting one model to one set of rows, with every choice made inside them.

Columns are cleaned, clustered, selected and scaled on the fitting rows alone. The inner folds repeat all of it and predict each
row without having seen it; those predictions choose the settings and recalibrate. What stands outside of the
rows given here has no part in any of it, so the same function serves an outer fold and the final model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from ..classifiers.trained import probability, score
from .folds import fold_count, fold_numbers
from .learners import LEARNERS, Kind, fit_learner, martingale_residuals
from .selection import Method, imputed, representatives, select, usable_columns

# Beyond these quantiles of the fitting rows a value counts as the quantile: one outlier must not steer a weighted sum.
_TAIL = 0.01
# Scores of spread one that were chosen on few rows are mostly too sure of themselves; and a slope of 0 would tie every row.
_LIKELIEST_SLOPE, _SLOPE_SD, _SMALLEST_SLOPE = 0.5, 0.4, 0.05
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
    """A model that reads ``columns`` (places in the table it was fitted on) and gives log-odds, or a log hazard for survival."""

    columns: np.ndarray
    scaling: Scaling
    members: tuple[Member, ...]
    intercept: float
    slope: float

    def log_odds(self, values: np.ndarray) -> np.ndarray:
        """Return the log-odds of rows with all columns of the table."""
        scaled = self.scaling(values[:, self.columns])
        total = sum(item.weight * (item.intercept + item.slope * score(item.fitted, scaled)) for item in self.members)
        return np.asarray(self.intercept + self.slope * total)

    def probability(self, values: np.ndarray) -> np.ndarray:
        """Return the probability of the event of rows with all columns of the table."""
        return probability(self.log_odds(values))

    def importance(self, rows: np.ndarray) -> np.ndarray:
        """Return how much each of ``columns`` moves the log-odds of these rows.

        The weighted sum of linear members' absolute coefficients on scaled columns; for other members the standard deviation of the
        score after each column in turn is set to its mean.
        """
        scaled = self.scaling(rows[:, self.columns])
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
    """
    candidates = [(kind, setting) for kind in plan.members for setting in LEARNERS[kind].settings]
    if time is not None:
        chosen, lines, last = [candidates[0]], [(0.0, 1.0)], (0.0, 1.0)
    else:
        unseen = _inner_scores(plan, candidates, values, labels, groups, seed, jobs)
        chosen, lines, last = _choose(plan, candidates, unseen, labels)
    columns = _columns(plan, values, labels, time, seed)
    scaling = Scaling.of(values[:, columns])
    scaled = scaling(values[:, columns])
    members = tuple(
        Member(kind, setting, fit_learner(kind, setting, scaled, labels, time, seed, jobs), *line, 1 / len(chosen))
        for (kind, setting), line in zip(chosen, lines, strict=True)
    )
    return FittedModel(columns, scaling, members, *last)


def _columns(plan: Plan, values: np.ndarray, labels: np.ndarray, time: np.ndarray | None, seed: int) -> np.ndarray:
    """Return the columns that the model will read, found on these rows alone."""
    columns = usable_columns(values)
    if columns.size == 0:
        # Nothing varies among these rows; any column gives every row the same score.
        return np.array([int(np.argmin(np.isnan(values).mean(axis=0)))])
    filled = imputed(values[:, columns])
    if plan.redundancy < 1:
        kept = representatives(filled, plan.redundancy)
        columns, filled = columns[kept], filled[:, kept]
    target = labels if time is None else martingale_residuals(labels, time)
    scaled = Scaling.of(filled)(filled)
    return columns[np.sort(select(plan.selection, scaled, target, plan.count, seed))]


def _inner_scores(
    plan: Plan,
    candidates: Sequence[tuple[Kind, float]],
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    jobs: int,
) -> np.ndarray:
    """Return (candidates, rows): the score that each candidate gives each row without having seen its patient."""
    count = fold_count(labels, groups, plan.inner_folds)
    fold = fold_numbers(labels, groups, count, [seed, 1])
    scores = np.zeros((len(candidates), labels.size))
    for number in range(count):
        held, seen = fold == number, fold != number
        columns = _columns(plan, values[seen], labels[seen], None, seed)
        scaling = Scaling.of(values[seen][:, columns])
        fitting, testing = scaling(values[seen][:, columns]), scaling(values[held][:, columns])
        for index, (kind, setting) in enumerate(candidates):
            fitted = fit_learner(kind, setting, fitting, labels[seen], None, seed, jobs)
            scores[index, held] = score(fitted, testing)
    return scores


def _choose(
    plan: Plan, candidates: Sequence[tuple[Kind, float]], scores: np.ndarray, labels: np.ndarray
) -> tuple[list[tuple[Kind, float]], list[tuple[float, float]], tuple[float, float]]:
    """Choose a setting per member, bring members to a common spread, and recalibrate their mean, all on unseen rows.

    Members have equal weights: a few hundred rows cannot tell which deserves more, and weights that follow chance cost more than they gain.
    """
    chosen, lines, brought = [], [], []
    for kind in plan.members:
        places = [index for index, item in enumerate(candidates) if item[0] == kind]
        best = min(places, key=lambda index: _unseen_loss(scores[index], labels))
        spread = float(scores[best].std())
        # A member that says the same of every row adds nothing.
        line = (-float(scores[best].mean()) / spread, 1 / spread) if spread > _NO_SPREAD else (0.0, 0.0)
        chosen.append(candidates[best])
        lines.append(line)
        brought.append(line[0] + line[1] * scores[best])
    mean = np.mean(brought, axis=0)
    spread = max(float(mean.std()), _NO_SPREAD)
    intercept, slope = recalibrate(mean / spread, labels)
    return chosen, lines, (intercept, slope / spread)


def _unseen_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    spread = float(scores.std())
    if spread <= _NO_SPREAD:
        return float("inf")
    standard = (scores - scores.mean()) / spread
    intercept, slope = recalibrate(standard, labels)
    return float(_loss(intercept + slope * standard, labels).sum())


def _loss(log_odds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0.0, np.where(labels == 1, -log_odds, log_odds)))


def recalibrate(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return intercept and slope of the logistic regression of labels on scores of spread one.

    The slope has a normal prior and stays above 0, so that few rows cannot blow up a chance finding or turn a model around.
    """

    def objective(line: np.ndarray) -> tuple[float, np.ndarray]:
        shifted = line[0] + line[1] * scores
        residual = probability(shifted) - labels
        away = (line[1] - _LIKELIEST_SLOPE) / _SLOPE_SD
        value = float(_loss(shifted, labels).sum() + 0.5 * away**2)
        return value, np.array([residual.sum(), residual @ scores + away / _SLOPE_SD])

    share = np.clip(labels.mean(), 0.5 / labels.size, 1 - 0.5 / labels.size)
    start = np.array([np.log(share / (1 - share)), 0.5])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(None, None), (_SMALLEST_SLOPE, None)])
    return float(found.x[0]), float(found.x[1])
