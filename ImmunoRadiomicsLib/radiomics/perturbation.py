"""Contours as another reader might have drawn them: moved, grown or shrunk, and uneven, for the stability of features.

The chain is that of Zwanenburg 2019 (doi:10.1038/s41598-018-36938-4): translation by part of a voxel, adaptation of the volume, and a
random contour; here all three act on the signed distance to the contour, so that the result is exact on anisotropic grids.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..images import RegionMask

# As much as readers differ: a quarter to three quarters of a voxel, and 15 % of the volume.
TRANSLATION_VOXELS = 0.75
VOLUME_SHARE = 0.15
# The unevenness of a drawn contour: half a millimetre over patches of about a centimetre.
NOISE_MM = 0.5
NOISE_LENGTH_MM = 5.0


def perturbed(
    region: RegionMask, spacing_zyx_mm: tuple[float, float, float], shape_zyx: tuple[int, ...], seed: int, number: int
) -> RegionMask:
    """Return the region as another reader might have drawn it.

    Parameters
    ----------
    region
        Some voxels of a volume.
    spacing_zyx_mm
        Voxel size of that volume, in the order of its array.
    shape_zyx
        Shape of its array; what lies outside is cut off.
    seed, number
        The same pair gives the same contour.

    Raises
    ------
    ValueError
        If the region is empty.
    """
    if not region.count:
        raise ValueError("an empty region has no contour")
    random = np.random.default_rng((seed, number))
    spacing = np.asarray(spacing_zyx_mm)
    radius = (3 * region.count * float(np.prod(spacing)) / (4 * np.pi)) ** (1 / 3)
    # The distance is needed as far out as the contour can move.
    reach = 3 * NOISE_MM + radius * VOLUME_SHARE + TRANSLATION_VOXELS * spacing.max()
    margin = np.ceil(reach / spacing).astype(int) + 2
    mask = np.pad(region.voxels, [(int(size), int(size)) for size in margin])
    distance = _signed_distance(mask, spacing)
    shift = random.uniform(-TRANSLATION_VOXELS, TRANSLATION_VOXELS, 3)
    distance = ndimage.shift(distance, shift, order=1, mode="nearest")
    wanted = region.count * (1 + random.uniform(-VOLUME_SHARE, VOLUME_SHARE))
    noise = ndimage.gaussian_filter(random.standard_normal(mask.shape), NOISE_LENGTH_MM / spacing)
    noise *= NOISE_MM / max(float(noise.std()), 1e-12)
    values = distance + noise
    # The level that holds the wanted number of voxels, at least one.
    count = max(1, round(wanted))
    level = np.partition(values, count - 1, axis=None)[count - 1]
    whole = values <= level
    offset = np.asarray(region.offset_zyx) - margin
    inside = tuple(
        slice(max(0, -int(start)), min(size, int(limit - start)))
        for start, size, limit in zip(offset, whole.shape, shape_zyx, strict=True)
    )
    voxels = whole[inside]
    if not voxels.any():
        return region
    start = np.maximum(offset, 0)
    return RegionMask(
        region.timepoint, region.lesion, region.region, (int(start[0]), int(start[1]), int(start[2])), voxels
    )


def _signed_distance(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the distance to the contour in mm, negative inside."""
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    return outside - inside
