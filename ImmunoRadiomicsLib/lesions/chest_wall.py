"""Consolidated lung that lies against the chest wall, where no border parts it from muscle.

The wall is where the ribs are, less the tissue that lies inside of them where aerated lung is seen to touch it, nearby in
the same patient. What is between aerated lung and that wall is lung where it is denser than pleural fluid. The rules err
on the side of too little lung: in front, at the apex and on the diaphragm, heart, vessels and liver look the same.

All arrays are (z, y, x), with axes running to the head, to the back and to the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from ..images import LUNG_LABELS, Anatomy
from .geometry import bounding_box, dilate, erode

BONE_HU = 180.0
SOLID_HU = (25.0, 150.0)
"""Consolidated lung, with or without contrast, on the image smoothed by ``SMOOTH_MM``. Exudates have 15.1 (SD 5.1) HU and transudates 5
(DOI 10.1016/j.clinsp.2024.100398), or a median of 12.5 HU and at most 33 (DOI 10.5152/dir.2013.13066). Blood in the pleural space is denser
and cannot be told from lung by this."""
SMOOTH_MM = 3.0
THINNEST_MM = 6.0
DEPTH_MM = 110.0
"""Between lung and wall, or between lung and rib, along a ray. More is no gap in a lung but a chest without one there."""
CONTACT_MM = 6.0
"""A ray on which lung and rib are by no more than this farther apart than on the closest quarter of rays has lung at the wall."""
CONTACT_SHARE = 0.6
"""Of the rays with lung and rib: with less contact, the wall is not known well enough to say that lung is missing before it."""
ANTERIOR_DEGREES = 50.0
"""To both sides of straight ahead, where heart and vessels lie against the wall."""
APEX_MM = 50.0
"""Below the top of the lungs: at the first ribs and above them there is no closed cage but vessels and muscles of the neck."""
REACH_MM = 40.0
REACH_PAIRS = 3
BELOW_MM = 60.0
LEAST_ML = 3.0
DEGREES = 2.0
LONGEST_MM = 250.0


def consolidations(labels: np.ndarray, values: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Return the consolidated lung between aerated lung and the chest wall, a bool array.

    Parameters
    ----------
    labels
        Labels of ``images.Anatomy``.
    values
        HU.
    spacing
        Of the voxels, in mm.
    """
    result = np.zeros(labels.shape, dtype=bool)
    box = bounding_box(np.isin(labels, LUNG_LABELS))
    if box is None:
        return result
    rows = box[0]
    near, hu = labels[rows], values[rows]
    lungs = np.isin(near, LUNG_LABELS)
    rays = _Rays.around(near, spacing)
    found = rays.wall(lungs, hu > BONE_HU, near != 0)
    if found is None:
        return result
    ends, wall = found
    within = rays.between(np.zeros_like(wall), wall) & (near == Anatomy.BODY)
    solid = within.copy()
    if rows.stop < labels.shape[0]:
        solid[-round(APEX_MM / spacing[0]) :] = False
    solid &= _dense(hu, solid, spacing)
    seeds = solid & rays.between(np.where(rays.with_gap(ends, wall), ends, np.nan), wall)
    seeds = dilate(erode(seeds, THINNEST_MM / 2, spacing), THINNEST_MM, spacing) & solid
    if not seeds.any():
        return result
    beyond = rays.between(wall, np.full_like(wall, np.inf))
    grown = _grown(seeds, solid, lungs, beyond, spacing)
    grown = dilate(erode(grown, 2.0, spacing), 6.0, spacing) & within
    pieces, number = ndimage.label(grown)
    keep = np.bincount(pieces.ravel(), minlength=number + 1) * float(np.prod(spacing)) / 1000.0 >= LEAST_ML
    keep[0] = False
    result[rows] = keep[pieces]
    return result


