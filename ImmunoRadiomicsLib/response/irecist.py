"""iRECIST as a state machine: no progression, progression pending confirmation, progression confirmed.

Source: Seymour 2017, doi 10.1016/S1470-2045(17)30074-8; answers of the EORTC RECIST working group where it is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from .course import Course, CourseVisit, NonTargetLetter, Size
from .measurements import tenths
from .recist import (
    NON_CR_NON_PD,
    NOT_SEARCHED,
    BestResponseSettings,
    OverallLetter,
    RecistSettings,
    TargetHistory,
    TargetResponse,
    assess_targets,
    in_mm,
    is_progression,
    overall_response,
    start_of,
)

NON_ICR_NON_IUPD = "NON-iCR/NON-iUPD"
IrecistLetter = Literal["iCR", "iPR", "iSD", "NON-iCR/NON-iUPD", "iUPD", "iCPD", "NE"]
Cause = Literal["target", "non-target", "new lesion"]
State = Literal["none", "pending", "confirmed"]

_LETTERS: dict[str, IrecistLetter] = {
    "CR": "iCR",
    "PR": "iPR",
    "SD": "iSD",
    NON_CR_NON_PD: "NON-iCR/NON-iUPD",
    "NE": "NE",
}
_RANK: dict[str, int] = {"PD": 0, "NE": 0, NON_CR_NON_PD: 1, "SD": 1, "PR": 2, "CR": 3}


@dataclass(frozen=True)
class IrecistSettings:
    """Where iRECIST leaves a choice.

    ``confirm_min_days``, ``confirm_max_days``: when a scan may confirm, and after which it does so late (a warning only).
    ``tolerance_days``: how much earlier a scan may be; the EORTC advises protocols to allow 2. ``further_growth_mm``: growth
    of a sum since the unconfirmed progression that confirms it; ``confirmation_reference``: measured from that scan (`anchor`) or
    from the smallest sum since (`lowest`). ``symptomatic_exception``: with worse symptoms an additional new lesion confirms
    on an earlier scan. ``stable_new_lesion``: what an unchanged new lesion with an unchanged class of response means after an
    iUPD: iUPD unless the target sum fell (`smaller sum`), iUPD always (`keep`, Table 2), or the class (`reset`).
    ``missing_new_lesion_is_ne``: a known new lesion that was not evaluated makes the visit NE. ``ne_in_nadir``: complete sums of NE
    visits count for the nadir. ``other_non_target_confirms``: a further non-target lesion that progresses unequivocally is
    further growth where non-target lesions were the cause. ``vanished_new_lesion_confirms``: a new lesion first seen on a scan
    that was too early counts at the next one even if it is gone by then. ``unconfirmed_progression_counts``: an iUPD that nothing
    confirmed and no later iSD, iPR or iCR cancelled dates the progression, as the paper advises where follow-up ends there.
    """

    recist: RecistSettings = field(default_factory=RecistSettings)
    confirm_min_days: int = 28
    confirm_max_days: int = 56
    tolerance_days: int = 0
    further_growth_mm: float = 5.0
    confirmation_reference: Literal["anchor", "lowest"] = "anchor"
    symptomatic_exception: bool = True
    stable_new_lesion: Literal["smaller sum", "keep", "reset"] = "smaller sum"
    missing_new_lesion_is_ne: bool = True
    ne_in_nadir: bool = False
    other_non_target_confirms: bool = True
    vanished_new_lesion_confirms: bool = False
    unconfirmed_progression_counts: bool = False


@dataclass(frozen=True)
class Anchor:
    """The unconfirmed progression that waits for confirmation; sizes in tenths of a millimetre."""

    day: int
    causes: frozenset[Cause]
    overall: OverallLetter
    targets: tuple[Size, ...]
    new_targets: tuple[tuple[str, int | None], ...]
    new_lesions: frozenset[str]
    progressed: frozenset[str]
    has_non_targets: bool = True
    lowest_target: int | None = None
    lowest_new: int | None = None

    @property
    def total(self) -> int:
        """Sum of the targets that were measured."""
        return sum(size.tenths or 0 for size in self.targets)

    @property
    def new_total(self) -> int:
        """Sum of the new targets that were measured."""
        return sum(size or 0 for _, size in self.new_targets)


@dataclass(frozen=True)
class IrecistState:
    """What the visits so far leave behind."""

    state: State
    history: TargetHistory | None
    anchor: Anchor | None = None
    known: frozenset[str] = frozenset()
    new_nadir: int | None = None
    new_members: frozenset[str] = frozenset()


@dataclass(frozen=True)
class IrecistVisit:
    """iRECIST at one visit: the letter, the rule that fired and, while pending, what would confirm it and when."""

    day: int
    letter: IrecistLetter
    rule: str
    confirmation: str
    target: TargetResponse
    non_target: NonTargetLetter | None
    causes: tuple[Cause, ...]
    anchor: Anchor | None
    used: bool
    new_total: int | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _NewLesions:
    """What the new lesions say at one visit."""

    fresh: tuple[str, ...]
    previous_nadir: int | None
    nadir: int | None
    members: frozenset[str]
    target_pd: bool
    growing: tuple[str, ...]
    unknown: tuple[str, ...]
    remaining: tuple[str, ...]

    @property
    def met(self) -> bool:
        return bool(self.fresh or self.target_pd or self.growing)


def assess(course: Course, settings: IrecistSettings | None = None) -> tuple[IrecistVisit, ...]:
    """Return iRECIST at every visit after the baseline."""
    settings = settings or IrecistSettings()
    state = IrecistState("none", start_of(course))
    visits = []
    for visit in course.visits:
        result, state = step(state, visit, settings)
        visits.append(result)
    return tuple(visits)


def step(
    state: IrecistState, visit: CourseVisit, settings: IrecistSettings | None = None
) -> tuple[IrecistVisit, IrecistState]:
    """Judge one visit in a state and return its response and the next state."""
    settings = settings or IrecistSettings()
    target = assess_targets(visit, state.history, settings.recist)
    base = overall_response(target.letter, visit.non_target, new_lesion=False)
    new = _read_new_lesions(state, visit, settings)
    causes = _causes(target, visit, new)

    def result(
        letter: IrecistLetter,
        rule: str,
        *,
        anchor: Anchor | None = None,
        used: bool = True,
        warnings: tuple[str, ...] = (),
    ) -> IrecistVisit:
        return IrecistVisit(
            visit.day,
            letter,
            rule if visit.searched else f"{rule}; {NOT_SEARCHED}",
            "" if anchor is None or letter == "iCPD" else _what_confirms(anchor, settings),
            target,
            visit.non_target,
            causes,
            anchor,
            used,
            visit.new_total,
            warnings,
        )

    def advanced(letter: IrecistLetter, name: State, anchor: Anchor | None) -> IrecistState:
        # What is NE only for want of a search has a complete sum, which counts for the nadir as any other does.
        counts = letter != "NE" or settings.ne_in_nadir or _lacks_search(base, visit, new)
        return _advance(state, target, new, letter, name, anchor, settings, counts=counts)

    if state.state == "confirmed":
        return result("iCPD", "progression is confirmed and stays so"), advanced("iCPD", "confirmed", None)

    if state.anchor is None:
        if causes:
            anchor = _anchor(visit, base, causes)
            rule = f"first progression, to be confirmed: {_explain(causes, target, visit, new)}"
            return result("iUPD", rule, anchor=anchor), advanced("iUPD", "pending", anchor)
        letter, rule = _without_progression(base, target, visit, new, settings)
        return result(letter, rule), advanced(letter, "none", None)

    anchor = state.anchor
    interval = visit.day - anchor.day
    if interval < settings.confirm_min_days - settings.tolerance_days:
        if settings.symptomatic_exception and visit.symptoms_worse and new.fresh:
            rule = f"symptoms are worse and there is an additional new lesion ({', '.join(new.fresh)}) {interval} days after iUPD"
            return result("iCPD", rule, anchor=anchor), advanced("iCPD", "confirmed", None)
        early = (
            f"The scan {interval} days after the unconfirmed progression is too early to confirm it and is disregarded.",
        )
        rule = f"scan {interval} days after iUPD, before day {settings.confirm_min_days}: disregarded, iUPD is kept"
        return result("iUPD", rule, anchor=anchor, used=False, warnings=early), state

    late: tuple[str, ...] = ()
    if interval > settings.confirm_max_days:
        late = (
            f"The scan is {interval} days after the unconfirmed progression, later than the window of "
            f"{settings.confirm_min_days} to {settings.confirm_max_days} days.",
        )
    confirmed_by = _confirmations(anchor, target, visit, new, settings)
    if confirmed_by:
        rule = f"progression of day {anchor.day} confirmed: {'; '.join(confirmed_by)}"
        return result("iCPD", rule, anchor=anchor, warnings=late), advanced("iCPD", "confirmed", None)
    not_evaluable = _not_evaluable(base, target, visit, new, settings)
    if not_evaluable:
        rule = f"{not_evaluable}; the progression of day {anchor.day} stays unconfirmed"
        return result("NE", rule, anchor=anchor, warnings=late), advanced("NE", "pending", anchor)
    improved = _improvement(anchor, base, visit, new, causes, settings)
    if improved:
        letter, _ = _without_progression(base, target, visit, new, settings)
        rule = f"the progression of day {anchor.day} is no longer met ({improved}): the bar is reset"
        return result(letter, rule, warnings=late), advanced(letter, "none", None)
    rule = f"progression of day {anchor.day} neither confirmed nor resolved: {_unchanged(anchor, target, visit, new)}"
    anchor = _with_lowest(anchor, visit)
    return result("iUPD", rule, anchor=anchor, warnings=late), advanced("iUPD", "pending", anchor)


def _read_new_lesions(state: IrecistState, visit: CourseVisit, settings: IrecistSettings) -> _NewLesions:
    seen = [item for item in visit.new_lesions if item.seen]
    counted = visit.new_lesions if settings.vanished_new_lesion_confirms else seen
    fresh = tuple(item.lesion for item in counted if item.lesion not in state.known)
    old_targets = [item for item in visit.new_targets if item.lesion in state.new_members]
    members = state.new_members | {item.lesion for item in visit.new_targets if item.lesion in fresh}
    old_sizes = [item.tenths for item in old_targets if item.tenths is not None]
    complete = len(old_sizes) == len(state.new_members)
    target_pd = (
        state.new_nadir is not None
        and bool(state.new_members)
        and complete
        and is_progression(sum(old_sizes), state.new_nadir)
    )
    nadir = state.new_nadir
    if complete and old_sizes:
        nadir = sum(old_sizes) if nadir is None else min(nadir, sum(old_sizes))
    added = sum(item.tenths or 0 for item in visit.new_targets if item.lesion in fresh)
    if added:
        nadir = (nadir or 0) + added
    return _NewLesions(
        fresh,
        state.new_nadir,
        nadir,
        members,
        target_pd,
        tuple(item.lesion for item in seen if item.grew and item.lesion in state.known),
        tuple(item.lesion for item in visit.new_lesions if item.state == "not evaluated"),
        tuple(item.lesion for item in visit.new_lesions if not item.gone),
    )


def _causes(target: TargetResponse, visit: CourseVisit, new: _NewLesions) -> tuple[Cause, ...]:
    causes: list[Cause] = []
    if target.letter == "PD":
        causes.append("target")
    if visit.non_target == "PD":
        causes.append("non-target")
    if new.met:
        causes.append("new lesion")
    return tuple(causes)


def _progressed(visit: CourseVisit) -> frozenset[str]:
    return frozenset(name for name, state in visit.non_targets if state in ("progressed", "further progressed"))


def _anchor(visit: CourseVisit, base: OverallLetter, causes: Sequence[Cause]) -> Anchor:
    return Anchor(
        visit.day,
        frozenset(causes),
        base,
        visit.targets,
        tuple((item.lesion, item.tenths) for item in visit.new_targets),
        frozenset(item.lesion for item in visit.new_lesions),
        _progressed(visit),
        bool(visit.non_targets),
        visit.total,
        visit.new_total,
    )


def _with_lowest(anchor: Anchor, visit: CourseVisit) -> Anchor:
    def lower(first: int | None, second: int | None) -> int | None:
        known = [value for value in (first, second) if value is not None]
        return min(known) if known else None

    return replace(
        anchor,
        lowest_target=lower(anchor.lowest_target, visit.total),
        lowest_new=lower(anchor.lowest_new, visit.new_total),
    )


def _growth(anchor: Anchor, visit: CourseVisit, settings: IrecistSettings) -> tuple[int, int]:
    """Growth of the target sum and of the sum of new targets since the anchor.

    Only lesions that were measured at the anchor count, and one that is missing now counts as 0: it is the growth that is certain.
    """
    known = {size.lesion: size.tenths for size in anchor.targets if size.tenths is not None}
    now = sum(size.tenths or 0 for size in visit.targets if size.lesion in known)
    reference = sum(known.values())
    known_new = {lesion: size for lesion, size in anchor.new_targets if size is not None}
    now_new = sum(item.tenths or 0 for item in visit.new_targets if item.lesion in known_new)
    reference_new = sum(known_new.values())
    if settings.confirmation_reference == "lowest":
        reference = reference if anchor.lowest_target is None else min(reference, anchor.lowest_target)
        reference_new = reference_new if anchor.lowest_new is None else min(reference_new, anchor.lowest_new)
    return now - reference, (now_new - reference_new if known_new else 0)


def _confirmations(
    anchor: Anchor, target: TargetResponse, visit: CourseVisit, new: _NewLesions, settings: IrecistSettings
) -> list[str]:
    bar = tenths(settings.further_growth_mm)
    growth, new_growth = _growth(anchor, visit, settings)
    found = []
    if "target" in anchor.causes:
        if growth >= bar and (visit.missing == 0 or settings.recist.partial_pd):
            found.append(f"target sum grew by a further {in_mm(growth)} mm")
    elif target.letter == "PD":
        found.append(f"the targets now progress too ({target.rule})")
    if "non-target" in anchor.causes:
        further = [
            name
            for name, state in visit.non_targets
            if state == "further progressed"
            or (settings.other_non_target_confirms and state == "progressed" and name not in anchor.progressed)
        ]
        if further:
            found.append(f"further growth of non-target {', '.join(further)}")
    elif visit.non_target == "PD":
        found.append(f"unequivocal progression of non-target {', '.join(sorted(_progressed(visit)))}")
    if "new lesion" in anchor.causes:
        if new_growth >= bar:
            found.append(f"sum of new targets grew by a further {in_mm(new_growth)} mm")
        if new.growing:
            found.append(f"growth of new lesion {', '.join(new.growing)}")
    elif new.target_pd or new.growing:
        found.append("earlier new lesions now progress")
    additional = [lesion for lesion in new.fresh if lesion not in anchor.new_lesions]
    if additional:
        found.append(f"additional new lesion {', '.join(additional)}")
    return found


def _lacks_search(base: OverallLetter, visit: CourseVisit, new: _NewLesions) -> bool:
    """Whether a complete response is in doubt only because nobody looked for new lesions."""
    return base == "CR" and not visit.searched and not new.remaining


def _not_evaluable(
    base: OverallLetter, target: TargetResponse, visit: CourseVisit, new: _NewLesions, settings: IrecistSettings
) -> str:
    if base == "NE":
        if target.letter is None and visit.non_target is None:
            return "no lesion at baseline"
        return target.rule if target.letter == "NE" else "the lesions of the baseline were not all evaluated"
    if new.unknown and settings.missing_new_lesion_is_ne:
        return f"new lesion {', '.join(new.unknown)} not evaluated"
    if _lacks_search(base, visit, new):
        return "all lesions of the baseline are gone, but a complete response needs a search for new ones"
    return ""


def _without_progression(
    base: OverallLetter, target: TargetResponse, visit: CourseVisit, new: _NewLesions, settings: IrecistSettings
) -> tuple[IrecistLetter, str]:
    reason = _not_evaluable(base, target, visit, new, settings)
    if reason:
        return "NE", reason
    if base == "CR" and new.remaining:
        return "iPR", f"all lesions of the baseline are gone but new lesion {', '.join(new.remaining)} is not"
    parts = [] if target.letter is None else [f"target {target.letter}: {target.rule}"]
    if visit.non_target is not None:
        parts.append(f"non-target {visit.non_target}")
    if new.remaining:
        parts.append(f"new lesion {', '.join(new.remaining)} without progression")
    return _LETTERS[base], "; ".join(parts)


def _improvement(
    anchor: Anchor,
    base: OverallLetter,
    visit: CourseVisit,
    new: _NewLesions,
    causes: Sequence[Cause],
    settings: IrecistSettings,
) -> str:
    """Say why the unconfirmed progression is over, or return nothing where it is not."""
    if causes:
        return ""
    if "new lesion" not in anchor.causes:
        return "no lesion progresses any more"
    if not new.remaining:
        return "the new lesions are gone"
    if settings.stable_new_lesion == "reset":
        return "the new lesions did not grow"
    if _RANK[base] > _RANK[anchor.overall]:
        return f"overall response without the new lesions is {base}, better than at that time"
    smaller = (
        visit.total is not None and visit.total < anchor.total and all(s.tenths is not None for s in anchor.targets)
    )
    if settings.stable_new_lesion == "smaller sum" and _RANK[base] == _RANK[anchor.overall] and smaller:
        return f"target sum fell from {in_mm(anchor.total)} to {in_mm(visit.measured_part)} mm"
    return ""


def _unchanged(anchor: Anchor, target: TargetResponse, visit: CourseVisit, new: _NewLesions) -> str:
    parts = []
    if target.letter == "PD":
        parts.append(f"target sum {in_mm(visit.measured_part)} mm, {in_mm(anchor.total)} mm then")
    if visit.non_target == "PD":
        parts.append("non-target lesions progressed without further growth")
    if new.remaining and not parts:
        parts.append(f"new lesion {', '.join(new.remaining)} without growth and the response without it is no better")
    return "; ".join(parts) or "the lesions are unchanged"


def _explain(causes: Sequence[Cause], target: TargetResponse, visit: CourseVisit, new: _NewLesions) -> str:
    parts = []
    if "target" in causes:
        parts.append(f"target PD: {target.rule}")
    if "non-target" in causes:
        parts.append(f"unequivocal progression of non-target {', '.join(sorted(_progressed(visit)))}")
    if new.fresh:
        parts.append(f"new lesion {', '.join(new.fresh)}")
    if new.target_pd:
        parts.append(
            f"sum of new targets at least 20 % and 5 mm above its nadir of {in_mm(new.previous_nadir or 0)} mm"
        )
    if new.growing:
        parts.append(f"progression of new lesion {', '.join(new.growing)}")
    return "; ".join(parts)


def _what_confirms(anchor: Anchor, settings: IrecistSettings) -> str:
    bar = tenths(settings.further_growth_mm)
    ways = []
    if "target" in anchor.causes:
        ways.append(f"target sum of {in_mm(anchor.total + bar)} mm or more")
    if "non-target" in anchor.causes:
        ways.append("any further growth of non-target lesions")
    if "new lesion" in anchor.causes:
        if any(size is not None for _, size in anchor.new_targets):
            ways.append(f"sum of new targets of {in_mm(anchor.new_total + bar)} mm or more")
        if len(anchor.new_lesions) > len(anchor.new_targets):
            ways.append("any growth of a new non-target lesion")
    ways.append("an additional new lesion")
    there = (("target", bool(anchor.targets)), ("non-target", anchor.has_non_targets))
    others = [name for name, present in there if present and name not in anchor.causes]
    if others:
        ways.append(f"progression of the {' or '.join(others)} lesions")
    first = anchor.day + settings.confirm_min_days
    last = anchor.day + settings.confirm_max_days
    return f"iCPD on a scan from day {first} to day {last} by any of: {'; '.join(ways)}"


def _advance(
    state: IrecistState,
    target: TargetResponse,
    new: _NewLesions,
    letter: IrecistLetter,
    name: State,
    anchor: Anchor | None,
    settings: IrecistSettings,
    *,
    counts: bool,
) -> IrecistState:
    """Return the state after a visit that is used; one that does not count leaves no trace in the nadirs."""
    if not counts:
        return IrecistState(name, state.history, anchor, state.known, state.new_nadir, state.new_members)
    history = state.history
    if history is not None:
        history = history.after(target, overall_cr=letter == "iCR", settings=settings.recist)
    return IrecistState(name, history, anchor, state.known | frozenset(new.fresh), new.nadir, new.members)


def best_irecist(letters: Sequence[str]) -> str:
    """Return the iBOR: the best of iCR, iPR, iSD before the first iCPD, else iCPD, else iUPD, else NE.

    An unconfirmed progression never overrides a response (Table 3 of iRECIST).
    """
    before = list(letters[: letters.index("iCPD")]) if "iCPD" in letters else list(letters)
    for letter in ("iCR", "iPR", "iSD", NON_ICR_NON_IUPD):
        if letter in before:
            return letter
    if "iCPD" in letters:
        return "iCPD"
    return "iUPD" if "iUPD" in letters else "NE"


def letters_that_count(letters: Sequence[tuple[int, str]], settings: BestResponseSettings) -> list[str]:
    """Return the letters that the iBOR is chosen from; days count from the reference date.

    Where ``isd_needs_min_days``, an iSD or NON-iCR/NON-iUPD before ``min_sd_days`` is NE.
    """
    return [
        "NE"
        if settings.isd_needs_min_days and letter in ("iSD", NON_ICR_NON_IUPD) and day < settings.min_sd_days
        else letter
        for day, letter in sorted(letters, key=lambda item: item[0])
    ]


def confirmed_progression_day(letters: Sequence[tuple[int, str]], *, unconfirmed: bool = False) -> int | None:
    """Return the day of the first iUPD of the block that ends in iCPD (only iUPD and NE between); None without iCPD.

    ``unconfirmed``: a block that the letters end in counts too, although nothing confirmed it.
    """
    start: int | None = None
    for day, letter in sorted(letters, key=lambda item: item[0]):
        if letter == "iCPD":
            return day if start is None else start
        if letter == "iUPD":
            start = day if start is None else start
        elif letter != "NE":
            start = None
    return start if unconfirmed else None


def duration_of_response(letters: Sequence[tuple[int, str]]) -> int | None:
    """Return the days from the first iCR or iPR to the progression that was confirmed; None where either is missing."""
    end = confirmed_progression_day(letters)
    start = next((day for day, letter in sorted(letters) if letter in ("iCR", "iPR")), None)
    return None if start is None or end is None or end < start else end - start
