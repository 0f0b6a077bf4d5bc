"""From a prior and contributions in log-odds to a probability with its interval.

The probability is the logistic function of the prior's log-odds plus the sum of the contributions. The interval is the central 90 % of
the same sum over random draws of everything that is uncertain: the prior, the coefficients, the ratios, the shrinkage,
shares that are not published, inputs that are not known and inputs that are measured with error.

Each part draws from its own stream, seeded by its name: leaving one input out does not change the draws of another.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.special import expit, logit

from ..analysis import Evidence, Level
from .bundles import Bundle, Card
from .model import EvidenceModel, GroupLimit, Levels, Prior, RatioTerm, Regression, Shrinkage, TestTerm

DRAWS = 8000
# Standard errors between the bounds of a 95 % confidence interval.
_WIDTH_95 = 2 * 1.959963984540054
_EXPECTED_SHARE = {"absent": 0.0, "present": 1.0, "unknown share": 0.5}


@dataclass(frozen=True, eq=False)
class Reading:
    """One input of one patient.

    ``value`` is None where it is not known; ``shown`` is what a reader sees. ``draws`` (n,) are values that the truth may
    have, given the measurement error; None where there is none.
    """

    name: str
    value: float | None
    shown: str
    origin: Literal["entered", "measured", "missing"]
    note: str = ""
    draws: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Posterior:
    """A probability, its central 90 % interval, where it started and what moved it."""

    probability: float
    lower: float
    upper: float
    prior: float
    prior_lower: float
    prior_upper: float
    prior_source: str
    evidence: tuple[Evidence, ...]
    draws: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Contribution:
    """Log-odds that come from elsewhere than the evidence model, with draws (DRAWS,) of what they may truly be."""

    name: str
    shown: str
    point: float
    draws: np.ndarray
    source: str
    note: str


@dataclass(frozen=True, eq=False)
class _Part:
    """One contribution before it is put in words."""

    name: str
    shown: str
    point: float
    draws: np.ndarray
    use: Literal["used", "missing", "grouped"]
    source: str
    note: str
    group: str | None = None
    present: bool = False


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the random stream of one named part."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def missing(name: str, why: str = "not entered") -> Reading:
    """Return the reading of an input that is not known."""
    return Reading(name, None, "not known", "missing", why)


def known_or_missing(reading: Reading) -> Reading:
    """Return a reading, as missing where its value is no number: a measure of nothing has none."""
    if reading.value is None or np.isfinite(reading.value):
        return reading
    return missing(reading.name, "the measurement gave no number")


def evaluate(
    bundle: Bundle,
    readings: Mapping[str, Reading],
    *,
    priors: Sequence[Prior] = (),
    nsclc: bool | None = None,
    seed: int = 0,
    also: Sequence[Contribution] = (),
) -> Posterior:
    """Weigh the evidence of one patient.

    Parameters
    ----------
    bundle
        A verified bundle of kind `evidence`.
    readings
        The patient's inputs by name; an input that is not there counts as missing.
    priors
        The priors that may hold; several are mixed in equal parts (the middle of their log-odds). Empty where the regression's
        intercept is the prior.
    nsclc
        Whether the tumour is a non-small-cell lung cancer; chooses between pooled ratios. None: not known.
    seed
        Of the random draws behind the interval.
    also
        What counts beside the evidence model.
    """
    model = bundle.model
    if model is None:
        raise ValueError("an evidence bundle is needed")
    card = bundle.card
    readings = {name: known_or_missing(item) for name, item in readings.items()}
    base = _Prior.of(model, card, priors, seed)
    parts = list(_regression_parts(model.regression, readings, card, base, seed))
    for term in model.terms:
        if _fits(term, nsclc):
            parts.append(_ratio_part(term, model.shrinkage, readings, card, seed))
    for test in model.tests:
        parts.append(_test_part(test, readings, card, seed))
    parts = _once_per_cause(parts)
    parts = _limited(parts, model.limits, base, card, seed)
    parts += [_Part(item.name, item.shown, item.point, item.draws, "used", item.source, item.note) for item in also]
    log_odds = base.log_odds + sum(part.point for part in parts if part.use == "used")
    draws = base.draws + sum(part.draws for part in parts if part.use in ("used", "missing"))
    low, high = np.quantile(expit(draws), (0.05, 0.95))
    return Posterior(
        probability=float(expit(log_odds)),
        lower=float(low),
        upper=float(high),
        prior=priors[0].probability if len(priors) == 1 else float(expit(base.log_odds)),
        prior_lower=base.lower,
        prior_upper=base.upper,
        prior_source=base.source,
        evidence=tuple(_evidence(part) for part in parts),
        draws=expit(draws),
    )


def level_of(posterior: Posterior, levels: Levels) -> Level:
    """Put a probability and its interval in a word."""
    if posterior.probability <= levels.unlikely_probability and posterior.upper <= levels.unlikely_upper:
        return "unlikely"
    if posterior.probability >= levels.likely_probability and posterior.lower >= levels.likely_lower:
        return "likely"
    return "indeterminate"


def log_ratio(term: RatioTerm) -> tuple[float, float]:
    """Return the log odds ratio of a term as published and its standard error (0 where no bounds are published)."""

    def log_odds_ratio(ratio: float) -> float:
        if term.measure == "risk ratio" and term.at_risk is not None:
            return float(logit(term.at_risk * ratio) - logit(term.at_risk))
        return float(np.log(ratio))

    if term.lower is None or term.upper is None:
        return log_odds_ratio(term.ratio), 0.0
    return log_odds_ratio(term.ratio), (log_odds_ratio(term.upper) - log_odds_ratio(term.lower)) / _WIDTH_95


def weight(term: RatioTerm, shrinkage: Shrinkage | None) -> float:
    """Return the log odds ratio of a term as it counts: shrunk where it is not adjusted."""
    factor = 1.0 if term.adjusted or shrinkage is None else shrinkage.factor
    return log_ratio(term)[0] * factor


@dataclass(frozen=True, eq=False)
class _Prior:
    """The log-odds before the patient's evidence; ``slopes`` (DRAWS, k) are coefficients drawn together with an intercept."""

    log_odds: float
    draws: np.ndarray
    lower: float
    upper: float
    source: str
    slopes: np.ndarray | None = None

    @classmethod
    def of(cls, model: EvidenceModel, card: Card, priors: Sequence[Prior], seed: int) -> _Prior:
        regression = model.regression
        if regression is not None and regression.intercept is not None:
            centre = np.array([regression.intercept, *regression.coefficients])
            drawn = stream(seed, "regression").multivariate_normal(centre, np.array(regression.covariance), DRAWS)
            half = _WIDTH_95 / 2 * float(np.sqrt(regression.covariance[0][0]))
            return cls(
                regression.intercept,
                drawn[:, 0],
                float(expit(regression.intercept - half)),
                float(expit(regression.intercept + half)),
                f"{regression.intercept_title}: {card.cite(regression.source)}",
                drawn[:, 1:],
            )
        if not priors:
            raise ValueError("a prior is needed where the regression has no intercept")
        points, columns = [], []
        for item in priors:
            point = float(logit(item.probability))
            error = float(logit(item.upper) - logit(item.lower)) / _WIDTH_95
            points.append(point)
            columns.append(stream(seed, f"prior {item.id}").normal(point, error, DRAWS))
        chosen = stream(seed, "prior choice").integers(0, len(priors), DRAWS)
        return cls(
            float(np.mean(points)),
            np.stack(columns)[chosen, np.arange(DRAWS)],
            min(item.lower for item in priors),
            max(item.upper for item in priors),
            "; or ".join(f"{item.title}: {card.cite(item.source)}" for item in priors),
        )


