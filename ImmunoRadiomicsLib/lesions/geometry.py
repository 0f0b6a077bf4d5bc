"""Between voxel indices, patient positions and transforms: the small geometry that every part of this folder uses.

Arrays are (z, y, x); positions are LPS millimetres, shape (n, 3), in the order (x, y, z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

Box = tuple[slice, slice, slice]
Offset = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Crop:
    """A bool array (z, y, x) cut out of a volume; ``offset_zyx`` is the index of its first voxel there."""

    voxels: np.ndarray
    offset_zyx: Offset = (0, 0, 0)

    @property
    def box(self) -> Box:
        """Where the crop lies in its volume."""
        z, y, x = (slice(start, start + size) for start, size in zip(self.offset_zyx, self.voxels.shape, strict=True))
        return z, y, x

    @property
    def count(self) -> int:
        """Number of voxels that are set."""
        return int(np.count_nonzero(self.voxels))

    def indices(self) -> np.ndarray:
        """Return the (n, 3) indices (z, y, x), in the volume, of the voxels that are set."""
        return np.argwhere(self.voxels) + np.asarray(self.offset_zyx)

    def paste(self, shape_zyx: tuple[int, ...]) -> np.ndarray:
        """Return a full bool array of the given shape."""
        full = np.zeros(shape_zyx, dtype=bool)
        full[self.box] = self.voxels
        return full


def bounding_box(mask: np.ndarray) -> Box | None:
    """Return the smallest box around the set voxels of a mask, None where there are none."""
    spans = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if hit.size == 0:
            return None
        spans.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return spans[0], spans[1], spans[2]


def crop_of(mask: np.ndarray, offset_zyx: Offset = (0, 0, 0)) -> Crop:
    """Cut a mask to its bounding box; an empty mask gives an empty crop."""
    box = bounding_box(mask)
    if box is None:
        return Crop(np.zeros((0, 0, 0), dtype=bool), offset_zyx)
    z, y, x = (int(start + side.start) for start, side in zip(offset_zyx, box, strict=True))
    return Crop(np.ascontiguousarray(mask[box], dtype=bool), (z, y, x))


def padded_box(box: Box, margin_zyx: tuple[int, int, int], shape_zyx: tuple[int, ...]) -> Box:
    """Widen a box by a margin in voxels, within a volume."""
    z, y, x = (
        slice(max(side.start - margin, 0), min(side.stop + margin, size))
        for side, margin, size in zip(box, margin_zyx, shape_zyx, strict=True)
    )
    return z, y, x


def margin_voxels(margin_mm: float, spacing_zyx: tuple[float, ...]) -> tuple[int, int, int]:
    """Return how many voxels along each axis cover a margin."""
    z, y, x = (int(np.ceil(margin_mm / step)) + 1 for step in spacing_zyx)
    return z, y, x


def spacing_of(image: sitk.Image) -> tuple[float, float, float]:
    """Spacing along (z, y, x) in millimetres."""
    x, y, z = image.GetSpacing()
    return z, y, x


def shape_of(image: sitk.Image) -> tuple[int, int, int]:
    """Size along (z, y, x)."""
    x, y, z = image.GetSize()
    return z, y, x


def voxel_volume_ml(image: sitk.Image) -> float:
    """Volume of one voxel."""
    return float(np.prod(image.GetSpacing())) / 1000.0


def index_to_world(indices_zyx: np.ndarray, image: sitk.Image) -> np.ndarray:
    """Carry (n, 3) continuous indices (z, y, x) to LPS positions."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    scaled = np.asarray(indices_zyx, dtype=float)[:, ::-1] * np.asarray(image.GetSpacing())
    return scaled @ direction.T + np.asarray(image.GetOrigin())


def world_to_index(points: np.ndarray, image: sitk.Image) -> np.ndarray:
    """Carry (n, 3) LPS positions to continuous indices (z, y, x)."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    scaled = (np.asarray(points, dtype=float) - np.asarray(image.GetOrigin())) @ direction
    return (scaled / np.asarray(image.GetSpacing()))[:, ::-1]


def axial_axis(image: sitk.Image) -> int:
    """Return the array axis (0, 1 or 2) that runs nearest to head-feet, across which axial slices are stacked."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    return 2 - int(np.argmax(np.abs(direction[2])))


def lateral_axis(image: sitk.Image) -> tuple[int, int]:
    """Return the array axis that runs nearest to right-left, and 1 where its index grows towards the left, else -1."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    column = int(np.argmax(np.abs(direction[0])))
    return 2 - column, 1 if direction[0, column] > 0 else -1


def distance_to(mask: np.ndarray, spacing_zyx: tuple[float, ...]) -> np.ndarray:
    """Return, for every voxel, the Euclidean distance in mm to the nearest set voxel's centre."""
    return ndimage.distance_transform_edt(~mask, sampling=spacing_zyx)


def dilate(mask: np.ndarray, radius_mm: float, spacing_zyx: tuple[float, ...]) -> np.ndarray:
    """Add all voxels within a distance of the mask."""
    box = bounding_box(mask)
    if box is None:
        return np.zeros_like(mask)
    grown = np.zeros_like(mask)
    part = padded_box(box, margin_voxels(radius_mm, spacing_zyx), mask.shape)
    image = sitk.GetImageFromArray(mask[part].astype(np.uint8))
    image.SetSpacing(spacing_zyx[::-1])
    # In single precision, but three times as fast as that of scipy; the distance to what is set is negative inside it.
    distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    grown[part] = sitk.GetArrayViewFromImage(distance) <= radius_mm + 1e-4
    return grown


def erode(mask: np.ndarray, radius_mm: float, spacing_zyx: tuple[float, ...]) -> np.ndarray:
    """Keep the voxels farther than a distance from everything outside the mask."""
    return ~dilate(~mask, radius_mm, spacing_zyx)


def close(mask: np.ndarray, radius_mm: float, spacing_zyx: tuple[float, ...], *, edge: str = "edge") -> np.ndarray:
    """Morphological closing with a ball; the image border is continued outwards so that it does not erode."""
    pad = [(n, n) for n in margin_voxels(radius_mm, spacing_zyx)]
    wide = np.pad(mask, pad, mode=edge)  # type: ignore[call-overload]
    closed = erode(dilate(wide, radius_mm, spacing_zyx), radius_mm, spacing_zyx)
    inner = tuple(slice(a, a + size) for (a, _), size in zip(pad, mask.shape, strict=True))
    return closed[inner] | mask
