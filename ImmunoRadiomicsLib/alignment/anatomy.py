"""A quick map of body and lungs for images that come without one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..images import LUNG_LABELS, Anatomy
from .grids import Grid, axis_spacing, corners, grid_over, reduce, sample

AIR_HU = -1000.0
_TISSUE_FROM_HU = -500.0
_OUTSIDE_AIR_BELOW_HU = -935.0
_LUNG_AT_LEAST_ML = 30.0
_MAP_SPACING_MM = 4.0


@dataclass(frozen=True)
class Range:
    """What the voxel values say about the kind of image: percentiles 0.5 and 99.5, and the share below -200."""

    low: float
    high: float
    air_share: float

    @property
    def looks_like_ct(self) -> bool:
        """Whether the values can be HU of a patient: tissue between -300 and 300 is there, and nothing is only positive.

        A crop inside the body may hold no air at all but still has fat (about -100 HU).
        """
        return self.low < -30.0 and self.high > 0.0 and self.low > -4100.0


def value_range(image: sitk.Image) -> Range:
    """Measure the range of values of an image on a sample of at most about 200,000 voxels."""
    array = sitk.GetArrayViewFromImage(image)
    step = max(1, round((array.size / 2.0e5) ** (1 / 3)))
    values = np.asarray(array[::step, ::step, ::step], dtype=np.float32)
    low, high = np.percentile(values, (0.5, 99.5))
    return Range(float(low), float(high), float((values < -200.0).mean()))


def quick_anatomy(image: sitk.Image) -> sitk.Image:
    """Map body and lungs of a CT at about 4 mm: good enough to aim an alignment, not to measure lungs.

    Air that reaches the border of the image is outside the body unless its density is that of lung (a crop through the lungs).

    Returns
    -------
    SimpleITK.Image
        uint8 labels of ``images.Anatomy`` on a coarse grid along the patient axes.
    """
    points = corners(image)
    spacing = np.maximum(axis_spacing(image), _MAP_SPACING_MM)
    grid = grid_over(points.min(axis=0), points.max(axis=0), spacing)
    values = sample(sitk.Cast(reduce(image, spacing), sitk.sitkFloat32), grid, outside=AIR_HU)
    return grid.image(_label(values, grid))


def _label(values: np.ndarray, grid: Grid) -> np.ndarray:
    labels = np.zeros(values.shape, dtype=np.uint8)
    voxel_ml = float(np.prod(grid.spacing)) / 1000.0
    tissue = values > _TISSUE_FROM_HU
    opened = ndimage.binary_opening(np.pad(tissue, 2, mode="edge"))[2:-2, 2:-2, 2:-2]
    pieces, count = ndimage.label(opened)
    if not count:
        return labels
    body = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    # Opening shaves thin skin folds off; take back what touches the body within one voxel.
    body = ndimage.binary_dilation(body) & tissue

    gaps, count = ndimage.label(~body)
    lungs = np.zeros_like(body)
    if count:
        index = np.arange(1, count + 1)
        sizes = np.bincount(gaps.ravel(), minlength=count + 1)[1:] * voxel_ml
        means = ndimage.mean(values, gaps, index)
        at_border = np.zeros(count + 1, dtype=bool)
        for face in (gaps[:, 0], gaps[:, -1], gaps[:, :, 0], gaps[:, :, -1]):
            at_border[np.unique(face)] = True
        for number, size, mean in zip(index, sizes, means, strict=True):
            outside = at_border[number] and (mean < _OUTSIDE_AIR_BELOW_HU or mean > _TISSUE_FROM_HU)
            if outside:
                continue
            gap = gaps == number
            body |= gap
            if size >= _LUNG_AT_LEAST_ML and _OUTSIDE_AIR_BELOW_HU < mean < _TISSUE_FROM_HU:
                lungs |= gap
    labels[body] = Anatomy.BODY
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    middle = 0.5 * (columns[0] + columns[-1])
    sides = np.broadcast_to(np.arange(values.shape[2]) < middle, values.shape)
    labels[lungs & sides] = Anatomy.RIGHT_LUNG
    labels[lungs & ~sides] = Anatomy.LEFT_LUNG
    return labels


def body_of(labels: np.ndarray) -> np.ndarray:
    """Return the body, lungs and airways included, of an array of anatomy labels."""
    return labels > Anatomy.OUTSIDE


def lungs_of(labels: np.ndarray) -> np.ndarray:
    """Return both lungs of an array of anatomy labels."""
    return np.isin(labels, [int(label) for label in LUNG_LABELS])
