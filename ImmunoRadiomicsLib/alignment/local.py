"""How well an alignment holds around one place, kept as a few small volumes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..analysis import LocalFit, Point
from ..images import write_volume
from .deform import NOISE_HU
from .engine import Alignment

_LEAST_STRUCTURE = 1.0
# How far the follow-up is moved around a place to see whether it fits better there, and in what steps.
_FARTHEST_MM = 12.0
_STEP_MM = 2.5
# A better fit counts from this distance, by a gain in correlation that is worth something and that the noise of so many voxels does not make.
# On virtual patients, at lesions that were moved by 8 mm, this finds 97 % where a local correlation below 0.5 finds 81 %, and
# finds none where they lie well.
_LEAST_SHIFT_MM = 4.0
_LEAST_GAIN = 0.05
_GAIN_IN_NOISE = 5.0
_FEWEST_VOXELS = 30


@dataclass(frozen=True, eq=False)
class LocalMap:
    """Local correlation of the aligned scans on a grid along the patient axes, how much structure there is to judge by, and the scans.

    ``structure`` is that beyond the noise, 0 where the scans cannot be compared; there ``baseline`` is not a number. Both scans
    are in HU.
    """

    correlation: sitk.Image
    structure: sitk.Image
    baseline: sitk.Image
    followup: sitk.Image

    @classmethod
    def of(cls, alignment: Alignment) -> LocalMap:
        """Take the map out of an alignment."""
        measured = alignment.measured
        correlation = np.nan_to_num(measured.correlation).astype(np.float32)
        baseline = np.where(measured.comparable, measured.baseline, np.nan).astype(np.float32)
        arrays = (correlation, measured.telling, baseline, measured.followup.astype(np.float32))
        return cls(*(measured.grid.image(item) for item in arrays))

    def write(self, folder: Path) -> None:
        """Write the map, a volume for each of its fields."""
        for field in fields(self):
            write_volume(getattr(self, field.name), folder / f"local_{field.name}.nrrd")

    @classmethod
    def read(cls, folder: Path) -> LocalMap:
        """Read what ``write`` wrote."""
        return cls(*(sitk.ReadImage(str(folder / f"local_{field.name}.nrrd")) for field in fields(cls)))

    def at(self, place: Point, radius_mm: float) -> LocalFit:
        """Say how well the scans lie on each other within a distance (mm) of a place of the baseline (LPS mm)."""
        index = np.asarray(self.correlation.TransformPhysicalPointToContinuousIndex(place))[::-1]
        spacing = np.asarray(self.correlation.GetSpacing())[::-1]
        shape = np.asarray(self.correlation.GetSize())[::-1]
        low = np.clip(np.floor(index - radius_mm / spacing), 0, shape).astype(int)
        high = np.clip(np.ceil(index + radius_mm / spacing) + 1, 0, shape).astype(int)
        box = tuple(slice(start, end) for start, end in zip(low, high, strict=True))
        axes = [(np.arange(low[axis], high[axis]) - index[axis]) * spacing[axis] for axis in range(3)]
        squared = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
        near = squared <= radius_mm**2
        weights = np.where(near, sitk.GetArrayViewFromImage(self.structure)[box], 0.0)
        if weights.sum() < _LEAST_STRUCTURE:
            return LocalFit(None, None)
        values = sitk.GetArrayViewFromImage(self.correlation)[box]
        correlation = float(np.clip((values * weights).sum() / weights.sum(), 0.0, 1.0))
        near &= np.isfinite(sitk.GetArrayViewFromImage(self.baseline)[box])
        return LocalFit(correlation, self._better_by_mm(np.argwhere(near) + low, spacing))

    def _better_by_mm(self, voxels: np.ndarray, spacing: np.ndarray) -> float:
        """Return how far the follow-up has to be moved to fit clearly better in some voxels (n, zyx); 0 where it fits best as it lies."""
        if len(voxels) < _FEWEST_VOXELS:
            return 0.0
        followup = sitk.GetArrayViewFromImage(self.followup)
        still = sitk.GetArrayViewFromImage(self.baseline)[tuple(voxels.T)].astype(np.float64)
        stride = np.maximum(1, np.round(_STEP_MM / spacing)).astype(int)
        reach = np.floor(_FARTHEST_MM / (stride * spacing)).astype(int)
        shifts = (np.indices(2 * reach + 1).reshape(3, -1).T - reach) * stride
        lengths = np.linalg.norm(shifts * spacing, axis=1)
        kept = (voxels.min(axis=0) + shifts >= 0) & (voxels.max(axis=0) + shifts < followup.shape)
        kept &= (lengths <= _FARTHEST_MM)[:, None]
        as_it_lies = _correlation(still, followup[tuple(voxels.T)])
        best, distance = as_it_lies, 0.0
        for shift, length in zip(shifts[kept.all(axis=1)], lengths[kept.all(axis=1)], strict=True):
            correlation = _correlation(still, followup[tuple((voxels + shift).T)])
            if correlation > best:
                best, distance = correlation, float(length)
        # On the scale of Fisher's z the noise of a correlation depends on the number of voxels alone.
        gain_in_noise = (np.arctanh(best) - np.arctanh(as_it_lies)) * np.sqrt(len(voxels))
        clear = best - as_it_lies >= _LEAST_GAIN and gain_in_noise >= _GAIN_IN_NOISE
        return distance if clear and distance >= _LEAST_SHIFT_MM else 0.0


def _correlation(first: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two lists of values in HU; what could be noise keeps it from 1."""
    a, b = first - first.mean(), other - other.mean(dtype=np.float64)
    noise = NOISE_HU**2
    return float((a * b).mean() / np.sqrt(((a * a).mean() + noise) * ((b * b).mean() + noise)))
