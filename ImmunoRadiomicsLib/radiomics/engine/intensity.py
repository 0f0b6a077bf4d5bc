"""Grey levels of a region, and the features of its intensities, as pyradiomics defines them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .texture import CANCELLED, EPSILON, Values


def bin_edges(lowest: Any, highest: Any, bin_width: float = 25.0, bin_count: int | None = None) -> np.ndarray:
    """Return the edges of the bins between two intensities, in the type of the image.

    Bins of a width are aligned to zero, which differs from the fixed bin size of the image biomarker standard.
    """
    if bin_count is not None:
        edges = np.histogram(np.array([lowest, highest]), bin_count)[1]
        # The last bin includes its upper edge.
        edges[-1] += 1
        return edges
    # A width that is a float keeps narrow integers from overflowing.
    width = float(bin_width)
    edges = np.arange(lowest - lowest % width, highest + 2 * width, width)
    return edges if len(edges) > 1 else edges[0] + np.array([-0.5, 0.5])


def central_moment(values: np.ndarray, order: int) -> float:
    """Return the central moment of second, third or fourth order; products are much faster than powers."""
    d = values - values.mean()
    squared = d * d
    if order == 2:
        return float(squared.mean())
    if order == 4:
        return float((squared * squared).mean())
    third = squared * d
    moment = third.mean()
    # Where the terms all but cancel, the rounding of the power, as pyradiomics takes it, can be seen.
    if abs(moment) < CANCELLED * np.abs(third).mean():
        moment = np.power(d, 3).mean()
    return float(moment)


def firstorder_features(
    values: np.ndarray, level_counts: np.ndarray, voxel_volume_mm3: float, shift: float = 0.0
) -> Values:
    """Return the features of the intensities of a region.

    Parameters
    ----------
    values
        Intensities (n,).
    level_counts
        Voxels of each grey level that occurs, for entropy and uniformity.
    voxel_volume_mm3
        For the total energy.
    shift
        Added to intensities before squares are taken.
    """
    x = values.astype(float)
    lowest, highest = float(x.min()), float(x.max())
    p10, p25, median, p75, p90 = (float(value) for value in np.percentile(x, (10, 25, 50, 75, 90)))
    energy = float(((x + shift) ** 2).sum())
    mean = x.mean()
    variance, third, fourth = (central_moment(x, order) for order in (2, 3, 4))
    inner = x[(x >= p10) & (x <= p90)]
    probability = level_counts / level_counts.sum()
    scale = variance if variance else 1.0
    return {
        "10Percentile": p10,
        "90Percentile": p90,
        "Energy": energy,
        "Entropy": float(-(probability * np.log2(probability + EPSILON)).sum()),
        "InterquartileRange": p75 - p25,
        "Kurtosis": fourth / scale**2 if variance else 0.0,
        "Maximum": highest,
        "Mean": float(mean),
        "MeanAbsoluteDeviation": float(np.abs(x - mean).mean()),
        "Median": median,
        "Minimum": lowest,
        "Range": highest - lowest,
        "RobustMeanAbsoluteDeviation": float(np.abs(inner - inner.mean()).mean()) if len(inner) else float("nan"),
        "RootMeanSquared": (energy / len(x)) ** 0.5,
        "Skewness": third / scale**1.5 if variance else 0.0,
        "StandardDeviation": variance**0.5,
        "TotalEnergy": energy * voxel_volume_mm3,
        "Uniformity": float((probability**2).sum()),
        "Variance": variance,
    }
