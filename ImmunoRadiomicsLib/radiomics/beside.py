"""Features of images beside the CT: uptake of PET as SUV, MR, and PET fused with the CT, in the regions of the CT.

Names begin with `suv_`, `mr_` and `fused_`. An image is taken to lie on the CT as it says: PET/CT comes so from the scanner, MR has
to be registered first. PET is brought on the grid of the CT, because a thin region is lost between its voxels. MR keeps its
grid and the regions are brought on it, because its preset scales by the mean and deviation of the whole image.

The fused image is the mean of uptake and density, each scaled to 0 to 100 over a fixed range. Averaging the wavelet bands of the two with equal
weights gives the same image, a wavelet transform being linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ..analysis import Features
from ..images import RegionMask
from ..progress import Progress, part, silent
from .extraction import extract
from .presets import Preset, load_preset

Kind = Literal["suv", "mr", "fused"]

PRESETS: Mapping[Kind, str] = {"suv": "pet-suv", "mr": "mr", "fused": "fused-pet-ct"}
# Between lung without blood and dense contrast; beyond 20 lie bladder, brain and hot lesions, whose texture then goes flat.
CT_RANGE_HU = (-1000.0, 400.0)
SUV_RANGE = (0.0, 20.0)
# What filters and resampling look at beyond a region.
_MARGIN_MM = 40.0


@dataclass(frozen=True, eq=False)
class Beside:
    """The images of one time point beside its CT; PET holds SUV."""

    pet: sitk.Image | None = None
    mr: sitk.Image | None = None


@lru_cache(maxsize=1)
def presets_beside() -> Mapping[Kind, Preset]:
    """Return what is extracted from each kind of image."""
    return {kind: load_preset(name) for kind, name in PRESETS.items()}


def extract_beside(
    features: Sequence[Features],
    regions: Sequence[RegionMask],
    volumes: Mapping[str, sitk.Image],
    images: Mapping[str, Beside],
    *,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
    engine: str = "auto",
) -> tuple[Features, ...]:
    """Return features with those of the images beside the CT added to the regions of lesions.

    A region that an image does not cover, or that is too small for its preset, has None for its features.

    Parameters
    ----------
    features
        What was measured on the CT, one for each of ``regions``; other features stay as they are.
    regions
        On the grid of the CT of their time point.
    volumes, images
        The CT, and what lies beside it, of each time point.
    jobs, cache, progress, engine
        Those of ``extract``.
    """
    work = [
        (timepoint, kind)
        for timepoint, found in images.items()
        for kind in PRESETS
        if (found.mr if kind == "mr" else found.pet) is not None
    ]
    added: dict[tuple[str, str | None, str], dict[str, float | None]] = {}
    on_ct: dict[str, tuple[list[RegionMask], sitk.Image, sitk.Image]] = {}
    for number, (timepoint, kind) in enumerate(work):
        here = [item for item in regions if item.timepoint == timepoint and item.lesion is not None and item.count]
        image = images[timepoint].mr if kind == "mr" else images[timepoint].pet
        if image is None or not here:
            continue
        preset, ct = presets_beside()[kind], volumes[timepoint]
        if kind == "mr":
            placed, ground = _on_own_grid(_covered(here, ct, image), ct, image)
        else:
            # Uptake alone and the fused image have the same ground.
            if timepoint not in on_ct:
                on_ct[timepoint] = _on_grid_of_ct(_covered(here, ct, image), ct, image)
            placed, crop, uptake = on_ct[timepoint]
            ground = uptake if kind == "suv" else _fused_image(uptake, crop)
        measured = extract(
            {timepoint: ground},
            placed,
            preset,
            jobs=jobs,
            cache=cache,
            progress=part(progress, number / len(work), (number + 1) / len(work)),
            engine=engine,
        )
        found_here = {(item.lesion, item.region): item.values for item in measured}
        for item in here:
            values = found_here.get((item.lesion, item.region), {})
            added.setdefault((timepoint, item.lesion, item.region), {}).update(
                {f"{kind}_{name}": values.get(name) for name in preset.columns}
            )
    progress(1.0, "Features beside the CT extracted")
    return tuple(_with(item, added.get((item.timepoint, item.lesion, item.region))) for item in features)


def _with(features: Features, more: Mapping[str, float | None] | None) -> Features:
    return replace(features, values={**features.values, **more}) if more and features.reason is None else features


def _covered(regions: Sequence[RegionMask], ct: sitk.Image, image: sitk.Image) -> list[RegionMask]:
    return [item for item in regions if covers(image, item, ct)]


def covers(image: sitk.Image, region: RegionMask, ct: sitk.Image) -> bool:
    """Say whether every voxel of a region on the grid of a CT lies inside an image."""
    index = np.argwhere(region.voxels)[:, ::-1] + np.array(region.offset_zyx)[::-1]
    points = index * np.array(ct.GetSpacing()) @ np.array(ct.GetDirection()).reshape(3, 3).T + ct.GetOrigin()
    inside = (points - image.GetOrigin()) @ np.array(image.GetDirection()).reshape(3, 3) / np.array(image.GetSpacing())
    return bool(np.all((inside >= -0.5) & (inside <= np.array(image.GetSize()) - 0.5)))


def fused(suv: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Return the mean of uptake and density, each from 0 to 100 over its fixed range."""
    scaled = [
        100 * np.clip((values - low) / (high - low), 0, 1)
        for values, (low, high) in ((suv, SUV_RANGE), (hu, CT_RANGE_HU))
    ]
    return np.asarray((scaled[0] + scaled[1]) / 2)


