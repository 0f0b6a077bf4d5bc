"""What is new in the lungs at a follow-up against the patient's own baseline.

The follow-up is brought onto the baseline and both are compared at a resolution at which vessels blur away. A lung that
holds less air is denser everywhere: the baseline's density is carried to the follow-up's inflation by conservation of
mass, (HU + 1000) * volume = const at every place, before anything is called new: lungs breathe more at the base than at the apex. Tumours and their margins, the
pleural edge, and what was dense before are left out. Where the alignment failed, or the lungs are inflated too
differently for the correction to be trusted, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..analysis import LungChange, Verdict
from ..images import LUNG_LABELS, Anatomy, Segment, Segmentation
from .geometry import axial_axis, bounding_box, dilate, distance_to, erode, voxel_volume_ml

# What follows was chosen on virtual patients: seeds 0 to 15 of benchmarks/lung_change.py, and of seeds 2000 to 2200 seventeen with little
# new ground glass or sick lungs, five of them also with 20 to 45 ml painted in twelve ways; of seed 3013 and three more, what concerns consolidation.
WORK_MM = 2.0
_STEPS = (WORK_MM, WORK_MM, WORK_MM)
SMOOTH_MM = 2.5
EDGE_MM = 2.0
CONSOLIDATED_EDGE_MM = 8.0
CONSOLIDATION_HU = -300.0
# An opacity is found by a rise in density over so many millilitres, or over fewer where it rises by 1.4 times as much: breathing leaves
# nothing as dense as that. Emphysematous lungs at deep inspiration lie at -950 HU, and ground glass in them below the -750 HU of other lungs.
LEAST_RISE_HU = 70.0
LEAST_CLUSTER_ML = 1.0
CLEAR_RISE = 1.4
LEAST_CLEAR_CLUSTER_ML = 0.15
LEAST_GLASS_HU = -820.0
# How far it goes: within reach of where it was found, from the gain in density, smoothed by so much. Its rim is as wide as the blur of image
# and smoothing. It is full in the deepest sixth of what lies above half of nearly its largest gain.
REACH_MM = 16.0
GAIN_SMOOTH_MM = 2.0
RIM_MM = 5.0
BACKGROUND_MM = 8.0
FULLEST_PERCENTILE = 95.0
DEEPEST_SHARE = 0.15
FAINT_MM = 6.0
# Consolidation: the blur of image and smoothing (one standard deviation), its gain, and the shell around it in which the gain of ground glass is
# read. Where consolidation outweighs ground glass, the shell is mostly blur, and the volume comes out up to a half too large.
BLUR_MM = 2.5
SOLID_PERCENTILE = 75.0
SHELL_SHARE = 0.1
SHELL_STEPS = 3
LARGEST_VOLUME_CHANGE = 0.25
# Contrast agent in the blood of the lungs raises their density as a whole by some 20 to 40 HU; that much is taken off before
# anything is called new. Where nine tenths of the lungs have shifted by more, the scans are no pair for densities.
LARGEST_SHIFT_HU = 40.0
VESSEL_HU = -500.0
VESSEL_MARGIN_MM = 3.0
# How far a place is inflated is read from the alignment as the mean over a neighbourhood: finer it would follow the noise of the
# alignment, and the opacities themselves.
INFLATION_STEP_MM = 6.0
INFLATION_MM = 12.0
INFLATION_LIMITS = (0.5, 2.0)
# A light and a dark blue: apart in grey too, and for colour-blind readers; lesions have none of them.
GROUND_GLASS_COLOUR, CONSOLIDATION_COLOUR = (0.60, 0.87, 1.0), (0.0, 0.27, 0.67)
NEW_GROUND_GLASS, NEW_CONSOLIDATION = "new ground-glass", "new consolidation"


@dataclass(frozen=True, eq=False)
class LungComparison:
    """What is new in the lungs: how much in each part, and where.

    ``opacities`` has the segments `new ground-glass` and `new consolidation` (either may be empty) on the grid of the
    follow-up, the image a reader looks at; None where the comparison is withheld or the way back was not given.
    """

    changes: tuple[LungChange, ...]
    opacities: Segmentation | None = None


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
    inverse: sitk.Transform | None = None,
) -> LungComparison:
    """Measure new ground glass and new consolidation, in both lungs, in each, and in their thirds by height.

    Parameters
    ----------
    transform
        Carries positions of the baseline to positions of the follow-up (LPS).
    verdict
        Of the alignment; on `failed` everything is withheld.
    baseline_exclude, followup_exclude
        Tumours with their margin on the grid of the respective CT, as bool arrays (z, y, x).
    inverse
        Carries positions of the follow-up to positions of the baseline (LPS); needed for the map alone.

    Returns
    -------
    LungComparison
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
    before = _on(baseline_ct, grid, None, -1000.0, like=followup_ct)
    after = _on(followup_ct, grid, transform, -1000.0, like=baseline_ct)
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
    inflation = _inflation(grid, transform, np.isin(sides, LUNG_LABELS), ratio)
    compared = _new_opacities(before, after, sides, there, barred, inflation)
    if isinstance(compared, str):
        return _withheld(timepoint, reference, parts, compared, ratio)
    glass, solid = compared
    # Voxels of the baseline stand for more or less lung at the follow-up, by how far each is inflated.
    milliliter = voxel_volume_ml(grid) * inflation
    result = []
    for part, mask in _part_masks(sides, axial_axis(grid), baseline_anatomy):
        volume = float(milliliter[mask].sum())
        if volume == 0.0:
            continue
        new_glass, new_solid = (float(milliliter[item & mask].sum()) for item in (glass, solid))
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
    opacities = None if inverse is None else _on_followup(glass, solid, grid, followup_ct, transform, inverse)
    return LungComparison(tuple(result), opacities)


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
) -> LungComparison:
    return LungComparison(
        tuple(LungChange(timepoint, reference, part, False, reason, volume_ratio=ratio) for part in parts)
    )


