"""Derived images of a region, computed on the smallest window that gives the same values as the whole image.

The windows are those on which the values inside the region are the same to the last bit:

- Laplacian of Gaussian: 20 standard deviations on each side. The filter is recursive (Deriche) and stores single
  precision; nearer borders change the last digits, at 8 standard deviations the third.
- Wavelet: the length of the filter per level. The transform continues the image periodically and sums in another order
  where it does, so an axis on which the window would leave the image is kept whole.
- Square, square root, logarithm, exponential: no neighbours, but the largest magnitude of the whole image scales the result.
- Gradient: one neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from .laplacian import Box, laplacian_of_gaussian, same_as_itk
from .preparation import Prepared

LOG_MARGIN_SIGMAS = 20.0
_SCALED_BY_MAXIMUM = ("Square", "SquareRoot", "Logarithm", "Exponential")


@dataclass(frozen=True)
class Derived:
    """One image type of one region: the name that begins its features, and its voxels (z, y, x) in the box of the region."""

    name: str
    values: np.ndarray


def derive(name: str, settings: dict[str, Any], prepared: Prepared) -> Iterator[Derived]:
    """Yield the images of one image type, restricted to the box of the region.

    An image that pyradiomics leaves out (a Laplacian of Gaussian wider than the image) is left out here too.

    Parameters
    ----------
    name
        Of an image type of pyradiomics, such as `LoG`.
    settings
        Its settings, those of the preset included.
    prepared
        The region on its image.
    """
    if name == "LoG":
        for sigma in settings["sigma"]:
            yield from _laplacian_of_gaussian(sigma, settings, prepared)
    elif name == "Wavelet":
        yield from _wavelet(settings, prepared)
    elif name in _SCALED_BY_MAXIMUM:
        yield from _scaled(name, settings, prepared)
    else:
        yield from _windowed(name, settings, prepared, (1, 1, 1) if name == "Gradient" else (0, 0, 0))


def _apply(name: str, image: sitk.Image, settings: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    from radiomics import imageoperations

    for derived, label, _ in getattr(imageoperations, f"get{name}Image")(image, None, **settings):
        yield label, sitk.GetArrayViewFromImage(derived)


def _window(prepared: Prepared, margin_zyx: tuple[int, ...]) -> tuple[Box, Box]:
    """Return the box of the region with a margin, as far as the image goes, and the box of the region within it."""
    outer, inner = [], []
    for first, length, limit, margin in zip(
        prepared.offset_zyx, prepared.mask.shape, prepared.image.GetSize()[::-1], margin_zyx, strict=True
    ):
        begin = max(first - margin, 0)
        outer.append(slice(begin, min(first + length + margin, limit)))
        inner.append(slice(first - begin, first - begin + length))
    return (outer[0], outer[1], outer[2]), (inner[0], inner[1], inner[2])


def _windowed(
    name: str, settings: dict[str, Any], prepared: Prepared, margin_zyx: tuple[int, ...]
) -> Iterator[Derived]:
    outer, inner = _window(prepared, margin_zyx)
    size = [part.stop - part.start for part in reversed(outer)]
    window = sitk.RegionOfInterest(prepared.image, size, [part.start for part in reversed(outer)])
    for label, values in _apply(name, window, settings):
        yield Derived(label, np.array(values[inner]))


def _laplacian_of_gaussian(sigma: float, settings: dict[str, Any], prepared: Prepared) -> Iterator[Derived]:
    spacing = prepared.image.GetSpacing()[::-1]
    size = prepared.image.GetSize()[::-1]
    # Below these sizes pyradiomics gives no image.
    if min(size) < 4 or any(n < np.ceil(sigma / step) + 1 for n, step in zip(size, spacing, strict=True)):
        return
    margin = tuple(max(math.ceil(LOG_MARGIN_SIGMAS * sigma / step), 4) for step in spacing)
    if not same_as_itk(sigma, spacing):
        yield from _windowed("LoG", {**settings, "sigma": [sigma]}, prepared, margin)
        return
    window, inner = _window(prepared, margin)
    values = sitk.GetArrayViewFromImage(prepared.image)[window]
    yield Derived(
        f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D", laplacian_of_gaussian(values, spacing, sigma, inner)
    )


def _wavelet(settings: dict[str, Any], prepared: Prepared) -> Iterator[Derived]:
    import pywt

    levels = settings.get("start_level", 0) + settings.get("level", 1)
    length = pywt.Wavelet(settings.get("wavelet", "coif1")).dec_len
    margin = levels * length
    outer, inner = [], []
    for first, size, limit in zip(
        prepared.offset_zyx, prepared.mask.shape, prepared.image.GetSize()[::-1], strict=True
    ):
        begin, end = first - margin, first + size + margin
        end += (end - begin) % 2
        if begin < 0 or end > limit:
            begin, end = 0, limit
        outer.append(slice(begin, end))
        inner.append(slice(first - begin, first - begin + size))
    window = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(prepared.image)[tuple(outer)])
    for label, values in _apply("Wavelet", window, settings):
        yield Derived(label, np.array(values[tuple(inner)]))


def _scaled(name: str, settings: dict[str, Any], prepared: Prepared) -> Iterator[Derived]:
    whole = sitk.GetArrayViewFromImage(prepared.image)
    low, high = whole.min(), whole.max()
    box = tuple(
        slice(first, first + size) for first, size in zip(prepared.offset_zyx, prepared.mask.shape, strict=True)
    )
    # One slice more holds the voxel of the largest magnitude, by which the whole image would be scaled.
    extreme = high if abs(float(high)) >= abs(float(low)) else low
    window = np.pad(whole[box], ((0, 1), (0, 0), (0, 0)), constant_values=extreme)
    for label, values in _apply(name, sitk.GetImageFromArray(window), settings):
        yield Derived(label, np.array(values[:-1]))