def lines_between(
    asked: np.ndarray,
    lungs: np.ndarray,
    spacing: tuple[float, ...],
    reach_mm: float,
    beyond: np.ndarray | None = None,
) -> np.ndarray:
    """Count, per asked voxel, those of the 13 lines through its neighbours that meet lung on both sides within a reach.

    With ``beyond``, what lies beyond the chest wall, a line may meet that on one of its sides instead.
    """
    places = np.nonzero(asked)
    count = np.zeros(places[0].size, dtype=np.uint8)
    last = [size - 1 for size in lungs.shape]

    def meets(mask: np.ndarray, step: tuple[int, ...], sign: int, steps: int) -> np.ndarray:
        met = np.zeros(places[0].size, dtype=bool)
        for far in range(1, steps + 1):
            index = [np.clip(p + sign * far * s, 0, end) for p, s, end in zip(places, step, last, strict=True)]
            met |= mask[tuple(index)]
        return met

    for step in product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):
            continue
        steps = max(1, int(reach_mm / float(np.linalg.norm(np.multiply(step, spacing)))))
        ahead, behind = meets(lungs, step, 1, steps), meets(lungs, step, -1, steps)
        both = ahead & behind
        if beyond is not None:
            both |= ahead & meets(beyond, step, -1, steps) | behind & meets(beyond, step, 1, steps)
        count += both
    return count


