"""Size and density of one lesion: diameters on the contour polygon, volume, HU.

The contour of a slice is the marching-squares polygon of the mask at level 0.5: it runs through the middle between each
voxel inside and its neighbour outside, which is where the border of the object is on average. A diameter along a row or
column is unbiased. The longest diameter looks for the outermost of many vertices, each at most half a voxel off: on ellipses
drawn as voxels it is 0.5 voxel above the long axis on average, at most 0.9 above and 0.5 below. It is not corrected: it is
exactly what a reader measures on the contour that is shown, the two scans that are compared have the same excess, and how much
it would be for another form than an ellipse is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ..analysis import Point
from .geometry import Crop, axial_axis, crop_of, index_to_world, spacing_of, voxel_volume_ml

READER_SD_LN_DIAMETER = 0.120
"""Within-nodule SD of ln(diameter) between readers: LIDC, 690 nodules of 10 mm or more (doi:10.1118/1.3528204)."""

_TINY = 1e-9


@dataclass(frozen=True)
class Measurement:
    """One lesion at one time point. Lengths in mm, volumes in ml, positions in LPS.

    ``volume_ml`` counts voxels, which is unbiased for masks of voxels whose centre lies inside; ``mesh_volume_ml`` is that
    of the marching-tetrahedra surface, which cuts the corners of small convex shapes. ``slice_index`` counts along the
    image axis nearest to head-feet. ``parts`` is the number of separate pieces (26-connected) that are large enough
    to count; the diameters are those of the piece with the longest one, because a chord across the gap between two
    pieces is no diameter.
    """

    voxels: int
    volume_ml: float
    mesh_volume_ml: float
    long_axis_mm: float
    short_axis_mm: float
    slice_index: int
    long_axis_ends_lps_mm: tuple[Point, Point]
    short_axis_ends_lps_mm: tuple[Point, Point]
    centroid_lps_mm: Point
    mean_hu: float
    sd_hu: float
    parts: int = 1


@dataclass(frozen=True)
class _Diameters:
    long_mm: float
    short_mm: float
    plane: int
    long_ends: np.ndarray
    short_ends: np.ndarray


def measure(mask: Crop, ct: sitk.Image) -> Measurement | None:
    """Measure a lesion given as a mask on the grid of a CT.

    Parameters
    ----------
    mask
        The lesion's voxels (z, y, x), cropped or whole.
    ct
        The CT of the same time point, in HU; it carries the geometry.

    Returns
    -------
    Measurement or None
        None where the mask is empty.
    """
    mask = crop_of(mask.voxels, mask.offset_zyx)
    if mask.count == 0:
        return None
    axis = axial_axis(ct)
    spacing = spacing_of(ct)
    pieces = significant_parts(mask)
    diameters = max((_diameters(piece, axis, spacing) for piece in pieces), key=lambda item: item.long_mm)
    offset = np.asarray(mask.offset_zyx, dtype=float)
    values = sitk.GetArrayViewFromImage(ct)[mask.box][mask.voxels].astype(np.float64)
    centroid = np.argwhere(mask.voxels).mean(axis=0) + offset
    return Measurement(
        voxels=mask.count,
        volume_ml=mask.count * voxel_volume_ml(ct),
        mesh_volume_ml=mesh_volume_voxels(mask.voxels) * voxel_volume_ml(ct),
        long_axis_mm=diameters.long_mm,
        short_axis_mm=diameters.short_mm,
        slice_index=diameters.plane + mask.offset_zyx[axis],
        long_axis_ends_lps_mm=_ends(diameters.long_ends + offset, ct),
        short_axis_ends_lps_mm=_ends(diameters.short_ends + offset, ct),
        centroid_lps_mm=_point(index_to_world(centroid[None], ct)[0]),
        mean_hu=float(values.mean()),
        sd_hu=float(values.std()),
        parts=len(pieces),
    )


def repeatability_limit_percent(readings: int = 2) -> float:
    """Return by how many percent a diameter must change to exceed, with 95 % confidence, the difference between readers.

    ``readings`` 2: both scans read independently; 1: one reading with a known truth. The limit is that of an
    increase, 100 (exp(1.96 sqrt(readings) SD) - 1), with the SD of ln(diameter) between readers.
    """
    return 100.0 * (math.exp(1.96 * math.sqrt(readings) * READER_SD_LN_DIAMETER) - 1.0)


def significant_parts(mask: Crop, share: float = 0.1) -> list[np.ndarray]:
    """Split a mask into its connected pieces (26 neighbours) and leave out specks.

    A speck has less than ``share`` of the voxels of the largest piece. Pieces come as arrays of the size of
    ``mask.voxels``, largest first; a piece has to be there at all, so an all-speck mask gives its largest speck.
    """
    labels, number = ndimage.label(mask.voxels, structure=np.ones((3, 3, 3)))
    if number <= 1:
        return [mask.voxels]
    counts = np.bincount(labels.ravel())[1:]
    order = np.argsort(-counts, kind="stable")
    return [labels == index + 1 for index in order if counts[index] >= share * counts[order[0]]]


def contour_points(plane: np.ndarray) -> np.ndarray:
    """Return the outermost marching-squares vertices (row, column) of a 2D mask: those that its convex hull can touch.

    Every hull vertex of the level-0.5 polygon is the first or last crossing of its row or of its column.
    """
    points = []
    for axis in (0, 1):
        lines = plane if axis == 0 else plane.T
        hit = np.flatnonzero(lines.any(axis=1))
        first = lines[hit].argmax(axis=1) - 0.5
        last = lines.shape[1] - 1 - lines[hit, ::-1].argmax(axis=1) + 0.5
        found = np.concatenate([np.column_stack([hit, first]), np.column_stack([hit, last])])
        points.append(found if axis == 0 else found[:, ::-1])
    return np.concatenate(points)


def contour_segments(plane: np.ndarray) -> np.ndarray:
    """Return all edges of the marching-squares polygon at level 0.5 of a 2D mask, shape (n, 2 ends, 2), (row, column).

    Where two inside voxels touch only by a corner the polygon keeps them connected, as the eye does.
    """
    wide = np.pad(plane, 1).astype(np.int8)
    code = wide[:-1, :-1] + 2 * wide[:-1, 1:] + 4 * wide[1:, 1:] + 8 * wide[1:, :-1]
    top, right, bottom, left = (0.0, 0.5), (0.5, 1.0), (1.0, 0.5), (0.5, 0.0)
    table = {
        1: [(left, top)],
        2: [(top, right)],
        3: [(left, right)],
        4: [(right, bottom)],
        5: [(top, right), (left, bottom)],
        6: [(top, bottom)],
        7: [(left, bottom)],
        8: [(left, bottom)],
        9: [(top, bottom)],
        10: [(left, top), (right, bottom)],
        11: [(right, bottom)],
        12: [(left, right)],
        13: [(top, right)],
        14: [(left, top)],
    }
    edges: list[np.ndarray] = []
    for case, lines in table.items():
        cells = np.argwhere(code == case) - 1.0
        edges.extend(np.stack([cells + start, cells + end], axis=1) for start, end in lines)
    return np.concatenate(edges)


def mesh_volume_voxels(mask: np.ndarray) -> float:
    """Volume, in voxels, inside the marching-tetrahedra surface of a mask at level 0.5.

    Each cell between eight voxel centres is cut into tetrahedra along each of its four body diagonals in turn; the
    volume where the linear interpolation is at least 0.5 depends only on how many of the four corners are set
    (0, 1/8, 1/2, 7/8, 1), so the sum over cells needs a table of 256 values and no mesh.
    """
    wide = np.pad(mask, 1).astype(np.uint8)
    code = np.zeros(tuple(size - 1 for size in wide.shape), dtype=np.uint8)
    for bit, (z, y, x) in enumerate(product((0, 1), repeat=3)):
        corner = wide[z : z + code.shape[0], y : y + code.shape[1], x : x + code.shape[2]]
        code |= corner << np.uint8(bit)
    return float(np.bincount(code.ravel(), minlength=256) @ _CELL_VOLUME)


def _cell_volumes() -> np.ndarray:
    share = np.array([0.0, 1 / 8, 1 / 2, 7 / 8, 1.0])
    volumes = np.zeros(256)
    corners = list(product((0, 1), repeat=3))
    for code in range(256):
        is_set = {corner: bool(code >> bit & 1) for bit, corner in enumerate(corners)}
        parts = []
        for flip in product((0, 1), repeat=2):
            for order in permutations(range(3)):
                walk, place = [], [flip[0], flip[1], 0]
                walk.append(tuple(place))
                for axis in order:
                    place[axis] = 1 - place[axis]
                    walk.append(tuple(place))
                parts.append(share[sum(is_set[corner] for corner in walk)])
        volumes[code] = np.mean(parts)
    return volumes


_CELL_VOLUME = _cell_volumes()


def _diameters(piece: np.ndarray, axis: int, spacing_zyx: tuple[float, ...]) -> _Diameters:
    """Return the longest axial diameter over all slices and the longest chord across it in the same slice."""
    planes = np.moveaxis(piece, axis, 0)
    step = np.array([size for index, size in enumerate(spacing_zyx) if index != axis])
    bounds = [(0.0 if not plane.any() else _largest_possible(plane, step), index) for index, plane in enumerate(planes)]
    longest = 0.0
    tied: list[tuple[float, int, np.ndarray, np.ndarray]] = []
    for bound, index in sorted(bounds, key=lambda item: (-item[0], item[1])):
        if bound == 0.0 or bound < longest - _TINY:
            break
        for blob in _blobs(planes[index], step, longest - _TINY):
            points = contour_points(blob) * step
            length, pairs = _farthest_pairs(points)
            if length < longest - _TINY:
                continue
            if length > longest + _TINY:
                longest, tied = length, []
            tied.extend((_extent_across(points, ends), index, blob, ends) for ends in pairs)
    best: _Diameters | None = None
    # Of several longest diameters that with the longest perpendicular counts, so that the result hangs on no order.
    for widest, index, blob, ends in sorted(tied, key=lambda item: -item[0]):
        if best is not None and widest <= best.short_mm + _TINY:
            break
        short, short_ends = _longest_chord_across(contour_segments(blob) * step, ends)
        if best is None or short > best.short_mm + _TINY:
            best = _Diameters(
                longest, short, index, _insert(ends / step, axis, index), _insert(short_ends / step, axis, index)
            )
    assert best is not None  # noqa: S101 - a piece has at least one voxel
    return best


def _blobs(plane: np.ndarray, step: np.ndarray, least_mm: float) -> Iterator[np.ndarray]:
    """Yield the connected parts of a slice that may have a diameter of at least ``least_mm``, each as a mask of the slice."""
    labels, number = ndimage.label(plane, structure=np.ones((3, 3)))
    if number == 1:
        yield plane
        return
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        if np.hypot((rows.stop - rows.start) * step[0], (columns.stop - columns.start) * step[1]) >= least_mm:
            yield labels == index


def _largest_possible(plane: np.ndarray, step: np.ndarray) -> float:
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    sides = np.array([rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1]) * step
    return float(np.hypot(*sides))


def _extent_across(points: np.ndarray, ends: np.ndarray) -> float:
    """Return how far (n, 2) points reach perpendicular to the line between two ends: no chord across it is longer."""
    along = ends[1] - ends[0]
    return float(np.ptp(points @ np.array([-along[1], along[0]]))) / max(float(np.hypot(*along)), _TINY)


def _farthest_pairs(points: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Return the largest distance between two of (n, 2) points, and all pairs so far apart, by comparing all corners of their hull."""
    try:
        corners = points[ConvexHull(points).vertices]
    except QhullError:
        corners = np.unique(points, axis=0)
    gaps = np.hypot(*(corners[:, None] - corners[None]).transpose(2, 0, 1))
    longest = float(gaps.max())
    return longest, [corners[[first, second]] for first, second in np.argwhere(np.triu(gaps) >= longest - _TINY)]