def _fits(term: RatioTerm, nsclc: bool | None) -> bool:
    return term.tumour == "any" or (term.tumour == "NSCLC") == bool(nsclc)


def _regression_parts(
    regression: Regression | None,
    readings: Mapping[str, Reading],
    card: Card,
    base: _Prior,
    seed: int,
) -> list[_Part]:
    if regression is None:
        return []
    slopes = base.slopes
    if slopes is None:
        slopes = stream(seed, "regression").multivariate_normal(
            np.array(regression.coefficients), np.array(regression.covariance), DRAWS
        )
    parts = []
    for index, name in enumerate(regression.inputs):
        origin, limit = regression.origins[index], regression.upper_limits[index]
        coefficient, title = regression.coefficients[index], regression.titles[index]
        reading = readings.get(name) or missing(name)
        source = card.cite(regression.source)
        if reading.value is None:
            spread = stream(seed, f"missing {name}").normal(0.0, regression.spreads[index], DRAWS)
            note = f"{reading.note}; counted at the average of the fitting data, its spread is in the interval"
            parts.append(_Part(title, reading.shown, 0.0, slopes[:, index] * spread, "missing", source, note))
            continue
        values = np.full(DRAWS, reading.value) if reading.draws is None else reading.draws
        value = reading.value
        if limit is not None:
            values, value = np.minimum(values, limit), min(value, limit)
        point = coefficient * (value - origin)
        unit = next((spec.unit for spec in card.inputs if spec.name == name), "")
        note = f"{coefficient:+.3f} per {unit} from {origin:.2f} on"
        if limit is not None and reading.value > limit:
            note += "; more than the largest value that the fit tells apart, counted as that"
        note = f"{note}; {reading.note}" if reading.note else note
        parts.append(_Part(title, reading.shown, point, slopes[:, index] * (values - origin), "used", source, note))
    return parts


