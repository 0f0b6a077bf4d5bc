"""The deformable part: Gauss-Newton steps on the local correlation, from coarse to fine.

At every voxel the moving image is compared with the fixed one in a small window, up to a gain and an offset (local normalised correlation,
B. Avants 2008, doi:10.1016/j.media.2007.06.004). What is left to explain, linearised in the displacement, gives a 3 by 3 system for each
place, summed over a Gaussian neighbourhood (B. Lucas and T. Kanade 1981). Solving it, rather than following the gradient, moves flat and
structured tissue alike: directions in which a place shows nothing are filled from its neighbours. The field is then smoothed a little.

Fields live on every second voxel of the images of their level, its nodes: arrays (3, z, y, x) of displacements in node spacings in array
order (z, y, x), added to the position of each node, interpolated linearly between them as ITK does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..progress import Progress, part

# Two windows of CT differ by noise even where they show the same; differences of this size (HU) say nothing.
NOISE_HU = 12.0
# Width in voxels of the windows in which aligned images are compared.
WINDOW = 5
# How much structure, per square voxel, a neighbourhood must show before it pulls with more than half of its force.
_STIFFNESS = 0.01
_FOLDED_BELOW = 0.15
_DIVERGED_BY = 0.05
# A level ends when this many steps in a row raised the mean squared correlation by no more than the least gain of its schedule.
_PATIENCE = 2


@dataclass(frozen=True, eq=False)
class Level:
    """Two images of one resolution (densities, z, y, x) and where and how much (0 to 1) they may pull."""

    fixed: np.ndarray
    moving: np.ndarray
    weight: np.ndarray

    @property
    def node_shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of the nodes: every second voxel."""
        z, y, x = ((length + 1) // 2 for length in self.fixed.shape)
        return z, y, x

    def coarser(self) -> Level:
        """Return the level of every second voxel, smoothed first so that nothing aliases."""
        step = (slice(None, None, 2),) * 3
        images = (
            ndimage.gaussian_filter(item, 0.8, mode="nearest", truncate=3.0) for item in (self.fixed, self.moving)
        )
        fixed, moving = (np.ascontiguousarray(item[step]) for item in images)
        return Level(fixed, moving, np.ascontiguousarray(self.weight[step]))


@dataclass(frozen=True)
class Schedule:
    """How one level is run: width of the windows and longest step in voxels, Gaussian widths in node spacings.

    Steps that raise the mean squared correlation by no more than ``least_gain`` do not count as progress.
    """

    iterations: int
    window: int
    update_smoothing: float
    field_smoothing: float
    longest_step: float = 1.0
    least_gain: float = 5e-4


@dataclass(frozen=True, eq=False)
class Deformation:
    """The field found, on the nodes of the finest level, and a sentence for every level that diverged."""

    field: np.ndarray
    troubles: tuple[str, ...]


class Correlator:
    """Local correlation with one fixed image, whose window statistics are computed once."""

    def __init__(self, fixed: np.ndarray, window: int):
        self.fixed = fixed
        self._window = window
        self._mean = self._box(fixed)
        self._centred = fixed - self._mean
        self.variance = np.maximum(self._box(fixed * fixed) - self._mean**2, 0.0) + np.float32(NOISE_HU**2)

    def compare(self, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the signed squared local correlation (-1 to 1), and the rest and the gain of ``other``.

        With the gain the other image explains the fixed one best around each voxel; the rest is what it leaves unexplained. Both are in
        units of the standard deviation of the fixed image there.
        """
        mean = self._box(other)
        variance = np.maximum(self._box(other * other) - mean**2, 0.0) + np.float32(NOISE_HU**2)
        covariance = self._box(self.fixed * other) - self._mean * mean
        gain = covariance / variance
        squared = gain * np.abs(covariance) / self.variance
        deviation = np.sqrt(self.variance)
        return squared, (self._centred - gain * (other - mean)) / deviation, gain / deviation

    def _box(self, array: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(array, self._window, mode="nearest")


def local_correlation(fixed: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the local correlation (-1 to 1) of two images and how much structure there is to judge it by (0 to 1).

    Noise counts as a lack of structure, so that flat tissue weighs little in a mean that is weighted by it; a variance of three times the noise
    has one half.
    """
    correlator = Correlator(fixed, WINDOW)
    squared, _, _ = correlator.compare(other)
    noise = np.float32((3.0 * NOISE_HU) ** 2)
    structure = np.maximum(correlator.variance, Correlator(other, WINDOW).variance)
    return np.sign(squared) * np.sqrt(np.abs(squared)), structure / (structure + noise)


def identity(shape: tuple[int, ...]) -> np.ndarray:
    """Return the index of every voxel (3, z, y, x)."""
    return np.indices(shape, dtype=np.float32)


def warp(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Sample an array linearly at continuous indices (3, z, y, x), with its border values outside."""
    return ndimage.map_coordinates(array, places, order=1, mode="nearest", prefilter=False)


def smooth(field: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth each component of a field with a Gaussian of ``sigma`` voxels."""
    return np.stack([ndimage.gaussian_filter(item, sigma, mode="nearest", truncate=3.0) for item in field])


def jacobian(field: np.ndarray) -> np.ndarray:
    """Return the Jacobian determinant (z, y, x) of the map that a field describes; at or below 0 the map folds."""
    rows = [[np.gradient(field[i], axis=j) + (1.0 if i == j else 0.0) for j in range(3)] for i in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def unfold(field: np.ndarray, attempts: int = 12) -> np.ndarray:
    """Smooth a field where, and only where, it folds or nearly folds."""
    for _ in range(attempts):
        folded = jacobian(field) < _FOLDED_BELOW
        if not folded.any():
            break
        blend = np.clip(3.0 * ndimage.gaussian_filter(folded.astype(np.float32), 2.0), 0.0, 1.0)
        field = field + blend * (smooth(field, 1.5) - field)
    return field


def to_nodes(array: np.ndarray) -> np.ndarray:
    """Reduce an array to every second voxel, each with half of its neighbours mixed in along every axis."""
    for axis in range(array.ndim):
        length = array.shape[axis]
        wide = np.pad(array, [(1, 1) if other == axis else (0, 0) for other in range(array.ndim)], mode="edge")
        at = np.moveaxis(wide, axis, 0)
        mixed = 0.5 * at[1 : length + 1 : 2] + 0.25 * (at[0:length:2] + at[2 : length + 2 : 2])
        array = np.moveaxis(mixed, 0, axis)
    return np.ascontiguousarray(array)


def to_voxels(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate an array on the nodes linearly to the voxels of an image of the given shape."""
    for axis, length in enumerate(shape):
        at = np.moveaxis(array, axis, 0)
        fine = np.empty((length, *at.shape[1:]), dtype=array.dtype)
        fine[0::2] = at
        between = 0.5 * (at[:-1] + at[1:])
        fine[1 : 2 * len(between) : 2] = between
        if length % 2 == 0:
            fine[-1] = at[-1]
        array = np.moveaxis(fine, 0, axis)
    return np.ascontiguousarray(array)


def refine_field(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring a field to nodes twice as close, of the given shape."""
    return np.stack([2.0 * to_voxels(item, shape) for item in field])


def deform(levels: list[Level], schedules: list[Schedule], progress: Progress) -> Deformation:
    """Find the field on the nodes of the finest level; ``levels`` and ``schedules`` go from coarse to fine.

    A level may come several times, each time with another schedule. Each step hands on the field that correlated best, so that one that
    diverges does no harm.
    """
    field = np.zeros((3, *levels[0].node_shape), dtype=np.float32)
    troubles = []
    work = np.cumsum(
        [0.0] + [level.fixed.size * plan.iterations for level, plan in zip(levels, schedules, strict=True)]
    )
    for number, (level, plan) in enumerate(zip(levels, schedules, strict=True)):
        if field.shape[1:] != level.node_shape:
            field = refine_field(field, level.node_shape)
        report = part(progress, work[number] / work[-1], work[number + 1] / work[-1])
        field, diverged = _run_level(level, plan, field, report)
        field = unfold(field)
        if diverged:
            troubles.append(f"the deformable step {number + 1} of {len(levels)} diverged; its best state was kept")
    return Deformation(field, tuple(troubles))


def _run_level(level: Level, plan: Schedule, field: np.ndarray, progress: Progress) -> tuple[np.ndarray, bool]:
    """Return the best field of a level, and whether the level ended clearly worse than that or not finite."""
    correlator = Correlator(level.fixed, plan.window)
    places = identity(level.fixed.shape)
    total = float(level.weight.sum()) or 1.0
    best, best_field, now = -np.inf, field, -np.inf
    idle = 0
    for iteration in range(plan.iterations + 1):
        moved = places + np.stack([2.0 * to_voxels(item, level.fixed.shape) for item in field])
        warped = warp(level.moving, moved)
        squared, rest, gain = correlator.compare(warped)
        now = float(np.vdot(squared, level.weight)) / total
        idle = 0 if now > best + plan.least_gain else idle + 1
        if now > best:
            best, best_field = now, field
        if iteration == plan.iterations or idle == _PATIENCE or not np.isfinite(now):
            break
        update = _step(warped, rest, gain, level.weight, plan)
        field = smooth(field + update, plan.field_smoothing)
        progress((iteration + 1) / plan.iterations, "Deforming the follow-up onto the baseline")
    return best_field, not now > best - _DIVERGED_BY


def _step(warped: np.ndarray, rest: np.ndarray, gain: np.ndarray, weight: np.ndarray, plan: Schedule) -> np.ndarray:
    """Return the displacement of each node, in node spacings, that explains the rest in its neighbourhood best."""

    def gathered(array: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(to_nodes(array), plan.update_smoothing, mode="nearest", truncate=3.0)

    slope = [gain * item for item in np.gradient(warped)]
    weighted = [weight * item for item in slope]
    b = [gathered(item * rest) for item in weighted]
    stiff = np.float32(_STIFFNESS)
    zz, yy, xx = (gathered(weighted[axis] * slope[axis]) + stiff for axis in range(3))
    zy, zx, yx = (gathered(weighted[one] * slope[two]) for one, two in ((0, 1), (0, 2), (1, 2)))
    # The adjugate of the symmetric matrix; the stiffness keeps its determinant above zero.
    c = (
        (yy * xx - yx * yx, zx * yx - zy * xx, zy * yx - zx * yy),
        (zx * yx - zy * xx, zz * xx - zx * zx, zy * zx - zz * yx),
        (zy * yx - zx * yy, zy * zx - zz * yx, zz * yy - zy * zy),
    )
    determinant = zz * c[0][0] + zy * c[0][1] + zx * c[0][2]
    update = np.stack([(row[0] * b[0] + row[1] * b[1] + row[2] * b[2]) / determinant for row in c])
    length = np.sqrt(np.einsum("i...,i...->...", update, update))
    # From voxels to node spacings.
    update *= 0.5 * np.minimum(1.0, plan.longest_step / np.maximum(length, 1e-6))
    return update
