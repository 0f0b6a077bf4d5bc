"""Transform nodes as ITK transforms and back: from points of the baseline to points of a time point, as Slicer saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..alignment import write_transform
from ..analysis import AlignmentRecord
from ..errors import InputError, StageError
from ..transforms import transform_points
from .mrml import (
    LPS_TO_RAS,
    UNSAFE_IN_NODE_NAMES,
    claim,
    interpolate_linearly,
    linear_matrix,
    mrml_classes,
    owned_node,
)
from .steps import Steps, run_steps

# What is neither a matrix nor one grid is sampled: a little finer than the grids of the usual deformable registrations.
SAMPLE_SPACING_MM = 3.0
_MARGIN_MM = 30.0
_POINTS_PER_STEP = 20_000
# Between its points, a grid that Slicer interpolates by cubes differs from that of ITK by some tenths of a millimetre.
_SAME_MM = 0.5


def transform_steps(node: Any, path: Path, bounds_ras: tuple[float, ...]) -> Steps[None]:
    """Write a transform node, with the transforms that it is under, as an ITK transform file (.h5, .tfm); see ``write_transform_node``."""
    from vtkmodules.vtkCommonTransforms import vtkGeneralTransform

    written: sitk.Transform | None
    if node.IsTransformToWorldLinear():
        written = _affine(_matrix_from_world(node))
    else:
        general = vtkGeneralTransform()
        node.GetTransformFromWorld(general)
        yield None
        written = _chain(general)
        if written is None or _largest_difference_mm(written, general, bounds_ras) > _SAME_MM:
            written = sitk.DisplacementFieldTransform((yield from _sampled(general, bounds_ras, node.GetName())))
    yield lambda: write_transform(written, path)


def write_transform_node(node: Any, path: Path, bounds_ras: tuple[float, ...]) -> None:
    """Write a transform node, with the transforms that it is under, as an ITK transform file: what lies under it is carried to the baseline.

    Matrices, displacement grids that reach as far as the baseline, and chains of them are written as they are. Everything else
    (B-splines, inverse grids, thin plates) is sampled every ``SAMPLE_SPACING_MM`` over ``bounds_ras`` (lowest and highest x, y and z of the baseline's volume in RAS mm)
    with a margin of 30 mm.

    Raises
    ------
    InputError
        If the transform has no inverse there.
    """
    run_steps(transform_steps(node, path, bounds_ras))


def _matrix_from_world(node: Any) -> np.ndarray:
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    node.GetMatrixTransformFromWorld(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _affine(from_world_ras: np.ndarray) -> sitk.AffineTransform:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((LPS_TO_RAS @ from_world_ras[:3, :3] @ LPS_TO_RAS).ravel().tolist())
    affine.SetTranslation((LPS_TO_RAS @ from_world_ras[:3, 3]).tolist())
    return affine


def _chain(general: Any) -> sitk.Transform | None:
    """Return a chain of matrices and displacement grids as it is; None where anything else is in it."""
    from vtkmodules.vtkCommonCore import vtkCollection

    parts = vtkCollection()
    mrml_classes().vtkMRMLTransformNode.FlattenGeneralTransform(parts, general)
    found = [_part(parts.GetItemAsObject(index)) for index in range(parts.GetNumberOfItems())]
    known = [item for item in found if item is not None]
    if len(known) < len(found) or not known:
        return None
    # ITK applies the last transform of a composite first.
    return known[0] if len(known) == 1 else sitk.CompositeTransform(known[::-1])


def _part(transform: Any) -> sitk.Transform | None:
    if transform.IsA("vtkLinearTransform"):
        matrix = transform.GetMatrix()
        return _affine(np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)]))
    if not transform.IsA("vtkOrientedGridTransform") or transform.GetInverseFlag():
        return None
    grid = transform.GetDisplacementGrid()
    if grid is None:
        return None
    directions = transform.GetGridDirectionMatrix()
    axes = np.eye(3)
    if directions is not None:
        axes = np.array([[directions.GetElement(row, column) for column in range(3)] for row in range(3)])
    values = _vectors(grid) * transform.GetDisplacementScale() + transform.GetDisplacementShift()
    first = np.array(grid.GetExtent()[::2]) * grid.GetSpacing()
    return sitk.DisplacementFieldTransform(
        _field(values, np.array(grid.GetOrigin()) + axes @ first, grid.GetSpacing(), axes)
    )


def _largest_difference_mm(written: sitk.Transform, general: Any, bounds_ras: tuple[float, ...]) -> float:
    """Compare a chain with what it was made of: outside a grid ITK moves nothing, and Slicer as much as on the edge of the grid."""
    axes = (np.linspace(low, high, 8) for low, high in zip(bounds_ras[::2], bounds_ras[1::2], strict=True))
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3)
    here = np.array([general.TransformPoint(point) for point in points.tolist()])
    there = transform_points(points @ LPS_TO_RAS, written) @ LPS_TO_RAS
    return float(np.linalg.norm(here - there, axis=1).max())


def _vectors(data: Any) -> np.ndarray:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(*data.GetDimensions()[::-1], 3).astype(np.float64)


def _field(
    vectors_ras: np.ndarray, origin_ras: np.ndarray, spacing: tuple[float, ...], axes_ras: np.ndarray
) -> sitk.Image:
    field = sitk.GetImageFromArray(vectors_ras @ LPS_TO_RAS, isVector=True)
    field.SetOrigin((LPS_TO_RAS @ origin_ras).tolist())
    field.SetSpacing([float(value) for value in spacing])
    field.SetDirection((LPS_TO_RAS @ axes_ras).ravel().tolist())
    return field


def _sampled(transform: Any, bounds_ras: tuple[float, ...], name: str) -> Steps[sitk.Image]:
    """Sample the displacements of a transform in RAS over a box, a few layers at a time."""
    from vtkmodules.vtkFiltersHybrid import vtkTransformToGrid

    low = np.array(bounds_ras[::2]) - _MARGIN_MM
    high = np.array(bounds_ras[1::2]) + _MARGIN_MM
    size = np.ceil((high - low) / SAMPLE_SPACING_MM).astype(int) + 1
    layers = max(1, int(_POINTS_PER_STEP // (size[0] * size[1])))
    pieces = []
    for first in range(0, int(size[2]), layers):
        last = min(first + layers, int(size[2])) - 1
        sampler = vtkTransformToGrid()
        sampler.SetInput(transform)
        sampler.SetGridOrigin(*low.tolist())
        sampler.SetGridSpacing(*(3 * [SAMPLE_SPACING_MM]))
        sampler.SetGridExtent(0, int(size[0]) - 1, 0, int(size[1]) - 1, first, last)
        sampler.SetGridScalarTypeToDouble()
        sampler.Update()
        pieces.append(_vectors(sampler.GetOutput()))
        yield None
    vectors = np.concatenate(pieces)
    if not np.isfinite(vectors).all():
        raise InputError(f"Transform '{name}' has no inverse over the baseline. Choose another transform.")
    return (yield lambda: _field(vectors, low, (SAMPLE_SPACING_MM,) * 3, np.eye(3)))


def read_transform_node(path: Path) -> Any:
    """Read a transform file into a node of no scene.

    Raises
    ------
    StageError
        If the file cannot be read.
    """
    mrml = mrml_classes()
    node = mrml.vtkMRMLTransformNode()
    storage = mrml.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(path))
    if not storage.ReadData(node):
        raise StageError(f"{path}: the transform cannot be read. Run the analysis again.")
    return node


def transform_class(source: Any) -> str:
    """Return the class of the node that suits what ``read_transform_node`` has read."""
    if source.IsLinear():
        return "vtkMRMLLinearTransformNode"
    return "vtkMRMLGridTransformNode" if _is_grid(source) else "vtkMRMLTransformNode"


def _is_grid(source: Any) -> bool:
    return bool(source.GetTransformFromParent().IsA("vtkOrientedGridTransform"))


def fill_transform(node: Any, source: Any) -> None:
    """Give a node the transform of another that was read; displacement grids are interpolated linearly, as they were estimated."""
    if source.IsLinear():
        node.SetMatrixTransformFromParent(linear_matrix(source))
        return
    transform = source.GetTransformFromParent()
    interpolate_linearly(transform)
    node.SetAndObserveTransformFromParent(transform)


def volume_bounds(node: Any) -> tuple[float, ...]:
    """Return the lowest and highest x, y and z of a volume node in RAS mm, in the world."""
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    return tuple(bounds)


def alignment_steps(
    scene: Any, patient: str, baseline: str, records: Sequence[AlignmentRecord], folder: Path
) -> Steps[dict[str, Any]]:
    """Put the transforms of alignments into a scene, as ``populate_scene`` does and where it will find them; return them by time point."""
    nodes = {}
    for record in records:
        if record.transform_file is None:
            continue
        source = read_transform_node(folder / record.transform_file)
        yield None
        node = owned_node(scene, patient, f"transform/{record.timepoint}")
        wanted = transform_class(source)
        if node is not None and node.GetClassName() != wanted:
            scene.RemoveNode(node)
            node = None
        if node is None:
            name = f"{patient} {record.timepoint} to {baseline}".translate(UNSAFE_IN_NODE_NAMES)
            node = scene.AddNewNodeByClass(wanted, name)
            claim(node, patient, f"transform/{record.timepoint}")
        fill_transform(node, source)
        nodes[record.timepoint] = node
        yield None
    return nodes
