"""The undecimated wavelet transform of a box of an image, as PyWavelets computes it for the whole image.

The image continues periodically, on an even number of voxels along each axis (an odd one is given its first voxel once more).
Products are summed in the order of PyWavelets, also where the image continues on its far side and that order is another, so
that the result is the same to the last bit and values that are zero but for rounding fall on the same side of a bin edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from ...errors import MissingDependencyError

# Low-pass decomposition filters that are always at hand (I. Daubechies, Ten Lectures on Wavelets, doi:10.1137/1.9781611970104).
_LOW_PASS: dict[str, tuple[float, ...]] = {
    "haar": (sqrt(0.5), sqrt(0.5)),
    "db1": (sqrt(0.5), sqrt(0.5)),
    "coif1": (
        -0.015655728135791993,
        -0.07273261951252645,
        0.3848648468648578,
        0.8525720202116004,
        0.3378976624574818,
        -0.07273261951252645,
    ),
}

BUILT_IN = tuple(_LOW_PASS)


@dataclass(frozen=True, eq=False)
class _Part:
    """Values of a periodic image from the index ``first`` (z, y, x) on, which may lie outside the image."""

    values: np.ndarray
    first: tuple[int, ...]


def known_wavelets() -> tuple[str, ...]:
    """Return the names of the wavelets at hand: those of PyWavelets where it is installed."""
    try:
        import pywt
    except ImportError:
        return BUILT_IN
    return tuple(pywt.wavelist(kind="discrete"))


def filters_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the low-pass and the high-pass filter of a wavelet.

    Raises
    ------
    MissingDependencyError
        If only PyWavelets knows it, which is not installed.
    """
    if name in _LOW_PASS:
        low = _LOW_PASS[name]
        high = tuple(-value if number % 2 == 0 else value for number, value in enumerate(reversed(low)))
        return low, high
    try:
        import pywt
    except ImportError as error:
        raise MissingDependencyError(
            f"The wavelet {name} needs PyWavelets ('pip install PyWavelets'); without it there are {', '.join(BUILT_IN)}."
        ) from error
    wavelet = pywt.Wavelet(name)
    return tuple(wavelet.dec_lo), tuple(wavelet.dec_hi)


def decompose(
    image: np.ndarray,
    box: tuple[slice, ...],
    name: str = "coif1",
    level: int = 1,
    start_level: int = 0,
    axes: Sequence[int] = (2, 1, 0),
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the images of a decomposition inside a box.

    Parameters
    ----------
    image
        (z, y, x).
    box
        The part that is wanted.
    name
        Of the wavelet.
    level
        How many times the low-pass image is decomposed; all its high-pass images are returned.
    start_level
        How many decompositions come before, of which only the low-pass image is used.
    axes
        Along which to filter; the letters of the names of bands are in this order.

    Yields
    ------
    name, array
        `wavelet-LLH` and so on, as pyradiomics names them, the low-pass image last.
    """
    kind = np.dtype(np.float32 if image.dtype == np.float32 else np.float64)
    low, high = (_in_precision(name, taps, kind) for taps in filters_of(name))
    filters = {"L": low, "H": high}
    sizes = tuple(size + size % 2 for size in image.shape)
    reach = (start_level + level) * len(low)
    part = _surrounding(image, sizes, box, [reach if axis in axes else 0 for axis in range(3)], kind)
    smooth = "L" * len(axes)
    for _ in range(start_level):
        part = _band(part, sizes, filters, axes, smooth)
    for number in range(1, level + 1):
        stem = "wavelet" if number == 1 else f"wavelet{number}"
        following = part
        for band, found in _bands(part, sizes, filters, axes, ""):
            if band == smooth:
                following = found
            else:
                yield f"{stem}-{band}", _cut(found, box)
        part = following
    yield f"{stem}-{smooth}", _cut(part, box)


def _in_precision(name: str, taps: Sequence[float], kind: np.dtype) -> np.ndarray:
    """Return a filter as PyWavelets holds it: it scales Coiflets by the root of 2 in the precision of the image."""
    if kind == np.float32 and name.startswith("coif"):
        return (np.array(taps) / sqrt(2)).astype(kind) * kind.type(sqrt(2))
    return np.array(taps, dtype=kind)


def _surrounding(
    image: np.ndarray, sizes: Sequence[int], box: tuple[slice, ...], reach: Sequence[int], kind: np.dtype
) -> _Part:
    values = image
    for axis, (span, size, margin) in enumerate(zip(box, sizes, reach, strict=True)):
        wanted = np.arange(span.start - margin, span.stop + margin) % size
        values = values.take(wanted % image.shape[axis], axis=axis)
    first = tuple(span.start - margin for span, margin in zip(box, reach, strict=True))
    return _Part(values.astype(kind, copy=False), first)


def _bands(
    part: _Part, sizes: Sequence[int], filters: dict[str, np.ndarray], axes: Sequence[int], name: str
) -> Iterator[tuple[str, _Part]]:
    """Yield all bands in the order of their names; of the images on the way only those of one band are held."""
    if not axes:
        yield name, part
        return
    for letter, weights in filters.items():
        found = _filtered(part, axes[0], sizes[axes[0]], weights)
        yield from _bands(found, sizes, filters, axes[1:], name + letter)


def _band(part: _Part, sizes: Sequence[int], filters: dict[str, np.ndarray], axes: Sequence[int], name: str) -> _Part:
    for axis, letter in zip(axes, name, strict=True):
        part = _filtered(part, axis, sizes[axis], filters[letter])
    return part


def _filtered(part: _Part, axis: int, size: int, weights: np.ndarray) -> _Part:
    """Filter along one axis, which loses what the filter reaches over at both ends."""
    length = len(weights)
    values = np.moveaxis(part.values, axis, 0)
    before = length - 1 - length // 2
    count = len(values) - length + 1
    result = np.zeros((count, *values.shape[1:]), dtype=values.dtype)
    term = np.empty_like(result)
    for tap in range(length):
        np.multiply(values[length - 1 - tap : length - 1 - tap + count], weights[tap], out=term)
        result += term
    # Where the filter reaches over the far end, the samples beyond it come first.
    start = part.first[axis] + before
    for row in range(count):
        place = (start + row) % size + length // 2
        if place >= size:
            result[row] = 0
            for tap, sample in _order(place, size, length):
                result[row] += weights[tap] * values[_row_of(sample - part.first[axis], size, row, length)]
    first = list(part.first)
    first[axis] = start
    return _Part(np.moveaxis(result, 0, axis), tuple(first))


def _order(place: int, size: int, length: int) -> list[tuple[int, int]]:
    """Return (tap, sample) in the order in which PyWavelets adds them for an output that reaches over the far end."""
    order: list[tuple[int, int]] = []
    while place - len(order) >= size:
        for sample in range(size):
            if place - len(order) < size:
                break
            order.append((place - size - len(order), sample))
    return order + [(tap, (place - tap) % size) for tap in range(len(order), length)]


def _row_of(offset: int, size: int, row: int, length: int) -> int:
    """Return where in a part a sample lies: the one of its repetitions that the filter covers at an output row."""
    return row + (offset - row) % size if size >= length else offset % size


def _cut(part: _Part, box: tuple[slice, ...]) -> np.ndarray:
    return part.values[
        tuple(slice(span.start - first, span.stop - first) for span, first in zip(box, part.first, strict=True))
    ]
