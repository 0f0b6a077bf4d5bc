"""Where the features of a lesion are read: core, rings, border; and the organ that a lesion lies in.

A ring `ring-A-Bmm` holds the voxels outside the lesion whose centre is more than A and at most B millimetres from the
nearest centre of a lesion voxel, whatever the spacing of the grid. It stays inside the organ (or the body) and out of
every other lesion. All work is done on a crop around the lesion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..images import LUNG_LABELS, Anatomy, RegionMask
from ..organs import is_node, organ_group
from .geometry import (
    Box,
    Crop,
    axial_axis,
    bounding_box,
    distance_to,
    lateral_axis,
    margin_voxels,
    padded_box,
    shape_of,
    spacing_of,
)

RINGS_MM: tuple[tuple[float, float], ...] = ((0.0, 5.0), (5.0, 10.0))
NARROW_RING_MM = (0.0, 2.0)
BORDER_MM = 2.0
MINIMUM_VOXELS = 64
"""Below this a texture matrix of a CT region is mostly empty; 64 voxels is a cube of four, one per direction and step."""
MINIMUM_EXTENT = 3
GAS_HU = -300.0
BONE_HU = 200.0

CONTACT_MM = 3.0
FAT_HU = (-180.0, -20.0)
NODE_FAT = 0.65
NODE_MM = 40.0
SKIN_MM = 15.0
"""What is proposed as a lymph node. The share of fat parts nodes from masses of the mediastinum on virtual patients: it was
below it around all of 18 masses, and above around 8 of 14 nodes."""

_EDGE = 1e-6


@dataclass(frozen=True)
class OrganProposal:
    """The organ that a lesion most probably lies in, how sure this is (0 to 1), and why."""

    organ: str
    confidence: float
    reason: str


def ring_name(inner_mm: float, outer_mm: float) -> str:
    """Return the name of a ring: ``ring_name(0, 5)`` is `ring-0-5mm`."""
    return f"ring-{inner_mm:g}-{outer_mm:g}mm"


def lesion_regions(
    timepoint: str,
    lesions: Mapping[str, Crop],
    anatomy: sitk.Image,
    ct: sitk.Image,
    *,
    organs: Mapping[str, str] | None = None,
    rings: Sequence[tuple[float, float]] = RINGS_MM,
    border_mm: float = BORDER_MM,
) -> tuple[RegionMask, ...]:
    """Return `core`, the rings and `border` of every lesion of one time point.

    Parameters
    ----------
    lesions
        The voxels of each lesion on the grid of the CT, by lesion id. `core` is exactly these.
    anatomy
        Labels of ``images.Anatomy`` on the grid of the CT.
    organs
        The organ of each lesion. Rings of a lesion in the lung stay in the lungs; of a lesion of the pleura, in body and
        lungs; of any other, in the body without lungs, airways and gas.
    rings
        (inner, outer) distances in mm.
    border_mm
        `border` is the shell of this thickness on each side of the lesion's surface.
    """
    spacing, shape = spacing_of(ct), shape_of(ct)
    labels, values = sitk.GetArrayViewFromImage(anatomy), sitk.GetArrayViewFromImage(ct)
    reach = max([outer for _, outer in rings] + [border_mm])
    regions = []
    for name, lesion in lesions.items():
        if lesion.count == 0:
            continue
        regions.append(RegionMask(timepoint, name, "core", lesion.offset_zyx, lesion.voxels))
        box = padded_box(lesion.box, margin_voxels(reach, spacing), shape)
        core = within(lesion, box)
        allowed = _allowed(labels[box], values[box], (organs or {}).get(name))
        for other, crop in lesions.items():
            if other != name:
                allowed &= ~within(crop, box)
        distance = distance_to(core, spacing)
        for inner, outer in rings:
            ring = (distance > inner + _EDGE) & (distance <= outer + _EDGE) & allowed
            regions.append(_placed(timepoint, name, ring_name(inner, outer), ring & ~core, box))
        depth = distance_to(~core, spacing)
        shell = (core & (depth <= border_mm + _EDGE)) | (~core & (distance <= border_mm + _EDGE) & allowed)
        regions.append(_placed(timepoint, name, "border", shell, box))
    return tuple(regions)


def lung_region(timepoint: str, anatomy: sitk.Image, exclude: Sequence[Crop] = ()) -> RegionMask:
    """Return the region `lungs`: both lungs without the lesions."""
    labels = sitk.GetArrayViewFromImage(anatomy)
    lungs = np.isin(labels, LUNG_LABELS)
    for crop in exclude:
        lungs[crop.box] &= ~crop.voxels
    return RegionMask.from_array(timepoint, None, "lungs", lungs)


def region_problem(region: RegionMask) -> str | None:
    """Say why a region is too small for texture features; None where it is not.

    A region needs ``MINIMUM_VOXELS`` voxels and, along at least two axes, ``MINIMUM_EXTENT`` voxels.
    """
    count = region.count
    if count == 0:
        return f"the region {region.region} is empty"
    if count < MINIMUM_VOXELS:
        return f"the region {region.region} has {count} voxels; texture needs at least {MINIMUM_VOXELS}"
    if sum(size >= MINIMUM_EXTENT for size in region.voxels.shape) < 2:
        return f"the region {region.region} is thinner than {MINIMUM_EXTENT} voxels along two axes"
    return None


def within(crop: Crop, box: Box) -> np.ndarray:
    """Return the part of a crop that lies in a box of the same volume, as an array of the size of the box."""
    result = np.zeros(tuple(side.stop - side.start for side in box), dtype=bool)
    target, source = [], []
    for start, size, side in zip(crop.offset_zyx, crop.voxels.shape, box, strict=True):
        low, high = max(start, side.start), min(start + size, side.stop)
        if low >= high:
            return result
        target.append(slice(low - side.start, high - side.start))
        source.append(slice(low - start, high - start))
    result[tuple(target)] = crop.voxels[tuple(source)]
    return result


def propose_organ(lesion: Crop, anatomy: sitk.Image, ct: sitk.Image) -> OrganProposal:
    """Propose the organ of a lesion from what surrounds it.

    Looks at the shell of 6 mm around the lesion: how much of it is lung, bone, fat, or even parenchyma; and at where it
    lies: between the lungs (mediastinum), below the right lung (liver). A compact lesion of at most ``NODE_MM`` that lies in
    fat, and not under the skin, is proposed as a lymph node; a tumour implant in fat looks the same.
    """
    spacing, shape = spacing_of(ct), shape_of(ct)
    labels, values = sitk.GetArrayViewFromImage(anatomy), sitk.GetArrayViewFromImage(ct)
    box = padded_box(lesion.box, margin_voxels(6.0, spacing), shape)
    core = within(lesion, box)
    distance = distance_to(core, spacing)
    shell = (distance > 0) & (distance <= 6.0)
    if not shell.any():
        return OrganProposal("soft tissue", 0.2, "the lesion fills the image")
    near_labels, near_values = labels[box], values[box]
    in_lung = np.isin(near_labels, LUNG_LABELS)
    # An airway beside a nodule in the lung is as much lung as the parenchyma; gas density outside both is not.
    airy = shell & (in_lung | (near_labels == Anatomy.AIRWAYS))
    lung_share = float(airy.sum() / shell.sum())
    core_share = float(in_lung[core].mean())
    # Contact with the chest wall, not a vessel at one spot: a broad part of the nearest millimetres is no lung.
    close_by = shell & (distance <= CONTACT_MM)
    contact = float((close_by & ~airy & (near_labels == Anatomy.BODY)).sum() / max(close_by.sum(), 1))
    if (
        lung_share >= 0.2
        and contact >= 0.15
        and _place(lesion, labels, axial_axis(ct), lateral_axis(ct)) == "elsewhere"
    ):
        return OrganProposal("pleura", 0.6, f"{contact:.0%} of its surface lies on the wall of the chest")
    if lung_share >= 0.6 or (lung_share >= 0.35 and core_share >= 0.6):
        return OrganProposal("lung", min(1.0, 0.4 + 0.6 * lung_share), f"{lung_share:.0%} of its surroundings are lung")
    solid = shell & ~in_lung & (near_labels == Anatomy.BODY)
    bony = float((near_values[solid] > BONE_HU).mean()) if solid.any() else 0.0
    dense = float(values[lesion.box][lesion.voxels].mean())
    # A pleural lesion touches ribs as well; what has a lung beside it needs more bone around it to lie in bone.
    if bony >= (0.55 if lung_share >= 0.08 else 0.3) or dense > BONE_HU:
        return OrganProposal("bone", min(1.0, 0.5 + bony), f"{bony:.0%} of its surroundings are bone")
    place = _place(lesion, labels, axial_axis(ct), lateral_axis(ct))
    fat = _share_of_fat(near_labels, near_values, distance)
    if fat >= NODE_FAT and lung_share <= 0.5 and _like_node(lesion, labels, spacing):
        return OrganProposal("lymph node", 0.5, f"compact, and {fat:.0%} of its surroundings beside lung are fat")
    if place == "mediastinum":
        return OrganProposal("mediastinum", 0.8, "it lies between the lungs")
    if lung_share >= 0.08:
        return OrganProposal("pleura", 0.6, f"it lies on the surface of a lung ({lung_share:.0%} of its surroundings)")
    if place == "below right lung" and _parenchyma(lesion, labels, values, spacing, shape):
        return OrganProposal("liver", 0.7, "even parenchyma surrounds it below the right lung")
    if place == "anywhere" and _parenchyma(lesion, labels, values, spacing, shape):
        return OrganProposal(
            "liver", 0.3, "even parenchyma surrounds it; the lungs that would locate it are not in the image"
        )
    return OrganProposal("soft tissue", 0.5, "neither lung, bone nor even parenchyma surrounds it")


def _share_of_fat(labels: np.ndarray, values: np.ndarray, distance: np.ndarray) -> float:
    """Return the share of fat among what is no lung 1 to 6 mm from a lesion."""
    around = (distance > 1.0) & (distance <= 6.0) & (labels == Anatomy.BODY)
    return float(((values[around] > FAT_HU[0]) & (values[around] < FAT_HU[1])).mean()) if around.any() else 0.0


def _like_node(lesion: Crop, labels: np.ndarray, spacing: tuple[float, ...]) -> bool:
    """Say whether a lesion is compact, small enough for a node, and not under the skin."""
    diameter = (6.0 * lesion.count * float(np.prod(spacing)) / np.pi) ** (1.0 / 3.0)
    if diameter > NODE_MM:
        return False
    widest = 2.0 * float(distance_to(~np.pad(lesion.voxels, 1), spacing).max())
    box = padded_box(lesion.box, margin_voxels(SKIN_MM, spacing), labels.shape)
    to_skin = distance_to(within(lesion, box), spacing)[labels[box] == Anatomy.OUTSIDE]
    return widest >= 0.5 * diameter and (to_skin.size == 0 or float(to_skin.min()) > SKIN_MM)


def _allowed(labels: np.ndarray, values: np.ndarray, organ: str | None) -> np.ndarray:
    group = organ_group(organ, node=is_node(organ)) if organ else ""
    if "pleura" in group:
        return np.isin(labels, (Anatomy.BODY, *LUNG_LABELS))
    if group == "lung":
        return np.isin(labels, LUNG_LABELS)
    return (labels == Anatomy.BODY) & (values > GAS_HU)


def _placed(timepoint: str, lesion: str, region: str, mask: np.ndarray, box: Box) -> RegionMask:
    part = RegionMask.from_array(timepoint, lesion, region, mask)
    z, y, x = (start + side.start for start, side in zip(part.offset_zyx, box, strict=True))
    return RegionMask(timepoint, lesion, region, (z, y, x), part.voxels)


def _place(lesion: Crop, labels: np.ndarray, axial: int, lateral: tuple[int, int]) -> str:
    """Say where a lesion lies to the lungs: `mediastinum`, `below right lung`, `elsewhere`; `anywhere` without lungs."""
    centre = np.round(lesion.indices().mean(axis=0)).astype(int)
    step = max(1, min(labels.shape) // 128)
    coarse = labels[::step, ::step, ::step]
    right, left = coarse == Anatomy.RIGHT_LUNG, coarse == Anatomy.LEFT_LUNG
    if not (right.any() or left.any()):
        return "anywhere"
    here = np.minimum(centre // step, np.asarray(coarse.shape) - 1)
    side_axis, to_left = lateral
    depth_axis = 3 - axial - side_axis
    plane_right, plane_left = (np.take(lung, here[axial], axis=axial) for lung in (right, left))
    plane_axes = [axis for axis in range(3) if axis != axial]
    lateral_in_plane, depth_in_plane = plane_axes.index(side_axis), plane_axes.index(depth_axis)
    if plane_right.any() and plane_left.any():
        x = here[side_axis] * to_left
        # The lungs' inner borders: the mediastinum lies between them, at the depth of the lungs.
        inner = [
            np.sort(np.flatnonzero(plane.any(axis=depth_in_plane)) * to_left) for plane in (plane_right, plane_left)
        ]
        middle_right, middle_left = np.quantile(inner[0], 0.75), np.quantile(inner[1], 0.25)
        depths = np.flatnonzero((plane_right | plane_left).any(axis=lateral_in_plane))
        if middle_right < x < middle_left and depths[0] < here[depth_axis] < depths[-1]:
            return "mediastinum"
    box = bounding_box(right)
    if box is not None:
        span = box[side_axis]
        under = np.take(right, here[side_axis], axis=side_axis).any() or span.start <= here[side_axis] < span.stop
        if under and not plane_right.sum() > 0.5 * right.sum(axis=tuple(plane_axes)).max():
            return "below right lung"
    return "elsewhere"


def _parenchyma(
    lesion: Crop, labels: np.ndarray, values: np.ndarray, spacing: tuple[float, ...], shape: tuple[int, ...]
) -> bool:
    """Say whether the surroundings within 15 mm are evenly dense like a solid organ: 80 % between 20 and 200 HU."""
    box = padded_box(lesion.box, margin_voxels(15.0, spacing), shape)
    distance = distance_to(within(lesion, box), spacing)
    around = (distance > 2.0) & (distance <= 15.0) & (labels[box] == Anatomy.BODY)
    if not around.any():
        return False
    near = values[box][around]
    return bool(np.mean((near > 20) & (near < 200)) >= 0.8)
