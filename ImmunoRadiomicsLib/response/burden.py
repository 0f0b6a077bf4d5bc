"""Criteria that add new lesions to one tumour burden: irRC, irRECIST, imRECIST, and the volume of all targets.

Sources: irRC Wolchok 2009 (doi 10.1158/1078-0432.CCR-09-1624); irRECIST Nishino 2013 (doi 10.1158/1078-0432.CCR-13-0895) and
Bohnsack 2014 as compared in PMC6942076; imRECIST Hodi 2018 (doi 10.1200/JCO.2017.75.1644).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .course import Course, CourseVisit, build_course
from .measurements import Measurement, tenths
from .recist import BestResponseSettings, DatedResponse, best_response, confirmed_best_response

NonIndex = Literal["absent", "stable", "progressed", "not evaluated"]


@dataclass(frozen=True)
class BurdenRules:
    """How one criterion judges a burden; percentages are whole numbers and positive.

    ``measure``: sum of diameters in mm, sum of products of diameters in mm² or sum of volumes in ml. ``add_new``: measurable new
    lesions are part of the burden. ``non_target_pd``: unequivocal non-target progression, or a new lesion that cannot be measured, is
    progression. ``any_new_pd``: every new lesion is progression. ``cut_at_pd``: nothing after a confirmed progression counts for the
    best response. ``confirm_response``: a response needs confirmation.
    """

    name: str
    prefix: str
    measure: Literal["diameters", "products", "volumes"]
    pr_percent: float
    pd_percent: float
    pd_gain_mm: float = 0.0
    add_new: bool = True
    non_target_pd: bool = False
    any_new_pd: bool = False
    cut_at_pd: bool = True
    confirm_response: bool = True
    confirm_days: int = 28


CRITERIA: dict[str, BurdenRules] = {
    "irrc": BurdenRules("irRC", "ir", "products", 50, 25),
    "irrecist": BurdenRules("irRECIST (Nishino)", "ir", "diameters", 30, 20, 5),
    "irrecist-bohnsack": BurdenRules("irRECIST (Bohnsack)", "ir", "diameters", 30, 20, 5, non_target_pd=True),
    "imrecist": BurdenRules("imRECIST", "im", "diameters", 30, 20, 5, cut_at_pd=False),
    # A sphere whose diameter changes by -30 or +20 % changes its volume by these; there is no validated volumetric rule.
    "volumetric": BurdenRules(
        "volume", "v", "volumes", 65.7, 72.8, add_new=False, non_target_pd=True, any_new_pd=True, confirm_response=False
    ),
}


@dataclass(frozen=True)
class BurdenVisit:
    """One visit by such a criterion. The burden is in mm, mm² or ml; ``part`` is what was measured of it."""

    day: int
    letter: str
    rule: str
    burden: float | None
    part: float
    baseline: float | None
    nadir: float | None


def burden_response(
    change_from_baseline: float,
    change_from_nadir: float,
    rules: BurdenRules,
    *,
    gone: bool = False,
    gain_mm: float = float("inf"),
    non_index: NonIndex = "stable",
    new_non_measurable: bool = False,
) -> str:
    """Return the response, without the prefix of the criterion, from changes of the burden in percent.

    ``gone``: every lesion of the burden has disappeared (the change from baseline is -100 %). A burden that did not progress is not
    turned into progression by non-index lesions unless the rules say so; they only stand in the way of CR.
    """
    pd = not gone and change_from_nadir >= rules.pd_percent and gain_mm >= rules.pd_gain_mm
    if pd or (rules.non_target_pd and (non_index == "progressed" or new_non_measurable)):
        return "PD"
    if gone:
        return "CR" if non_index == "absent" and not new_non_measurable else "PR"
    return "PR" if change_from_baseline <= -rules.pr_percent else "SD"


def assess_burden(
    measurements: Sequence[Measurement],
    rules: BurdenRules,
    *,
    volumes_ml: Mapping[tuple[str, int], float] | None = None,
) -> tuple[BurdenVisit, ...]:
    """Judge every visit of one patient by a criterion of one burden.

    Sizes are compared in tenths of a millimetre (products in hundredths of a mm²). A visit at which a lesion of the burden is
    missing is NE unless what was measured alone is progression. Sums of products need both axes of every lesion.
    """
    course = build_course(measurements)
    at = {(item.lesion, item.day): item for item in measurements}
    volumes = volumes_ml or {}
    start = [_amount(at.get((size.lesion, 0)), rules, volumes) for size in course.baseline]
    known = [value for value in start if value is not None]
    baseline = sum(known) if known and len(known) == len(start) else None
    nadir = baseline
    visits = []
    for visit in course.visits:
        parts = [_amount(at.get((size.lesion, visit.day)), rules, volumes) for size in visit.targets]
        if rules.add_new:
            parts += [_amount(at.get((item.lesion, visit.day)), rules, volumes) for item in visit.new_targets]
        measured = sum(value for value in parts if value is not None)
        complete = all(value is not None for value in parts) and baseline is not None
        letter, rule = _judge(course, visit, rules, measured, baseline, nadir, complete=complete)
        scale = _SCALE[rules.measure]
        visits.append(
            BurdenVisit(
                visit.day,
                f"{rules.prefix}{letter}",
                rule,
                measured / scale if complete else None,
                measured / scale,
                None if baseline is None else baseline / scale,
                None if nadir is None else nadir / scale,
            )
        )
        if complete and nadir is not None:
            nadir = min(nadir, measured)
    return tuple(visits)


_SCALE = {"diameters": 10, "products": 100, "volumes": 1000}
_UNIT = {"diameters": "mm", "products": "mm²", "volumes": "ml"}


def _amount(item: Measurement | None, rules: BurdenRules, volumes: Mapping[tuple[str, int], float]) -> int | None:
    """Return what a lesion adds to the burden in whole units: 0.1 mm, 0.01 mm² or 0.001 ml."""
    if item is None or item.status == "not evaluated":
        return None
    if item.status == "absent":
        return 0
    if rules.measure == "diameters":
        return item.size_tenths
    if rules.measure == "volumes":
        volume = volumes.get((item.lesion, item.day))
        return None if volume is None else round(volume * 1000)
    if item.long_mm is None or item.short_mm is None:
        return tenths(5) ** 2 if item.status == "too small" else None
    return tenths(item.long_mm) * tenths(item.short_mm)


def _judge(
    course: Course,
    visit: CourseVisit,
    rules: BurdenRules,
    measured: int,
    baseline: int | None,
    nadir: int | None,
    *,
    complete: bool,
) -> tuple[str, str]:
    new_non_measurable = any(not item.target and item.seen for item in visit.new_lesions)
    fresh = [item.lesion for item in visit.new_lesions if item.seen]
    non_index: NonIndex = "absent" if visit.non_target is None else _NON_INDEX[visit.non_target]
    if rules.any_new_pd and fresh:
        return "PD", f"new lesion {', '.join(fresh)}"
    if rules.non_target_pd and non_index == "progressed":
        return "PD", "unequivocal progression of non-target lesions"
    if rules.non_target_pd and new_non_measurable:
        return "PD", "new lesion that cannot be measured"
    if baseline is None or nadir is None or not course.baseline:
        return "NE", "the burden at baseline is not known"
    unit, scale = _UNIT[rules.measure], _SCALE[rules.measure]
    gain_mm = (measured - nadir) / 10 if rules.measure == "diameters" else float("inf")
    from_nadir = _percent_change(measured, nadir)
    text = f"burden {measured / scale:g} {unit}, baseline {baseline / scale:g}, nadir {nadir / scale:g} {unit}"
    if not complete:
        if measured and from_nadir >= rules.pd_percent and gain_mm >= rules.pd_gain_mm:
            return "PD", f"{text}: the measured part alone has grown by {rules.pd_percent:g} %"
        return "NE", "a lesion of the burden was not evaluated"
    gone = all(size.gone or size.tenths == 0 for size in visit.targets) and all(
        item.gone for item in visit.new_targets if rules.add_new
    )
    if rules.measure == "products":
        gone = measured == 0
    letter = burden_response(
        _percent_change(measured, baseline),
        from_nadir,
        rules,
        gone=gone,
        gain_mm=gain_mm,
        non_index=non_index,
        new_non_measurable=new_non_measurable,
    )
    return letter, text


_NON_INDEX: dict[str, NonIndex] = {
    "CR": "absent",
    "NON-CR/NON-PD": "stable",
    "PD": "progressed",
    "NE": "not evaluated",
}


def _percent_change(value: int, reference: int) -> float:
    """Return the change in percent; from nothing to something is infinite. Whole units in, so that thresholds are exact."""
    if reference == 0:
        return float("inf") if value > 0 else 0.0
    # One division of exact integers: -30 % of 14 mm comes out as exactly -30.
    return (100 * (value - reference)) / reference


def negated_progressions(visits: Sequence[BurdenVisit], rules: BurdenRules) -> frozenset[int]:
    """Return the days of progressions that a later visit, at least ``confirm_days`` on, shows not to be progression.

    The first later visit that can be evaluated and is far enough away decides.
    """
    negated = set()
    for index, visit in enumerate(visits):
        if visit.letter != f"{rules.prefix}PD":
            continue
        later = [
            other
            for other in visits[index + 1 :]
            if other.day - visit.day >= rules.confirm_days and not other.letter.endswith("NE")
        ]
        if later and later[0].letter != visit.letter:
            negated.add(visit.day)
    return frozenset(negated)


def confirmed_progression(visits: Sequence[BurdenVisit], rules: BurdenRules) -> int | None:
    """Return the day of the first progression that the next evaluable visit at least ``confirm_days`` on confirms."""
    for index, visit in enumerate(visits):
        if visit.letter != f"{rules.prefix}PD":
            continue
        later = [
            other
            for other in visits[index + 1 :]
            if other.day - visit.day >= rules.confirm_days and not other.letter.endswith("NE")
        ]
        if later and later[0].letter == visit.letter:
            return visit.day
    return None


def best_burden(visits: Sequence[BurdenVisit], rules: BurdenRules, settings: BestResponseSettings | None = None) -> str:
    """Return the best response by a criterion of one burden.

    A progression that a later visit negates does not count. Where responses need confirmation, an unconfirmed one counts as stable.
    """
    settings = settings or BestResponseSettings()
    negated = negated_progressions(visits, rules)
    end = confirmed_progression(visits, rules) if rules.cut_at_pd else None
    dated = [
        DatedResponse(visit.day, visit.letter.removeprefix(rules.prefix))
        for visit in visits
        if visit.day not in negated and (end is None or visit.day <= end)
    ]
    open_ended = BestResponseSettings(
        settings.min_sd_days, settings.confirm_days, settings.max_ne, settings.accept_sd, drop_after_pd=False
    )
    best = (confirmed_best_response if rules.confirm_response else best_response)(dated, open_ended)
    return best.response if best.response in ("MISSING", "ND") else f"{rules.prefix}{best.response}"
