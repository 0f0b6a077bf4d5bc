"""Small sums that the tables and the page share, so that both say the same."""

from __future__ import annotations

from ..analysis import Analysis, Lesion, LesionObservation

RESPONSE_AXIS = {True: "short axis", False: "long axis"}


def response_size_mm(lesion: Lesion, observation: LesionObservation | None) -> float | None:
    """Return the diameter that enters the sum: the short axis of a node, the long axis of any other lesion.

    RECIST 1.1, doi:10.1016/j.ejca.2008.10.026.
    """
    if observation is None:
        return None
    return observation.short_axis_mm if lesion.node else observation.long_axis_mm


def absolute_change(earlier: float | None, later: float | None) -> float | None:
    """Return later minus earlier, None where either is not known."""
    return None if earlier is None or later is None else later - earlier


def percent_change(earlier: float | None, later: float | None) -> float | None:
    """Return the change in % of the earlier value, None where either is not known or the earlier one is zero."""
    if earlier is None or later is None or earlier == 0:
        return None
    return 100.0 * (later - earlier) / abs(earlier)


def days(analysis: Analysis) -> dict[str, int]:
    """Return the day of each time point."""
    return {item.name: item.day for item in analysis.timepoints}


def change_percent(
    analysis: Analysis, lesion: Lesion, start: LesionObservation | None, seen: LesionObservation | None
) -> float | None:
    """Return the change of a lesion's diameter in % of a reference observation, None where there is nothing to compare.

    That a new lesion is absent before it is first seen is no change.
    """
    if start is None or seen is None or seen.merged_into is not None:
        return None
    day = days(analysis)
    if seen.status == "absent" and day.get(seen.timepoint, 0) < day.get(start.timepoint, 0):
        return None
    return percent_change(response_size_mm(lesion, start), response_size_mm(lesion, seen))


def reference_observation(analysis: Analysis, lesion: Lesion) -> LesionObservation | None:
    """Return what a lesion's changes are counted from: its baseline, or for a new lesion its first measurement."""
    baseline = lesion.at(analysis.baseline)
    if baseline is not None and baseline.status == "measured":
        return baseline
    day = days(analysis)
    start = day.get(analysis.baseline, 0)
    later = [
        item
        for item in lesion.observations
        if item.status == "measured" and item.timepoint in day and day[item.timepoint] > start
    ]
    return min(later, key=lambda item: day[item.timepoint], default=None)
