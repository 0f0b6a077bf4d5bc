"""What is to happen to a virtual patient: dates, motion, lesions and their fates, lungs, noise."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

Size = Literal["full", "small", "tiny"]
Course = Literal["response", "stable", "progression", "pseudoprogression", "hyperprogression", "mixed"]
Fate = Literal["grow", "shrink", "stable", "vanish", "new", "split", "merge"]
Organ = Literal["lung", "pleura", "mediastinum", "liver", "lymph node"]

COURSES: tuple[Course, ...] = ("response", "stable", "progression", "pseudoprogression", "hyperprogression", "mixed")
ORGANS: tuple[Organ, ...] = ("lung", "pleura", "mediastinum", "liver", "lymph node")


@dataclass(frozen=True)
class Motion:
    """How the patient lies and breathes at a time point, against the baseline. Vectors are LPS.

    ``breathing_mm`` is the descent of the diaphragm (negative: less air than at baseline; 10 mm are about 5 % of the
    lung volume). ``irregular_mm`` is twice the standard deviation, per axis, of a smooth random displacement that
    varies over ``irregular_scale_mm``. ``frame_offset_mm`` moves the patient and the scanned box together:
    another zero of the scanner's coordinates.
    """

    breathing_mm: float = 0.0
    rotation_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    translation_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    irregular_mm: float = 2.0
    irregular_scale_mm: float = 60.0
    frame_offset_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class LesionPlan:
    """One lesion to be put in.

    ``diameter_mm`` is that of the sphere of equal volume at baseline (of a new lesion: when it is first seen).
    ``factor`` is the viable volume at the first follow-up over that at baseline; None lets the course of the patient
    decide. ``fate_at`` names the time point at which the lesion vanishes, appears, splits or merges (None: the first
    follow-up). ``inflammation`` and ``rate_before`` (per day) override what the course says. ``spiculation`` and
    ``necrosis`` run from 0 to 1; None is drawn.
    """

    organ: Organ
    diameter_mm: float
    fate: Fate = "stable"
    factor: float | None = None
    fate_at: str | None = None
    inflammation: float | None = None
    rate_before: float | None = None
    spiculation: float | None = None
    necrosis: float | None = None


@dataclass(frozen=True)
class TimepointPlan:
    """One scan: its name, date, the patient's position and what the lungs show beside tumours.

    ``ground_glass_ml`` and ``consolidation_ml`` are totals at that time point; what a later time point has beyond an
    earlier one lies around it. ``dose`` is relative: the noise goes with its inverse square root.
    """

    name: str
    date: datetime.date
    motion: Motion = field(default_factory=lambda: Motion(irregular_mm=0.0))
    ground_glass_ml: float = 0.0
    consolidation_ml: float = 0.0
    dose: float = 1.0


@dataclass(frozen=True)
class Lungs:
    """Disease of the lungs that is there at every time point.

    ``emphysema`` is the share of the lungs taken by holes, ``effusion_ml`` the fluid behind each lung (right, left),
    ``fibrosis`` from 0 to 1 the strength of a basal, subpleural reticulation.
    """

    emphysema: float = 0.0
    effusion_ml: tuple[float, float] = (0.0, 0.0)
    fibrosis: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """Everything about a virtual patient except the seed and the size.

    ``lesions`` are the lesions in the order of their ids. ``segmentation_for_followups`` False leaves the later
    segmentations out of study.yaml, so that contours have to be propagated (truth has them anyway);
    ``permute_names`` gives the segments other names at every time point; ``noise_hu`` is the standard deviation in
    the middle of the chest at dose 1; ``describe_lesions`` writes organ and node into study.yaml.
    """

    timepoints: tuple[TimepointPlan, ...]
    lesions: tuple[LesionPlan, ...]
    course: Course = "stable"
    treatment_start: datetime.date = datetime.date(2024, 1, 15)
    lungs: Lungs = field(default_factory=Lungs)
    noise_hu: float = 14.0
    contrast: float = 1.0
    segmentation_for_followups: bool = True
    permute_names: bool = False
    describe_lesions: bool = True

    @property
    def baseline(self) -> TimepointPlan:
        """The time point named `baseline`."""
        return next(item for item in self.timepoints if item.name == "baseline")

    def day(self, timepoint: TimepointPlan) -> int:
        """Days from the baseline to a time point."""
        return (timepoint.date - self.baseline.date).days

    @property
    def treatment_day(self) -> int:
        """Days from the baseline to the start of treatment."""
        return (self.treatment_start - self.baseline.date).days

    @property
    def followups(self) -> tuple[TimepointPlan, ...]:
        """The time points after the baseline."""
        return tuple(item for item in self.timepoints if self.day(item) > 0)


def problems_of(scenario: Scenario) -> list[str]:
    """Return everything that makes a scenario impossible, one sentence each."""
    found = []
    names = [item.name for item in scenario.timepoints]
    if names.count("baseline") != 1:
        return [f"scenario: one time point has to be named `baseline`, not {names.count('baseline')}."]
    dates = [item.date for item in scenario.timepoints]
    if len(names) < 2 or dates != sorted(set(dates)) or len(set(names)) != len(names):
        found.append(
            "scenario: two or more time points with distinct names, in the order of distinct dates, are needed."
        )
    if not scenario.followups:
        found.append("scenario: at least one time point has to lie after the baseline.")
    elif not 0 <= scenario.treatment_day < scenario.day(scenario.followups[0]):
        found.append(
            f"scenario: the treatment starts on {scenario.treatment_start}; it has to start between the baseline and the first follow-up."
        )
    for number, plan in enumerate(scenario.lesions, start=1):
        if not 4.0 <= plan.diameter_mm <= 120.0:
            found.append(f"lesion {number}: a diameter of {plan.diameter_mm} mm is outside 4-120 mm.")
        if plan.factor is not None and not 0.02 <= plan.factor <= 20.0:
            found.append(f"lesion {number}: a volume factor of {plan.factor} is outside 0.02-20.")
        if plan.fate_at is not None and plan.fate_at not in [item.name for item in scenario.followups]:
            found.append(f"lesion {number}: `{plan.fate_at}` is no time point after the baseline.")
    if sum(plan.fate == "merge" for plan in scenario.lesions) % 2:
        found.append("scenario: lesions merge in pairs; their number has to be even.")
    for item in scenario.timepoints:
        if abs(item.motion.breathing_mm) > 60 or max(map(abs, item.motion.rotation_degrees)) > 30:
            found.append(f"{item.name}: motion beyond 60 mm of breathing or 30 degrees is not plausible.")
    return found


def random_motion(
    rng: np.random.Generator,
    *,
    breathing_mm: float = 20.0,
    rotation_degrees: float = 4.0,
    translation_mm: float = 10.0,
    irregular_mm: float = 2.0,
) -> Motion:
    """Draw a motion; the arguments are the largest values."""
    rotation = rng.uniform(-1, 1, 3)
    rotation *= rotation_degrees * rng.uniform(0.2, 1.0) / np.linalg.norm(rotation)
    return Motion(
        breathing_mm=_rounded(rng.uniform(-breathing_mm, breathing_mm)),
        rotation_degrees=(_rounded(rotation[0]), _rounded(rotation[1]), _rounded(rotation[2])),
        translation_mm=(
            _rounded(rng.uniform(-translation_mm, translation_mm)),
            _rounded(rng.uniform(-translation_mm, translation_mm)),
            _rounded(rng.uniform(-translation_mm, translation_mm)),
        ),
        irregular_mm=irregular_mm,
    )


def demo_scenario() -> Scenario:
    """Return the demo: three scans of a patient with lesions of every organ and a beginning pneumonitis.

    The tumours that grow did so before treatment too, hardly slower: the sum of diameters progresses without
    hyperprogression, which the scan before the baseline can tell. One lesion shrinks, one is stable, one vanishes and
    one is new.
    """
    scenario = Scenario(
        timepoints=(
            TimepointPlan("baseline", datetime.date(2024, 1, 10)),
            TimepointPlan(
                "followup-1",
                datetime.date(2024, 3, 12),
                Motion(breathing_mm=-14.0, rotation_degrees=(1.5, -1.0, 2.5), translation_mm=(6.0, -5.0, 9.0)),
                ground_glass_ml=90.0,
                consolidation_ml=8.0,
            ),
        ),
        lesions=(
            LesionPlan("lung", 34.0, "grow", 3.4, rate_before=0.015, spiculation=0.8, necrosis=0.5),
            LesionPlan("lung", 16.0, "shrink", 0.5, rate_before=0.004),
            LesionPlan("pleura", 22.0, "stable", 1.02, rate_before=0.0),
            LesionPlan("lymph node", 21.0, "grow", 2.9, rate_before=0.014),
            LesionPlan("liver", 27.0, "grow", 3.4, rate_before=0.015),
            LesionPlan("lung", 11.0, "vanish", rate_before=0.004),
            LesionPlan("lung", 12.0, "new"),
        ),
        course="progression",
    )
    return prior_scan(scenario)


def prior_scan(scenario: Scenario, days: int = 50) -> Scenario:
    """Return the scenario with a scan ``days`` before the baseline, as hyperprogression definitions want it."""
    date = scenario.baseline.date - datetime.timedelta(days=days)
    plan = TimepointPlan("prebaseline", date, Motion(breathing_mm=5.0, rotation_degrees=(0.5, 0.5, -1.0)))
    return replace(scenario, timepoints=(plan, *scenario.timepoints))


def random_scenario(
    rng: np.random.Generator,
    *,
    course: Course | None = None,
    lesions: tuple[int, int] = (1, 7),
    event_share: float = 0.2,
    followups: int = 1,
    prebaseline: bool | None = None,
    pneumonitis: bool | None = None,
    motion_mm: float = 20.0,
    rotation_degrees: float = 4.0,
    diseased_lungs: bool | None = None,
) -> Scenario:
    """Draw a plausible patient.

    ``lesions`` bounds their number (both inclusive); ``event_share`` is the share of them that is new, vanishes,
    splits or merges. ``motion_mm`` bounds breathing and translation. None is drawn.
    """
    course = course or COURSES[rng.integers(len(COURSES))]
    if prebaseline is None:
        prebaseline = course == "hyperprogression" or bool(rng.random() < 0.3)
    if pneumonitis is None:
        pneumonitis = bool(rng.random() < 0.25)
    if diseased_lungs is None:
        diseased_lungs = bool(rng.random() < 0.15)
    baseline = datetime.date(2022, 1, 1) + datetime.timedelta(days=int(rng.integers(900)))
    start = baseline + datetime.timedelta(days=int(rng.integers(1, 15)))
    glass = _rounded(rng.uniform(25, 300)) if pneumonitis else 0.0
    solid = _rounded(rng.uniform(0, 40)) if pneumonitis and rng.random() < 0.4 else 0.0
    timepoints = [TimepointPlan("baseline", baseline)]
    date = baseline
    for number in range(1, followups + 1):
        date = date + datetime.timedelta(days=int(rng.integers(49, 78)))
        motion = random_motion(
            rng, breathing_mm=motion_mm, rotation_degrees=rotation_degrees, translation_mm=motion_mm / 2
        )
        share = 1.0 if number == 1 else float(rng.uniform(0.2, 1.3))
        timepoints.append(
            TimepointPlan(f"followup-{number}", date, motion, _rounded(glass * share), _rounded(solid * share))
        )
    if prebaseline:
        earlier = baseline - datetime.timedelta(days=int(rng.integers(35, 80)))
        motion = random_motion(rng, breathing_mm=motion_mm, rotation_degrees=rotation_degrees)
        timepoints.insert(0, TimepointPlan("prebaseline", earlier, motion))
    return Scenario(
        timepoints=tuple(timepoints),
        lesions=_random_lesions(rng, int(rng.integers(lesions[0], lesions[1] + 1)), event_share, course),
        course=course,
        treatment_start=start,
        lungs=Lungs(
            emphysema=_rounded(rng.uniform(0.02, 0.2)),
            effusion_ml=(_rounded(rng.uniform(0, 300)), 0.0),
            fibrosis=_rounded(rng.uniform(0, 0.8)),
        )
        if diseased_lungs
        else Lungs(),
        noise_hu=_rounded(rng.uniform(10, 18)),
        contrast=_rounded(rng.uniform(0.85, 1.1)),
    )


def _random_lesions(rng: np.random.Generator, count: int, event_share: float, course: Course) -> tuple[LesionPlan, ...]:
    plans: list[LesionPlan] = []
    ordinary: tuple[Fate, ...] = ("grow", "shrink", "stable")
    while len(plans) < count:
        organ = ORGANS[rng.choice(len(ORGANS), p=(0.5, 0.12, 0.1, 0.13, 0.15))]
        low, high = {"lung": (8, 45), "pleura": (12, 35), "mediastinum": (18, 45), "liver": (12, 40)}.get(
            organ, (16, 30)
        )
        diameter = _rounded(low * (high / low) ** rng.random())
        fate: Fate = ordinary[rng.integers(3)] if course == "mixed" else "stable"
        factor = None
        if course == "mixed":
            factor = {"grow": rng.uniform(1.4, 3.0), "shrink": rng.uniform(0.35, 0.7)}.get(fate, rng.uniform(0.9, 1.1))
        if rng.random() < event_share:
            events: tuple[Fate, ...] = ("new", "vanish", "split", "merge")
            fate, factor = events[rng.integers(4)], None
            if fate == "merge" and len(plans) + 2 > count:
                fate = "vanish"
            if fate == "split":
                organ, diameter = "lung", max(diameter, 20.0)
            if fate == "merge":
                small = _rounded(rng.uniform(10, 22))
                plans.append(LesionPlan("lung", _rounded(rng.uniform(12, 26)), "merge"))
                plans.append(LesionPlan("lung", small, "merge"))
                continue
            if fate in ("new", "vanish"):
                diameter = _rounded(min(diameter, 25.0))
        plans.append(LesionPlan(organ, diameter, fate, None if factor is None else round(float(factor), 3)))
    # A patient is followed because something can be measured at baseline.
    if all(plan.fate == "new" for plan in plans):
        plans[0] = replace(plans[0], fate="stable")
    return tuple(plans)


def _rounded(value: float) -> float:
    return round(float(value), 2)
