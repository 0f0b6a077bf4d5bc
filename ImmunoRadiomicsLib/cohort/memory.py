"""How much memory a patient takes, how much there is, and how a worker gives it back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
from pathlib import Path

import SimpleITK as sitk

from .listing import CohortPatient

# The peak of the full-size demo, three scans of 512x512x300, is 3.3 GiB: 15 bytes for each voxel of its scans.
_BYTES_PER_VOXEL = 16
_BYTES_OF_A_WORKER = 400 << 20
_BYTES_PER_DICOM_VOXEL = 2
# CT packs to a tenth at most, so that a file of this size adds less than a gigabyte whatever it holds.
_SMALL_FILE_BYTES = 8 << 20
_VOXELS_PER_BYTE = 5
# `ct:` in block or flow style, with or without quotes.
_CT = re.compile(
    r"""(?:^|[\s{,])["']?ct["']?:[ \t]+(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"',}#][^,}#\n]*?))[ \t]*(?=$|[,}#])""",
    re.MULTILINE,
)
# What other programs and the driver may still want.
_SHARE = 0.8


def available_bytes() -> int | None:
    """Return the memory that can still be had on this machine and shall be used; None where the system does not say."""
    found = _free_bytes()
    return None if found is None else int(_SHARE * found)


def _free_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def give_back() -> None:
    """Return to the system what this process no longer needs and still holds.

    The C library of Linux keeps freed memory for later requests; those of the next patient do not fit its gaps, so that a worker
    would grow from patient to patient. Elsewhere there is nothing to call.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def needed_bytes(patient: CohortPatient) -> int:
    """Estimate the peak of a patient from the headers of its scans, or from the size of a DICOM folder."""
    if patient.source.is_dir():
        size = sum(path.stat().st_size for path in patient.source.rglob("*") if path.is_file())
        return _BYTES_OF_A_WORKER + _BYTES_PER_VOXEL * size // _BYTES_PER_DICOM_VOXEL
    return _BYTES_OF_A_WORKER + _BYTES_PER_VOXEL * sum(map(_voxels, _scans_of(patient.source)))


def _scans_of(source: Path) -> list[Path]:
    """Return the CT files of a study.yaml, which is searched and not parsed: the driver asks this of thousands. What is wrong there fails by itself."""
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    return [source.parent / next(filter(None, found)) for found in _CT.findall(text)]


def _voxels(path: Path) -> int:
    """Return how many voxels a scan has; of a small file the most that it can hold, without opening it."""
    try:
        size = path.stat().st_size
    except OSError:
        return 0  # the patient will fail with the reason
    if size < _SMALL_FILE_BYTES:
        return _VOXELS_PER_BYTE * size
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 0  # the patient will fail with the reason
    count = 1
    for size in reader.GetSize():
        count *= size
    return count
