"""Area, volume and diameters of the surface of a region, as pyradiomics defines them, in a time that grows with its size.

The surface is the marching cubes mesh (W. E. Lorensen and H. E. Cline, doi:10.1145/37402.37422) whose vertices lie halfway
between voxels inside and outside. pyradiomics compares all pairs of vertices for the diameters, which takes minutes for a
lung; the largest distance is between two corners of the convex hull, so only those are compared here. Area and volume are
sums over the 256 kinds of cube, of which pyradiomics itself measures one each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import ConvexHull

# Corners of a cube (z, y, x) in the order of the bits of its code.
_CORNERS = ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0))


@dataclass(frozen=True)
class Surface:
    """Measures of a mesh: mm², mm³, and the largest distances (mm) in planes across z, y and x and in space."""

    area: float
    volume: float
    diameters: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class _Cubes:
    """What each kind of cube adds: area (256), volume (256) at the origin, and volume per step along each axis (3, 256)."""

    area: np.ndarray
    volume: np.ndarray
    step: np.ndarray


def surface_of(mask: np.ndarray, spacing_zyx: tuple[float, ...]) -> Surface:
    """Measure the surface of a region.

    Parameters
    ----------
    mask
        Bool array (z, y, x) with at least one voxel set.
    spacing_zyx
        In mm.
    """
    padded = np.pad(mask, 1)
    cubes = _cubes(tuple(spacing_zyx))
    codes = np.zeros(tuple(size - 1 for size in padded.shape), dtype=np.uint8)
    for bit, corner in enumerate(_CORNERS):
        part = tuple(slice(first, first + size) for first, size in zip(corner, codes.shape, strict=True))
        codes |= padded[part].view(np.uint8) << np.uint8(bit)
    places = np.nonzero((codes != 0) & (codes != 255))
    found = codes[places]
    counts = np.bincount(found, minlength=256)
    volume = counts @ cubes.volume
    for axis in range(3):
        volume += np.bincount(found, weights=places[axis], minlength=256) @ cubes.step[axis]
    return Surface(float(counts @ cubes.area), float(volume), _diameters(padded, spacing_zyx))


@lru_cache(maxsize=32)
def _cubes(spacing_zyx: tuple[float, ...]) -> _Cubes:
    from radiomics import cShape

    spacing = np.array(spacing_zyx)
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    blocks = np.zeros((256, 2, 2, 2), dtype=bool)
    for bit, corner in enumerate(_CORNERS):
        blocks[:, corner[0], corner[1], corner[2]] = bits[:, bit]
    area, volume = np.array([cShape.calculate_coefficients(block, spacing)[:2] for block in blocks]).T
    step = np.empty((3, 256))
    for axis in range(3):
        for code, block in enumerate(blocks):
            # One step away from the origin, behind a cube that repeats the face between the two.
            face = np.take(block, [0], axis=axis)
            pair = np.concatenate([face, block], axis=axis)
            front = np.concatenate([face, face], axis=axis)
            at_origin = volume[code] + cShape.calculate_coefficients(front, spacing)[1]
            step[axis, code] = cShape.calculate_coefficients(pair, spacing)[1] - at_origin
    return _Cubes(area, volume, step)


def _diameters(padded: np.ndarray, spacing_zyx: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Return the largest distances between vertices that share a z, a y, or an x coordinate, and between any two."""
    scale = np.array(spacing_zyx) / 2
    rows = _row_ends(padded)
    # In planes across x the rows that run along x are points; rows along z serve there.
    turned = _row_ends(padded.transpose(2, 1, 0))[:, ::-1]
    planar = [
        _largest_in_planes(points * scale, points[:, axis]) for axis, points in ((0, rows), (1, rows), (2, turned))
    ]
    return planar[0], planar[1], planar[2], _largest(_hull(rows * scale))


def _row_ends(padded: np.ndarray) -> np.ndarray:
    """Return the first and last vertex of every row along the last axis, in half voxels (n, 3).

    A vertex between two of its row is never the far end of a largest distance.
    """
    ends = []
    for axis in range(3):
        low = tuple(slice(0, -1) if other == axis else slice(None) for other in range(3))
        high = tuple(slice(1, None) if other == axis else slice(None) for other in range(3))
        crossing = padded[low] != padded[high]
        first, second = np.nonzero(crossing.any(axis=2))
        lines = crossing[first, second]
        half = np.array([int(axis == other) for other in range(3)])
        for last in (lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)):
            ends.append(2 * np.column_stack([first, second, last]) + half)
    return np.concatenate(ends)


def _largest_in_planes(points: np.ndarray, planes: np.ndarray) -> float:
    """Return the largest distance between points (n, 3) of the same plane; ``planes`` holds its number for each."""
    order = np.argsort(planes, kind="stable")
    points, planes = points[order], planes[order]
    starts = np.flatnonzero(np.diff(planes, prepend=planes[0] - 1))
    bounds = np.linalg.norm(np.maximum.reduceat(points, starts) - np.minimum.reduceat(points, starts), axis=1)
    groups = np.split(points, starts[1:])
    best = 0.0
    for index in np.argsort(-bounds):
        if bounds[index] <= best:
            break
        best = max(best, _largest(groups[index]))
    return best


def _hull(points: np.ndarray) -> np.ndarray:
    return points[ConvexHull(points).vertices]


def _largest(points: np.ndarray, block: int = 1024) -> float:
    """Return the largest distance between any two points (n, 3), a block at a time to bound the memory."""
    best = 0.0
    for first in range(0, len(points), block):
        difference = points[first : first + block, None, :] - points[None, first:, :]
        best = max(best, float(np.einsum("ijk,ijk->ij", difference, difference).max()))
    return best**0.5
