"""The course of the vessels around a lesion: vesselness, centrelines as a graph, tortuosity and curvature.

Vessels in aerated lung stand out by hundreds of HU. A tube-likeness of the Hessian (A. Frangi et al., doi:10.1007/BFb0056195) at
several widths tells them from walls and lumps. Each connected piece becomes a tree of centrelines: shortest paths that are cheapest
far from the wall, the farthest end first, until every voxel lies beside a path (M. Sato et al., doi:10.1109/PCCGA.2000.883951). Between two branching
points a centreline is drawn to the middle of the vessel and smoothed before it is measured, because steps from voxel to voxel are a tenth longer than the vessel.

Points are in mm in the order x, y, z of the image's physical space (LPS); arrays are (z, y, x).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.interpolate import splev, splprep
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from ..analysis import Features
from ..errors import InputError
from ..images import RegionMask
from ..progress import Progress, part, silent

GRID_MM = 0.7
WIDTHS_MM = (0.8, 1.3, 2.0)
# Below it is aerated lung with its blur; a vessel that is as wide as a voxel reaches it at its middle.
LOWEST_HU = -600.0
_LOWEST_VESSELNESS = 0.15
# Second differences, in HU, of noise of some tens of HU stay below it at the finest width; those of vessels are several times larger.
_NOISE_HU = 60.0
SHORTEST_BRANCH_MM = 6.0
REACH_MM = 15.0
VESSEL_REGION = "vessels"
_SMALLEST_PIECE_MM3 = 15.0
_WALL_COST = 60.0
_SMOOTHING_MM = 0.3
_STEP_MM = 0.5
_FEATURES = ("Mean", "Maximum", "StandardDeviation", "Skewness", "Kurtosis")


@dataclass(frozen=True)
class VesselBranch:
    """A vessel between two ends or branching points.

    ``points_mm`` are (n, 3) along the smoothed centreline. ``tortuosity`` is its length over the distance of its ends, 1 for a
    straight vessel. Curvatures are per mm, ``turning_per_mm`` is the sum of the angles between steps per mm, in radians.
    """

    points_mm: np.ndarray
    length_mm: float
    chord_mm: float
    tortuosity: float
    mean_curvature: float
    largest_curvature: float
    turning_per_mm: float
    radius_mm: float


@dataclass(frozen=True)
class Vessels:
    """The vessels of a region, and the volume that they fill."""

    branches: tuple[VesselBranch, ...]
    volume_ml: float


def vessel_names() -> tuple[str, ...]:
    """Return the names of the features of ``vessel_features``."""
    described = ("Tortuosity", "Curvature", "LargestCurvature", "Turning", "Radius")
    return (
        "vessels_Branches",
        "vessels_Length",
        "vessels_Volume",
        *(f"vessels_{name}{part}" for name in described for part in _FEATURES),
    )


def vessel_features(vessels: Vessels) -> dict[str, float | None]:
    """Return the statistics over branches by name; None where there are too few branches for one.

    Length in mm, volume in ml, radius in mm, curvature per mm, turning in radians per mm.
    """
    # Takes as long to load as a small patient's features, and most runs do without.
    from scipy.stats import kurtosis, skew

    branches = vessels.branches
    values: dict[str, float | None] = {
        "vessels_Branches": float(len(branches)),
        "vessels_Length": float(sum(item.length_mm for item in branches)),
        "vessels_Volume": vessels.volume_ml,
    }
    for name, numbers in (
        ("Tortuosity", [item.tortuosity for item in branches]),
        ("Curvature", [item.mean_curvature for item in branches]),
        ("LargestCurvature", [item.largest_curvature for item in branches]),
        ("Turning", [item.turning_per_mm for item in branches]),
        ("Radius", [item.radius_mm for item in branches]),
    ):
        many = len(numbers) >= 3 and float(np.std(numbers)) > 1e-9
        found = (
            (np.mean(numbers), np.max(numbers), np.std(numbers)) if numbers else (None, None, None),
            (skew(numbers), kurtosis(numbers)) if many else (None, None),
        )
        for statistic, value in zip(_FEATURES, (*found[0], *found[1]), strict=True):
            values[f"vessels_{name}{statistic}"] = None if value is None else float(value)
    return values


def measure_vessels(
    volumes: Mapping[str, sitk.Image],
    regions: Sequence[RegionMask],
    lesions: Collection[str],
    *,
    reach_mm: float = REACH_MM,
    progress: Progress = silent,
) -> tuple[Features, ...]:
    """Return the statistics of the vessels around lesions as features of the region `vessels`, one for each lesion and time point.

    Parameters
    ----------
    volumes
        The CT in HU of each time point.
    regions
        The regions of lesions and lungs; `core` and `lungs` are read. Other lesions are no part of the lungs.
    lesions
        The lesions to look around, such as those in the lungs.
    reach_mm
        How far from the lesion a vessel counts.
    """
    lungs = {item.timepoint: item for item in regions if item.lesion is None and item.region == "lungs"}
    cores = [item for item in regions if item.region == "core" and item.lesion in lesions]
    found = []
    for number, core in enumerate(cores):
        told = part(progress, number / len(cores), (number + 1) / len(cores))
        ct, around = volumes[core.timepoint], lungs.get(core.timepoint)
        vessels, voxels = None, 0
        if core.voxels.any() and around is not None:
            box = _box_around(core, ct, reach_mm)
            shape = tuple(item.stop - item.start for item in box)
            inside, near = (_inside(item, box, shape) for item in (core, around))
            crop = ct[box[2].start : box[2].stop, box[1].start : box[1].stop, box[0].start : box[0].stop]
            search = _search(inside, near, np.array(ct.GetSpacing()[::-1]), reach_mm)
            voxels = int(search.sum())
            vessels = trace_vessels(crop, search, progress=told) if voxels else None
        found.append(
            Features(
                core.timepoint,
                core.lesion,
                VESSEL_REGION,
                voxels,
                None if vessels else f"no lung within {reach_mm:g} mm of the lesion",
                vessel_features(vessels) if vessels else {},
            )
        )
    progress(1.0, "vessels")
    return tuple(found)


def vessels_around(
    ct: sitk.Image, lesion: np.ndarray, lungs: np.ndarray, *, reach_mm: float = REACH_MM, progress: Progress = silent
) -> Vessels:
    """Trace the vessels in the lungs within ``reach_mm`` of a lesion; the lesion itself is left out.

    Parameters
    ----------
    ct
        CT in HU.
    lesion, lungs
        Masks on its grid (z, y, x).

    Raises
    ------
    InputError
        If a mask is not on the grid of the CT, or the lesion is empty.
    """
    shape = ct.GetSize()[::-1]
    if lesion.shape != shape or lungs.shape != shape:
        raise InputError(f"The masks are {lesion.shape} and {lungs.shape} voxels; the CT is {shape}.")
    core = RegionMask.from_array("", "", "core", lesion.astype(bool))
    if not core.voxels.any():
        raise InputError("The lesion is empty; there is nothing to look around.")
    box = _box_around(core, ct, reach_mm)
    search = _search(lesion[box].astype(bool), lungs[box].astype(bool), np.array(ct.GetSpacing()[::-1]), reach_mm)
    crop = ct[box[2].start : box[2].stop, box[1].start : box[1].stop, box[0].start : box[0].stop]
    return trace_vessels(crop, search, progress=progress)


def _box_around(core: RegionMask, ct: sitk.Image, reach_mm: float) -> tuple[slice, ...]:
    """Return the part of the CT that vessels within reach are traced in, with what the widest filter sees beyond."""
    margin = np.ceil((reach_mm + 3 * WIDTHS_MM[-1]) / np.array(ct.GetSpacing()[::-1])).astype(int)
    return tuple(
        slice(max(0, start - int(more)), min(whole, start + size + int(more)))
        for start, size, more, whole in zip(core.offset_zyx, core.voxels.shape, margin, ct.GetSize()[::-1], strict=True)
    )


def _inside(region: RegionMask, box: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return the part of a region in a box as a bool array."""
    mask = np.zeros(shape, dtype=bool)
    here, there = [], []
    for start, size, part_of in zip(region.offset_zyx, region.voxels.shape, box, strict=True):
        first, last = max(start, part_of.start), min(start + size, part_of.stop)
        if last <= first:
            return mask
        here.append(slice(first - part_of.start, last - part_of.start))
        there.append(slice(first - start, last - start))
    mask[tuple(here)] = region.voxels[tuple(there)]
    return mask


