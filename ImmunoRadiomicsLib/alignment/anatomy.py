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
# Averaged over the voxels of the map, lung is above the first limit except in emphysema; room air as a whole is below the second;
# a gas-filled piece of bowel is below the third.
_THIN_BELOW_HU = -945.0
_ROOM_AIR_BELOW_HU = -980.0
_GAS_BELOW_HU = -935.0
# What was never scanned is filled with one value; averaged over a voxel of the map even the quietest air varies more.
_CONSTANT_WITHIN_HU = 0.5
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

    A gap that reaches the side of the image is outside the body only if it is as thin as room air, so that a crop through the lungs
    keeps them.

    Returns
    -------
    SimpleITK.Image
        uint8 labels of ``images.Anatomy`` on a coarse grid along the patient axes.
    """
    points = corners(image)
    spacing = np.maximum(axis_spacing(image), _MAP_SPACING_MM)
    grid = grid_over(points.min(axis=0), points.max(axis=0), spacing)
    values = sample(sitk.Cast(reduce(image, spacing), sitk.sitkFloat32), grid, outside=AIR_HU)
    return grid.image(_label(values, grid, values <= float(values.min()) + _CONSTANT_WITHIN_HU))


def _label(values: np.ndarray, grid: Grid, padding: np.ndarray) -> np.ndarray:
    labels = np.zeros(values.shape, dtype=np.uint8)
    tissue = _largest(ndimage.binary_opening(np.pad(values > _TISSUE_FROM_HU, 2, mode="edge"))[2:-2, 2:-2, 2:-2])
    if not tissue.any():
        return labels
    # Opening shaves thin folds off; take back what touches the body within one voxel.
    tissue = ndimage.binary_dilation(tissue) & (values > _TISSUE_FROM_HU)

    outside = padding | _outside_air(values, padding)
    # The blurred surface of the body, clothes and blankets are neither air nor tissue; the chest wall keeps this rim out of the lungs.
    gas = values <= _TISSUE_FROM_HU
    gas &= ~ndimage.binary_dilation(outside, iterations=3, mask=gas)
    gas = ndimage.binary_opening(np.pad(gas, 2, mode="edge"))[2:-2, 2:-2, 2:-2]
    pieces, count = ndimage.label(gas)
    lungs = np.zeros_like(tissue)
    if count:
        index = np.arange(1, count + 1)
        sizes = np.bincount(pieces.ravel())[1:] * float(np.prod(grid.spacing)) / 1000.0
        means = ndimage.mean(values, pieces, index)
        lungs = np.isin(pieces, index[(sizes >= _LUNG_AT_LEAST_ML) & (means > _GAS_BELOW_HU)])
    body = tissue | (ndimage.binary_dilation(lungs) & ~outside)
    around, _ = ndimage.label(~body)
    body |= ~np.isin(around, _at_border(around))
    labels[body] = Anatomy.BODY
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    middle = 0.5 * (columns[0] + columns[-1])
    sides = np.broadcast_to(np.arange(values.shape[2]) < middle, values.shape)
    labels[lungs & sides] = Anatomy.RIGHT_LUNG
    labels[lungs & ~sides] = Anatomy.LEFT_LUNG
    return labels


def _outside_air(values: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Return the thin gas that reaches the side of the image, unless it is as a whole too dense for room air (emphysema in a crop)."""
    pieces, count = ndimage.label((values < _THIN_BELOW_HU) & ~padding)
    if not count:
        return np.zeros_like(padding)
    index = np.arange(1, count + 1)
    means = ndimage.mean(values, pieces, index)
    return np.isin(pieces, index[np.isin(index, _at_border(pieces)) & (means < _ROOM_AIR_BELOW_HU)])


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected piece of a mask."""
    pieces, count = ndimage.label(mask)
    return pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])) if count else mask


def _at_border(pieces: np.ndarray) -> np.ndarray:
    """Return the labels (from 1) that reach a side face of the box (not the first or last slice)."""
    faces = (pieces[:, 0], pieces[:, -1], pieces[:, :, 0], pieces[:, :, -1])
    numbers = np.unique(np.concatenate([face.ravel() for face in faces]))
    return numbers[numbers > 0]


def body_of(labels: np.ndarray) -> np.ndarray:
    """Return the body, lungs and airways included, of an array of anatomy labels."""
    return labels > Anatomy.OUTSIDE


def lungs_of(labels: np.ndarray) -> np.ndarray:
    """Return both lungs of an array of anatomy labels."""
    return np.isin(labels, [int(label) for label in LUNG_LABELS])
