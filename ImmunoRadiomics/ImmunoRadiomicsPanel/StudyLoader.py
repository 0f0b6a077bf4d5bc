"""Files into nodes: a study.yaml with its images as a new patient, and single volumes and segmentations."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from .Facts import writeFacts
from .ParameterNode import ImmunoRadiomicsParameterNode
from .Timepoints import (
    Kind,
    SegmentMeaning,
    TimepointRow,
    TransformUse,
    proposeRoles,
    writeMeanings,
    writeRows,
)

if TYPE_CHECKING:
    from ImmunoRadiomicsLib.study import LesionSpec, Study

# Width and level of the lung window, in HU.
_LUNG_WINDOW = (1500.0, -600.0)


def volumeSteps(path: Path, name: str) -> Generator[Any, Any, Any]:
    """Read an image file into a new volume node."""
    from ImmunoRadiomicsLib.images import read_volume
    from ImmunoRadiomicsLib.scene.mrml import fill_volume_steps

    image = yield functools.partial(read_volume, path)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetAttribute("DICOM.Modality", "CT")
    # A window that is given before there are voxels spares the search for one in their histogram.
    display = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
    display.SetDefaultColorMap()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(*_LUNG_WINDOW)
    node.SetAndObserveDisplayNodeID(display.GetID())
    yield from fill_volume_steps(node, image)
    yield None
    return node


def segmentationSteps(path: Path, volume: Any, name: str) -> Generator[Any, Any, Any]:
    """Read a segmentation file on the grid of a volume into a new segmentation node."""
    from ImmunoRadiomicsLib.images import read_segmentation
    from ImmunoRadiomicsLib.scene.mrml import fill_segmentation_steps, grid_image, mrml_classes

    drawn = yield functools.partial(read_segmentation, path, grid_image(volume), may_be_empty=True)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    yield from fill_segmentation_steps(mrml_classes(), node, drawn)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.CreateDefaultDisplayNodes()
    yield None
    return node


def studySteps(path: Path, newPatient: Any) -> Generator[Any, Any, ImmunoRadiomicsParameterNode]:
    """Read a study.yaml with its images into nodes, as a new patient of the scene that ``newPatient`` makes of a name.

    :raises InputError: if the study or an image is wrong.
    """
    from ImmunoRadiomicsLib.study import load_study

    study = load_study(path)
    # Their first import takes half a second, most of it scipy: beside the interface nobody waits for it.
    for name in ("scipy.ndimage", "ImmunoRadiomicsLib.scene", "ImmunoRadiomicsLib.lesions.names"):
        yield functools.partial(importlib.import_module, name)
    rows = []
    for timepoint in study.timepoints:
        volume = yield from volumeSteps(timepoint.ct, f"{study.patient} {timepoint.name} CT")
        segmentation = None
        if timepoint.segmentation is not None:
            title = f"{study.patient} {timepoint.name} segmentation"
            segmentation = yield from segmentationSteps(timepoint.segmentation, volume, title)
        transform, use = _transform(study, timepoint)
        rows.append(
            TimepointRow(
                volume,
                segmentation,
                timepoint.date.isoformat(),
                noVisibleLesions=timepoint.no_visible_lesions,
                transform=transform,
                transformUse=use,
                links={link.segment: link.lesion for link in study.links if link.timepoint == timepoint.name},
            )
        )
        yield None
    _placeInHierarchy(study.patient, rows)
    parameters = newPatient(study.patient)
    node = parameters.parameterNode
    with slicer.util.NodeModify(node):
        parameters.tumor = study.tumour or ""
        parameters.treatmentStart = study.treatment.start.isoformat() if study.treatment.start else ""
        parameters.agents = ", ".join(study.treatment.agents)
        parameters.regimen = study.treatment.regimen or ""
        parameters.line = str(study.treatment.line or "")
        writeFacts(parameters, study.clinical)
        writeRows(node, proposeRoles(rows, study.baseline.date))
        writeMeanings(node, [_meaning(item) for item in study.lesions])
    return parameters


def _meaning(spec: LesionSpec) -> SegmentMeaning:
    kind = {None: Kind.AUTOMATIC, True: Kind.NODE, False: Kind.LESION}[spec.node]
    return SegmentMeaning(spec.segment, spec.organ or "", spec.role or "", Kind.NOTHING if spec.ignore else kind)


def _transform(study: Study, timepoint: Any) -> tuple[Any, TransformUse]:
    from ImmunoRadiomicsLib.scene.transforms import fill_transform, read_transform_node, transform_class

    path = timepoint.transform or timepoint.start_transform
    if path is None:
        return None, TransformUse.NONE
    source = read_transform_node(path)
    name = f"{study.patient} {timepoint.name} given transform"
    node = slicer.mrmlScene.AddNewNodeByClass(transform_class(source), name)
    fill_transform(node, source)
    return node, TransformUse.REPLACE if timepoint.transform is not None else TransformUse.START


def _placeInHierarchy(patient: str, rows: Sequence[TimepointRow]) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), patient)
    hierarchy.SetItemAttribute(subject, "DICOM.PatientID", patient)
    for row in rows:
        study = hierarchy.CreateStudyItem(subject, row.date)
        hierarchy.SetItemAttribute(study, "DICOM.StudyDate", row.date.replace("-", ""))
        for node in (row.volume, row.segmentation):
            if node is not None:
                hierarchy.CreateItem(study, node)
