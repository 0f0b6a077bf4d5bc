"""Which DICOM instances an imported study came from: the file dicom.json beside its study.yaml."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..files import write_text
from ..serialise import from_json, to_json

SOURCES_FILE = "dicom.json"


@dataclass(frozen=True)
class TimepointSource:
    """The CT series of one time point: its instances in the order of the slices of the volume.

    ``resampled`` is true where the volume is not on the slices of the series, because these were tilted or unevenly spaced.
    """

    timepoint: str
    study_uid: str
    series_uid: str
    frame_of_reference: str
    instances: tuple[str, ...]
    resampled: bool


@dataclass(frozen=True)
class Tracking:
    """How DICOM objects name one lesion over time: the identifier that people read, and the UID."""

    lesion: str
    id: str
    uid: str


@dataclass(frozen=True)
class Sources:
    """Where a study came from. ``hashed`` is true where every UID was replaced by one that only the key file can find again."""

    schema_version: str = "1.0"
    hashed: bool = False
    timepoints: tuple[TimepointSource, ...] = ()
    tracking: tuple[Tracking, ...] = field(default_factory=tuple)


def write_sources(sources: Sources, folder: Path) -> None:
    """Write dicom.json into a folder."""
    write_text(folder / SOURCES_FILE, json.dumps(to_json(sources), ensure_ascii=False, indent=1) + "\n")


def read_sources(folder: Path) -> Sources | None:
    """Read the dicom.json of a folder, None where there is none.

    Raises
    ------
    InputError
        If it is damaged.
    """
    path = folder / SOURCES_FILE
    if not path.exists():
        return None
    try:
        return from_json(Sources, json.loads(path.read_text(encoding="utf-8")), path.name)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the file cannot be read. Import the DICOM folder again.") from error
