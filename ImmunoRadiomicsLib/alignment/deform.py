"""The deformable part: greedy updates of the local correlation, from coarse to fine.

At every voxel the moving image is compared with the fixed one in a small window, up to a gain and an offset. The update is the gradient of
the squared local normalised correlation (B. Avants 2008, doi:10.1016/j.media.2007.06.004), smoothed, scaled to a largest length, and
added to the field, which is then smoothed a little. Steps are short and every level ends by smoothing the places that would fold, so that
adding does as well as composing and needs one interpolation instead of four.

Fields are arrays (3, z, y, x): displacements in voxels in array order (z, y, x), added to the position of each voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..progress import Progress, part

# Two windows of CT differ by noise even where they show the same; differences of this size (HU) say nothing.
NOISE_HU = 12.0
WINDOW = 5
_FOLDED_BELOW = 0.05
_DIVERGED_BY = 0.05


@dataclass(frozen=True, eq=False)
class Level:
    """Two images of one resolution (densities, z, y, x) and where and how much (0 to 1) they may pull."""

    fixed: np.ndarray
    moving: np.ndarray
    weight: np.ndarray

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
    """How one level is run; ``update_smoothing`` and ``field_smoothing`` are Gaussian widths in voxels, steps in voxels.

    The longest update shrinks evenly from ``first_step`` to ``last_step``.
    """

    iterations: int
    update_smoothing: float
    field_smoothing: float = 0.7
    first_step: float = 0.8
    last_step: float = 0.25


@dataclass(frozen=True, eq=False)
class Deformation:
    """The field found, and a sentence for every level that diverged."""

    field: np.ndarray
    troubles: tuple[str, ...]


class Correlator:
    """Local correlation with one fixed image, whose window statistics are computed once."""

    def __init__(self, fixed: np.ndarray):
        self.fixed = fixed
        self._mean = _box(fixed)
        self._centred = fixed - self._mean
        self.variance = np.maximum(_box(fixed * fixed) - self._mean**2, 0.0) + np.float32(NOISE_HU**2)

    def compare(self, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the signed squared local correlation with ``other`` (-1 to 1) and its derivative by the density of ``other``."""
        mean = _box(other)
        variance = np.maximum(_box(other * other) - mean**2, 0.0) + np.float32(NOISE_HU**2)
        covariance = _box(self.fixed * other) - self._mean * mean
        gain = covariance / variance
        scale = gain / self.variance
        return scale * np.abs(covariance), 2.0 * scale * (self._centred - gain * (other - mean))


def _box(array: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter(array, WINDOW, mode="nearest")


def local_correlation(fixed: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the local correlation (-1 to 1) of two images and how much structure there is to judge it by (0 to 1).

    Noise counts as a lack of structure, so that flat tissue neither raises nor lowers a mean that is weighted by it.
    """
    correlator = Correlator(fixed)
    squared, _ = correlator.compare(other)
    noise = np.float32((3.0 * NOISE_HU) ** 2)
    other_variance = np.maximum(_box(other * other) - _box(other) ** 2, 0.0)
    structure = np.maximum(correlator.variance, other_variance)
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


def refine_field(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring a field to the level that has twice the resolution and the given shape."""
    places = identity(shape) / 2.0
    return np.stack([2.0 * warp(item, places) for item in field])


def deform(levels: list[Level], schedules: list[Schedule], progress: Progress) -> Deformation:
    """Find the field on the finest level; ``levels`` and ``schedules`` go from coarse to fine.

    Each level hands on the field that correlated best, so that a level that diverges does no harm.
    """
    field = np.zeros((3, *levels[0].fixed.shape), dtype=np.float32)
    troubles = []
    work = np.cumsum(
        [0.0] + [level.fixed.size * plan.iterations for level, plan in zip(levels, schedules, strict=True)]
    )
    for number, (level, plan) in enumerate(zip(levels, schedules, strict=True)):
        if field.shape[1:] != level.fixed.shape:
            field = refine_field(field, level.fixed.shape)
        report = part(progress, work[number] / work[-1], work[number + 1] / work[-1])
        field, diverged = _run_level(level, plan, field, report)
        field = unfold(field)
        if diverged:
            troubles.append(f"the deformable step {number + 1} of {len(levels)} diverged; its best state was kept")
    return Deformation(field, tuple(troubles))


def _run_level(level: Level, plan: Schedule, field: np.ndarray, progress: Progress) -> tuple[np.ndarray, bool]:
    """Return the best field of a level, and whether the level ended clearly worse than that or not finite."""
    correlator = Correlator(level.fixed)
    places = identity(level.fixed.shape)
    total = float(level.weight.sum()) or 1.0
    best, best_field, now = -np.inf, field, -np.inf
    for iteration in range(plan.iterations + 1):
        warped = warp(level.moving, field + places)
        squared, force = correlator.compare(warped)
        now = float(np.vdot(squared, level.weight)) / total
        if now > best:
            best, best_field = now, field
        if iteration == plan.iterations or not np.isfinite(now):
            break
        update = np.stack(np.gradient(warped))
        force *= level.weight
        update *= force
        update = smooth(update, plan.update_smoothing)
        longest = float(np.sqrt(np.einsum("i...,i...->...", update, update).max()))
        if longest == 0.0:
            break
        done = iteration / max(plan.iterations - 1, 1)
        update *= np.float32((plan.first_step + (plan.last_step - plan.first_step) * done) / longest)
        field = smooth(field + update, plan.field_smoothing)
        progress((iteration + 1) / plan.iterations, "Deforming the follow-up onto the baseline")
    return best_field, not now > best - _DIVERGED_BY