def _grid(anatomy: sitk.Image) -> sitk.Image:
    """Return an empty volume of about 2 mm around the lungs of the baseline."""
    box = bounding_box(np.isin(sitk.GetArrayViewFromImage(anatomy), LUNG_LABELS))
    assert box is not None  # noqa: S101 - the caller has measured the lungs
    return _coarse(anatomy, [side.start for side in reversed(box)], [side.stop for side in reversed(box)])


def _coarse(image: sitk.Image, first: Sequence[int], stop: Sequence[int]) -> sitk.Image:
    """Return an empty volume of about 2 mm over the voxels (x, y, z) of an image from ``first`` to before ``stop``."""
    extent = [(b - a) * step for a, b, step in zip(first, stop, image.GetSpacing(), strict=True)]
    grid = sitk.Image([max(4, round(size / WORK_MM)) for size in extent], sitk.sitkUInt8)
    grid.SetSpacing([size / count for size, count in zip(extent, grid.GetSize(), strict=True)])
    grid.SetDirection(image.GetDirection())
    corner = [
        index - 0.5 + 0.5 * step / fine
        for index, step, fine in zip(first, grid.GetSpacing(), image.GetSpacing(), strict=True)
    ]
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(corner))
    return grid


def _inflation(grid: sitk.Image, transform: sitk.Transform | None, lungs: np.ndarray, ratio: float) -> np.ndarray:
    """Return how many times its volume each place of the lungs has at the follow-up, smooth, on the working grid.

    It is the determinant of the transform's derivative (the Jacobian), whose mean over the lungs is made the measured ``ratio`` of their
    volumes; outside the lungs it is ``ratio``.
    """
    if transform is None:
        return np.full(lungs.shape, ratio, dtype=np.float32)
    step = np.asarray(grid.GetSpacing())
    counts = [
        int(max(4, np.ceil(size * mm / INFLATION_STEP_MM) + 1)) for size, mm in zip(grid.GetSize(), step, strict=True)
    ]
    coarse = sitk.Image(counts, sitk.sitkUInt8)
    coarse.SetSpacing(
        [(size - 1) * mm / (count - 1) for size, mm, count in zip(grid.GetSize(), step, counts, strict=True)]
    )
    coarse.SetOrigin(grid.GetOrigin())
    coarse.SetDirection(grid.GetDirection())
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, counts, coarse.GetOrigin(), coarse.GetSpacing(), coarse.GetDirection()
    )
    moved = sitk.GetArrayFromImage(field)
    axes = np.asarray(grid.GetDirection()).reshape(3, 3) * np.asarray(coarse.GetSpacing())
    # Columns of the derivative: how a place moves for one step along x, y, z of the grid.
    columns = [np.gradient(moved, axis=axis) + axes[:, 2 - axis] for axis in (2, 1, 0)]
    found = np.linalg.det(np.stack(columns, axis=-1)) / np.linalg.det(axes)
    inside = sitk.GetImageFromArray(lungs.astype(np.float32))
    inside.CopyInformation(grid)
    weight = sitk.GetArrayFromImage(sitk.Resample(inside, coarse, sitk.Transform(), sitk.sitkLinear, 0.0))
    width = [INFLATION_MM / mm for mm in reversed(coarse.GetSpacing())]
    mean = ndimage.gaussian_filter(weight * np.clip(found, *INFLATION_LIMITS), width)
    mean = np.where(weight > 0, mean / np.maximum(ndimage.gaussian_filter(weight, width), 1e-6), ratio)
    smooth = sitk.GetImageFromArray(mean.astype(np.float32))
    smooth.CopyInformation(coarse)
    result = sitk.GetArrayFromImage(sitk.Resample(smooth, grid, sitk.Transform(), sitk.sitkLinear, ratio))
    result *= ratio / float(result[lungs].mean())
    return np.where(lungs, np.clip(result, *INFLATION_LIMITS), np.float32(ratio))


