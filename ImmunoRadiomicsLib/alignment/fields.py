"""Displacement fields as ITK transforms, and their inverses."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..transforms import newton_steps
from .deform import identity, warp
from .grids import Grid

# Beyond the matched box the displacement fades to nothing over at least this many voxels, and over a distance of at least
# this many times the largest displacement at the faces of the box, so that the map stays invertible.
_FADE_VOXELS = 4
_FADE_RATIO = 1.7


def padded(field: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Widen a field (3, z, y, x in voxels) so that it fades to zero at the faces of its box.

    The map is then the identity on and beyond the faces, and so maps the box onto itself.
    """
    faces = [np.take(field, edge, axis=axis) for axis in (1, 2, 3) for edge in (0, -1)]
    largest = max(float(np.sqrt((face**2).sum(axis=0)).max()) for face in faces)
    width = int(np.ceil(max(_FADE_VOXELS, _FADE_RATIO * largest)))
    wide = np.pad(field, ((0, 0), (width, width), (width, width), (width, width)), mode="edge")
    for axis, length in enumerate(grid.shape, start=1):
        position = np.arange(length + 2 * width) - width
        beyond = np.maximum(np.maximum(-position, position - (length - 1)), 0) / width
        fade = (0.5 * (1.0 + np.cos(np.pi * np.minimum(beyond, 1.0)))).astype(np.float32)
        wide *= fade.reshape([-1 if other == axis else 1 for other in range(4)])
    origin = np.asarray(grid.origin) - width * np.asarray(grid.spacing)
    size = tuple(length + 2 * width for length in grid.size)
    return wide, Grid(tuple(origin.tolist()), grid.spacing, size)  # type: ignore[arg-type]


def inverse_field(field: np.ndarray, *, iterations: int = 30, tolerance: float = 1e-4) -> np.ndarray:
    """Return the field of the inverse map on the same box (both in voxels).

    Each node is carried back to within ``tolerance`` voxels (1e-3 mm for nodes 10 mm apart), by fixed-point iteration (M. Chen 2008,
    doi:10.1118/1.2816107). Where the map is steep that overshoots, so the step is halved at nodes whose error grew; nodes that are not
    there in time are solved by Newton steps. Where the map folds, the nearest place that was found is kept.

    The inverse of a field that is linear between its nodes has its bends elsewhere than at nodes, so between them the result is off: for
    fields of the alignment with nodes 4.7 mm apart, by 0.01 mm at half of the places in the body, 0.06 mm at the 95th percentile and up to
    0.5 mm. Where a place matters, ``invert_points`` finds it exactly.
    """
    start = identity(field.shape[1:]).reshape(3, -1)
    result = -field.reshape(3, -1)
    active = np.arange(result.shape[1])
    step = np.ones(active.size, dtype=np.float32)
    last = np.full(active.size, np.inf, dtype=np.float32)
    for _ in range(iterations):
        there = result[:, active] + start[:, active]
        error = result[:, active] + np.stack([warp(item, there) for item in field])
        size = np.sqrt((error**2).sum(axis=0))
        step[size > last] *= 0.5
        result[:, active] -= step * error
        keep = size > tolerance
        active, step, last = active[keep], step[keep], size[keep]
        if not active.size:
            break
    else:
        result[:, active] = _solved(field, start[:, active], result[:, active], tolerance)
    return result.reshape(field.shape)


def _solved(field: np.ndarray, nodes: np.ndarray, guess: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the inverse displacement of some nodes (3, n) from a guess, by Newton steps; all in voxels."""

    def carry(places: np.ndarray) -> np.ndarray:
        return places + np.stack([warp(item, places.T) for item in field], axis=1)

    target = nodes.T.astype(float)
    here = target + guess.T
    newton_steps(here, carry(here) - target, target, carry, tolerance)
    return (here - target).T


def field_transform(field: np.ndarray, grid: Grid) -> sitk.DisplacementFieldTransform:
    """Return a field (3, z, y, x in voxels, array order) as an ITK transform (displacements in mm, x, y, z)."""
    vectors = np.empty((*field.shape[1:], 3), dtype=np.float64)
    for axis in range(3):
        vectors[..., axis] = field[2 - axis] * grid.spacing[axis]
    return sitk.DisplacementFieldTransform(grid.image(vectors))


def sample_transform(transform: sitk.Transform, grid: Grid) -> np.ndarray:
    """Return the displacement of any transform on a grid, in mm, as float32 (z, y, x, 3) with components (x, y, z)."""
    image = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat32, grid.size, grid.origin, grid.spacing)
    return sitk.GetArrayFromImage(image)


def field_at(vectors: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """Interpolate a vector array (z, y, x, 3) on a grid at LPS points (n, 3)."""
    places = grid.indices_of(points).T
    return np.stack(
        [ndimage.map_coordinates(vectors[..., i], places, order=1, mode="nearest") for i in range(3)], axis=1
    )
