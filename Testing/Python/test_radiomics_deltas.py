"""Changes of features over time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ImmunoRadiomicsLib.analysis import Features
from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.radiomics import feature_deltas

DAYS = {"prebaseline": -60, "baseline": 0, "followup-1": 61}


def features(
    timepoint: str, values: dict[str, float | None], reason: str | None = None, lesion: str | None = "L1"
) -> Features:
    return Features(timepoint, lesion, "core", 100, reason, values)


def test_absolute_relative_and_per_month() -> None:
    items = [
        features("baseline", {"a": 4.0, "b": -2.0, "c": 0.0}),
        features("followup-1", {"a": 6.0, "b": 1.0, "c": 3.0}),
    ]
    (delta,) = feature_deltas(items, DAYS, "baseline")
    assert (delta.earlier, delta.later, delta.days, delta.reason) == ("baseline", "followup-1", 61, None)
    months = 61 / 30.4375
    assert delta.values["a"] == pytest.approx((2.0, 0.5, 2.0 / months))
    assert delta.values["b"] == pytest.approx((3.0, 1.5, 3.0 / months))
    assert delta.values["c"][:2] == (3.0, None)


def test_before_the_baseline_the_baseline_is_the_later() -> None:
    items = [features("baseline", {"a": 4.0}), features("prebaseline", {"a": 5.0})]
    (delta,) = feature_deltas(items, DAYS, "baseline")
    assert (delta.earlier, delta.later, delta.days) == ("prebaseline", "baseline", 60)
    assert delta.values["a"][:2] == pytest.approx((-1.0, -0.2))


def test_what_is_missing_stays_missing() -> None:
    items = [
        features("baseline", {"a": None, "b": 1.0}),
        features("followup-1", {"a": 1.0, "b": 0.0}),
        features("followup-1", {"a": 1.0}, lesion="new"),
        features("baseline", {}, "too small", lesion="L2"),
        features("followup-1", {"a": 1.0}, lesion="L2"),
        features("baseline", {"a": 1.0}, lesion="L3"),
        features("followup-1", {}, "the region is empty", lesion="L3"),
    ]
    deltas = {item.lesion: item for item in feature_deltas(items, DAYS, "baseline")}
    assert deltas["L1"].values["a"] == (None, None, None)
    assert deltas["L1"].values["b"][:2] == (-1.0, -1.0)
    assert "does not exist at baseline" in str(deltas["new"].reason)
    assert deltas["L2"].reason == "baseline: too small"
    assert deltas["L3"].reason == "followup-1: the region is empty"
    assert all(not deltas[name].values for name in ("new", "L2", "L3"))


def test_days_must_be_known_and_differ() -> None:
    items = [features("baseline", {}), features("x", {}), features("followup-1", {})]
    with pytest.raises(InputError, match="x: the day"):
        feature_deltas(items, DAYS, "baseline")
    with pytest.raises(InputError, match="same day"):
        feature_deltas(items, {**DAYS, "x": 0}, "baseline")


def test_log_ratio_needs_a_common_sign() -> None:
    items = [
        features("baseline", {"up": 2.0, "down": -8.0, "cross": -1.0, "zero": 0.0, "none": None, "tiny": 1e-200}),
        features("followup-1", {"up": 8.0, "down": -2.0, "cross": 1.0, "zero": 3.0, "none": 1.0, "tiny": 2e-200}),
    ]
    (delta,) = feature_deltas(items, DAYS, "baseline")
    assert delta.log_ratios["up"] == pytest.approx(math.log(4))
    assert delta.log_ratios["down"] == pytest.approx(-math.log(4))
    assert delta.log_ratios["tiny"] == pytest.approx(math.log(2))
    assert [delta.log_ratios[name] for name in ("cross", "zero", "none")] == [None, None, None]
    assert set(delta.log_ratios) == set(delta.values)


def test_from_zero_to_zero_nothing_changed() -> None:
    items = [features("baseline", {"a": 0.0}), features("followup-1", {"a": 0.0})]
    (delta,) = feature_deltas(items, DAYS, "baseline")
    assert delta.values["a"] == (0.0, 0.0, 0.0)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(1, 4000))
def test_sign_and_size(earlier: float, later: float, days: int) -> None:
    items = [features("baseline", {"a": earlier}), features("followup-1", {"a": later})]
    (delta,) = feature_deltas(items, {"baseline": 0, "followup-1": days}, "baseline")
    absolute, relative, monthly = delta.values["a"]
    assert absolute == later - earlier
    assert monthly == pytest.approx(absolute * 30.4375 / days)
    if earlier == 0:
        assert relative == (0 if later == 0 else None)
    else:
        assert relative == pytest.approx(absolute / abs(earlier))
