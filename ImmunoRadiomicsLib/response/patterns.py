"""Atypical patterns: every published definition of hyperprogression, dissociated response, pseudoprogression.

Each definition answers yes, no or not assessable; they do not pick the same patients (Kas 2020,
doi 10.1001/jamaoncol.2020.1634), so they are shown side by side and never merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..analysis import Answer, Definition, Kinetics
from .course import Course
from .irecist import IrecistVisit
from .kinetics import DAYS_PER_MONTH, GrowthWindow
from .measurements import tenths
from .recist import RecistVisit, is_progression

TWO_MONTHS_DAYS = 2 * DAYS_PER_MONTH
EIGHT_WEEKS_DAYS = 56
TWELVE_WEEKS_DAYS = 84
Strictness = Literal["any", "response"]


@dataclass(frozen=True)
class ClinicalCourse:
    """What the images cannot tell about the time on treatment; days count from the baseline scan, None is "not known".

    ``treatment_failure_day``: the day on which the immunotherapy was stopped for any reason. ``on_treatment_until``: the last day
    known to be on treatment where it was not stopped. ``ecog``: performance status by day.
    """

    treatment_start_day: int | None = None
    treatment_failure_day: int | None = None
    on_treatment_until: int | None = None
    ecog: Mapping[int, int] | None = None

    @property
    def start(self) -> int:
        """The day that times on treatment count from: its start, or the baseline scan where that is not known."""
        return self.treatment_start_day or 0

    @property
    def early_failure(self) -> bool | None:
        """Whether treatment failed within two months; None where that is not known."""
        if self.treatment_failure_day is not None:
            return self.treatment_failure_day - self.start < TWO_MONTHS_DAYS
        if self.on_treatment_until is not None and self.on_treatment_until - self.start >= TWO_MONTHS_DAYS:
            return False
        return None

    @property
    def early_poor_status(self) -> bool | None:
        """Whether the performance status was ECOG 2 or worse within the first two months; None where not recorded.

        The status on the day of the start is the one that the patient came with, and tells nothing of the time after it.
        """
        early = [value for day, value in (self.ecog or {}).items() if self.start < day <= self.start + TWO_MONTHS_DAYS]
        return any(value >= 2 for value in early) if early else None


@dataclass(frozen=True)
class FirstEvaluation:
    """The first visit after the start of treatment; None is "not known".

    ``searched`` says whether anybody looked for new lesions.
    """

    day: float
    progressed: bool | None
    baseline_mm: float | None
    sum_mm: float | None
    new_lesions: tuple[tuple[str, str], ...]
    involved_organs: frozenset[str]
    organs_known: bool
    searched: bool

    @property
    def increase(self) -> float | None:
        """Relative change of the sum since the baseline."""
        if self.baseline_mm is None or self.sum_mm is None or self.baseline_mm <= 0:
            return None
        return self.sum_mm / self.baseline_mm - 1


def first_evaluation(
    course: Course, visits: Sequence[RecistVisit], involved_organs: frozenset[str], clinical: ClinicalCourse
) -> FirstEvaluation | None:
    """Return what the first visit after the start of treatment found; None where there is none."""
    for found, judged in zip(course.visits, visits, strict=True):
        if found.day <= clinical.start:
            continue
        new = tuple((item.lesion, item.organ) for item in found.new_lesions if item.seen)
        total, baseline = found.total, course.baseline_total
        return FirstEvaluation(
            found.day,
            True if judged.overall == "PD" else None if judged.overall == "NE" or not found.searched else False,
            None if baseline is None else baseline / 10,
            None if total is None else total / 10,
            new,
            involved_organs,
            bool(involved_organs) and all(organ for _, organ in new),
            found.searched,
        )
    return None


def all_of(*conditions: bool | None) -> bool | None:
    """Return whether all hold: no as soon as one does not, not known while one is not known."""
    if any(condition is False for condition in conditions):
        return False
    return None if any(condition is None for condition in conditions) else True


def any_of(*conditions: bool | None) -> bool | None:
    """Return whether at least one holds: yes as soon as one does, not known while one is not known."""
    if any(condition is True for condition in conditions):
        return True
    return None if any(condition is None for condition in conditions) else False


def at_least(count: int, conditions: Sequence[bool | None]) -> bool | None:
    """Return whether at least ``count`` hold, None while the ones that are not known decide."""
    sure = sum(condition is True for condition in conditions)
    possible = sum(condition is not False for condition in conditions)
    return True if sure >= count else False if possible < count else None


def _answer(value: bool | None) -> Answer:
    return "not assessable" if value is None else "yes" if value else "no"


def _above(value: float | None, bar: float, *, strict: bool = False) -> bool | None:
    if value is None:
        return None
    # Sizes are whole tenths of a millimetre; binary fractions miss a bar that their difference or ratio meets exactly.
    rounded = round(value, 9)
    return rounded > bar if strict else rounded >= bar


def _word(value: float | None, unit: str = "", form: str = ".1f") -> str:
    return "not known" if value is None else f"{value:{form}}{unit}"


def _known(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not known"}[value]


def hyperprogression(
    kinetics: Kinetics, window: GrowthWindow, first: FirstEvaluation | None, clinical: ClinicalCourse
) -> tuple[Definition, ...]:
    """Return the answer of every published definition of hyperprogression.

    A definition that needs a scan before the baseline is not assessable without it, whatever else is known, and one that
    needs a ratio is not assessable where the tumour did not grow before the baseline. None that needs growth rates is assessable where
    the targets were not measured at the first evaluation.
    """
    pd = None if first is None else first.progressed
    increase = None if first is None else first.increase
    rates = kinetics
    # Growth until a later scan says nothing about growth until the first evaluation.
    missed = first is not None and window.evaluation_day is not None and window.evaluation_day != first.day
    if missed:
        kinetics = Kinetics()
    ratio, tgk_ratio = kinetics.tgr_ratio, kinetics.tgk_ratio
    difference = kinetics.tgr_difference_percent_per_month
    failure = clinical.early_failure
    if first is None:
        no_reference = "no evaluation after the start of treatment"
    elif window.reference_day is None:
        no_reference = "no scan before the baseline"
    elif missed:
        no_reference = "the targets were not measured at the first evaluation"
    elif kinetics.tgr_reference_percent_per_month is not None and kinetics.tgr_reference_percent_per_month <= 0:
        no_reference = "the tumour did not grow before the baseline, so a ratio has no meaning"
    else:
        no_reference = "the targets were not measured on all scans"
    evaluated = "PD at first evaluation: " + _known(pd)
    if first is not None and first.new_lesions:
        evaluated += f" ({len(first.new_lesions)} new, which growth rates leave out)"
    result = []

    def add(
        identity: str,
        title: str,
        value: bool | None,
        reason: str,
        source: str,
        **numbers: float | None,
    ) -> None:
        result.append(Definition(identity, title, _answer(value), reason, numbers, source))

    def with_ratio(value: float | None, *conditions: bool | None) -> bool | None:
        return None if value is None or None in conditions else all_of(*conditions)

    def ratio_reason(name: str, value: float | None) -> str:
        return f"{name} not assessable: {no_reference}" if value is None else f"{name} {value:.2f}"

    for identity, title, source in (
        ("champiat2017", "Champiat 2017", "doi 10.1158/1078-0432.CCR-16-1741, as tabulated in PMC7011624"),
        ("kanjanapan2019", "Kanjanapan 2019", "doi 10.1002/cncr.31999, as tabulated in PMC7011624"),
    ):
        add(
            identity,
            f"{title}: PD at first evaluation and TGR ratio of at least 2",
            with_ratio(ratio, pd, _above(ratio, 2)),
            f"{evaluated}; {ratio_reason('TGR ratio', ratio)}",
            source,
            tgr_ratio=ratio,
            tgr_reference=kinetics.tgr_reference_percent_per_month,
            tgr_experimental=kinetics.tgr_experimental_percent_per_month,
        )
    add(
        "saada_bouzid2017",
        "Saâda-Bouzid 2017: TGK ratio of at least 2, asked only with PD at first evaluation",
        with_ratio(tgk_ratio, pd, _above(tgk_ratio, 2)),
        f"{evaluated}; {ratio_reason('TGK ratio', tgk_ratio)}",
        "doi 10.1093/annonc/mdx178; without the gate of PD it calls slow growth hyperprogression",
        tgk_ratio=tgk_ratio,
        tgk_reference=kinetics.tgk_reference_mm_per_month,
        tgk_experimental=kinetics.tgk_experimental_mm_per_month,
    )
    for identity, title, source in (
        ("kato2017", "Kato 2017", "doi 10.1158/1078-0432.CCR-16-3133, as tabulated in PMC7011624"),
        ("kamada2019", "Kamada 2019", "doi 10.1073/pnas.1822001116, as tabulated in PMC7011624"),
    ):
        add(
            identity,
            f"{title}: treatment failure within 2 months, burden up by more than 50 %, pace more than doubled",
            with_ratio(tgk_ratio, failure, _above(increase, 0.5, strict=True), _above(tgk_ratio, 2, strict=True)),
            f"treatment failure within 2 months: {_known(failure)}; burden {_word(_in_percent(increase), ' %', '+.0f')}; "
            + ratio_reason("pace (TGK ratio)", tgk_ratio),
            source,
            burden_change_percent=_in_percent(increase),
            tgk_ratio=tgk_ratio,
        )
    add(
        "ferrara2018",
        "Ferrara 2018: PD at first evaluation and TGR up by more than 50 points per month",
        with_ratio(difference, pd, _above(difference, 50, strict=True)),
        f"{evaluated}; " + _difference_reason(difference, no_reference),
        "doi 10.1001/jamaoncol.2018.3676, as tabulated in PMC7011624",
        tgr_difference=difference,
    )
    add(
        "kas2020",
        "Kas 2020: TGR up by more than 100 points per month",
        _above(difference, 100, strict=True),
        _difference_reason(difference, no_reference),
        "doi 10.1001/jamaoncol.2020.1634",
        tgr_difference=difference,
    )
    result.append(_lo_russo(first, increase, clinical))
    result.append(_matos(first, increase, clinical))
    result.extend(_kim_cg(kinetics, window, clinical, no_reference))
    result.append(_kim_y(kinetics, pd, evaluated, no_reference))
    add(
        "ten_berge2019",
        "ten Berge 2019: TGR before and after, without a cut-off of its own",
        None,
        "the study compares growth rates and reuses the definitions above; the rates are shown",
        "ten Berge 2019, ERJ Open Research 5(4)",
        tgr_reference=rates.tgr_reference_percent_per_month,
        tgr_experimental=rates.tgr_experimental_percent_per_month,
    )
    return tuple(result)


def _in_percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _difference_reason(difference: float | None, no_reference: str) -> str:
    if difference is None:
        return f"TGR difference not assessable: {no_reference}"
    return f"TGR difference {difference:+.1f} points per month"


def _lo_russo(first: FirstEvaluation | None, increase: float | None, clinical: ClinicalCourse) -> Definition:
    two_new: bool | None = None
    new_organ: bool | None = None
    if first is not None:
        organs = [organ for _, organ in first.new_lesions]
        if not first.searched:
            # What was found is a lower bound: it can only say yes.
            known = first.organs_known
            two_new = True if known and any(organs.count(organ) >= 2 for organ in first.involved_organs) else None
            new_organ = True if known and any(organ not in first.involved_organs for organ in organs) else None
        elif not organs:
            two_new = new_organ = False
        elif first.organs_known:
            two_new = any(organs.count(organ) >= 2 for organ in first.involved_organs)
            new_organ = any(organ not in first.involved_organs for organ in organs)
        elif len(organs) < 2:
            two_new = False
    criteria = {
        "treatment failure within 2 months": clinical.early_failure,
        "sum up by at least 50 %": _above(increase, 0.5),
        "2 new lesions in an involved organ": two_new,
        "spread to a new organ": new_organ,
        "ECOG 2 or worse within 2 months": clinical.early_poor_status,
    }
    value = None if first is None else at_least(3, list(criteria.values()))
    return Definition(
        "lo_russo2019",
        "Lo Russo 2019: at least 3 of 5 clinical and radiological signs",
        _answer(value),
        "; ".join(f"{name}: {_known(item)}" for name, item in criteria.items()),
        {
            "met": float(sum(item is True for item in criteria.values())),
            "not_known": float(sum(item is None for item in criteria.values())),
            "burden_change_percent": _in_percent(increase),
        },
        "doi 10.1158/1078-0432.CCR-18-1390, as tabulated in PMC7011624; needs no scan before the baseline",
    )


def _matos(first: FirstEvaluation | None, increase: float | None, clinical: ClinicalCourse) -> Definition:
    value: bool | None = None
    gain: float | None = None
    reason = "no evaluation after the start of treatment"
    if first is not None:
        interval = first.day - clinical.start
        if first.sum_mm is not None and first.baseline_mm is not None:
            gain = first.sum_mm - first.baseline_mm
        organs = {organ for _, organ in first.new_lesions}
        two_organs: bool | None
        if len(organs - {""}) >= 2:
            two_organs = True
        elif not first.searched:
            two_organs = None
        elif len(first.new_lesions) < 2:
            two_organs = False
        else:
            two_organs = None if "" in organs else False
        steep = None if increase is None else _at_least_percent(first, 40)
        moderate = None if increase is None else _at_least_percent(first, 20)
        value = all_of(
            all_of(first.progressed, interval <= EIGHT_WEEKS_DAYS),
            _above(gain, 10),
            any_of(steep, all_of(moderate, two_organs)),
        )
        reason = (
            f"PD at first evaluation: {_known(first.progressed)}, on day {interval:g}; sum "
            f"{_word(gain, ' mm', '+.1f')} and {_word(_in_percent(increase), ' %', '+.0f')}; new lesions in 2 organs: {_known(two_organs)}"
        )
    return Definition(
        "matos2020",
        "Matos 2020: PD within 8 weeks, sum up by at least 10 mm and either 40 % or 20 % with new lesions in 2 organs",
        _answer(value),
        reason,
        {"gain_mm": gain, "burden_change_percent": _in_percent(increase)},
        "Clin Cancer Res 2020;26:1846, as reported by later reviews; needs no scan before the baseline",
    )


def _at_least_percent(first: FirstEvaluation, bar: int) -> bool | None:
    if first.sum_mm is None or first.baseline_mm is None:
        return None
    return 100 * tenths(first.sum_mm) >= (100 + bar) * tenths(first.baseline_mm)


def _kim_cg(
    kinetics: Kinetics, window: GrowthWindow, clinical: ClinicalCourse, no_reference: str
) -> tuple[Definition, ...]:
    source = "doi 10.1093/annonc/mdz123, three alternatives; windows of 12 weeks as reported, the rest as reported by later reviews"
    before = None if window.reference_day is None else clinical.start - window.reference_day
    after = None if window.evaluation_day is None else window.evaluation_day - clinical.start
    inside = all_of(
        None if before is None else before <= TWELVE_WEEKS_DAYS, None if after is None else after <= TWELVE_WEEKS_DAYS
    )
    result = []
    for name, value in (("TGK", kinetics.tgk_ratio), ("TGR", kinetics.tgr_ratio)):
        if value is None:
            reason = f"{name} ratio not assessable: {no_reference}"
        elif not inside:
            reason = (
                f"{name} ratio {value:.2f}, but a scan is more than 12 weeks before or after the start of treatment"
            )
        else:
            reason = f"{name} ratio {value:.2f}, scans within 12 weeks before and after the start of treatment"
        result.append(
            Definition(
                f"kim_cg2019_{name.lower()}",
                f"Kim CG 2019: {name} ratio of at least 2 within windows of 12 weeks",
                _answer(_above(value, 2) if inside else None),
                reason,
                {f"{name.lower()}_ratio": value, "days_before": before, "days_after": after},
                source,
            )
        )
    failure = clinical.early_failure
    result.append(
        Definition(
            "kim_cg2019_ttf",
            "Kim CG 2019: treatment failure within 2 months",
            _answer(failure),
            f"treatment failure within 2 months: {_known(failure)}",
            {},
            source,
        )
    )
    return tuple(result)


def _kim_y(kinetics: Kinetics, pd: bool | None, evaluated: str, no_reference: str) -> Definition:
    reference = kinetics.volume_growth_reference_percent_per_month
    experimental = kinetics.volume_growth_experimental_percent_per_month
    ratio = None
    if reference is not None and experimental is not None and reference > 0:
        ratio = experimental / reference
    value = None if ratio is None or pd is None else pd and _above(ratio, 2)
    why = (
        f"ratio {ratio:.2f}"
        if ratio is not None
        else (f"ratio not assessable: {no_reference if reference is not None else 'no segmented volumes on all scans'}")
    )
    return Definition(
        "kim_y2019_volumetric",
        "Kim Y 2019: PD and ratio of the growth rates of segmented volumes of at least 2",
        _answer(value),
        f"{evaluated}; volume growth {why}",
        {"volume_growth_reference": reference, "volume_growth_experimental": experimental, "ratio": ratio},
        "doi 10.1016/j.jtho.2019.05.033, as reported by later reviews",
    )


def dissociated(course: Course, visits: Sequence[RecistVisit], *, strict: bool = False) -> tuple[Definition, ...]:
    """Return both published definitions of a dissociated (mixed) response, each over all visits.

    ``strict`` asks for more than 30 % and more than 20 % as Bernard-Tessier prints it, not for at least.
    """
    return _bernard_tessier(course, strict=strict), _zhou(course, visits)


def _bernard_tessier(course: Course, *, strict: bool) -> Definition:
    baseline = {size.lesion: size.tenths or 0 for size in course.baseline}
    assessable = False
    hits = []
    for visit in course.visits:
        sizes = {size.lesion: size.tenths for size in visit.targets if size.tenths is not None}
        assessable = assessable or len(sizes) >= 2
        shrunk = [
            name
            for name, now in sizes.items()
            if (10 * now < 7 * baseline[name] if strict else 10 * now <= 7 * baseline[name])
        ]
        grown = [
            name
            for name, now in sizes.items()
            if is_progression(now, baseline[name]) and (not strict or 5 * now > 6 * baseline[name])
        ]
        if shrunk and grown:
            hits.append((visit.day, shrunk, grown))
    value = True if hits else False if assessable else None
    if hits:
        day, shrunk, grown = hits[0]
        reason = f"on day {day} {', '.join(shrunk)} shrank by 30 % or more while {', '.join(grown)} grew by 20 % and 5 mm or more"
    elif assessable:
        reason = "no visit has one target that shrank by 30 % and another that grew by 20 % and 5 mm"
    else:
        reason = "fewer than 2 targets were measured at a visit"
    return Definition(
        "bernard_tessier2020",
        "Bernard-Tessier 2020: one lesion at least -30 % and another at least +20 % at the same visit",
        _answer(value),
        reason,
        {"visits": float(len(hits))},
        "as tabulated in PMC9083034; changes against the baseline",
    )


def _zhou(course: Course, visits: Sequence[RecistVisit]) -> Definition:
    hits = []
    assessable = False
    for found, judged in zip(course.visits, visits, strict=True):
        known = judged.target.letter in ("CR", "PR", "SD", "PD")
        assessable = assessable or (known and found.searched)
        fresh = [item.lesion for item in found.new_lesions if item.seen]
        if judged.target.letter in ("CR", "PR", "SD") and fresh:
            hits.append((found.day, fresh, judged.target.letter))
    if hits:
        day, fresh, letter = hits[0]
        reason = f"on day {day} new lesion {', '.join(fresh)} while the targets are {letter}"
    else:
        reason = (
            "no visit has a new lesion while the targets do not progress"
            if assessable
            else "the targets were never assessed at a visit at which new lesions were looked for"
        )
    return Definition(
        "zhou2020",
        "Zhou 2020: a new lesion while the targets shrink or grow by less than 20 %",
        _answer(True if hits else False if assessable else None),
        reason,
        {"visits": float(len(hits))},
        "as tabulated in PMC9083034",
    )


def pseudoprogression(
    visits: Sequence[IrecistVisit],
    *,
    strictness: Strictness = "any",
    treatment_start_day: int | None = None,
) -> Definition:
    """Return the retrospective label of pseudoprogression: an iUPD that a later visit does not confirm.

    ``any`` accepts a later iSD, ``response`` only a later iPR or iCR before the next iUPD. While the last iUPD waits for a later
    visit the label is not assessable: before that, only a prediction is possible.
    """
    start: int | None = None
    open_day: int | None = None
    found: tuple[int, int, str] | None = None
    confirmed = False
    accepted = ("iPR", "iCR") if strictness == "response" else ("iSD", "iPR", "iCR", "NON-iCR/NON-iUPD")
    for visit in visits:
        if visit.letter == "iCPD":
            confirmed = True
            open_day = None
            break
        if visit.letter == "iUPD":
            if open_day is None:
                start = visit.day
            open_day = visit.day if open_day is None else open_day
        elif visit.letter != "NE":
            open_day = None
            if start is not None and found is None and visit.letter in accepted:
                found = (start, visit.day, visit.letter)
    numbers: dict[str, float | None] = {"iupd_day": None if start is None else float(start)}
    answer: Answer
    if found:
        answer = "yes"
        since = found[0] - (treatment_start_day or 0)
        numbers = {"iupd_day": float(found[0]), "resolved_day": float(found[1])}
        when = "early (by week 12)" if since <= TWELVE_WEEKS_DAYS else "late (after week 12)"
        reason = f"iUPD on day {found[0]} was followed by {found[2]} on day {found[1]}, without iCPD between: {when}"
    elif open_day is not None:
        answer = "not assessable"
        reason = f"iUPD of day {open_day}, unconfirmed: undetermined until a later visit"
    elif confirmed:
        answer = "no"
        reason = "the progression was confirmed" if start is not None else "progression is confirmed"
    elif start is not None:
        answer = "no"
        reason = f"iUPD on day {start} was followed by stable disease only, which this strictness does not accept"
    elif any(visit.letter != "NE" for visit in visits):
        answer = "no"
        reason = "no unconfirmed progression"
    else:
        answer = "not assessable"
        reason = "no visit could be evaluated"
    return Definition(
        f"pseudoprogression-{strictness}",
        "Pseudoprogression: unconfirmed progression followed by "
        + ("response" if strictness == "response" else "stable disease or response"),
        answer,
        reason,
        numbers,
        "label from iRECIST (doi 10.1016/S1470-2045(17)30074-8); early and late as in PMC6942293",
    )