def _on_followup(
    glass: np.ndarray,
    solid: np.ndarray,
    grid: sitk.Image,
    followup_ct: sitk.Image,
    transform: sitk.Transform | None,
    inverse: sitk.Transform,
) -> Segmentation:
    """Carry the map from the working grid of the baseline to the voxels of the follow-up."""
    labels = np.zeros(followup_ct.GetSize()[::-1], dtype=np.uint8)
    seen = _box_at_followup(glass | solid, grid, followup_ct, transform)
    if seen is not None:
        first, stop = seen
        there = _coarse(followup_ct, first, stop)
        box = tuple(slice(a, b) for a, b in zip(reversed(first), reversed(stop), strict=True))
        voxels = sitk.RegionOfInterest(followup_ct, [b - a for a, b in zip(first, stop, strict=True)], first)
        shares = []
        for mask in (glass | solid, solid):
            image = sitk.GetImageFromArray(mask.astype(np.float32))
            image.CopyInformation(grid)
            # In two steps: what is smooth at 2 mm needs the costly way back for few points only. A stored inverse serves: the exact one
            # would change less than 1 % of the marked voxels, all at edges, and no volume, for they are measured on the baseline.
            carried = sitk.Resample(image, there, inverse, sitk.sitkLinear, 0.0)
            fine = sitk.Resample(carried, voxels, sitk.Transform(), sitk.sitkLinear, 0.0)
            shares.append(sitk.GetArrayFromImage(fine))
        new = shares[0] > 0.5
        labels[box] = np.where(new, np.where(shares[1] > 0.5 * shares[0], 2, 1), 0)
    layer = sitk.GetImageFromArray(labels)
    layer.CopyInformation(followup_ct)
    return Segmentation(
        (layer,),
        (
            Segment("new-ground-glass", NEW_GROUND_GLASS, 0, 1, GROUND_GLASS_COLOUR),
            Segment("new-consolidation", NEW_CONSOLIDATION, 0, 2, CONSOLIDATION_COLOUR),
        ),
    )


def _box_at_followup(
    new: np.ndarray, grid: sitk.Image, followup_ct: sitk.Image, transform: sitk.Transform | None
) -> tuple[list[int], list[int]] | None:
    """Return the first and the stop index (x, y, z) of the follow-up's voxels that hold the new voxels of the working grid."""
    cells = np.argwhere(new & ~ndimage.binary_erosion(new))[:, ::-1].astype(float)
    if not len(cells):
        return None
    points = (grid.TransformContinuousIndexToPhysicalPoint(cell) for cell in cells.tolist())
    moved = points if transform is None else (transform.TransformPoint(point) for point in points)
    places = np.array([followup_ct.TransformPhysicalPointToContinuousIndex(point) for point in moved])
    margin = 3.0 * WORK_MM / np.asarray(followup_ct.GetSpacing())
    first = np.clip(np.floor(places.min(axis=0) - margin), 0, None).astype(int)
    stop = np.clip(np.ceil(places.max(axis=0) + margin) + 1, None, followup_ct.GetSize()).astype(int)
    return None if (stop <= first).any() else (first.tolist(), stop.tolist())


