"""Regular grids of points in patient coordinates, and smooth fields that live on coarse ones.

Everything inside the simulation is ordered (z, y, x), like the arrays: z is superior, y posterior, x left, in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Triple = tuple[float, float, float]
Corner = Triple | np.ndarray


@dataclass(frozen=True)
class Lattice:
    """An axis-aligned grid: position of the first node, distance of nodes and their number, each as (z, y, x)."""

    origin: Triple
    spacing: Triple
    shape: tuple[int, int, int]

    @classmethod
    def covering(cls, low: Corner, high: Corner, spacing_mm: float) -> Lattice:
        """Return the cubic lattice that starts at ``low`` and reaches at least to ``high``."""
        counts = tuple(int(np.ceil((b - a) / spacing_mm - 1e-9)) + 1 for a, b in zip(low, high, strict=True))
        return cls((float(low[0]), float(low[1]), float(low[2])), (spacing_mm,) * 3, (counts[0], counts[1], counts[2]))

    @property
    def low(self) -> np.ndarray:
        """Position of the first node."""
        return np.asarray(self.origin)

    @property
    def high(self) -> np.ndarray:
        """Position of the last node."""
        return self.low + (np.asarray(self.shape) - 1) * np.asarray(self.spacing)

    @property
    def voxel_ml(self) -> float:
        """Volume of one cell in ml."""
        return float(np.prod(self.spacing)) / 1000.0

    def axis(self, number: int, part: slice = slice(None)) -> np.ndarray:
        """Return the positions of the nodes along one axis, as float32."""
        positions = self.origin[number] + self.spacing[number] * np.arange(self.shape[number])
        return positions[part].astype(np.float32)

    def open_mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return z, y, x as arrays that broadcast to the shape of the lattice."""
        return self.axis(0)[:, None, None], self.axis(1)[None, :, None], self.axis(2)[None, None, :]

    def points(self) -> np.ndarray:
        """Return every node as an array (z, y, x, 3), float64."""
        axes = [self.origin[i] + self.spacing[i] * np.arange(self.shape[i]) for i in range(3)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def box(self, low: Corner, high: Corner) -> tuple[slice, slice, slice]:
        """Return the index box of the nodes between two corners, clipped to the lattice."""
        spans = []
        for axis in range(3):
            first = int(np.ceil((low[axis] - self.origin[axis]) / self.spacing[axis]))
            last = int(np.floor((high[axis] - self.origin[axis]) / self.spacing[axis])) + 1
            first = min(max(first, 0), self.shape[axis])
            spans.append(slice(first, min(max(last, first), self.shape[axis])))
        return spans[0], spans[1], spans[2]

    def part(self, box: tuple[slice, slice, slice]) -> Lattice:
        """Return the lattice of an index box."""
        origin = [self.origin[i] + self.spacing[i] * box[i].start for i in range(3)]
        shape = [box[i].stop - box[i].start for i in range(3)]
        return Lattice((origin[0], origin[1], origin[2]), self.spacing, (shape[0], shape[1], shape[2]))

    def at(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Interpolate a field of this lattice linearly at points (..., 3); outside, the value at the border holds."""
        index = (np.moveaxis(points, -1, 0) - self.low.reshape((3,) + (1,) * (points.ndim - 1))) / np.asarray(
            self.spacing
        ).reshape((3,) + (1,) * (points.ndim - 1))
        return ndimage.map_coordinates(field, index, order=1, mode="nearest", prefilter=False)

    def expand(self, field: np.ndarray, target: Lattice) -> np.ndarray:
        """Interpolate a field of this lattice linearly on the nodes of another one; float32."""
        result = field.astype(np.float32, copy=False)
        for axis in range(3):
            position = (target.axis(axis) - self.origin[axis]) / self.spacing[axis]
            position = np.clip(position, 0, self.shape[axis] - 1)
            lower = np.minimum(position.astype(np.intp), max(self.shape[axis] - 2, 0))
            upper = np.minimum(lower + 1, self.shape[axis] - 1)
            shape = [1, 1, 1]
            shape[axis] = -1
            weight = (position - lower).astype(np.float32).reshape(shape)
            first = np.take(result, lower, axis=axis)
            second = np.take(result, upper, axis=axis)
            second -= first
            second *= weight
            first += second
            result = first
        return result


def smooth_noise(
    rng: np.random.Generator, lattice: Lattice, scale_mm: float, components: int | None = None
) -> np.ndarray:
    """Return Gaussian noise of unit variance with a correlation length of about ``scale_mm`` on a lattice, float32."""
    step = max(scale_mm / 1.5, lattice.spacing[0])
    coarse = Lattice.covering(lattice.low - 2 * step, lattice.high + 3 * step, step)
    fields = []
    for _ in range(components or 1):
        noise = rng.standard_normal(coarse.shape, dtype=np.float32)
        noise = ndimage.gaussian_filter(noise, scale_mm / 2.0 / coarse.spacing[0], mode="wrap")
        noise /= noise.std()
        if coarse.spacing[0] <= lattice.spacing[0]:
            fields.append(coarse.expand(noise, lattice))
            continue
        # Cubic: a displacement made of this has to have a continuous slope.
        index = [(lattice.axis(i) - coarse.origin[i]) / coarse.spacing[i] for i in range(3)]
        for axis in range(3):
            noise = ndimage.spline_filter1d(noise, 3, axis=axis, output=np.float32)
            noise = _cubic_along(noise, axis, index[axis])
        fields.append(noise)
    return fields[0] if components is None else np.stack(fields)


def _cubic_along(coefficients: np.ndarray, axis: int, position: np.ndarray) -> np.ndarray:
    """Evaluate cubic B-spline coefficients along one axis at index positions away from the border."""
    base = np.floor(position).astype(np.intp)
    t = (position - base).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    shape = [1, 1, 1]
    shape[axis] = -1
    terms = [
        np.take(coefficients, base + step - 1, axis=axis) * (weight / 6).reshape(shape)
        for step, weight in enumerate(weights)
    ]
    return terms[0] + terms[1] + terms[2] + terms[3]
