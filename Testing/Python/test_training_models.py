"""Folds, selection, metrics and models against known truth."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")

from ImmunoRadiomicsLib.classifiers.trained import probability
from ImmunoRadiomicsLib.training.folds import fold_count, fold_numbers
from ImmunoRadiomicsLib.training.learners import martingale_residuals
from ImmunoRadiomicsLib.training.metrics import (
    auc,
    bootstrap,
    calibration_line,
    concordance,
    net_benefit,
    net_reclassification,
    roc_curve,
)
from ImmunoRadiomicsLib.training.model import Plan, fit_model
from ImmunoRadiomicsLib.training.selection import minimum_redundancy, representatives, usable_columns


def test_folds_keep_patients_together_and_events_alike() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(60, size=200)
    labels = (rng.random(60) < 0.3)[groups].astype(int)
    fold = fold_numbers(labels, groups, 5, 1)
    for group in np.unique(groups):
        assert len(set(fold[groups == group].tolist())) == 1
    events = [int(labels[fold == number].sum()) for number in range(5)]
    assert max(events) - min(events) <= 4
    assert np.array_equal(fold, fold_numbers(labels, groups, 5, 1))
    assert not np.array_equal(fold, fold_numbers(labels, groups, 5, 2))


def test_fewer_folds_where_events_are_few() -> None:
    labels = np.array([1, 1, 1, *[0] * 20])
    assert fold_count(labels, np.arange(23), 5) == 3


def test_figures_of_known_predictions() -> None:
    labels = np.array([0, 0, 1, 1])
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), labels) == 0.75
    assert auc(np.array([0.1, 0.9, 0.2, 0.95]), labels, np.array([0, 1, 0, 1])) == 1.0
    assert auc(np.full(4, 0.5), labels) == 0.5
    assert concordance(np.array([3.0, 2, 1, 0]), np.array([1, 1, 1, 0]), np.array([1.0, 2, 3, 4])) == 1.0
    assert net_benefit(np.array([0.9, 0.9, 0.1, 0.9]), np.array([1, 1, 0, 0]), 0.5) == pytest.approx(0.25)
    assert net_reclassification(np.array([0.2, 0.8]), np.array([0.5, 0.5]), np.array([0, 1])) == 2.0
    ends = roc_curve(np.array([0.1, 0.4, 0.35, 0.8]), labels)
    assert (ends[0].x, ends[-1].y) == (0.0, 1.0)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_calibration_slope_is_recovered(slope: float) -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=40_000)
    labels = (rng.random(40_000) < probability(slope * scores + 0.3)).astype(int)
    intercept, found = calibration_line(probability(scores), labels)
    assert found == pytest.approx(slope, abs=0.05)
    assert intercept > 0


def test_bootstrap_draws_patients() -> None:
    groups = np.repeat(np.arange(50), 4)
    values = np.repeat(np.random.default_rng(0).normal(size=50), 4)
    found = bootstrap(lambda rows: float(values[rows].mean()), groups, draws=400)
    # The spread is that of 50 patients, not of 200 rows.
    assert (found.upper - found.lower) / 3.92 == pytest.approx(values.std() / np.sqrt(50), rel=0.15)


def test_martingale_residuals_sum_to_nothing() -> None:
    rng = np.random.default_rng(0)
    time, events = np.round(rng.exponential(10, 80), 0) + 1, rng.integers(2, size=80)
    assert martingale_residuals(events, time).sum() == pytest.approx(0, abs=1e-9)


def test_columns_are_clustered_and_cleaned() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(80, 3))
    values = np.column_stack([base[:, 0], base[:, 1], np.exp(base[:, 0]), base[:, 2], -base[:, 1]])
    assert representatives(values, 0.95).tolist() == [0, 1, 3]
    holes = np.column_stack([values[:, 0], np.r_[np.full(50, np.nan), values[50:, 1]], np.r_[np.zeros(79), 1.5]])
    holes[:3, 2] = [0.1, 0.2, 0.0]
    assert usable_columns(holes).tolist() == [0]


def test_selection_prefers_what_adds() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 300))
    labels = (first + second > 0).astype(int)
    values = np.column_stack([first, first + 0.05 * rng.normal(size=300), second, rng.normal(size=(300, 5))])
    assert set(minimum_redundancy(values, labels, 2).tolist()) in ({0, 2}, {1, 2})


@pytest.mark.parametrize("member", ["ridge", "lasso", "elastic-net", "lda", "forest", "boosting", "svm", "anomaly"])
def test_every_model_finds_a_strong_signal(member: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(150, 6))
    labels = (rng.random(150) < probability(-1 + 2.5 * np.abs(values[:, 0]) - 1.5)).astype(int)
    values[:, 0] = np.abs(values[:, 0])
    values[rng.random(values.shape) < 0.05] = np.nan
    plan = Plan((member,), "none", 6, 0.95, 3)  # type: ignore[arg-type]
    model = fit_model(plan, values[:100], labels[:100], np.arange(100), None, 0)
    assert auc(model.log_odds(values[100:]), labels[100:]) > (0.55 if member == "anomaly" else 0.7)


@pytest.mark.parametrize("selection", ["lasso", "mrmr", "stability", "univariate"])
def test_selection_of_noise_leaks_nothing(selection: str) -> None:
    rng = np.random.default_rng(5)
    found = []
    for draw in range(6):
        values, labels = rng.normal(size=(80, 200)), np.tile([0, 1], 40)
        plan = Plan(("ridge",), selection, 5, 1.0, 3)  # type: ignore[arg-type]
        fold = fold_numbers(labels, np.arange(80), 4, draw)
        scores = np.zeros(80)
        for number in range(2):
            seen = fold != number
            scores[~seen] = fit_model(plan, values[seen], labels[seen], np.arange(60), None, 0).log_odds(values[~seen])
        tested = fold < 2
        found.append(auc(scores[tested], labels[tested], fold[tested]))
    # Selected outside of the folds, five of 200 columns of noise reach 0.8.
    assert np.mean(found) == pytest.approx(0.5, abs=0.13)


def test_the_result_does_not_depend_on_threads() -> None:
    rng = np.random.default_rng(2)
    values, labels = rng.normal(size=(60, 8)), np.tile([0, 1], 30)
    plan = Plan(("plain-lasso", "forest"), "none", 8, 0.95, 2)
    first, second = (fit_model(plan, values, labels, np.arange(60), None, 4, jobs).log_odds(values) for jobs in (1, 2))
    assert np.array_equal(first, second)
