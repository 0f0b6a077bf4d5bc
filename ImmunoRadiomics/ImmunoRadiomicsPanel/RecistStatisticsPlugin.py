"""RECIST diameters for the Segment Statistics module: the longest axial diameter and the longest one at right angles to it."""

from __future__ import annotations

import slicer
import vtk
from SegmentStatisticsPlugins import SegmentStatisticsPluginBase
from slicer.i18n import tr as _

from .Nodes import volumeImage


class RecistStatisticsPlugin(SegmentStatisticsPluginBase):
    """Measures each segment in the slice with its longest diameter, as RECIST 1.1 does; Feret diameters are three-dimensional."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "RECIST"
        self.title = _("RECIST diameters")
        self.keys = ["long_axis_mm", "short_axis_mm", "slice_index"]
        self.defaultKeys = ["long_axis_mm", "short_axis_mm"]

    def computeStatistics(self, segmentID: str) -> dict[str, float | int]:
        """Return the requested measures; empty where there is no volume or the segment is empty."""
        requested = self.getRequestedKeys()
        node = self.getParameterNode()
        segmentation = slicer.mrmlScene.GetNodeByID(node.GetParameter("Segmentation"))
        volume = slicer.mrmlScene.GetNodeByID(node.GetParameter("ScalarVolume"))
        if not requested or segmentation is None or volume is None or volume.GetImageData() is None:
            return {}
        measured = measureSegment(segmentation, segmentID, volume)
        if measured is None:
            return {}
        return {key: getattr(measured, key) for key in requested}

    def getMeasurementInfo(self, key: str) -> dict[str, str] | None:
        """Return name, title, description and unit of a measure."""
        coded = self.createCodedEntry
        millimeter = coded("mm", "UCUM", "millimeter", True)
        if key == "long_axis_mm":
            return self.createMeasurementInfo(
                name="RECIST long axis",
                title=_("RECIST long axis"),
                description=_("Longest diameter in an axial slice"),
                units="mm",
                quantityDicomCode=coded("103339001", "SCT", "Long Axis", True),
                unitsDicomCode=millimeter,
            )
        if key == "short_axis_mm":
            return self.createMeasurementInfo(
                name="RECIST short axis",
                title=_("RECIST short axis"),
                description=_("Longest diameter at right angles to the long axis, in the same slice"),
                units="mm",
                quantityDicomCode=coded("103340004", "SCT", "Short Axis", True),
                unitsDicomCode=millimeter,
            )
        if key == "slice_index":
            return self.createMeasurementInfo(
                name="RECIST slice",
                title=_("RECIST slice"),
                description=_("Index of the slice that was measured, from 0"),
                units="",
            )
        return None


def measureSegment(segmentation, segmentID: str, volume):
    """Return the engine's ``Measurement`` of a segment on the grid of a volume, None where the segment is empty there."""
    import numpy as np

    from ImmunoRadiomicsLib.lesions import measure
    from ImmunoRadiomicsLib.lesions.geometry import crop_of
    from ImmunoRadiomicsLib.scene.mrml import image_array, mrml_classes, oriented_image, volume_grid

    origin, spacing, axes = volume_grid(volume)
    matrix = np.eye(4)
    matrix[:3, :3] = axes * spacing
    matrix[:3, 3] = origin
    reference = oriented_image(mrml_classes(), volume.GetImageData().GetDimensions(), matrix)
    labelmap = slicer.vtkOrientedImageData()
    if not segmentation.GetBinaryLabelmapRepresentation(segmentID, labelmap):
        return None
    between = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        segmentation.GetParentTransformNode(), volume.GetParentTransformNode(), between
    )
    placed = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        labelmap, reference, placed, False, False, between
    )
    mask = image_array(placed) != 0
    if not mask.any():
        return None
    return measure(crop_of(mask), volumeImage(volume))


def registerPlugin() -> None:
    """Add the plugin to Segment Statistics, once; does nothing where Slicer lacks that module."""
    try:
        from SegmentStatistics import SegmentStatisticsLogic
    except ImportError:
        return
    names = [plugin.__name__ for plugin in SegmentStatisticsLogic.registeredPlugins]
    if RecistStatisticsPlugin.__name__ not in names:
        SegmentStatisticsLogic.registerPlugin(RecistStatisticsPlugin())
