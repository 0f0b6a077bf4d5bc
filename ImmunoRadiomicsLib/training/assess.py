"""What a set of predictions on unseen rows is worth, as one object: the content of ``validation.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..classifiers.trained import probability
from .metrics import (
    CalibrationBin,
    CurvePoint,
    DecisionPoint,
    Interval,
    auc,
    bootstrap,
    brier,
    calibration_curve,
    calibration_line,
    concordance,
    decision_curve,
    label_permutation_p,
    net_reclassification,
    roc_curve,
)
from .nested import Nested, Optimism, smaller_class
from .recipes import Recipe
from .table import Table

ASSESSMENT_VERSION = "1.0"
_USUAL_EVENTS_PER_VARIABLE = 10
# With fewer rows of either outcome the figure of a subgroup is chance.
_FEWEST_OF_A_SUBGROUP = 5
# An interval of the slope that is wider than this holds both predictions far too extreme and far too timid.
_WIDE_SLOPE = 1.5


@dataclass(frozen=True)
class Performance:
    """Figures of predictions on unseen rows. ``metric`` is `auc`, or `c-index` for survival, which has no calibration here."""

    metric: str
    discrimination: Interval
    calibration_slope: Interval | None
    calibration_intercept: float | None
    brier: Interval | None
    brier_of_prevalence: float | None
    shuffled_label_p: float | None
    roc: tuple[CurvePoint, ...]
    calibration: tuple[CalibrationBin, ...]
    decision: tuple[DecisionPoint, ...]


@dataclass(frozen=True)
class Comparison:
    """The model against the clinical columns alone, in the same folds; ``difference`` is that of the AUC or C."""

    clinical: Interval
    difference: Interval
    net_reclassification: Interval | None


@dataclass(frozen=True)
class ColumnReport:
    """A column of the final model: how much it moves the log-odds, and in what share of the folds it was kept."""

    name: str
    importance: float
    stability: float


@dataclass(frozen=True)
class CentreReport:
    """A centre: its rows and the AUC or C there of a model fitted without it (or of the given model)."""

    name: str
    rows: int
    discrimination: float


@dataclass(frozen=True)
class SubgroupReport:
    """A level of an attribute: its rows and events, and the AUC or C inside it, None where it has too few of either outcome.

    ``predicted`` is the mean predicted probability (None for survival) beside the share ``observed``.
    """

    attribute: str
    level: str
    rows: int
    events: int
    discrimination: Interval | None
    predicted: float | None
    observed: float


@dataclass(frozen=True)
class Assessment:
    """Everything that a training run or an external validation found out."""

    assessment_version: str
    kind: str
    recipe: str
    table: str
    table_sha256: str
    scheme: str
    patients: int
    rows: int
    events: int
    candidates: int
    events_per_variable: float
    performance: Performance
    repeats: tuple[float, ...]
    comparison: Comparison | None
    optimism: Optimism | None
    permutation_p: float | None
    permutation_figures: tuple[float, ...]
    learning_curve: tuple[CurvePoint, ...]
    centres: tuple[CentreReport, ...]
    columns: tuple[ColumnReport, ...]
    reported: str
    notes: tuple[str, ...]
    subgroups: tuple[SubgroupReport, ...] = ()
    harmonisation: str = ""
    stability_filter: str = ""


def performance(
    log_odds: np.ndarray, table: Table, strata: np.ndarray, *, seed: int = 0, draws: int = 500
) -> Performance:
    """Return the figures of predictions.

    Parameters
    ----------
    log_odds
        (repeats, rows): log-odds, or log hazards for survival.
    table
        The outcomes and patients.
    strata
        (repeats, rows): fold of each row. Pairs are compared inside a fold, and the calibration slope has an intercept for each fold. Every figure
        is that of one repeat, averaged over the repeats: averaging predictions first would flatter a model that is used once.
    """
    repeats = range(log_odds.shape[0])
    found = _discrimination(log_odds, table, strata, seed, draws)
    if table.time is not None:
        return Performance("c-index", found, None, None, None, None, None, (), (), ())
    predicted = probability(log_odds)
    average = probability(log_odds.mean(axis=0))
    labels, groups = table.labels, table.groups
    slope = bootstrap(
        lambda rows: float(
            np.mean([calibration_line(predicted[r][rows], labels[rows], strata[r][rows])[1] for r in repeats])
        ),
        groups,
        draws=min(draws, 200),
        seed=seed,
    )
    squared = bootstrap(
        lambda rows: float(np.mean([brier(predicted[r][rows], labels[rows]) for r in repeats])),
        groups,
        draws=draws,
        seed=seed,
    )
    share = float(labels.mean())
    # Where the classes are parted perfectly there is no line.
    known = all(np.isfinite((slope.value, slope.lower, slope.upper)))
    intercept = float(np.mean([calibration_line(predicted[r], labels)[0] for r in repeats]))
    return Performance(
        "auc",
        found,
        slope if known else None,
        intercept if np.isfinite(intercept) else None,
        squared,
        share * (1 - share),
        label_permutation_p(log_odds[0], labels, strata[0], seed=seed),
        roc_curve(average, labels),
        calibration_curve(average, labels),
        decision_curve(average, labels),
    )


def compare_with_clinical(nested: Nested, table: Table, *, seed: int = 0, draws: int = 300) -> Comparison | None:
    """Return the comparison with the clinical columns alone; None without them."""
    if nested.clinical is None:
        return None
    clinical, model, strata, labels = nested.clinical, nested.log_odds, nested.fold_of_row, table.labels
    time = table.time

    def figure(scores: np.ndarray, rows: np.ndarray) -> float:
        values = [
            auc(scores[r][rows], labels[rows], strata[r][rows])
            if time is None
            else concordance(scores[r][rows], labels[rows], time[rows], strata[r][rows])
            for r in range(scores.shape[0])
        ]
        return float(np.mean(values))

    new, old = probability(nested.average()), probability(clinical.mean(axis=0))
    draws = draws if time is None else min(draws, 100)
    return Comparison(
        bootstrap(lambda rows: figure(clinical, rows), table.groups, draws=draws, seed=seed),
        bootstrap(lambda rows: figure(model, rows) - figure(clinical, rows), table.groups, draws=draws, seed=seed),
        None
        if time is not None
        else bootstrap(
            lambda rows: net_reclassification(new[rows], old[rows], labels[rows]), table.groups, draws=draws, seed=seed
        ),
    )


def subgroup_reports(
    log_odds: np.ndarray, table: Table, strata: np.ndarray, *, seed: int = 0, draws: int = 200
) -> tuple[SubgroupReport, ...]:
    """Return the figures inside each level of each attribute of the table; parameters are those of ``performance``."""
    found = []
    predicted = None if table.time is not None else probability(log_odds).mean(axis=0)
    for item in table.attributes:
        levels = np.array(item.levels, dtype=object)
        for level in sorted({level for level in item.levels if level}):
            inside = np.flatnonzero(levels == level)
            part = table.rows(inside)
            events = int(part.labels.sum())
            figures = None
            if min(events, inside.size - events) >= _FEWEST_OF_A_SUBGROUP:
                figures = _discrimination(log_odds[:, inside], part, strata[:, inside], seed, draws)
            found.append(
                SubgroupReport(
                    item.name,
                    level,
                    int(inside.size),
                    events,
                    figures if figures is not None and np.isfinite(figures.value) else None,
                    None if predicted is None else float(predicted[inside].mean()),
                    float(part.labels.mean()),
                )
            )
    return tuple(found)


def _discrimination(log_odds: np.ndarray, table: Table, strata: np.ndarray, seed: int, draws: int) -> Interval:
    """Return the AUC or C inside strata, averaged over repeats."""
    labels, time, repeats = table.labels, table.time, range(log_odds.shape[0])

    def figure(rows: np.ndarray) -> float:
        values = [
            auc(log_odds[r][rows], labels[rows], strata[r][rows])
            if time is None
            else concordance(log_odds[r][rows], labels[rows], time[rows], strata[r][rows])
            for r in repeats
        ]
        return float(np.mean(values))

    return bootstrap(figure, table.groups, draws=draws if time is None else min(draws, 200), seed=seed)


def slope_note(result: Performance) -> str:
    """Return in a sentence that the calibration slope is hardly known, where that is so; otherwise nothing."""
    slope = result.calibration_slope
    if slope is None or (slope.lower > 0 and slope.upper - slope.lower <= _WIDE_SLOPE):
        return ""
    return (
        f"The calibration slope is hardly known here ({slope.lower:.2f} to {slope.upper:.2f}): there are too few patients, or predictions differ too "
        "little, to say whether they are too extreme."
    )


def column_reports(names: Sequence[str], importance: np.ndarray, nested: Nested) -> tuple[ColumnReport, ...]:
    """Return the columns of the final model, the most important first, with the share of folds that kept each."""
    kept = Counter(name for fold in nested.folds for name in fold.columns)
    found = [
        ColumnReport(name, float(value), kept[name] / len(nested.folds))
        for name, value in zip(names, importance, strict=True)
    ]
    return tuple(sorted(found, key=lambda item: -item.importance))


def against_reported(recipe: Recipe, result: Performance) -> str:
    """Return in a sentence how the figure compares with what was reported."""
    reported, found = recipe.reported, result.discrimination
    here = f"Here: {result.metric} {found.value:.3f} ({found.lower:.3f} to {found.upper:.3f})"
    if reported.value is None or reported.metric != result.metric:
        return f"Reported: {reported.text}. {here}; the two are different figures and are not compared."
    gap = found.value - reported.value
    inside = found.lower <= reported.value <= found.upper
    return (
        f"Reported: {reported.text}. {here}, {abs(gap):.3f} {'above' if gap >= 0 else 'below'} it; the reported figure lies "
        f"{'inside' if inside else 'outside'} the interval found here."
    )


def events_per_variable(recipe: Recipe, table: Table) -> tuple[int, int, float]:
    """Return the patients of the smaller class, the variables that the model can hold, and the first over the second.

    A model that reads every column is counted with its candidate columns: penalties and averaging, not the count, restrain it.
    """
    events = smaller_class(table)
    limited = recipe.selection.method != "none"
    variables = min(len(table.columns), recipe.selection.count) if limited else len(table.columns)
    return events, variables, events / max(variables, 1)


def sample_size_note(events: int, variables: int, ratio: float) -> str:
    """Return in a sentence what the number of events allows."""
    verdict = (
        "as many as is usually asked for"
        if ratio >= _USUAL_EVENTS_PER_VARIABLE
        else f"fewer than the {_USUAL_EVENTS_PER_VARIABLE} that are usually asked for, so that only penalties and averaging keep the model from chance findings"
    )
    return f"{events} events for {variables} variables, {ratio:.1f} events per variable: {verdict}."
