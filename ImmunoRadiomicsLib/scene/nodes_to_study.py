"""Nodes that a user has chosen as a study folder that the engine reads."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..images import segmentation_from_arrays, write_segmentation, write_volume
from ..progress import Progress, part, silent
from ..study import Acquisition, Clinical, LesionLink, LesionSpec, Study, Timepoint, Treatment, save_study
from .mrml import (
    BINARY_LABELMAP,
    LPS_TO_RAS,
    image_array,
    mrml_classes,
    oriented_image,
    register_converters,
    segment_terminology,
    transform_to_world,
    volume_array,
    volume_grid,
    world_matrix,
)
from .steps import Steps, run_steps
from .transforms import transform_steps, volume_bounds

# Two axes are perpendicular, and of length one, within this: what single precision in a file header leaves.
_AXES_TOLERANCE = 1e-4
# Voxels are the same if their centres are at most this share of a voxel apart.
_SAME_VOXEL = 1e-3
_BYTES_PER_STEP = 12_000_000

_REMEDY = (
    "Harden it on a copy (Transforms module), or take the node out of the transform to have it used as it was acquired."
)


@dataclass(frozen=True)
class ChosenTimepoint:
    """One imaging date in nodes: a vtkMRMLScalarVolumeNode; optional are a segmentation node, a PET volume node and a transform node.

    ``transform`` lays the time point on the baseline in place of an alignment; ``start_transform`` is where the alignment starts.
    """

    name: str
    date: datetime.date
    volume: Any
    segmentation: Any = None
    pet: Any = None
    no_visible_lesions: bool = False
    transform: Any = None
    start_transform: Any = None
    acquisition: Acquisition | None = None


@dataclass(frozen=True)
class WrittenStudy:
    """A study folder: the study, the path of its study.yaml, and what was done on the way that the user should know."""

    study: Study
    path: Path
    notes: tuple[str, ...] = ()


@dataclass
class _Notes:
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def study_from_nodes(
    folder: Path,
    patient: str,
    timepoints: Sequence[ChosenTimepoint],
    *,
    tumour: str | None = None,
    treatment: Treatment | None = None,
    clinical: Clinical | None = None,
    lesions: Sequence[LesionSpec] = (),
    links: Sequence[LesionLink] = (),
    transformed: Literal["refuse", "harden"] = "refuse",
    progress: Progress = silent,
) -> WrittenStudy:
    """Write nodes as a study folder: ``study.yaml``, one NRRD per volume, one ``.seg.nrrd`` per segmentation on the grid of its volume.

    Every transform becomes an ITK file. The nodes are not changed. Values and geometry are kept to the last bit. A segmentation that has another grid than its volume
    is resampled to it with nearest neighbour; one that is only a surface is filled. How transforms are written says
    ``write_transform_node``.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    transformed
        What to do with a volume under a transform: `refuse` it, or `harden` the transform on a copy. Only rotations and
        translations can be hardened without changing voxels; others are always refused.

    Raises
    ------
    InputError
        With everything that keeps the nodes from being a study: an empty node, a transform, oblique axes, a segmentation under another
        transform than its volume. Nothing is written then.
    MissingDependencyError
        If there is no MRML.
    """
    return run_steps(
        study_steps(
            folder,
            patient,
            timepoints,
            tumour=tumour,
            treatment=treatment,
            clinical=clinical,
            lesions=lesions,
            links=links,
            transformed=transformed,
            progress=progress,
        )
    )


def study_steps(
    folder: Path,
    patient: str,
    timepoints: Sequence[ChosenTimepoint],
    *,
    tumour: str | None = None,
    treatment: Treatment | None = None,
    clinical: Clinical | None = None,
    lesions: Sequence[LesionSpec] = (),
    links: Sequence[LesionLink] = (),
    transformed: Literal["refuse", "harden"] = "refuse",
    progress: Progress = silent,
) -> Steps[WrittenStudy]:
    """Do the work of ``study_from_nodes`` in steps."""
    mrml = mrml_classes()
    register_converters(mrml)
    said = _Notes()
    grids: dict[int, _Grid] = {}
    for chosen in timepoints:
        for node in (chosen.volume, chosen.pet):
            if node is not None and (grid := _grid(node, transformed, said)) is not None:
                grids[id(node)] = grid
    for chosen in timepoints:
        _check_segmentation(chosen, transformed, said)
    if said.problems:
        raise InputError(said.problems)
    ordered = sorted(timepoints, key=lambda item: item.date)
    bounds = volume_bounds(_baseline(ordered, treatment).volume)
    written = []
    for index, chosen in enumerate(ordered):
        step = part(progress, index / len(ordered), (index + 1) / len(ordered))
        step(0.0, f"Writing {chosen.name}")
        stem = f"timepoint{index}"
        ct = folder / f"{stem}.nrrd"
        yield from volume_steps(chosen.volume, ct, grids[id(chosen.volume)])
        segmentation = pet = transform = start = None
        if chosen.segmentation is not None:
            step(0.6, f"Writing the segmentation of {chosen.name}")
            segmentation = folder / f"{stem}.seg.nrrd"
            yield from _segment_steps(mrml, chosen, grids[id(chosen.volume)], segmentation)
        if chosen.pet is not None:
            pet = folder / f"{stem}-pet.nrrd"
            yield from volume_steps(chosen.pet, pet, grids[id(chosen.pet)])
        if chosen.transform is not None:
            transform = folder / f"{stem}-transform.h5"
            yield from transform_steps(chosen.transform, transform, bounds)
        if chosen.start_transform is not None:
            start = folder / f"{stem}-start.h5"
            yield from transform_steps(chosen.start_transform, start, bounds)
        written.append(
            Timepoint(
                chosen.name,
                chosen.date,
                ct,
                segmentation,
                pet,
                chosen.no_visible_lesions,
                transform,
                start,
                chosen.acquisition,
            )
        )
    study = Study(
        patient,
        tuple(written),
        tumour,
        treatment or Treatment(),
        clinical or Clinical(),
        lesions=tuple(lesions),
        links=tuple(links),
    )
    path = folder / "study.yaml"
    save_study(study, path)
    progress(1.0, "Study written")
    return WrittenStudy(study, path, tuple(said.notes))


def _baseline(timepoints: Sequence[ChosenTimepoint], treatment: Treatment | None) -> ChosenTimepoint:
    named = {item.name: item for item in timepoints}
    dates = tuple(Timepoint(item.name, item.date, Path()) for item in timepoints)
    return named[Study("", dates, treatment=treatment or Treatment()).baseline.name]


def volume_steps(node: Any, path: Path, grid: _Grid | None = None) -> Steps[None]:
    """Write a volume node as a file where it lies without its transform, or on another grid of the same size."""
    placed = grid or _Grid(*volume_grid(node))
    source = volume_array(node)
    values = np.empty_like(source)
    # The copy is the writer's own: the node may be changed or removed while it is written.
    for first in range(0, len(source), slab := max(1, _BYTES_PER_STEP // max(1, source[0].nbytes))):
        values[first : first + slab] = source[first : first + slab]
        yield None
    # The file is read once and thrown away: packing would cost more than it saves.
    yield lambda: write_volume(placed.image(values), path, compress=False)


@dataclass(frozen=True)
class _Grid:
    """Where a volume is, in RAS mm: the place of its first voxel, and the directions of columns, rows and slices as columns of ``axes``."""

    origin: np.ndarray
    spacing: np.ndarray
    axes: np.ndarray

    def image(self, values: np.ndarray) -> sitk.Image:
        """Return voxels (z, y, x) as an image here."""
        image = sitk.GetImageFromArray(values)
        image.SetSpacing(self.spacing.tolist())
        image.SetOrigin((LPS_TO_RAS @ self.origin).tolist())
        image.SetDirection((LPS_TO_RAS @ self.axes).ravel().tolist())
        return image

    @property
    def ijk_to_ras(self) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes * self.spacing
        matrix[:3, 3] = self.origin
        return matrix


def _grid(node: Any, transformed: str, said: _Notes) -> _Grid | None:
    """Return the grid of a volume node in the world, or say why it has none."""
    name = node.GetName()
    data = node.GetImageData()
    if data is None or min(data.GetDimensions()) < 2:
        said.problems.append(f"Volume '{name}' is empty or has a single slice. Choose a volume with several slices.")
        return None
    if data.GetNumberOfScalarComponents() != 1:
        said.problems.append(f"Volume '{name}' has several values per voxel. Choose a CT or PET volume.")
        return None
    grid = _Grid(*volume_grid(node))
    if not _rigid(grid.axes):
        said.problems.append(
            f"Volume '{name}' has slices that are not perpendicular to its rows and columns (gantry tilt). Resample it to a "
            "rectangular grid (Resample Scalar/Vector/DWI Volume module)."
        )
        return None
    world = _to_world(node)
    if world is None:
        return grid
    place = f"Volume '{name}' is under the transform '{node.GetParentTransformNode().GetName()}'"
    if transformed == "refuse":
        said.problems.append(f"{place}. {_REMEDY}")
        return None
    if not isinstance(world, np.ndarray) or not _rigid(world[:3, :3]):
        said.problems.append(f"{place}, which stretches or bends it. {_REMEDY}")
        return None
    said.notes.append(f"{place}; its copy was moved accordingly.")
    return _Grid(world[:3, :3] @ grid.origin + world[:3, 3], grid.spacing, world[:3, :3] @ grid.axes)


def _rigid(axes: np.ndarray) -> bool:
    return bool(np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=_AXES_TOLERANCE))


def _to_world(node: Any) -> np.ndarray | Any | None:
    """Return the way of a node to the world: None if it is there, a 4x4 matrix, or the transform node that bends it."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return None
    if not parent.IsTransformToWorldLinear():
        return parent
    matrix = world_matrix(parent)
    return None if np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9) else matrix


