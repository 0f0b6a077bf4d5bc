"""Whether a patient is inside what a bundle was made for; every doubt is said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..analysis import Lesion, LesionObservation
from ..study import Acquisition
from .bundles import Bundle
from .case import Case
from .distance import share_farther_out
from .engine import Reading, known_or_missing

Verdict = Literal["applicable", "caution", "not assessable"]

# Aerated adult lungs at inspiration; smaller ones are a child's, collapsed or cut off. The mean density also tells a CT in HU
# from an MRI, whose values are never negative.
LUNG_VOLUME_ML = (2500.0, 11000.0)
LUNG_MEAN_HU = (-950.0, -500.0)
LESION_MEAN_HU = (-900.0, 300.0)
# RECIST 1.1 measures on slices of at most 5 mm (doi:10.1016/j.ejca.2008.10.026).
SLICE_LIMIT_MM = 5.0
ADULT_YEARS = 18.0
# The tube voltage of the cohorts that lung densities are compared with (MESA, SPIROMICS: doi:10.1164/rccm.201506-1208PP; known, not
# read again).
DENSITY_KV = 120.0
# One of twenty patients like those of the fitting data lies farther out than this by chance.
FAR_OUT_SHARE = 0.05
MISSING_SHARE = 0.5
FEWEST_INPUTS = 3
SMALL_LESION_VOXELS = 20


@dataclass(frozen=True)
class Doubt:
    """One reason against using a bundle for this patient."""

    severity: Literal["caution", "not assessable"]
    text: str


@dataclass(frozen=True)
class Applicability:
    """The verdict and every reason for it."""

    verdict: Verdict
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, doubts: Iterable[Doubt]) -> Applicability:
        """Judge by the gravest doubt; reasons in the order given, each once."""
        found = tuple(doubts)
        verdict: Verdict = "applicable"
        if found:
            grave = any(item.severity == "not assessable" for item in found)
            verdict = "not assessable" if grave else "caution"
        return cls(verdict, tuple(dict.fromkeys(item.text for item in found)))


def patient_doubts(case: Case) -> Iterator[Doubt]:
    """Yield what speaks against any evidence from adults on immunotherapy and CT: age, treatment, lungs, slices, HU."""
    age = case.study.clinical.age
    if age is not None and age < ADULT_YEARS:
        yield Doubt("not assessable", f"the patient is {age:g} years old and the evidence is from adults")
    treatment = case.study.treatment
    if not treatment.agents and not treatment.regimen:
        yield Doubt("caution", "regimen and agents are not entered")
    elif not case.targets_of_drugs:
        named = ", ".join(treatment.agents) or treatment.regimen
        yield Doubt("caution", f"{named} is no inhibitor of PD-1, PD-L1 or CTLA-4 that is known here")
    lungs = case.baseline_lungs
    if lungs is None:
        yield Doubt("caution", "no lungs were found at baseline, so the density scale could not be checked against air")
    else:
        low, high = LUNG_VOLUME_ML
        if not low <= lungs.volume_ml <= high:
            yield Doubt(
                "caution",
                f"the lungs at baseline hold {lungs.volume_ml:,.0f} ml, outside the {low:,.0f}-{high:,.0f} ml of adults "
                "at inspiration",
            )
        if not LUNG_MEAN_HU[0] <= lungs.mean_hu <= LUNG_MEAN_HU[1]:
            yield Doubt(
                "not assessable",
                f"the lungs have a mean of {lungs.mean_hu:.0f} HU, which no aerated lung on CT has: is this a CT in HU?",
            )
    later = {record.name for record in case.timepoints if record.day > 0}
    for item in case.lungs:
        if item.part == "both" and item.timepoint in later and not LUNG_MEAN_HU[0] <= item.mean_hu <= LUNG_MEAN_HU[1]:
            yield Doubt(
                "caution",
                f"the lungs of {item.timepoint} have a mean of {item.mean_hu:.0f} HU: extensive disease, or no CT in HU",
            )
    for record in case.timepoints:
        # Overlapping slices are thicker than their distance tells.
        nominal = record.acquisition.slice_thickness_mm if record.acquisition else None
        thickness = max(*record.spacing_mm, nominal or 0.0)
        if thickness > SLICE_LIMIT_MM:
            yield Doubt(
                "caution",
                f"{record.name} has slices of {thickness:g} mm, thicker than the {SLICE_LIMIT_MM:g} mm that "
                "measurements are made on",
            )


def acquisition_doubts(case: Case) -> Iterator[Doubt]:
    """Yield where a follow-up was made otherwise than the baseline, so that densities differ with nothing changed in the patient."""
    made = {record.name: record.acquisition for record in case.timepoints}
    before = made.get(case.baseline)
    for name, after in made.items():
        if before is None or after is None or name == case.baseline:
            continue
        for what, first, second in (
            ("tube voltage", _kilovolts(before), _kilovolts(after)),
            ("reconstruction kernel", before.kernel, after.kernel),
            ("intravenous contrast", _contrast(before), _contrast(after)),
        ):
            if first is not None and second is not None and first != second:
                yield Doubt(
                    "caution",
                    f"{name} differs from {case.baseline} in the {what} ({second}, before: {first}), which shifts densities",
                )


def density_doubts(case: Case) -> Iterator[Doubt]:
    """Yield where the baseline was made otherwise than the CTs that its lung densities are compared with."""
    made = next((record.acquisition for record in case.timepoints if record.name == case.baseline), None)
    if made is None or case.baseline_lungs is None:
        return
    if made.kvp is not None and made.kvp != DENSITY_KV:
        yield Doubt(
            "caution",
            f"{case.baseline} was made at {_kilovolts(made)}, and its lung densities are compared with those of {DENSITY_KV:g} kV",
        )
    if made.kernel is not None and _is_sharp(made.kernel):
        # By 7 to 8 points in 369 patients scanned with both (doi:10.1007/s00330-015-3824-y).
        yield Doubt(
            "caution",
            f"{case.baseline} was made with the sharp kernel {made.kernel}, which makes the share of lung below -950 HU too large",
        )


def _is_sharp(kernel: str) -> bool:
    # Takes as long to load as a small patient's features, and most studies name no kernel.
    from ..dicom.choice import sharpness

    return sharpness(kernel) == "sharp"


def _kilovolts(acquisition: Acquisition) -> str | None:
    return None if acquisition.kvp is None else f"{acquisition.kvp:g} kV"


def _contrast(acquisition: Acquisition) -> str | None:
    return None if acquisition.contrast is None else "given" if acquisition.contrast else "not given"


def alignment_doubts(case: Case, timepoint: str) -> Iterator[Doubt]:
    """Yield what the alignment of a follow-up makes doubtful."""
    record = next((item for item in case.alignments if item.timepoint == timepoint), None)
    if record is None:
        yield Doubt(
            "caution",
            f"{timepoint} was not aligned with the baseline, so its lesions could not be followed by position",
        )
    elif record.quality.verdict != "good":
        why = f" ({'; '.join(record.quality.reasons)})" if record.quality.reasons else ""
        yield Doubt("caution", f"the alignment of {timepoint} is {record.quality.verdict}{why}")
        propagated = any(
            observation is not None and observation.source == "propagated" and observation.status != "not evaluated"
            for observation in (lesion.at(timepoint) for lesion in case.lesions)
        )
        if record.quality.verdict == "failed" and propagated:
            yield Doubt("not assessable", f"the contours of {timepoint} were carried over by an alignment that failed")


def lesion_doubts(lesions: Sequence[Lesion], timepoint: str) -> Iterator[Doubt]:
    """Yield what in the contours of the given lesions at one time point needs a person's eye."""
    for lesion in lesions:
        observation = lesion.at(timepoint)
        if observation is None or observation.status != "measured":
            continue
        where = f"{lesion.id} at {timepoint}"
        if observation.check:
            yield Doubt("caution", f"{where}: {observation.check}")
        if observation.source == "propagated":
            yield Doubt("caution", f"{where}: the contour was carried over from the baseline and not drawn")
        if observation.voxels is not None and observation.voxels < SMALL_LESION_VOXELS:
            yield Doubt("caution", f"{where} has only {observation.voxels} voxels")
        if observation.mean_hu is not None and not LESION_MEAN_HU[0] <= observation.mean_hu <= LESION_MEAN_HU[1]:
            yield Doubt("caution", f"{where} has a mean of {observation.mean_hu:.0f} HU, which no tumour has")
        if _implausible(observation):
            yield Doubt(
                "caution", f"{where}: volume and diameter do not belong to one compact lesion; check the contour"
            )


