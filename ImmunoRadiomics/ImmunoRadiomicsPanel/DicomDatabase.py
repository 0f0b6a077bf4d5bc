"""What Slicer's DICOM database knows of patients and of loaded volumes; nothing where Slicer was built without it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import slicer

from .Facts import number
from .ParameterNode import ImmunoRadiomicsParameterNode, Setting, Sex

if TYPE_CHECKING:
    from ImmunoRadiomicsLib.study import Acquisition

_PATIENT_ID = "0010,0020"
_STUDY_DATE = "0008,0020"
_MODALITY = "0008,0060"
_SEX = "0010,0040"
_AGE = "0010,1010"
_DIAGNOSES = "0008,1080"
_TRIAL = "0012,0020"
# Localizers and dose reports are CT series too, of a few images each.
_FEWEST_IMAGES = 20


@dataclass(frozen=True)
class DicomPatient:
    """A patient of the database: the database's own key, and the patient ID."""

    key: str
    code: str


@dataclass(frozen=True)
class DicomSeries:
    """A CT series of the database; ``date`` is YYYY-MM-DD or empty."""

    uid: str
    study: str
    date: str
    description: str
    images: int


def database() -> Any:
    """Return the open DICOM database (ctkDICOMDatabase), None where there is none."""
    found = getattr(slicer, "dicomDatabase", None)
    return found if found is not None and found.isOpen else None


def patients() -> list[DicomPatient]:
    """Return the patients of the database that have a CT, by their codes."""
    found = []
    source = database()
    for key in source.patients() if source is not None else ():
        series = seriesOf(key)
        if series:
            instance = source.instancesForSeries(series[0].uid, 1)[0]
            found.append(DicomPatient(key, source.instanceValue(instance, _PATIENT_ID) or key))
    return sorted(found, key=lambda patient: (patient.code, patient.key))


def seriesOf(patient: str) -> list[DicomSeries]:
    """Return the CT series of a patient of the database by date, the one with the most images first within a study."""
    found = []
    source = database()
    for study in source.studiesForPatient(patient) if source is not None else ():
        for uid in source.seriesForStudy(study):
            instances = source.instancesForSeries(uid)
            if len(instances) < _FEWEST_IMAGES or source.instanceValue(instances[0], _MODALITY) != "CT":
                continue
            date = isoDate(source.instanceValue(instances[0], _STUDY_DATE))
            found.append(DicomSeries(uid, study, date, source.descriptionForSeries(uid), len(instances)))
    return sorted(found, key=lambda series: (series.date, series.study, -series.images))


def proposedSeries(series: Sequence[DicomSeries]) -> list[str]:
    """Return the UIDs of one series per study, that with the most images: the thinnest slices."""
    first: dict[str, str] = {}
    for item in series:
        first.setdefault(item.study, item.uid)
    return list(first.values())


def loadSeries(uids: Sequence[str]) -> list[Any]:
    """Load series of the database and return the volume nodes; Slicer's own readers do it."""
    from DICOMLib import DICOMUtils

    nodes = [slicer.mrmlScene.GetNodeByID(identifier) for identifier in DICOMUtils.loadSeriesByUID(list(uids))]
    return [node for node in nodes if node is not None and node.IsA("vtkMRMLScalarVolumeNode")]


def studyDate(volume: Any) -> str:
    """Return the date (YYYY-MM-DD) that DICOM gives for a volume, empty where it is not known."""
    return isoDate(_fromHierarchy(volume, "Study", "DICOM.StudyDate") or valueOf(volume, _STUDY_DATE))


def patientCode(volume: Any) -> str:
    """Return the patient ID that DICOM gives for a volume, empty where it is not known."""
    return _fromHierarchy(volume, "Patient", "DICOM.PatientID") or valueOf(volume, _PATIENT_ID)


def valueOf(volume: Any, tag: str) -> str:
    """Return a DICOM value of the first image that a volume was read from, empty where it is not known."""
    source = database()
    instances = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    return (source.instanceValue(instances[0], tag) or "").strip() if source is not None and instances else ""


def acquisitionOf(volume: Any) -> Acquisition | None:
    """Return how a CT was made as far as its DICOM files say so, None where they say nothing."""
    from ImmunoRadiomicsLib.study import Acquisition, acquisition_limits

    def possible(field: str, tag: str) -> float | None:
        low, high, _unit = acquisition_limits()[field]
        value = number(valueOf(volume, tag).split("\\")[0])
        return value if value is not None and low <= value <= high else None

    agent = valueOf(volume, "0018,0010")
    found = Acquisition(
        kvp=possible("kvp", "0018,0060"),
        kernel=valueOf(volume, "0018,1210").split("\\")[0] or None,
        slice_thickness_mm=possible("slice_thickness_mm", "0018,0050"),
        # An agent that is named was given; an empty field says nothing.
        contrast=True if agent else None,
        manufacturer=valueOf(volume, "0008,0070") or None,
        model=valueOf(volume, "0008,1090") or None,
    )
    return found if found != Acquisition() else None


def fillFromDicom(parameters: ImmunoRadiomicsParameterNode, volume: Any) -> None:
    """Fill what the form leaves empty from the DICOM files of a volume: code, tumor, age, sex, trial."""
    if not parameters.patient.strip():
        parameters.patient = patientCode(volume)
    if not parameters.tumor.strip():
        parameters.tumor = valueOf(volume, _DIAGNOSES)
    age = valueOf(volume, _AGE)
    if not parameters.age.strip() and age.endswith("Y") and age[:-1].isdigit():
        parameters.age = str(int(age[:-1]))
    sex = {"F": Sex.FEMALE, "M": Sex.MALE}.get(valueOf(volume, _SEX))
    if parameters.sex is Sex.UNKNOWN and sex is not None:
        parameters.sex = sex
    if parameters.setting is Setting.UNKNOWN and valueOf(volume, _TRIAL):
        parameters.setting = Setting.TRIAL


def isoDate(text: str) -> str:
    """Return a DICOM date as YYYY-MM-DD, empty where it is none."""
    try:
        return datetime.datetime.strptime(text or "", "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def _fromHierarchy(volume: Any, level: str, attribute: str) -> str:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volume)
    above = hierarchy.GetItemAncestorAtLevel(item, level) if item else 0
    return hierarchy.GetItemAttribute(above, attribute) if above else ""
