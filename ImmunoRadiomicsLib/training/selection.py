"""Which columns a model sees: everything here looks at training rows only, so it is called inside the folds.

Arrays are (rows, columns). Functions return the places of the chosen columns.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

Method = Literal["none", "univariate", "mrmr", "lasso", "stability"]

MOST_MISSING = 0.5
# A column that is the same in nineteen of twenty rows tells one row in twenty from the others, and mostly by chance.
NEAR_CONSTANT_SHARE = 0.95
_BLOCK = 256
_SUBSAMPLES = 40
_STABLE_SHARE = 0.6
_LIBLINEAR = threading.Lock()


def usable_columns(values: np.ndarray) -> np.ndarray:
    """Return the columns that are known in at least half of the rows and not nearly constant."""
    keep = []
    for index in range(values.shape[1]):
        column = values[:, index]
        known = column[~np.isnan(column)]
        if known.size < (1 - MOST_MISSING) * column.size or known.size < 2:
            continue
        _, counts = np.unique(known, return_counts=True)
        if counts.size > 1 and (counts.max() <= NEAR_CONSTANT_SHARE * known.size or counts.size == 2):
            keep.append(index)
    return np.array(keep, dtype=int)


def imputed(values: np.ndarray) -> np.ndarray:
    """Return a copy whose empty cells hold the median of their column."""
    filled = np.array(values, dtype=float)
    holes = np.isnan(filled)
    if holes.any():
        medians = np.nanmedian(np.where(holes.all(axis=0), 0.0, filled), axis=0)
        filled[holes] = np.broadcast_to(medians, filled.shape)[holes]
    return filled


def rank_scores(values: np.ndarray) -> np.ndarray:
    """Return the ranks of each column, centred and of unit length, so that a product of two columns is Spearman's correlation."""
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    norms = np.linalg.norm(ranks, axis=0)
    return ranks / np.where(norms > 0, norms, 1.0)


def representatives(values: np.ndarray, threshold: float) -> np.ndarray:
    """Cluster columns by rank correlation and return the representative of each cluster.

    A column joins the first earlier representative with which its absolute Spearman correlation exceeds ``threshold``; otherwise it
    represents a cluster of its own. Columns are visited in their order, so that a plain feature stands for its filtered copies.
    ``values`` has no empty cell.
    """
    scores = rank_scores(values)
    chosen: list[int] = []
    for start in range(0, scores.shape[1], _BLOCK):
        block = scores[:, start : start + _BLOCK]
        covered = np.zeros(block.shape[1], dtype=bool)
        if chosen:
            covered = (np.abs(scores[:, chosen].T @ block) > threshold).any(axis=0)
        among = np.abs(block.T @ block) > threshold
        for index in range(block.shape[1]):
            if not covered[index]:
                chosen.append(start + index)
                covered |= among[index]
    return np.array(chosen, dtype=int)


def relevance(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the F statistic of a one-way analysis of variance of each column's ranks over the two classes."""
    scores = rank_scores(values)
    target = labels - labels.mean()
    # Among rows of one class nothing is relevant.
    target = target / max(float(np.linalg.norm(target)), 1e-12)
    explained = np.minimum((target @ scores) ** 2, 1 - 1e-12)
    return np.asarray(explained / (1 - explained) * (labels.size - 2))


def minimum_redundancy(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Choose columns one after the other: each the most relevant over its mean correlation with those chosen before.

    This is the quotient form of minimum redundancy - maximum relevance with F statistic and correlation (C. Ding, H. Peng,
    doi:10.1142/S0219720005001004). ``values`` has no empty cell.
    """
    scores = rank_scores(values)
    relevant = relevance(values, labels)
    chosen = [int(np.argmax(relevant))]
    redundancy = np.zeros(values.shape[1])
    while len(chosen) < min(count, values.shape[1]):
        redundancy += np.abs(scores[:, chosen[-1]] @ scores)
        quotient = relevant / np.maximum(redundancy / len(chosen), 1e-3)
        quotient[chosen] = -1.0
        chosen.append(int(np.argmax(quotient)))
    return np.array(chosen)


def lasso_columns(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return at most ``count`` columns with a coefficient in the densest LASSO-logistic regression that keeps to that number.

    ``values`` is scaled and has no empty cell. The most relevant column is returned where every penalty keeps none.
    """
    best = np.array([int(np.argmax(relevance(values, labels)))])
    for strength in np.geomspace(0.01, 3.0, 12):
        weights = _lasso(values, labels, strength)
        kept = np.flatnonzero(weights)
        if kept.size > count:
            break
        if kept.size:
            best = kept
    return best


def stable_columns(values: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the columns that LASSO keeps in most of many half samples, at most ``count``, the steadiest first.

    Stability selection (N. Meinshausen, P. Buehlmann, doi:10.1111/j.1467-9868.2010.00740.x). ``values`` is scaled and has no empty cell.
    """
    rng = np.random.default_rng(seed)
    strength = _strength_for(values, labels, count)
    hits = np.zeros(values.shape[1])
    classes = [np.flatnonzero(labels == value) for value in (0, 1)]
    for _ in range(_SUBSAMPLES):
        rows = np.concatenate([rng.permutation(item)[: max(2, item.size // 2)] for item in classes])
        hits += _lasso(values[rows], labels[rows], strength) != 0
    share = hits / _SUBSAMPLES
    order = np.lexsort((-relevance(values, labels), -share))
    steady = [int(index) for index in order if share[index] >= _STABLE_SHARE][:count]
    return np.array(steady or [int(order[0])])


def _strength_for(values: np.ndarray, labels: np.ndarray, count: int) -> float:
    """Return the weakest penalty of a grid with which LASSO keeps about ``count`` columns of all rows."""
    kept = 0.01
    for strength in np.geomspace(0.01, 3.0, 12):
        kept = float(strength)
        if np.count_nonzero(_lasso(values, labels, strength)) >= count:
            break
    return kept


def _lasso(values: np.ndarray, labels: np.ndarray, strength: float) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(fitted_alone(lasso_logistic(strength), values, labels).coef_[0])


def fitted_alone(estimator: Any, values: np.ndarray, labels: np.ndarray) -> Any:
    """Fit a model; one that liblinear fits waits for its turn, so that the result does not depend on how many threads fit models.

    liblinear draws the order of its columns from one generator for the whole process.
    """
    if getattr(estimator, "solver", None) != "liblinear":
        return estimator.fit(values, labels)
    with _LIBLINEAR:
        return estimator.fit(values, labels)


def lasso_logistic(strength: float) -> Any:
    """Return an unfitted LASSO-logistic regression; ``strength`` is the inverse of the penalty."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        l1_ratio=1.0, solver="liblinear", C=float(strength), max_iter=200, tol=1e-3, random_state=0
    )


def select(method: Method, values: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the places of at most ``count`` columns by one method; ``values`` is scaled and has no empty cell."""
    if method == "none" or values.shape[1] <= 1:
        return np.arange(values.shape[1])
    if method == "univariate":
        return np.argsort(-relevance(values, labels), kind="stable")[:count]
    if method == "mrmr":
        return minimum_redundancy(values, labels, count)
    if method == "lasso":
        return lasso_columns(values, labels, count)
    return stable_columns(values, labels, count, seed)
