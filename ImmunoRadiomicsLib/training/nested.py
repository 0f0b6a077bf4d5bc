"""Repeated nested cross-validation, and what else shows how far a figure can be trusted.

Outer folds keep a patient's rows together. In each, ``fit_model`` makes every choice on the fitting rows; the held rows are only predicted.
Finished folds are kept by the caller's ``keep``, so that an interrupted run goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..classifiers.trained import probability
from ..progress import Progress, silent
from .folds import fold_count, fold_numbers
from .learners import Kind
from .metrics import auc, brier, concordance
from .model import Batches, FittedModel, Plan, fit_model
from .table import Table

# A finished piece of work under a name: returns what was kept, or makes and keeps it. Values are plain JSON.
Keep = Callable[[str, Callable[[], Any]], Any]

_CLINICAL_MEMBERS: tuple[Kind, ...] = ("ridge",)
_CURVE_SHARES = (0.4, 0.6, 0.8, 1.0)
_FEWEST_CENTRES = 2


def keep_nothing(name: str, make: Callable[[], Any]) -> Any:
    """Make every piece afresh."""
    return make()


@dataclass(frozen=True)
class Fold:
    """One outer fold: which columns its model read, and its members."""

    repeat: int
    fold: int
    columns: tuple[str, ...]
    members: tuple[str, ...]


@dataclass(frozen=True)
class Nested:
    """All outer folds. Arrays are (repeats, rows)."""

    folds: tuple[Fold, ...]
    log_odds: np.ndarray
    clinical: np.ndarray | None
    fold_of_row: np.ndarray

    def average(self) -> np.ndarray:
        """Return the log-odds of each row, averaged over repeats."""
        return np.asarray(self.log_odds.mean(axis=0))


@contextmanager
def one_thread_per_call() -> Iterator[None]:
    """Keep linear algebra from starting its own threads, which makes sums depend on their number."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@dataclass(frozen=True, eq=False)
class _Piece:
    """A model to fit to some rows (``seen``, bool) and to try on others; ``name`` is what it is kept under."""

    name: str
    seen: np.ndarray
    held: np.ndarray
    seed: int


def nested_validation(
    plan: Plan,
    table: Table,
    *,
    outer_folds: int,
    repeats: int,
    seed: int = 0,
    jobs: int = 1,
    keep: Keep = keep_nothing,
    progress: Progress = silent,
) -> Nested:
    """Cross-validate a plan on a table.

    ``jobs`` folds run at a time. The result depends on the seed and not on ``jobs``.
    """
    count = _count(table, outer_folds)
    numbers = np.array([fold_numbers(table.labels, table.groups, count, [seed, repeat]) for repeat in range(repeats)])
    work = [(repeat, fold) for repeat in range(repeats) for fold in range(count)]
    pieces = [
        _Piece(f"fold-{repeat}-{fold}", numbers[repeat] != fold, numbers[repeat] == fold, fold_seed(seed, repeat, fold))
        for repeat, fold in work
    ]
    found = _held_out(plan, table, pieces, jobs, keep, progress, "fold", beside=True)
    log_odds = np.zeros((repeats, table.labels.size))
    clinical = np.zeros_like(log_odds) if found[0]["clinical"] is not None else None
    folds = []
    for (repeat, fold), piece, data in zip(work, pieces, found, strict=True):
        log_odds[repeat, piece.held] = data["log_odds"]
        if clinical is not None:
            clinical[repeat, piece.held] = data["clinical"]
        folds.append(Fold(repeat, fold, tuple(data["columns"]), tuple(data["members"])))
    return Nested(tuple(folds), log_odds, clinical, numbers)


def _count(table: Table, wanted: int) -> int:
    """Return how many outer folds a table allows; survival needs nobody without the event."""
    if table.time is not None:
        return max(2, min(wanted, smaller_class(table)))
    return fold_count(table.labels, table.groups, wanted)


