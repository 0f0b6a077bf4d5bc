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
from ..study import Clinical, LesionSpec, Study, Timepoint, Treatment, save_study
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

# Two axes are perpendicular, and of length one, within this: what single precision in a file header leaves.
_AXES_TOLERANCE = 1e-4

_REMEDY = (
    "Harden it on a copy (Transforms module), or take the node out of the transform to have it used as it was acquired."
)


@dataclass(frozen=True)
class ChosenTimepoint:
    """One imaging date in nodes: a vtkMRMLScalarVolumeNode, a vtkMRMLSegmentationNode and a PET volume node, the latter two optional."""

    name: str
    date: datetime.date
    volume: Any
    segmentation: Any = None
    pet: Any = None
    no_visible_lesions: bool = False


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
    transformed: Literal["refuse", "harden"] = "refuse",
    progress: Progress = silent,
) -> WrittenStudy:
    """Write nodes as a study folder: ``study.yaml``, one NRRD per volume, one ``.seg.nrrd`` per segmentation on the grid of its volume.

    The nodes are not changed. Values and geometry are kept to the last bit. A segmentation that has another grid than its volume
    is resampled to it with nearest neighbour; one that is only a surface is filled.

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
    written = []
    for index, chosen in enumerate(ordered):
        step = part(progress, index / len(ordered), (index + 1) / len(ordered))
        step(0.0, f"Writing {chosen.name}")
        stem = f"timepoint{index}"
        image = _image(chosen.volume, grids[id(chosen.volume)])
        ct = folder / f"{stem}.nrrd"
        # The folder is read once and thrown away: packing would cost more than it saves.
        write_volume(image, ct, compress=False)
        segmentation = pet = None
        if chosen.segmentation is not None:
            step(0.6, f"Writing the segmentation of {chosen.name}")
            segmentation = folder / f"{stem}.seg.nrrd"
            _write_segments(mrml, chosen, image, grids[id(chosen.volume)], segmentation)
        if chosen.pet is not None:
            pet = folder / f"{stem}-pet.nrrd"
            write_volume(_image(chosen.pet, grids[id(chosen.pet)]), pet, compress=False)
        written.append(Timepoint(chosen.name, chosen.date, ct, segmentation, pet, chosen.no_visible_lesions))
    study = Study(
        patient, tuple(written), tumour, treatment or Treatment(), clinical or Clinical(), lesions=tuple(lesions)
    )
    path = folder / "study.yaml"
    save_study(study, path)
    progress(1.0, "Study written")
    return WrittenStudy(study, path, tuple(said.notes))


@dataclass(frozen=True)
class _Grid:
    """Where a volume is, in RAS mm: the place of its first voxel, and the directions of columns, rows and slices as columns of ``axes``."""

    origin: np.ndarray
    spacing: np.ndarray
    axes: np.ndarray

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


def _image(node: Any, grid: _Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(volume_array(node))
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin((LPS_TO_RAS @ grid.origin).tolist())
    image.SetDirection((LPS_TO_RAS @ grid.axes).ravel().tolist())
    return image


def _write_segments(mrml: SimpleNamespace, chosen: ChosenTimepoint, image: sitk.Image, grid: _Grid, path: Path) -> None:
    """Write every segment on the grid of the volume."""
    reference = oriented_image(mrml, image.GetSize(), grid.ijk_to_ras)
    node = chosen.segmentation
    segmentation = mrml.vtkSegmentation()
    segmentation.DeepCopy(node.GetSegmentation())
    if not segmentation.ContainsRepresentation(BINARY_LABELMAP):
        converter = mrml.vtkSegmentationConverter
        segmentation.SetConversionParameter(
            converter.GetReferenceImageGeometryParameterName(), converter.SerializeImageGeometry(reference)
        )
        if not segmentation.CreateRepresentation(BINARY_LABELMAP):
            raise InputError(
                f"Segmentation '{node.GetName()}' cannot be turned into voxels. Choose another segmentation."
            )
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    layers: dict[int, np.ndarray] = {}

    def mask(segment: Any) -> np.ndarray:
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        if id(labelmap) not in layers:  # segments that do not overlap share one labelmap
            moved = mrml.vtkOrientedImageData()
            mrml.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
                labelmap, reference, moved, False, False, transform_to_world(node)
            )
            layers[id(labelmap)] = image_array(moved)
        return layers[id(labelmap)] == segment.GetLabelValue()

    written = segmentation_from_arrays(
        ((segment.GetName(), mask(segment)) for segment in segments),
        image,
        colours={segment.GetName(): segment.GetColor() for segment in segments},
        terminologies={segment.GetName(): entry for segment in segments if (entry := segment_terminology(segment))},
    )
    write_segmentation(written, path)
