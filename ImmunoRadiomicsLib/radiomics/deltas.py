"""The change of features over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..analysis import FeatureDelta, Features
from ..errors import InputError

DAYS_PER_MONTH = 30.4375

Change = tuple[float | None, float | None, float | None]


def feature_deltas(features: Sequence[Features], days: Mapping[str, int], baseline: str) -> tuple[FeatureDelta, ...]:
    """Return the change of every region between the baseline and each other time point.

    The earlier time point of a pair is the one with the smaller day, so a scan before the baseline gives the change that
    led to the baseline.

    Parameters
    ----------
    features
        Of all time points; there is one delta for each that is not of the baseline.
    days
        Day of each time point that occurs in ``features``.
    baseline
        Name of the time point that the others are compared with.

    Returns
    -------
    tuple of FeatureDelta
        With a ``reason`` and no values where one of the two could not be measured or does not exist.

    Raises
    ------
    InputError
        If the day of a time point is unknown or is that of the baseline.
    """
    names = sorted({item.timepoint for item in features} | {baseline})
    problems = [f"{name}: the day of this time point is not known." for name in names if name not in days]
    if not problems:
        problems = [
            f"{name} and {baseline} are on the same day ({days[name]}), so there is no change over time between them."
            for name in names
            if name != baseline and days[name] == days[baseline]
        ]
    if problems:
        raise InputError(problems)
    reference = {(item.lesion, item.region): item for item in features if item.timepoint == baseline}
    result = []
    for item in features:
        if item.timepoint == baseline:
            continue
        base = reference.get((item.lesion, item.region))
        later_is_item = days[item.timepoint] > days[baseline]
        earlier_name, later_name = (baseline, item.timepoint) if later_is_item else (item.timepoint, baseline)
        span = days[later_name] - days[earlier_name]
        reason = _reason(base, item, baseline)
        values: dict[str, Change] = {}
        log_ratios: dict[str, float | None] = {}
        if base is not None and reason is None:
            earlier, later = (base, item) if later_is_item else (item, base)
            for name in item.values:
                pair = earlier.values.get(name), later.values.get(name)
                values[name] = _change(*pair, span)
                log_ratios[name] = _log_ratio(*pair)
        result.append(
            FeatureDelta(item.lesion, item.region, earlier_name, later_name, span, reason, values, log_ratios)
        )
    return tuple(result)


def _reason(base: Features | None, item: Features, baseline: str) -> str | None:
    if base is None:
        return f"the region does not exist at {baseline}"
    for features in (base, item):
        if features.reason is not None:
            return f"{features.timepoint}: {features.reason}"
    return None


def _change(earlier: float | None, later: float | None, days: int) -> Change:
    """Return the absolute change, the relative one, and the absolute per month.

    Relative is over the magnitude of the earlier value; from zero to zero it is 0, from zero to anything else None.
    """
    if earlier is None or later is None:
        return None, None, None
    absolute = later - earlier
    relative = absolute / abs(earlier) if earlier != 0 else (0.0 if later == 0 else None)
    return absolute, relative, absolute / (days / DAYS_PER_MONTH)


def _log_ratio(earlier: float | None, later: float | None) -> float | None:
    """Return the natural logarithm of later over earlier; None unless both are positive, or both negative."""
    if not earlier or not later or (earlier > 0) != (later > 0):
        return None
    return math.log(abs(later)) - math.log(abs(earlier))
