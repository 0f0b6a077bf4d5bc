"""From the slices of a stack to voxels in HU or in what a PET scanner counts."""

from __future__ import annotations

import filecmp
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..progress import Progress, silent
from .geometry import Stack, to_image
from .headers import Picture, quiet, read_dataset

if TYPE_CHECKING:
    from pydicom import Dataset

# The tag of the pixel data as it stands in a file before the length, for the two uncompressed little endian syntaxes.
_PIXEL_ELEMENT = {"1.2.840.10008.1.2": b"\xe0\x7f\x10\x00", "1.2.840.10008.1.2.1": b"\xe0\x7f\x10\x00OW\x00\x00"}
# Outside what was scanned there is air.
AIR_HU = -1024.0
_LEAST_RANGE_HU = 100.0
_HU_TYPES = ("", "HU", "HU_MOD")
# Text burnt into a CT stands at the same place with the same value in every slice; noise makes that impossible for tissue.
_FEWEST_TEXT_PIXELS = 30
_LARGEST_TEXT_SHARE = 0.05
_TEXT_ABOVE_AIR_HU = 150.0


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume and what a reader should know about how it was made."""

    image: sitk.Image
    notes: tuple[str, ...]


def read_ct(stack: Stack, progress: Progress = silent) -> Volume:
    """Read a stack of CT slices as HU.

    Raises
    ------
    InputError
        If a slice is cut short or cannot be decoded, has no rescale, or its values are not HU.
    """
    for picture in stack.pictures:
        if picture.slope is None or picture.intercept is None:
            raise InputError(
                "no rescale slope and intercept are given"
                + (" (a lookup table stands in their place)" if picture.has_lookup else "")
                + ": the values are not in HU"
            )
        if picture.slope == 0 or not math.isfinite(picture.slope):
            raise InputError(f"the rescale slope is {picture.slope:g}")
        if picture.rescale_type not in _HU_TYPES:
            raise InputError(f"the values are {picture.rescale_type}, not HU")
    watch = _Extremes()
    voxels, notes = _read(stack, lambda picture: (picture.slope or 1.0, picture.intercept or 0.0), watch, progress)
    low, high = watch.range
    if low >= 0 or high - low < _LEAST_RANGE_HU:
        raise InputError(f"the values lie between {low:g} and {high:g}: they are not in HU, or the picture is blank")
    if any(picture.burned_in for picture in stack.pictures):
        notes.append("the header says that text is burnt into the pictures: it may name the patient")
    elif watch.repeats_something():
        notes.append("something is burnt into every slice at the same place: it may be text that names the patient")
    return Volume(to_image(stack, voxels, labels=False, outside=min(AIR_HU, low)), tuple(notes))


def read_scaled(stack: Stack, scale: Callable[[Picture], tuple[float, float]], progress: Progress = silent) -> Volume:
    """Read a stack with a slope and an intercept for each slice, as float32; raises as ``read_ct`` does."""
    voxels, notes = _read(stack, scale, None, progress, whole_numbers=False)
    return Volume(to_image(stack, voxels, labels=False, outside=0.0), tuple(notes))


def without_copies(pictures: Sequence[Picture]) -> tuple[list[Picture], tuple[str, ...]]:
    """Return each image once, and a note where files repeated an instance.

    Raises
    ------
    InputError
        If files carry one instance UID but differ in place or pixels.
    """
    once: dict[tuple[str, int | None], Picture] = {}
    for picture in pictures:
        kept = once.setdefault((picture.sop_uid, picture.frame), picture)
        if kept is picture:
            continue
        same = kept.position == picture.position and kept.orientation == picture.orientation
        if not same or not (filecmp.cmp(kept.path, picture.path, shallow=False) or _same_pixels(kept, picture)):
            raise InputError("two images that differ carry the same instance UID: the series is corrupt")
    copies = len(pictures) - len(once)
    return list(once.values()), ((f"{copies} files repeat an instance and were left out",) if copies else ())


def _same_pixels(one: Picture, other: Picture) -> bool:
    try:
        return bool(np.array_equal(_Frames().read(one), _Frames().read(other)))
    except InputError:
        return False


class _Extremes:
    """Keeps the smallest and the largest value of each pixel over the slices."""

    def __init__(self) -> None:
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None

    def see(self, values: np.ndarray) -> None:
        if self.low is None or self.high is None:
            self.low, self.high = values.copy(), values.copy()
            return
        self.low, self.high = np.minimum(self.low, values), np.maximum(self.high, values)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value of all."""
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return float(self.low.min()), float(self.high.max())

    def repeats_something(self) -> bool:
        """Whether some pixels, but no large part of the picture, have one bright value in every slice."""
        if self.low is None or self.high is None:
            return False
        fixed = (self.low == self.high) & (self.low > self.low.min() + _TEXT_ABOVE_AIR_HU)
        return bool(_FEWEST_TEXT_PIXELS <= fixed.sum() <= _LARGEST_TEXT_SHARE * fixed.size)


