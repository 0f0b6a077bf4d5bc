"""What the headers of DICOM files say, as plain records; pixels are not touched here."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError
from ..progress import Progress, silent

if TYPE_CHECKING:
    from pydicom import Dataset

CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT Image",
}
PET_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.128": "PET Image",
    "1.2.840.10008.5.1.4.1.1.130": "Enhanced PET Image",
    "1.2.840.10008.5.1.4.1.1.128.1": "Legacy Converted Enhanced PET Image",
}
SEG_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation",
}
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
SR_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.88.22": "Enhanced SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "Comprehensive SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "Comprehensive 3D SR",
}
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"

_TAGS = (
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "BitsAllocated",
    "BitsStored",
    "BurnedInAnnotation",
    "Columns",
    "ContentTime",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ConversionType",
    "ConvolutionKernel",
    "FrameOfReferenceUID",
    "FrameReferenceTime",
    "GantryDetectorTilt",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "ImagesInAcquisition",
    "InstanceNumber",
    "IssuerOfPatientID",
    "KVP",
    "LossyImageCompression",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "Rows",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SeriesDate",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SharedFunctionalGroupsSequence",
    "SliceThickness",
    "StudyDate",
    "StudyInstanceUID",
    "TemporalPositionIdentifier",
)


@dataclass(frozen=True)
class Identity:
    """Who a patient is, for telling patients apart; it never leaves the import but through a key file."""

    id: str
    issuer: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True)
class Picture:
    """One image: a single-frame instance, or one frame of a multi-frame instance (``frame`` counts from 0).

    Positions are LPS mm; ``orientation`` holds the direction of a row and of a column; ``spacing_mm`` is (between rows, between
    columns), as DICOM orders it; ``bits`` are those allocated and those stored. What the header lacks or holds wrongly is None or empty.
    """

    path: Path
    sop_class: str
    sop_uid: str
    identity: Identity
    study_uid: str
    series_uid: str
    modality: str
    date: datetime.date | None
    frame_of_reference: str = ""
    image_type: tuple[str, ...] = ()
    number: int | None = None
    series_number: int | None = None
    description: str = ""
    acquisition: str = ""
    temporal: str = ""
    time: str = ""
    rows: int = 0
    columns: int = 0
    samples: int = 1
    photometric: str = ""
    spacing_mm: tuple[float, float] | None = None
    orientation: tuple[float, ...] | None = None
    position: tuple[float, float, float] | None = None
    thickness_mm: float | None = None
    kernel: str = ""
    kvp: float | None = None
    contrast: bool | None = None
    manufacturer: str = ""
    model: str = ""
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    has_lookup: bool = False
    tilt_degrees: float | None = None
    images_in_acquisition: int | None = None
    burned_in: bool = False
    lossy: bool = False
    frame: int | None = None
    transfer_syntax: str = ""
    bits: tuple[int, int] = (0, 0)
    signed: bool = False


@dataclass(frozen=True)
class Scan:
    """What a folder holds: CT and PET images, other objects, and what could not be read, with the reason.

    ``indices`` counts DICOMDIR files, ``foreign`` files that are not DICOM.
    """

    pictures: tuple[Picture, ...]
    objects: tuple[Picture, ...]
    unreadable: tuple[tuple[Path, str], ...]
    indices: int
    foreign: int


def load_pydicom() -> Any:
    """Return the pydicom module.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingDependencyError(
            "DICOM needs pydicom and highdicom. Install them: pip install immunoradiomics[dicom]"
        ) from error
    return pydicom


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what pydicom warns of: its words may quote values of the header."""
    logger = logging.getLogger("pydicom")

    def drop(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(drop)


def read_dataset(path: Path, *, pixels: bool = True, tags: tuple[str, ...] | None = None) -> Dataset:
    """Read one file, with or without the 128 bytes of preamble; values are not judged, pydicom's warnings are held back.

    Raises
    ------
    ValueError
        If it is no DICOM file or cannot be read.
    """
    pydicom = load_pydicom()
    with quiet():
        try:
            return pydicom.dcmread(
                path,
                force=True,
                stop_before_pixels=not pixels,
                specific_tags=list(tags) if tags else None,
            )
        except Exception as error:  # a damaged file fails in pydicom in any way there is
            raise ValueError(f"it cannot be read ({type(error).__name__})") from error


def scan_folder(folder: Path, progress: Progress = silent) -> Scan:
    """Read the header of every file of a folder tree; links to other folders are not followed."""
    pydicom = load_pydicom()
    paths = sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names)
    pictures: list[Picture] = []
    objects: list[Picture] = []
    unreadable: list[tuple[Path, str]] = []
    indices = foreign = 0
    with pydicom.config.disable_value_validation(), quiet():
        for done, path in enumerate(paths):
            if done % 20 == 0:
                progress(done / len(paths), f"reading headers, {done} of {len(paths)} files")
            if not path.is_file() or not looks_like_dicom(path):
                foreign += 1
                continue
            try:
                data = read_dataset(path, pixels=False, tags=_TAGS)
                found = tuple(_pictures(path, data))
            except ValueError as error:
                unreadable.append((path, str(error)))
                continue
            if "DirectoryRecordSequence" in data or found[0].sop_class == DICOMDIR_CLASS:
                indices += 1
            elif not found[0].sop_class or not found[0].series_uid:
                unreadable.append((path, "it has no SOP class or no series: it is no whole DICOM object"))
            elif found[0].sop_class in CT_CLASSES | PET_CLASSES and found[0].rows:
                pictures += found
            else:
                objects += found[:1]
    return Scan(tuple(pictures), tuple(objects), tuple(unreadable), indices, foreign)


def looks_like_dicom(path: Path) -> bool:
    """Say whether a file starts as DICOM does: with the prefix, or without it with an element of an early group."""
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    if len(start) < 12:
        return False
    for order in "<>":
        group, element = struct.unpack_from(f"{order}HH", start)
        value_representation = start[4:6]
        length = struct.unpack_from(f"{order}I", start, 4)[0]
        early = group in (0x0002, 0x0008) and element < 0x0100
        if early and ((value_representation.isalpha() and value_representation.isupper()) or length < 4096):
            return True
    return False


def _pictures(path: Path, data: Dataset) -> Iterator[Picture]:
    single = _picture(path, data)
    shared = _item(data, "SharedFunctionalGroupsSequence")
    frames = _items(data, "PerFrameFunctionalGroupsSequence")
    if not frames:
        # Several frames whose places are not given make no volume.
        several = (integer(data, "NumberOfFrames") or 1) > 1
        yield dataclasses.replace(single, position=None) if several else single
        return
    for index, own in enumerate(frames):
        yield _frame(single, index, own, shared)


def _picture(path: Path, data: Dataset) -> Picture:
    return Picture(
        path=path,
        sop_class=text(data, "SOPClassUID"),
        sop_uid=text(data, "SOPInstanceUID"),
        identity=Identity(
            text(data, "PatientID"),
            text(data, "IssuerOfPatientID"),
            text(data, "PatientName"),
            text(data, "PatientBirthDate"),
            text(data, "PatientSex"),
        ),
        study_uid=text(data, "StudyInstanceUID"),
        series_uid=text(data, "SeriesInstanceUID"),
        modality=text(data, "Modality"),
        date=_date(data),
        frame_of_reference=text(data, "FrameOfReferenceUID"),
        image_type=tuple(word.strip().upper() for word in text(data, "ImageType").split("\\") if word.strip()),
        number=integer(data, "InstanceNumber"),
        series_number=integer(data, "SeriesNumber"),
        description=text(data, "SeriesDescription"),
        acquisition=text(data, "AcquisitionNumber"),
        temporal=text(data, "TemporalPositionIdentifier") or text(data, "FrameReferenceTime"),
        time=text(data, "AcquisitionTime") or text(data, "AcquisitionDateTime") or text(data, "ContentTime"),
        rows=integer(data, "Rows") or 0,
        columns=integer(data, "Columns") or 0,
        samples=integer(data, "SamplesPerPixel") or 1,
        photometric=text(data, "PhotometricInterpretation"),
        spacing_mm=_pair(numbers(data, "PixelSpacing", 2)),
        orientation=numbers(data, "ImageOrientationPatient", 6),
        position=_triple(numbers(data, "ImagePositionPatient", 3)),
        thickness_mm=number(data, "SliceThickness"),
        kernel=text(data, "ConvolutionKernel"),
        kvp=number(data, "KVP"),
        contrast=_contrast(data),
        manufacturer=text(data, "Manufacturer"),
        model=text(data, "ManufacturerModelName"),
        slope=number(data, "RescaleSlope"),
        intercept=number(data, "RescaleIntercept"),
        rescale_type=text(data, "RescaleType").upper(),
        has_lookup="ModalityLUTSequence" in data,
        tilt_degrees=number(data, "GantryDetectorTilt"),
        images_in_acquisition=integer(data, "ImagesInAcquisition"),
        burned_in=text(data, "BurnedInAnnotation").upper() == "YES",
        lossy=text(data, "LossyImageCompression") == "01",
        transfer_syntax=text(data.file_meta, "TransferSyntaxUID") if hasattr(data, "file_meta") else "",
        bits=(integer(data, "BitsAllocated") or 0, integer(data, "BitsStored") or 0),
        signed=integer(data, "PixelRepresentation") == 1,
    )


def _frame(whole: Picture, index: int, own: Dataset, shared: Dataset | None) -> Picture:
    """Return one frame of a multi-frame image: what its functional groups say, and the rest from the whole."""

    def group(name: str) -> Dataset | None:
        found = _item(own, name)
        return found if found is not None or shared is None else _item(shared, name)

    position, orientation = group("PlanePositionSequence"), group("PlaneOrientationSequence")
    measures, values = group("PixelMeasuresSequence"), group("PixelValueTransformationSequence")
    content, reconstruction = group("FrameContentSequence"), group("CTReconstructionSequence")
    beam, kind = group("CTXRayDetailsSequence"), group("CTImageFrameTypeSequence")
    changes: dict[str, Any] = {"frame": index}
    if position is not None:
        changes["position"] = _triple(numbers(position, "ImagePositionPatient", 3))
    if orientation is not None:
        changes["orientation"] = numbers(orientation, "ImageOrientationPatient", 6)
    if measures is not None:
        changes["spacing_mm"] = _pair(numbers(measures, "PixelSpacing", 2))
        changes["thickness_mm"] = number(measures, "SliceThickness")
    if values is not None:
        changes["slope"] = number(values, "RescaleSlope")
        changes["intercept"] = number(values, "RescaleIntercept")
        changes["rescale_type"] = text(values, "RescaleType").upper()
    if content is not None:
        changes["acquisition"] = text(content, "FrameAcquisitionNumber") or whole.acquisition
        changes["temporal"] = text(content, "TemporalPositionIndex") or whole.temporal
        changes["time"] = text(content, "FrameAcquisitionDateTime") or whole.time
    if reconstruction is not None:
        changes["kernel"] = text(reconstruction, "ConvolutionKernel") or whole.kernel
    if beam is not None:
        changes["kvp"] = number(beam, "KVP") or whole.kvp
    if kind is not None:
        words = text(kind, "FrameType").upper().split("\\")
        changes["image_type"] = tuple(word.strip() for word in words if word.strip()) or whole.image_type
    return dataclasses.replace(whole, **changes)


def text(data: Dataset, name: str) -> str:
    """Return an element as text, several values joined by backslashes; empty where it is absent or cannot be read."""
    try:
        value = data.get(name)
    except Exception:  # the value of a damaged element fails in any way there is
        return ""
    if value is None:
        return ""
    if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue":
        return "\\".join(str(item) for item in value)
    return str(value).strip()


def numbers(data: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """Return an element of a given count of finite numbers, None where it is anything else."""
    try:
        value = data.get(name)
        if value is None:
            return None
        values = [value] if count == 1 and not hasattr(value, "__len__") else list(value)
        found = tuple(float(item) for item in values)
    except Exception:  # the value of a damaged element fails in any way there is
        return None
    finite = len(found) == count and all(abs(item) < 1e9 for item in found)
    return found if finite else None


def number(data: Dataset, name: str) -> float | None:
    """Return the first value of an element as a number, None where there is none."""
    words = text(data, name).split("\\")
    try:
        value = float(words[0])
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None


def integer(data: Dataset, name: str) -> int | None:
    """Return the first value of an element as a whole number, None where there is none."""
    value = number(data, name)
    return None if value is None else int(value)


def _pair(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def _triple(values: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2])


def _items(data: Dataset, name: str) -> list[Dataset]:
    try:
        return list(data.get(name) or [])
    except Exception:  # the value of a damaged element fails in any way there is
        return []


def _item(data: Dataset, name: str) -> Dataset | None:
    return next(iter(_items(data, name)), None)


def as_date(word: str) -> datetime.date | None:
    """Return a DICOM date (YYYYMMDD, formerly YYYY.MM.DD), or the date of a DICOM date and time."""
    digits = word.replace(".", "", 2) if word[4:5] == "." else word
    try:
        return datetime.datetime.strptime(digits[:8], "%Y%m%d").date()
    except ValueError:
        return None


def _date(data: Dataset) -> datetime.date | None:
    """Return when the image was acquired: the study may be opened on another day."""
    for name in ("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "StudyDate"):
        found = as_date(text(data, name))
        if found is not None:
            return found
    return None


def _contrast(data: Dataset) -> bool | None:
    """Say whether contrast was given: an agent means yes, an agent said to be none no; nothing said is not known."""
    if _items(data, "ContrastBolusAgentSequence"):
        return True
    agent = text(data, "ContrastBolusAgent").lower()
    if not agent:
        return None
    return agent not in ("no", "none", "no contrast", "non contrast", "without", "n", "0", "native", "w/o")
