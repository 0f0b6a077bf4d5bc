"""How a patient lies and breathes differently at another time point: a smooth map that can be inverted.

A point p of the baseline goes to ``R (p + u(p) - c) + c + t``: breathing and an irregular component ``u`` first, then
the posture, a rotation about the centre c and a translation. ``u`` is *defined* as the trilinear interpolation of the
nodes of a lattice, so the displacement that is written to a file on the same lattice is the truth itself and
not a sample of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .lattice import Lattice, smooth_noise
from .scenario import Motion


@dataclass(frozen=True, eq=False)
class Deformation:
    """A map from baseline points to the points of another time point; points are (z, y, x) in mm.

    ``inner`` is u on the nodes of ``lattice`` as (3, z, y, x); ``rotation`` acts on (z, y, x).
    """

    lattice: Lattice
    inner: np.ndarray
    rotation: np.ndarray
    centre: np.ndarray
    translation: np.ndarray

    @property
    def is_identity(self) -> bool:
        """Whether every point stays where it is."""
        return not self.inner.any() and not self.translation.any() and np.array_equal(self.rotation, np.eye(3))

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Carry baseline points (..., 3) to the time point."""
        moved = points + self._inner_at(points)
        return (moved - self.centre) @ self.rotation.T + self.centre + self.translation

    def inverse(self, points: np.ndarray, start: np.ndarray | None = None, tolerance_mm: float = 2e-3) -> np.ndarray:
        """Carry points (..., 3) of the time point back to the baseline.

        A fixed-point iteration: u contracts, because breathing stretches the lungs by far less than their height.
        ``start`` is a first guess of the result.
        """
        target = (points - self.translation - self.centre) @ self.rotation + self.centre
        current = target if start is None else start
        for _ in range(200):
            following = target - self._inner_at(current)
            error = float(np.abs(following - current).max(initial=0.0))
            current = following
            if error < tolerance_mm:
                break
        return current

    def inverse_on(self, lattice: Lattice) -> np.ndarray:
        """Return the baseline point of every node of a lattice at the time point, as (3, z, y, x)."""
        coarse = Lattice.covering(lattice.low, lattice.high, 4 * max(lattice.spacing))
        guess = np.moveaxis(self.inverse(coarse.points(), tolerance_mm=0.02), -1, 0)
        start = np.stack([coarse.expand(guess[i], lattice) for i in range(3)], axis=-1).astype(np.float64)
        return np.moveaxis(self.inverse(lattice.points(), start), -1, 0)

    @cached_property
    def jacobian(self) -> np.ndarray:
        """Determinant of the map at the nodes of its lattice: local volume at the time point over that at baseline."""
        gradient = np.empty((3, 3, *self.lattice.shape), dtype=np.float32)
        for i in range(3):
            gradient[i] = np.gradient(self.inner[i], *self.lattice.spacing)
            gradient[i, i] += 1.0
        return _determinant(gradient)

    def smallest_cell_jacobian(self) -> float:
        """Return the smallest determinant at the eight corners of the cells, with the differences of each cell.

        A trilinear map has a kink at every node; each cell around a node has its own determinant there.
        """
        smallest = np.inf
        spacing = self.lattice.spacing
        differences = [np.diff(self.inner, axis=axis + 1) / spacing[axis] for axis in range(3)]
        cells = tuple(count - 1 for count in self.lattice.shape)
        for corner in np.ndindex(2, 2, 2):
            gradient = np.empty((3, 3, *cells), dtype=np.float32)
            for axis in range(3):
                box = tuple(
                    slice(0, cells[k]) if k == axis else slice(corner[k], corner[k] + cells[k]) for k in range(3)
                )
                gradient[:, axis] = differences[axis][:, box[0], box[1], box[2]]
                gradient[axis, axis] += 1.0
            smallest = min(smallest, float(_determinant(gradient).min()))
        return smallest

    def displacement_image(self) -> sitk.Image:
        """Return the displacement of baseline points in mm as a vector volume (LPS components, float32)."""
        points = self.lattice.points()
        vectors = (self.forward(points) - points)[..., ::-1].astype(np.float32)
        image = sitk.GetImageFromArray(np.ascontiguousarray(vectors), isVector=True)
        image.SetOrigin(self.lattice.origin[::-1])
        image.SetSpacing(self.lattice.spacing[::-1])
        return image

    def _inner_at(self, points: np.ndarray) -> np.ndarray:
        flat = points.reshape(-1, 3)
        index = ((flat - self.lattice.low) / np.asarray(self.lattice.spacing)).T
        moved = [ndimage.map_coordinates(part, index, order=1, mode="nearest", prefilter=False) for part in self.inner]
        return np.stack(moved, axis=-1).reshape(points.shape)


def identity(lattice: Lattice) -> Deformation:
    """Return the map that leaves every point where it is."""
    return Deformation(lattice, np.zeros((3, *lattice.shape), np.float32), np.eye(3), np.zeros(3), np.zeros(3))


def breathing_and_posture(
    motion: Motion,
    rng: np.random.Generator,
    lattice: Lattice,
    *,
    apex_z: float,
    dome_z: float,
    chest_half_width: float,
    spine_y: float,
    centre: np.ndarray,
) -> Deformation:
    """Build the map of one time point.

    With a deeper breath the diaphragm goes down by ``motion.breathing_mm``: the shift grows from nothing at the apex to
    its full size below the domes and stays so in the abdomen; it fades towards the back and the side walls, where
    tissue hardly moves along the body axis. The chest widens forwards and sideways with it.
    """
    z, y, x = lattice.open_mesh()
    # The recesses lie below the domes and take part.
    depth = 1.0 - _fade((apex_z + 15.0 - z) / (apex_z - dome_z + 45.0))
    across = _fade(np.abs(x) / (1.25 * chest_half_width)) * _fade(np.clip((y - spine_y + 75.0) / 110.0, 0.0, 1.0))
    breathing = motion.breathing_mm
    inner = np.empty((3, *lattice.shape), dtype=np.float32)
    inner[0] = -breathing * depth * (0.12 + 0.88 * across)
    inner[1] = 0.18 * breathing * depth * np.tanh((y - spine_y) / 120.0)
    inner[2] = 0.12 * breathing * depth * np.tanh(x / 150.0)
    if motion.irregular_mm:
        noise = smooth_noise(rng, lattice, motion.irregular_scale_mm, components=3)
        inner += noise * np.float32(motion.irregular_mm / 2.0)
    return Deformation(
        lattice,
        inner,
        _rotation_zyx(motion.rotation_degrees),
        np.asarray(centre, dtype=np.float64),
        np.asarray(motion.translation_mm[::-1], dtype=np.float64),
    )


def _determinant(matrix: np.ndarray) -> np.ndarray:
    """Return the determinants of matrices (3, 3, ...)."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _fade(t: np.ndarray) -> np.ndarray:
    """Fall smoothly from 1 at t = 0 to 0 at t = 1."""
    t = np.clip(t, 0.0, 1.0)
    return 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t**2)


def _rotation_zyx(degrees: tuple[float, float, float]) -> np.ndarray:
    """Return the rotation about the LPS axes x, then y, then z, as a matrix that acts on (z, y, x)."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x)[::-1, ::-1]
