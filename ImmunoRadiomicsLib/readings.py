"""From followed lesions to the table of measurements that the response criteria read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import response
from .analysis import Lesion, LesionObservation
from .response.measurements import Status
from .study import Study

# EORTC's reading of RECIST 1.1: unequivocal progression of non-targets is about +73 % of their volume, the volume
# that a 20 % longer diameter has.
NON_TARGET_PROGRESSION_VOLUME_RATIO = 1.73


def measurements_of(study: Study, lesions_found: Sequence[Lesion]) -> tuple[response.Measurement, ...]:
    """Turn the lesions of a patient into the table that the response criteria read.

    The reading of a non-target as `progressed` is a proposal: the volume of all non-targets together, and of this one, is at
    least 1.73 times its smallest so far, what EORTC's working group calls unequivocal.
    """
    days = {item.name: study.day(item) for item in study.timepoints}
    progressed = _progressed_non_targets(lesions_found, days)
    result = []
    for lesion in lesions_found:
        for seen in lesion.observations:
            absent = seen.status in ("absent", "merged")
            result.append(
                response.Measurement(
                    patient=study.patient,
                    day=days[seen.timepoint],
                    lesion=lesion.id,
                    role=lesion.role,
                    organ=lesion.organ,
                    node=lesion.node,
                    long_mm=0.0 if absent else seen.long_axis_mm,
                    short_mm=0.0 if absent else seen.short_axis_mm,
                    status=_status(lesion, seen, (lesion.id, seen.timepoint) in progressed),
                )
            )
    return tuple(result)


def _status(lesion: Lesion, seen: LesionObservation, progressed: bool) -> Status:
    if seen.status == "merged":
        return "absent"
    if lesion.role in ("non-target", "new-non-target") and seen.status in ("measured", "too small"):
        return "progressed" if progressed else "present"
    return seen.status


def _progressed_non_targets(lesions_found: Sequence[Lesion], days: Mapping[str, int]) -> set[tuple[str, str]]:
    """Return (lesion, time point) of the non-targets that have grown unequivocally, alone and together.

    Visits at which one of them was not evaluated are left out: their sum is not known.
    """
    non_targets = [lesion for lesion in lesions_found if lesion.role == "non-target"]
    result = set()
    before: list[dict[str, float]] = []
    for _, name in sorted((day, name) for name, day in days.items() if day >= 0):
        seen = {lesion.id: lesion.at(name) for lesion in non_targets}
        if any(item is None or item.status == "not evaluated" for item in seen.values()):
            continue
        volumes = {key: (item.volume_ml or 0.0) if item is not None else 0.0 for key, item in seen.items()}
        smallest_sum = min((sum(item.values()) for item in before), default=0.0)
        if smallest_sum > 0 and sum(volumes.values()) >= NON_TARGET_PROGRESSION_VOLUME_RATIO * smallest_sum:
            for lesion, volume in volumes.items():
                smallest = min(item[lesion] for item in before)
                if volume > 0 and volume >= NON_TARGET_PROGRESSION_VOLUME_RATIO * smallest:
                    result.add((lesion, name))
        before.append(volumes)
    return result
