"""Interpolation, re-segmentation and discretisation as the image biomarker standardisation initiative defines them.

All arrays are in the order (z, y, x). Source: A. Zwanenburg et al., reference manual, chapter on image processing
(arXiv:1612.07003, doi:10.1148/radiol.2020191145).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ...images import RegionMask
from ..preparation import UnmeasurableError
from .settings import Discretisation, IbsiSettings, Interpolation

# Radius of a sphere of 1 cm³: how far local intensity peaks look beyond the region.
PEAK_RADIUS_MM = 10.0 * (3.0 / (4.0 * math.pi)) ** (1.0 / 3.0)

# The weights of a cubic spline fall to 0.268 per voxel: after 32 voxels nothing of a double is left.
_SPLINE_MARGIN = 32

# The rounding of coordinates must not decide whether a voxel is half inside.
_MASK_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Region:
    """One region on the grid that features are read from.

    ``values`` are the intensities of a box that holds the region and what lies within the radius of the local peaks, as far as
    the image goes. ``morphological`` and ``intensity`` are the two masks of that box.
    """

    values: np.ndarray
    morphological: np.ndarray
    intensity: np.ndarray
    spacing_zyx: tuple[float, float, float]

    @property
    def inside(self) -> np.ndarray:
        """Intensities of the intensity mask, one-dimensional."""
        return self.values[self.intensity]


@dataclass(frozen=True, eq=False)
class Levels:
    """Grey levels: 1 to ``count`` inside the intensity mask, 0 outside."""

    array: np.ndarray
    count: int


def prepare(volume: sitk.Image, region: RegionMask, settings: IbsiSettings) -> Region:
    """Bring an image and a region onto the grid of the settings and re-segment the region.

    Raises
    ------
    UnmeasurableError
        If nothing is left of the region, or what would be read of the image is not all finite.
    """
    if not region.voxels.any():
        raise UnmeasurableError("the region is empty")
    source = sitk.GetArrayViewFromImage(volume)
    old = volume.GetSpacing()[::-1]
    interpolation = settings.interpolation
    new = list(old)
    if interpolation is not None:
        new = [wanted or spacing for wanted, spacing in zip(interpolation.spacing_mm[::-1], old, strict=True)]
    axes = [_axis(size, a, b) for size, a, b in zip(source.shape, old, new, strict=True)]

    mask, first = _mask_on(axes, region, interpolation)
    margin = [math.ceil(PEAK_RADIUS_MM / spacing) for spacing in new]
    start = [max(at - pad, 0) for at, pad in zip(first, margin, strict=True)]
    stop = [
        min(at + size + pad, len(axis)) for at, size, pad, axis in zip(first, mask.shape, margin, axes, strict=True)
    ]
    morphological = np.zeros([b - a for a, b in zip(start, stop, strict=True)], dtype=bool)
    box = tuple(slice(at - a, at - a + size) for at, a, size in zip(first, start, mask.shape, strict=True))
    morphological[box] = mask

    wanted = [axis[a:b] for axis, a, b in zip(axes, start, stop, strict=True)]
    order = interpolation.order if interpolation else 1
    values = _interpolated(source, wanted, order)
    if interpolation is not None and interpolation.round_intensities:
        values = np.rint(values)
    if not np.isfinite(values).all():
        raise UnmeasurableError("the image has voxels in or near the region that are not finite numbers")
    return Region(values, morphological, _resegmented(values, morphological, settings), (new[0], new[1], new[2]))


def _axis(size: int, old: float, new: float) -> np.ndarray:
    """Return the positions of the new voxels of one axis, in old voxels: both grids have the same centre."""
    if new == old:
        return np.arange(size, dtype=float)
    count = max(math.ceil(size * old / new - 1e-4), 1)
    return 0.5 * (size - 1 - (count - 1) * new / old) + np.arange(count) * (new / old)


def _mask_on(
    axes: list[np.ndarray], region: RegionMask, interpolation: Interpolation | None
) -> tuple[np.ndarray, list[int]]:
    """Return the region on the new grid as the smallest box that holds it, and the index of its first voxel."""
    threshold = (interpolation.mask_threshold if interpolation else 0.5) - _MASK_TOLERANCE
    start, wanted = [], []
    for axis, offset, size in zip(axes, region.offset_zyx, region.voxels.shape, strict=True):
        low, high = np.searchsorted(axis, [offset - 1, offset + size])
        start.append(int(low))
        wanted.append(axis[low:high] - (offset - 1))
    if not all(len(axis) for axis in wanted):
        raise UnmeasurableError("no voxel is left of the region after interpolation")
    # Outside the region there is nothing, also where it touches the border of the image.
    padded = np.pad(region.voxels, 1).astype(np.float64)
    mask = _interpolated(padded, wanted, 1) >= threshold
    tight = RegionMask.from_array("", None, "", mask)
    if not tight.voxels.any():
        raise UnmeasurableError(
            f"no voxel is left of the {region.count} after interpolation: none is filled to {threshold + _MASK_TOLERANCE:g}"
        )
    return tight.voxels, [a + b for a, b in zip(start, tight.offset_zyx, strict=True)]


def _interpolated(source: np.ndarray, wanted: list[np.ndarray], order: int) -> np.ndarray:
    """Interpolate an array at a grid of positions; beyond its border it continues with its outermost values."""
    margin = _SPLINE_MARGIN if order == 3 else 1
    box, pads = [], []
    for size, axis in zip(source.shape, wanted, strict=True):
        low, high = math.floor(axis[0]) - margin, math.ceil(axis[-1]) + margin + 1
        box.append(slice(max(low, 0), min(high, size)))
        pads.append((max(-low, 0), max(high - size, 0)))
    moved = [axis - part.start + pad[0] for axis, part, pad in zip(wanted, box, pads, strict=True)]
    block = np.pad(source[tuple(box)].astype(np.float64), pads, mode="edge")
    if all(np.array_equal(axis, np.rint(axis)) for axis in moved):
        return block[np.ix_(*(axis.astype(int) for axis in moved))]
    if order == 3:
        # An axis whose positions are all voxels is not interpolated.
        for number, axis in enumerate(moved):
            if not np.array_equal(axis, np.rint(axis)):
                block = ndimage.spline_filter1d(block, 3, axis=number, mode="mirror")
    for number, axis in enumerate(moved):
        block = _along(block, number, axis, order)
    return block


def _along(block: np.ndarray, number: int, positions: np.ndarray, order: int) -> np.ndarray:
    """Evaluate linear or cubic B-splines along one axis of an array."""
    whole = np.floor(positions).astype(int)
    t = positions - whole
    if np.array_equal(positions, whole):
        return block.take(whole, axis=number)
    if order == 3:
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
        taps = [(step, weight / 6) for step, weight in zip((-1, 0, 1, 2), weights, strict=True)]
    else:
        taps = [(0, 1 - t), (1, t)]
    shape = [1, 1, 1]
    shape[number] = len(positions)
    result: np.ndarray | float = 0.0
    for step, weight in taps:
        result = result + block.take(whole + step, axis=number) * weight.reshape(shape)
    return np.asarray(result)


def _resegmented(values: np.ndarray, mask: np.ndarray, settings: IbsiSettings) -> np.ndarray:
    """Return the intensity mask: the voxels in the intersection of the range and of what is no outlier."""
    low, high = settings.intensity_range
    keep = mask.copy()
    if low is not None:
        keep &= values >= low
    if high is not None:
        keep &= values <= high
    if settings.outlier_sigma is not None:
        inside = values[mask]
        keep &= np.abs(values - inside.mean()) <= settings.outlier_sigma * inside.std()
    if not keep.any():
        raise UnmeasurableError(
            f"re-segmentation leaves none of the {int(np.count_nonzero(mask))} voxels, "
            f"whose values lie between {values[mask].min():g} and {values[mask].max():g}"
        )
    return keep


def discretise(region: Region, method: Discretisation, lowest: float | None) -> Levels:
    """Sort the intensities of the intensity mask into bins.

    Parameters
    ----------
    region
        Prepared.
    method
        Fixed bin size or fixed bin number.
    lowest
        Where the first bin of a fixed size begins: the lower limit of the intensity range; None takes the smallest intensity.
    """
    inside = region.inside
    array = np.zeros(region.values.shape, dtype=np.int64)
    low, extent = float(inside.min()), float(np.ptp(inside))
    if method.bins is None:
        begin = low if lowest is None else lowest
        levels = np.floor((inside - begin) / np.float64(method.width)).astype(np.int64) + 1
        count = int(levels.max())
    elif extent > 0:
        # The largest intensity belongs to the last bin.
        count = method.bins
        levels = np.minimum(np.floor(count * ((inside - low) / extent)).astype(np.int64) + 1, count)
    else:
        count, levels = 1, np.ones(len(inside), dtype=np.int64)
    array[region.intensity] = levels
    return Levels(array, count)
