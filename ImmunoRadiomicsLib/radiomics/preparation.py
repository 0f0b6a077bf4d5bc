"""What pyradiomics would hand to its filters, without the work on the whole volume that leaves no trace in it.

Plain pyradiomics resamples the box of a region on a grid that is fixed to the corner of the volume, by a filter that
first turns the whole volume into spline coefficients, once for every region. Here the coefficients are made once per
volume, and the boxes of the regions of a lesion, most of which they share, are evaluated together (``resampling``); every
voxel is the same to the last bit. (Cropping the volume instead would move its origin, whose rounding decides which way values that
are almost whole numbers are truncated: constant air turns from -1000 into -999.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..images import RegionMask
from .resampling import Interpolated, Lattice, Place, interpolate, lattice_of, nearest, same_as_itk, truncated


class UnmeasurableError(Exception):
    """A region that the preset, or the definitions of the features, exclude; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One region on the image that the filters see.

    ``image`` is the whole volume, or the resampled or cropped box around the region. ``mask`` is a bool array (z, y, x), the
    smallest box that holds the region; ``offset_zyx`` is the index of its first voxel in ``image``.
    """

    image: sitk.Image
    mask: np.ndarray
    offset_zyx: tuple[int, int, int]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of ``image`` that ``mask`` covers."""
        z, y, x = (slice(a, a + size) for a, size in zip(self.offset_zyx, self.mask.shape, strict=True))
        return z, y, x


@dataclass(frozen=True)
class _Box:
    """A part of the grid that a volume is resampled to: its spacing, and the indices (x, y, z) of its first and last voxel."""

    spacing: tuple[float, ...]
    first: Place
    last: Place

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(end - begin + 1 for begin, end in zip(self.first, self.last, strict=True))

    @property
    def voxels(self) -> int:
        return math.prod(self.size)

    def holds(self, other: _Box) -> bool:
        """Whether another box lies in this one, on the same grid."""
        return (
            self.spacing == other.spacing
            and all(a <= b for a, b in zip(self.first, other.first, strict=True))
            and all(a >= b for a, b in zip(self.last, other.last, strict=True))
        )