def _dense(hu: np.ndarray, where: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Return the voxels with the density of consolidated lung in the mean of their neighbours among ``where``."""
    sigma = [SMOOTH_MM / step for step in spacing]
    weights = ndimage.gaussian_filter(where.astype(np.float32), sigma)
    mean = ndimage.gaussian_filter(np.where(where, hu, np.float32(0.0)), sigma) / np.maximum(weights, 1e-3)
    return (mean > SOLID_HU[0]) & (mean < SOLID_HU[1])


def _grown(
    seeds: np.ndarray, solid: np.ndarray, lungs: np.ndarray, beyond: np.ndarray, spacing: tuple[float, ...]
) -> np.ndarray:
    """Grow seeds over what is as dense, has lung or wall around it, and lung below it: that keeps the liver out."""
    reach = max(1, int(BELOW_MM / spacing[0]))
    total = np.cumsum(lungs, axis=0, dtype=np.int32)
    total[reach:] -= total[:-reach].copy()
    with_lung_below = total > 0
    grown = seeds
    for _ in range(2):
        more = solid & ~grown & with_lung_below
        more[more] = lines_between(more, lungs | grown, spacing, REACH_MM, beyond) >= REACH_PAIRS
        pieces, number = ndimage.label(more | grown)
        sizes = np.bincount(pieces.ravel(), minlength=number + 1)
        keep = np.bincount(pieces[grown], minlength=number + 1) >= 0.25 * sizes
        keep[0] = False
        grown = keep[pieces]
    return grown


@dataclass(frozen=True, eq=False)
class _Rays:
    """Rays in axial planes from the middle of the chest.

    ``rows``, ``columns`` and ``inside`` (ray, sample) say where their samples are and whether that is in the image; ``ray`` and
    ``radius`` (y, x) on which ray a voxel is and how many mm from the middle.
    """

    rows: np.ndarray
    columns: np.ndarray
    inside: np.ndarray
    ray: np.ndarray
    radius: np.ndarray
    angles: np.ndarray
    step_mm: float
    slice_mm: float

    @classmethod
    def around(cls, labels: np.ndarray, spacing: tuple[float, ...]) -> _Rays:
        """Start from the middle of the lungs, or from the medial edge where there is one lung only."""
        row, column = _middle(labels)
        step = float(max(spacing[1:]))
        angles, radii = np.arange(0.0, 360.0, DEGREES), np.arange(0.0, LONGEST_MM, step)
        y = np.rint(row + np.outer(np.sin(np.deg2rad(angles)), radii) / spacing[1]).astype(int)
        x = np.rint(column + np.outer(np.cos(np.deg2rad(angles)), radii) / spacing[2]).astype(int)
        _, height, width = labels.shape
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        dy = (np.arange(height)[:, None] - row) * spacing[1]
        dx = (np.arange(width)[None, :] - column) * spacing[2]
        ray = np.rint(np.rad2deg(np.arctan2(dy, dx)) / DEGREES).astype(int) % angles.size
        return cls(y.clip(0, height - 1), x.clip(0, width - 1), inside, ray, np.hypot(dy, dx), angles, step, spacing[0])

    def wall(self, lungs: np.ndarray, bone: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return where lung ends and where the wall is, in mm per slice and ray, NaN where not known; None without a cage.

        A ray on which the image ends inside the patient does not know: the ribs may lie beyond.
        """
        lung = lungs[:, self.rows, self.columns] & self.inside
        samples = np.arange(lung.shape[2])
        last = np.where(lung, samples, -1).max(axis=2)
        ends = np.where(last >= 0, (last + 0.5) * self.step_mm, np.nan)
        ribs_beyond = bone[:, self.rows, self.columns] & self.inside & (samples > last[..., None])
        ribs = np.where(ribs_beyond.any(axis=2) & (last >= 0), ribs_beyond.argmax(axis=2) * self.step_mm, np.inf)
        # A ray that passes between two ribs meets an arm or the shoulder blade: its neighbours know better.
        window = (2 * round(10.0 / self.slice_mm) + 1, 2 * round(4.0 / DEGREES) + 1)
        ribs = ndimage.minimum_filter(ribs, window, mode=("nearest", "wrap"))
        end = self.inside.sum(axis=1) - 1
        whole = ~patient[:, self.rows[np.arange(end.size), end], self.columns[np.arange(end.size), end]]
        # Not a number or infinite where lung or rib is not met, and so not seen.
        gap = ribs - ends
        seen = (gap > 0.0) & (gap < DEPTH_MM) & whole
        if np.count_nonzero(seen) < 500:
            return None
        contact = seen & (gap < np.percentile(gap[seen], 25) + CONTACT_MM)
        if np.count_nonzero(contact) < CONTACT_SHARE * np.count_nonzero(seen):
            return None
        return ends, self._spread(ribs, seen, 8.0, 3.0) - self._spread(gap, contact, 15.0, 8.0)

    def with_gap(self, ends: np.ndarray, wall: np.ndarray) -> np.ndarray:
        """Tell the rays, not those to the front, on which lung ends before the wall."""
        gap = np.nan_to_num(wall - ends, nan=0.0)
        lateral = np.abs(self.angles - 270.0) > ANTERIOR_DEGREES
        return (gap >= THINNEST_MM) & (gap <= DEPTH_MM) & lateral

    def between(self, near: np.ndarray, far: np.ndarray) -> np.ndarray:
        """Return the voxels between two radii of their ray (slice, ray; mm); none where one of them is not known."""
        return (self.radius > near[:, self.ray]) & (self.radius <= far[:, self.ray])

    def _spread(self, values: np.ndarray, where: np.ndarray, slices_mm: float, degrees: float) -> np.ndarray:
        """Return the mean of the neighbouring rays of ``where``, weighted by a Gaussian; NaN where there are hardly any."""
        sigma, mode = (slices_mm / self.slice_mm, degrees / DEGREES), ("nearest", "wrap")
        weights = ndimage.gaussian_filter(where.astype(np.float64), sigma, mode=mode)
        total = ndimage.gaussian_filter(np.where(where, values, 0.0), sigma, mode=mode)
        return np.where(weights > 0.02, total / np.maximum(weights, 1e-9), np.nan)


def _middle(labels: np.ndarray) -> tuple[float, float]:
    """Return row and column between the lungs."""
    row = float(np.average(np.arange(labels.shape[1]), weights=np.isin(labels, LUNG_LABELS).sum(axis=(0, 2))))
    columns = np.arange(labels.shape[2])
    right, left = ((labels == label).sum(axis=(0, 1)) for label in (Anatomy.RIGHT_LUNG, Anatomy.LEFT_LUNG))
    if min(right.sum(), left.sum()) > 0.1 * max(right.sum(), left.sum()):
        return row, float(np.mean([np.average(columns, weights=side) for side in (right, left)]))
    side, share = (right, 0.98) if right.sum() > left.sum() else (left, 0.02)
    return row, float(np.searchsorted(np.cumsum(side) / side.sum(), share))
