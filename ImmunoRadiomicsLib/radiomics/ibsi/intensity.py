"""Intensities of a region: statistics, local peaks, histogram and intensity-volume histogram.

Formulas of the families UHIW, 9ST6, ZVCW and P88C of the reference manual (A. Zwanenburg et al., arXiv:1612.07003,
doi:10.1148/radiol.2020191145).
"""

from __future__ import annotations

import math

import numpy as np

from .grid import PEAK_RADIUS_MM, Region, discretise
from .settings import Discretisation


def statistics(inside: np.ndarray) -> dict[str, float]:
    """Return the 18 statistics (family UHIW) of intensities."""
    return {
        **{f"stat_{name}": value for name, value in _moments_and_ranks(inside).items()},
        "stat_energy": float(inside @ inside),
        "stat_rms": math.sqrt(float(inside @ inside) / len(inside)),
    }


def _moments_and_ranks(values: np.ndarray) -> dict[str, float]:
    values = values.astype(np.float64)
    mean = values.mean()
    deviation = values - mean
    variance = float((deviation**2).mean())
    p10, p25, median, p75, p90 = np.percentile(values, [10, 25, 50, 75, 90])
    robust = values[(values >= p10) & (values <= p90)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "mean": float(mean),
            "var": variance,
            # A region of one intensity has no skew and no tails by the manual.
            "skew": float((deviation**3).mean()) / variance**1.5 if variance else 0.0,
            "kurt": float((deviation**4).mean()) / variance**2 - 3 if variance else 0.0,
            "median": float(median),
            "min": float(values.min()),
            "p10": float(p10),
            "p90": float(p90),
            "max": float(values.max()),
            "iqr": float(p75 - p25),
            "range": float(np.ptp(values)),
            "mad": float(np.abs(deviation).mean()),
            "rmad": float(np.abs(robust - robust.mean()).mean()),
            "medad": float(np.abs(values - median).mean()),
            "cov": float(np.float64(math.sqrt(variance)) / mean),
            "qcod": float(np.float64(p75 - p25) / (p75 + p25)),
        }


def peaks(region: Region) -> dict[str, float]:
    """Return the local and the global intensity peak (family 9ST6): means of spheres of 1 cm³, whose voxels need not be inside."""
    means = _sphere_means(region)[region.intensity]
    inside = region.inside
    return {
        "loc_peak_loc": float(means[inside == inside.max()].max()),
        "loc_peak_glob": float(means.max()),
    }


def _sphere_means(region: Region) -> np.ndarray:
    """Return the mean of all voxels of the image whose centres lie within the radius of the peaks, at every voxel of the box.

    It is right at the voxels of the region: the box holds whatever is within the radius of them, as far as the image goes.
    """
    # Half of what a process needs to start would be the import of this package, which nothing else of the engine uses.
    from scipy import signal

    squared = np.zeros((1, 1, 1))
    for axis, length in enumerate(region.spacing_zyx):
        reach = int(PEAK_RADIUS_MM / length)
        shape = [1, 1, 1]
        shape[axis] = 2 * reach + 1
        squared = squared + ((np.arange(-reach, reach + 1) * length) ** 2).reshape(shape)
    sphere = (squared <= PEAK_RADIUS_MM**2).astype(np.float64)
    sums = signal.oaconvolve(region.values, sphere, mode="same")
    counts: np.ndarray | float = sphere.sum()
    places = np.nonzero(region.intensity)
    ends = [
        (at.min() < size // 2, at.max() + size // 2 >= length)
        for at, size, length in zip(places, sphere.shape, sums.shape, strict=True)
    ]
    if np.any(ends):
        counts = np.rint(signal.oaconvolve(np.ones_like(region.values), sphere, mode="same"))
    return np.asarray(sums / counts)


def histogram(levels: np.ndarray, count: int) -> dict[str, float]:
    """Return the 23 features (family ZVCW) of grey levels 1 to ``count`` of the voxels of a region."""
    occurrences = np.bincount(levels, minlength=count + 1)[1:].astype(np.float64)
    share = occurrences / len(levels)
    grey = np.arange(1, count + 1)
    common = _moments_and_ranks(levels)
    modes = grey[occurrences == occurrences.max()]
    common["mode"] = float(modes[np.argmin(np.abs(modes - common["mean"]))])
    present = share[share > 0]
    common["entropy"] = float(-(present * np.log2(present)).sum())
    common["uniformity"] = float(share @ share)
    common |= dict.fromkeys(("max_grad", "max_grad_g", "min_grad", "min_grad_g"), math.nan)
    if count > 1:
        gradient = np.gradient(occurrences)
        common["max_grad"], common["max_grad_g"] = float(gradient.max()), float(grey[np.argmax(gradient)])
        common["min_grad"], common["min_grad_g"] = float(gradient.min()), float(grey[np.argmin(gradient)])
    return {f"ih_{name}": value for name, value in common.items()}


def volume_histogram(
    region: Region, method: Discretisation, limits: tuple[float | None, float | None]
) -> dict[str, float]:
    """Return the 7 features (family P88C) of the intensity-volume histogram.

    Without discretisation every whole number is a level; bins of a fixed size stand for the intensity at their middle, a fixed
    number of bins for their number.

    Parameters
    ----------
    region
        Prepared.
    method
        How the intensities are discretised for the histogram.
    limits
        Of the intensity range; where there is none, the smallest or largest intensity takes its place.
    """
    levels, lowest, step, count = _histogram_levels(region, method, limits)
    # How much of the volume has at least the intensity of each level.
    volume = 1 - np.concatenate([[0], np.cumsum(np.bincount(levels, minlength=count))[:-1]]) / len(levels)
    intensity = lowest + step * np.arange(count)
    extent = (count - 1) * step
    share = np.arange(count) * step / extent if extent else np.zeros(1)

    def volume_at(fraction: float) -> float:
        reached = volume[share >= fraction]
        return float(reached.max()) if len(reached) else math.nan

    def intensity_at(fraction: float) -> float:
        reached = intensity[volume <= fraction]
        return float(reached.min()) if len(reached) else float(intensity[-1] + step)

    v10, v90, i10, i90 = volume_at(0.1), volume_at(0.9), intensity_at(0.1), intensity_at(0.9)
    return {
        "ivh_v10": v10,
        "ivh_v90": v90,
        "ivh_i10": i10,
        "ivh_i90": i90,
        "ivh_diff_v10_v90": v10 - v90,
        "ivh_diff_i10_i90": i10 - i90,
        "ivh_auc": float((volume[1:] + volume[:-1]) @ np.diff(share) / 2),
    }


def _histogram_levels(
    region: Region, method: Discretisation, limits: tuple[float | None, float | None]
) -> tuple[np.ndarray, float, float, int]:
    """Return the level of every voxel (from 0), the intensity of level 0, the step between levels, and their number."""
    inside = region.inside
    low, high = limits
    if method.bins is not None:
        found = discretise(region, method, low)
        return found.array[region.intensity] - 1, 1.0, 1.0, found.count
    begin = float(inside.min()) if low is None else low
    end = float(inside.max()) if high is None else high
    if method.width is None:
        return np.rint(inside - begin).astype(np.int64), begin, 1.0, round(end - begin) + 1
    levels = discretise(region, method, low).array[region.intensity] - 1
    count = max(math.ceil((end - begin) / method.width), int(levels.max()) + 1)
    return levels, begin + 0.5 * method.width, method.width, count
