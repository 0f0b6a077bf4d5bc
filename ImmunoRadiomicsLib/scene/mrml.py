"""The MRML classes of whichever Slicer is there, and plain data in and out of them.

MRML positions are RAS, ours are LPS: the first two axes change sign and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import SimpleITK as sitk

from ..errors import MissingDependencyError
from ..images import Segmentation
from .steps import Steps, run_steps
from .tables import Column

INSTALL_COMMAND = 'python -m pip install "slicer-core>=5.12"'

# The attributes that say whose node it is, and which, begin with this.
OWNER = "ImmunoRadiomics"
# A node's name becomes the name of its file, which MRML writes into its XML without masking an ampersand, and cuts at a
# backslash: with either, a saved scene cannot be opened again.
UNSAFE_IN_NODE_NAMES = {ord("&"): "+", ord("\\"): "|", **dict.fromkeys(range(32), " ")}

BINARY_LABELMAP = "Binary labelmap"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Below what places are asked for, above what VTK reaches everywhere: at 1e-5 it gives up on some points and says so.
_INVERSE_TOLERANCE_MM = 1e-4

_CLASSES = (
    "vtkMRMLGridTransformNode",
    "vtkMRMLLayoutNode",
    "vtkMRMLLinearTransformNode",
    "vtkMRMLMarkupsDisplayNode",
    "vtkMRMLMarkupsJsonStorageNode",
    "vtkMRMLMarkupsLineNode",
    "vtkMRMLMessageCollection",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLPlotViewNode",
    "vtkMRMLScalarVolumeNode",
    "vtkMRMLScene",
    "vtkMRMLSegmentationDisplayNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLSegmentationStorageNode",
    "vtkMRMLSelectionNode",
    "vtkMRMLSliceCompositeNode",
    "vtkMRMLSliceNode",
    "vtkMRMLSubjectHierarchyNode",
    "vtkMRMLTableNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTransformStorageNode",
    "vtkBinaryLabelmapToClosedSurfaceConversionRule",
    "vtkClosedSurfaceToBinaryLabelmapConversionRule",
    "vtkOrientedImageData",
    "vtkOrientedImageDataResample",
    "vtkSegment",
    "vtkSegmentation",
    "vtkSegmentationConverter",
    "vtkSegmentationConverterFactory",
)
# Where PythonSlicer keeps the classes that the application itself adds to the ``slicer`` package.
_MODULE_KITS = ("vtkSlicerSegmentationsModuleMRMLPython", "vtkSlicerMarkupsModuleMRMLPython")


def mrml_classes() -> SimpleNamespace:
    """Return the MRML classes of Slicer or of slicer-core.

    Raises
    ------
    MissingDependencyError
        If neither is there.
    """
    found: dict[str, Any] = {}
    for name in ("slicer", *_MODULE_KITS):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for class_name in _CLASSES:
            if class_name not in found and hasattr(module, class_name):
                found[class_name] = getattr(module, class_name)
        if len(found) == len(_CLASSES):
            return SimpleNamespace(**found)
    raise MissingDependencyError(
        f"The scene needs the MRML of 3D Slicer, which this Python does not have. Install it with: {INSTALL_COMMAND}"
    )


def new_scene() -> Any:
    """Return an empty scene that can hold, write and read every node of this file, also outside the application."""
    mrml = mrml_classes()
    scene = mrml.vtkMRMLScene()
    for name in (
        "vtkMRMLSegmentationNode",
        "vtkMRMLSegmentationDisplayNode",
        "vtkMRMLSegmentationStorageNode",
        "vtkMRMLMarkupsLineNode",
        "vtkMRMLMarkupsDisplayNode",
        "vtkMRMLMarkupsJsonStorageNode",
    ):
        if not scene.IsNodeClassRegistered(name):
            scene.RegisterNodeClass(getattr(mrml, name)())
    register_converters(mrml)
    scene.AddNode(mrml.vtkMRMLSelectionNode())
    mrml.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    return scene


def claim(node: Any, patient: str, part: str) -> None:
    """Say of a node whose result it is and which part of that, for example `transform/followup-1`."""
    node.SetAttribute(f"{OWNER}.patient", quote(patient, safe=""))
    node.SetAttribute(f"{OWNER}.part", part)


def owned_node(scene: Any, patient: str, part: str) -> Any:
    """Return the node that is this part of a patient's result, None where there is none."""
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if (
            node.GetAttribute(f"{OWNER}.patient") == quote(patient, safe="")
            and node.GetAttribute(f"{OWNER}.part") == part
        ):
            return node
    return None


