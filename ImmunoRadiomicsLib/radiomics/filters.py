"""Derived images of a region, computed on the smallest window that gives the same values as the whole image.

The windows are those on which the values inside the region are the same to the last bit:

- Laplacian of Gaussian: 20 standard deviations on each side. The filter is recursive (Deriche) and stores single
  precision; nearer borders change the last digits, at 8 standard deviations the third. What lies further away leaves 1e-12
  of its contrast, which shows only where a region is constant and holds nothing but such traces: there it is 40.
- Wavelet: the length of the filter per level, taken from the far side of the image where the window would leave it.
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

from .engine.wavelet import decompose
from .laplacian import Box, laplacian_of_gaussian, same_as_itk

LOG_MARGIN_SIGMAS = 20.0
WIDE_LOG_MARGIN_SIGMAS = 40.0
# Filtered values below this share of the contrast of the image are traces of what is far away.
FAINT = 1e-3


@dataclass(frozen=True)
class Derived:
    """One image type: the name that begins its features, and its voxels (z, y, x) in the box that was asked for."""

    name: str
    values: np.ndarray


def derive(name: str, settings: dict[str, Any], image: sitk.Image, box: Box) -> Iterator[Derived]:
    """Yield the images of one image type, restricted to a box.

    An image that pyradiomics leaves out (a Laplacian of Gaussian wider than the image) is left out here too.

    Parameters
    ----------
    name
        Of an image type of pyradiomics, such as `LoG`.
    settings
        Its settings, those of the preset included.
    image
        What is filtered.
    box
        What is wanted of it (z, y, x).
    """
    whole = sitk.GetArrayViewFromImage(image)
    if name == "LoG":
        for sigma in settings["sigma"]:
            yield from _laplacian_of_gaussian(sigma, image, box)
    elif name == "Wavelet":
        axes = [2, 1, 0]
        if settings.get("force2D"):
            axes.remove(settings["force2Ddimension"])
        levels = settings.get("level", 1), settings.get("start_level", 0)
        for band, values in decompose(whole, box, settings.get("wavelet", "coif1"), *levels, axes):
            yield Derived(band, values)
    elif name == "Gradient":
        filtered = sitk.GradientMagnitudeImageFilter()
        filtered.SetUseImageSpacing(settings.get("gradientUseSpacing", True))
        yield Derived("gradient", _on_window(filtered, image, box, (1, 1, 1)))
    elif name == "Original":
        yield Derived("original", whole[box])
    else:
        # The largest magnitude of the whole image scales the result.
        magnitude = max(abs(float(whole.min())), abs(float(whole.max())))
        yield Derived(name.lower(), _SCALED[name](whole[box].astype(np.float64), magnitude))


def _square(values: np.ndarray, magnitude: float) -> np.ndarray:
    return (1 / np.sqrt(magnitude) * values) ** 2


def _square_root(values: np.ndarray, magnitude: float) -> np.ndarray:
    return np.where(values < 0, -1.0, 1.0) * np.sqrt(np.abs(values) * magnitude)


def _logarithm(values: np.ndarray, magnitude: float) -> np.ndarray:
    scale = magnitude / np.log(np.array([magnitude + 1]))
    return np.where(values < 0, -1.0, 1.0) * np.log(np.abs(values) + 1) * scale


def _exponential(values: np.ndarray, magnitude: float) -> np.ndarray:
    return np.exp(np.log(magnitude) / magnitude * values)


_SCALED = {"Square": _square, "SquareRoot": _square_root, "Logarithm": _logarithm, "Exponential": _exponential}


def _window(image: sitk.Image, box: Box, margin_zyx: tuple[int, ...]) -> tuple[Box, Box]:
    """Return a box with a margin, as far as the image goes, and the box within it."""
    outer, inner = [], []
    for span, limit, margin in zip(box, image.GetSize()[::-1], margin_zyx, strict=True):
        begin = max(span.start - margin, 0)
        outer.append(slice(begin, min(span.stop + margin, limit)))
        inner.append(slice(span.start - begin, span.stop - begin))
    return (outer[0], outer[1], outer[2]), (inner[0], inner[1], inner[2])


def _on_window(filtered: Any, image: sitk.Image, box: Box, margin_zyx: tuple[int, ...]) -> np.ndarray:
    outer, inner = _window(image, box, margin_zyx)
    size = [part.stop - part.start for part in reversed(outer)]
    window = sitk.RegionOfInterest(image, size, [part.start for part in reversed(outer)])
    result = filtered.Execute(window)
    return np.array(sitk.GetArrayViewFromImage(result)[inner])


def _laplacian_of_gaussian(sigma: float, image: sitk.Image, box: Box) -> Iterator[Derived]:
    spacing = image.GetSpacing()[::-1]
    size = image.GetSize()[::-1]
    # Below these sizes pyradiomics gives no image.
    if min(size) < 4 or any(n < np.ceil(sigma / step) + 1 for n, step in zip(size, spacing, strict=True)):
        return
    name = f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D"

    def within(sigmas: float) -> np.ndarray:
        margin = tuple(max(math.ceil(sigmas * sigma / step), 4) for step in spacing)
        if same_as_itk(sigma, spacing):
            window, inner = _window(image, box, margin)
            return laplacian_of_gaussian(sitk.GetArrayViewFromImage(image)[window], spacing, sigma, inner)
        filtered = sitk.LaplacianRecursiveGaussianImageFilter()
        filtered.SetNormalizeAcrossScale(True)
        filtered.SetSigma(sigma)
        return _on_window(filtered, image, box, margin)

    values = within(LOG_MARGIN_SIGMAS)
    # Every fourth voxel tells the contrast well enough.
    sample = sitk.GetArrayViewFromImage(image)[::4, ::4, ::4]
    if float(np.abs(values).max()) < FAINT * (float(sample.max()) - float(sample.min())):
        values = within(WIDE_LOG_MARGIN_SIGMAS)
    yield Derived(name, values)
