"""Pseudoprogression: the chance that a first progression will not be confirmed by the next scan.

The likelihood is one of single lesions; a patient's progressing lesions are combined as the mean of their log likelihood ratios,
weighted by the millimetres that each has grown. That is exact if the lesions of one patient behave alike, and it never
claims more than the most telling lesion does; multiplying the ratios would treat lesions of one patient as strangers.

Reader error moves every diameter independently by a normal error of its logarithm. The fitted shares come from measured
diameters and so already hold the progressions that were reading error; the error here widens the interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..analysis import Evidence, Flag, Lesion, Visit
from ..study import LesionRole
from .applicability import Applicability, Doubt, alignment_doubts, input_doubts, lesion_doubts, patient_doubts
from .arm import Arm, read_arm
from .bundles import Bundle
from .case import DAYS_PER_MONTH, TOO_SMALL_MM, Case, size_mm
from .engine import DRAWS, Posterior, Reading, evaluate, level_of, missing, stream
from .model import EvidenceModel, Prior
from .wording import context_evidence, missing_names, percent, sentence, span

QUESTION = "Will the first progression be confirmed, or is it pseudoprogression?"
GROWTH_RATIO = 1.2
GROWTH_MM = 5.0


@dataclass(frozen=True)
class Growth:
    """One growing lesion at the first progression; ``progressing`` if it meets the RECIST threshold by itself."""

    lesion: str
    now_mm: float
    nadir_mm: float
    baseline_mm: float
    nadir_is_baseline: bool
    progressing: bool

    @property
    def grown_mm(self) -> float:
        """Millimetres over the nadir."""
        return self.now_mm - self.nadir_mm


def assess_pseudoprogression(case: Case, bundle: Bundle, trained: Bundle | None = None) -> Flag:
    """Answer the first question for one patient; ``trained`` is the bundle of the radiomics arm.

    The posterior at an open first progression; after a later scan the retrospective label; not assessable where nothing
    progresses, or where the progression is not one of measured lesions (the prior is then all that is known).
    """
    model = _model(bundle)
    visits = sorted(case.response.visits, key=lambda item: item.day)
    index = next((i for i, item in enumerate(visits) if _progresses(item)), None)
    empty = Flag(
        flag="pseudoprogression",
        question=QUESTION,
        status="not assessable",
        probability=None,
        lower=None,
        upper=None,
        prior=None,
        prior_lower=None,
        prior_upper=None,
        prior_source="",
        level="not assessable",
        bundle=bundle.card.id,
        bundle_version=bundle.card.version,
        applicability="not assessable",
        reason="",
        definitions=(case.response.pseudoprogression,),
    )
    if index is None:
        why = (
            "no visit after the baseline shows progression, so there is nothing to confirm"
            if any(item.irecist != "NE" for item in visits)
            else "no lesion was measured at a follow-up"
            if any(item.day > 0 for item in case.timepoints)
            else "there is no follow-up"
        )
        return replace(empty, reason=sentence([why]))
    prior = _prior(case, model)
    empty = replace(
        empty,
        prior=prior.probability,
        prior_lower=prior.lower,
        prior_upper=prior.upper,
        prior_source=f"{prior.title}: {bundle.card.cite(prior.source)}",
    )
    visit = visits[index]
    later = [item for item in visits[index + 1 :] if item.irecist != "NE"]
    if later:
        return _retrospective(empty, case, visit, later)
    growths = growths_at(case, visit)
    lesions = [lesion for lesion in case.lesions if lesion.id in {item.lesion for item in growths}]
    if not growths:
        return replace(empty, reason=_unmeasured_reason(visit, prior))
    return _predict(empty, case, bundle, visit, growths, lesions, prior, read_arm(case, trained))


def growths_at(case: Case, visit: Visit) -> tuple[Growth, ...]:
    """Return the lesions that carry a progression: those at +20 % and +5 mm over their own nadir.

    Where the sum of the targets progresses and none of them does alone, the targets that grew carry it together. Empty where
    neither target nor non-target lesions progress.
    """

    def grown(role: LesionRole) -> list[Growth]:
        found = (_growth(case, lesion, visit.timepoint) for lesion in case.lesions if lesion.role == role)
        return [item for item in found if item is not None and item.grown_mm > 0]

    carrying: list[Growth] = []
    if visit.target == "PD":
        targets = grown("target")
        carrying += [item for item in targets if item.progressing] or targets
    if visit.non_target == "PD":
        carrying += [item for item in grown("non-target") if item.progressing]
    return tuple(carrying)


def growth_readings(growths: Sequence[Growth], model: EvidenceModel, seed: int) -> dict[str, Reading]:
    """Return `growth` and `regrowth` of the weighted mean lesion, with draws of what they are without reader error."""
    regression, error = model.regression, model.measurement_error
    if regression is None or error is None:
        raise ValueError("the pseudoprogression model needs a regression and a measurement error")
    limit = regression.upper_limits[regression.inputs.index("growth")]
    cap = math.inf if limit is None else limit
    weights = np.array([item.grown_mm for item in growths])
    weights = weights / weights.sum()
    points, draws = np.zeros(2), np.zeros((2, DRAWS))
    for weight, item in zip(weights, growths, strict=True):
        random = stream(seed, f"reader {item.lesion}")
        now, nadir, baseline = random.normal(0.0, error.sd_log_diameter, (3, DRAWS))
        if item.nadir_is_baseline:
            baseline = nadir
        growth = math.log(item.now_mm / max(item.nadir_mm, TOO_SMALL_MM))
        regrowth = min(math.log(max(item.nadir_mm, TOO_SMALL_MM) / max(item.baseline_mm, TOO_SMALL_MM)), 0.0)
        points += weight * np.array([min(growth, cap), regrowth])
        draws[0] += weight * np.minimum(growth + now - nadir, cap)
        draws[1] += weight * (regrowth + nadir - baseline)
    shown = ", ".join(f"{item.lesion} {_size_change(item)}" for item in growths)
    how = "" if len(growths) == 1 else "mean of the lesions, weighted by the millimetres grown"
    shrunk = math.expm1(float(points[1]))
    return {
        "growth": Reading("growth", float(points[0]), shown, "measured", how, draws[0]),
        "regrowth": Reading(
            "regrowth",
            float(points[1]),
            f"{100 * shrunk:+.0f} % at the nadir" if shrunk < 0 else "none",
            "measured",
            how,
            draws[1],
        ),
    }


def chance_below_threshold(growths: Sequence[Growth], sd_log_diameter: float) -> float:
    """Return the chance that the progressing burden, read again on the same scans, would not be at +20 %.

    Two readings of each diameter err independently by ``sd_log_diameter`` (natural logarithm); the growth of the sum is taken as
    log-normal about the measured one.
    """
    now = np.array([item.now_mm for item in growths])
    nadir = np.maximum([item.nadir_mm for item in growths], TOO_SMALL_MM)
    variance = sd_log_diameter**2 * (np.sum(now**2) / now.sum() ** 2 + np.sum(nadir**2) / nadir.sum() ** 2)
    distance = (math.log(GROWTH_RATIO) - math.log(now.sum() / nadir.sum())) / math.sqrt(float(variance))
    return 0.5 * math.erfc(-distance / math.sqrt(2))


def _predict(
    empty: Flag,
    case: Case,
    bundle: Bundle,
    visit: Visit,
    growths: Sequence[Growth],
    lesions: Sequence[Lesion],
    prior: Prior,
    arm: Arm,
) -> Flag:
    model, card = _model(bundle), bundle.card
    readings = {
        **growth_readings(growths, model, case.seed),
        "months": _months(case, visit),
        "ctdna_favourable": _ctdna(case),
    }
    doubts = [
        *patient_doubts(case),
        *alignment_doubts(case, visit.timepoint),
        *lesion_doubts(lesions, visit.timepoint),
        *input_doubts(bundle, readings),
        *_own_doubts(case, visit, readings),
        *_unseen_growth(bundle, growths),
        *arm.doubts,
    ]
    applicability = Applicability.of(doubts)
    if applicability.verdict == "not assessable":
        return replace(empty, reason=sentence(applicability.reasons))
    weigh = partial(evaluate, bundle, priors=(prior,), nsclc=case.nsclc, seed=case.seed, also=arm.contributions)
    posterior = weigh(readings)
    grown = ", ".join(f"{item.lesion} {_size_change(item)}" for item in growths)
    answer = (
        f"the first progression, at {visit.timepoint} (day {visit.day}), has not been scanned again: {grown}; the chance that the "
        f"next scan will not confirm it is {span(posterior)}, against {percent(prior.probability)} for progressions in general"
    )
    return replace(
        empty,
        status="assessed",
        probability=posterior.probability,
        lower=posterior.lower,
        upper=posterior.upper,
        prior=posterior.prior,
        level=level_of(posterior, model.levels),
        applicability=applicability.verdict,
        reason=sentence([answer, missing_names(posterior.evidence), *applicability.reasons]),
        evidence=(*posterior.evidence, *_context(case, bundle, growths), *arm.context),
        counterfactuals=tuple(_counterfactuals(weigh, readings, posterior)),
        prior_source=f"{prior.title}: {card.cite(prior.source)}",
    )


def _retrospective(empty: Flag, case: Case, visit: Visit, later: Sequence[Visit]) -> Flag:
    label = case.response.pseudoprogression
    seen = ", ".join(f"{item.timepoint} {item.irecist}" for item in later)
    if label.answer == "not assessable":
        return replace(
            empty,
            reason=sentence(
                [
                    f"the progression at {visit.timepoint} (day {visit.day}) was scanned again ({seen}) and is neither confirmed nor "
                    "cancelled; a prediction of the next scan no longer applies and the label needs another scan",
                    label.reason.rstrip("."),
                ]
            ),
        )
    word = "was pseudoprogression" if label.answer == "yes" else "was no pseudoprogression"
    applicability = Applicability.of([*patient_doubts(case), *alignment_doubts(case, later[0].timepoint)])
    return replace(
        empty,
        status="assessed",
        level=label.answer,
        # A label from letters does not rest on the bundle; doubts about the measurements stay doubts.
        applicability="applicable" if applicability.verdict == "applicable" else "caution",
        reason=sentence(
            [
                f"the progression at {visit.timepoint} (day {visit.day}) {word}, as the later scan shows ({seen}): this is the label, not "
                "a prediction",
                label.reason.rstrip("."),
                _open_again(visit, later),
                *applicability.reasons,
            ]
        ),
    )


def _open_again(first: Visit, later: Sequence[Visit]) -> str:
    if later[-1].irecist != "iUPD" or all(item.irecist == "iUPD" for item in later):
        return ""
    return (
        f"{later[-1].timepoint} progresses anew and is not confirmed yet, and the model speaks of first progressions only, as the one at "
        f"{first.timepoint}"
    )


def _unmeasured_reason(visit: Visit, prior: Prior) -> str:
    new_alone = visit.new_lesion == "yes" and visit.target != "PD" and visit.non_target != "PD"
    what = "a new lesion alone" if new_alone else "disease that was judged and not measured"
    return sentence(
        [
            f"the first progression, at {visit.timepoint} (day {visit.day}), is one by {what}, and the likelihood is one of measured "
            "growth",
            f"what is known is the prior: {percent(prior.probability)} ({percent(prior.lower)} to {percent(prior.upper)}) of the "
            "progressions that are scanned again are not confirmed",
        ]
    )


def _own_doubts(case: Case, visit: Visit, readings: dict[str, Reading]) -> Iterator[Doubt]:
    if visit.new_lesion == "yes":
        yield Doubt("caution", "there is a new lesion too, which the likelihood knows nothing of")
    if case.treatment_start_day is not None and visit.day <= case.treatment_start_day:
        yield Doubt(
            "not assessable",
            f"the progression at {visit.timepoint} (day {visit.day}) was seen before the treatment began (day "
            f"{case.treatment_start_day}), so it is none on immunotherapy",
        )
    if case.treatment_start_day is None:
        yield Doubt("caution", "the start of treatment is not entered, time is counted from the baseline scan")
    if readings["ctdna_favourable"].value is not None and not case.melanoma:
        yield Doubt("caution", "circulating tumour DNA was studied in melanoma only")


def _unseen_growth(bundle: Bundle, growths: Sequence[Growth]) -> Iterator[Doubt]:
    """Yield lesions that grew more than any of the fitting data; the regression itself counts growth up to a limit only."""
    high = next((item.high for item in bundle.card.inputs if item.name == "growth"), None)
    for item in growths:
        if high is not None and math.log(item.now_mm / max(item.nadir_mm, TOO_SMALL_MM)) > high:
            yield Doubt(
                "caution",
                f"{item.lesion} grew more than any lesion of the fitting data ({_size_change(item)}): check the contours",
            )


def _context(case: Case, bundle: Bundle, growths: Sequence[Growth]) -> Iterator[Evidence]:
    model = _model(bundle)
    if model.measurement_error is not None:
        chance = chance_below_threshold(growths, model.measurement_error.sd_log_diameter)
        yield Evidence(
            "Reader error",
            f"{percent(chance)} chance that the growth is really below +20 %",
            0.0,
            None,
            None,
            "context",
            bundle.card.cite(model.measurement_error.source),
            "already in the fitted shares, which come from measured diameters; it widens the interval",
        )
    for item in model.context:
        if item.id != "lesions-melanoma" or case.melanoma:
            yield context_evidence(item, bundle.card)


def _counterfactuals(
    weigh: Callable[[Mapping[str, Reading]], Posterior], readings: dict[str, Reading], posterior: Posterior
) -> Iterator[str]:
    def chance(name: str, value: float) -> str:
        return percent(weigh({**readings, name: Reading(name, value, "", "entered")}).probability)

    yield f"as measured: {percent(posterior.probability)}"
    for growth in (0.2, 0.5):
        yield f"with growth of {100 * growth:.0f} % over the nadir: {chance('growth', math.log1p(growth))}"
    for value, word in ((1.0, "favourable"), (0.0, "unfavourable")):
        if readings["ctdna_favourable"].value != value:
            yield f"with {word} circulating tumour DNA: {chance('ctdna_favourable', value)}"


def _growth(case: Case, lesion: Lesion, timepoint: str) -> Growth | None:
    records = case.timepoints_from_baseline_to(timepoint)
    sizes = [(record.name, size_mm(lesion, lesion.at(record.name))) for record in records]
    now, baseline = sizes[-1][1], sizes[0][1]
    before = [(size, name) for name, size in sizes[:-1] if size is not None]
    if now is None or baseline is None or not before:
        return None
    nadir = min(size for size, _ in before)
    tenths_now, tenths_nadir = round(now * 10), round(nadir * 10)
    progressing = 10 * tenths_now >= 12 * tenths_nadir and tenths_now - tenths_nadir >= 10 * GROWTH_MM
    return Growth(lesion.id, now, nadir, baseline, nadir == baseline, progressing)


def _months(case: Case, visit: Visit) -> Reading:
    start = case.treatment_start_day or 0
    days = visit.day - start
    since = "the start of treatment" if case.treatment_start_day is not None else "the baseline scan"
    return Reading("months", days / DAYS_PER_MONTH, f"{days} days since {since}", "measured")


def _ctdna(case: Case) -> Reading:
    change = case.study.clinical.ctdna_change
    if change is None:
        return missing("ctdna_favourable")
    return Reading("ctdna_favourable", float(change == "favourable"), change, "entered")


def _prior(case: Case, model: EvidenceModel) -> Prior:
    return model.prior("melanoma" if case.melanoma else "any")


def _progresses(visit: Visit) -> bool:
    return visit.recist == "PD" or visit.irecist in ("iUPD", "iCPD")


def _size_change(item: Growth) -> str:
    if item.nadir_mm <= 0:
        return f"0 to {item.now_mm:.1f} mm"
    return f"{item.nadir_mm:.1f} to {item.now_mm:.1f} mm ({100 * (item.now_mm / item.nadir_mm - 1):+.0f} %)"


def _model(bundle: Bundle) -> EvidenceModel:
    if bundle.model is None:
        raise ValueError("an evidence bundle is needed")
    return bundle.model
