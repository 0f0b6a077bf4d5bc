"""The response of one patient: all criteria, growth, atypical patterns and the words for them."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..analysis import Response, Visit
from . import irecist as irecist_rules
from . import recist as recist_rules
from .course import Course, CourseVisit, build_course
from .irecist import IrecistSettings, IrecistVisit
from .kinetics import assess_kinetics, growth_window
from .measurements import Measurement
from .narrative import describe
from .patterns import ClinicalCourse, Strictness, dissociated, first_evaluation, hyperprogression, pseudoprogression
from .recist import BestResponseSettings, DatedResponse, RecistVisit, percent
from .selection import too_many_targets
from .uncertainty import (
    READER_SD_LN_DIAMETER,
    probability_of_further_growth,
    probability_of_progression,
    probability_of_response,
)

Criterion = Literal["recist1.1", "irecist"]


@dataclass(frozen=True)
class ResponseSettings:
    """The choices of a protocol and of the report.

    ``criterion`` decides whose progression day, nadir and target letter a visit carries; both overall responses are always
    given. ``reader_sd_ln_diameter`` is the standard deviation of ln(diameter) between readers.
    ``pseudoprogression``: whether stable disease after an unconfirmed progression makes the label (`any`) or only a
    response does. ``strict_dissociation``: ask for more than, not at least, the thresholds of a dissociated response.
    """

    criterion: Criterion = "irecist"
    irecist: IrecistSettings = field(default_factory=IrecistSettings)
    best: BestResponseSettings = field(default_factory=BestResponseSettings)
    reader_sd_ln_diameter: float = READER_SD_LN_DIAMETER
    pseudoprogression: Strictness = "any"
    strict_dissociation: bool = False


def respond(
    measurements: Sequence[Measurement],
    *,
    settings: ResponseSettings | None = None,
    timepoint_names: Mapping[int, str] | None = None,
    treatment_start_day: int | None = None,
    treatment_failure_day: int | None = None,
    on_treatment_until: int | None = None,
    volumes_ml: Mapping[tuple[str, int], float] | None = None,
    ecog: Mapping[int, int] | None = None,
    symptoms_worse: Mapping[int, bool] | None = None,
    baseline_date: datetime.date | None = None,
    visit_days: Collection[int] = (),
    unsearched_days: Collection[int] = (),
) -> Response:
    """Apply RECIST 1.1 and iRECIST, growth kinetics and every atypical pattern to one patient.

    Parameters
    ----------
    measurements
        Every lesion at every visit. Day 0 is the baseline; negative days are earlier scans, used for growth only.
    settings
        The protocol's choices.
    timepoint_names
        Name of each day; `day N` where it has none.
    treatment_start_day, treatment_failure_day, on_treatment_until
        Days since the baseline: start of immunotherapy, its end for any reason, and the last day known to be on it.
    volumes_ml
        Segmented volume by (lesion, day).
    ecog, symptoms_worse
        Performance status and whether symptoms got worse, by day.
    baseline_date
        Calendar date of the baseline, for the wording only.
    visit_days
        Days of scans: each after the baseline is a visit, even where nothing was measured.
    unsearched_days
        Days on which nobody looked for new lesions: the answer to them is `not evaluated`, and there is no complete response.

    Raises
    ------
    InputError
        If the measurements contradict each other (several patients, a lesion twice on a day, a target without baseline).
    """
    settings = settings or ResponseSettings()
    names = timepoint_names or {}
    course = build_course(
        measurements,
        backdate_equivocal=settings.irecist.recist.backdate_equivocal,
        symptoms_worse=symptoms_worse,
        visit_days=visit_days,
        unsearched_days=unsearched_days,
    )
    recist = recist_rules.assess(course, settings.irecist.recist)
    irecist = irecist_rules.assess(course, settings.irecist)
    visits = _visits(course, recist, irecist, names, settings)
    window = growth_window(measurements, treatment_start_day=treatment_start_day, volumes_ml=volumes_ml)
    kinetics = assess_kinetics(window)
    clinical = ClinicalCourse(treatment_start_day, treatment_failure_day, on_treatment_until, ecog)
    organs = frozenset(
        item.organ
        for item in measurements
        if item.organ and item.role in ("target", "non-target") and item.status not in ("absent", "not evaluated")
    )
    first = first_evaluation(course, recist, organs, clinical)
    dated = [DatedResponse(item.day - (treatment_start_day or 0), item.overall) for item in recist]
    letters = [(item.day, item.letter) for item in irecist]
    if settings.criterion == "irecist":
        progression = irecist_rules.confirmed_progression_day(
            letters, unconfirmed=settings.irecist.unconfirmed_progression_counts
        )
    else:
        progression = next((item.day for item in recist if item.overall == "PD"), None)
    return Response(
        visits=visits,
        best_recist=recist_rules.best_response(dated, settings.best).response,
        best_recist_confirmed=recist_rules.confirmed_best_response(dated, settings.best).response,
        best_irecist=irecist_rules.best_irecist(
            irecist_rules.letters_that_count(
                [(day - (treatment_start_day or 0), letter) for day, letter in letters], settings.best
            )
        ),
        progression_day=progression,
        kinetics=kinetics,
        hyperprogression=hyperprogression(kinetics, window, first, clinical),
        dissociated=dissociated(course, recist, strict=settings.strict_dissociation),
        pseudoprogression=pseudoprogression(
            irecist, strictness=settings.pseudoprogression, treatment_start_day=treatment_start_day
        ),
        warnings=_warnings(measurements, course, irecist, kinetics.warnings),
        narrative=_narrative(course, recist, irecist, settings, baseline_date),
    )


def _mm(value: int | None) -> float | None:
    return None if value is None else value / 10


def _visits(
    course: Course,
    recist: Sequence[RecistVisit],
    irecist: Sequence[IrecistVisit],
    names: Mapping[int, str],
    settings: ResponseSettings,
) -> tuple[Visit, ...]:
    result = []
    for found, by_recist, by_irecist in zip(course.visits, recist, irecist, strict=True):
        immune = settings.criterion == "irecist"
        target = by_irecist.target if immune else by_recist.target
        part = None if target.letter in (None, "NE") else target.measured_part
        progression, response = _probabilities(course, found.day, target.nadir, settings)
        growth = _probability_of_further_growth(found, by_irecist, settings)
        result.append(
            Visit(
                timepoint=names.get(found.day, f"day {found.day}"),
                day=found.day,
                sum_mm=_mm(target.total),
                baseline_mm=_mm(target.baseline),
                nadir_mm=_mm(target.nadir),
                target=target.letter or "",
                non_target=found.non_target or "",
                new_lesion=by_recist.new_lesion,
                recist=by_recist.overall,
                irecist=by_irecist.letter,
                rule=by_recist.rule,
                irecist_rule=by_irecist.rule,
                confirmation=by_irecist.confirmation,
                new_lesion_sum_mm=_mm(by_irecist.new_total),
                change_from_baseline_percent=_percent(part, target.baseline),
                change_from_nadir_percent=_percent(part, target.nadir),
                probability_of_progression=progression,
                probability_of_response=response,
                probability_of_further_growth=growth,
            )
        )
    return tuple(result)


def _percent(value: int | None, reference: int | None) -> float | None:
    return None if value is None or reference is None else percent(value, reference)


def _probabilities(
    course: Course, day: int, nadir: int | None, settings: ResponseSettings
) -> tuple[float | None, float | None]:
    """Return how probable the true sum meets progression and response at a visit whose targets are all measured."""
    now = next(visit for visit in course.visits if visit.day == day)
    if nadir is None or now.total is None:
        return None, None
    earlier = [visit.targets for visit in course.visits if visit.day < day and visit.total == nadir]
    at_nadir = earlier[0] if earlier and course.baseline_total != nadir else course.baseline
    sizes = [(size.tenths or 0) / 10 for size in now.targets]
    sd = settings.reader_sd_ln_diameter
    return (
        probability_of_progression(sizes, [(size.tenths or 0) / 10 for size in at_nadir], reader_sd=sd),
        probability_of_response(sizes, [(size.tenths or 0) / 10 for size in course.baseline], reader_sd=sd),
    )


def _probability_of_further_growth(
    found: CourseVisit, judged: IrecistVisit, settings: ResponseSettings
) -> float | None:
    """Return how probable the targets truly grew by what confirms the progression that is pending since an earlier visit."""
    anchor = judged.anchor
    if anchor is None or anchor.day == found.day or "target" not in anchor.causes:
        return None
    if found.missing or any(size.tenths is None for size in anchor.targets):
        return None
    return probability_of_further_growth(
        [(size.tenths or 0) / 10 for size in found.targets],
        [(size.tenths or 0) / 10 for size in anchor.targets],
        reader_sd=settings.reader_sd_ln_diameter,
        absolute_mm=settings.irecist.further_growth_mm,
    )


def _warnings(
    measurements: Sequence[Measurement], course: Course, irecist: Sequence[IrecistVisit], growth: Sequence[str]
) -> tuple[str, ...]:
    warnings = [text for text, _ in too_many(measurements)]
    for item in measurements:
        size = item.size_mm
        least = 15 if item.node else 10
        if item.role == "target" and item.day == 0 and size is not None and size < least:
            warnings.append(
                f"Target {item.lesion} is {size:g} mm at baseline, below the {least} mm that a target "
                f"{'node ' if item.node else ''}needs."
            )
    for visit in irecist:
        warnings += [f"Day {visit.day}: {text}" for text in visit.warnings]
    symptoms = {visit.day: visit.symptoms_worse for visit in course.visits}
    warnings += [
        f"Day {visit.day}: iUPD with worse symptoms: treatment beyond progression is for the clinical team to weigh."
        for visit in irecist
        if visit.letter == "iUPD" and symptoms[visit.day]
    ]
    return (*warnings, *growth)


def too_many(measurements: Sequence[Measurement]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what is said, and of which lesions, where a patient has more targets or new targets than the criteria take."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for role, name in (("target", "target"), ("new-target", "new target")):
        lesions = {item.lesion: (item.lesion, item.organ, item.node) for item in measurements if item.role == role}
        found += too_many_targets(list(lesions.values()), name)
    return tuple(found)


def _narrative(
    course: Course,
    recist: Sequence[RecistVisit],
    irecist: Sequence[IrecistVisit],
    settings: ResponseSettings,
    baseline_date: datetime.date | None,
) -> str:
    if not recist:
        return "No visit after the baseline."
    last = course.visits[-1]
    nadir = recist[-1].target.nadir
    nadir_day = None
    if nadir is not None:
        days = [0] if course.baseline_total == nadir else [visit.day for visit in course.visits if visit.total == nadir]
        nadir_day = days[0] if days else None
    return describe(
        recist[-1],
        irecist[-1],
        nadir_day=nadir_day,
        new_lesions=tuple(item.lesion for item in last.new_lesions if not item.gone),
        settings=settings.irecist,
        baseline_date=baseline_date,
    )
