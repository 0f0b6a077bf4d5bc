"""Volumes and segmentations in and out, checked.

A volume is a scalar 3D ``SimpleITK.Image``; ``SimpleITK.GetArrayViewFromImage`` gives its voxels in the order (z, y, x) =
(slice, row, column). Positions are LPS millimetres. A segmentation keeps overlapping segments apart.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .files import sha256_of, whole_file

# Two grids are one if no corner of the volume moves by more than this share of a voxel.
GRID_TOLERANCE_VOXELS = 0.01

# What a scanner can have made. Outside, the header is in another unit, such as metres.
_SPACING_LIMITS_MM = (0.01, 50.0)

# Air and soft tissue differ by about 1000 HU, fat and muscle still by 150.
_LEAST_RANGE_HU = 100.0

_VOLUME_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
_DETACHED_SUFFIXES = (".nhdr", ".mhd")
_NIFTI_SUFFIXES = (".nii", ".nii.gz")
_NIFTI_LABEL = re.compile(r'<Label\s[^>]*?Key="(\d+)"[^>]*>\s*(?:<!\[CDATA\[)?([^<\]]*)')
_LARGEST_LABEL_TABLE = 1 << 18
_GZIP_MARK = b"\x1f\x8b"


class Anatomy(IntEnum):
    """Labels of the anatomy map that every stage shares: one uint8 volume on the grid of the CT."""

    OUTSIDE = 0
    BODY = 1
    RIGHT_LUNG = 2
    LEFT_LUNG = 3
    AIRWAYS = 4


LUNG_LABELS = (Anatomy.RIGHT_LUNG, Anatomy.LEFT_LUNG)


@dataclass(frozen=True)
class Segment:
    """One named structure of a segmentation and where its voxels are: ``layers[layer] == label``."""

    id: str
    name: str
    layer: int
    label: int
    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    terminology: str | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Label maps of one grid and the segments they hold; segments of different layers may overlap."""

    layers: tuple[sitk.Image, ...]
    segments: tuple[Segment, ...]

    def segment(self, name: str) -> Segment:
        """Return a segment by name; KeyError if there is none."""
        for item in self.segments:
            if item.name == name:
                return item
        raise KeyError(name)

    def array(self, name: str) -> np.ndarray:
        """Return one segment as a bool array (z, y, x)."""
        segment = self.segment(name)
        return sitk.GetArrayViewFromImage(self.layers[segment.layer]) == segment.label

    def mask(self, name: str) -> sitk.Image:
        """Return one segment as a uint8 volume with 0 and 1."""
        segment = self.segment(name)
        return self.layers[segment.layer] == segment.label


@dataclass(frozen=True, eq=False)
class RegionMask:
    """The voxels of one region at one time point, kept as the smallest box that holds them.

    ``voxels`` is a bool array (z, y, x); ``offset_zyx`` is the index of its first voxel in the CT of that time point.
    ``lesion`` is None for regions of the lungs. ``region`` is `core`, `ring-0-5mm`, `ring-5-10mm`, `border` or `lungs`.
    """

    timepoint: str
    lesion: str | None
    region: str
    offset_zyx: tuple[int, int, int]
    voxels: np.ndarray

    @classmethod
    def from_array(cls, timepoint: str, lesion: str | None, region: str, mask: np.ndarray) -> RegionMask:
        """Crop a full bool array (z, y, x) to its bounding box; an empty mask gives an empty box."""
        spans = []
        for axis in range(3):
            hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
            spans.append((int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, 0))
        box = tuple(slice(first, last) for first, last in spans)
        offset = (spans[0][0], spans[1][0], spans[2][0])
        return cls(timepoint, lesion, region, offset, np.ascontiguousarray(mask[box], dtype=bool))

    @property
    def count(self) -> int:
        """Number of voxels."""
        return int(self.voxels.sum())

    def paste(self, shape_zyx: tuple[int, ...]) -> np.ndarray:
        """Return the region as a full bool array of the given shape."""
        full = np.zeros(shape_zyx, dtype=bool)
        box = tuple(slice(start, start + size) for start, size in zip(self.offset_zyx, self.voxels.shape, strict=True))
        full[box] = self.voxels
        return full

    def image(self, reference: sitk.Image) -> sitk.Image:
        """Return the region as a uint8 volume with 0 and 1 on the grid of ``reference``."""
        result = sitk.GetImageFromArray(self.paste(reference.GetSize()[::-1]).astype(np.uint8))
        result.CopyInformation(reference)
        return result


