"""The features of the shape of a region in space and in a plane, as pyradiomics defines them."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from ..surface import surface_of
from .texture import Values


def shape_features(mask: np.ndarray, spacing_zyx: tuple[float, ...]) -> Values:
    """Return the features of a region in space.

    Parameters
    ----------
    mask
        Bool array (z, y, x) with at least one voxel set.
    spacing_zyx
        In mm.
    """
    surface = surface_of(mask, spacing_zyx)
    area, volume = surface.area, surface.volume
    least, minor, major = _axes(mask, spacing_zyx)
    sphere = (36 * math.pi * volume**2) ** (1 / 3)
    return {
        "Compactness1": volume / (area**1.5 * math.sqrt(math.pi)),
        "Compactness2": 36 * math.pi * volume**2 / area**3,
        "Elongation": _root_of_ratio(minor, major),
        "Flatness": _root_of_ratio(least, major),
        "LeastAxisLength": _axis_length(least),
        "MajorAxisLength": _axis_length(major),
        "Maximum2DDiameterColumn": surface.diameters[1],
        "Maximum2DDiameterRow": surface.diameters[2],
        "Maximum2DDiameterSlice": surface.diameters[0],
        "Maximum3DDiameter": surface.diameters[3],
        "MeshVolume": volume,
        "MinorAxisLength": _axis_length(minor),
        "SphericalDisproportion": area / sphere if sphere else math.nan,
        "Sphericity": sphere / area,
        "SurfaceArea": area,
        "SurfaceVolumeRatio": area / volume if volume else math.nan,
        "VoxelVolume": int(np.count_nonzero(mask)) * math.prod(spacing_zyx),
    }


def shape2d_features(mask: np.ndarray, spacing_yx: tuple[float, ...]) -> Values:
    """Return the features of a region in a plane.

    Parameters
    ----------
    mask
        Bool array (y, x), or of any other two axes, with at least one voxel set.
    spacing_yx
        Of the same axes, in mm.
    """
    outline = _outline(np.pad(mask, 1)) * (np.array(spacing_yx) / 2)
    start, end = outline[:, 0], outline[:, 1]
    perimeter = float(np.linalg.norm(end - start, axis=1).sum())
    surface = float((start[:, 0] * end[:, 1] - end[:, 0] * start[:, 1]).sum()) / 2
    minor, major = _axes(mask, spacing_yx)
    sphericity = 2 * math.sqrt(math.pi * surface) / perimeter
    return {
        "Elongation": _root_of_ratio(minor, major),
        "MajorAxisLength": _axis_length(major),
        "MaximumDiameter": _diameter(start),
        "MeshSurface": surface,
        "MinorAxisLength": _axis_length(minor),
        "Perimeter": perimeter,
        "PerimeterSurfaceRatio": perimeter / surface,
        "PixelSurface": int(np.count_nonzero(mask)) * math.prod(spacing_yx),
        "Sphericity": sphericity,
        "SphericalDisproportion": 1 / sphericity,
    }


def _axes(mask: np.ndarray, spacing: tuple[float, ...]) -> list[float]:
    """Return the variances along the principal axes, ascending."""
    # As pyradiomics has it, with one layer around the region: the rounding of a flat region depends on it.
    points = (np.argwhere(mask) + 1) * np.array(spacing)
    points -= points.mean(axis=0)
    points /= math.sqrt(len(points))
    values = np.linalg.eigvals(points.T.copy() @ points)
    # A variance that is negative by rounding alone is none.
    values[(values < 0) & (values > -1e-10)] = 0
    return [float(value) for value in np.sort(values)]


def _axis_length(variance: float) -> float:
    return 4 * math.sqrt(variance) if variance >= 0 else math.nan


def _root_of_ratio(variance: float, major: float) -> float:
    return math.sqrt(variance / major) if variance >= 0 and major > 0 else math.nan


def _outline(padded: np.ndarray) -> np.ndarray:
    """Return the lines (n, 2, 2) around a region, in half pixels: start and end, each (y, x), with the inside on one side."""
    lines = []
    inside = padded.astype(bool)
    a, b, c, d = inside[:-1, :-1], inside[:-1, 1:], inside[1:, 1:], inside[1:, :-1]
    code = a + 2 * b + 4 * c + 8 * d
    # The middles of the sides of a square of four pixels.
    left, top, right, bottom = (1, 0), (0, 1), (1, 2), (2, 1)
    kinds = {
        1: [(left, top)],
        2: [(top, right)],
        3: [(left, right)],
        4: [(right, bottom)],
        5: [(right, bottom), (left, top)],
        6: [(top, bottom)],
        7: [(left, bottom)],
    }
    # Two pixels that touch at a corner are parted, two gaps that do so are joined.
    reverse = {15 - kind: [(end, start) for start, end in pairs] for kind, pairs in kinds.items()}
    reverse[10] = [(top, right), (bottom, left)]
    for kind, pairs in (kinds | reverse).items():
        corners = 2 * np.argwhere(code == kind)
        lines += [np.stack([corners + start, corners + end], axis=1) for start, end in pairs]
    return np.concatenate(lines)


def _diameter(points: np.ndarray) -> float:
    """Return the largest distance between any two points (n, 2)."""
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError:
        points = np.unique(points, axis=0)
    difference = points[:, None] - points[None]
    return float(np.sqrt((difference**2).sum(axis=2).max()))
