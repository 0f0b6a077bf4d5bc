"""The evidence engine: sums, groups, limits, missing inputs, and intervals that cover what the model itself assumes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from ImmunoRadiomicsLib.classifiers import Bundle, load_bundle
from ImmunoRadiomicsLib.classifiers.bundles import shipped_bundles
from ImmunoRadiomicsLib.classifiers.distance import robust_location_scatter, share_farther_out
from ImmunoRadiomicsLib.classifiers.engine import DRAWS, Posterior, Reading, evaluate, level_of, log_ratio, weight
from ImmunoRadiomicsLib.classifiers.pseudoprogression import Growth, chance_below_threshold, growth_readings

BUNDLES = {path.name.removesuffix("-evidence"): load_bundle(path) for path in shipped_bundles()}
PSEUDO, HYPER, PNEUMONITIS = (BUNDLES[name] for name in ("pseudoprogression", "hyperprogression", "pneumonitis"))
COVERAGE_PATIENTS = 2000


def readings(**values: float | None) -> dict[str, Reading]:
    return {name: Reading(name, value, str(value), "entered") for name, value in values.items() if value is not None}


def pneumonitis(prior: str = "real-world", **values: float | None) -> Posterior:
    assert PNEUMONITIS.model is not None
    return evaluate(PNEUMONITIS, readings(**values), priors=(PNEUMONITIS.model.prior(prior),))


def hyper(seed: int = 0, nsclc: bool = True, **values: float | None) -> Posterior:
    return evaluate(HYPER, readings(**values), nsclc=nsclc, seed=seed)


def shrinkage(bundle: Bundle) -> float:
    assert bundle.model is not None
    assert bundle.model.shrinkage is not None
    return bundle.model.shrinkage.factor


def test_the_answer_is_the_prior_plus_the_evidence() -> None:
    answer = hyper(ecog_1=1.0, sites=4.0, ln_sld=math.log(90), ldh_high=1.0, liver=0.0)
    total = logit(answer.prior) + sum(item.log_odds for item in answer.evidence)
    assert answer.probability == pytest.approx(expit(total), abs=1e-12)
    assert answer.lower < answer.probability < answer.upper


def test_the_regression_gives_what_the_published_form_gives() -> None:
    # The published reference fit, before the pooled ratios: unknown LDH and liver metastases count nothing.
    for ecog, sites, sld in ((0, 1, 20), (1, 3, 63), (1, 6, 180)):
        expected = expit(-5.5183 + 1.4345 * ecog + 0.2028 * sites + 0.4094 * math.log(sld))
        found = hyper(ecog_1=float(ecog), sites=float(sites), ln_sld=math.log(sld)).probability
        assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("name", "nsclc", "published"),
    [("ldh_high", True, 2.285), ("ldh_high", False, 2.32), ("liver", True, 3.173), ("liver", False, 3.35)],
)
def test_pooled_ratios_are_shrunk_and_split_about_the_unknown_share(name: str, nsclc: bool, published: float) -> None:
    present, absent, unknown = (logit(hyper(nsclc=nsclc, **{name: value}).probability) for value in (1.0, 0.0, None))
    assert present - absent == pytest.approx(shrinkage(HYPER) * math.log(published), abs=1e-12)
    assert unknown == pytest.approx((present + absent) / 2, abs=1e-12)


KNOWN = {"ecog_1": 1.0, "sites": 4.0, "ln_sld": math.log(90), "ldh_high": 1.0, "liver": 1.0}


@pytest.mark.parametrize("left_out", KNOWN)
def test_a_missing_input_takes_away_its_own_contribution_and_no_more(left_out: str) -> None:
    whole = hyper(**KNOWN)
    rest = hyper(**{name: value for name, value in KNOWN.items() if name != left_out})
    changed = [(before, after) for before, after in zip(whole.evidence, rest.evidence, strict=True) if before != after]
    ((before, after),) = changed
    assert (before.use, after.use, after.log_odds) == ("used", "missing", 0.0)
    assert logit(whole.probability) - logit(rest.probability) == pytest.approx(before.log_odds, abs=1e-9)
    assert after.lower is not None
    assert after.upper is not None
    # What is not known may be on either side, so the interval in log-odds is wider than the prior's.
    assert after.lower < 0 < after.upper


def test_a_missing_rare_feature_counts_as_absent() -> None:
    assert pneumonitis().probability == pytest.approx(0.16, abs=1e-12)
    assert pneumonitis(ild=0.0).probability == pneumonitis().probability
    assert pneumonitis("trial").probability == pytest.approx(0.0279, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "log_odds"),
    [
        ({"ild": 1.0}, math.log(5.78)),
        ({"respiratory_disease": 1.0}, math.log(2.43)),
        ({"honeycombing": 1.0}, math.log(6.11)),
        ({"prior_thoracic_rt": 1.0}, math.log(2.07)),
        ({"squamous": 1.0}, math.log(1.31)),
        ({"pd1": 1.0}, 0.0),
        ({"pd1": 0.0}, -0.76 * math.log(3.54)),
        ({"interstitial_lung_abnormality": 1.0}, 0.76 * math.log(6.64)),
        ({"albumin_g_l": 30.0}, -0.76 * 5 * math.log(0.889)),
        ({"albumin_g_l": 41.0}, 0.0),
        ({"laa950_percent": 2.19}, 0.76 * 2 * math.log(1.227)),
        ({"laa950_percent": 0.1}, 0.0),
        # Beyond the ceiling: never more than any respiratory disease.
        ({"laa950_percent": 30.0}, math.log(2.43)),
        # A ratio of risks at 2.79 % as a ratio of odds.
        ({"ctla4_combination": 1.0}, 0.76 * math.log(3.47 * (1 - 0.0279) / (1 - 3.47 * 0.0279))),
    ],
)
def test_each_pneumonitis_term_in_a_trial(values: dict[str, float], log_odds: float) -> None:
    assert logit(pneumonitis("trial", **values).probability) == pytest.approx(logit(0.0279) + log_odds, abs=1e-9)


def test_a_cause_counts_once() -> None:
    both = pneumonitis("trial", ild=1.0, honeycombing=1.0, respiratory_disease=1.0, laa950_percent=9.0)
    alone = pneumonitis("trial", honeycombing=1.0)
    assert both.probability == pytest.approx(alone.probability, abs=1e-12)
    uses = {item.name: item.use for item in both.evidence}
    assert uses["Honeycombing"] == "used"
    assert [uses[name] for name in ("Interstitial lung disease", "Any respiratory disease")] == ["grouped", "grouped"]
    radiation = pneumonitis("trial", prior_thoracic_rt=1.0, prior_radiation_pneumonitis=1.0)
    assert logit(radiation.probability) - logit(0.0279) == pytest.approx(math.log(3.62), abs=1e-9)


def test_lung_disease_is_held_to_what_was_observed_directly() -> None:
    answer = pneumonitis("real-world", ild=1.0)
    assert answer.probability == pytest.approx(0.30, abs=1e-9)
    assert 0.24 < answer.lower < 0.30 < answer.upper < 0.36
    assert any("observed directly" in item.note for item in answer.evidence)
    # Other causes are outside the limit.
    assert pneumonitis("real-world", ild=1.0, squamous=1.0).probability > 0.30


def test_an_unknown_setting_mixes_both_incidences() -> None:
    assert PNEUMONITIS.model is not None
    answer = evaluate(PNEUMONITIS, {}, priors=PNEUMONITIS.model.priors)
    assert logit(answer.probability) == pytest.approx((logit(0.0279) + logit(0.16)) / 2)
    assert (answer.prior_lower, answer.prior_upper) == (0.0239, 0.18)
    # The mixture has both humps inside its interval.
    assert answer.lower < 0.03
    assert answer.upper > 0.15


@pytest.mark.parametrize(
    ("favourable", "log_ratio_expected"),
    [(1.0, math.log((9.5 / 10) / (2.5 / 21))), (0.0, math.log((0.5 / 10) / (18.5 / 21)))],
)
def test_circulating_tumour_dna_counts_by_its_counts(favourable: float, log_ratio_expected: float) -> None:
    assert PSEUDO.model is not None
    prior = (PSEUDO.model.prior("any"),)
    without = evaluate(PSEUDO, {}, priors=prior)
    answer = evaluate(PSEUDO, readings(ctdna_favourable=favourable), priors=prior)
    assert logit(answer.probability) - logit(without.probability) == pytest.approx(log_ratio_expected, abs=1e-9)


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly() -> None:
    first, again, other = hyper(**KNOWN), hyper(**KNOWN), hyper(seed=1, **KNOWN)
    assert (first.lower, first.upper) == (again.lower, again.upper)
    assert first.lower != other.lower
    assert first.lower == pytest.approx(other.lower, rel=0.06)
    assert first.upper == pytest.approx(other.upper, rel=0.06)


def test_the_interval_of_a_plain_sum_is_the_known_one() -> None:
    # Only a prior: its log-odds are normal, so the 90 % bounds are known without drawing.
    assert PSEUDO.model is not None
    regression = PSEUDO.model.regression
    assert regression is not None
    at_origin = readings(**dict(zip(regression.inputs, regression.origins, strict=True)))
    answer = evaluate(PSEUDO, at_origin, priors=(PSEUDO.model.prior("any"),))
    half = 1.6448536 * (logit(0.26) - logit(0.08)) / (2 * 1.9599640)
    assert logit(answer.lower) == pytest.approx(logit(0.15) - half, abs=0.03)
    assert logit(answer.upper) == pytest.approx(logit(0.15) + half, abs=0.03)


def test_levels() -> None:
    assert PSEUDO.model is not None
    levels = PSEUDO.model.levels

    def level(probability: float, lower: float, upper: float) -> str:
        return level_of(Posterior(probability, lower, upper, 0.1, 0.1, 0.1, "", (), np.zeros(1)), levels)

    assert level(0.20, 0.10, 0.45) == "unlikely"
    assert level(0.20, 0.10, 0.55) == "indeterminate"
    assert level(0.40, 0.30, 0.45) == "indeterminate"
    assert level(0.70, 0.55, 0.90) == "likely"
    assert level(0.70, 0.45, 0.90) == "indeterminate"


@given(
    sites=st.integers(1, 8),
    sld=st.floats(10, 300),
    ecog=st.sampled_from([0.0, 1.0, None]),
    ldh=st.sampled_from([0.0, 1.0, None]),
)
@settings(max_examples=60, deadline=None)
def test_more_disease_is_never_less_risk(sites: int, sld: float, ecog: float | None, ldh: float | None) -> None:
    here = hyper(ecog_1=ecog, sites=float(sites), ln_sld=math.log(sld), ldh_high=ldh)
    more = hyper(ecog_1=ecog, sites=float(sites + 1), ln_sld=math.log(sld * 1.1), ldh_high=ldh)
    assert more.probability > here.probability
    assert 0 < here.lower <= here.upper < 1


# Coverage: patients drawn from what the model assumes, with the draws written out here and not taken from the engine.


def normal_95(random: np.random.Generator, value: float, lower: float, upper: float) -> float:
    return float(random.normal(value, (upper - lower) / (2 * 1.959963984540054)))


def drawn_shrinkage(random: np.random.Generator, bundle: Bundle) -> float:
    assert bundle.model is not None
    rule = bundle.model.shrinkage
    assert rule is not None
    return float(np.clip(random.normal(rule.factor, rule.standard_deviation), 0, 1))


def inside(truth: float, answer: Posterior) -> bool:
    return answer.lower <= truth <= answer.upper


def covered_hyperprogression(random: np.random.Generator, seed: int) -> bool:
    """Known ECOG and sites, a sum of two diameters read with error, LDH known, liver metastases not known."""
    model = HYPER.model
    assert model is not None
    assert model.regression is not None
    assert model.measurement_error is not None
    regression, error = model.regression, model.measurement_error.sd_log_diameter
    assert regression.intercept is not None
    intercept, *slopes = random.multivariate_normal(
        [regression.intercept, *regression.coefficients], np.array(regression.covariance)
    )
    ecog, sites, ldh = float(random.integers(2)), float(random.integers(1, 9)), float(random.integers(2))
    diameter = math.exp(random.uniform(math.log(15), math.log(150)))
    x = np.array([ecog, sites, math.log(diameter)])
    truth = intercept + float((x - np.array(regression.origins)) @ np.array(slopes))
    factor = drawn_shrinkage(random, HYPER)
    for term, value in (("ldh-nsclc", ldh), ("liver-nsclc", None)):
        found = next(item for item in model.terms if item.id == term)
        assert found.lower is not None
        assert found.upper is not None
        ratio = normal_95(random, math.log(found.ratio), math.log(found.lower), math.log(found.upper))
        share = random.uniform()
        present = value if value is not None else float(random.uniform() < share)
        truth += factor * ratio * (present - share)
    read = math.log(diameter) + random.normal(0, error)
    draws = read + np.random.default_rng(seed).normal(0, error, DRAWS)
    given_readings = {
        **readings(ecog_1=ecog, sites=sites, ldh_high=ldh),
        "ln_sld": Reading("ln_sld", read, "", "measured", draws=draws),
    }
    return inside(expit(truth), evaluate(HYPER, given_readings, nsclc=True, seed=seed))


def covered_pseudoprogression(random: np.random.Generator, seed: int) -> bool:
    """Two lesions whose three diameters are each read with error; favourable or unfavourable tumour DNA in every other one."""
    model = PSEUDO.model
    assert model is not None
    assert model.regression is not None
    assert model.measurement_error is not None
    regression, error = model.regression, model.measurement_error.sd_log_diameter
    prior = model.prior("any")
    truth = normal_95(random, float(logit(prior.probability)), float(logit(prior.lower)), float(logit(prior.upper)))
    slopes = random.multivariate_normal(np.array(regression.coefficients), np.array(regression.covariance))
    cap = regression.upper_limits[0]
    assert cap is not None
    growths, x = [], np.zeros(3)
    sizes = []
    for index in range(2):
        baseline = random.uniform(20, 80)
        nadir = baseline * random.uniform(0.3, 0.8)
        now = nadir * random.uniform(1.3, 2.2)
        read_now, read_nadir, read_baseline = np.array([now, nadir, baseline]) * np.exp(random.normal(0, error, 3))
        if read_now <= read_nadir or read_nadir > read_baseline:
            return covered_pseudoprogression(random, seed)
        growths.append(Growth(f"L{index}", read_now, read_nadir, read_baseline, False, True))
        sizes.append((now, nadir, baseline))
    weights = np.array([item.grown_mm for item in growths])
    for part, (now, nadir, baseline) in zip(weights / weights.sum(), sizes, strict=True):
        x[0] += part * min(math.log(now / nadir), cap)
        x[2] += part * math.log(nadir / baseline)
    x[1] = random.uniform(1, 12)
    truth += float((x - np.array(regression.origins)) @ slopes)
    given_readings = {**growth_readings(growths, model, seed), **readings(months=float(x[1]))}
    if random.uniform() < 0.5:
        (test,) = model.tests
        sensitivity = random.beta(test.hits + 0.5, test.cases - test.hits + 0.5)
        specificity = random.beta(test.rejections + 0.5, test.others - test.rejections + 0.5)
        positive = bool(random.integers(2))
        truth += math.log(sensitivity / (1 - specificity)) if positive else math.log((1 - sensitivity) / specificity)
        given_readings |= readings(ctdna_favourable=float(positive))
    return inside(expit(truth), evaluate(PSEUDO, given_readings, priors=(prior,), seed=seed))


def covered_pneumonitis(random: np.random.Generator, seed: int) -> bool:
    """One lung disease under its limit, radiotherapy, emphysema-free lungs, PD-1 or PD-L1, low albumin."""
    model = PNEUMONITIS.model
    assert model is not None
    prior = model.prior("trial" if random.integers(2) else "real-world")
    base = normal_95(random, float(logit(prior.probability)), float(logit(prior.lower)), float(logit(prior.upper)))
    truth = base
    factor = drawn_shrinkage(random, PNEUMONITIS)
    values = {
        "ild": float(random.integers(2)),
        "prior_thoracic_rt": float(random.integers(2)),
        "pd1": float(random.integers(2)),
        "albumin_g_l": float(random.integers(28, 45)),
    }
    for term in model.terms:
        if term.input not in values or term.lower is None or term.upper is None:
            continue
        ratio = normal_95(random, math.log(term.ratio), math.log(term.lower), math.log(term.upper))
        ratio *= 1.0 if term.adjusted else factor
        value = values[term.input]
        if term.input == "albumin_g_l":
            truth += ratio * min(value - 35, 0)
        elif term.input == "pd1":
            truth += ratio * (value - 1)
        elif term.input == "ild":
            (limit,) = model.limits
            most = normal_95(
                random, float(logit(limit.probability)), float(logit(limit.lower)), float(logit(limit.upper))
            )
            truth += min(ratio, max(most - base, 0)) if value else 0.0
        else:
            truth += ratio * value
    return inside(expit(truth), evaluate(PNEUMONITIS, readings(**values), priors=(prior,), seed=seed))


@pytest.mark.parametrize("covered", [covered_hyperprogression, covered_pseudoprogression, covered_pneumonitis])
def test_nine_of_ten_intervals_hold_the_truth(covered) -> None:
    random = np.random.default_rng(20261122)
    hits = sum(covered(random, seed) for seed in range(COVERAGE_PATIENTS))
    assert 0.88 <= hits / COVERAGE_PATIENTS <= 0.92


# Reader error.


def test_reader_error_of_one_lesion_is_that_of_two_readings() -> None:
    growth = Growth("L1", 24.4, 20.0, 20.0, True, True)
    expected = 0.5 * math.erfc(math.log(1.22 / 1.2) / (0.12 * math.sqrt(2)) / math.sqrt(2))
    assert chance_below_threshold([growth], 0.120) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(0.461, abs=0.001)


def test_reader_error_by_drawing_agrees() -> None:
    growths = [Growth("L1", 42.0, 30.0, 30.0, True, True), Growth("L2", 26.0, 20.0, 25.0, False, True)]
    random = np.random.default_rng(3)
    now = np.array([42.0, 26.0]) * np.exp(random.normal(0, 0.12, (200_000, 2)))
    nadir = np.array([30.0, 20.0]) * np.exp(random.normal(0, 0.12, (200_000, 2)))
    drawn = np.mean(now.sum(axis=1) / nadir.sum(axis=1) < 1.2)
    assert chance_below_threshold(growths, 0.120) == pytest.approx(drawn, abs=0.01)


def test_growth_is_weighted_by_the_millimetres_grown() -> None:
    assert PSEUDO.model is not None
    growths = [Growth("L1", 42.0, 30.0, 30.0, True, True), Growth("L2", 26.0, 20.0, 40.0, False, True)]
    found = growth_readings(growths, PSEUDO.model, seed=0)
    expected = (12 * math.log(1.4) + 6 * math.log(1.3)) / 18
    assert found["growth"].value == pytest.approx(expected)
    assert found["regrowth"].value == pytest.approx(6 * math.log(0.5) / 18)
    assert found["growth"].draws is not None
    assert found["growth"].draws.shape == (DRAWS,)
    # Two independent readings per lesion; the cap cuts little of this.
    spread = 0.12 * math.sqrt(2) * math.hypot(12 / 18, 6 / 18)
    assert found["growth"].draws.std() == pytest.approx(spread, rel=0.1)


def test_growth_beyond_the_limit_counts_as_the_limit() -> None:
    assert PSEUDO.model is not None
    found = growth_readings([Growth("L1", 90.0, 30.0, 30.0, True, True)], PSEUDO.model, seed=0)
    assert found["growth"].value == pytest.approx(math.log(1.75), abs=1e-6)


def test_log_ratio_of_risks_goes_through_the_odds() -> None:
    assert PNEUMONITIS.model is not None
    term = next(item for item in PNEUMONITIS.model.terms if item.id == "combination")
    value, error = log_ratio(term)
    assert math.exp(value) == pytest.approx(3.735, abs=0.001)
    assert error == 0.0
    assert weight(term, PNEUMONITIS.model.shrinkage) == pytest.approx(0.76 * value)


# Joint distance.


def test_robust_centre_and_scatter_ignore_a_few_outliers() -> None:
    random = np.random.default_rng(5)
    covariance = np.array([[4.0, 1.5], [1.5, 1.0]])
    x = random.multivariate_normal([10.0, -3.0], covariance, 4000)
    x[:120] = [500.0, 900.0]
    centre, scatter = robust_location_scatter(x)
    assert centre == pytest.approx([10.0, -3.0], abs=0.15)
    assert np.sqrt(np.diag(scatter)) == pytest.approx([2.0, 1.0], rel=0.08)
    assert scatter[0, 1] / math.sqrt(scatter[0, 0] * scatter[1, 1]) == pytest.approx(0.75, abs=0.09)


def test_share_farther_out_is_uniform_for_members() -> None:
    random = np.random.default_rng(6)
    covariance = np.array([[4.0, 1.5], [1.5, 1.0]])
    x = random.multivariate_normal([0.0, 0.0], covariance, 3000)
    shares = np.array([share_farther_out(row, [0.0, 0.0], covariance) for row in x])
    assert np.mean(shares < 0.05) == pytest.approx(0.05, abs=0.012)
    assert share_farther_out([0.0, 0.0], [0.0, 0.0], covariance) == 1.0
