"""Images, masks and transforms carried from one scan to another, and to file."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from ..errors import InputError
from ..files import whole_file


def resample(
    moving: sitk.Image,
    fixed: sitk.Image,
    transform: sitk.Transform,
    default_hu: float = -1024.0,
    interpolator: int = sitk.sitkLinear,
) -> sitk.Image:
    """Return the moving image on the grid of the fixed one, in the voxel type of the moving image.

    ``transform`` maps fixed to moving LPS points. Voxels that the moving image does not cover get ``default_hu``.
    """
    return sitk.Resample(moving, fixed, transform, interpolator, default_hu, moving.GetPixelID())


def resample_mask(mask: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, *, smooth: bool = True) -> sitk.Image:
    """Return a mask on the grid of the fixed image.

    A mask of 0 and 1 is interpolated linearly and cut at one half, so that its surface does not become stepped; a map of several
    labels (or ``smooth=False``) takes the nearest label. Uncovered voxels are 0. The voxel type is kept.
    """
    statistics = sitk.MinimumMaximumImageFilter()
    statistics.Execute(mask)
    if not smooth or statistics.GetMaximum() > 1:
        return sitk.Resample(mask, fixed, transform, sitk.sitkNearestNeighbor, 0.0, mask.GetPixelID())
    shares = sitk.Resample(mask, fixed, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    return sitk.Cast(shares >= 0.5, mask.GetPixelID())


def write_transform(transform: sitk.Transform, path: Path) -> None:
    """Write a transform (LPS, ITK convention: from reference to moving points); the file is either whole or absent."""
    with whole_file(path) as temporary:
        sitk.WriteTransform(transform, str(temporary))


def read_transform(path: Path) -> sitk.Transform:
    """Read a transform file of ITK or Slicer (.h5, .tfm, .txt, .mat).

    Raises
    ------
    InputError
        If the file is missing or is not a three-dimensional transform.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Give the path of a transform file (.h5 or .tfm).")
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path}: this is not a transform that ITK can read. Save it from Slicer as .h5 or .tfm."
        ) from error
    if transform.GetDimension() != 3:
        raise InputError(
            f"{path}: the transform has {transform.GetDimension()} dimensions. Give a three-dimensional one."
        )
    return transform.Downcast()
