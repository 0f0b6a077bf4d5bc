"""Folds, selection, metrics and models against known truth."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")

from ImmunoRadiomicsLib.classifiers.trained import probability, score
from ImmunoRadiomicsLib.training import Table
from ImmunoRadiomicsLib.training.assess import performance, slope_note
from ImmunoRadiomicsLib.training.folds import fold_count, fold_numbers
from ImmunoRadiomicsLib.training.harmonisation import fit_correction
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
from ImmunoRadiomicsLib.training.model import Batches, Plan, fit_model, recalibrate
from ImmunoRadiomicsLib.training.plots import ticks
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


def test_the_slope_has_an_intercept_for_each_fold() -> None:
    rng = np.random.default_rng(4)
    fold = rng.integers(5, size=20_000)
    scores = rng.normal(size=fold.size)
    labels = (rng.random(fold.size) < probability(scores)).astype(int)
    # Models of folds that lie too high or too low, as they do where a fold happens to hold many events.
    shifted = probability(scores + np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[fold])
    assert calibration_line(shifted, labels, fold)[1] == pytest.approx(1.0, abs=0.06)
    assert calibration_line(shifted, labels)[1] < 0.7
    # A fold without events has no part in it.
    assert np.isfinite(calibration_line(shifted, np.where(fold == 0, 0, labels), fold)[1])


@pytest.mark.parametrize(
    ("signal", "low", "high"), [(0.0, 0.1, 0.3), (0.8, 0.55, 0.9), (1.5, 1.3, 1.7), (3.0, 2.6, 3.3)]
)
def test_recalibration_stays_small_without_evidence_alone(signal: float, low: float, high: float) -> None:
    rng = np.random.default_rng(8)
    found = []
    for _ in range(40):
        scores = rng.normal(size=100)
        labels = (rng.random(100) < probability(signal * scores - 0.5)).astype(int)
        standard = (scores - scores.mean()) / scores.std()
        intercept, slope = recalibrate(standard, labels)
        found.append(slope)
        assert probability(intercept + slope * standard).mean() == pytest.approx(labels.mean(), abs=0.005)
    assert low < np.mean(found) < high


@pytest.mark.parametrize(("rows", "signal", "said"), [(400, 1.0, ""), (60, 0.1, "hardly known")])
def test_a_slope_that_nothing_tells_is_said(rows: int, signal: float, said: str) -> None:
    rng = np.random.default_rng(4)
    scores = signal * rng.normal(size=rows)
    labels = (rng.random(rows) < probability(scores)).astype(int)
    patients = tuple(map(str, range(rows)))
    table = Table("", "", "label", patients, (), (), np.arange(rows), labels, None, ("a",), scores[:, None], ())
    note = slope_note(performance(scores[None], table, np.zeros((1, rows), dtype=int), draws=60))
    assert said in note
    assert bool(said) == bool(note)


def test_linear_members_fade_where_they_tell_nothing() -> None:
    rng = np.random.default_rng(3)
    plan = Plan(("plain-lasso", "loose-lasso", "forest"), "none", 8, 0.95, 3)
    values = rng.normal(size=(200, 8))
    straight = (values[:, 0] + values[:, 1] > 0).astype(int)
    bent = (values[:, 0] * values[:, 1] > 0).astype(int)
    shares = []
    for labels in (straight, bent):
        members = fit_model(plan, values, labels, np.arange(200), None, 0).members
        sizes = [item.weight * item.slope * np.std(score(item.fitted, values)) for item in members]
        shares.append(sum(sizes[:2]) / sum(sizes))
        assert members[0].weight == members[1].weight
    assert shares[0] > 0.4
    assert shares[1] < 0.2


def test_columns_that_tell_nothing_give_everyone_the_share() -> None:
    labels = np.tile([0, 0, 1], 20)
    plan = Plan(("plain-lasso", "forest"), "none", 8, 0.95, 3)
    model = fit_model(plan, np.ones((60, 3)), labels, np.arange(60), None, 0)
    assert probability(model.log_odds(np.ones((60, 3)))) == pytest.approx(1 / 3, abs=0.01)


def test_harmonisation_is_fitted_to_the_fitting_rows() -> None:
    rng = np.random.default_rng(6)
    labels, names = np.tile([0, 1], 60), np.repeat(np.array(["A", "B", "C"], dtype=object), 40)
    values = rng.normal(size=(120, 6)) + np.repeat([0.0, 6.0, -6.0], 40)[:, None]
    values[:, 0] += 1.5 * labels
    values[:, 5] = labels + rng.normal(size=120)
    batches = Batches(names, np.arange(5))
    plan = Plan(("ridge",), "none", 6, 1.0, 3)
    seen = np.arange(120) % 3 > 0
    model = fit_model(plan, values[seen], labels[seen], np.arange(80), None, 0, batches=batches.rows(seen))
    plain = fit_model(plan, values[seen], labels[seen], np.arange(80), None, 0)
    assert auc(model.log_odds(values[~seen], names[~seen]), labels[~seen]) > 0.8
    found = auc(model.log_odds(values[~seen], names[~seen]), labels[~seen])
    assert found >= auc(plain.log_odds(values[~seen]), labels[~seen])
    assert model.correction is not None
    assert model.correction.batches == ("A", "B", "C")
    # A column that is not measured stays as it is.
    clinical = int(np.flatnonzero(model.columns == 5)[0])
    assert all(row[clinical] == 1.0 for row in model.correction.factors)
    # Neither held rows nor their number have a part in what is fitted.
    assert model.correction == fit_correction(values[seen][:, :5], names[seen]).among(range(5), 6).take(model.columns)


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


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert ticks(0.3, 1.0) == (0.4, 0.6, 0.8, 1.0)
    assert ticks(0, 187) == (0.0, 50.0, 100.0, 150.0)
    assert ticks(-0.013, 0.47) == (0.0, 0.1, 0.2, 0.3, 0.4)