class Source:
    """One volume and what is made of it once for all of its regions.

    Parameters
    ----------
    volume
        A scalar 3D image.
    settings
        Those of pyradiomics, as ``Preset.to_pyradiomics()`` returns them under "setting".
    """

    def __init__(self, volume: sitk.Image, settings: dict[str, Any]):
        self._settings = settings
        self._coefficients: sitk.Image | None = None
        self._same_as_itk: dict[tuple[float, ...], bool] = {}
        self._expected: tuple[RegionMask, ...] = ()
        self._window: tuple[_Box, Interpolated] | None = None
        self._finite: bool | None = None
        self._volume = volume
        self._image: sitk.Image | None = None

    @property
    def volume(self) -> sitk.Image:
        """The volume as it was given."""
        return self._volume

    @property
    def finite(self) -> bool:
        """Whether every voxel is a finite number."""
        if self._finite is None:
            array = sitk.GetArrayViewFromImage(self._volume)
            self._finite = array.dtype.kind in "iu" or bool(np.isfinite(array.sum(dtype=np.float64)))
        return self._finite

    @property
    def image(self) -> sitk.Image:
        """The volume, normalised where the preset asks for it."""
        if self._image is None:
            if self._settings.get("normalize"):
                self._image = _normalised(self._volume, self._settings)
            else:
                self._image = self._volume
        return self._image

    def prepare(self, region: RegionMask) -> Prepared:
        """Return a region as the filters see it: resampled, or cropped, or as it is.

        Raises
        ------
        UnmeasurableError
            If nothing is left of the region.
        """
        settings = self._settings
        prepared = Prepared(self.image, region.voxels, region.offset_zyx)
        if not region.voxels.any():
            raise UnmeasurableError("the region is empty")
        if settings.get("interpolator") is not None and settings.get("resampledPixelSpacing") is not None:
            return self._resampled(region)
        if settings.get("preCrop"):
            return _cropped(prepared, settings["padDistance"])
        return prepared

    def expect(self, regions: Sequence[RegionMask]) -> None:
        """Say which regions will be prepared next, so that what their boxes share is interpolated once."""
        self._expected = tuple(region for region in regions if region.voxels.any())
        self._window = None

    def _resampled(self, region: RegionMask) -> Prepared:
        image = self.image
        spacing = np.array(image.GetSpacing())
        box = self._box(region)
        wanted = np.array(box.spacing)
        if np.allclose(spacing, wanted):
            return _cropped(Prepared(image, region.voxels, region.offset_zyx), self._settings["padDistance"])

        resampler = sitk.ResampleImageFilter()
        resampler.SetOutputSpacing(box.spacing)
        resampler.SetOutputDirection(image.GetDirection())
        resampler.SetSize(box.size)
        corner = 0.5 * (wanted - spacing) / spacing + np.array(box.first) / (spacing / wanted)
        resampler.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint(corner.tolist()))

        lattice = lattice_of(resampler, image)
        mask = nearest(region.voxels, region.offset_zyx, lattice) if lattice is not None else None
        if mask is None:
            resampler.SetInterpolator(sitk.sitkNearestNeighbor)
            mask = sitk.GetArrayFromImage(resampler.Execute(region.image(image)))
        tight = RegionMask.from_array(region.timepoint, region.lesion, region.region, mask)
        if not tight.voxels.any():
            raise UnmeasurableError(
                f"no voxel is left of the {region.count} after resampling to {_millimetres(wanted)} mm"
            )
        return Prepared(self._interpolated(resampler, box, lattice), tight.voxels, tight.offset_zyx)

    def _box(self, region: RegionMask) -> _Box:
        """Return the box around a region on the grid that is resampled to."""
        image = self.image
        spacing = np.array(image.GetSpacing())
        lower = np.array(region.offset_zyx[::-1])
        size = np.array(region.voxels.shape[::-1])
        wanted = np.array(self._settings["resampledPixelSpacing"], dtype=float)
        wanted = np.where(wanted == 0, spacing, wanted)
        # An axis along which the region has one voxel keeps its spacing: there is nothing to interpolate between.
        wanted = np.where(size != 1, wanted, spacing)
        pad = self._settings["padDistance"]
        ratio = spacing / wanted
        first = np.maximum(np.floor((lower - 0.5) * ratio - pad), 0)
        last = np.ceil((lower + size - 0.5) * ratio + pad)
        last = np.minimum(last, np.ceil(np.array(image.GetSize()) * ratio) - 1)
        return _Box(tuple(wanted.tolist()), _place(first), _place(last))

    def _interpolated(self, resampler: sitk.ResampleImageFilter, box: _Box, lattice: Lattice | None) -> sitk.Image:
        interpolator = self._settings["interpolator"]
        code = getattr(sitk, interpolator) if isinstance(interpolator, str) else interpolator
        if code != sitk.sitkBSpline:
            resampler.SetInterpolator(code)
            return resampler.Execute(self.image)
        if self._coefficients is None:
            self._coefficients = sitk.BSplineDecomposition(sitk.Cast(self.image, sitk.sitkFloat64), 3)
        dtype = sitk.GetArrayViewFromImage(self.image).dtype
        array = None
        if lattice is not None and dtype.kind in "iu" and dtype.itemsize <= 2:
            array = self._shared(sitk.GetArrayViewFromImage(self._coefficients), lattice, box, dtype)
        if array is None:
            resampler.SetInterpolator(sitk.sitkBSplineResamplerOrder3)
            array = truncated(sitk.GetArrayFromImage(resampler.Execute(self._coefficients)), dtype)
        result = sitk.GetImageFromArray(array)
        result.SetOrigin(resampler.GetOutputOrigin())
        result.SetSpacing(resampler.GetOutputSpacing())
        result.SetDirection(resampler.GetOutputDirection())
        return result

    def _shared(self, coefficients: np.ndarray, lattice: Lattice, box: _Box, dtype: np.dtype) -> np.ndarray | None:
        """Return the voxels of a box from those of all expected regions, or None where ITK itself is needed, or faster."""
        exact = self._same_as_itk.get(box.spacing)
        if exact is None:
            exact = self._same_as_itk[box.spacing] = same_as_itk(self.image, box.spacing)
        if not exact:
            return None
        if self._window is None or not self._window[0].holds(box):
            hull = box
            boxes = [other for other in map(self._box, self._expected) if other.spacing == box.spacing]
            together = _Box(
                box.spacing,
                _place(np.min([box.first, *(other.first for other in boxes)], axis=0)),
                _place(np.max([box.last, *(other.last for other in boxes)], axis=0)),
            )
            if together.voxels <= box.voxels + sum(other.voxels for other in boxes):
                hull = together
            spacing, wanted = np.array(self.image.GetSpacing()), np.array(box.spacing)
            x, y, z = (
                0.5 * (new - old) / old + np.arange(first, last + 1) * (new / old)
                for old, new, first, last in zip(spacing, wanted, hull.first, hull.last, strict=True)
            )
            self._window = hull, interpolate(coefficients, _reversed(hull.first), (z, y, x), dtype)
        return self._window[1].part(_reversed(box.first), coefficients, lattice)