def _search(lesion: np.ndarray, lungs: np.ndarray, spacing: np.ndarray, reach_mm: float) -> np.ndarray:
    distance = ndimage.distance_transform_edt(~lesion, sampling=spacing)
    # A voxel and a half of partial volume around the lesion looks like a wall, and its spicules like vessels.
    return np.asarray((distance <= reach_mm) & (distance > 1.5 * spacing.max()) & lungs)


def trace_vessels(ct: sitk.Image, search: np.ndarray | None = None, *, progress: Progress = silent) -> Vessels:
    """Trace the vessels of a CT in HU, inside the mask ``search`` (z, y, x) where it is given.

    Raises
    ------
    InputError
        If the mask is not on the grid of the CT.
    """
    if search is not None and search.shape != ct.GetSize()[::-1]:
        raise InputError(f"The mask is {search.shape} voxels; the CT is {ct.GetSize()[::-1]}.")
    fine = _isotropic(sitk.Cast(ct, sitk.sitkFloat32), sitk.sitkLinear, -1000.0)
    progress(0.1, "vesselness")
    values = sitk.GetArrayFromImage(fine)
    found = (_vesselness(fine) > _LOWEST_VESSELNESS) & (values > LOWEST_HU)
    if search is not None:
        mask = sitk.GetImageFromArray(search.astype(np.uint8))
        mask.CopyInformation(ct)
        found &= sitk.GetArrayFromImage(_isotropic(mask, sitk.sitkNearestNeighbor, 0)).astype(bool)
    progress(0.5, "centrelines")
    labels, count = ndimage.label(found, np.ones((3, 3, 3)))
    smallest = _SMALLEST_PIECE_MM3 / GRID_MM**3
    branches: list[VesselBranch] = []
    volume = 0
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        piece = labels[box] == number
        if piece.sum() < smallest:
            continue
        volume += int(piece.sum())
        offset = np.array([item.start for item in box])
        depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1, 1:-1] * GRID_MM
        for path, free in _paths(piece, depth):
            branch = _branch(path, free, offset, depth, values, fine)
            if branch is not None:
                branches.append(branch)
        progress(0.5 + 0.5 * number / count, "centrelines")
    return Vessels(tuple(branches), volume * GRID_MM**3 / 1000)