def _longest_chord_across(segments: np.ndarray, ends: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the longest chord perpendicular to the line between two ends, with both its ends on the contour.

    The extent of a polygon along the perpendicular, as a function of the position along the line, is piecewise
    linear with its kinks at the polygon's vertices: looking at the vertices, from both sides, finds its maximum.
    """
    direction = ends[1] - ends[0]
    length = np.hypot(*direction)
    along = direction / length if length > 0 else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    u, v = segments @ along, segments @ across
    swap = u[:, 0] > u[:, 1]
    u[swap], v[swap] = u[swap][:, ::-1], v[swap][:, ::-1]
    places = np.unique(np.round(u, 9))
    first = np.searchsorted(places, u[:, 0] - _TINY, side="left")
    counts = np.searchsorted(places, u[:, 1] + _TINY, side="right") - first
    # One entry for every place that lies on a segment.
    segment = np.repeat(np.arange(len(u)), counts)
    place = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    width = (u[:, 1] - u[:, 0])[segment]
    level = width > 10 * _TINY
    weight = np.where(level, (places[place] - u[segment, 0]) / np.where(level, width, 1.0), 0.0)
    crossing = v[segment, 0] + np.clip(weight, 0.0, 1.0) * (v[segment, 1] - v[segment, 0])
    low, high = np.full(len(places), np.inf), np.full(len(places), -np.inf)
    for values in (crossing, np.where(level, crossing, v[segment, 1])):
        np.minimum.at(low, place, values)
        np.maximum.at(high, place, values)
    extent = high - low
    widest = int(np.argmax(extent >= extent.max() - _TINY))
    ends_across = np.array([places[widest] * along + side[widest] * across for side in (low, high)])
    return float(extent[widest]), ends_across


def _insert(points: np.ndarray, axis: int, index: int) -> np.ndarray:
    return np.insert(points, axis, float(index), axis=1)


def _point(values: np.ndarray) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _ends(indices: np.ndarray, image: sitk.Image) -> tuple[Point, Point]:
    world = index_to_world(indices, image)
    return _point(world[0]), _point(world[1])
