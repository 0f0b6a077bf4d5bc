"""Working grids: boxes of voxels along the patient axes, and how images come onto them.

All matching happens on grids whose axes are those of the patient (LPS), whatever the direction cosines of the images are, so that
flipped or oblique acquisitions need no case of their own. Arrays are float32 in the order (z, y, x); vectors are in the order (x, y, z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

IDENTITY_DIRECTION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Grid:
    """A box of voxels along the patient axes: LPS position of the first voxel centre and spacing in mm, size in voxels (x, y, z)."""

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an array on this grid (z, y, x)."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def centre(self) -> np.ndarray:
        """LPS position of the middle of the box."""
        return np.asarray(self.origin) + 0.5 * np.asarray(self.spacing) * (np.asarray(self.size) - 1)

    def axis(self, axis: int) -> np.ndarray:
        """LPS coordinates in mm of the voxel centres along axis 0 (x), 1 (y) or 2 (z)."""
        return self.origin[axis] + self.spacing[axis] * np.arange(self.size[axis])

    def coarser(self) -> Grid:
        """Return the grid of every second voxel."""
        size = tuple((length + 1) // 2 for length in self.size)
        spacing = tuple(2.0 * length for length in self.spacing)
        return Grid(self.origin, spacing, size)  # type: ignore[arg-type]

    def image(self, array: np.ndarray) -> sitk.Image:
        """Return an array (z, y, x), or a vector array (z, y, x, 3), as an image on this grid."""
        image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
        image.SetOrigin(self.origin)
        image.SetSpacing(self.spacing)
        return image

    def indices_of(self, points: np.ndarray) -> np.ndarray:
        """Return continuous indices (n, 3) in array order (z, y, x) of LPS points (n, 3)."""
        return ((np.asarray(points) - self.origin) / self.spacing)[:, ::-1]


def corners(image: sitk.Image) -> np.ndarray:
    """Return the LPS positions (8, 3) of the outer corners of the voxel box of an image."""
    size = image.GetSize()
    edges = [(-0.5, length - 0.5) for length in size]
    return np.array(
        [image.TransformContinuousIndexToPhysicalPoint((x, y, z)) for x in edges[0] for y in edges[1] for z in edges[2]]
    )


def axis_spacing(image: sitk.Image) -> np.ndarray:
    """Return how far apart voxels are along each patient axis, in mm (x, y, z): exact where the grid is not oblique."""
    direction = np.abs(np.array(image.GetDirection()).reshape(3, 3))
    return (direction**2 @ np.array(image.GetSpacing())) / (direction**2).sum(axis=1)


def grid_over(low: np.ndarray, high: np.ndarray, spacing: np.ndarray, margin_mm: float = 0.0) -> Grid:
    """Return the grid of the given spacing that covers a box of LPS positions and a margin around it."""
    spacing = np.asarray(spacing, dtype=float)
    extent = np.asarray(high) - np.asarray(low) + 2.0 * margin_mm
    size = np.maximum(np.ceil(extent / spacing).astype(int), 4)
    origin = 0.5 * (np.asarray(high) + np.asarray(low)) - 0.5 * spacing * (size - 1)
    return Grid(
        (float(origin[0]), float(origin[1]), float(origin[2])),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (int(size[0]), int(size[1]), int(size[2])),
    )


def reduce(image: sitk.Image, spacing_mm: float | np.ndarray) -> sitk.Image:
    """Average neighbouring voxels as long as they stay at least as fine as ``spacing_mm`` (scalar, or along the patient axes).

    Sampling a fine image on a coarse grid without this would alias noise into the coarse image.
    """
    wanted = np.broadcast_to(np.asarray(spacing_mm, dtype=float), (3,))
    direction = np.abs(np.array(image.GetDirection()).reshape(3, 3))
    per_image_axis = (direction**2).T @ wanted
    factors = [
        int(min(max(1, np.floor(want / have + 0.01)), length))
        for want, have, length in zip(per_image_axis, image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return image if max(factors) == 1 else sitk.BinShrink(image, factors)


def sample(
    image: sitk.Image,
    grid: Grid,
    transform: sitk.Transform | None = None,
    *,
    outside: float = 0.0,
    nearest: bool = False,
) -> np.ndarray:
    """Return an image on a grid as a float32 array (z, y, x); ``transform`` maps points of the grid to points of the image."""
    result = sitk.Resample(
        image,
        grid.size,
        transform if transform is not None else sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        grid.origin,
        grid.spacing,
        IDENTITY_DIRECTION,
        outside,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(result)


def covered(image: sitk.Image, grid: Grid, transform: sitk.Transform | None = None) -> np.ndarray:
    """Return where on a grid an image has voxels, as a bool array (z, y, x)."""
    origin, spacing, size = image.GetOrigin(), np.array(image.GetSpacing()), np.array(image.GetSize())
    ones = sitk.Image([2, 2, 2], sitk.sitkUInt8) + 1
    direction = np.array(image.GetDirection()).reshape(3, 3)
    extent = spacing * size
    ones.SetSpacing((extent / 2.0).tolist())
    ones.SetDirection(image.GetDirection())
    ones.SetOrigin((np.array(origin) + direction @ (extent / 4.0 - spacing / 2.0)).tolist())
    return sample(ones, grid, transform, nearest=True) > 0
