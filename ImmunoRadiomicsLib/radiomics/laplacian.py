"""The Laplacian of Gaussian of ITK, computed only where it is needed, with the same arithmetic.

ITK filters every line of the image nine times, forward and backward (R. Deriche, INRIA research report 1893, 1993). For the
box of a region a line has to be followed only as far as the box reaches, and after the first of the three axes only the
lines through the box count. Sums are taken in the order of ITK and each pass is stored in single precision, so that the
result is the same to the last bit; where a build of ITK rounds otherwise (fused multiply-add), ``same_as_itk`` is false.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import SimpleITK as sitk

# Lines that are filtered at once: their samples stay in the second-level cache.
_LINES = 8192

Box = tuple[slice, slice, slice]
Taps = tuple[float, float, float, float]


@dataclass(frozen=True)
class Recursion:
    """Coefficients of the fourth-order recursion: ahead (n), back (m), feedback (d) and their sums to infinity at the border."""

    n: Taps
    m: Taps
    d: Taps
    border_n: Taps
    border_m: Taps


# Deriche's approximation: a sum of two damped oscillations, (cosine, sine, frequency, damping); the second derivative differs
# in its amplitudes only.
_GAUSSIAN = ((1.3530, 1.8151), (-0.3531, 0.0902))
_SECOND = ((-1.3563, 5.2318), (0.3446, -2.2355))
_FREQUENCY = (0.6681, 2.0787)
_DAMPING = (-1.3932, -1.3732)


def recursion(sigma_mm: float, spacing_mm: float, *, second_derivative: bool) -> Recursion:
    """Return the coefficients for a Gaussian, or its second derivative multiplied by the variance.

    Parameters
    ----------
    sigma_mm
        Standard deviation.
    spacing_mm
        Distance of the samples.
    second_derivative
        Whether to differentiate twice; the smoothing has unit sum.
    """
    sigma = sigma_mm / spacing_mm
    d, sd, dd, ed = _feedback(sigma)
    n0, sn0, dn0, en0 = _ahead(sigma, *_GAUSSIAN)
    if second_derivative:
        n2, sn2, dn2, en2 = _ahead(sigma, *_SECOND)
        beta = -(2 * sn2 - sd * n2[0]) / (2 * sn0 - sd * n0[0])
        n = tuple(second + beta * zeroth for second, zeroth in zip(n2, n0, strict=True))
        sn, dn, en = sn2 + beta * sn0, dn2 + beta * dn0, en2 + beta * en0
        scale = en * sd * sd - ed * sn * sd - 2 * dn * dd * sd + 2 * dd * dd * sn
        scale /= sd * sd * sd
        gain = sigma_mm * sigma_mm / scale
    else:
        n = n0
        gain = 1.0 / (2 * sn0 / sd - n0[0])
    a, b, c, e = (value * gain for value in n)
    m = (b - d[0] * a, c - d[1] * a, e - d[2] * a, -d[3] * a)
    sum_n = a + b + c + e
    sum_m = m[0] + m[1] + m[2] + m[3]
    sum_d = 1.0 + d[0] + d[1] + d[2] + d[3]
    border_n = (d[0] * sum_n / sum_d, d[1] * sum_n / sum_d, d[2] * sum_n / sum_d, d[3] * sum_n / sum_d)
    border_m = (d[0] * sum_m / sum_d, d[1] * sum_m / sum_d, d[2] * sum_m / sum_d, d[3] * sum_m / sum_d)
    return Recursion((a, b, c, e), m, d, border_n, border_m)


def _waves(sigma: float) -> tuple[float, float, float, float, float, float]:
    first, second = (frequency / sigma for frequency in _FREQUENCY)
    decay = [math.exp(damping / sigma) for damping in _DAMPING]
    return math.sin(first), math.cos(first), decay[0], math.sin(second), math.cos(second), decay[1]


def _feedback(sigma: float) -> tuple[Taps, float, float, float]:
    _, cos1, exp1, _, cos2, exp2 = _waves(sigma)
    d4 = exp1 * exp1 * exp2 * exp2
    d3 = -2 * cos1 * exp1 * exp2 * exp2
    d3 += -2 * cos2 * exp2 * exp1 * exp1
    d2 = 4 * cos2 * cos1 * exp1 * exp2
    d2 += exp1 * exp1 + exp2 * exp2
    d1 = -2 * (exp2 * cos2 + exp1 * cos1)
    moments = 1.0 + d1 + d2 + d3 + d4, d1 + 2 * d2 + 3 * d3 + 4 * d4, d1 + 4 * d2 + 9 * d3 + 16 * d4
    return (d1, d2, d3, d4), *moments


def _ahead(sigma: float, first: tuple[float, float], second: tuple[float, float]) -> tuple[Taps, float, float, float]:
    (a1, b1), (a2, b2) = first, second
    sin1, cos1, exp1, sin2, cos2, exp2 = _waves(sigma)
    n0 = a1 + a2
    n1 = exp2 * (b2 * sin2 - (a2 + 2 * a1) * cos2)
    n1 += exp1 * (b1 * sin1 - (a1 + 2 * a2) * cos1)
    n2 = (a1 + a2) * cos2 * cos1
    n2 -= b1 * cos2 * sin1 + b2 * cos1 * sin2
    n2 *= 2 * exp1 * exp2
    n2 += a2 * exp1 * exp1 + a1 * exp2 * exp2
    n3 = exp2 * exp1 * exp1 * (b2 * sin2 - a2 * cos2)
    n3 += exp1 * exp2 * exp2 * (b1 * sin1 - a1 * cos1)
    return (n0, n1, n2, n3), n0 + n1 + n2 + n3, n1 + 2 * n2 + 3 * n3, n1 + 4 * n2 + 9 * n3


def laplacian_of_gaussian(volume: np.ndarray, spacing_zyx: tuple[float, ...], sigma_mm: float, box: Box) -> np.ndarray:
    """Return the Laplacian of Gaussian, multiplied by the variance, inside a box.

    Parameters
    ----------
    volume
        (z, y, x), at least four voxels along each axis.
    spacing_zyx
        In mm.
    sigma_mm
        Standard deviation of the Gaussian.
    box
        What is wanted of the volume.

    Returns
    -------
    float32 array (z, y, x) of the size of the box.
    """
    smooth = [recursion(sigma_mm, spacing, second_derivative=False) for spacing in spacing_zyx]
    curve = [recursion(sigma_mm, spacing, second_derivative=True) for spacing in spacing_zyx]
    total = np.zeros(tuple(part.stop - part.start for part in box), dtype=np.float32)
    for axis in (2, 1, 0):
        part = _filtered(volume, axis, box[axis], curve[axis])
        for other in (2, 1, 0):
            if other != axis:
                part = _filtered(part, other, box[other], smooth[other])
        total = (total + part.astype(np.float64) * (1.0 / (spacing_zyx[axis] * spacing_zyx[axis]))).astype(np.float32)
    return total


def _filtered(volume: np.ndarray, axis: int, span: slice, coefficients: Recursion) -> np.ndarray:
    """Filter along one axis, keep the samples of ``span``, and store them in single precision."""
    ahead = np.moveaxis(volume, axis, 0)
    count = span.stop - span.start
    result = np.empty((count, *ahead.shape[1:]), dtype=np.float32)
    rows = max(1, _LINES // ahead.shape[2])
    for first in range(0, ahead.shape[1], rows):
        block = ahead[:, first : first + rows]
        data = np.ascontiguousarray(block, dtype=np.float64).reshape(len(block), -1)
        result[:, first : first + rows] = _both_ways(data, span, coefficients).reshape(count, *block.shape[1:])
    return np.moveaxis(result, 0, axis)


def _both_ways(data: np.ndarray, span: slice, coefficients: Recursion) -> np.ndarray:
    """Filter the columns of ``data`` (samples, lines) and return the samples of ``span``."""
    output = np.zeros((span.stop - span.start, data.shape[1]))
    _one_way(data, 0, coefficients.n, coefficients.d, coefficients.border_n, span.start, output)
    # Back is ahead on the reversed line, except that the sample itself was counted on the way out.
    start = len(data) - span.stop
    _one_way(data[::-1], 1, coefficients.m, coefficients.d, coefficients.border_m, start, output[::-1])
    return output


def _one_way(
    data: np.ndarray, lag: int, taps: Taps, feedback: Taps, border: Taps, start: int, output: np.ndarray
) -> None:
    """Run the recursion down the columns and add its samples from ``start`` on to ``output``.

    Before the first sample the line is taken to go on for ever at its value.
    """
    edge = data[0]
    count = data.shape[1]
    value, term, echo = np.empty(count), np.empty(count), np.empty(count)
    past = [np.empty(count) for _ in range(5)]
    for index in range(start + len(output)):
        np.multiply(data[max(index - lag, 0)], taps[0], out=value)
        for tap in (1, 2, 3):
            np.multiply(data[max(index - lag - tap, 0)], taps[tap], out=term)
            np.add(value, term, out=value)
        for delay in (1, 2, 3, 4):
            target = echo if delay == 1 else term
            if delay <= index:
                np.multiply(past[-delay], feedback[delay - 1], out=target)
            else:
                np.multiply(edge, border[delay - 1], out=target)
            if delay > 1:
                np.add(echo, term, out=echo)
        newest = past.pop(0)
        np.subtract(value, echo, out=newest)
        past.append(newest)
        if index >= start:
            output[index - start] += newest


@lru_cache(maxsize=256)
def same_as_itk(sigma_mm: float, spacing_zyx: tuple[float, ...]) -> bool:
    """Whether the ITK at hand rounds as this module does, tried on a small image of noise."""
    noise = np.random.default_rng(0).normal(0, 300, (12, 13, 14)).astype(np.int16)
    image = sitk.GetImageFromArray(noise)
    image.SetSpacing(spacing_zyx[::-1])
    reference = sitk.GetArrayFromImage(sitk.LaplacianRecursiveGaussian(image, sigma_mm, True))
    box = (slice(2, 9), slice(0, 8), slice(5, 14))
    return np.array_equal(reference[box], laplacian_of_gaussian(noise, spacing_zyx, sigma_mm, box))
