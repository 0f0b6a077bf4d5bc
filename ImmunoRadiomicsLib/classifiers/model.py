"""What an evidence model is made of: the content of ``model.json``.

Every ratio is kept as it was published, with its 95 % confidence bounds; logarithms, shrinkage and grouping are applied when the
model is evaluated, so that a reader of the file can compare it with the paper. ``source`` is the id of a source on the
bundle's card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MODEL_VERSION = "1.0"

Tumour = Literal["any", "NSCLC", "other than NSCLC"]


@dataclass(frozen=True)
class Prior:
    """A probability before the patient's evidence, with its 95 % bounds."""

    id: str
    title: str
    probability: float
    lower: float
    upper: float
    source: str


@dataclass(frozen=True)
class Regression:
    """A logistic regression whose inputs are measured from ``origins``, so that each contribution is small and signed.

    ``intercept`` is the log-odds at the origins and is then the model's prior; None where the prior comes from elsewhere.
    ``covariance`` is that of the coefficients, with the intercept first where there is one. ``upper_limits`` caps an input
    before use. ``spreads`` are the standard deviations of the inputs in the fitting cohort: an input that is not
    known is counted at its origin and its spread is propagated. ``location`` and ``scatter`` are the robust centre and
    scatter of ``distance_inputs``.
    """

    inputs: tuple[str, ...]
    titles: tuple[str, ...]
    intercept: float | None
    intercept_title: str
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    origins: tuple[float, ...]
    spreads: tuple[float, ...]
    upper_limits: tuple[float | None, ...]
    distance_inputs: tuple[str, ...]
    location: tuple[float, ...]
    scatter: tuple[tuple[float, ...], ...]
    source: str


@dataclass(frozen=True)
class RatioTerm:
    """A published ratio of odds (or of risks) for a feature that is present, or per unit of a measured value.

    ``reference`` says what a patient without the feature is compared with. `absent`: the prior is the risk without it (rare
    features), an unknown feature counts as absent. `present`: the prior is the risk with it, so that only its absence
    counts. `unknown share`: the prior is an average over patients with and without it, in a share that the source does
    not give; the share is taken as uniform on 0 to 1, so presence counts +1/2, absence -1/2 and ignorance 0 times the log
    ratio, with the spread that follows.

    A per-unit term counts the distance beyond ``origin`` in the given ``direction`` and never more than ``ceiling_ratio``.
    ``at_risk`` is the risk at which a ratio of risks was measured; it turns it into a ratio of odds. ``adjusted`` False means the
    ratio is shrunk. Of the terms of one ``group`` only the strongest counts.
    """

    id: str
    title: str
    input: str
    form: Literal["present", "per unit"]
    measure: Literal["odds ratio", "risk ratio"]
    ratio: float
    lower: float | None
    upper: float | None
    adjusted: bool
    reference: Literal["absent", "present", "unknown share"]
    group: str | None
    tumour: Tumour
    source: str
    note: str
    at_risk: float | None = None
    origin: float | None = None
    direction: Literal["above", "below"] | None = None
    ceiling_ratio: float | None = None


@dataclass(frozen=True)
class TestTerm:
    """A binary test known from counts: ``hits`` of ``cases`` positive among the sought, ``rejections`` of ``others`` negative.

    Shares are Beta distributed with Jeffreys' prior (half a count on either side), so a share of 9/9 is not a certainty.
    """

    id: str
    title: str
    input: str
    hits: int
    cases: int
    rejections: int
    others: int
    source: str
    note: str


@dataclass(frozen=True)
class GroupLimit:
    """A directly observed probability that prior and one group together may not exceed, with its 95 % bounds."""

    group: str
    probability: float
    lower: float
    upper: float
    source: str
    note: str


@dataclass(frozen=True)
class Shrinkage:
    """The factor on every log ratio that is not adjusted for the others, and its standard deviation."""

    factor: float
    standard_deviation: float
    rule: str
    source: str


@dataclass(frozen=True)
class MeasurementError:
    """Standard deviation of the natural logarithm of one diameter between readers."""

    sd_log_diameter: float
    source: str


@dataclass(frozen=True)
class ContextItem:
    """A published fact that is shown beside the answer and has no weight in it."""

    id: str
    title: str
    text: str
    source: str


@dataclass(frozen=True)
class Levels:
    """When the answer is put in a word: the probability and the bound of its interval that must both hold."""

    unlikely_probability: float
    unlikely_upper: float
    likely_probability: float
    likely_lower: float
    source: str


@dataclass(frozen=True)
class EvidenceModel:
    """Prior, contributions and rules of one flag."""

    model_version: str
    flag: Literal["pseudoprogression", "hyperprogression", "pneumonitis"]
    priors: tuple[Prior, ...]
    regression: Regression | None
    terms: tuple[RatioTerm, ...]
    tests: tuple[TestTerm, ...]
    limits: tuple[GroupLimit, ...]
    shrinkage: Shrinkage | None
    measurement_error: MeasurementError | None
    context: tuple[ContextItem, ...]
    levels: Levels

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of everything the model reads."""
        names = list(self.regression.inputs) if self.regression else []
        names += [term.input for term in self.terms]
        names += [test.input for test in self.tests]
        return tuple(dict.fromkeys(names))

    def prior(self, identifier: str) -> Prior:
        """Return a prior by id; KeyError if there is none."""
        for item in self.priors:
            if item.id == identifier:
                return item
        raise KeyError(identifier)
