"""The CT instances that exported objects refer to: those that a study was imported from, or new ones derived from its volumes."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ...dicom.headers import load_pydicom, read_dataset, scan_folder
from ...dicom.privacy import read_key
from ...dicom.sources import Sources, TimepointSource
from ...errors import InputError
from ...progress import Progress, silent
from .codes import derived_uid

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileDataset

MANUFACTURER = "ImmunoRadiomics developers"
MODEL = "ImmunoRadiomics"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Subject:
    """Who and what the derived instances of one time point are of."""

    patient: str
    timepoint: str
    date: datetime.date
    seed: str
    version: str


def find_sources(
    sources: Sources, folder: Path, key_file: Path | None, progress: Progress = silent
) -> dict[str, tuple[Dataset, ...]]:
    """Find the instances that the volumes of a study came from, in the order of their slices, by time point.

    Time points whose volume was resampled are left out: what was drawn on it does not lie on the slices.

    Raises
    ------
    InputError
        If instances are missing from the folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: this is no folder. Give the folder that the study was imported from.")
    if sources.hashed and key_file is None:
        raise InputError("The study was pseudonymised: the key file is needed to find its DICOM files (--key KEYFILE).")
    key = read_key(key_file) if sources.hashed and key_file is not None else None
    paths: dict[str, Path] = {}
    for picture in scan_folder(folder, progress).pictures:
        paths.setdefault(key.uid(picture.sop_uid) if key is not None else picture.sop_uid, picture.path)
    found: dict[str, tuple[Dataset, ...]] = {}
    problems = []
    for item in sources.timepoints:
        if item.resampled:
            continue
        missing = sum(uid not in paths for uid in item.instances)
        if missing:
            problems.append(
                f"{folder}: {missing} of the {len(item.instances)} instances of {item.timepoint} are not here. Give the folder that the "
                "study was imported from, or export without it."
            )
            continue
        found[item.timepoint] = tuple(_complete(read_dataset(paths[uid], pixels=False)) for uid in item.instances)
    if problems:
        raise InputError(problems)
    return found


def check_geometry(source: TimepointSource, datasets: Sequence[Dataset], volume: sitk.Image) -> None:
    """Refuse instances that do not lie where the volume does.

    Raises
    ------
    InputError
        If counts or places differ.
    """
    size = volume.GetSize()
    for index in (0, len(datasets) - 1):
        place = volume.TransformIndexToPhysicalPoint((0, 0, min(index, size[2] - 1)))
        stated = [float(value) for value in datasets[index].ImagePositionPatient]
        if len(datasets) != size[2] or np.abs(np.subtract(place, stated)).max() > 0.1:
            raise InputError(
                f"{source.timepoint}: the volume is not the one that was imported from these DICOM files. Import them again."
            )


def _complete(data: Dataset) -> Dataset:
    """Fill what every image must have but some senders leave out, so that objects derived from it are whole."""
    for name in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
        "AccessionNumber",
        "StudyTime",
    ):
        if name not in data:
            setattr(data, name, "")
    if "ReferringPhysicianName" not in data:
        data.ReferringPhysicianName = ""
    return data


def derived_instances(volume: sitk.Image, subject: Subject) -> Iterator[FileDataset]:
    """Make CT instances of a volume in HU, one per slice; the same volume and subject give the same UIDs."""
    voxels = sitk.GetArrayViewFromImage(volume)
    limits = np.iinfo(np.int16)
    direction = np.array(volume.GetDirection()).reshape(3, 3)
    across, down, step = volume.GetSpacing()
    words = (subject.seed, subject.patient, subject.timepoint)
    for index, values in enumerate(voxels):
        data = new_file(CT_IMAGE, derived_uid(*words, "ct", str(index)), subject)
        data.SeriesInstanceUID = derived_uid(*words, "ct-series")
        data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 1, index + 1
        data.SeriesDescription = "CT of the analysis"
        data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        data.DerivationDescription = "Written from a volume whose DICOM files were not at hand"
        data.AcquisitionNumber, data.KVP, data.PatientPosition, data.Laterality = None, None, "", ""
        data.AcquisitionDate = data.StudyDate
        data.FrameOfReferenceUID = derived_uid(*words, "frame")
        data.PositionReferenceIndicator = ""
        data.SliceThickness = _decimal(step)
        data.PixelSpacing = [_decimal(down), _decimal(across)]
        data.ImageOrientationPatient = [_decimal(value) for value in (*direction[:, 0], *direction[:, 1])]
        data.ImagePositionPatient = [_decimal(value) for value in volume.TransformIndexToPhysicalPoint((0, 0, index))]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = values.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "HU"
        data.WindowCenter, data.WindowWidth = 40, 400
        data.PixelData = np.clip(np.rint(values), limits.min, limits.max).astype("<i2").tobytes()
        data["PixelData"].VR = "OW"
        yield data


def new_file(sop_class: str, sop_uid: str, subject: Subject) -> FileDataset:
    """Return a dataset with what every object of a derived study says of patient, study and equipment."""
    pydicom = load_pydicom()
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, sop_uid
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = sop_class, sop_uid
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientID, data.PatientName = subject.patient, f"{subject.patient}^"
    data.PatientBirthDate = data.PatientSex = ""
    day = subject.date.strftime("%Y%m%d")
    data.StudyInstanceUID = derived_uid(subject.seed, subject.patient, subject.timepoint, "study")
    data.StudyDate = data.SeriesDate = data.ContentDate = day
    data.StudyTime = data.SeriesTime = data.ContentTime = "000000"
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
    data.StudyDescription = subject.timepoint
    data.Manufacturer, data.ManufacturerModelName = MANUFACTURER, MODEL
    data.SoftwareVersions, data.DeviceSerialNumber = subject.version, "0"
    return data


def _decimal(value: float) -> str:
    """Return a number in the 16 characters of a decimal string."""
    for digits in range(10, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    return f"{value:.0f}"
