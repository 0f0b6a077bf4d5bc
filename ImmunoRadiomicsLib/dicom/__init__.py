"""DICOM in: folders of CT, PET, segmentations, contours and earlier reports become study folders."""

from .importing import ImportedPatient, ImportResult, import_folder
from .rows import SeriesRow
from .sources import Sources, TimepointSource, Tracking, read_sources

__all__ = [
    "ImportResult",
    "ImportedPatient",
    "SeriesRow",
    "Sources",
    "TimepointSource",
    "Tracking",
    "import_folder",
    "read_sources",
]