def _check_segmentation(chosen: ChosenTimepoint, transformed: str, said: _Notes) -> None:
    node = chosen.segmentation
    if node is None:
        return
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]
    if not names:
        said.problems.append(f"Segmentation '{node.GetName()}' is empty. Draw the lesions, or choose no segmentation.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        said.problems.append(
            f"Segmentation '{node.GetName()}' has several segments named {', '.join(repeated)}. Give each its own name."
        )
    parent = node.GetParentTransformNode()
    if parent is chosen.volume.GetParentTransformNode() or _to_world(node) is None:
        return
    place = f"Segmentation '{node.GetName()}' is under the transform '{parent.GetName()}', its volume is not"
    if transformed == "refuse":
        said.problems.append(f"{place}. {_REMEDY}")
    else:
        said.notes.append(f"{place}; its copy was moved accordingly.")


@dataclass(frozen=True)
class _Drawn:
    """One segment as it is described in its node, and the index of the layer that has its voxels."""

    name: str
    colour: tuple[float, float, float]
    terminology: str
    label: int
    layer: int


def _segment_steps(mrml: SimpleNamespace, chosen: ChosenTimepoint, grid: _Grid, path: Path) -> Steps[None]:
    """Write every segment on the grid of the volume."""
    node = chosen.segmentation
    size = chosen.volume.GetImageData().GetDimensions()
    reference = oriented_image(mrml, size, grid.ijk_to_ras)
    segmentation = node.GetSegmentation()
    if not segmentation.ContainsRepresentation(BINARY_LABELMAP):
        segmentation = _filled(mrml, node, reference)
        yield None
    layers: dict[Any, tuple[int, np.ndarray, tuple[slice, ...]]] = {}
    drawn = []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        if labelmap not in layers:  # segments that do not overlap share one labelmap
            moved = None if transform_to_world(node) is not None else _on_lattice(labelmap, grid, size)
            layers[labelmap] = (len(layers), *(moved or _resampled(mrml, node, labelmap, reference)))
            yield None
        drawn.append(
            _Drawn(
                segment.GetName(),
                segment.GetColor(),
                segment_terminology(segment),
                segment.GetLabelValue(),
                layers[labelmap][0],
            )
        )
    voxels = [(values, box) for _, values, box in layers.values()]

    def write() -> None:
        whole = np.zeros(size[::-1], bool)

        def mask(item: _Drawn) -> np.ndarray:
            values, box = voxels[item.layer]
            whole[:] = False
            whole[box] = values == item.label
            return whole

        written = segmentation_from_arrays(
            ((item.name, mask(item)) for item in drawn),
            grid.image(np.zeros(size[::-1], np.uint8)),
            colours={item.name: item.colour for item in drawn},
            terminologies={item.name: item.terminology for item in drawn if item.terminology},
        )
        write_segmentation(written, path)

    yield write


