"""The fitted numbers in the bundles are what the refit gives on the published trial tables."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "trials"
SHIPPED = ROOT / "Resources" / "Classifiers"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the published trial tables are not beside this checkout")


@pytest.fixture(scope="module")
def refit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("refit_evidence", ROOT / "benchmarks" / "refit_evidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["refit_evidence"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def growth(refit: ModuleType):
    return refit.refit_pseudoprogression(DATA)


@pytest.fixture(scope="module")
def death(refit: ModuleType):
    return refit.refit_hyperprogression(DATA)


def stored(flag: str, name: str) -> dict:
    return json.loads((SHIPPED / f"{flag}-evidence" / name).read_text(encoding="utf-8"))


def test_growth_counts_and_bins(growth) -> None:
    assert (growth.lesions, growth.unconfirmed, growth.without_later_scan) == (301, 42, 186)
    assert [(part, whole) for _, _, part, whole in growth.bins] == [(7, 36), (11, 46), (5, 43), (1, 35), (0, 17)]


def test_growth_discriminates_as_weakly_as_the_reference(growth) -> None:
    assert 0.62 <= growth.auc_all.value <= 0.68
    assert growth.auc_all.lower > 0.5
    assert growth.auc_from_baseline.value > growth.auc_all.value
    assert growth.fit.coefficients[1] < 0


def test_shipped_growth_numbers_are_the_refitted_ones(refit: ModuleType, growth) -> None:
    regression = stored("pseudoprogression", "model.json")["regression"]
    np.testing.assert_allclose(regression["coefficients"], growth.shrinkage * growth.fit.coefficients[1:], atol=1e-6)
    np.testing.assert_allclose(regression["covariance"], growth.shipped_covariance, atol=1e-6)
    np.testing.assert_allclose(regression["origins"], growth.origins, atol=1e-6)
    np.testing.assert_allclose(regression["location"], growth.location, atol=1e-6)
    np.testing.assert_allclose(regression["scatter"], growth.scatter, atol=1e-6)
    assert regression["upper_limits"][0] == pytest.approx(np.log(1.75), abs=1e-6)
    card = stored("pseudoprogression", "card.json")
    assert (card["training"]["patients"], card["training"]["events"]) == (301, 42)
    assert card["validation"]["internal"]["auc"]["value"] == pytest.approx(growth.auc_all.value, abs=5e-4)
    months = next(item for item in card["inputs"] if item["name"] == "months")
    assert months["low"] <= growth.ranges[1, 0] < months["low"] + 0.5
    assert months["high"] >= growth.ranges[1, 1] > months["high"] - 0.5
    largest = next(item for item in card["inputs"] if item["name"] == "growth")["high"]
    items, _ = refit.read_progressions(DATA / refit.SERIES_TABLE)
    grown = max(np.log(item.now_mm / max(item.nadir_mm, refit.TOO_SMALL_MM)) for item in items)
    assert largest - 0.01 < grown <= largest


def test_contributions_at_the_origins_are_the_average_chance(growth) -> None:
    log_odds = growth.fit.log_odds(growth.origins[None, :])[0]
    assert log_odds == pytest.approx(np.log(42 / (301 - 42)), abs=1e-9)


def test_early_death_is_the_reference_fit(death) -> None:
    assert (death.events, death.patients, death.external_events, death.external_patients) == (48, 424, 19, 144)
    np.testing.assert_allclose(death.fit.coefficients, [-5.5183, 1.4345, 0.2028, 0.4094], atol=5e-5)
    assert round(death.auc_apparent.value, 3) == 0.707
    assert round(death.auc_external.value, 3) == 0.760
    assert death.auc_external.lower < 0.68
    assert death.auc_external.upper > 0.84
    assert round(death.slope.value, 2) == 1.39
    assert round(death.intercept.value, 2) == 0.73
    assert round(death.brier_external, 3) == 0.102
    for figure in (death.slope, death.intercept):
        assert figure.lower < figure.value < figure.upper


def test_nine_covariates_with_a_penalty_rank_the_other_trial_as_well(death) -> None:
    # The reference has 0.772 [0.66-0.88] without saying its penalty; here the fitting trial alone chooses it.
    assert death.ridge.auc_external.value > 0.76
    assert 0.62 < death.ridge.auc_external.lower < 0.70
    assert 0.85 < death.ridge.auc_external.upper < 0.91


def test_shipped_early_death_numbers_are_the_refitted_ones(death) -> None:
    model, card = stored("hyperprogression", "model.json"), stored("hyperprogression", "card.json")
    regression = model["regression"]
    assert regression["intercept"] == pytest.approx(death.centred.coefficients[0], abs=1e-6)
    np.testing.assert_allclose(regression["coefficients"], death.fit.coefficients[1:], atol=1e-6)
    np.testing.assert_allclose(regression["covariance"], death.centred.covariance, atol=1e-6)
    np.testing.assert_allclose(regression["origins"], death.means, atol=1e-6)
    np.testing.assert_allclose(regression["spreads"], death.spreads, atol=1e-6)
    # The same line, whether it is written from zero or from the averages.
    from_zero = regression["intercept"] - np.dot(regression["coefficients"], regression["origins"])
    assert from_zero == pytest.approx(-5.5183, abs=1e-4)
    external = card["validation"]["external"]
    assert external["auc"]["value"] == pytest.approx(0.760, abs=1e-9)
    assert (external["calibration_slope"], external["calibration_intercept"]) == pytest.approx((1.386, 0.733))
    assert model["shrinkage"]["factor"] == pytest.approx(death.shrinkage.value, abs=0.005)
    assert model["shrinkage"]["standard_deviation"] == pytest.approx(death.shrinkage_sd, abs=0.005)
    sites, burden = (next(item for item in card["inputs"] if item["name"] == name) for name in ("sites", "ln_sld"))
    assert (sites["low"], sites["high"]) == tuple(death.ranges[1])
    assert burden["low"] <= death.ranges[2, 0]
    assert death.ranges[2, 1] <= burden["high"]


def test_the_public_pneumonitis_table_has_too_few_events(refit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert refit.main(["pneumonitis"]) == 0
    assert "11 events in 354 patients: too few" in capsys.readouterr().out


def test_separable_classes_are_refused(refit: ModuleType) -> None:
    x = np.arange(10.0)[:, None]
    with pytest.raises(refit.SeparableError):
        refit.fit_logistic(x, x[:, 0] > 4.5)


def test_the_command_prints_what_is_shipped(refit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert refit.main(["pseudoprogression"]) == 0
    printed = capsys.readouterr().out
    assert str(stored("pseudoprogression", "model.json")["regression"]["coefficients"]) in printed
    assert "7/36" in printed
