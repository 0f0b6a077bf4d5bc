"""Branching trees that fill a volume, tubes along curves, and their drawing into an image.

The trees follow the idea of volume-filling growth (Tawhai 2000, doi 10.1114/1.1289457): every branch feeds a set of
points, runs towards their centre, and splits the set between its two children. Radii obey Murray's law (doi
10.1073/pnas.12.3.207): the cube of a parent's radius is the sum of the cubes of its children's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from .lattice import Lattice


@dataclass(frozen=True, eq=False)
class Branches:
    """Straight pieces of tubes: ends (n, 3) as (z, y, x) in mm, radii at both ends in mm, and points fed."""

    start: np.ndarray
    end: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray
    fed: np.ndarray

    @classmethod
    def none(cls) -> Branches:
        """Return no pieces."""
        empty = np.zeros(0)
        return cls(np.zeros((0, 3)), np.zeros((0, 3)), empty, empty, np.zeros(0, dtype=int))

    @classmethod
    def joined(cls, parts: Sequence[Branches]) -> Branches:
        """Return all pieces as one."""
        names = ("start", "end", "start_radius", "end_radius", "fed")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def chosen(self, keep: np.ndarray) -> Branches:
        """Return the pieces that an index or a mask picks."""
        return Branches(
            self.start[keep], self.end[keep], self.start_radius[keep], self.end_radius[keep], self.fed[keep]
        )


def tube(points: Iterable[Sequence[float] | np.ndarray], radii: Sequence[float], step_mm: float = 3.0) -> Branches:
    """Return a tube along the smooth curve through points (z, y, x), with radii given at the points."""
    knots = np.array([np.asarray(point, dtype=np.float64) for point in points])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], max(2, int(length[-1] / step_mm) + 1))
    curve = (
        CubicSpline(length, knots, axis=0)(at)
        if len(knots) > 2
        else knots[0] + np.outer(at / length[-1], knots[1] - knots[0])
    )
    radius = np.interp(at, length, radii)
    fed = np.full(len(at) - 1, 10**6)
    return Branches(curve[:-1], curve[1:], radius[:-1], radius[1:], fed)


def grow_tree(root: np.ndarray, seeds: np.ndarray, root_radius_mm: float, rng: np.random.Generator) -> Branches:
    """Grow a tree from ``root`` that ends at every one of ``seeds`` (n, 3).

    The radius at a branch that feeds m of n points is root_radius (m / n)^(1/3).
    """
    scale = root_radius_mm / max(len(seeds), 1) ** (1.0 / 3.0)
    starts, ends, first, last, fed = [], [], [], [], []
    stack = [(np.asarray(root, dtype=np.float64), np.zeros(3), seeds, root_radius_mm)]
    while stack:
        start, heading, points, radius = stack.pop()
        count = len(points)
        if count == 0:
            continue
        centre: np.ndarray = points.mean(axis=0)
        to_centre = centre - start
        distance = float(np.sqrt(to_centre @ to_centre))
        if count == 1:
            end = points[0]
        else:
            share = 0.42 if count > 8 else 0.55
            end = start + share * to_centre + rng.normal(0.0, 0.05 * distance, 3)
        # A slight bend, so that long branches do not look ruled.
        middle = 0.5 * (start + end)
        if distance > 12.0:
            middle = middle + distance * (0.06 * heading + rng.normal(0.0, 0.03, 3))
        own = scale * count ** (1.0 / 3.0)
        for a, b, r0, r1 in ((start, middle, min(radius, 1.15 * own), own), (middle, end, own, own * 0.95)):
            starts.append(a)
            ends.append(b)
            first.append(r0)
            last.append(r1)
            fed.append(count)
        if count == 1:
            continue
        spread = points - centre
        direction = end - start
        norm = float(np.sqrt(direction @ direction)) or 1.0
        direction = direction / norm
        covariance = spread.T @ spread
        _, axes = np.linalg.eigh(covariance)
        normal = axes[:, 2] if abs(axes[:, 2] @ direction) < 0.9 else axes[:, 1]
        side = spread @ normal
        cut = np.quantile(side, rng.uniform(0.38, 0.62)) if count > 3 else 0.0
        upper = side > cut
        if upper.all() or not upper.any():
            upper = side > np.median(side)
            if not upper.any():
                upper[0] = True
        stack.append((end, direction, points[upper], own))
        stack.append((end, direction, points[~upper], own))
    return Branches(np.array(starts), np.array(ends), np.array(first), np.array(last), np.array(fed))


def draw_coverage(branches: Branches, lattice: Lattice, coverage: np.ndarray, grow_mm: float = 0.0) -> None:
    """Draw tubes into ``coverage`` (uint8, 255 = voxel full), keeping the larger value where tubes meet.

    ``grow_mm`` is added to every radius. A tube thinner than a voxel fills it by the share of its cross-section.
    """
    voxel = float(np.prod(lattice.spacing)) ** (1.0 / 3.0)
    low, spacing, shape = lattice.low, np.asarray(lattice.spacing), np.asarray(lattice.shape)
    axes = [lattice.axis(i) for i in range(3)]
    reach = np.maximum(branches.start_radius, branches.end_radius) + grow_mm + 0.6 * voxel
    first = np.ceil((np.minimum(branches.start, branches.end) - reach[:, None] - low) / spacing).astype(int)
    last = np.floor((np.maximum(branches.start, branches.end) + reach[:, None] - low) / spacing).astype(int) + 1
    first, last = np.maximum(first, 0), np.minimum(last, shape)
    for i in np.flatnonzero((last > first).all(axis=1)):
        box = (slice(first[i, 0], last[i, 0]), slice(first[i, 1], last[i, 1]), slice(first[i, 2], last[i, 2]))
        start = branches.start[i].astype(np.float32)
        along = (branches.end[i] - branches.start[i]).astype(np.float32)
        square = float(along @ along)
        z = (axes[0][box[0]] - start[0])[:, None, None]
        y = (axes[1][box[1]] - start[1])[None, :, None]
        x = (axes[2][box[2]] - start[2])[None, None, :]
        t = (z * along[0] + y * along[1]) + x * along[2]
        t *= 1.0 / max(square, 1e-9)
        np.clip(t, 0.0, 1.0, out=t)
        distance = (z - t * along[0]) ** 2
        distance += (y - t * along[1]) ** 2
        distance += (x - t * along[2]) ** 2
        np.sqrt(distance, out=distance)
        r0, r1 = float(branches.start_radius[i]) + grow_mm, float(branches.end_radius[i]) + grow_mm
        radius = r0 + (r1 - r0) * t
        fill = (radius - distance) / voxel + 0.5
        thinnest = min(r0, r1)
        full = 255.0 * min(1.0, (1.3 * thinnest / (0.5 * voxel)) ** 2) if thinnest < 0.5 * voxel else 255.0
        np.clip(fill, 0.0, 1.0, out=fill)
        fill *= full
        part = coverage[box]
        np.maximum(part, fill.astype(np.uint8), out=part)


def draw_distance(branches: Branches, lattice: Lattice, distance: np.ndarray, reach_mm: float = 6.0) -> None:
    """Lower ``distance`` (float32, mm, negative inside) to that of the tubes' surfaces, up to ``reach_mm`` outside."""
    low, spacing, shape = lattice.low, np.asarray(lattice.spacing), np.asarray(lattice.shape)
    axes = [lattice.axis(i) for i in range(3)]
    reach = np.maximum(branches.start_radius, branches.end_radius) + reach_mm
    first = np.ceil((np.minimum(branches.start, branches.end) - reach[:, None] - low) / spacing).astype(int)
    last = np.floor((np.maximum(branches.start, branches.end) + reach[:, None] - low) / spacing).astype(int) + 1
    first, last = np.maximum(first, 0), np.minimum(last, shape)
    for i in np.flatnonzero((last > first).all(axis=1)):
        box = (slice(first[i, 0], last[i, 0]), slice(first[i, 1], last[i, 1]), slice(first[i, 2], last[i, 2]))
        start = branches.start[i].astype(np.float32)
        along = (branches.end[i] - branches.start[i]).astype(np.float32)
        z = (axes[0][box[0]] - start[0])[:, None, None]
        y = (axes[1][box[1]] - start[1])[None, :, None]
        x = (axes[2][box[2]] - start[2])[None, None, :]
        t = np.clip((z * along[0] + y * along[1] + x * along[2]) / max(float(along @ along), 1e-9), 0.0, 1.0)
        gap = np.sqrt((z - t * along[0]) ** 2 + (y - t * along[1]) ** 2 + (x - t * along[2]) ** 2)
        r0, r1 = float(branches.start_radius[i]), float(branches.end_radius[i])
        part = distance[box]
        np.minimum(part, gap - (r0 + (r1 - r0) * t), out=part)