def _filled(mrml: SimpleNamespace, node: Any, reference: Any) -> Any:
    """Return a copy of the segments of a node, surfaces turned into voxels."""
    segmentation = mrml.vtkSegmentation()
    segmentation.DeepCopy(node.GetSegmentation())
    converter = mrml.vtkSegmentationConverter
    segmentation.SetConversionParameter(
        converter.GetReferenceImageGeometryParameterName(), converter.SerializeImageGeometry(reference)
    )
    if not segmentation.CreateRepresentation(BINARY_LABELMAP):
        raise InputError(f"Segmentation '{node.GetName()}' cannot be turned into voxels. Choose another segmentation.")
    return segmentation


def _on_lattice(
    labelmap: Any, grid: _Grid, size: tuple[int, int, int]
) -> tuple[np.ndarray, tuple[slice, slice, slice]] | None:
    """Return a copy of a labelmap's voxels and their box in the volume, None where its voxels are not those of the volume."""
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    own = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    extent = labelmap.GetExtent()
    if extent[1] < extent[0] or extent[3] < extent[2] or extent[5] < extent[4]:
        return np.zeros((0, 0, 0), np.uint8), (slice(0, 0),) * 3
    shift = np.linalg.solve(grid.ijk_to_ras, own)
    offset = np.rint(shift[:3, 3])
    largest = max(np.abs(extent))
    if not np.allclose(shift[:3, :3], np.eye(3), rtol=0, atol=_SAME_VOXEL / max(1, largest)):
        return None
    if not np.allclose(shift[:3, 3], offset, rtol=0, atol=_SAME_VOXEL):
        return None
    first = np.array(extent[::2]) + offset.astype(int)
    last = np.array(extent[1::2]) + offset.astype(int)
    low, high = np.maximum(first, 0), np.minimum(last, np.array(size) - 1)
    if (high < low).any():
        return np.zeros((0, 0, 0), np.uint8), (slice(0, 0),) * 3
    values = image_array(labelmap)
    inside = tuple(slice(a - o, b - o + 1) for a, b, o in zip(low[::-1], high[::-1], first[::-1], strict=True))
    z, y, x = (slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))
    return values[inside].copy(), (z, y, x)


def _resampled(
    mrml: SimpleNamespace, node: Any, labelmap: Any, reference: Any
) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    moved = mrml.vtkOrientedImageData()
    mrml.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        labelmap, reference, moved, False, False, transform_to_world(node)
    )
    return image_array(moved).copy(), (slice(None),) * 3