def smaller_class(table: Table, rows: np.ndarray | None = None) -> int:
    """Return the patients with an event or those without one, whichever are fewer; for survival those with one.

    ``rows`` marks those that count (bool), all where it is not given.
    """
    groups, labels = (table.groups, table.labels) if rows is None else (table.groups[rows], table.labels[rows])
    classes = (0, 1) if table.time is None else (1,)
    return min(int(np.unique(groups[labels == value]).size) for value in classes)


def _held_out(
    plan: Plan,
    table: Table,
    pieces: Sequence[_Piece],
    jobs: int,
    keep: Keep,
    progress: Progress,
    what: str,
    *,
    beside: bool = False,
) -> list[dict[str, Any]]:
    """Fit each piece and return the log-odds of its held rows, and with ``beside`` its columns, members, and the clinical columns' log-odds."""
    part_of = clinical_table(table) if beside else None
    alone = clinical_plan(plan, table)

    def one(piece: _Piece) -> dict[str, Any]:
        model = _fit(plan, table, piece.seen, piece.seed)
        data: dict[str, Any] = {"log_odds": _predicted(model, table, piece.held)}
        if beside:
            data["clinical"] = None
            if part_of is not None:
                data["clinical"] = _predicted(_fit(alone, part_of, piece.seen, piece.seed), part_of, piece.held)
            data["columns"] = [table.columns[index] for index in model.columns]
            data["members"] = [
                f"{item.kind} (setting {item.setting:g}, weight {item.weight:.2f})" for item in model.members
            ]
        return data

    return run_all([partial(keep, item.name, partial(one, item)) for item in pieces], jobs, progress, what)


def _predicted(model: FittedModel, table: Table, rows: np.ndarray) -> list[float]:
    batches = table.harmonised_over
    found = model.log_odds(table.values[rows], None if batches is None else batches[rows])
    return [float(item) for item in found]


def fold_seed(seed: int, repeat: int, fold: int) -> int:
    """Return the seed of one outer fold."""
    return int(np.random.default_rng([seed, repeat, fold]).integers(2**31))


def run_all(work: Sequence[Callable[[], Any]], jobs: int, progress: Progress, what: str) -> list[Any]:
    """Run pieces of work on ``jobs`` threads and return their results in order; nothing new starts once one has failed."""
    results: list[Any] = [None] * len(work)
    progress(0.0, f"{what} 0 of {len(work)}")
    with one_thread_per_call(), ThreadPoolExecutor(max_workers=jobs) as pool:
        waiting = {pool.submit(item): index for index, item in enumerate(work)}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                results[waiting[future]] = future.result()
                progress(done / len(work), f"{what} {done} of {len(work)}")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def _fit(plan: Plan, table: Table, rows: np.ndarray, seed: int) -> FittedModel:
    return fit_table(plan, table.rows(np.flatnonzero(rows)), seed)


def fit_table(plan: Plan, table: Table, seed: int, jobs: int = 1) -> FittedModel:
    """Fit a plan to all rows of a table, harmonised over its batches where it has any."""
    names = table.harmonised_over
    places = [index for index, name in enumerate(table.columns) if name in table.features]
    batches = None if names is None or not places else Batches(names, np.array(places))
    return fit_model(plan, table.values, table.labels, table.groups, table.time, seed, jobs, batches)


def clinical_plan(plan: Plan, table: Table) -> Plan:
    """Return what is fitted to the clinical columns for comparison."""
    members: tuple[Kind, ...] = ("cox",) if table.time is not None else _CLINICAL_MEMBERS
    return replace(plan, members=members, selection="none", redundancy=1.0)


def clinical_table(table: Table) -> Table | None:
    """Return the clinical columns, where there are some beside others."""
    names = table.clinical
    return table.take(names) if names and len(names) < len(table.columns) else None