def read_volume(path: Path, *, ct: bool = True) -> sitk.Image:
    """Read and check a volume.

    Parameters
    ----------
    path
        NRRD, NIfTI or MetaImage file, or a folder with exactly one DICOM series.
    ct
        Check that the values are in HU: air is far below 0, so a CT without a negative value is not in HU.

    Raises
    ------
    InputError
        If the file is missing, unreadable, not three-dimensional, has several values per voxel, no voxel spacing, a value that
        is not a number, a spacing that cannot be in mm, or is not in HU.
    """
    image = _read_series(path) if path.is_dir() else _read_file(path)
    if "float" in image.GetPixelIDTypeAsString() and not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
        bad = int((~np.isfinite(sitk.GetArrayViewFromImage(image))).sum())
        raise InputError(
            f"{path}: {bad} voxels are not a number (NaN or infinite). Export the image again or fill them."
        )
    if ct:
        limits = sitk.MinimumMaximumImageFilter()
        limits.Execute(image)
        if limits.GetMaximum() - limits.GetMinimum() < _LEAST_RANGE_HU:
            raise InputError(
                f"{path}: the CT is not in HU: all its values lie between {limits.GetMinimum():g} and {limits.GetMaximum():g}, where air "
                "and tissue differ by about 1000. The image may be blank or normalised; export it again."
            )
        if limits.GetMinimum() >= 0:
            raise InputError(
                f"{path}: the CT is not in HU: its smallest value is {limits.GetMinimum():g}, where air should be near -1000. "
                "Apply the rescale slope and intercept of the DICOM header (often: subtract 1024)."
            )
    return image


def image_sha256(path: Path) -> str:
    """Return the SHA-256 of an image: of its file, of the files of its folder, or of a header and the voxels it points to.

    Raises
    ------
    InputError
        If there is a header and the voxels that it points to cannot be read.
    """
    if not path.name.lower().endswith(_DETACHED_SUFFIXES):
        return sha256_of(path)
    digest = hashlib.sha256(path.read_bytes())
    try:
        digest.update(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).data)
    except RuntimeError as error:
        raise InputError(
            f"{path}: the voxels that this header points to cannot be read. Put their file beside it, or export the image as one file."
        ) from error
    return digest.hexdigest()


def _read_file(path: Path) -> sitk.Image:
    if not path.exists():
        raise InputError(
            f"{path}: the file does not exist. Check the path; it is relative to the folder of study.yaml."
        )
    if not path.name.lower().endswith(_VOLUME_SUFFIXES):
        raise InputError(
            f"{path}: the format is not known. Use one of {', '.join(_VOLUME_SUFFIXES)}, or a DICOM folder."
        )
    _check_may_be_read(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path}: the file cannot be read as an image; it may be damaged. Export it again.") from error
    _check_shape(path, reader.GetSize(), reader.GetNumberOfComponents())
    _check_whole(path, reader.GetSize())
    _check_spacing(path, reader.GetSpacing())
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"{path}: the header is readable but the voxels are not; the file is cut short or damaged."
        ) from error


