"""One function that aligns a follow-up with a baseline, whatever engine does the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..analysis import AlignmentQuality
from ..errors import InputError
from ..progress import Progress, part, silent
from .anatomy import AIR_HU, body_of, lungs_of, quick_anatomy, value_range
from .deform import Deformation, Level, Schedule, deform, unfold
from .fields import field_transform, inverse_field, padded, sample_transform
from .grids import Grid, axis_spacing, corners, covered, grid_over, reduce, sample
from .peers import PEERS, register, why_missing
from .quality import Measured, judge, measure, there_and_back
from .resampling import write_transform
from .start import AFFINE, RIGID, Linear, Scan, Start, find_start, refine

ENGINES = ("auto", "local-correlation", "affine", "rigid", *PEERS, "user")

_DENSITY_RANGE_HU = (-1000.0, 300.0)
# The body is matched with a rim of this width around it, so that the skin takes part.
_RIM_MM = 8.0
_MARGIN_MM = 8.0
_COARSE_MM = 8.0
_FINEST_MM = 1.5
# Bounds of time and memory: of the images that are matched, and of those on which the result is measured.
_MOST_VOXELS = 2_500_000
_MOST_MEASURED_VOXELS = 850_000
_COARSEST_LEVEL_MM = 9.0
# What is run on the coarsest level, on those between, and on the finest; widths in node spacings, that is in two voxels. Wide neighbourhoods
# carry the field across flat tissue (fat, muscle, the inside of a tumour); narrower ones then follow the vessels where that correlates better.
# On real scans, whose breathing changes the density of lung, the last windows have to be wide: with 9 voxels instead of 7 the landmarks of a pair
# are met better, and known smooth deformations of noisy copies hardly worse.
_COARSE_SCHEDULES = (Schedule(25, 5, 3.0, 0.4),)
_MIDDLE_SCHEDULES = (*_COARSE_SCHEDULES, Schedule(15, 5, 2.0, 0.4))
_FINE_SCHEDULES = (Schedule(15, 7, 3.0, 0.5, least_gain=2e-4), Schedule(15, 9, 2.0, 0.5, least_gain=2e-4))


@dataclass(frozen=True, eq=False)
class Alignment:
    """A follow-up aligned with a baseline.

    ``transform`` carries LPS points of the baseline to the follow-up (the direction in which ITK resamples the follow-up on the
    baseline), ``inverse`` carries points of the follow-up to the baseline. Both are plain ITK transforms. Where the map is deformable, ITK
    cannot hold its exact inverse, so ``inverse`` is good for resampling (see ``inverse_field`` for its error), and
    ``invert_points(points, transform, inverse)`` carries points back to within 1e-4 mm.
    """

    transform: sitk.Transform
    inverse: sitk.Transform
    engine: str
    quality: AlignmentQuality
    measured: Measured

    def local_quality(self, region: sitk.Image) -> float | None:
        """Return the local correlation (0 to 1) in and 10 mm around a region of the baseline, such as a lesion.

        ``region`` is a mask (not 0 inside) on any grid. None where the two scans share no structure there to judge by.
        """
        grid = self.measured.grid
        shares = sample(sitk.Cast(reduce(region != 0, np.asarray(grid.spacing)), sitk.sitkFloat32), grid)
        inside = sample(sitk.Cast(region != 0, sitk.sitkUInt8), grid, nearest=True) > 0
        inside |= shares > 0.25
        if not inside.any():
            return None
        near = ndimage.distance_transform_edt(~inside, sampling=grid.spacing[::-1]) <= 10.0
        weights = np.where(near, self.measured.telling, 0.0)
        if weights.sum() < 1.0:
            return None
        return float(np.clip((self.measured.correlation * weights).sum() / weights.sum(), 0.0, 1.0))


def align(
    fixed: sitk.Image,
    moving: sitk.Image,
    *,
    fixed_mask: sitk.Image | None = None,
    moving_mask: sitk.Image | None = None,
    engine: str = "auto",
    initial: sitk.Transform | None = None,
    progress: Progress = silent,
) -> Alignment:
    """Align a follow-up CT (``moving``) with the baseline CT (``fixed``).

    Parameters
    ----------
    fixed, moving
        Scalar volumes in HU, any grid and direction.
    fixed_mask, moving_mask
        Anatomy maps (labels of ``images.Anatomy``) on the grids of the scans; a quick map is made where they are not given.
    engine
        ``auto`` and ``local-correlation`` (affine, then deformable; nothing to install), ``affine``, ``rigid``, or ``user`` (``initial`` as it
        is, measured). After the same linear start also ``greedy``, ``elastix`` and ``ants``, where their Python packages are installed, and
        inside 3D Slicer ``brains``, ``slicer-elastix`` and ``slicer-ants``.
    initial
        Where to start, or the user's transform: baseline to follow-up points in LPS mm.
    progress
        Told the fraction done; may raise ``CancelledError``.

    Raises
    ------
    InputError
        If an image is not a scalar volume, a mask is on another grid, the engine is not known or not installed, or ``user`` comes
        without a transform.
    StageError
        If an engine of others gives up.
    """
    _check(fixed, moving, fixed_mask, moving_mask, engine, initial)
    progress(0.0, "Preparing the scans")
    fixed_side = _Side.of(fixed, fixed_mask)
    moving_side = _Side.of(moving, moving_mask)
    problems = [
        f"the {name} does not look like a CT in HU (values from {side.low:.0f} to {side.high:.0f})"
        for name, side in (("baseline", fixed_side), ("follow-up", moving_side))
        if not side.looks_like_ct
    ]

    grid = _working_grid(fixed_side, _MOST_MEASURED_VOXELS)
    fixed_scan = fixed_side.on(grid)
    start: Start | None
    troubles: tuple[str, ...]
    if engine == "user" and initial is not None:
        transform, inverse, returned = _given(initial, grid)
        start, troubles, name = None, (), "user"
    else:
        freedom = RIGID if engine == "rigid" else AFFINE
        start = _start(fixed_side, moving_side, freedom, initial, part(progress, 0.05, 0.3))
        linear = start.linear
        linear = _improve(fixed_scan, moving_side, linear, freedom)
        if engine in ("rigid", "affine"):
            transform, inverse = linear.transform(), linear.inverse().transform()
            returned = np.full(grid.shape, np.nan, dtype=np.float32)
            troubles, name = (), engine
        elif engine in PEERS:
            transform, inverse = _by_peer(engine, fixed_side, moving_side, linear)
            returned = np.full(grid.shape, np.nan, dtype=np.float32)
            troubles, name = (), engine
        else:
            transform, inverse, returned, troubles = _deformed(
                fixed_side, moving_side, linear, grid, part(progress, 0.3, 0.9)
            )
            name = "local-correlation"
    progress(0.9, "Measuring the quality of the alignment")
    moved = moving_side.on(grid, transform)
    before = moving_side.on(grid, initial)
    measured = measure(fixed_scan, moved, before, transform, returned)
    # A given displacement field claims to explain what a linear map cannot, and is judged as one.
    deformable = name in ("local-correlation", *PEERS) or (name == "user" and not transform.IsLinear())
    quality = judge(
        measured,
        start,
        (*problems, *troubles),
        not_ct=bool(problems),
        deformable=deformable,
        two_ways=name == "local-correlation",
    )
    progress(1.0, "Aligned")
    return Alignment(transform, inverse, name, quality, measured)


@dataclass(frozen=True, eq=False)
class _Side:
    """One of the two scans, reduced to what the alignment needs, with its anatomy."""

    image: sitk.Image
    labels: sitk.Image
    low: float
    high: float
    looks_like_ct: bool

    @classmethod
    def of(cls, image: sitk.Image, mask: sitk.Image | None) -> _Side:
        values = value_range(image)
        small = sitk.Cast(reduce(image, _FINEST_MM), sitk.sitkFloat32)
        small = sitk.Clamp(small, sitk.sitkFloat32, *_DENSITY_RANGE_HU)
        labels = quick_anatomy(small) if mask is None else mask
        return cls(small, labels, values.low, values.high, values.looks_like_ct)

    def on(self, grid: Grid, transform: sitk.Transform | None = None) -> Scan:
        """Return the scan on a grid."""
        values = sample(reduce(self.image, np.asarray(grid.spacing)), grid, transform, outside=AIR_HU)
        labels = sample(self.labels, grid, transform, nearest=True)
        valid = covered(self.image, grid, transform)
        body = body_of(labels) & valid
        return Scan(grid, values, valid, body, lungs_of(labels) & valid)


def _check(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    engine: str,
    initial: sitk.Transform | None,
) -> None:
    problems = []
    for name, image, mask in (("baseline", fixed, fixed_mask), ("follow-up", moving, moving_mask)):
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            problems.append(f"The {name} is not a scalar volume of three dimensions. Give a CT volume.")
        elif mask is not None and not (
            mask.GetSize() == image.GetSize()
            and np.allclose(mask.GetSpacing(), image.GetSpacing(), rtol=1e-3)
            and np.allclose(mask.GetOrigin(), image.GetOrigin(), atol=0.01)
            and np.allclose(mask.GetDirection(), image.GetDirection(), atol=1e-3)
        ):
            problems.append(f"The anatomy map of the {name} is on another grid than the CT. Resample it on the CT.")
    if engine not in ENGINES:
        problems.append(f"The alignment engine {engine!r} is not known. Choose one of: {', '.join(ENGINES)}.")
    elif engine in PEERS and (missing := why_missing(engine)) is not None:
        problems.append(missing)
    if engine == "user" and initial is None:
        problems.append("The alignment engine 'user' needs a transform. Give one, or choose the engine 'auto'.")
    if initial is not None and initial.GetDimension() != 3:
        problems.append(f"The given transform has {initial.GetDimension()} dimensions. Give a three-dimensional one.")
    if problems:
        raise InputError(problems)


def _body_box(side: _Side) -> tuple[np.ndarray, np.ndarray]:
    """Return the LPS box of the body and its rim, clipped to the image."""
    points = corners(side.image)
    low, high = points.min(axis=0), points.max(axis=0)
    inside = sitk.GetArrayViewFromImage(side.labels) > 0
    if not inside.any():
        return low, high
    index = [np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis))) for axis in (2, 1, 0)]
    edges = [(float(item[0]) - 0.5, float(item[-1]) + 0.5) for item in index]
    box = np.array(
        [
            side.labels.TransformContinuousIndexToPhysicalPoint((x, y, z))
            for x in edges[0]
            for y in edges[1]
            for z in edges[2]
        ]
    )
    return np.maximum(low, box.min(axis=0) - _RIM_MM), np.minimum(high, box.max(axis=0) + _RIM_MM)


def _working_grid(side: _Side, most_voxels: int) -> Grid:
    """Return a grid over the body: as fine as the image is worth and the bound on voxels allows."""
    low, high = _body_box(side)
    extent = high - low + 2.0 * _MARGIN_MM
    floor = np.maximum(_FINEST_MM, 0.8 * axis_spacing(side.image))
    spacing = floor.copy()
    for _ in range(8):
        voxels = float(np.prod(extent / spacing))
        if voxels <= most_voxels:
            break
        spacing = np.maximum(floor, (spacing.min() * (voxels / most_voxels) ** (1 / 3)))
    return grid_over(low, high, spacing, _MARGIN_MM)


def _coarse_grid(side: _Side, spacing: float) -> Grid:
    points = corners(side.image)
    return grid_over(points.min(axis=0), points.max(axis=0), np.full(3, spacing))


def _start(fixed: _Side, moving: _Side, freedom: int, initial: sitk.Transform | None, progress: Progress) -> Start:
    boxes = [np.subtract(*_body_box(side)[::-1]).min() for side in (fixed, moving)]
    spacing = float(np.clip(min(boxes) / 24.0, 4.0, _COARSE_MM))
    coarse = [side.on(_coarse_grid(side, spacing)) for side in (fixed, moving)]
    given = None if initial is None else _linear_part(initial, coarse[0].grid)
    return find_start(coarse[0], coarse[1], freedom, given, progress)


def _linear_part(transform: sitk.Transform, grid: Grid) -> Linear:
    """Fit a linear map to any transform over a grid."""
    if transform.IsLinear():
        offset = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
        columns = [np.array(transform.TransformPoint(unit)) - offset for unit in np.eye(3).tolist()]
        return Linear(np.stack(columns, axis=1), offset)
    displacement = sample_transform(transform, grid)
    places = np.stack(np.meshgrid(*(grid.axis(axis) for axis in (2, 1, 0)), indexing="ij")[::-1], axis=-1).reshape(
        -1, 3
    )
    design = np.column_stack([places, np.ones(len(places))])
    solution, *_ = np.linalg.lstsq(design, places + displacement.reshape(-1, 3), rcond=None)
    return Linear(solution[:3].T, solution[3])


def _improve(fixed: Scan, moving: _Side, linear: Linear, freedom: int) -> Linear:
    """Refine the map at half the working resolution."""
    half = fixed.coarser()
    points = corners(moving.image)
    other = moving.on(grid_over(points.min(axis=0), points.max(axis=0), np.asarray(half.grid.spacing)))
    return refine(half, other, linear, freedom)


def _given(initial: sitk.Transform, grid: Grid) -> tuple[sitk.Transform, sitk.Transform, np.ndarray]:
    """Return a user's transform, its inverse, and how far (mm) points of the grid end from where they began there and back.

    A transform without an exact inverse is written as a linear part after a deformation, which is inverted numerically.
    """
    try:
        inverse = initial.GetInverse()
    except RuntimeError:
        linear = _linear_part(initial, grid)
        back = linear.inverse()
        undone = sitk.CompositeTransform([back.transform(), initial])
        displacement = sample_transform(undone, grid)
        field = np.stack([displacement[..., 2 - axis] / np.float32(grid.spacing[2 - axis]) for axis in range(3)])
        wide, box = padded(field, grid)
        inverse = sitk.CompositeTransform([field_transform(inverse_field(wide), box), back.transform()])
    returned = sample_transform(sitk.CompositeTransform([inverse, initial]), grid)
    return initial, inverse, np.sqrt((returned**2).sum(axis=-1))


def _deformed(
    fixed_side: _Side, moving_side: _Side, linear: Linear, measured: Grid, progress: Progress
) -> tuple[sitk.Transform, sitk.Transform, np.ndarray, tuple[str, ...]]:
    """Deform the linearly aligned scan; return the map, its inverse, the distances there and back on ``measured``, and troubles."""
    grid = _working_grid(fixed_side, _MOST_VOXELS)
    fixed, moved = fixed_side.on(grid), moving_side.on(grid, linear.transform())
    weight = _region(fixed, moved).astype(np.float32)
    levels = [Level(fixed.values, moved.values, weight)]
    spacing = min(grid.spacing)
    while spacing * 2.0 <= _COARSEST_LEVEL_MM * 1.5 and min(levels[-1].fixed.shape) >= 32:
        levels.append(levels[-1].coarser())
        spacing *= 2.0
    levels.reverse()
    stages: list[tuple[Schedule, ...]] = [_MIDDLE_SCHEDULES] * len(levels)
    stages[0], stages[-1] = _COARSE_SCHEDULES, _FINE_SCHEDULES
    # The way back is found on its own, from the follow-up to the baseline: where the two disagree, at least one is wrong.
    there = _found(levels, stages, part(progress, 0.0, 0.5))
    back = _found([Level(item.moving, item.fixed, item.weight) for item in levels], stages, part(progress, 0.5, 1.0))
    nodes = grid.coarser()
    returned = _between_grids(there_and_back(there.field, back.field, nodes), nodes, measured)
    # The mean of both ways favours neither scan and errs less than either.
    field = unfold(0.5 * (there.field + inverse_field(back.field)))
    transform, inverse = _composed(field, nodes, linear)
    return transform, inverse, returned, there.troubles + back.troubles


def _found(levels: list[Level], stages: list[tuple[Schedule, ...]], progress: Progress) -> Deformation:
    """Run every schedule of every level, from coarse to fine."""
    steps = [(level, plan) for level, plans in zip(levels, stages, strict=True) for plan in plans]
    return deform([level for level, _ in steps], [plan for _, plan in steps], progress)


def _by_peer(
    engine: str, fixed_side: _Side, moving_side: _Side, linear: Linear
) -> tuple[sitk.Transform, sitk.Transform]:
    """Deform the linearly aligned scan with an engine of others; return the map and its inverse."""
    grid = _working_grid(fixed_side, _MOST_VOXELS)
    fixed, moved = fixed_side.on(grid), moving_side.on(grid, linear.transform())
    region = grid.image(_region(fixed, moved).astype(np.uint8))
    found = register(engine, grid.image(fixed.values), grid.image(moved.values), region)
    nodes = grid.coarser()
    displacement = sample_transform(found, nodes)
    field = np.stack([displacement[..., 2 - axis] / np.float32(nodes.spacing[2 - axis]) for axis in range(3)])
    return _composed(unfold(field), nodes, linear)


def _region(fixed: Scan, moved: Scan) -> np.ndarray:
    """Return where two scans on one grid may pull: near both bodies, where both have voxels."""
    rim = max(1, round(_RIM_MM / min(fixed.grid.spacing)))
    near = ndimage.binary_dilation(fixed.body, iterations=rim) & ndimage.binary_dilation(moved.body, iterations=2 * rim)
    return near & fixed.valid & moved.valid


def _composed(field: np.ndarray, nodes: Grid, linear: Linear) -> tuple[sitk.Transform, sitk.Transform]:
    """Return the map of a field on its nodes followed by a linear map, and its inverse."""
    wide, box = padded(field, nodes)
    transform = sitk.CompositeTransform([linear.transform(), field_transform(wide, box)])
    inverse = sitk.CompositeTransform([field_transform(inverse_field(wide), box), linear.inverse().transform()])
    return transform, inverse


def _between_grids(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Interpolate an array on one grid to the voxels of another; beyond the first it is continued."""
    steps = (np.asarray(target.spacing) / source.spacing)[::-1]
    shifts = ((np.asarray(target.origin) - source.origin) / source.spacing)[::-1]
    return ndimage.affine_transform(values, steps, shifts, output_shape=target.shape, order=1, mode="nearest")


def write_transforms(alignment: Alignment, folder: Path, timepoint: str) -> tuple[Path, Path]:
    """Write both directions of an alignment as ``<timepoint>.h5`` and ``<timepoint>_inverse.h5``; return their paths.

    The files are what ITK writes and Slicer opens: LPS points of the baseline to the time point, and back; back only nearly where
    the map is deformable (see ``Alignment``).
    """
    paths = folder / f"{timepoint}.h5", folder / f"{timepoint}_inverse.h5"
    for transform, path in zip((alignment.transform, alignment.inverse), paths, strict=True):
        write_transform(transform, path)
    return paths
