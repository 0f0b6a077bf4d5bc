"""Which patients are there already: each keeps under which settings its result was made, and the sizes and times of the files it was made from."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..files import write_text
from ..order import Settings
from ..radiomics import load_preset, presets_beside
from ..study import TIMEPOINT_FILES, parse_study
from ..workspace import code_fingerprint, fingerprint
from .listing import CohortPatient

KEPT_FILE = "done.json"

# Path from the study's folder, size in bytes, time of the last change in ns.
FileStamp = tuple[str, int, int]


def settings_key(settings: Settings, perturbations: int) -> str:
    """Name what the results of all patients of a run depend on; files count by what they hold, wherever they lie."""
    presets = [*map(load_preset, (settings.preset, settings.lung_preset)), *presets_beside().values()]
    held = [(item.name, item.sha256) for item in presets], settings.bundles_sha256
    return fingerprint(code_fingerprint(), settings.chosen, held, perturbations)


def key_of(patient: CohortPatient, shared: str) -> str:
    """Name what a patient's result depends on beside its files; ``shared`` is that of the run (see ``settings_key``)."""
    return fingerprint(shared, patient.patient, patient.facts)


def stamps_of(source: Path) -> list[FileStamp]:
    """Return the files of a patient: all of a DICOM folder, or study.yaml and what it names."""
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file())
    else:
        study, _ = parse_study(source)
        named = (getattr(item, key) for item in (study.timepoints if study else ()) for key in TIMEPOINT_FILES)
        files = [source, *(path for path in named if path is not None)]
    return [stamp for path in files if (stamp := _stamp(path, source)) is not None]


def keep(folder: Path, key: str, stamps: list[FileStamp]) -> None:
    """Mark a patient's folder as done."""
    write_text(folder / KEPT_FILE, json.dumps({"key": key, "files": stamps}) + "\n")


def is_kept(folder: Path, source: Path, key: str) -> bool:
    """Whether a patient is done under this key, and none of its files has changed since; images and study.yaml are not opened."""
    try:
        kept = json.loads((folder / KEPT_FILE).read_text(encoding="utf-8"))
        if kept["key"] != key:
            return False
        stamps = [tuple(item) for item in kept["files"]]
        if source.is_dir():
            return stamps == stamps_of(source)
        return bool(stamps) and all(_size_and_time(source.parent / name) == told for name, *told in stamps)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def _stamp(path: Path, source: Path) -> FileStamp | None:
    try:
        size, time_ns = _size_and_time(path)
    except OSError:
        return None
    # Another machine may see the images under another path.
    return os.path.relpath(path, source if source.is_dir() else source.parent), size, time_ns


def _size_and_time(path: Path) -> list[int]:
    seen = path.stat()
    return [seen.st_size, seen.st_mtime_ns]