def _ratio_part(
    term: RatioTerm,
    shrinkage: Shrinkage | None,
    readings: Mapping[str, Reading],
    card: Card,
    seed: int,
) -> _Part:
    reading = readings.get(term.input) or missing(term.input)
    published, error = log_ratio(term)
    counted = weight(term, shrinkage)
    drawn = stream(seed, term.id).normal(published, error, DRAWS)
    if not term.adjusted and shrinkage is not None:
        factors = stream(seed, "shrinkage").normal(shrinkage.factor, shrinkage.standard_deviation, DRAWS)
        drawn = drawn * np.clip(factors, 0.0, 1.0)
    note = _ratio_note(term, counted)
    source = card.cite(term.source)
    share = _share(term, seed)
    if reading.value is None:
        note = f"{reading.note}; {note}"
        if term.reference == "unknown share":
            present = stream(seed, f"missing {term.id}").uniform(size=DRAWS) < share
            return _Part(term.title, reading.shown, 0.0, drawn * (present - share), "missing", source, note)
        note += f"; counted as {term.reference}"
        return _Part(term.title, reading.shown, 0.0, np.zeros(DRAWS), "missing", source, note)
    if term.form == "per unit":
        amount = _amount(term, np.array([reading.value]))[0]
        amounts = np.full(DRAWS, amount) if reading.draws is None else _amount(term, reading.draws)
        ceiling = np.inf if term.ceiling_ratio is None else float(np.log(term.ceiling_ratio))
        point = float(np.clip(counted * amount, -ceiling, ceiling))
        draws = np.clip(drawn * amounts, -ceiling, ceiling)
        present_here = point != 0
    else:
        present_here = bool(reading.value)
        point = counted * (float(present_here) - _EXPECTED_SHARE[term.reference])
        draws = drawn * (float(present_here) - share)
    note = f"{note}; {reading.note}" if reading.note else note
    return _Part(term.title, reading.shown, point, draws, "used", source, note, term.group, present_here)


def _share(term: RatioTerm, seed: int) -> np.ndarray:
    """Return draws of the share of patients with the feature among those whom the prior describes."""
    if term.reference == "unknown share":
        return stream(seed, f"share {term.id}").uniform(size=DRAWS)
    return np.full(DRAWS, _EXPECTED_SHARE[term.reference])


def _amount(term: RatioTerm, values: np.ndarray) -> np.ndarray:
    origin = term.origin or 0.0
    beyond = values - origin
    return np.maximum(beyond, 0.0) if term.direction == "above" else np.minimum(beyond, 0.0)


def _ratio_note(term: RatioTerm, counted: float) -> str:
    bounds = "" if term.lower is None else f" ({term.lower:g}-{term.upper:g})"
    unit = " per unit" if term.form == "per unit" else ""
    how = "adjusted" if term.adjusted else f"shrunk to {counted:+.2f} in log-odds"
    text = f"{term.measure} {term.ratio:g}{bounds}{unit}, {how}"
    if term.reference == "unknown share":
        text += ", half of it counted for presence and half against absence"
    elif term.reference == "present":
        text += ", counted against its absence"
    return f"{text}; {term.note}" if term.note else text