def leave_one_centre_out(
    plan: Plan, table: Table, *, seed: int = 0, jobs: int = 1, keep: Keep = keep_nothing, progress: Progress = silent
) -> dict[str, tuple[int, float]]:
    """Return for each centre its rows and the AUC (or C) of a model fitted without it; empty with a single centre.

    A patient seen at two centres is left out of the fit for either.
    """
    centres = np.array(table.centres)
    names = sorted(set(table.centres))
    if len(names) < _FEWEST_CENTRES:
        return {}

    pieces = []
    for number, name in enumerate(names):
        held = centres == name
        seen = ~held & ~np.isin(table.groups, table.groups[held])
        told = table.labels[held].any() if table.time is not None else len(set(table.labels[held].tolist())) == 2
        if smaller_class(table, seen) >= 2 and told:
            pieces.append((name, _Piece(f"centre-{number}", seen, held, seed)))
    found = _held_out(plan, table, [item for _, item in pieces], jobs, keep, progress, "centre")
    figures = {
        name: (
            int(piece.held.sum()),
            discrimination(np.array(data["log_odds"]), table.rows(np.flatnonzero(piece.held))),
        )
        for (name, piece), data in zip(pieces, found, strict=True)
    }
    # Without a pair of patients whose order is known there is no figure.
    return {name: item for name, item in figures.items() if np.isfinite(item[1])}


def discrimination(scores: np.ndarray, table: Table, strata: np.ndarray | None = None) -> float:
    """Return the AUC, or for survival Harrell's C, inside strata."""
    if table.time is not None:
        return concordance(scores, table.labels, table.time, strata)
    return auc(scores, table.labels, strata)


@dataclass(frozen=True)
class Optimism:
    """Bootstrap estimates of the AUC or C: the apparent figure, the optimism that Harrell's bootstrap finds in it, and .632+.

    A forest fits its own rows perfectly and some of them are in every sample, so that apparent less optimism is still too good;
    .632+ weighs the patients left out by how far that goes (doi:10.1080/01621459.1997.10474007). ``brier_632_plus`` is None for survival.
    """

    draws: int
    apparent: float
    optimism: float
    corrected: float
    estimate_632_plus: float
    brier_632_plus: float | None


def bootstrap_optimism(
    plan: Plan,
    table: Table,
    model: FittedModel,
    draws: int,
    *,
    seed: int = 0,
    jobs: int = 1,
    keep: Keep = keep_nothing,
    progress: Progress = silent,
) -> Optimism:
    """Fit the plan to samples of patients drawn with replacement and compare each on its sample, on all rows, and on the patients left out."""

    def one(number: int) -> list[float]:
        rng = np.random.default_rng([seed, 4, number])
        groups = np.unique(table.groups)
        while True:
            drawn = rng.choice(groups, groups.size)
            rows = np.concatenate([np.flatnonzero(table.groups == item) for item in drawn])
            sample, left = table.rows(rows), ~np.isin(table.groups, drawn)
            if smaller_class(table, ~left) >= 2 and left.any():
                break
        fitted = fit_table(plan, sample, fold_seed(seed, 4, number))
        everyone = fitted.log_odds(table.values, table.harmonised_over)
        gap = discrimination(everyone[rows], sample) - discrimination(everyone, table)
        unseen = discrimination(everyone[left], table.rows(np.flatnonzero(left)))
        return [gap, 0.5 if np.isnan(unseen) else unseen, brier(probability(everyone[left]), table.labels[left])]

    pieces = [partial(keep, f"bootstrap-{number}", partial(one, number)) for number in range(draws)]
    found = np.array(run_all(pieces, jobs, progress, "bootstrap sample"))
    scores = model.log_odds(table.values, table.harmonised_over)
    apparent, optimism = discrimination(scores, table), float(found[:, 0].mean())
    # As errors, so that one formula serves both; chance is one half.
    estimate = 1 - _six_three_two_plus(1 - apparent, 1 - float(found[:, 1].mean()), 0.5)
    squared = None
    if table.time is None:
        predicted, share = probability(scores), table.labels.mean()
        # The error if predictions had nothing to do with outcomes: every prediction against every outcome.
        blind = float(np.mean(share * (1 - predicted) ** 2 + (1 - share) * predicted**2))
        squared = _six_three_two_plus(brier(predicted, table.labels), float(found[:, 2].mean()), blind)
    return Optimism(draws, apparent, optimism, apparent - optimism, estimate, squared)


