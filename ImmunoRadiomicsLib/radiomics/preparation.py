"""What pyradiomics would hand to its filters, without the work on the whole volume that leaves no trace in it.

Plain pyradiomics resamples the box of a region on a grid that is fixed to the corner of the volume, by a filter that
first turns the whole volume into spline coefficients, once for every region. Here the coefficients are made once per
volume and the box is evaluated from them on the same coordinates by the same interpolator, so every voxel is the same
to the last bit. (Cropping the volume instead would move its origin, whose rounding decides which way values that are
almost whole numbers are truncated: constant air turns from -1000 into -999.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..images import RegionMask


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

    def _resampled(self, region: RegionMask) -> Prepared:
        image = self.image
        spacing = np.array(image.GetSpacing())
        lower = np.array(region.offset_zyx[::-1])
        size = np.array(region.voxels.shape[::-1])
        wanted = np.array(self._settings["resampledPixelSpacing"], dtype=float)
        wanted = np.where(wanted == 0, spacing, wanted)
        # An axis along which the region has one voxel keeps its spacing: there is nothing to interpolate between.
        wanted = np.where(size != 1, wanted, spacing)
        pad = self._settings["padDistance"]
        if np.allclose(spacing, wanted):
            return _cropped(Prepared(image, region.voxels, region.offset_zyx), pad)

        ratio = spacing / wanted
        first = np.maximum(np.floor((lower - 0.5) * ratio - pad), 0)
        last = np.ceil((lower + size - 0.5) * ratio + pad)
        last = np.minimum(last, np.ceil(np.array(image.GetSize()) * ratio) - 1)
        corner = 0.5 * (wanted - spacing) / spacing + first / ratio

        resampler = sitk.ResampleImageFilter()
        resampler.SetOutputSpacing(wanted.tolist())
        resampler.SetOutputDirection(image.GetDirection())
        resampler.SetSize((last - first + 1).astype(int).tolist())
        resampler.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint(corner.tolist()))

        resampler.SetInterpolator(sitk.sitkNearestNeighbor)
        mask = sitk.GetArrayFromImage(resampler.Execute(region.image(image)))
        tight = RegionMask.from_array(region.timepoint, region.lesion, region.region, mask)
        if not tight.voxels.any():
            raise UnmeasurableError(
                f"no voxel is left of the {region.count} after resampling to {_millimetres(wanted)} mm"
            )
        return Prepared(self._interpolated(resampler), tight.voxels, tight.offset_zyx)

    def _interpolated(self, resampler: sitk.ResampleImageFilter) -> sitk.Image:
        interpolator = self._settings["interpolator"]
        code = getattr(sitk, interpolator) if isinstance(interpolator, str) else interpolator
        if code != sitk.sitkBSpline:
            resampler.SetInterpolator(code)
            return resampler.Execute(self.image)
        if self._coefficients is None:
            self._coefficients = sitk.BSplineDecomposition(sitk.Cast(self.image, sitk.sitkFloat64), 3)
        resampler.SetInterpolator(sitk.sitkBSplineResamplerOrder3)
        values = resampler.Execute(self._coefficients)
        array = sitk.GetArrayViewFromImage(values)
        dtype = sitk.GetArrayViewFromImage(self.image).dtype
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            array = np.clip(array, limits.min, limits.max)
        # Conversion to whole numbers truncates, here as in the resampling filter.
        result = sitk.GetImageFromArray(array.astype(dtype))
        result.CopyInformation(values)
        return result


def _normalised(volume: sitk.Image, settings: dict[str, Any]) -> sitk.Image:
    """Scale a volume to mean zero and a standard deviation; voxels beyond a number of them are clipped, where that is given."""
    image = sitk.Normalize(volume)
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