def _read_series(folder: Path) -> sitk.Image:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise InputError(
            f"{folder}: the folder holds {len(series)} DICOM series where one is needed. Keep the files of one series in a folder."
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{folder}: the DICOM series cannot be read as one volume; slices may be missing.") from error
    _check_shape(folder, image.GetSize(), image.GetNumberOfComponentsPerPixel())
    return image


def _check_may_be_read(path: Path) -> None:
    """Say what the system says: the image library would speak of damage."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path}: the file cannot be opened ({error.strerror}). Let your account read it.") from error


def _check_whole(path: Path, size: Sequence[int]) -> None:
    """Refuse a NIfTI or gzip file that was cut short: the image library fills what is missing and says nothing."""
    needed = 1.0
    try:
        length = _unpacked_length(path)
        if path.name.lower().endswith(_NIFTI_SUFFIXES):
            needed = max(needed, math.prod(size) * _nifti_field(path, "h", 72, 14) / 8)
    except (OSError, EOFError, zlib.error):
        length = 0
    if length < needed:
        raise InputError(f"{path}: the header is readable but the voxels are not; the file is cut short or damaged.")


def _unpacked(path: Path) -> BinaryIO:
    """Open a file to read what it holds, packed or not: a NIfTI file is read by the image library whatever its name says of that."""
    with path.open("rb") as stream:
        packed = stream.read(len(_GZIP_MARK)) == _GZIP_MARK
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else path.open("rb")


def _unpacked_length(path: Path) -> int:
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size
    length = 0
    with _unpacked(path) as stream:
        while chunk := stream.read(1 << 22):
            length += len(chunk)
    return length


def _nifti_field(path: Path, kind: str, offset: int, offset_in_version_2: int) -> int:
    """Return a number of a NIfTI header, of either version and byte order."""
    with _unpacked(path) as stream:
        header = stream.read(540)
    order = "<" if struct.unpack_from("<i", header)[0] in (348, 540) else ">"
    version_1 = struct.unpack_from(f"{order}i", header)[0] == 348
    return int(struct.unpack_from(order + kind, header, offset if version_1 else offset_in_version_2)[0])


def _nifti_names(path: Path) -> dict[int, str]:
    """Return the names of the labels of a NIfTI file that has a table of them after its header, as TotalSegmentator writes it."""
    with _unpacked(path) as stream:
        start = stream.read(_LARGEST_LABEL_TABLE)
    table, end, _ = start.partition(b"<LabelTable>")[2].partition(b"</LabelTable>")
    labels = _NIFTI_LABEL.findall(table.decode(errors="replace")) if end else []
    return {int(key): " ".join(name.split()) for key, name in labels if name.strip()}


def _check_shape(path: Path, size: Sequence[int], components: int) -> None:
    shape = " x ".join(str(count) for count in size)
    if len(size) < 3 or min(size[:3]) < 2:
        raise InputError(
            f"{path}: the image is two-dimensional ({shape} voxels). A volume with several slices is needed."
        )
    if len(size) > 3 and any(count > 1 for count in size[3:]):
        raise InputError(f"{path}: the image has {len(size)} dimensions ({shape}). Give one volume per time point.")
    if components != 1:
        raise InputError(
            f"{path}: the image has {components} values per voxel. A CT has one; this may be a colour capture."
        )


def _check_spacing(path: Path, spacing: Sequence[float]) -> None:
    if not _header_has_spacing(path):
        raise InputError(
            f"{path}: the header has no voxel spacing, so nothing can be measured in mm. Export the image again."
        )
    if not all(np.isfinite(value) and value > 0 for value in spacing[:3]):
        raise InputError(f"{path}: the voxel spacing {tuple(spacing[:3])} is not positive. Correct the header.")
    if not all(_SPACING_LIMITS_MM[0] <= value <= _SPACING_LIMITS_MM[1] for value in spacing[:3]):
        raise InputError(
            f"{path}: the voxel spacing {tuple(spacing[:3])} cannot be in mm: that of a CT lies between {_SPACING_LIMITS_MM[0]:g} and "
            f"{_SPACING_LIMITS_MM[1]:g} mm. Correct the unit in the header."
        )


def _header_has_spacing(path: Path) -> bool:
    """Say whether the file itself states its spacing; readers put 1 mm where it does not."""
    name = path.name.lower()
    if name.endswith(_NIFTI_SUFFIXES):
        with _unpacked(path) as stream:
            header = stream.read(348)
        big_endian = struct.unpack_from("<i", header, 0)[0] not in (348, 540)
        if struct.unpack_from(">i" if big_endian else "<i", header, 0)[0] != 348:
            return True  # NIfTI-2, whose spacing the reader itself refuses to guess
        return all(value != 0 for value in struct.unpack_from(">3f" if big_endian else "<3f", header, 80))
    with path.open("rb") as stream:
        text = stream.read(1 << 16)
    if name.endswith((".mha", ".mhd")):
        return b"ElementSpacing" in text or b"ElementSize" in text
    lines = [line.split(b":", 1) for line in text.split(b"\n\n", 1)[0].splitlines() if b":" in line]
    fields = {key.strip().lower(): value.strip().lower() for key, value in lines}
    stated = fields.get(b"space directions", fields.get(b"spacings", b""))
    return bool(stated) and b"nan" not in stated


def grid_difference(image: sitk.Image, reference: sitk.Image) -> str | None:
    """Say in words how the grid of an image differs from that of another, or None where they are the same.

    Grids are compared where it matters, at the corners of the volume.
    """
    if image.GetSize() != reference.GetSize():
        return f"its size is {image.GetSize()} voxels and that of the CT is {reference.GetSize()}"
    last = [count - 1 for count in reference.GetSize()]
    spacing = np.asarray(reference.GetSpacing())
    for corner in np.ndindex(2, 2, 2):
        index = [int(edge * end) for edge, end in zip(corner, last, strict=True)]
        here, there = image.TransformIndexToPhysicalPoint(index), reference.TransformIndexToPhysicalPoint(index)
        if np.abs((np.asarray(here) - there) / spacing.min()).max() > GRID_TOLERANCE_VOXELS:
            rounded = (tuple(round(value, 3) for value in point) for point in (here, there))
            return "voxel {} lies at {} mm and in the CT at {} mm".format(tuple(index), *rounded)
    return None


def read_segmentation(path: Path, reference: sitk.Image, *, may_be_empty: bool = False) -> Segmentation:
    """Read a segmentation on the grid of ``reference``.

    A ``.seg.nrrd`` brings its names, colours and overlapping layers; it may be cropped to a part of the grid, as Slicer can
    save it. In a plain label map the segment with value 3 is named `L3`, unless the file brings names, as a NIfTI file of
    TotalSegmentator does.

    Raises
    ------
    InputError
        If the file is missing or unreadable, lies on another grid, holds values that are no labels, or holds no voxel at all
        and ``may_be_empty`` is false.
    """
    if not path.exists():
        raise InputError(
            f"{path}: the file does not exist. Check the path; it is relative to the folder of study.yaml."
        )
    if path.is_dir():
        raise InputError(f"{path}: this is a folder. Give the segmentation as one file, a .seg.nrrd or a label map.")
    _check_may_be_read(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path}: the file cannot be read as a segmentation; it may be damaged. Export it again."
        ) from error
    _check_whole(path, image.GetSize())
    if image.GetDimension() != 3:
        raise InputError(f"{path}: the segmentation has {image.GetDimension()} dimensions; three are needed.")
    metadata = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    layers = [
        sitk.VectorIndexSelectionCast(image, index) if image.GetNumberOfComponentsPerPixel() > 1 else image
        for index in range(image.GetNumberOfComponentsPerPixel())
    ]
    layers = [_on_grid(_as_labels(layer, path), reference, path) for layer in layers]
    present = [set(np.unique(sitk.GetArrayViewFromImage(layer)).tolist()) - {0} for layer in layers]
    if not any(present) and not may_be_empty:
        raise InputError(
            f"{path}: the segmentation is empty: no voxel is marked. Draw the lesions; if none is visible any more, write "
            "`no_visible_lesions: true` beside the time point."
        )
    described = _nifti_names(path) if path.name.lower().endswith(_NIFTI_SUFFIXES) else {}
    segments = _described_segments(metadata, path, len(layers)) or tuple(
        Segment(id=f"L{label}", name=described.get(label, f"L{label}"), layer=index, label=int(label))
        for index, labels in enumerate(present)
        for label in sorted(labels)
    )
    names = [segment.name for segment in segments]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: several segments are named {', '.join(repeated)}. Give each its own name.")
    return Segmentation(tuple(layers), segments)


def _as_labels(layer: sitk.Image, path: Path) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(layer)
    if "float" in layer.GetPixelIDTypeAsString() and not (
        np.isfinite(values).all() and np.equal(np.mod(values, 1), 0).all()
    ):
        raise InputError(f"{path}: the values are not whole labels; it may be a probability map. Threshold it first.")
    highest, lowest = (int(values.max()), int(values.min())) if values.size else (0, 0)
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        raise InputError(f"{path}: the labels run from {lowest} to {highest}; they must lie between 0 and 65535.")
    return sitk.Cast(layer, sitk.sitkUInt8 if highest <= np.iinfo(np.uint8).max else sitk.sitkUInt16)


def _on_grid(layer: sitk.Image, reference: sitk.Image, path: Path) -> sitk.Image:
    difference = grid_difference(layer, reference)
    if difference is None:
        layer.CopyInformation(reference)
        return layer
    pasted = _pasted_crop(layer, reference)
    if pasted is None:
        raise InputError(
            f"{path}: the segmentation is on another grid than its CT: {difference}. Resample it onto the CT with nearest neighbour "
            "(Slicer: Segmentations > Export to labelmap, with the CT as reference volume)."
        )
    return pasted


def _pasted_crop(layer: sitk.Image, reference: sitk.Image) -> sitk.Image | None:
    """Return a layer that is a cropped part of the reference grid pasted onto that grid, None if it is not one."""
    start = np.asarray(reference.TransformPhysicalPointToContinuousIndex(layer.GetOrigin()))
    first = np.rint(start).astype(int)
    size = np.asarray(layer.GetSize())
    if (first < 0).any() or (first + size > reference.GetSize()).any() or (size >= reference.GetSize()).all():
        return None
    box = sitk.RegionOfInterest(reference, size.tolist(), first.tolist())
    if grid_difference(layer, box) is not None:
        return None
    full = sitk.Image(reference.GetSize(), layer.GetPixelID())
    full.CopyInformation(reference)
    return sitk.Paste(full, layer, size.tolist(), [0, 0, 0], first.tolist())


def _described_segments(metadata: Mapping[str, str], path: Path, layers: int) -> tuple[Segment, ...]:
    """Read the segment descriptions that Slicer keeps in the header of a .seg.nrrd.

    Before version 4.11 Slicer wrote neither layer nor label: every segment had a layer of its own, filled with 1.
    """
    segments = []
    index = 0
    while f"Segment{index}_ID" in metadata:
        key = f"Segment{index}_"
        try:
            colour = [float(value) for value in metadata.get(key + "Color", "0.5 0.5 0.5").split()]
            layer = int(metadata.get(key + "Layer", str(index if layers > 1 else 0)))
            label = int(metadata.get(key + "LabelValue", "1" if layers > 1 else str(index + 1)))
            if len(colour) != 3 or not 0 <= layer < layers:
                raise ValueError
        except ValueError as error:
            raise InputError(
                f"{path}: the description of segment {index + 1} in the header cannot be read (its colour, label value or layer). "
                "Open the segmentation in Slicer and save it again."
            ) from error
        tags = dict(tag.split(":", 1) for tag in metadata.get(key + "Tags", "").split("|") if ":" in tag)
        segments.append(
            Segment(
                id=metadata[key + "ID"],
                name=" ".join(metadata.get(key + "Name", "").split()) or metadata[key + "ID"],
                layer=layer,
                label=label,
                colour=(colour[0], colour[1], colour[2]),
                terminology=tags.get("TerminologyEntry") or tags.get("Segmentation.TerminologyEntry"),
            )
        )
        index += 1
    return tuple(segments)


def write_volume(image: sitk.Image, path: Path, *, compress: bool = True) -> None:
    """Write a volume so that the file is either whole or absent. The format follows the suffix."""
    with whole_file(path) as temporary:
        # Level 1: CT noise hardly packs better at higher levels, which cost many times the time.
        sitk.WriteImage(image, str(temporary), useCompression=compress, compressionLevel=1)


def segmentation_from_arrays(
    masks: Iterable[tuple[str, np.ndarray]],
    reference: sitk.Image,
    *,
    colours: Mapping[str, tuple[float, float, float]] | None = None,
    terminologies: Mapping[str, str] | None = None,
) -> Segmentation:
    """Build a segmentation from named bool arrays (z, y, x) on the grid of ``reference``, with as few layers as overlaps allow."""
    boxes = ((name, RegionMask.from_array("", None, "", mask)) for name, mask in masks)
    return segmentation_from_regions(boxes, reference, colours=colours, terminologies=terminologies)


def segmentation_from_regions(
    regions: Iterable[tuple[str, RegionMask]],
    reference: sitk.Image,
    *,
    colours: Mapping[str, tuple[float, float, float]] | None = None,
    terminologies: Mapping[str, str] | None = None,
) -> Segmentation:
    """Build a segmentation from named regions that are cropped to their boxes, with as few layers as overlaps allow."""
    layers: list[np.ndarray] = []
    highest: list[int] = []
    segments = []
    for name, region in regions:
        box = tuple(slice(at, at + size) for at, size in zip(region.offset_zyx, region.voxels.shape, strict=True))
        layer = next(
            (at for at, array in enumerate(layers) if highest[at] < 255 and not array[box][region.voxels].any()),
            len(layers),
        )
        if layer == len(layers):
            layers.append(np.zeros(reference.GetSize()[::-1], dtype=np.uint8))
            highest.append(0)
        highest[layer] += 1
        layers[layer][box][region.voxels] = highest[layer]
        segments.append(
            Segment(
                id=name,
                name=name,
                layer=layer,
                label=highest[layer],
                colour=(colours or {}).get(name, (0.9, 0.6, 0.0)),
                terminology=(terminologies or {}).get(name),
            )
        )
    images = []
    for array in layers or [np.zeros(reference.GetSize()[::-1], dtype=np.uint8)]:
        image = sitk.GetImageFromArray(array)
        image.CopyInformation(reference)
        images.append(image)
    return Segmentation(tuple(images), tuple(segments))


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Write a .seg.nrrd that Slicer opens with names, colours and terminology."""
    layers = segmentation.layers
    image = sitk.Image(layers[0]) if len(layers) == 1 else sitk.Compose(list(layers))
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    size = image.GetSize()
    image.SetMetaData("Segmentation_ContainedRepresentationNames", "Binary labelmap|")
    image.SetMetaData("Segmentation_ConversionParameters", "")
    image.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    image.SetMetaData("Segmentation_SourceRepresentation", "Binary labelmap")
    image.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")
    extent = f"0 {size[0] - 1} 0 {size[1] - 1} 0 {size[2] - 1}"
    for index, segment in enumerate(segmentation.segments):
        key = f"Segment{index}_"
        image.SetMetaData(key + "ID", segment.id)
        image.SetMetaData(key + "Name", segment.name)
        image.SetMetaData(key + "NameAutoGenerated", "0")
        image.SetMetaData(key + "Color", " ".join(f"{value:.6g}" for value in segment.colour))
        image.SetMetaData(key + "ColorAutoGenerated", "0")
        image.SetMetaData(key + "Extent", extent)
        image.SetMetaData(key + "LabelValue", str(segment.label))
        image.SetMetaData(key + "Layer", str(segment.layer))
        tags = f"TerminologyEntry:{segment.terminology}|" if segment.terminology else ""
        image.SetMetaData(key + "Tags", tags)
    write_volume(image, path)
