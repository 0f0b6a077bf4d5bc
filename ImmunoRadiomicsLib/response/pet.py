"""Metabolic criteria: PERCIST, imPERCIST5, iPERCIST, PERCIMT and PECRIT.

PERCIST Wahl 2009 (doi 10.2967/jnumed.108.057307); the immune variants as compared in PMC8584484 and PMC7046919. Uptake is SULpeak (standardised
uptake value by lean body mass, 1 ml sphere).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MetabolicLetter = Literal["CMR", "PMR", "SMD", "PMD", "NE"]


@dataclass(frozen=True)
class PetLesion:
    """One avid lesion: its SULpeak, whether it is new since the baseline, and its functional diameter where needed."""

    lesion: str
    sul_peak: float
    new: bool = False
    diameter_mm: float | None = None


@dataclass(frozen=True)
class PetVisit:
    """The avid lesions of one PET; ``liver_mean`` and ``liver_sd`` (SUL) set what counts as avid."""

    day: int
    lesions: tuple[PetLesion, ...]
    liver_mean: float | None = None
    liver_sd: float | None = None

    @property
    def hottest(self) -> float:
        """The highest SULpeak; 0 where nothing is avid."""
        return max((item.sul_peak for item in self.lesions), default=0.0)

    @property
    def avid_bar(self) -> float | None:
        """The least SULpeak of a measurable lesion: 1.5 x liver mean + 2 SD; None where the liver is not known."""
        return None if self.liver_mean is None else 1.5 * self.liver_mean + 2 * (self.liver_sd or 0.0)


@dataclass(frozen=True)
class PetSettings:
    """Thresholds of the metabolic criteria.

    ``least_change_sul`` is the absolute change that PERCIST asks for besides 30 %. iPERCIST confirms a progression on a PET
    ``confirm_min_days`` to ``confirm_max_days`` later. ``benefit_percent`` is the rise that PECRIT reads as benefit.
    """

    change_percent: float = 30.0
    least_change_sul: float = 0.8
    most_lesions: int = 5
    confirm_min_days: int = 28
    confirm_max_days: int = 56
    benefit_percent: float = 15.5


@dataclass(frozen=True)
class PetResponse:
    """The metabolic response at one visit with the rule that gave it."""

    day: int
    letter: str
    rule: str
    change_percent: float | None


def _change(now: float, before: float) -> float | None:
    return None if before <= 0 else 100.0 * (now - before) / before


def _reached(change: float, bar: float) -> bool:
    """Whether a change reaches a bar; a billionth absorbs the binary error of uptake values."""
    return change >= bar - 1e-9


def percist(baseline: PetVisit, visit: PetVisit, settings: PetSettings | None = None) -> PetResponse:
    """Return the PERCIST response: the hottest lesion then and now, whichever it is; a new avid lesion is PMD."""
    settings = settings or PetSettings()
    change = _change(visit.hottest, baseline.hottest)
    if change is None or (baseline.avid_bar is not None and baseline.hottest < baseline.avid_bar):
        return PetResponse(visit.day, "NE", "no measurable uptake at baseline", None)
    new = [item.lesion for item in visit.lesions if item.new]
    if new:
        return PetResponse(visit.day, "PMD", f"new avid lesion {', '.join(new)}", change)
    if not visit.lesions:
        return PetResponse(visit.day, "CMR", "no avid lesion is left", change)
    text = f"SULpeak {visit.hottest:g}, {change:+.0f} % from {baseline.hottest:g}"
    difference = visit.hottest - baseline.hottest
    if _reached(change, settings.change_percent) and _reached(difference, settings.least_change_sul):
        return PetResponse(visit.day, "PMD", text, change)
    if _reached(-change, settings.change_percent) and _reached(-difference, settings.least_change_sul):
        return PetResponse(visit.day, "PMR", text, change)
    return PetResponse(visit.day, "SMD", text, change)


def impercist5(baseline: PetVisit, visit: PetVisit, settings: PetSettings | None = None) -> PetResponse:
    """Return the imPERCIST5 response: the sum of SULpeak of up to 5 hottest lesions, new ones among them."""
    settings = settings or PetSettings()

    def total(item: PetVisit) -> float:
        return sum(sorted((lesion.sul_peak for lesion in item.lesions), reverse=True)[: settings.most_lesions])

    change = _change(total(visit), total(baseline))
    if change is None:
        return PetResponse(visit.day, "NE", "no measurable uptake at baseline", None)
    if not visit.lesions:
        return PetResponse(visit.day, "CMR", "no avid lesion is left", change)
    text = f"sum of SULpeak {total(visit):g}, {change:+.0f} % from {total(baseline):g}"
    if _reached(change, settings.change_percent):
        return PetResponse(visit.day, "PMD", text, change)
    return PetResponse(visit.day, "PMR" if _reached(-change, settings.change_percent) else "SMD", text, change)


def ipercist(
    baseline: PetVisit, visits: Sequence[PetVisit], settings: PetSettings | None = None
) -> tuple[PetResponse, ...]:
    """Return iPERCIST at every visit: a first PMD is unconfirmed (UPMD), one that lasts 4 to 8 weeks is confirmed (CPMD).

    A PET that comes too early keeps UPMD. A response or stability after UPMD resets it. CPMD is final.
    """
    settings = settings or PetSettings()
    result: list[PetResponse] = []
    pending: int | None = None
    confirmed = False
    for visit in sorted(visits, key=lambda item: item.day):
        plain = percist(baseline, visit, settings)
        letter, rule = f"{plain.letter}", plain.rule
        if confirmed:
            letter, rule = "CPMD", "progression is confirmed and stays so"
        elif pending is not None and visit.day - pending < settings.confirm_min_days:
            letter, rule = "UPMD", f"PET {visit.day - pending} days after UPMD: too early to confirm it"
        elif plain.letter == "PMD" and pending is not None:
            confirmed = True
            late = " (later than the window)" if visit.day - pending > settings.confirm_max_days else ""
            letter, rule = "CPMD", f"progression of day {pending} confirmed{late}: {plain.rule}"
        elif plain.letter == "PMD":
            pending = visit.day
            letter, rule = "UPMD", f"first progression, to be confirmed: {plain.rule}"
        elif plain.letter != "NE":
            pending = None
        result.append(PetResponse(visit.day, letter, rule, plain.change_percent))
    return tuple(result)


def percimt(baseline: PetVisit, visit: PetVisit) -> PetResponse:
    """Return the PERCIMT response, which counts new lesions by functional size and reads no change of uptake.

    PMD: 4 new lesions of any size, 3 larger than 10 mm, or 2 larger than 15 mm. CMR: none is left. PMR: some are gone and none is new.
    """
    new = [item for item in visit.lesions if item.new]
    sizes = [item.diameter_mm or 0.0 for item in new]
    text = f"{len(new)} new lesions, {sum(s > 10 for s in sizes)} above 10 mm, {sum(s > 15 for s in sizes)} above 15 mm"
    change = _change(visit.hottest, baseline.hottest)
    if len(new) >= 4 or sum(size > 10 for size in sizes) >= 3 or sum(size > 15 for size in sizes) >= 2:
        return PetResponse(visit.day, "PMD", text, change)
    if not baseline.lesions:
        return PetResponse(visit.day, "NE", "no measurable uptake at baseline", None)
    if not visit.lesions:
        return PetResponse(visit.day, "CMR", "no avid lesion is left", change)
    old = {item.lesion for item in visit.lesions if not item.new}
    gone = [item.lesion for item in baseline.lesions if item.lesion not in old]
    if gone and not new:
        return PetResponse(visit.day, "PMR", f"{', '.join(gone)} gone, no new lesion", change)
    return PetResponse(visit.day, "SMD", text, change)


def pecrit(recist: str, baseline: PetVisit, visit: PetVisit, settings: PetSettings | None = None) -> PetResponse:
    """Return the PECRIT reading at 3 to 4 weeks: RECIST 1.1, and within SD the change of SULpeak of the hottest lesion.

    CR, PR, and SD with a rise of more than 15.5 % are clinical benefit; PD, and SD without that rise, are none.
    """
    settings = settings or PetSettings()
    change = _change(visit.hottest, baseline.hottest)
    if recist in ("CR", "PR"):
        return PetResponse(visit.day, "benefit", f"RECIST 1.1 {recist}", change)
    if recist == "PD":
        return PetResponse(visit.day, "no benefit", "RECIST 1.1 PD", change)
    if recist != "SD" or change is None:
        return PetResponse(visit.day, "NE", "RECIST 1.1 or the uptake is not known", change)
    benefit = not _reached(-change, -settings.benefit_percent)
    return PetResponse(
        visit.day,
        "benefit" if benefit else "no benefit",
        f"RECIST 1.1 SD, SULpeak of the hottest lesion {change:+.1f} %",
        change,
    )
