"""Writes DICOM files as scanners and workstations do, well-formed or spoilt on purpose, for tests of what reads them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    generate_uid,
)

from ImmunoRadiomicsLib.report.contours import outlines

Edit = Callable[[FileDataset, int], None]


@dataclass
class Person:
    """Who is on the pictures."""

    id: str = "HOSP-4711"
    name: str = "Musterfrau^Erika"
    birth_date: str = "19500203"
    sex: str = "F"


@dataclass
class Series:
    """A written series: its datasets in the order of the slices of the volume."""

    datasets: list[FileDataset]
    paths: list[Path] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return self.datasets[0].SeriesInstanceUID


def ct_series(
    image: sitk.Image,
    *,
    person: Person | None = None,
    date: datetime.date = datetime.date(2024, 1, 10),
    study_uid: str | None = None,
    series_uid: str | None = None,
    frame_of_reference: str | None = None,
    number: int = 2,
    kernel: str = "B31f",
    description: str = "Thorax 1.25 B31f",
    intercept: int = -1024,
    signed: bool = False,
    thickness_mm: float | None = None,
    acquisition: int = 1,
    contrast: str = "Iomeprol",
) -> Series:
    """Make a CT series of a volume in HU; its k-th dataset is the k-th slice."""
    person = person or Person()
    voxels = sitk.GetArrayViewFromImage(image)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    study_uid, series_uid = study_uid or generate_uid(), series_uid or generate_uid()
    frame_of_reference = frame_of_reference or generate_uid()
    across, down, step = image.GetSpacing()
    datasets = []
    for index, pixels in enumerate(voxels):
        data = _file(CTImageStorage, person, date, study_uid, series_uid, "CT", number)
        data.SeriesDescription = description
        data.FrameOfReferenceUID = frame_of_reference
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.InstanceNumber = index + 1
        data.AcquisitionNumber = acquisition
        data.AcquisitionDate = data.StudyDate
        data.AcquisitionTime = f"1012{index % 60:02d}.{index:06d}"
        data.KVP = 120
        data.ConvolutionKernel = kernel
        data.ContrastBolusAgent = contrast
        data.Manufacturer = "SIEMENS"
        data.ManufacturerModelName = "Definition"
        data.PatientPosition = "HFS"
        data.SliceThickness = thickness_mm or step
        data.ImageOrientationPatient = [f"{value:.6f}" for value in (*direction[:, 0], *direction[:, 1])]
        where = image.TransformIndexToPhysicalPoint((0, 0, index))
        data.ImagePositionPatient = [f"{value:.5f}"[:16] for value in where]
        data.PixelSpacing = [f"{down:.6f}", f"{across:.6f}"]
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = intercept, 1, "HU"
        _pixels(data, pixels.astype(np.int32) - intercept, signed=signed)
        datasets.append(data)
    return Series(datasets)


def pet_series(
    image: sitk.Image, *, person: Person | None = None, study_uid: str | None = None, edit: Edit | None = None
) -> Series:
    """Make a PET series of a volume in Bq/ml: 370 MBq of F-18, 80 kg, scanned one hour after the injection."""
    person = person or Person()
    series = ct_series(image, person=person, study_uid=study_uid, intercept=0, number=5, description="PET")
    for index, data in enumerate(series.datasets):
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        data.Modality = "PT"
        data.PatientWeight = 80
        data.Units = "BQML"
        data.CorrectedImage = ["DECY", "ATTN", "SCAT", "NORM"]
        data.DecayCorrection = "START"
        data.SeriesTime = "100000"
        data.AcquisitionTime = "100000"
        drug = Dataset()
        drug.RadionuclideTotalDose = 370e6
        drug.RadionuclideHalfLife = 6586.2
        drug.RadiopharmaceuticalStartTime = "090000"
        data.RadiopharmaceuticalInformationSequence = DicomSequence([drug])
        if edit is not None:
            edit(data, index)
    return series


def _file(
    sop_class: str, person: Person, date: datetime.date, study_uid: str, series_uid: str, modality: str, number: int
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = sop_class
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.PatientID, data.PatientName = person.id, person.name
    data.PatientBirthDate, data.PatientSex = person.birth_date, person.sex
    data.StudyInstanceUID, data.SeriesInstanceUID = study_uid, series_uid
    data.StudyDate = data.SeriesDate = data.ContentDate = date.strftime("%Y%m%d")
    data.StudyTime = data.SeriesTime = data.ContentTime = "101200"
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "A1", ""
    data.SeriesNumber, data.Modality = number, modality
    return data


def _pixels(data: Dataset, stored: np.ndarray, *, signed: bool) -> None:
    kind = np.int16 if signed else np.uint16
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = int(signed)
    limits = np.iinfo(kind)
    assert stored.min() >= limits.min
    assert stored.max() <= limits.max
    data.PixelData = np.ascontiguousarray(stored.astype(kind)).tobytes()


def save(
    series: Series, folder: Path, names: Callable[[int], str] = "IM{:05d}".format, edit: Edit | None = None
) -> Series:
    """Write a series into a folder and keep the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(series.datasets):
        if edit is not None:
            edit(data, index)
        path = folder / names(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(path, enforce_file_format=True)
        series.paths.append(path)
    return series


def segmentation(
    series: Series,
    masks: Mapping[str, np.ndarray],
    *,
    tracking: Mapping[str, str] | None = None,
    node: Sequence[str] = (),
    organs: Mapping[str, Any] | None = None,
    kind: str = "BINARY",
) -> Dataset:
    """Make a DICOM SEG of bool arrays (slice, row, column) on a series."""
    descriptions = []
    for number, name in enumerate(masks, start=1):
        site = (organs or {}).get(name)
        descriptions.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=codes.SCT.Lymphadenopathy if name in node else codes.SCT.Mass,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
                tracking_uid=(tracking or {}).get(name),
                tracking_id=name if tracking and name in tracking else None,
                anatomic_regions=[site] if site is not None else None,
            )
        )
    return hd.seg.Segmentation(
        source_images=series.datasets,
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(float if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Test",
        manufacturer_model_name="Test",
        software_versions="1",
        device_serial_number="1",
    )


def rtstruct(series: Series, masks: Mapping[str, np.ndarray], kinds: Mapping[str, str] | None = None) -> FileDataset:
    """Make an RTSTRUCT whose contours run half-way between the voxel centres inside and outside of each mask."""
    first = series.datasets[0]
    person = Person(first.PatientID, str(first.PatientName), first.PatientBirthDate, first.PatientSex)
    date = datetime.datetime.strptime(first.StudyDate, "%Y%m%d").date()
    data = _file(RTStructureSetStorage, person, date, first.StudyInstanceUID, generate_uid(), "RTSTRUCT", 200)
    data.StructureSetLabel = "RTSTRUCT"
    frame = Dataset()
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    study, used = Dataset(), Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", first.StudyInstanceUID
    used.SeriesInstanceUID = first.SeriesInstanceUID
    used.ContourImageSequence = DicomSequence([_reference(item) for item in series.datasets])
    study.RTReferencedSeriesSequence = DicomSequence([used])
    frame.RTReferencedStudySequence = DicomSequence([study])
    data.ReferencedFrameOfReferenceSequence = DicomSequence([frame])
    regions, contours, observations = [], [], []
    for number, (name, mask) in enumerate(masks.items(), start=1):
        region, drawn, seen = Dataset(), Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ROIGenerationAlgorithm = number, name, "MANUAL"
        region.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
        drawn.ReferencedROINumber, drawn.ROIDisplayColor = number, [255, 128, 0]
        drawn.ContourSequence = DicomSequence(
            [
                _contour(series.datasets[at], polygon)
                for at in np.flatnonzero(mask.any(axis=(1, 2)))
                for polygon in outlines(mask[at].astype(float))
            ]
        )
        seen.ObservationNumber = seen.ReferencedROINumber = number
        seen.RTROIInterpretedType, seen.ROIInterpreter = (kinds or {}).get(name, "GTV"), ""
        regions.append(region)
        contours.append(drawn)
        observations.append(seen)
    data.StructureSetROISequence = DicomSequence(regions)
    data.ROIContourSequence = DicomSequence(contours)
    data.RTROIObservationsSequence = DicomSequence(observations)
    return data


def _reference(data: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    return item


def _contour(slice_: Dataset, polygon: np.ndarray) -> Dataset:
    down, across = map(float, slice_.PixelSpacing)
    orientation = np.array([float(value) for value in slice_.ImageOrientationPatient])
    origin = np.array([float(value) for value in slice_.ImagePositionPatient])
    points = origin + polygon[:, :1] * across * orientation[:3] + polygon[:, 1:] * down * orientation[3:]
    item = Dataset()
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{value:.4f}" for value in points.ravel()]
    item.ContourImageSequence = DicomSequence([_reference(slice_)])
    return item
