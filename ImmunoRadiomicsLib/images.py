"""Volumes and segmentations in and out, checked.

A volume is a scalar 3D ``SimpleITK.Image``; ``SimpleITK.GetArrayViewFromImage`` gives its voxels in the order (z, y, x) = (slice, row,
column). Positions are LPS millimetres. A segmentation keeps overlapping segments apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import SimpleITK as sitk


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
    """Read and check a volume (NRRD, NIfTI, MetaImage, or a folder with one DICOM series)."""
    raise NotImplementedError


def read_segmentation(path: Path, reference: sitk.Image) -> Segmentation:
    """Read a segmentation on the grid of ``reference`` (.seg.nrrd, or a label map)."""
    raise NotImplementedError


def write_volume(image: sitk.Image, path: Path, *, compress: bool = True) -> None:
    """Write a volume so that the file is either whole or absent."""
    raise NotImplementedError


def segmentation_from_arrays(
    masks: Iterable[tuple[str, np.ndarray]],
    reference: sitk.Image,
    *,
    colours: dict[str, tuple[float, float, float]] | None = None,
) -> Segmentation:
    """Build a segmentation from named bool arrays (z, y, x) on the grid of ``reference``, with as few layers as overlaps allow."""
    raise NotImplementedError


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Write a .seg.nrrd that Slicer opens with names, colours and terminology."""
    raise NotImplementedError