def _read(
    stack: Stack,
    scale: Callable[[Picture], tuple[float, float]],
    watch: _Extremes | None,
    progress: Progress,
    *,
    whole_numbers: bool = True,
) -> tuple[np.ndarray, list[str]]:
    """Return the rescaled voxels (slice, row, column), int16 where every value fits, and notes."""
    scales = {scale(picture) for picture in stack.pictures}
    whole = whole_numbers and all(float(value).is_integer() for pair in scales for value in pair)
    voxels = np.empty(stack.shape_zyx, dtype=np.int16 if whole else np.float32)
    limits = np.iinfo(np.int16)
    cut: list[int] = []
    reader = _Frames()
    for index, picture in enumerate(stack.pictures):
        if index % 8 == 0:
            progress(index / len(stack.pictures), f"reading slice {index + 1} of {len(stack.pictures)}")
        try:
            stored = reader.read(picture)
        except InputError as error:
            if not cut:
                first = error.problems[0]
            cut.append(index + 1)
            continue
        slope, intercept = scale(picture)
        if not whole:
            voxels[index] = stored * np.float32(slope) + np.float32(intercept)
            if watch is not None:
                watch.see(voxels[index])
            continue
        values = stored.astype(np.int32)
        if slope != 1:
            values *= int(slope)
        values += int(intercept)
        if voxels.dtype == np.int16 and (values.min() < limits.min or values.max() > limits.max):
            voxels = voxels.astype(np.int32)
        voxels[index] = values
        if watch is not None:
            watch.see(voxels[index])
    if cut:
        shown = ", ".join(map(str, cut[:8])) + (", ..." if len(cut) > 8 else "")
        raise InputError(
            f"{len(cut)} of {len(stack.pictures)} slices cannot be read (number {shown} of the stack): {first}"
        )
    notes = list(stack.notes)
    if any(picture.lossy for picture in stack.pictures):
        notes.append("the pictures were compressed with loss: densities and textures are altered")
    return voxels, notes


class _Frames:
    """Reads pixels of slices; a multi-frame file is decoded once and its frames are handed out."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames: np.ndarray | None = None

    def read(self, picture: Picture) -> np.ndarray:
        """Return the stored values of one slice (row, column); InputError where they cannot be had."""
        if picture.frame is None:
            plain = _plain(picture)
            values = _decoded(picture.path) if plain is None else plain
        else:
            if picture.path != self._path:
                self._frames, self._path = _decoded(picture.path), picture.path
            frames = self._frames
            if frames is None or frames.ndim == 2:
                frames = frames[np.newaxis] if frames is not None else np.empty((0, 0, 0))
            if picture.frame >= len(frames):
                raise InputError("the file holds fewer frames than its header says")
            values = frames[picture.frame]
        if values.shape != (picture.rows, picture.columns):
            raise InputError("the pixels do not fit the rows and columns of the header")
        return values


def _decoded(path: Path) -> np.ndarray:
    try:
        data = read_dataset(path)
    except ValueError as error:
        raise InputError(str(error)) from error
    if "PixelData" not in data:
        raise InputError("the file has no pixels; it is cut short or was stripped")
    with quiet():
        try:
            return data.pixel_array
        except Exception as error:  # decoders fail in any way there is
            return _decoded_by_image_library(path, data, error)


def _plain(picture: Picture) -> np.ndarray | None:
    """Return uncompressed 16-bit pixels that end their file, without parsing it again; None where more care is needed."""
    head = _PIXEL_ELEMENT.get(picture.transfer_syntax)
    if head is None or picture.bits != (16, 16) or picture.samples != 1:
        return None
    length = 2 * picture.rows * picture.columns
    head += struct.pack("<I", length)
    with picture.path.open("rb") as stream:
        try:
            stream.seek(-(length + len(head)), 2)
        except OSError:
            return None
        if stream.read(len(head)) != head:
            return None
        content = stream.read(length)
    values = np.frombuffer(content, dtype="<i2" if picture.signed else "<u2")
    return values.reshape(picture.rows, picture.columns)


def _decoded_by_image_library(path: Path, data: Dataset, error: Exception) -> np.ndarray:
    """Decode with SimpleITK what pydicom has no decoder for, such as lossless JPEG; its rescaled values are scaled back."""
    meta = getattr(data, "file_meta", None)
    transfer = getattr(meta, "TransferSyntaxUID", None)
    if transfer is None or not transfer.is_compressed or int(data.get("NumberOfFrames") or 1) != 1:
        raise InputError(
            f"the pixels cannot be decoded; the file is cut short or damaged ({type(error).__name__})"
        ) from error
    try:
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as second:
        raise InputError(
            f"the pixels cannot be decoded (transfer syntax {transfer.name}); the file is damaged, or a decoder is missing: "
            "pip install immunoradiomics[dicom]"
        ) from second
    slope, intercept = float(data.get("RescaleSlope") or 1), float(data.get("RescaleIntercept") or 0)
    stored = (values.astype(np.float64) - intercept) / slope
    return np.rint(stored.reshape(values.shape[-2:])).astype(np.int32)