def register_converters(mrml: SimpleNamespace) -> None:
    """Let segmentations turn voxels into surfaces and back; the application does this itself, the wheel does not."""
    factory = mrml.vtkSegmentationConverterFactory.GetInstance()
    there = {rule.GetClassName() for rule in factory.GetConverterRules()}
    for name in ("vtkBinaryLabelmapToClosedSurfaceConversionRule", "vtkClosedSurfaceToBinaryLabelmapConversionRule"):
        if name not in there:
            factory.RegisterConverterRule(getattr(mrml, name)())


def scalars_steps(values: np.ndarray) -> Steps[Any]:
    """Return a vtkDataArray with the voxels of an array; copying them is a step that touches plain memory alone."""
    from vtkmodules.util.numpy_support import get_vtk_array_type, vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkDataArray

    array = vtkDataArray.CreateDataArray(get_vtk_array_type(values.dtype))
    array.SetName("ImageScalars")
    array.SetNumberOfTuples(values.size)
    memory = vtk_to_numpy(array)
    yield lambda: np.copyto(memory, values.reshape(-1))
    return array


def fill_volume(node: Any, image: sitk.Image) -> None:
    """Put a volume into a vtkMRMLScalarVolumeNode: the same values, and the same place to the last bit."""
    run_steps(fill_volume_steps(node, image))


def fill_volume_steps(node: Any, image: sitk.Image) -> Steps[None]:
    """Do the work of ``fill_volume`` in steps."""
    from vtkmodules.vtkCommonDataModel import vtkImageData

    data = vtkImageData()
    data.SetDimensions(*image.GetSize())
    scalars = yield from scalars_steps(sitk.GetArrayViewFromImage(image))
    data.GetPointData().SetScalars(scalars)
    node.SetAndObserveImageData(data)
    axes = LPS_TO_RAS @ np.reshape(image.GetDirection(), (3, 3))
    node.SetIJKToRASDirections(*axes.ravel().tolist())
    node.SetSpacing(*image.GetSpacing())
    node.SetOrigin(*(LPS_TO_RAS @ image.GetOrigin()).tolist())


