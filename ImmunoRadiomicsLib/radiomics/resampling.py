"""Resampling as ITK does it, to the last bit, of masks on their own and of the boxes of several regions at once.

Where the axes of the output are parallel to those of the input, the position of a voxel along one axis does not depend on the
other two. The nearest voxels of a mask can then be picked without the volume around it.

For a cubic spline, ITK sums 64 products for every voxel of every box. All boxes of a volume lie on one grid, so their values can be computed
together, axis after axis, in a small part of the time; but not to the last bit, as sums are taken in another order and the
coordinates of two boxes differ in their rounding. A voxel of a CT is a whole number, to which ITK truncates: only where a value
lies within ``DOUBT`` of a whole number can the last bits decide, and there it is computed as ITK would for the box at hand, with
its coordinates and its order of sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

# Beyond what rounding can do to a spline of 16-bit values: some 1e-9 from coordinates, 1e-10 from sums.
DOUBT = 1e-6
# Above this share of doubtful voxels, as in air that is cut off at a value, ITK is faster.
MAXIMUM_DOUBT = 0.1
# Voxels along an axis that are multiplied at once: few enough that most weights of their matrix are not zero.
_BLOCK = 32

Place = tuple[int, int, int]
Positions = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the voxels of an output image lie in the input.

    Attributes
    ----------
    x, y, z
        Their continuous indices in the input along each of its axes, as ITK computes them.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """The size of the output (z, y, x)."""
        return len(self.z), len(self.y), len(self.x)


@dataclass(frozen=True, eq=False)
class Interpolated:
    """Whole numbers on a part of the grid.

    Attributes
    ----------
    first_zyx
        The index on the grid of the first voxel.
    values
        Integer array (z, y, x), truncated.
    doubtful
        Ascending indices into ``values.ravel()`` of the voxels whose value lies next to a whole number.
    """

    first_zyx: Place
    values: np.ndarray
    doubtful: np.ndarray

    def part(self, first_zyx: Place, coefficients: np.ndarray, lattice: Lattice) -> np.ndarray | None:
        """Return the values of a box within this one as ITK gives them for the box alone, or None if ITK is faster.

        Parameters
        ----------
        first_zyx
            The index on the grid of the first voxel of the box.
        coefficients
            Of the spline (z, y, x).
        lattice
            Of the box.
        """
        start = [begin - own for begin, own in zip(first_zyx, self.first_zyx, strict=True)]
        box = tuple(slice(a, a + size) for a, size in zip(start, lattice.shape, strict=True))
        places = np.column_stack(np.unravel_index(self.doubtful, self.values.shape)) - start
        places = places[((places >= 0) & (places < lattice.shape)).all(axis=1)]
        values = self.values[box].copy()
        if len(places) > MAXIMUM_DOUBT * values.size:
            return None
        values[tuple(places.T)] = truncated(spline_at(coefficients, lattice, places), values.dtype)
        for axis, (positions, size) in enumerate(
            zip((lattice.z, lattice.y, lattice.x), coefficients.shape, strict=True)
        ):
            outside = (positions < -0.5) | (positions >= size - 0.5)
            values[(slice(None),) * axis + (outside,)] = 0
        return values


def lattice_of(resampler: sitk.ResampleImageFilter, image: sitk.Image) -> Lattice | None:
    """Return where the output voxels of a resampling filter lie in an image, or None unless the axes of both are parallel.

    ITK maps the ends of every row of the output to the input and divides what lies between into equal steps.
    """
    if not set(np.abs(image.GetDirection())) <= {0.0, 1.0} or image.GetDirection() != resampler.GetOutputDirection():
        return None
    output = sitk.Image(1, 1, 1, sitk.sitkUInt8)
    output.SetOrigin(resampler.GetOutputOrigin())
    output.SetSpacing(resampler.GetOutputSpacing())
    output.SetDirection(resampler.GetOutputDirection())

    def position(*index: int) -> tuple[float, ...]:
        point = output.TransformIndexToPhysicalPoint(index)
        found: tuple[float, ...] = image.TransformPhysicalPointToContinuousIndex(point)
        return found

    width, height, depth = resampler.GetSize()
    first, end = position(0, 0, 0), position(width, 0, 0)
    if position(width, height, depth) != (end[0], position(0, height, 0)[1], position(0, 0, depth)[2]):
        return None
    x = first[0] + np.arange(width) / float(width) * (end[0] - first[0])
    y = np.array([position(0, row, 0)[1] for row in range(height)])
    z = np.array([position(0, 0, row)[2] for row in range(depth)])
    return Lattice(x, y, z)


def nearest(voxels: np.ndarray, offset_zyx: Place, lattice: Lattice) -> np.ndarray | None:
    """Return the nearest voxels of a mask, or None if builds of ITK may differ in what is nearest.

    Parameters
    ----------
    voxels
        Bool array (z, y, x), a part of the input; there is nothing outside it.
    offset_zyx
        The index in the input of its first voxel.
    lattice
        Of the output.

    Returns
    -------
    bool array (z, y, x) of the size of the output.
    """
    result = voxels
    positions_zyx = lattice.z, lattice.y, lattice.x
    for axis, (positions, offset) in enumerate(zip(positions_zyx, offset_zyx, strict=True)):
        # Both ways of ITK to round halves up; they differ just below one half.
        index = np.floor(positions + 0.5).astype(np.intp)
        if np.any(index != np.rint(2 * positions + 0.5).astype(np.intp) >> 1):
            return None
        index -= offset
        inside = (index >= 0) & (index < voxels.shape[axis])
        found = np.zeros((*result.shape[:axis], len(index), *result.shape[axis + 1 :]), dtype=bool)
        found[(slice(None),) * axis + (inside,)] = result.take(index[inside], axis=axis)
        result = found
    return result


def interpolate(coefficients: np.ndarray, first_zyx: Place, positions_zyx: Positions, dtype: np.dtype) -> Interpolated:
    """Evaluate a cubic spline on a part of a grid.

    Parameters
    ----------
    coefficients
        Float64 array (z, y, x).
    first_zyx
        The index on the grid of the first voxel.
    positions_zyx
        Continuous indices in ``coefficients`` of the voxels of the grid along z, y and x.
    dtype
        Of the values: integers of 16 bits or fewer.
    """
    depth, height, width = (len(positions) for positions in positions_zyx)
    values = np.empty((depth, height, width), dtype=dtype)
    doubtful = []
    across = [_blocks(*_support(p, size)) for p, size in zip(positions_zyx, coefficients.shape, strict=True)]
    (_, y_span, _), (_, x_span, _) = _whole(across[1]), _whole(across[2])
    for rows, span, weights in across[0]:
        source = coefficients[span, y_span, x_span]
        part = (weights @ source.reshape(len(source), -1)).reshape(-1, *source.shape[1:])
        middle = np.empty((len(part), height, part.shape[2]))
        for lines, inner, matrix in across[1]:
            middle[:, lines] = matrix @ part[:, inner.start - y_span.start : inner.stop - y_span.start]
        flat = middle.reshape(-1, middle.shape[2])
        found = np.empty((len(flat), width))
        for columns, inner, matrix in across[2]:
            found[:, columns] = flat[:, inner.start - x_span.start : inner.stop - x_span.start] @ matrix.T
        values[rows] = truncated(found, values.dtype).reshape(-1, height, width)
        near = np.rint(found)
        near -= found
        doubtful.append(np.flatnonzero(np.abs(near, out=near) < DOUBT) + rows.start * height * width)
    return Interpolated(first_zyx, values, np.concatenate(doubtful))


def spline_at(coefficients: np.ndarray, lattice: Lattice, places_zyx: np.ndarray) -> np.ndarray:
    """Return a cubic spline at voxels (n, 3) of a lattice, with the arithmetic of ITK."""
    supports = [
        _support(positions[column], size)
        for positions, column, size in zip(
            (lattice.z, lattice.y, lattice.x), places_zyx.T, coefficients.shape, strict=True
        )
    ]
    (z_index, z_weight), (y_index, y_weight), (x_index, x_weight) = supports
    total = np.zeros(len(places_zyx))
    for z in range(4):
        for y in range(4):
            for x in range(4):
                weight = x_weight[x] * y_weight[y] * z_weight[z]
                total += weight * coefficients[z_index[z], y_index[y], x_index[x]]
    return total


def same_as_itk(image: sitk.Image, spacing: tuple[float, ...]) -> bool:
    """Whether the ITK at hand rounds as this module does, tried on a small image of noise with the geometry of another."""
    noise = np.random.default_rng(0).normal(0, 300, (9, 10, 11))
    coefficients = sitk.GetImageFromArray(noise)
    for name in ("Spacing", "Origin", "Direction"):
        getattr(coefficients, f"Set{name}")(getattr(image, f"Get{name}")())
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkBSplineResamplerOrder3)
    resampler.SetOutputSpacing(spacing)
    resampler.SetOutputDirection(image.GetDirection())
    resampler.SetOutputOrigin(coefficients.TransformContinuousIndexToPhysicalPoint((0.3, 0.2, 0.1)))
    resampler.SetSize([max(1, int(8 * old / new)) for old, new in zip(image.GetSpacing(), spacing, strict=True)])
    lattice = lattice_of(resampler, coefficients)
    if lattice is None:
        return False
    reference = sitk.GetArrayFromImage(resampler.Execute(coefficients))
    places = np.argwhere(np.ones(lattice.shape, dtype=bool))
    return np.array_equal(reference.ravel(), spline_at(noise, lattice, places))


def truncated(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert to whole numbers as the resampling filter does: limited to their range, and truncated."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(values, limits.min, limits.max)
    return values.astype(dtype)


def _support(positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the four coefficients (4, n) that count at each position along an axis, and their weights."""
    # ITK looks for the coefficient before a position in single precision.
    before = np.floor(positions.astype(np.float32)).astype(np.intp)
    w = positions - before
    last = 1.0 / 6.0 * w * w * w
    first = 1.0 / 6.0 + 0.5 * w * (w - 1.0) - last
    third = w + first - 2.0 * last
    weights = np.stack([first, 1.0 - first - third - last, third, last])
    index = before + np.arange(-1, 3)[:, None]
    # Beyond its ends the image is mirrored.
    index = np.where(index < 0, -index, index)
    index = np.where(index >= size - 1, 2 * (size - 1) - index, index)
    return np.clip(index, 0, size - 1), weights


def _blocks(index: np.ndarray, weights: np.ndarray) -> list[tuple[slice, slice, np.ndarray]]:
    """Return the matrices that interpolate along an axis: which outputs, from which inputs, by what weights."""
    blocks = []
    for start in range(0, index.shape[1], _BLOCK):
        rows = slice(start, min(start + _BLOCK, index.shape[1]))
        part = index[:, rows]
        span = slice(int(part.min()), int(part.max()) + 1)
        matrix = np.zeros((rows.stop - rows.start, span.stop - span.start))
        for tap in range(4):
            # Two taps may meet on one coefficient where the image is mirrored.
            np.add.at(matrix, (np.arange(len(matrix)), part[tap] - span.start), weights[tap, rows])
        blocks.append((rows, span, matrix))
    return blocks


def _whole(blocks: list[tuple[slice, slice, np.ndarray]]) -> tuple[slice, slice, None]:
    rows = slice(0, blocks[-1][0].stop)
    return rows, slice(min(span.start for _, span, _ in blocks), max(span.stop for _, span, _ in blocks)), None
