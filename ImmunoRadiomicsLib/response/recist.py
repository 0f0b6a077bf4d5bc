"""RECIST 1.1: target, non-target and overall response, best and confirmed best response.

Source: Eisenhauer 2009, doi 10.1016/j.ejca.2008.10.026; answers of the EORTC RECIST working group where it is silent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .course import Course, CourseVisit, NewLesionAnswer, NonTargetLetter, TargetLetter
from .measurements import tenths

NON_CR_NON_PD = "NON-CR/NON-PD"
OverallLetter = Literal["CR", "PR", "SD", "NON-CR/NON-PD", "PD", "NE"]

PD_GAIN = tenths(5)
NOT_SEARCHED = "new lesions were not looked for"


@dataclass(frozen=True)
class RecistSettings:
    """Where RECIST 1.1 leaves a choice.

    ``sticky_pr``: once the 30 % decrease was reached, the response stays PR until progression; ``sticky_after_pd``: even
    after it. ``zero_nadir_pd``: from a nadir of 0, 5 mm are progression. ``partial_pd``: measured targets that alone meet
    progression are PD although others are missing. ``backdate_equivocal``: an equivocal new lesion
    that is confirmed later dates the progression back to its first sight. ``reappearance_is_pd``: a target that is seen again
    after an overall complete response is progression at any size. ``node_reappearance_mm``: the short axis at which a
    node counts as reappeared after an overall complete response. ``new_lesion_persists``: a new lesion that disappears again
    still makes every later visit PD, since RECIST 1.1 knows no way back.
    """

    sticky_pr: bool = True
    sticky_after_pd: bool = False
    zero_nadir_pd: bool = True
    partial_pd: bool = True
    backdate_equivocal: bool = True
    reappearance_is_pd: bool = True
    node_reappearance_mm: float = 10.0
    new_lesion_persists: bool = True


@dataclass(frozen=True)
class TargetResponse:
    """The response of the target lesions at one visit and the rule that gave it; sums in tenths of a millimetre."""

    letter: TargetLetter | None
    rule: str
    total: int | None
    baseline: int | None
    nadir: int | None
    measured_part: int = 0
    reappeared: bool = False


@dataclass(frozen=True)
class RecistVisit:
    """RECIST 1.1 at one visit."""

    day: int
    target: TargetResponse
    non_target: NonTargetLetter | None
    new_lesion: NewLesionAnswer
    overall: OverallLetter
    rule: str


@dataclass(frozen=True)
class TargetHistory:
    """What earlier visits leave behind: the nadir, whether PR was reached since the last progression, overall CR."""

    baseline: int
    nadir: int
    pr_reached: bool = False
    overall_cr: bool = False

    def after(self, response: TargetResponse, *, overall_cr: bool, settings: RecistSettings) -> TargetHistory:
        """Return the history that includes one more visit."""
        kept = self.pr_reached and (response.letter != "PD" or settings.sticky_after_pd)
        return TargetHistory(
            self.baseline,
            self.nadir if response.total is None else min(self.nadir, response.total),
            response.letter in ("CR", "PR") or kept,
            self.overall_cr or overall_cr,
        )


def is_progression(total: int, nadir: int) -> bool:
    """Whether a sum is at least 20 % and at least 5 mm above the nadir (both in tenths of a millimetre).

    >>> is_progression(324, 270), is_progression(1079, 900)
    (True, False)
    """
    return 5 * total >= 6 * nadir and total - nadir >= PD_GAIN


def is_partial_response(total: int, baseline: int) -> bool:
    """Whether a sum is at least 30 % below the baseline (both in tenths of a millimetre).

    >>> is_partial_response(98, 140), is_partial_response(99, 140)
    (True, False)
    """
    return 10 * total <= 7 * baseline


def in_mm(value: int) -> str:
    """Write tenths of a millimetre as a radiologist would: whole millimetres without a decimal."""
    return f"{value // 10}" if value % 10 == 0 else f"{value / 10:.1f}"


def percent(value: int, reference: int) -> float | None:
    """Return the change of a sum against a reference sum in percent; None where the reference is 0."""
    return None if reference == 0 else 100 * (value - reference) / reference


def _change(value: int, reference: int) -> str:
    change = percent(value, reference)
    relative = "" if change is None else f"{change:+.0f} % and "
    return f"{relative}{'+' if value >= reference else '-'}{in_mm(abs(value - reference))} mm"


def assess_targets(
    visit: CourseVisit, history: TargetHistory | None, settings: RecistSettings | None = None
) -> TargetResponse:
    """Return the target response at a visit. Progression is asked before response.

    ``history`` is None for a patient without targets.
    """
    settings = settings or RecistSettings()
    if history is None or not visit.targets:
        return TargetResponse(None, "no target lesions", None, None, None)
    part, total, baseline, nadir = visit.measured_part, visit.total, history.baseline, history.nadir

    def answer(letter: TargetLetter, rule: str, *, reappeared: bool = False) -> TargetResponse:
        return TargetResponse(letter, rule, total, baseline, nadir, part, reappeared)

    back = tenths(settings.node_reappearance_mm)
    returned = [
        size.lesion
        for size in visit.targets
        if size.tenths is not None and (size.tenths >= back if size.node else size.tenths > 0)
    ]
    if total is not None and all(size.gone for size in visit.targets):
        return answer("CR", "every target is gone or, if a node, below 10 mm")
    countable = (total is not None or settings.partial_pd) and (nadir > 0 or settings.zero_nadir_pd)
    if countable and is_progression(part, nadir):
        missing = "" if total is not None else f", although {visit.missing} of {len(visit.targets)} targets are missing"
        return answer(
            "PD", f"sum {in_mm(part)} mm is {_change(part, nadir)} from the nadir of {in_mm(nadir)} mm{missing}"
        )
    if settings.reappearance_is_pd and history.overall_cr and returned:
        return answer("PD", f"reappearance of {', '.join(returned)} after a complete response", reappeared=True)
    if total is None:
        return answer("NE", f"{visit.missing} of {len(visit.targets)} targets not evaluated")
    if is_partial_response(total, baseline):
        return answer(
            "PR", f"sum {in_mm(total)} mm is {_change(total, baseline)} from the baseline of {in_mm(baseline)} mm"
        )
    if settings.sticky_pr and history.pr_reached:
        return answer("PR", f"a response was reached before and sum {in_mm(total)} mm is no progression")
    return answer("SD", f"sum {in_mm(total)} mm is neither response nor progression")


def overall_response(
    target: TargetLetter | None, non_target: NonTargetLetter | None, new_lesion: bool
) -> OverallLetter:
    """Return the overall response at a visit (Tables 1 and 2 of RECIST 1.1).

    None stands for "no such lesions at baseline". With neither, nothing can respond: NE unless there is a new lesion.
    """
    if new_lesion or "PD" in (target, non_target):
        return "PD"
    if target is None:
        return non_target or "NE"
    if target == "CR":
        return "CR" if non_target in (None, "CR") else "PR"
    return target


def new_lesion_answer(visit: CourseVisit, settings: RecistSettings | None = None) -> NewLesionAnswer:
    """Return whether there is an unequivocal new lesion, or was one where it ``new_lesion_persists``.

    Where none is known and nobody looked for any, the answer is `not evaluated`.
    """
    settings = settings or RecistSettings()
    if any(settings.new_lesion_persists or not item.gone for item in visit.new_lesions):
        return "yes"
    if visit.equivocal:
        return "equivocal"
    return "no" if visit.searched else "not evaluated"


def start_of(course: Course) -> TargetHistory | None:
    """Return the history at baseline: its sum is the first nadir."""
    total = course.baseline_total
    return None if total is None else TargetHistory(total, total)


def assess(course: Course, settings: RecistSettings | None = None) -> tuple[RecistVisit, ...]:
    """Return RECIST 1.1 at every visit after the baseline.

    Every visit is judged, also after the first progression; what counts for the best response is decided there. A
    complete response needs a search for new lesions; without one the visit is NE.
    """
    settings = settings or RecistSettings()
    history = start_of(course)
    visits = []
    for visit in course.visits:
        target = assess_targets(visit, history, settings)
        new = new_lesion_answer(visit, settings)
        overall = overall_response(target.letter, visit.non_target, new == "yes")
        if overall == "CR" and not visit.searched:
            overall = "NE"
        visits.append(
            RecistVisit(visit.day, target, visit.non_target, new, overall, _rule(visit, target, new, overall))
        )
        if history is not None:
            history = history.after(target, overall_cr=overall == "CR", settings=settings)
    return tuple(visits)


def _rule(visit: CourseVisit, target: TargetResponse, new: NewLesionAnswer, overall: OverallLetter) -> str:
    parts = []
    if overall == "PD":
        if target.letter == "PD":
            parts.append(f"target PD: {target.rule}")
        if visit.non_target == "PD":
            names = ", ".join(
                name for name, state in visit.non_targets if state in ("progressed", "further progressed")
            )
            parts.append(f"unequivocal progression of non-target {names}")
        if new == "yes":
            there = [item.lesion for item in visit.new_lesions if not item.gone]
            parts.append(
                f"new lesion {', '.join(there)}"
                if there
                else f"new lesion {', '.join(item.lesion for item in visit.new_lesions)} seen before, gone now"
            )
        return "; ".join(parts if visit.searched else [*parts, NOT_SEARCHED])
    if target.letter is not None:
        parts.append(f"target {target.letter}: {target.rule}")
    if visit.non_target is not None:
        parts.append(f"non-target {visit.non_target}")
    if new == "equivocal":
        parts.append(f"equivocal new lesion {', '.join(visit.equivocal)} to be followed")
    if not visit.searched:
        return "; ".join([*(parts or ["no lesion at baseline"]), NOT_SEARCHED])
    return "; ".join(parts) or "no lesion at baseline and no new lesion"


@dataclass(frozen=True)
class DatedResponse:
    """The response at one visit; ``day`` counts from the reference date (start of treatment or baseline)."""

    day: int
    response: str


@dataclass(frozen=True)
class BestResponse:
    """A best response and the first day that qualifies for it; None where no assessment does."""

    response: str
    day: int | None


@dataclass(frozen=True)
class BestResponseSettings:
    """The protocol's choices for best responses.

    ``min_sd_days``: stable disease needs an assessment at least so long after the reference date. ``confirm_days``: least
    time from a response to its confirmation. ``max_ne``: assessments between them that may be NE. ``accept_sd``: one SD between a
    PR and its confirmation is accepted. ``drop_after_pd``: assessments after the first PD do not count. ``missing_as_ne``: no
    assessment at all is NE, not MISSING. ``early_as_table_3``: where a response is followed by a weaker assessment before
    ``min_sd_days``, answer as Table 3 prints it (a CR that is lost is PD, a PR that is lost is SD), not NE.
    ``isd_needs_min_days``: the iBOR counts stable disease only from ``min_sd_days`` on, as the best response does; Table 3 of
    iRECIST names no such time.
    """

    min_sd_days: int = 42
    confirm_days: int = 28
    max_ne: int = 1
    accept_sd: bool = False
    drop_after_pd: bool = True
    missing_as_ne: bool = False
    early_as_table_3: bool = False
    isd_needs_min_days: bool = False


_LOST = {("CR", "PR"): "PD", ("CR", "SD"): "PD", ("PR", "SD"): "SD"}
_ORDER = ("CR", "PR", "SD", NON_CR_NON_PD, "PD", "NE", "ND")


def until_progression(responses: Sequence[DatedResponse], last_day: int | None = None) -> list[DatedResponse]:
    """Return the responses in time order up to and including the first PD, or up to ``last_day`` where given."""
    ordered = sorted(responses, key=lambda item: item.day)
    if last_day is None:
        last_day = next((item.day for item in ordered if item.response == "PD"), None)
    return [item for item in ordered if last_day is None or item.day <= last_day]


def _considered(responses: Sequence[DatedResponse], settings: BestResponseSettings) -> list[DatedResponse]:
    return until_progression(responses) if settings.drop_after_pd else sorted(responses, key=lambda item: item.day)


def _best(candidates: Sequence[DatedResponse], settings: BestResponseSettings) -> BestResponse:
    if not candidates:
        return BestResponse("NE" if settings.missing_as_ne else "MISSING", None)
    best = min(candidates, key=lambda item: (_ORDER.index(item.response), item.day))
    return BestResponse(best.response, best.day)


def _weaker(item: DatedResponse, settings: BestResponseSettings) -> DatedResponse:
    """Return what an assessment counts as when it is not a (confirmed) response."""
    late = item.day >= settings.min_sd_days
    if item.response in ("CR", "PR", "SD"):
        return DatedResponse(item.day, "SD" if late else "NE")
    if item.response == NON_CR_NON_PD:
        return DatedResponse(item.day, NON_CR_NON_PD if late else "NE")
    return item


def best_response(responses: Sequence[DatedResponse], settings: BestResponseSettings | None = None) -> BestResponse:
    """Return the best overall response without confirmation.

    The order is CR, PR, SD (not before ``min_sd_days``), NON-CR/NON-PD, PD, NE; of equals the first day counts. An SD that
    came too early is NE. An assessment that was not done (`ND`) is none.
    """
    settings = settings or BestResponseSettings()
    items = [item for item in _considered(responses, settings) if item.response != "ND"]
    return _best([item if item.response in ("CR", "PR") else _weaker(item, settings) for item in items], settings)


def _confirmed(items: Sequence[DatedResponse], index: int, settings: BestResponseSettings) -> bool:
    """Whether the CR or PR at an index is confirmed by the first later assessment that can do so."""
    first = items[index]
    accepted = ("CR",) if first.response == "CR" else ("CR", "PR")
    later = items[index + 1 :]
    end = next(
        (
            position
            for position, item in enumerate(later)
            if item.response in accepted and item.day - first.day >= settings.confirm_days
        ),
        None,
    )
    if end is None:
        return False
    window = [item.response for item in later[: end + 1]]
    allowed_sd = 1 if settings.accept_sd and first.response == "PR" else 0
    if any(letter not in (*accepted, "NE", "SD") for letter in window):
        return False
    if window.count("NE") > settings.max_ne or window.count("SD") > allowed_sd:
        return False
    return not (first.response == "PR" and "CR" in window and "PR" in window[window.index("CR") :])


def confirmed_best_response(
    responses: Sequence[DatedResponse], settings: BestResponseSettings | None = None
) -> BestResponse:
    """Return the best overall response where CR and PR need confirmation (Table 3 of RECIST 1.1).

    A response is confirmed by the first later assessment at least ``confirm_days`` away that is as good, with only equal or
    better responses and at most ``max_ne`` NE between, and no PR after a CR. A response that is not confirmed counts as SD from
    ``min_sd_days`` on and as NE before.
    """
    settings = settings or BestResponseSettings()
    items = _considered(responses, settings)
    candidates = [_weaker(item, settings) for item in items]
    if settings.early_as_table_3:
        candidates += [
            DatedResponse(item.day, lost)
            for item, following in itertools.pairwise(items)
            if (lost := _LOST.get((item.response, following.response))) and following.day < settings.min_sd_days
        ]
    candidates += [
        item for index, item in enumerate(items) if item.response in ("CR", "PR") and _confirmed(items, index, settings)
    ]
    return _best(candidates, settings)


def first_response(
    responses: Sequence[DatedResponse], *, confirmed: bool, settings: BestResponseSettings | None = None
) -> BestResponse:
    """Return the first CR or PR, and whether there is one: `Y` or `N`; ``confirmed`` asks for its confirmation."""
    settings = settings or BestResponseSettings()
    items = _considered(responses, settings)
    for index, item in enumerate(items):
        if item.response in ("CR", "PR") and (not confirmed or _confirmed(items, index, settings)):
            return BestResponse("Y", item.day)
    return BestResponse("N", None)


def clinical_benefit(
    responses: Sequence[DatedResponse],
    settings: BestResponseSettings | None = None,
    *,
    benefits: Sequence[str] = ("CR", "PR", "SD", NON_CR_NON_PD),
) -> BestResponse:
    """Return the first CR or PR, or stable disease from ``min_sd_days`` on: `Y` with its day, else `N`."""
    settings = settings or BestResponseSettings()
    days = [
        item.day
        for item in _considered(responses, settings)
        if item.response in ("CR", "PR") or (item.response in benefits and item.day >= settings.min_sd_days)
    ]
    return BestResponse("Y", min(days)) if days else BestResponse("N", None)


def progression_day(responses: Sequence[DatedResponse]) -> int | None:
    """Return the day of the first PD."""
    return next((item.day for item in sorted(responses, key=lambda item: item.day) if item.response == "PD"), None)
