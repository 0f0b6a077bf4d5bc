"""Hyperprogression: what the published definitions answer, and the baseline risk of a course as fast as that.

The definitions are answered by the response stage and shown as they are. The probability is about a surrogate, death within 12 weeks,
because no public data give hyperprogression by growth rate together with baseline inputs; every text says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from ..analysis import Evidence, Features, Flag, Level
from .answer import baseline_risk_flag
from .applicability import Applicability, Doubt, alignment_doubts, input_doubts, lesion_doubts, patient_doubts
from .arm import read_arm
from .bundles import Bundle
from .case import Case, size_mm
from .context import rmh_points
from .engine import DRAWS, Posterior, Reading, evaluate, level_of, missing, stream
from .model import EvidenceModel
from .wording import context_evidence, percent, span

QUESTION = "Is the course hyperprogression, or may it become so?"

# Standardised weights of the per-lesion CT model; intercept, scaling and discretisation are not public.
_GABRYS_WEIGHTS = (
    ("original_firstorder_10Percentile", "10th percentile", 1.42),
    ("original_firstorder_Energy", "energy", -0.94),
    ("original_firstorder_Entropy", "entropy", -0.83),
    ("original_firstorder_RootMeanSquared", "root mean square", 0.58),
)
_GABRYS_SOURCE = "gabrys2022"


def assess_hyperprogression(case: Case, bundle: Bundle, trained: Bundle | None = None) -> Flag:
    """Answer the second question for one patient: definitions beside the baseline risk of early death.

    ``trained`` is the bundle of the radiomics arm.
    """
    model = bundle.model
    if model is None or model.regression is None or model.measurement_error is None:
        raise ValueError("an evidence bundle with a regression and a measurement error is needed")
    readings = baseline_readings(case, model.measurement_error.sd_log_diameter)
    arm = read_arm(case, trained)
    doubts = [
        *patient_doubts(case),
        *lesion_doubts(case.baseline_lesions, case.baseline),
        *input_doubts(bundle, readings),
        *_own_doubts(case, readings),
        *_definition_doubts(case),
        *arm.doubts,
    ]
    weigh = partial(evaluate, bundle, nsclc=case.nsclc, seed=case.seed, also=arm.contributions)
    posterior = weigh(readings)
    return baseline_risk_flag(
        bundle,
        QUESTION,
        posterior,
        Applicability.of(doubts),
        level=_level(case, level_of(posterior, model.levels)),
        answer=f"the baseline risk of death within 12 weeks, a surrogate for hyperprogression and not hyperprogression itself, is "
        f"{span(posterior)}, against {percent(posterior.prior)} for the average patient of the fitting trial",
        after=[_definitions_summary(case)],
        context=[*_context(case, bundle, model, readings), *arm.context],
        counterfactuals=tuple(_counterfactuals(weigh, readings, posterior)),
        definitions=case.response.hyperprogression,
    )


def baseline_readings(case: Case, sd_log_diameter: float) -> dict[str, Reading]:
    """Return the inputs of the baseline risk: entered where they are, else measured from the segmented lesions."""
    clinical = case.study.clinical
    ecog = missing("ecog_1")
    if clinical.ecog is not None:
        ecog = Reading("ecog_1", float(clinical.ecog >= 1), f"ECOG {clinical.ecog}", "entered")
    ldh = missing("ldh_high")
    if clinical.ldh is not None and clinical.ldh_uln is None:
        ldh = missing("ldh_high", "LDH is entered without the laboratory's upper limit of normal")
    elif clinical.ldh is not None and clinical.ldh_uln is not None:
        shown = f"{clinical.ldh:g} U/L, limit {clinical.ldh_uln:g}"
        ldh = Reading("ldh_high", float(clinical.ldh > clinical.ldh_uln), shown, "entered")
    readings = (ecog, sites_reading(case), _burden(case, sd_log_diameter), ldh, _liver(case))
    return {item.name: item for item in readings}


def sites_reading(case: Case) -> Reading:
    """Return the number of metastatic sites: entered, else the organs that hold a segmented lesion at baseline."""
    entered = case.study.clinical.metastatic_sites
    if entered is not None:
        return Reading("sites", float(entered), f"{entered}", "entered")
    if not case.organs:
        return missing("sites", "not entered, and no lesion is segmented at baseline")
    shown = f"{len(case.organs)} ({', '.join(case.organs)})"
    return Reading(
        "sites", float(len(case.organs)), shown, "measured", "counted from the segmented lesions: at least this many"
    )


def _burden(case: Case, sd_log_diameter: float) -> Reading:
    sizes = {item.id: size_mm(item, item.at(case.baseline)) for item in case.lesions if item.role == "target"}
    diameters = np.array([size for size in sizes.values() if size])
    total = next((item.baseline_mm for item in case.response.visits if item.baseline_mm), None)
    if total is None and diameters.size:
        total = float(diameters.sum())
    if not total:
        return missing("ln_sld", "no target lesion is measured at baseline")
    draws = None
    if diameters.size:
        errors = stream(case.seed, "reader of the sum").normal(0.0, sd_log_diameter, (DRAWS, diameters.size))
        draws = math.log(total) + np.log((diameters * np.exp(errors)).sum(axis=1) / diameters.sum())
    return Reading("ln_sld", math.log(total), f"{total:.0f} mm", "measured", "reader error is in the interval", draws)


def _liver(case: Case) -> Reading:
    entered = case.study.clinical.liver_metastases
    if entered is not None:
        return Reading("liver", float(entered), "yes" if entered else "no", "entered")
    if any("liver" in item.organ.lower() for item in case.baseline_lesions):
        return Reading("liver", 1.0, "yes", "measured", "a segmented lesion lies in the liver")
    return missing("liver", "not entered, and no segmented lesion lies in the liver, which does not exclude one")


def _own_doubts(case: Case, readings: dict[str, Reading]) -> Iterator[Doubt]:
    if case.nsclc is None:
        yield Doubt("caution", "the tumour is not entered; the risk is fitted on non-small-cell lung cancer")
    elif not case.nsclc:
        yield Doubt("caution", f"the risk is fitted on non-small-cell lung cancer, not on {case.study.tumour}")
    in_liver = [item.id for item in case.baseline_lesions if "liver" in item.organ.lower()]
    if in_liver and case.study.clinical.liver_metastases is False:
        yield Doubt("caution", f"no liver metastases are entered, but {', '.join(in_liver)} lies in the liver")
    if case.study.treatment.line == 1:
        yield Doubt("caution", "the risk is fitted on previously treated patients, this is the first line")
    if case.study.clinical.ecog is not None and case.study.clinical.ecog > 1:
        yield Doubt(
            "caution",
            f"ECOG {case.study.clinical.ecog} is counted as 1: the trials had no worse status, so the risk is higher",
        )
    if not case.baseline_lesions and readings["sites"].origin != "entered":
        yield Doubt("caution", "no lesion is segmented at baseline, so neither sites nor burden could be measured")


def _definition_doubts(case: Case) -> Iterator[Doubt]:
    """Yield what makes the first evaluation doubtful, on which the definitions rest; the baseline risk is known without it."""
    if all(item.answer == "not assessable" for item in case.response.hyperprogression):
        return
    start = max(case.treatment_start_day or 0, 0)
    later = sorted((item.day, item.name) for item in case.timepoints if item.day > start)
    if not later:
        return
    first = later[0][1]
    targets = [item for item in case.lesions if item.role == "target"]
    for doubt in (*alignment_doubts(case, first), *lesion_doubts(targets, first)):
        yield Doubt("caution", doubt.text)


def _level(case: Case, level: Level) -> Level:
    """Keep a course that meets a definition from being called unlikely, whatever the baseline risk was."""
    met = any(item.answer == "yes" for item in case.response.hyperprogression)
    return "indeterminate" if met and level == "unlikely" else level


def _definitions_summary(case: Case) -> str:
    definitions = case.response.hyperprogression
    if not definitions:
        return ""
    words = []
    for answer, text in (("yes", "met"), ("no", "not met"), ("not assessable", "not assessable")):
        names = [item.title for item in definitions if item.answer == answer]
        if names:
            words.append(f"{text}: {', '.join(names)}" if answer == "yes" else f"{text}: {len(names)}")
    return f"of {len(definitions)} published definitions, " + ", ".join(words)


def _context(case: Case, bundle: Bundle, model: EvidenceModel, readings: dict[str, Reading]) -> Iterator[Evidence]:
    card = bundle.card
    for item in model.context:
        if item.id != "rmh":
            yield context_evidence(item, card)
            continue
        clinical = case.study.clinical
        points = rmh_points(clinical.albumin_g_l, readings["ldh_high"].value, readings["sites"].value)
        shown = "not known" if points is None else f"{points} of 3 points"
        note = "the same causes as LDH and metastatic sites, which count"
        yield Evidence(item.title, shown, 0.0, None, None, "grouped", card.cite(item.source), f"{item.text}; {note}")
    direction = _radiomics_direction(case)
    # A bundle of one's own need not know of it.
    if direction is not None and any(item.id == _GABRYS_SOURCE for item in card.sources):
        note = "direction only: intercept, scaling and discretisation of this melanoma model are not public, so it has no weight"
        yield Evidence(
            "Texture of the largest lesion", direction, 0.0, None, None, "context", card.cite(_GABRYS_SOURCE), note
        )


def _radiomics_direction(case: Case) -> str | None:
    cores: list[tuple[float, Features]] = []
    for item in case.features:
        lesion = next((lesion for lesion in case.baseline_lesions if lesion.id == item.lesion), None)
        if lesion is not None and item.timepoint == case.baseline and item.region == "core" and item.values:
            cores.append((size_mm(lesion, lesion.at(case.baseline)) or 0.0, item))
    if not cores:
        return None
    largest = max(cores, key=lambda pair: pair[0])[1]
    words = []
    for name, title, weight in _GABRYS_WEIGHTS:
        value = largest.values.get(name)
        if value is not None:
            words.append(f"{title} {value:.4g} ({weight:+.2f} per standard deviation)")
    return f"{largest.lesion}: {', '.join(words)}" if words else None


def _counterfactuals(
    weigh: Callable[[Mapping[str, Reading]], Posterior], readings: dict[str, Reading], posterior: Posterior
) -> Iterator[str]:
    yield f"as known: {percent(posterior.probability)}"
    choices = (
        ("ldh_high", 0.0, "LDH normal"),
        ("ldh_high", 1.0, "LDH above the limit"),
        ("liver", 0.0, "no liver metastases"),
        ("liver", 1.0, "liver metastases"),
        ("ecog_1", 0.0, "ECOG 0"),
        ("ecog_1", 1.0, "ECOG 1"),
    )
    for name, value, words in choices:
        if readings[name].value != value:
            yield f"with {words}: {percent(weigh({**readings, name: Reading(name, value, '', 'entered')}).probability)}"
