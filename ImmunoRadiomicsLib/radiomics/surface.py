"""Area, volume and diameters of the surface of a region, as pyradiomics defines them, in a time that grows with its size.

The surface is the marching cubes mesh (W. E. Lorensen and H. E. Cline, doi:10.1145/37402.37422) whose vertices lie halfway
between voxels inside and outside. pyradiomics compares all pairs of vertices for the diameters, which takes minutes for a
lung; the largest distance is between two corners of the convex hull, so only those are compared here. Area and volume are
sums over the 256 kinds of cube.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import ConvexHull, QhullError

# The corners (z, y, x) of a cube in the order of the bits of its code, and its edges as pairs of corners.
_CORNERS = np.array([(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)])
_EDGES = [(low, low | bit) for bit in (4, 2, 1) for low in range(8) if not low & bit]

# The corner whose cubes are measured as the outside of their complement: neighbours can then disagree on a face that is cut
# twice, but this is how pyradiomics halves its table.
_TURNED = 0b0100_0000

# The triangles of every cube without that corner, in ascending order of the codes: three hexadecimal digits, each an edge on
# which the triangle has a corner, in the order that makes its normal (z, y, x) point outward. Where a polygon does not lie
# in a plane, area and volume depend on how it is cut into triangles; these cuts give the areas and volumes of pyradiomics.
_TRIANGLES = """
    - 480 185 410451 294 280298 185294 210251295 593 480593 183893 310430493 234354 380358230 182842123 210231 0a6
    4868a6 0a6185 1a5a65645 0a6294 29698a9a6 0a6185294 1a5a65625295 0a6593 5934868a6 0a6183893 1a3a64a43493
    0a6234354 2363565868a6 0a6182842123 1a2a62123 7a1 4807a1 7857a8 4a047a457 7a1294 2802987a1 2947857a8
    2a057a25a295 7a1593 4807a1593 793a897a9 4a047a437493 7a1234354 3803582307a1 2343747a4a84 3a037a230 016176
    781748764 086856576 456576 016176294 781298728762 086856576294 296956576 016176593 781748764593 086893836376
    793749764 016176234354 781358238628768 086842823837876 236376 3b7 4803b7 1853b7 4104513b7 2943b7 2802983b7
    1852943b7 2102512953b7 5979b7 4805979b7 18789b8b7 4104714b749b 2b4b74754 2807582782b7 1878474272b7 2102712b7
    0a63b7 3b74868a6 0a61853b7 1a5a656453b7 0a62943b7 29698a9a63b7 0a61852943b7 1a5a656252953b7 0a65979b7
    6946b97857a8 0a618789b8b7 1a616414919b1b7 0a62b4b74754 2b727525828a2a6 0a61878474272b7 1a2a621272b7 3a13ba
    4803a13ba 3b5ba8b85 4a03ba43a453 3a13ba294 0a2ab2183893 2943b5ba8b85 5a05ba53b250295 5a19ba59a 4805a19ba59a
    89a9ba 4a09ba49a 5a12ba52a542 580250a15ba52b5 2b4ba8b84 2a02ba 0130363b6 3816483683b6 0868565363b6 3b5b65645
    0130363b6294 6816986293613b6 0868565363b6294 2969565363b6 0161565969b6 481641b619b1591 08689b8b6 4969b6
    01b15b54b42b0b6 5812b6 08684b42b8b6 2b6
"""

# Directions in which a plane is measured to see whether its points are worth comparing.
_WIDTHS = 12
# Points of a plane that are compared faster than their hull is found.
_FEW = 64


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
    spacing = np.array(spacing_zyx)
    middles = np.array([(_CORNERS[one] + _CORNERS[other]) / 2 for one, other in _EDGES]) * spacing
    area, volume, step = np.zeros(256), np.zeros(256), np.zeros((3, 256))
    direct = (code for code in range(256) if not code & _TURNED)
    for code, word in zip(direct, _TRIANGLES.split(), strict=True):
        if word == "-":
            continue
        corners = middles[[int(digit, 16) for digit in word]].reshape(-1, 3, 3)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area[code] = np.linalg.norm(normal, axis=1).sum() / 2
        volume[code] = np.einsum("ij,ij->", normal, corners[:, 0]) / 6
        step[:, code] = normal.sum(axis=0) * spacing / 6
    area += area[::-1]
    volume -= volume[::-1]
    step -= step[:, ::-1].copy()
    return _Cubes(area, volume, step)


def _diameters(padded: np.ndarray, spacing_zyx: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Return the largest distances between vertices that share a z, a y, or an x coordinate, and between any two."""
    scale = np.array(spacing_zyx) / 2
    rows = _row_ends(padded)
    # In planes across x the rows that run along x are points; rows along z serve there.
    turned = _row_ends(padded.transpose(2, 1, 0))[:, ::-1]
    planar = [_largest_in_planes(points, axis, scale) for axis, points in ((0, rows), (1, rows), (2, turned))]
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


def _largest_in_planes(points: np.ndarray, axis: int, scale: np.ndarray) -> float:
    """Return the largest distance between points (n, 3) that share a coordinate, each axis multiplied by a scale.

    A distance is no larger than the width in the nearest of some directions, divided by the cosine of the angle between them;
    only planes where this exceeds the largest distance so far are searched.
    """
    points = points[np.argsort(points[:, axis], kind="stable")]
    starts = np.flatnonzero(np.diff(points[:, axis], prepend=points[0, axis] - 1))
    scaled = points * scale
    angles = np.arange(_WIDTHS) * (np.pi / _WIDTHS)
    across = np.delete(scaled, axis, axis=1) @ np.stack([np.cos(angles), np.sin(angles)])
    widths = (np.maximum.reduceat(across, starts) - np.minimum.reduceat(across, starts)).max(axis=1)
    # The last factor is for rounding.
    bounds = widths / np.cos(np.pi / (2 * _WIDTHS)) * (1 + 1e-9)
    groups = np.split(scaled, starts[1:])
    best = 0.0
    for index in np.argsort(-bounds):
        if bounds[index] <= best:
            break
        best = max(best, _largest(_corners(groups[index], axis)))
    return best


def _corners(points: np.ndarray, axis: int) -> np.ndarray:
    """Return the corners of the convex hull of points (n, 3) in a plane across an axis, or all points where they are few."""
    if len(points) <= _FEW:
        return points
    try:
        return points[ConvexHull(np.delete(points, axis, axis=1)).vertices]
    except QhullError:  # all in a line
        return points


def _hull(points: np.ndarray) -> np.ndarray:
    return points[ConvexHull(points).vertices]


def _largest(points: np.ndarray, block: int = 1024) -> float:
    """Return the largest distance between any two points (n, 3), a block at a time to bound the memory."""
    best = 0.0
    for first in range(0, len(points), block):
        difference = points[first : first + block, None, :] - points[None, first:, :]
        best = max(best, float(np.einsum("ijk,ijk->ij", difference, difference).max()))
    return best**0.5