def input_doubts(bundle: Bundle, readings: Mapping[str, Reading]) -> Iterator[Doubt]:
    """Yield what lies outside the ranges and the joint distribution that the card declares, and what is missing."""
    read = {name: known_or_missing(item).value for name, item in readings.items()}
    known = {name: value for name, value in read.items() if value is not None}
    lacking = []
    for spec in bundle.card.inputs:
        value = known.get(spec.name)
        if value is None:
            lacking.append(spec)
            continue
        below = spec.low is not None and value < spec.low - 1e-9
        above = spec.high is not None and value > spec.high + 1e-9
        if below or above:
            low = "" if spec.low is None else f"{spec.low:g}"
            high = "" if spec.high is None else f"{spec.high:g}"
            yield Doubt(
                "caution",
                f"{spec.title} is {value:.3g} {spec.unit}, outside {low} to {high}, the range of the evidence",
            )
    for spec in lacking:
        if spec.required:
            yield Doubt("not assessable", f"{spec.title} is not known and the answer rests on it")
    optional = [spec for spec in bundle.card.inputs if not spec.required]
    gaps = [spec for spec in lacking if not spec.required]
    if len(optional) >= FEWEST_INPUTS and len(gaps) > MISSING_SHARE * len(optional):
        names = ", ".join(spec.name for spec in gaps)
        yield Doubt(
            "caution",
            f"{len(gaps)} of {len(optional)} optional inputs are not known ({names}): the answer is mostly the prior",
        )
    yield from _distance_doubts(bundle, known)


def _distance_doubts(bundle: Bundle, known: Mapping[str, float]) -> Iterator[Doubt]:
    regression = bundle.model.regression if bundle.model else None
    if regression is None or not all(name in known for name in regression.distance_inputs):
        return
    limits = dict(zip(regression.inputs, regression.upper_limits, strict=True))
    values = []
    for name in regression.distance_inputs:
        limit = limits[name]
        values.append(known[name] if limit is None else min(known[name], limit))
    share = share_farther_out(values, regression.location, regression.scatter)
    if share < FAR_OUT_SHARE:
        yield Doubt(
            "caution",
            f"{', '.join(regression.distance_inputs)} together are unusual: {100 * share:.1g} % of the fitting data lie farther out",
        )


def _implausible(observation: LesionObservation) -> bool:
    if observation.volume_ml is None or observation.long_axis_mm is None or observation.long_axis_mm <= 0:
        return False
    # The long axis is axial: a lesion may be up to three times as long in the third direction.
    ball_ml = math.pi / 6 * observation.long_axis_mm**3 / 1000
    return not 0.02 <= observation.volume_ml / ball_ml <= 3.0