def _on(
    ct: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None, outside: float, like: sitk.Image
) -> np.ndarray:
    """Bring a CT to the grid, blurred as a voxel of the grid would see it, and as the voxels of another scan do where those are larger."""
    through = transform if transform is not None else sitk.Transform(3, sitk.sitkIdentity)
    axes = np.asarray(ct.GetDirection()).reshape(3, 3)
    # A voxel and the interpolation between voxels blur together by about half of its side (one standard deviation).
    other = np.asarray(like.GetDirection()).reshape(3, 3) * (0.5 * np.asarray(like.GetSpacing()))
    more = ((axes.T @ other) ** 2).sum(axis=1) - (0.5 * np.asarray(ct.GetSpacing())) ** 2
    variance = (0.5 * WORK_MM) ** 2 + np.maximum(more, 0.0)
    smooth = sitk.DiscreteGaussian(sitk.Cast(ct, sitk.sitkFloat32), variance.tolist(), useImageSpacing=True)
    return sitk.GetArrayFromImage(sitk.Resample(smooth, grid, through, sitk.sitkLinear, outside))


def _labels_on(labels: sitk.Image, grid: sitk.Image, transform: sitk.Transform | None) -> np.ndarray:
    through = transform if transform is not None else sitk.Transform(3, sitk.sitkIdentity)
    return sitk.GetArrayFromImage(sitk.Resample(labels, grid, through, sitk.sitkNearestNeighbor, 0))


def _new_opacities(
    before: np.ndarray,
    after: np.ndarray,
    sides: np.ndarray,
    there: np.ndarray,
    barred: np.ndarray,
    inflation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | str:
    """Return where there is new ground glass and new consolidation, as bool arrays on the working grid; or why that cannot be told."""
    lungs = np.isin(sides, LUNG_LABELS)
    inner = erode(lungs & ~barred, EDGE_MM, _STEPS) & ~barred
    # New consolidation at the pleura may not be counted as lung at the follow-up; it is lung by the baseline.
    inner &= there | erode(lungs, CONSOLIDATED_EDGE_MM, _STEPS)
    vessels = dilate(lungs & (before > VESSEL_HU), VESSEL_MARGIN_MM, _STEPS)
    usable = inner & ~vessels
    weight = ndimage.gaussian_filter(usable.astype(np.float32), SMOOTH_MM / WORK_MM)
    smooth_before, smooth_after = (
        ndimage.gaussian_filter(np.where(usable, item, 0.0).astype(np.float32), SMOOTH_MM / WORK_MM)
        / np.maximum(weight, 1e-3)
        for item in (before, after)
    )
    expected = (smooth_before + 1000.0) / inflation - 1000.0
    rise = smooth_after - expected
    if usable.any():
        least, most = np.percentile(rise[usable], (10.0, 90.0))
        if least > LARGEST_SHIFT_HU or most < -LARGEST_SHIFT_HU:
            what = "denser" if least > 0 else "less dense"
            return (
                f"nearly all of the lungs is {what} by more than {LARGEST_SHIFT_HU:.0f} HU than inflation explains: another contrast "
                "phase, another reconstruction, or a diffuse disease, for which a reader has to look"
            )
    # The share of the image that is off by chance sets the bar where breathing left more than the usual difference.
    spread = 1.4826 * float(np.median(np.abs(rise[usable] - np.median(rise[usable])))) if usable.any() else 0.0
    shift = float(np.clip(np.median(rise[usable]), -LARGEST_SHIFT_HU, LARGEST_SHIFT_HU)) if usable.any() else 0.0
    enough = max(LEAST_RISE_HU, 4.0 * spread)
    higher = usable & (smooth_after > LEAST_GLASS_HU)
    seeds = _clusters(higher & (rise - shift > enough), LEAST_CLUSTER_ML)
    seeds |= _clusters(higher & (rise - shift > CLEAR_RISE * enough), LEAST_CLEAR_CLUSTER_ML)
    open_lung = lungs & ~barred
    clear = open_lung & (before <= VESSEL_HU)
    gained = np.where(clear, after - ((before + 1000.0) / inflation - 1000.0) - shift, 0.0).astype(np.float32)
    gained = ndimage.gaussian_filter(gained, GAIN_SMOOTH_MM / WORK_MM) / np.maximum(
        ndimage.gaussian_filter(clear.astype(np.float32), GAIN_SMOOTH_MM / WORK_MM), 0.05
    )
    solid = clear & (after > CONSOLIDATION_HU)
    new = _extent(seeds, open_lung, gained, solid, 0.5 * enough) if seeds.any() else seeds
    solid &= new
    return new & ~solid, solid


def _clusters(mask: np.ndarray, least_ml: float) -> np.ndarray:
    """Return the connected parts of a mask that hold at least so many millilitres of the working grid."""
    labels, _ = ndimage.label(mask)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    return np.asarray((counts * WORK_MM**3 / 1000.0 >= least_ml)[labels])


def _extent(
    seeds: np.ndarray, open_lung: np.ndarray, gained: np.ndarray, solid: np.ndarray, least: float
) -> np.ndarray:
    """Return how far opacities go that were found at ``seeds``, from the smooth gain in density (HU).

    An opacity goes on where nothing could be compared: in the vessels that it encloses, at the pleura, on its rim. It is as large as its
    gain in mass over the gain where it is full, so that a voxel that it fills in half counts half, and it lies where the gain is
    largest. What the surroundings gained is taken off. Where ground glass surrounds consolidation, full is what the glass gained.
    """
    reach = dilate(seeds, REACH_MM, _STEPS) & open_lung & (gained > least)
    parts, _ = ndimage.label(ndimage.binary_propagation(seeds & reach, mask=reach))
    new, cores = np.zeros_like(seeds), np.zeros_like(seeds)
    around = open_lung & ~dilate(parts > 0, RIM_MM, _STEPS)
    margin = int(np.ceil((RIM_MM + BACKGROUND_MM) / WORK_MM))
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        box = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in place)
        part, lung = parts[box] == number, open_lung[box]
        near = dilate(part, RIM_MM + BACKGROUND_MM, _STEPS) & around[box]
        background = float(np.median(gained[box][near])) if near.any() else 0.0
        excess = gained[box] - np.clip(background, -LARGEST_SHIFT_HU, LARGEST_SHIFT_HU)
        dense = solid[box] & part
        full = max(_full_gain(excess, part, part & ~dilate(dense, RIM_MM, _STEPS), lung), least)
        if dense.any():
            excess, full = _without_consolidation(excess, part, dense, full)
        core = part & (excess >= min(0.5 * full, float(excess[part].max())))
        zone = dilate(core, RIM_MM, _STEPS) & lung
        size = float(np.minimum(excess[zone] / full, 1.0).sum())
        ordered = np.sort(excess[zone])[::-1]
        new[box] |= zone & (excess >= ordered[min(max(round(size), 1), ordered.size) - 1])
        cores[box] |= core
    # What is faint beside what is dense, and not its rim, is there all the same.
    return np.asarray(new | (seeds & (parts > 0) & ~dilate(cores, FAINT_MM, _STEPS)))


