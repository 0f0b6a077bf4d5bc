"""How fast a tumour grows: growth rate, growth kinetics, specific growth and doubling time.

TGR after Ferté 2014 (doi 10.1158/1078-0432.CCR-13-2098), TGK after Saâda-Bouzid 2017 (doi 10.1093/annonc/mdx178).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..analysis import Kinetics
from .measurements import TOO_SMALL_MM, Measurement

MONTHS_PER_DAY = 12 / 365.25
DAYS_PER_MONTH = 30.4375
SHORT_INTERVAL_DAYS = 14


def tumour_growth_rate(first_mm: float, second_mm: float, days: float) -> float | None:
    """Return the tumour growth rate in % volume per month from two sums of diameters, ``days`` apart.

    ``100 (exp(3 ln(D2/D1) / t) - 1)`` with t in months of 365.25/12 days: diameters stand for spheres. A tumour that is gone
    gives -100. None where it grew from nothing or no time passed.

    >>> round(tumour_growth_rate(50, 60, 30.4375), 1)
    72.8
    """
    return volume_growth_rate(first_mm**3, second_mm**3, days)


def volume_growth_rate(first_ml: float, second_ml: float, days: float) -> float | None:
    """Return the growth of a volume in % per month, as `tumour_growth_rate` but from segmented volumes."""
    if days <= 0 or first_ml <= 0:
        return None
    if second_ml <= 0:
        return -100.0
    exponent = math.log(second_ml / first_ml) / (days * MONTHS_PER_DAY)
    # A month is shorter than the interval of no real scan pair; beyond this the rate has no meaning and would overflow.
    return None if exponent > 700 else 100.0 * math.expm1(exponent)


def tumour_growth_kinetics(first_mm: float, second_mm: float, days: float) -> float | None:
    """Return the tumour growth kinetics in mm per day: the change of the sum of diameters over the time.

    >>> round(tumour_growth_kinetics(50, 60, 30.4375), 6)
    0.328542
    """
    return None if days <= 0 else (second_mm - first_mm) / days


def specific_growth_rate(first_volume: float, second_volume: float, days: float) -> float | None:
    """Return ln(V2/V1) per day; None where a volume is 0 or no time passed."""
    if days <= 0 or first_volume <= 0 or second_volume <= 0:
        return None
    return math.log(second_volume / first_volume) / days


def doubling_time_days(first_volume: float, second_volume: float, days: float) -> float | None:
    """Return the volume doubling time in days; None where the volume did not grow."""
    rate = specific_growth_rate(first_volume, second_volume, days)
    return None if rate is None or rate <= 0 else math.log(2) / rate


def growth_ratio(experimental: float | None, reference: float | None) -> float | None:
    """Return how many times faster growth became; None where the tumour did not grow in the reference period.

    A ratio to a rate of zero or to shrinkage has no meaning: use the difference of the rates there.
    """
    if experimental is None or reference is None or reference <= 0:
        return None
    return experimental / reference


def growth_difference(experimental: float | None, reference: float | None) -> float | None:
    """Return the experimental minus the reference rate; None where one is missing."""
    return None if experimental is None or reference is None else experimental - reference


@dataclass(frozen=True)
class GrowthWindow:
    """The scans and sums that the growth before and after the baseline is computed from; days since baseline."""

    reference_day: float | None
    evaluation_day: float | None
    reference_mm: float | None
    baseline_mm: float | None
    evaluation_mm: float | None
    lesions: tuple[str, ...]
    reference_ml: float | None = None
    baseline_ml: float | None = None
    evaluation_ml: float | None = None
    warnings: tuple[str, ...] = ()


def growth_window(
    measurements: Sequence[Measurement],
    *,
    treatment_start_day: int | None = None,
    volumes_ml: Mapping[tuple[str, int], float] | None = None,
) -> GrowthWindow:
    """Choose the scans and the lesions of the growth rates: the last scan before the baseline, it, and the first after it.

    Only target lesions that were measured on all of these scans count, so that the same lesions are compared; one that is
    below 5 mm before the baseline counts as 5 mm there. New lesions never count.
    """
    sizes: dict[str, dict[int, float]] = {}
    for item in measurements:
        size = item.size_tenths
        if item.role == "target" and size is not None:
            sizes.setdefault(item.lesion, {})[item.day] = size / 10
    sizes = {lesion: days for lesion, days in sizes.items() if days.get(0, 0) > 0}
    after = max(0, treatment_start_day or 0)
    evaluation_day = min((day for days in sizes.values() for day in days if day > after), default=None)
    reference_day = max((day for days in sizes.values() for day in days if day < 0), default=None)
    needed = [day for day in (reference_day, 0, evaluation_day) if day is not None]
    common = tuple(lesion for lesion, days in sizes.items() if all(day in days for day in needed))
    warnings = []
    left_out = [lesion for lesion in sizes if lesion not in common]
    if common and left_out:
        warnings.append(f"Growth leaves out {', '.join(left_out)}: not measured on every scan it compares.")
    if not common and reference_day is not None:
        warnings.append("No target was measured on all scans, so growth before the baseline is not known.")
        reference_day = None
        needed = [day for day in (0, evaluation_day) if day is not None]
        common = tuple(lesion for lesion, days in sizes.items() if all(day in days for day in needed))
    if reference_day is not None and any(0 <= sizes[lesion][reference_day] < TOO_SMALL_MM for lesion in common):
        warnings.append("A target below 5 mm before the baseline counts as 5 mm.")
    warnings += short_interval_warnings(reference_day, evaluation_day)

    def total(day: int | None) -> float | None:
        if day is None or not common:
            return None
        least = TOO_SMALL_MM if day < 0 else 0.0
        return math.fsum(max(sizes[lesion][day], least) for lesion in common)

    def volume(day: int | None) -> float | None:
        if day is None or not common or not volumes_ml:
            return None
        parts = [_volume_at(lesion, day, sizes[lesion].get(day), volumes_ml) for lesion in common]
        known = [part for part in parts if part is not None]
        return math.fsum(known) if len(known) == len(parts) else None

    return GrowthWindow(
        reference_day,
        evaluation_day,
        total(reference_day),
        total(0),
        total(evaluation_day),
        common,
        volume(reference_day),
        volume(0),
        volume(evaluation_day),
        tuple(warnings),
    )


def short_interval_warnings(reference_day: float | None, evaluation_day: float | None) -> list[str]:
    """Say which of the intervals before and after the baseline is too short for a growth rate; days since baseline."""
    intervals = {
        "before the baseline": None if reference_day is None else -reference_day,
        "after the baseline": evaluation_day,
    }
    return [
        f"Only {interval:g} days {name}: growth rates over less than {SHORT_INTERVAL_DAYS} days explode."
        for name, interval in intervals.items()
        if interval is not None and interval < SHORT_INTERVAL_DAYS
    ]


def _volume_at(
    lesion: str, day: int, size_mm: float | None, volumes_ml: Mapping[tuple[str, int], float]
) -> float | None:
    volume = volumes_ml.get((lesion, day))
    return 0.0 if volume is None and size_mm == 0 else volume


def assess_kinetics(window: GrowthWindow) -> Kinetics:
    """Return the growth rates of a window: TGR, TGK, their ratios and differences, doubling time, volume growth."""

    def between(rate: str, first: float | None, second: float | None, days: float | None) -> float | None:
        if first is None or second is None or days is None:
            return None
        functions = {"tgr": tumour_growth_rate, "tgk": tumour_growth_kinetics, "volume": volume_growth_rate}
        return functions[rate](first, second, days)

    before = None if window.reference_day is None else -window.reference_day
    after = window.evaluation_day
    tgr_reference = between("tgr", window.reference_mm, window.baseline_mm, before)
    tgr_experimental = between("tgr", window.baseline_mm, window.evaluation_mm, after)
    tgk_reference = between("tgk", window.reference_mm, window.baseline_mm, before)
    tgk_experimental = between("tgk", window.baseline_mm, window.evaluation_mm, after)
    doubling = None
    if window.baseline_ml is not None and window.evaluation_ml is not None and after is not None:
        doubling = doubling_time_days(window.baseline_ml, window.evaluation_ml, after)
    elif window.baseline_mm is not None and window.evaluation_mm is not None and after is not None:
        doubling = doubling_time_days(window.baseline_mm**3, window.evaluation_mm**3, after)
    warnings = list(window.warnings)
    if tgr_reference is not None and tgr_reference <= 0:
        warnings.append(
            "The tumour did not grow before the baseline: ratios of growth are undefined, differences are given."
        )
    return Kinetics(
        tgr_reference_percent_per_month=tgr_reference,
        tgr_experimental_percent_per_month=tgr_experimental,
        tgr_ratio=growth_ratio(tgr_experimental, tgr_reference),
        tgr_difference_percent_per_month=growth_difference(tgr_experimental, tgr_reference),
        tgk_reference_mm_per_month=_per_month(tgk_reference),
        tgk_experimental_mm_per_month=_per_month(tgk_experimental),
        tgk_ratio=growth_ratio(tgk_experimental, tgk_reference),
        doubling_time_days=doubling,
        volume_growth_reference_percent_per_month=between("volume", window.reference_ml, window.baseline_ml, before),
        volume_growth_experimental_percent_per_month=between("volume", window.baseline_ml, window.evaluation_ml, after),
        warnings=tuple(warnings),
    )


def _per_month(rate_mm_per_day: float | None) -> float | None:
    return None if rate_mm_per_day is None else rate_mm_per_day * DAYS_PER_MONTH
