"""Pneumonitis: the baseline risk, and what is new in the lungs at follow-up.

What is new is measured against the patient's own baseline and given in millilitres and % of lung, with an extent class. It is no
grade, because a grade needs symptoms, and it does not move the probability, because no public data say how often such an opacity
is pneumonitis. It does keep the answer from being `unlikely`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..analysis import Definition, Evidence, Flag, Level, LungChange, LungMeasures
from .answer import baseline_risk_flag
from .applicability import (
    Applicability,
    Doubt,
    acquisition_doubts,
    alignment_doubts,
    density_doubts,
    input_doubts,
    patient_doubts,
)
from .arm import read_arm
from .bundles import Bundle
from .case import Case
from .engine import Posterior, Reading, evaluate, level_of, missing
from .model import Prior
from .wording import context_evidence, percent, sentence, span

QUESTION = "Do the lungs show, or risk, pneumonitis?"

# Fleischner 2020: an abnormality that fills at least 5 % of a zone; densities alone also rise with breathing out, so the zone must
# in addition be denser than that of any healthy never-smoker (HAA up to 17.8 %, MESA).
ZONE_SHARE_PERCENT = 5.0
HEALTHY_HAA_PERCENT = (2.7, 17.8)
HEALTHY_LAA_PERCENT = (0.03, 0.43)
ZONE_SOURCE = "Fleischner Society 2020 zone rule; MESA healthy never-smokers (Easthausen 2020)"
# Smallest total of new ground glass and consolidation that is called new. 20 ml are to be found; what is there is measured within 20 %
# (benchmarks/lung_change.py), so the bar lies a quarter below. Breathing differences of up to 15 % leave 0 to 3 ml.
NEW_OPACITY_ML = 15.0
# Extent classes of ASCO's grading table, used for extent alone.
EXTENT_PERCENT = (25.0, 50.0)
EXTENT_SOURCE = "extent classes of the ASCO grading table (< 25 %, 25-50 %, > 50 % of lung); extent only, no grade"


def assess_pneumonitis(case: Case, bundle: Bundle, trained: Bundle | None = None) -> Flag:
    """Answer the third question for one patient: baseline risk, and new opacities at each follow-up.

    ``trained`` is the bundle of the radiomics arm.
    """
    model = bundle.model
    if model is None:
        raise ValueError("an evidence bundle is needed")
    readings = baseline_readings(case)
    priors = _priors(case, model.priors)
    changes = tuple(item for item in case.lung_changes if item.part == "both")
    definitions = tuple(new_opacity(case, item) for item in changes)
    arm = read_arm(case, trained)
    doubts = [*patient_doubts(case), *input_doubts(bundle, readings), *_own_doubts(case, changes), *arm.doubts]
    weigh = partial(evaluate, bundle, nsclc=case.nsclc, seed=case.seed, also=arm.contributions)
    posterior = weigh(readings, priors=priors)
    new = any(item.answer == "yes" for item in definitions)
    return baseline_risk_flag(
        bundle,
        QUESTION,
        posterior,
        Applicability.of(doubts),
        level=_level(level_of(posterior, model.levels), new),
        answer=f"the baseline risk of pneumonitis of any grade is {span(posterior)}, against {percent(posterior.prior)} before this "
        f"patient's evidence ({_setting(case)})",
        before=[item.reason.rstrip(".") for item in definitions],
        context=[*_context(case, bundle, changes), *arm.context],
        counterfactuals=tuple(_counterfactuals(weigh, model.priors, readings, priors, posterior)),
        definitions=definitions,
    )


def baseline_readings(case: Case) -> dict[str, Reading]:
    """Return the inputs of the baseline risk: history and regimen as entered, emphysema and abnormality as measured."""
    clinical = case.study.clinical
    blocked = case.targets_of_drugs
    pd1 = missing("pd1", "regimen and agents not entered, or neither PD-1 nor PD-L1")
    if blocked & {"PD-1", "PD-L1"} and not {"PD-1", "PD-L1"} <= blocked:
        kind = "PD-1" if "PD-1" in blocked else "PD-L1"
        pd1 = Reading("pd1", float(kind == "PD-1"), kind, "entered")
    combination = missing("ctla4_combination", "regimen and agents not entered")
    if _beside_pdl1(case):
        combination = missing("ctla4_combination", "CTLA-4 beside PD-L1; the ratio was measured beside PD-1")
    elif blocked:
        both = "CTLA-4" in blocked and "PD-1" in blocked
        combination = Reading("ctla4_combination", float(both), " + ".join(sorted(blocked, reverse=True)), "entered")
    lungs = case.baseline_lungs
    emphysema = missing("laa950_percent", "no lungs were found at baseline")
    if lungs is not None:
        low, high = HEALTHY_LAA_PERCENT
        shown = f"{lungs.laa950_percent:.1f} % (healthy {low:g}-{high:g})"
        emphysema = Reading("laa950_percent", lungs.laa950_percent, shown, "measured")
    albumin = missing("albumin_g_l")
    if clinical.albumin_g_l is not None:
        albumin = Reading("albumin_g_l", clinical.albumin_g_l, f"{clinical.albumin_g_l:g} g/L", "entered")
    squamous = missing("squamous", "histology not entered")
    if case.squamous is not None:
        squamous = Reading("squamous", float(case.squamous), clinical.histology or "", "entered")
    readings = (
        _history("ild", clinical.ild),
        _history("respiratory_disease", clinical.respiratory_disease),
        _history("honeycombing", clinical.honeycombing),
        _history("ground_glass_attenuation", clinical.ground_glass_attenuation),
        _abnormality(case),
        emphysema,
        _history("prior_thoracic_rt", clinical.prior_thoracic_rt),
        _history("prior_radiation_pneumonitis", clinical.prior_radiation_pneumonitis),
        squamous,
        pd1,
        combination,
        albumin,
    )
    return {item.name: item for item in readings}


def abnormal_zones(lungs: Sequence[LungMeasures], timepoint: str) -> tuple[str, ...]:
    """Return the zones (thirds of a lung) that meet the zone rule at a time point.

    At least 5 % of the zone is ground glass or consolidation, and its high attenuation area is above that of any healthy
    never-smoker. The rule cannot tell dependent from other changes: a reader has to look.
    """
    found = []
    for item in lungs:
        if item.timepoint != timepoint or "-" not in item.part or item.volume_ml <= 0:
            continue
        share = 100 * (item.ground_glass_ml + item.consolidation_ml) / item.volume_ml
        if share >= ZONE_SHARE_PERCENT and item.haa_percent > HEALTHY_HAA_PERCENT[1]:
            found.append(item.part)
    return tuple(found)


def new_opacity(case: Case, change: LungChange) -> Definition:
    """Answer whether a follow-up shows new opacities in the lungs, with how much and how far they extend."""
    identifier, title = f"new-opacity-{change.timepoint}", f"New lung opacities at {change.timepoint}"
    source = EXTENT_SOURCE
    glass, solid = change.new_ground_glass_ml, change.new_consolidation_ml
    if not change.assessable or glass is None or solid is None:
        reason = f"new lung opacities at {change.timepoint} are withheld: {change.reason or 'they were not measured'}"
        numbers = {"volume_ratio": change.volume_ratio}
        return Definition(identifier, title, "not assessable", sentence([reason.rstrip(".")]), numbers, source)
    total, share = glass + solid, change.new_opacity_percent
    numbers = {
        "new_ground_glass_ml": glass,
        "new_consolidation_ml": solid,
        "new_opacity_percent": share,
        "volume_ratio": change.volume_ratio,
    }
    if total < NEW_OPACITY_ML:
        reason = f"no new lung opacity at {change.timepoint}: {total:.0f} ml, below the {NEW_OPACITY_ML:g} ml that can be told"
        return Definition(identifier, title, "no", sentence([reason]), numbers, source)
    extent = "" if share is None else f", {share:.1f} % of the lungs ({extent_class(share)})"
    parts = _parts_with_change(case, change)
    reason = (
        f"new lung opacities at {change.timepoint}: {glass:.0f} ml of ground glass and {solid:.0f} ml of consolidation{extent}"
        f"{', mostly ' + parts if parts else ''}; the cause and the grade are not told by the CT"
    )
    return Definition(identifier, title, "yes", sentence([reason]), numbers, source)


def extent_class(percent_of_lung: float) -> str:
    """Return the extent class of new opacities; extent only, a grade needs symptoms.

    >>> extent_class(3.0), extent_class(25.0), extent_class(60.0)
    ('extent below 25 %', 'extent 25-50 %', 'extent above 50 %')
    """
    low, high = EXTENT_PERCENT
    if percent_of_lung < low:
        return f"extent below {low:g} %"
    return f"extent {low:g}-{high:g} %" if percent_of_lung <= high else f"extent above {high:g} %"


def _parts_with_change(case: Case, change: LungChange) -> str:
    thirds = [
        (item.new_ground_glass_ml + item.new_consolidation_ml, item.part)
        for item in case.lung_changes
        if item.timepoint == change.timepoint
        and "-" in item.part
        and item.new_ground_glass_ml is not None
        and item.new_consolidation_ml is not None
    ]
    largest = sorted((pair for pair in thirds if pair[0] > 0), reverse=True)[:2]
    return " and ".join(f"{part.replace('-', ' ')} ({volume:.0f} ml)" for volume, part in largest)


def _level(level: Level, new_opacity_found: bool) -> Level:
    return "indeterminate" if new_opacity_found and level == "unlikely" else level


def _beside_pdl1(case: Case) -> bool:
    """Whether CTLA-4 is blocked together with PD-L1, which the ratio of the combination does not speak of."""
    return {"CTLA-4", "PD-L1"} <= case.targets_of_drugs and "PD-1" not in case.targets_of_drugs


def _history(name: str, value: bool | None) -> Reading:
    return missing(name) if value is None else Reading(name, float(value), "yes" if value else "no", "entered")


def _abnormality(case: Case) -> Reading:
    name = "interstitial_lung_abnormality"
    entered = case.study.clinical.interstitial_lung_abnormality
    if entered is not None:
        return _history(name, entered)
    if not any(item.timepoint == case.baseline and "-" in item.part for item in case.lungs):
        return missing(name, "not entered, and the zones of the lungs were not measured")
    zones = abnormal_zones(case.lungs, case.baseline)
    note = f"by density and the zone rule, not read by a person ({ZONE_SOURCE})"
    if not zones:
        return Reading(name, 0.0, "no zone meets the zone rule", "measured", note)
    return Reading(name, 1.0, ", ".join(zones).replace("-", " "), "measured", note)


def _priors(case: Case, priors: Sequence[Prior]) -> tuple[Prior, ...]:
    setting = case.study.clinical.setting
    return tuple(item for item in priors if setting is None or item.id == setting)


def _setting(case: Case) -> str:
    setting = case.study.clinical.setting
    if setting is None:
        return "setting not entered: trials and practice mixed"
    return "in trials" if setting == "trial" else "outside trials"


def _own_doubts(case: Case, changes: Sequence[LungChange]) -> Iterator[Doubt]:
    if case.study.clinical.setting is None:
        yield Doubt("caution", "the setting (trial or real-world) is not entered and matters more than any other input")
    if case.targets_of_drugs == {"CTLA-4"}:
        yield Doubt("caution", "the incidences are those of PD-1 and PD-L1 inhibitors")
    if _beside_pdl1(case):
        yield Doubt("caution", "a CTLA-4 inhibitor beside one of PD-L1 is not counted and may well add risk")
    lungs = case.baseline_lungs
    if lungs is not None and abnormal_zones(case.lungs, case.baseline):
        yield Doubt(
            "caution",
            "a dense zone of the baseline lungs needs a reader: interstitial abnormality or shallow inspiration",
        )
    yield from density_doubts(case)
    yield from acquisition_doubts(case)
    compared = {item.timepoint for item in changes if item.assessable}
    for record in case.timepoints:
        if record.day > 0 and record.name not in compared:
            yield Doubt("caution", f"the lungs of {record.name} could not be compared with the baseline")
        elif record.day > 0:
            yield from alignment_doubts(case, record.name)


def _context(case: Case, bundle: Bundle, changes: Sequence[LungChange]) -> Iterator[Evidence]:
    lungs = case.baseline_lungs
    if lungs is not None:
        low, high = HEALTHY_HAA_PERCENT
        yield Evidence(
            "High attenuation area of the lungs",
            f"{lungs.haa_percent:.1f} % (healthy {low:g}-{high:g})",
            0.0,
            None,
            None,
            "context",
            "MESA healthy never-smokers (Easthausen 2020)",
            "no published ratio",
        )
    for item in changes:
        if item.assessable and item.new_ground_glass_ml is not None and item.new_consolidation_ml is not None:
            share = "" if item.new_opacity_percent is None else f", {item.new_opacity_percent:.1f} % of the lungs"
            yield Evidence(
                f"New opacities at {item.timepoint}",
                f"ground glass {item.new_ground_glass_ml:.0f} ml, consolidation {item.new_consolidation_ml:.0f} ml{share}",
                0.0,
                None,
                None,
                "context",
                EXTENT_SOURCE,
                "measured against the patient's own baseline; no public data turn it into a probability",
            )
    for fact in bundle.model.context if bundle.model else ():
        yield context_evidence(fact, bundle.card)


def _counterfactuals(
    weigh: Callable[..., Posterior],
    known_priors: Sequence[Prior],
    readings: dict[str, Reading],
    priors: Sequence[Prior],
    posterior: Posterior,
) -> Iterator[str]:
    yield f"as known: {percent(posterior.probability)}"
    for prior in known_priors:
        if (prior,) != tuple(priors):
            words = "in a trial" if prior.id == "trial" else "outside a trial"
            yield f"{words}: {percent(weigh(readings, priors=(prior,)).probability)}"
    choices = (
        ("ctla4_combination", 1.0, "CTLA-4 added"),
        ("ctla4_combination", 0.0, "no CTLA-4 inhibitor"),
        ("ild", 1.0, "interstitial lung disease"),
        ("ild", 0.0, "no interstitial lung disease"),
        ("prior_thoracic_rt", 1.0, "thoracic radiotherapy before"),
        ("prior_thoracic_rt", 0.0, "no thoracic radiotherapy before"),
    )
    for name, value, words in choices:
        before = readings[name].value
        # An unknown feature counts as absent already, so its absence would change nothing.
        if before != value and not (before is None and value == 0.0):
            changed = {**readings, name: Reading(name, value, "", "entered")}
            yield f"with {words}: {percent(weigh(changed, priors=priors).probability)}"