def _without_consolidation(
    excess: np.ndarray, part: np.ndarray, dense: np.ndarray, full: float
) -> tuple[np.ndarray, float]:
    """Return the gain with consolidation as dense as the ground glass around it, and the gain of full ground glass.

    Through the blur, consolidation shines into its surroundings; what is left there without it is their own gain.
    """
    blurred = ndimage.gaussian_filter(dense.astype(np.float32), BLUR_MM / WORK_MM)
    inside = float(np.percentile(excess[dense], SOLID_PERCENTILE))
    shell = part & ~dense & (blurred > SHELL_SHARE)
    for _ in range(SHELL_STEPS if shell.any() else 0):
        left = excess - max(inside - full, 0.0) * blurred
        full = max(full, float(np.median(left[shell])))
    return excess - max(inside - full, 0.0) * blurred, full


def _full_gain(excess: np.ndarray, part: np.ndarray, glass: np.ndarray, lung: np.ndarray) -> float:
    """Return the gain in density in the depth of an opacity, of its ground glass where that is more than a rim."""
    where = glass if np.count_nonzero(glass) * WORK_MM**3 / 1000.0 >= LEAST_CLUSTER_ML else part
    inside = where & (excess >= 0.5 * float(np.percentile(excess[where], FULLEST_PERCENTILE)))
    # The pleura is no rim: beyond it nothing takes part in the smoothing.
    depth = distance_to(lung & ~inside, _STEPS)[inside]
    return float(excess[inside][depth >= np.quantile(depth, 1.0 - DEEPEST_SHARE)].mean())


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
