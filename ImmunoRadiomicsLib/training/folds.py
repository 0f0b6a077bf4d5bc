"""Folds that keep every row of a group on one side and the share of events alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fold_count(labels: np.ndarray, groups: np.ndarray, wanted: int) -> int:
    """Return how many folds are possible: each needs a group with an event and one without."""
    events = _group_labels(labels, groups)[1]
    return int(max(2, min(wanted, events.sum(), (~events).sum())))


def fold_numbers(labels: np.ndarray, groups: np.ndarray, count: int, seed: int | Sequence[int]) -> np.ndarray:
    """Return the number of the fold of each row.

    Groups with and without an event are dealt out separately, the largest first, each to the fold that has the fewest rows of its kind;
    equally large groups come in random order.
    """
    rng = np.random.default_rng(seed)
    numbers, events = _group_labels(labels, groups)
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    fold_of_group = np.zeros(numbers.size, dtype=int)
    for kind in (True, False):
        members = rng.permutation(np.flatnonzero(events == kind))
        members = members[np.argsort(-sizes[members], kind="stable")]
        rows = np.zeros(count)
        # Who gets the surplus must not be the same fold for both classes.
        order = np.arange(count) if kind else np.arange(count)[::-1]
        for member in members:
            fold = int(order[np.argmin(rows[order])])
            fold_of_group[member] = fold
            rows[fold] += sizes[member]
    return np.asarray(fold_of_group[place])


def _group_labels(labels: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers, place = np.unique(groups, return_inverse=True)
    events = np.zeros(numbers.size, dtype=bool)
    np.logical_or.at(events, place, labels == 1)
    return numbers, events