def _test_part(test: TestTerm, readings: Mapping[str, Reading], card: Card, seed: int) -> _Part:
    reading = readings.get(test.input) or missing(test.input)
    source = card.cite(test.source)
    note = f"{test.hits}/{test.cases} and {test.rejections}/{test.others}, with half a count added to either side"
    note = f"{note}; {test.note}" if test.note else note
    if reading.value is None:
        return _Part(test.title, reading.shown, 0.0, np.zeros(DRAWS), "missing", source, f"{reading.note}; {note}")
    positive = bool(reading.value)
    random = stream(seed, test.id)
    sensitivity = random.beta(test.hits + 0.5, test.cases - test.hits + 0.5, DRAWS)
    specificity = random.beta(test.rejections + 0.5, test.others - test.rejections + 0.5, DRAWS)
    expected_sensitivity = (test.hits + 0.5) / (test.cases + 1)
    expected_specificity = (test.rejections + 0.5) / (test.others + 1)
    tiny = np.finfo(float).tiny

    def log_likelihood_ratio(sought: np.ndarray | float, rejected: np.ndarray | float) -> np.ndarray:
        if positive:
            return np.log(np.maximum(sought, tiny)) - np.log(np.maximum(1 - rejected, tiny))
        return np.log(np.maximum(1 - sought, tiny)) - np.log(np.maximum(rejected, tiny))

    point = float(log_likelihood_ratio(expected_sensitivity, expected_specificity))
    draws = log_likelihood_ratio(sensitivity, specificity)
    return _Part(test.title, reading.shown, point, draws, "used", source, note)


def _once_per_cause(parts: Sequence[_Part]) -> list[_Part]:
    """Keep of each group the strongest item that is present; the others are shown and not counted."""
    strongest: dict[str, _Part] = {}
    for part in parts:
        if part.group is not None and part.present and part.use == "used":
            best = strongest.get(part.group)
            if best is None or abs(part.point) > abs(best.point):
                strongest[part.group] = part
    result = []
    for part in parts:
        best = strongest.get(part.group) if part.group is not None else None
        if best is not None and part is not best and part.present:
            note = f"{part.note}; {part.point:+.2f} on its own, the same cause as {best.name}, which counts"
            result.append(replace(part, use="grouped", note=note))
        else:
            result.append(part)
    return result


def _limited(parts: Sequence[_Part], limits: Sequence[GroupLimit], base: _Prior, card: Card, seed: int) -> list[_Part]:
    """Hold a group to the probability that was observed directly in such patients."""
    by_group = {item.group: item for item in limits}
    result = []
    for part in parts:
        limit = by_group.get(part.group) if part.group is not None else None
        if limit is None or part.use != "used" or not part.present:
            result.append(part)
            continue
        error = float(logit(limit.upper) - logit(limit.lower)) / _WIDTH_95
        observed = stream(seed, f"limit {limit.group}").normal(logit(limit.probability), error, len(part.draws))
        most = max(float(logit(limit.probability)) - base.log_odds, 0.0)
        draws = np.minimum(part.draws, np.maximum(observed - base.draws, 0.0))
        note = part.note
        if part.point > most:
            note += (
                f"; {part.point:+.2f} on its own, held at {most:+.2f} by the {100 * limit.probability:.0f} % "
                f"observed directly: {limit.note} ({card.cite(limit.source)})"
            )
        result.append(replace(part, point=min(part.point, most), draws=draws, note=note))
    return result


def _evidence(part: _Part) -> Evidence:
    counted = part.use == "used"
    low, high = np.quantile(part.draws, (0.05, 0.95)) if part.use in ("used", "missing") else (0.0, 0.0)
    return Evidence(
        name=part.name,
        value=part.shown,
        log_odds=float(part.point) + 0.0 if counted else 0.0,
        lower=float(low),
        upper=float(high),
        use=part.use,
        source=part.source,
        note=part.note,
    )