def _isotropic(image: sitk.Image, interpolator: int, outside: float) -> sitk.Image:
    size = [
        max(1, round(count * step / GRID_MM)) for count, step in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    return sitk.Resample(
        image,
        size,
        sitk.Transform(),
        interpolator,
        image.GetOrigin(),
        (GRID_MM,) * 3,
        image.GetDirection(),
        outside,
        image.GetPixelID(),
    )


def _vesselness(image: sitk.Image) -> np.ndarray:
    """Return the largest tube-likeness over the widths, from 0 to 1, of bright tubes."""
    best = np.zeros(image.GetSize()[::-1], dtype=np.float32)
    for width in WIDTHS_MM:
        smooth = sitk.SmoothingRecursiveGaussian(image, width)
        # Scaled so that the same tube gives the same second difference at its own width.
        scaled = smooth * (width * width)
        tube = sitk.ObjectnessMeasure(
            scaled,
            alpha=0.5,
            beta=0.5,
            gamma=_NOISE_HU,
            scaleObjectnessMeasure=False,
            objectDimension=1,
            brightObject=True,
        )
        np.maximum(best, sitk.GetArrayViewFromImage(tube), out=best)
    return best


def _paths(piece: np.ndarray, depth: np.ndarray) -> list[tuple[np.ndarray, tuple[bool, bool]]]:
    """Return the branches of a connected piece as (n, 3) voxels (z, y, x), cut at branching points, and which of their ends are free."""
    places = np.argwhere(piece)
    number = np.full(piece.shape, -1, dtype=np.int64)
    number[piece] = np.arange(len(places))
    heights = depth[piece]
    starts, ends, lengths = _edges(number)
    # Steps are dear beside the wall and cheap in the middle of the vessel.
    shallow = 1 - np.minimum(heights[starts], heights[ends]) / np.maximum(_local_depth(piece, depth)[ends], 1e-6)
    graph = _graph(starts, ends, lengths, len(places))
    costs = _graph(starts, ends, lengths * (1 + _WALL_COST * np.clip(shallow, 0, 1) ** 2), len(places))
    root = int(np.argmax(dijkstra(graph, indices=int(np.argmax(heights)))))
    far = dijkstra(graph, indices=root)
    _, before = dijkstra(costs, indices=root, return_predecessors=True)
    covered = np.zeros(len(places), dtype=bool)
    on_path = np.zeros(len(places), dtype=bool)
    tree = cKDTree(places * GRID_MM)
    traced: list[list[int]] = []
    while not covered.all():
        end = int(np.argmax(np.where(covered, -1.0, far)))
        path = [end]
        while path[-1] != root and not on_path[path[-1]]:
            path.append(int(before[path[-1]]))
        reach = 1.5 * heights[path] + 1.5 * GRID_MM
        for near in tree.query_ball_point(places[path] * GRID_MM, reach):
            covered[near] = True
        covered[path] = True
        # A spur that hardly leaves its vessel is a bump of the wall.
        if traced and (len(path) - 1) * GRID_MM < heights[path[-1]] + SHORTEST_BRANCH_MM / 2:
            continue
        on_path[path] = True
        traced.append(path)
    ends_on = {path[-1] for path in traced}
    pieces = []
    for path in traced:
        cuts = [0, *(index for index in range(1, len(path) - 1) if path[index] in ends_on), len(path) - 1]
        for first, last in pairwise(cuts):
            if last > first:
                free = (first == 0, path[last] == root)
                pieces.append((places[path[first : last + 1]], free))
    return pieces


def _local_depth(piece: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return for each voxel of a piece the depth of the middle of its vessel."""
    return np.asarray(ndimage.maximum_filter(depth, size=5)[piece])


def _edges(number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of neighbouring voxels (of 26) and their distances in mm."""
    starts, ends, lengths = [], [], []
    for step in np.ndindex(3, 3, 3):
        move = np.array(step) - 1
        if tuple(move) <= (0, 0, 0):
            continue
        here = tuple(slice(max(0, -item), size - max(0, item)) for item, size in zip(move, number.shape, strict=True))
        there = tuple(slice(max(0, item), size - max(0, -item)) for item, size in zip(move, number.shape, strict=True))
        both = (number[here] >= 0) & (number[there] >= 0)
        starts.append(number[here][both])
        ends.append(number[there][both])
        lengths.append(np.full(int(both.sum()), GRID_MM * float(np.linalg.norm(move))))
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(lengths)


def _graph(starts: np.ndarray, ends: np.ndarray, weights: np.ndarray, size: int) -> coo_matrix:
    return coo_matrix((np.r_[weights, weights], (np.r_[starts, ends], np.r_[ends, starts])), shape=(size, size)).tocsr()


def _branch(
    path: np.ndarray,
    free: tuple[bool, bool],
    offset: np.ndarray,
    depth: np.ndarray,
    values: np.ndarray,
    image: sitk.Image,
) -> VesselBranch | None:
    """Measure one branch; None where it is too short."""
    if (len(path) - 1) * GRID_MM < SHORTEST_BRANCH_MM / 2:
        return None
    radius = float(np.median(depth[tuple(path.T)]))
    # The path runs to the outermost voxel; the middle of a round end lies one radius inside.
    beyond = round(radius / GRID_MM)
    path = path[beyond if free[0] else 0 : len(path) - (beyond if free[1] else 0)]
    if len(path) < 2:
        return None
    centred = _centred(path + offset, values, max(radius, GRID_MM) * 1.5) * GRID_MM
    line, length = smooth_line(centred)
    if length < SHORTEST_BRANCH_MM:
        return None
    chord = float(np.linalg.norm(line[-1] - line[0]))
    curvature = _curvature(line)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    points = np.array(image.GetOrigin()) + line[:, ::-1] @ direction.T
    steps = np.diff(line, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    angles = np.arccos(np.clip((steps[1:] * steps[:-1]).sum(axis=1), -1, 1))
    return VesselBranch(
        points,
        length,
        chord,
        length / max(chord, GRID_MM),
        float(curvature.mean()),
        float(curvature.max()),
        float(angles.sum()) / length,
        radius,
    )


def _centred(path: np.ndarray, values: np.ndarray, reach_mm: float) -> np.ndarray:
    """Move each voxel of a path to the centre of brightness around it, so far as it lies across the path; (n, 3) in voxels."""
    reach = int(np.ceil(reach_mm / GRID_MM))
    grid = np.mgrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1].reshape(3, -1).T
    grid = grid[np.linalg.norm(grid, axis=1) * GRID_MM <= reach_mm]
    around = np.clip(path[:, None, :] + grid, 0, np.array(values.shape) - 1)
    weights = np.clip(values[around[..., 0], around[..., 1], around[..., 2]] - LOWEST_HU, 0, None)
    shift = (weights[..., None] * grid).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-6)[:, None]
    along = np.gradient(ndimage.uniform_filter1d(path.astype(float), 5, axis=0, mode="nearest"), axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    return np.asarray(path + shift - (shift * along).sum(axis=1, keepdims=True) * along)


def smooth_line(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a line of equal steps through noisy points (n, 3) in mm by a smoothing spline, and its length.

    The spline keeps as near to the points as steps from voxel to voxel are off, which leaves curves wider than a few voxels as they are.
    """
    moved = np.r_[True, np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-6]
    points = points[moved]
    if len(points) < 5:
        return points, float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    spline, _ = splprep(points.T, s=len(points) * _SMOOTHING_MM**2, k=3)
    dense = np.array(splev(np.linspace(0, 1, 20 * len(points)), spline)).T
    travelled = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))]
    count = max(5, round(travelled[-1] / _STEP_MM) + 1)
    even = np.linspace(0, travelled[-1], count)
    return np.column_stack([np.interp(even, travelled, axis) for axis in dense.T]), float(travelled[-1])


def _curvature(line: np.ndarray) -> np.ndarray:
    """Return the curvature per mm along a line of equal steps, by differences over some millimetres."""
    reach = max(1, min(round(1.5 / _STEP_MM), (len(line) - 1) // 2))
    before, middle, after = line[: -2 * reach], line[reach:-reach], line[2 * reach :]
    # Curvature of the circle through three points: four times their triangle's area over the product of its sides.
    first, second, third = middle - before, after - middle, after - before
    area = 0.5 * np.linalg.norm(np.cross(first, second), axis=1)
    sides: Sequence[np.ndarray] = [np.linalg.norm(item, axis=1) for item in (first, second, third)]
    return np.asarray(4 * area / np.maximum(sides[0] * sides[1] * sides[2], 1e-9))