def _on_grid_of_ct(
    regions: Sequence[RegionMask], ct: sitk.Image, pet: sitk.Image
) -> tuple[list[RegionMask], sitk.Image, sitk.Image]:
    """Return the regions, the CT and the uptake on the part of the CT's grid around all of them; one voxel where there are none."""
    if not regions:
        corner = ct[:1, :1, :1]
        return [], corner, corner
    margin = np.ceil(_MARGIN_MM / np.array(ct.GetSpacing()[::-1])).astype(int)
    first = np.min([item.offset_zyx for item in regions], axis=0)
    last = np.max([np.add(item.offset_zyx, item.voxels.shape) for item in regions], axis=0)
    first, last = np.maximum(first - margin, 0), np.minimum(last + margin, ct.GetSize()[::-1])
    (z, y, x), (z_end, y_end, x_end) = (tuple(int(value) for value in corner) for corner in (first, last))
    crop = ct[x:x_end, y:y_end, z:z_end]
    uptake = sitk.Resample(sitk.Cast(pet, sitk.sitkFloat64), crop, sitk.Transform(), sitk.sitkLinear, 0.0)
    placed = []
    for item in regions:
        there_z, there_y, there_x = (int(at) for at in np.subtract(item.offset_zyx, first))
        placed.append(replace(item, offset_zyx=(there_z, there_y, there_x)))
    return placed, crop, uptake


def _fused_image(uptake: sitk.Image, ct: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(
        fused(sitk.GetArrayViewFromImage(uptake), sitk.GetArrayViewFromImage(ct).astype(float))
    )
    image.CopyInformation(uptake)
    return image


def _on_own_grid(
    regions: Sequence[RegionMask], ct: sitk.Image, image: sitk.Image
) -> tuple[list[RegionMask], sitk.Image]:
    """Return the regions on the grid of another image, and the image."""
    placed = []
    for item in regions:
        mask = sitk.GetImageFromArray(item.voxels.astype(np.uint8))
        mask.SetSpacing(ct.GetSpacing())
        mask.SetDirection(ct.GetDirection())
        mask.SetOrigin(ct.TransformIndexToPhysicalPoint([int(at) for at in item.offset_zyx[::-1]]))
        there = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        voxels = sitk.GetArrayViewFromImage(there) > 0
        placed.append(RegionMask.from_array(item.timepoint, item.lesion, item.region, voxels))
    return placed, image
