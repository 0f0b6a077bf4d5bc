"""What is new in the lungs at a follow-up against the patient's own baseline.

The follow-up is brought onto the baseline and both are compared at a resolution at which vessels blur away. A lung that
holds less air is denser everywhere: the baseline's density is carried to the follow-up's inflation by conservation of
mass, (HU + 1000) * volume = const, before anything is called new. Tumours and their margins, the
pleural edge, and what was dense before are left out. Where the alignment failed, or the lungs are inflated too
differently for the correction to be trusted, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..analysis import LungChange, Verdict
from ..images import LUNG_LABELS, Anatomy
from .geometry import axial_axis, bounding_box, close, dilate, erode, voxel_volume_ml

WORK_MM = 2.0
SMOOTH_MM = 2.5
EDGE_MM = 4.0
GROUND_GLASS_HU = (-750.0, -300.0)
CONSOLIDATION_HU = -300.0
LEAST_RISE_HU = 70.0
LEAST_CLUSTER_ML = 1.5
LARGEST_VOLUME_CHANGE = 0.25
VESSEL_HU = -500.0
VESSEL_MARGIN_MM = 3.0
REACH_MM = 16.0


def lung_change(
    baseline_ct: sitk.Image,
    baseline_anatomy: sitk.Image,
    followup_ct: sitk.Image,
    followup_anatomy: sitk.Image,
    transform: sitk.Transform | None,
    verdict: Verdict,
    *,
    timepoint: str,
    reference: str = "baseline",
    baseline_exclude: np.ndarray | None = None,
    followup_exclude: np.ndarray | None = None,
) -> tuple[LungChange, ...]:
    """Measure new ground glass and new consolidation, in both lungs, in each, and in their thirds by height.

    Parameters
    ----------
    transform
        Carries positions of the baseline to positions of the follow-up (LPS).
    verdict
        Of the alignment; on `failed` everything is withheld.
    baseline_exclude, followup_exclude
        Tumours with their margin on the grid of the respective CT, as bool arrays (z, y, x).

    Returns
    -------
    tuple of LungChange
        ``new_*_ml`` in millilitres of the follow-up's lung; ``new_opacity_percent`` of the part's volume there.
    """
    parts = ("both", *PARTS)
    if verdict == "failed":
        return _withheld(timepoint, reference, parts, "the alignment with the baseline failed", None)
    labels = [sitk.GetArrayViewFromImage(item) for item in (baseline_anatomy, followup_anatomy)]
    volumes = [
        {side: float((array == side).sum()) * voxel_volume_ml(item) for side in LUNG_LABELS}
        for array, item in zip(labels, (baseline_anatomy, followup_anatomy), strict=True)
    ]
    if not all(sum(item.values()) > 0.0 for item in volumes):
        return _withheld(timepoint, reference, parts, "the lungs are not in both scans", None)
    ratio = sum(volumes[1].values()) / sum(volumes[0].values())
    if abs(ratio - 1.0) > LARGEST_VOLUME_CHANGE:
        reason = f"the lungs hold {ratio:.2f} times the volume of the baseline; inspiration differs too much"
        return _withheld(timepoint, reference, parts, reason, ratio)
    grid = _grid(baseline_anatomy)
    before = _on(baseline_ct, grid, None, -1000.0)
    after = _on(followup_ct, grid, transform, -1000.0)
    sides = _labels_on(baseline_anatomy, grid, None)
    there = np.isin(_labels_on(followup_anatomy, grid, transform), LUNG_LABELS)
    barred = np.zeros(sides.shape, dtype=bool)
    for image, mask, through in (
        (baseline_ct, baseline_exclude, None),
        (followup_ct, followup_exclude, transform),
    ):
        if mask is not None:
            marked = sitk.GetImageFromArray(mask.astype(np.uint8))
            marked.CopyInformation(image)
            barred |= _labels_on(marked, grid, through) > 0
    glass, solid = _new_opacities(before, after, sides, there, barred, ratio)
    # Voxels of the baseline stand for more or less lung at the follow-up, by how far it is inflated.
    milliliter = voxel_volume_ml(grid) * ratio
    result = []
    for part, mask in _part_masks(sides, axial_axis(grid), baseline_anatomy):
        volume = float(mask.sum()) * milliliter
        if volume == 0.0:
            continue
        new_glass, new_solid = (float((item & mask).sum()) * milliliter for item in (glass, solid))
        result.append(
            LungChange(
                timepoint=timepoint,
                reference=reference,
                part=part,
                assessable=True,
                reason="registered, corrected for inflation; tumours and their margin left out",
                new_ground_glass_ml=new_glass,
                new_consolidation_ml=new_solid,
                new_opacity_percent=100.0 * (new_glass + new_solid) / volume,
                volume_ratio=ratio,
            )
        )
    return tuple(result)


PARTS = (
    "left",
    "left-lower",
    "left-middle",
    "left-upper",
    "right",
    "right-lower",
    "right-middle",
    "right-upper",
)


def _withheld(
    timepoint: str, reference: str, parts: tuple[str, ...], reason: str, ratio: float | None
) -> tuple[LungChange, ...]:
    return tuple(LungChange(timepoint, reference, part, False, reason, volume_ratio=ratio) for part in parts)


def _grid(anatomy: sitk.Image) -> sitk.Image:
    """Return an empty volume of about 2 mm around the lungs of the baseline."""
    lungs = np.isin(sitk.GetArrayViewFromImage(anatomy), LUNG_LABELS)
    box = bounding_box(lungs)
    assert box is not None  # noqa: S101 - the caller has measured the lungs
    start = [side.start for side in reversed(box)]
    extent = [(side.stop - side.start) * step for side, step in zip(reversed(box), anatomy.GetSpacing(), strict=True)]
    grid = sitk.Image([max(4, round(size / WORK_MM)) for size in extent], sitk.sitkUInt8)
    grid.SetSpacing([size / count for size, count in zip(extent, grid.GetSize(), strict=True)])
    grid.SetDirection(anatomy.GetDirection())
    first = [
        index - 0.5 + 0.5 * step / fine
        for index, step, fine in zip(start, grid.GetSpacing(), anatomy.GetSpacing(), strict=True)
    ]
    grid.SetOrigin(anatomy.TransformContinuousIndexToPhysicalPoint(first))
    return grid


def _on(ct: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None, outside: float) -> np.ndarray:
    """Bring a CT to the grid, blurred as a voxel of the grid would see it."""
    through = transform if transform is not None else sitk.Transform(3, sitk.sitkIdentity)
    smooth = sitk.DiscreteGaussian(sitk.Cast(ct, sitk.sitkFloat32), [(0.5 * WORK_MM) ** 2] * 3, useImageSpacing=True)
    return sitk.GetArrayFromImage(sitk.Resample(smooth, grid, through, sitk.sitkLinear, outside))


def _labels_on(labels: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None) -> np.ndarray:
    through = transform if transform is not None else sitk.Transform(3, sitk.sitkIdentity)
    return sitk.GetArrayFromImage(sitk.Resample(labels, grid, through, sitk.sitkNearestNeighbor, 0))


def _new_opacities(
    before: np.ndarray, after: np.ndarray, sides: np.ndarray, there: np.ndarray, barred: np.ndarray, ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return where there is new ground glass and new consolidation, as bool arrays on the working grid."""
    spacing = (WORK_MM, WORK_MM, WORK_MM)
    lungs = np.isin(sides, LUNG_LABELS)
    inner = erode(lungs & ~barred, EDGE_MM, spacing) & ~barred
    # New consolidation at the pleura may not be counted as lung at the follow-up; it is lung by the baseline.
    inner &= there | erode(lungs, 2.0 * EDGE_MM, spacing)
    vessels = dilate(lungs & (before > VESSEL_HU), VESSEL_MARGIN_MM, spacing)
    usable = inner & ~vessels
    weight = ndimage.gaussian_filter(usable.astype(np.float32), SMOOTH_MM / WORK_MM)
    smooth_before, smooth_after = (
        ndimage.gaussian_filter(np.where(usable, item, 0.0).astype(np.float32), SMOOTH_MM / WORK_MM)
        / np.maximum(weight, 1e-3)
        for item in (before, after)
    )
    expected = (smooth_before + 1000.0) / ratio - 1000.0
    rise = smooth_after - expected
    # The share of the image that is off by chance sets the bar where breathing left more than the usual difference.
    spread = 1.4826 * float(np.median(np.abs(rise[usable] - np.median(rise[usable])))) if usable.any() else 0.0
    shift = float(np.clip(np.median(rise[usable]), -40.0, 40.0)) if usable.any() else 0.0
    enough = max(LEAST_RISE_HU, 4.0 * spread)
    new = usable & (rise - shift > enough) & (smooth_after > GROUND_GLASS_HU[0])
    clusters, number = ndimage.label(new)
    if number:
        counts = np.bincount(clusters.ravel())
        counts[0] = 0
        new = (counts * WORK_MM**3 / 1000.0 >= LEAST_CLUSTER_ML)[clusters]
    if new.any():
        # The opacity goes on where nothing could be compared: in the vessels that it encloses, at the pleura, on its rim.
        # It ends where half of its rise in density is left.
        open_lung = lungs & ~barred
        clear = open_lung & (before <= VESSEL_HU)
        gained = np.where(clear, after - ((before + 1000.0) / ratio - 1000.0) - shift, 0.0).astype(np.float32)
        gained = ndimage.gaussian_filter(gained, 1.0) / np.maximum(
            ndimage.gaussian_filter(clear.astype(np.float32), 1.0), 0.05
        )
        half = max(0.5 * enough, 0.5 * float(np.median(gained[new])))
        reach = dilate(new, REACH_MM, spacing) & open_lung & (gained > half)
        grown = ndimage.binary_propagation(new & reach, mask=reach)
        new = open_lung & (grown | close(grown, EDGE_MM, spacing))
    solid = new & (after > CONSOLIDATION_HU) & ~(vessels & (before > VESSEL_HU))
    return new & ~solid, solid


def _part_masks(sides: np.ndarray, axis: int, anatomy: sitk.Image) -> Iterator[tuple[str, np.ndarray]]:
    """Yield both lungs, each, and their thirds of equal height."""
    yield "both", np.isin(sides, LUNG_LABELS)
    direction = np.asarray(anatomy.GetDirection()).reshape(3, 3)
    names = ("lower", "middle", "upper") if direction[2, 2 - axis] > 0 else ("upper", "middle", "lower")
    for label, name in ((Anatomy.LEFT_LUNG, "left"), (Anatomy.RIGHT_LUNG, "right")):
        mask = sides == label
        yield name, mask
        rows = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if rows.size < 3:
            continue
        edges = np.round(np.linspace(rows[0], rows[-1] + 1, 4)).astype(int)
        for third, low, high in zip(names, edges[:-1], edges[1:], strict=True):
            part = np.zeros_like(mask)
            index = tuple(slice(low, high) if other == axis else slice(None) for other in range(3))
            part[index] = mask[index]
            yield f"{name}-{third}", part
