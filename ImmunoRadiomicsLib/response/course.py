"""One patient's measurements arranged by visit, in the integers that the criteria compare."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from .measurements import NORMAL_NODE_MM, Measurement, tenths

TargetLetter = Literal["CR", "PR", "SD", "PD", "NE"]
NonTargetLetter = Literal["CR", "NON-CR/NON-PD", "PD", "NE"]
NewLesionAnswer = Literal["yes", "no", "equivocal", "not evaluated"]

NORMAL_NODE = tenths(NORMAL_NODE_MM)


@dataclass(frozen=True)
class Size:
    """One measured lesion at one visit; ``tenths`` is None where it was not evaluated."""

    lesion: str
    node: bool
    tenths: int | None

    @property
    def gone(self) -> bool:
        """Whether it is known to be gone: 0 mm, or a node with a short axis below 10 mm."""
        return self.tenths is not None and (self.tenths < NORMAL_NODE if self.node else self.tenths == 0)


@dataclass(frozen=True)
class NewLesion:
    """One unequivocal new lesion at a visit, from its first sight on.

    ``size`` is None for a new lesion that is judged, not measured. ``state`` is that of a judged one, or `measured`.
    """

    lesion: str
    organ: str
    first_seen: int
    target: bool
    node: bool
    tenths: int | None
    state: Literal["measured", "present", "absent", "progressed", "further progressed", "not evaluated"]

    @property
    def gone(self) -> bool:
        """Whether it is known to have gone again."""
        if self.target:
            return Size(self.lesion, self.node, self.tenths).gone
        return self.state == "absent"

    @property
    def seen(self) -> bool:
        """Whether it is there at this visit."""
        return not self.gone and self.state != "not evaluated"

    @property
    def grew(self) -> bool:
        """Whether a judged new lesion was called progressed at this visit."""
        return self.state in ("progressed", "further progressed")


@dataclass(frozen=True)
class CourseVisit:
    """What was found at one visit after the baseline.

    ``targets`` has every target lesion. ``non_targets`` has (lesion, status) of every non-target lesion. ``new_lesions``
    has every unequivocal new lesion seen so far; ``equivocal`` names the ones that are still open.
    ``searched`` says whether anybody looked for new lesions.
    """

    day: int
    targets: tuple[Size, ...] = ()
    non_targets: tuple[tuple[str, str], ...] = ()
    new_lesions: tuple[NewLesion, ...] = ()
    equivocal: tuple[str, ...] = ()
    symptoms_worse: bool = False
    searched: bool = True

    @property
    def non_target(self) -> NonTargetLetter | None:
        """The response of the non-target lesions together; None where there are none."""
        states = [state for _, state in self.non_targets]
        if not states:
            return None
        if any(state in ("progressed", "further progressed") for state in states):
            return "PD"
        if any(state == "not evaluated" for state in states):
            return "NE"
        return "CR" if all(state == "absent" for state in states) else "NON-CR/NON-PD"

    @property
    def measured_part(self) -> int:
        """Sum of the targets that were measured, in tenths of a millimetre."""
        return sum(size.tenths for size in self.targets if size.tenths is not None)

    @property
    def total(self) -> int | None:
        """Sum of the targets in tenths of a millimetre; None where one is missing or there are none."""
        return self.measured_part if self.targets and self.missing == 0 else None

    @property
    def missing(self) -> int:
        """How many targets were not evaluated."""
        return sum(size.tenths is None for size in self.targets)

    @property
    def new_targets(self) -> tuple[NewLesion, ...]:
        """The new lesions that are measured."""
        return tuple(item for item in self.new_lesions if item.target)

    @property
    def new_total(self) -> int | None:
        """Sum of the new targets in tenths of a millimetre; None where one is missing or there are none."""
        sizes = [item.tenths for item in self.new_targets]
        known = [size for size in sizes if size is not None]
        return sum(known) if sizes and len(known) == len(sizes) else None


@dataclass(frozen=True)
class Course:
    """One patient: the targets at baseline and the visits after it in the order of their days."""

    patient: str
    baseline: tuple[Size, ...]
    visits: tuple[CourseVisit, ...]
    has_non_targets: bool = False

    @property
    def baseline_total(self) -> int | None:
        """Sum of the targets at baseline in tenths of a millimetre; None where there are no targets."""
        return sum(size.tenths or 0 for size in self.baseline) if self.baseline else None


def build_course(
    measurements: Sequence[Measurement],
    *,
    backdate_equivocal: bool = True,
    symptoms_worse: Mapping[int, bool] | None = None,
    visit_days: Collection[int] = (),
    unsearched_days: Collection[int] = (),
) -> Course:
    """Arrange the measurements of one patient by visit.

    A lesion without a measurement at a visit counts as not evaluated there. An equivocal new lesion counts from its first
    sight if it is later unequivocal (``backdate_equivocal``), else from the visit at which it is; one that is never
    confirmed is no new lesion. Days before the baseline are left out. ``visit_days`` are days of scans, which are
    visits even where nothing was measured; on ``unsearched_days`` nobody looked for new lesions.

    Raises
    ------
    InputError
        If the measurements are of several patients, a lesion is given twice for a day, a lesion changes its role, or a
        target has no size at day 0.
    """
    _check(measurements)
    by_lesion: dict[str, dict[int, Measurement]] = {}
    for item in measurements:
        by_lesion.setdefault(item.lesion, {})[item.day] = item
    firsts = {lesion: next(iter(items.values())) for lesion, items in by_lesion.items()}
    targets = [lesion for lesion, first in firsts.items() if first.role == "target"]
    non_targets = [lesion for lesion, first in firsts.items() if first.role == "non-target"]
    new = {
        lesion: since
        for lesion, first in firsts.items()
        if first.role in ("new-target", "new-non-target")
        and (since := _first_seen(by_lesion[lesion].values(), backdate=backdate_equivocal)) is not None
    }
    open_questions = [lesion for lesion, first in firsts.items() if first.role.startswith("new")]
    visits = []
    for day in sorted(day for day in {item.day for item in measurements} | set(visit_days) if day > 0):
        at = {lesion: items.get(day) for lesion, items in by_lesion.items()}
        visits.append(
            CourseVisit(
                day,
                tuple(_size(firsts[lesion], at[lesion]) for lesion in targets),
                tuple((lesion, _judged(at[lesion])) for lesion in non_targets),
                tuple(_new_lesion(firsts[lesion], at[lesion], since) for lesion, since in new.items() if since <= day),
                tuple(
                    lesion
                    for lesion in open_questions
                    if not new.get(lesion, day + 1) <= day and _status(at[lesion]) == "equivocal"
                ),
                bool(symptoms_worse and symptoms_worse.get(day)),
                day not in unsearched_days,
            )
        )
    baseline = tuple(_size(firsts[lesion], by_lesion[lesion].get(0)) for lesion in targets)
    return Course(measurements[0].patient if measurements else "", baseline, tuple(visits), bool(non_targets))


def _check(measurements: Sequence[Measurement]) -> None:
    problems = []
    patients = sorted({item.patient for item in measurements})
    if len(patients) > 1:
        problems.append(f"The measurements are of several patients ({', '.join(patients)}). Give those of one.")
    seen: set[tuple[str, int]] = set()
    roles: dict[str, str] = {}
    for item in measurements:
        if (item.lesion, item.day) in seen:
            problems.append(f"Lesion {item.lesion} is given twice for day {item.day}.")
        seen.add((item.lesion, item.day))
        if roles.setdefault(item.lesion, item.role) != item.role:
            problems.append(f"Lesion {item.lesion} is {roles[item.lesion]} and {item.role}. A lesion keeps its role.")
        for name, size in (("long", item.long_mm), ("short", item.short_mm)):
            if size is not None and not 0 <= size < 10_000:
                problems.append(f"The {name} axis of lesion {item.lesion} on day {item.day} is {size} mm.")
    sized_at_baseline = {item.lesion for item in measurements if item.day == 0 and (item.size_tenths or 0) > 0}
    problems += [
        f"Target {lesion} has no size at the baseline (day 0). A lesion that appeared later is new-target."
        for lesion, role in roles.items()
        if role == "target" and lesion not in sized_at_baseline
    ]
    if problems:
        raise InputError(problems)


def _size(first: Measurement, item: Measurement | None) -> Size:
    return Size(first.lesion, first.node, None if item is None else item.size_tenths)


def _status(item: Measurement | None) -> str:
    return "not evaluated" if item is None else item.status


def _judged(item: Measurement | None) -> str:
    """Return the status of a non-target lesion; a node with a short axis below 10 mm is normal, so it is absent."""
    if item is None:
        return "not evaluated"
    normal_node = item.node and item.short_mm is not None and tenths(item.short_mm) < NORMAL_NODE
    return "absent" if normal_node and item.status in ("present", "measured", "too small") else item.status


def _first_seen(items: Iterable[Measurement], *, backdate: bool) -> int | None:
    ordered = sorted(items, key=lambda item: item.day)
    sure = [item.day for item in ordered if _visible(item) and item.status != "equivocal"]
    if not sure:
        return None
    doubtful = [item.day for item in ordered if item.status == "equivocal" and item.day < sure[0]]
    if not backdate or not doubtful:
        return sure[0]
    # A lesion that was seen, judged gone, and seen again starts anew.
    gone = [item.day for item in ordered if item.status == "absent" and item.day < sure[0]]
    since = [day for day in doubtful if not gone or day > gone[-1]]
    return since[0] if since else sure[0]


def _visible(item: Measurement) -> bool:
    if item.day <= 0 or item.status in ("absent", "not evaluated"):
        return False
    return item.role == "new-non-target" or (item.size_tenths or 0) > 0


def _new_lesion(first: Measurement, item: Measurement | None, since: int) -> NewLesion:
    target = first.role == "new-target"
    state = _status(item)
    if target:
        size = None if item is None else item.size_tenths
        if state == "equivocal" and item is not None:
            size = None if item.size_mm is None else tenths(item.size_mm)
        state = "not evaluated" if size is None else "measured"
        return NewLesion(first.lesion, first.organ, since, True, first.node, size, state)  # type: ignore[arg-type]
    if state == "equivocal":
        state = "present"
    return NewLesion(first.lesion, first.organ, since, False, first.node, None, state)  # type: ignore[arg-type]