def _place(index: np.ndarray) -> Place:
    x, y, z = index.astype(int).tolist()
    return x, y, z


def _reversed(place: Place) -> Place:
    x, y, z = place
    return z, y, x


def _normalised(volume: sitk.Image, settings: dict[str, Any]) -> sitk.Image:
    """Scale a volume to mean zero and a standard deviation; voxels beyond a number of them are clipped, where that is given."""
    image = sitk.Normalize(volume)
    if math.isnan(image[0, 0, 0]):
        raise UnmeasurableError("the volume has one value throughout, which cannot be normalised")
    limit = settings.get("removeOutliers")
    if limit is not None:
        array = np.clip(sitk.GetArrayViewFromImage(image), -limit, limit)
        image = sitk.GetImageFromArray(array)
        image.CopyInformation(volume)
    return image * settings.get("normalizeScale", 1)


def _cropped(prepared: Prepared, pad: int) -> Prepared:
    """Crop the image to the region and ``pad`` voxels around it, as far as the image goes."""
    size = prepared.image.GetSize()[::-1]
    start = [max(first - pad, 0) for first in prepared.offset_zyx]
    stop = [
        min(first + length + pad, limit)
        for first, length, limit in zip(prepared.offset_zyx, prepared.mask.shape, size, strict=True)
    ]
    image = sitk.RegionOfInterest(prepared.image, [b - a for a, b in zip(start, stop, strict=True)][::-1], start[::-1])
    z, y, x = (first - begin for first, begin in zip(prepared.offset_zyx, start, strict=True))
    return Prepared(image, prepared.mask, (z, y, x))


def _millimetres(spacing: np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in spacing)


def require_size(mask: np.ndarray, settings: dict[str, Any]) -> None:
    """Apply the smallest region of the preset to a mask, which is the smallest box that holds the region.

    Raises
    ------
    UnmeasurableError
        If the region extends in too few dimensions or has too few voxels.
    """
    count = int(np.count_nonzero(mask))
    if count == 0:
        raise UnmeasurableError("the region is empty")
    dimensions = sum(length > 1 for length in mask.shape)
    needed = settings["minimumROIDimensions"]
    if dimensions == 0:
        raise UnmeasurableError("the region is a single voxel")
    if dimensions < needed:
        kind = {1: "a line of voxels", 2: "a single layer of voxels"}[dimensions]
        raise UnmeasurableError(f"the region is {kind}; {needed} dimensions are required")
    smallest = settings.get("minimumROISize")
    if smallest is not None and count <= smallest:
        raise UnmeasurableError(f"the region has {count} voxels; more than {smallest} are required")