def grid_image(node: Any) -> sitk.Image:
    """Return an empty volume on the grid of a volume node, without its transform."""
    origin, spacing, axes = volume_grid(node)
    image = sitk.Image(node.GetImageData().GetDimensions(), sitk.sitkUInt8)
    image.SetOrigin((LPS_TO_RAS @ origin).tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((LPS_TO_RAS @ axes).ravel().tolist())
    return image


def fill_segmentation(mrml: SimpleNamespace, node: Any, drawn: Segmentation) -> None:
    """Put a segmentation into a vtkMRMLSegmentationNode in place of what it has; segments of one layer share their labelmap."""
    run_steps(fill_segmentation_steps(mrml, node, drawn))


def fill_segmentation_steps(mrml: SimpleNamespace, node: Any, drawn: Segmentation) -> Steps[None]:
    """Do the work of ``fill_segmentation`` in steps."""
    labelmaps = []
    for layer in drawn.layers:
        matrix = np.eye(4)
        matrix[:3, :3] = LPS_TO_RAS @ np.reshape(layer.GetDirection(), (3, 3)) * layer.GetSpacing()
        matrix[:3, 3] = LPS_TO_RAS @ layer.GetOrigin()
        labelmap = oriented_image(mrml, layer.GetSize(), matrix)
        scalars = yield from scalars_steps(sitk.GetArrayViewFromImage(layer))
        labelmap.GetPointData().SetScalars(scalars)
        labelmaps.append(labelmap)
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    for described in drawn.segments:
        segment = mrml.vtkSegment()
        segment.SetName(described.name)
        segment.SetColor(*described.colour)
        segment.SetLabelValue(described.label)
        segment.AddRepresentation(BINARY_LABELMAP, labelmaps[described.layer])
        if described.terminology:
            segment.SetTag(segment.GetTerminologyEntryTagName(), described.terminology)
        segmentation.AddSegment(segment, described.id)


def image_array(data: Any) -> np.ndarray:
    """Return the voxels of a vtkImageData in the order (z, y, x), not copied."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(data.GetDimensions()[::-1])


def volume_array(node: Any) -> np.ndarray:
    """Return the voxels of a volume node in the order (z, y, x), not copied."""
    return image_array(node.GetImageData())


def volume_grid(node: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return origin, spacing and axes (3x3, columns are the directions of i, j, k) of a volume node in RAS mm, without its transform."""
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(matrix)
    axes = _array(matrix)[:3, :3]
    spacing = np.array(node.GetSpacing())
    first = np.array(node.GetImageData().GetExtent()[::2])
    return np.array(node.GetOrigin()) + axes @ (spacing * first), spacing, axes


def world_matrix(node: Any) -> np.ndarray:
    """Return the 4x4 matrix of a transform node to the world, if that is linear."""
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    node.GetMatrixTransformToWorld(matrix)
    return _array(matrix)


def _array(matrix: Any) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def transform_to_world(node: Any) -> Any:
    """Return the vtkGeneralTransform that carries a node to the world, None if it is under no transform."""
    from vtkmodules.vtkCommonTransforms import vtkGeneralTransform

    parent = node.GetParentTransformNode()
    if parent is None:
        return None
    transform = vtkGeneralTransform()
    parent.GetTransformToWorld(transform)
    return transform


def oriented_image(mrml: SimpleNamespace, size: Sequence[int], ijk_to_ras: np.ndarray) -> Any:
    """Return a vtkOrientedImageData without voxels on a grid given by its size and its 4x4 matrix."""
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    matrix.DeepCopy(ijk_to_ras.ravel().tolist())
    image = mrml.vtkOrientedImageData()
    image.SetDimensions(*size)
    image.SetImageToWorldMatrix(matrix)
    return image


def segment_terminology(segment: Any) -> str:
    """Return the terminology entry of a vtkSegment, empty if it has none."""
    from vtkmodules.vtkCommonCore import reference

    entry = reference("")
    return str(entry) if segment.GetTag(segment.GetTerminologyEntryTagName(), entry) else ""


def linear_matrix(node: Any) -> Any:
    """Return the vtkMatrix4x4 of a linear transform node, from its parent."""
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    node.GetMatrixTransformFromParent(matrix)
    return matrix


def interpolate_linearly(transform: Any) -> None:
    """Let every displacement grid of a transform be interpolated linearly, as ITK does, and be inverted closely.

    Slicer reads grids with cubic interpolation; between grid points that differs from ITK by the curvature of the field.
    """
    if transform.IsA("vtkGeneralTransform"):
        # Until then it has no parts where it was read as the inverse of another.
        transform.Update()
        for index in range(transform.GetNumberOfConcatenatedTransforms()):
            interpolate_linearly(transform.GetConcatenatedTransform(index))
    elif transform.IsA("vtkGridTransform"):
        transform.SetInterpolationModeToLinear()
        transform.SetInverseTolerance(_INVERSE_TOLERANCE_MM)


def fill_table(node: Any, columns: Sequence[Column]) -> None:
    """Put columns into a vtkMRMLTableNode in place of those it has, with their types, titles and units."""
    from vtkmodules.vtkCommonCore import VTK_DOUBLE, VTK_INT, VTK_STRING, vtkDoubleArray, vtkIntArray, vtkStringArray

    kinds: dict[str, tuple[Any, int, Any]] = {
        "text": (vtkStringArray, VTK_STRING, lambda value: "" if value is None else str(value)),
        "number": (vtkDoubleArray, VTK_DOUBLE, lambda value: float("nan") if value is None else float(value)),
        "integer": (vtkIntArray, VTK_INT, int),
    }
    was_modifying = node.StartModify()
    node.RemoveAllColumns()
    for column in columns:
        array_class, type_code, convert = kinds[column.kind]
        array = array_class()
        array.SetName(column.name)
        for value in column.values:
            array.InsertNextValue(convert(value))
        node.AddColumn(array)
        node.SetColumnType(column.name, type_code)
        node.SetColumnTitle(column.name, f"{column.title} ({column.unit})" if column.unit else column.title)
        if column.unit:
            node.SetColumnUnitLabel(column.name, column.unit)
        if column.description:
            node.SetColumnDescription(column.name, column.description)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    node.EndModify(was_modifying)


@contextmanager
def quiet() -> Iterator[Any]:
    """Keep what VTK says away from stdout and stderr while the block runs; the yielded window has it as text.

    Inside the application its own log is left in place.
    """
    import slicer  # type: ignore[import-not-found,unused-ignore]
    from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow, vtkStringOutputWindow

    window = vtkStringOutputWindow()
    if hasattr(slicer, "app"):
        yield window
        return
    window_before = vtkOutputWindow.GetInstance()
    verbosity_before = vtkLogger.GetCurrentVerbosityCutoff()
    vtkOutputWindow.SetInstance(window)
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        yield window
    finally:
        vtkLogger.SetStderrVerbosity(verbosity_before)
        vtkOutputWindow.SetInstance(window_before)