def _six_three_two_plus(seen: float, unseen: float, blind: float) -> float:
    """Return Efron's .632+ of an error on the fitting rows, on the rows left out, and without information."""
    limited = min(unseen, blind)
    overfit = (limited - seen) / (blind - seen) if limited > seen and blind > seen else 0.0
    weight = 0.632 / (1 - 0.368 * overfit)
    return float((1 - weight) * seen + weight * limited)


def learning_curve(
    plan: Plan,
    table: Table,
    *,
    outer_folds: int,
    seed: int = 0,
    jobs: int = 1,
    keep: Keep = keep_nothing,
    progress: Progress = silent,
) -> tuple[tuple[int, float], ...]:
    """Return (patients fitted on, AUC or C in the held folds) for growing shares of the fitting patients."""
    count = _count(table, outer_folds)
    numbers = fold_numbers(table.labels, table.groups, count, [seed, 0])
    pieces: dict[float, list[_Piece]] = {}
    for share in _CURVE_SHARES:
        pieces[share] = []
        for fold in range(count):
            rest = np.flatnonzero(numbers != fold)
            place = fold_numbers(table.labels[rest], table.groups[rest], 20, [seed, 5, fold])
            part = rest[place < round(20 * share)]
            seen = np.isin(np.arange(table.labels.size), part)
            if smaller_class(table, seen) >= 2:
                name = f"curve-{share:g}-{fold}"
                pieces[share].append(_Piece(name, seen, numbers == fold, fold_seed(seed, 0, fold)))
    # A share that is too small for some fold has no point, and its other folds are not worth fitting.
    whole = [item for share in _CURVE_SHARES if len(pieces[share]) == count for item in pieces[share]]
    found = _held_out(plan, table, whole, jobs, keep, progress, "learning step")
    points = []
    for start in range(0, len(whole), count):
        scores = np.zeros(table.labels.size)
        for piece, data in zip(whole[start : start + count], found[start : start + count], strict=True):
            scores[piece.held] = data["log_odds"]
        sizes = [np.unique(table.groups[piece.seen]).size for piece in whole[start : start + count]]
        points.append((round(float(np.mean(sizes))), discrimination(scores, table, numbers)))
    return tuple(points)


def permutation_test(
    plan: Plan,
    table: Table,
    found: float,
    draws: int,
    *,
    outer_folds: int,
    seed: int = 0,
    jobs: int = 1,
    keep: Keep = keep_nothing,
    progress: Progress = silent,
) -> tuple[float, tuple[float, ...]]:
    """Repeat the whole cross-validation with shuffled outcomes: return the p-value of ``found`` and the figures under chance.

    Outcomes change places between patients with the same number of rows, all rows of one together.
    """

    def one(number: int) -> float:
        rng = np.random.default_rng([seed, 6, number])
        order = _shuffled_patients(table.groups, rng)
        shuffled = replace(table, labels=table.labels[order], time=None if table.time is None else table.time[order])
        result = nested_validation(plan, shuffled, outer_folds=outer_folds, repeats=1, seed=seed + 1 + number)
        return discrimination(result.log_odds[0], shuffled, result.fold_of_row[0])

    pieces = [partial(keep, f"shuffle-{number}", partial(one, number)) for number in range(draws)]
    values = tuple(float(item) for item in run_all(pieces, jobs, progress, "shuffled outcome"))
    return (sum(item >= found for item in values) + 1) / (draws + 1), values


def _shuffled_patients(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each row the row whose outcome it takes."""
    order = np.arange(groups.size)
    rows = [np.flatnonzero(groups == item) for item in np.unique(groups)]
    for size in sorted({item.size for item in rows}):
        alike = [item for item in rows if item.size == size]
        for place, source in enumerate(rng.permutation(len(alike))):
            order[alike[place]] = alike[source]
    return order
