"""Nodes of the scene: which there are, what belongs together, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer

from .Timepoints import TimepointRow, readRows


def nodesOf(className: str) -> list[Any]:
    """Return all nodes of a class and of those derived from it."""
    scene = slicer.mrmlScene
    return [scene.GetNthNodeByClass(index, className) for index in range(scene.GetNumberOfNodesByClass(className))]


def patientNodes() -> list[Any]:
    """Return the nodes that hold the choices for one patient each."""
    nodes = nodesOf("vtkMRMLScriptedModuleNode")
    return [node for node in nodes if node.GetAttribute("ModuleName") == "ImmunoRadiomics"]


def isBlank(patientNode: Any) -> bool:
    """Say whether nobody has said anything about a patient yet."""
    return not (patientNode.GetParameter("patient") or "").strip() and not readRows(patientNode)


def segmentationOf(volume: Any) -> Any:
    """Return the segmentation that was drawn on a volume, None where there is none."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return next(
        (node for node in nodesOf("vtkMRMLSegmentationNode") if node.GetNodeReferenceID(role) == volume.GetID()), None
    )


def segmentsOf(segmentation: Any) -> list[str]:
    """Return the names of the segments of a segmentation node."""
    segments = segmentation.GetSegmentation()
    return [segments.GetNthSegment(index).GetName() for index in range(segments.GetNumberOfSegments())]


def segmentNames(rows: Sequence[TimepointRow]) -> list[str]:
    """Return the names of all segments of all time points, each once."""
    names: dict[str, None] = {}
    for row in rows:
        if row.segmentation is not None:
            names |= dict.fromkeys(segmentsOf(row.segmentation))
    return list(names)


def volumeImage(volume: Any) -> Any:
    """Return the voxels of a volume node as a SimpleITK image in LPS, where they lie without the node's transform."""
    import SimpleITK as sitk

    from ImmunoRadiomicsLib.scene.mrml import LPS_TO_RAS, volume_array, volume_grid

    origin, spacing, axes = volume_grid(volume)
    image = sitk.GetImageFromArray(volume_array(volume))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((LPS_TO_RAS @ origin).tolist())
    image.SetDirection((LPS_TO_RAS @ axes).ravel().tolist())
    return image


def segmentCenter(segmentation: Any, name: str) -> tuple[float, float, float] | None:
    """Return the center of a segment in RAS mm, in the world; None where it is empty or there is none of that name."""
    identifier = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    if not identifier:
        return None
    place = segmentation.GetSegmentCenterRAS(identifier)
    return None if place is None else (float(place[0]), float(place[1]), float(place[2]))


def removeSegmentations(_caller: Any = None, _event: Any = None) -> None:
    """Remove the segmentations of patients and results while the scene closes, before anything else goes.

    Where they go one by one, the controls of the slice views choose the next one as long as there is one and set the visibility of its
    segments, which the subject hierarchy, gone by then, reports as an error.
    """
    mine = [row.segmentation for node in patientNodes() for row in readRows(node)]
    mine += [node for node in nodesOf("vtkMRMLSegmentationNode") if node.GetAttribute("ImmunoRadiomics.patient")]
    for node in mine:
        if node is not None and node.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(node)
