"""How well an alignment holds around one place, kept as two small volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..analysis import Point
from ..images import write_volume
from .engine import Alignment

_LEAST_STRUCTURE = 1.0


@dataclass(frozen=True, eq=False)
class LocalMap:
    """Local correlation of the aligned scans on a grid along the patient axes, and how much structure there is to judge by.

    Both are arrays (z, y, x); ``structure`` is that beyond the noise, 0 where the scans cannot be compared.
    """

    correlation: sitk.Image
    structure: sitk.Image

    @classmethod
    def of(cls, alignment: Alignment) -> LocalMap:
        """Take the map out of an alignment."""
        measured = alignment.measured
        correlation = np.nan_to_num(measured.correlation).astype(np.float32)
        return cls(measured.grid.image(correlation), measured.grid.image(measured.telling))

    def write(self, folder: Path) -> None:
        """Write the map as two volumes."""
        write_volume(self.correlation, folder / "local_correlation.nrrd")
        write_volume(self.structure, folder / "local_structure.nrrd")

    @classmethod
    def read(cls, folder: Path) -> LocalMap:
        """Read what ``write`` wrote."""
        names = ("local_correlation.nrrd", "local_structure.nrrd")
        correlation, structure = (sitk.ReadImage(str(folder / name)) for name in names)
        return cls(correlation, structure)

    def at(self, place: Point, radius_mm: float) -> float | None:
        """Return the correlation (0 to 1) within a distance of a place of the baseline (LPS mm).

        None where the two scans share no structure there to judge by.
        """
        index = np.asarray(self.correlation.TransformPhysicalPointToContinuousIndex(place))[::-1]
        spacing = np.asarray(self.correlation.GetSpacing())[::-1]
        shape = np.asarray(self.correlation.GetSize())[::-1]
        low = np.clip(np.floor(index - radius_mm / spacing), 0, shape).astype(int)
        high = np.clip(np.ceil(index + radius_mm / spacing) + 1, 0, shape).astype(int)
        box = tuple(slice(start, end) for start, end in zip(low, high, strict=True))
        axes = [(np.arange(low[axis], high[axis]) - index[axis]) * spacing[axis] for axis in range(3)]
        squared = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
        weights = np.where(squared <= radius_mm**2, sitk.GetArrayViewFromImage(self.structure)[box], 0.0)
        if weights.sum() < _LEAST_STRUCTURE:
            return None
        values = sitk.GetArrayViewFromImage(self.correlation)[box]
        return float(np.clip((values * weights).sum() / weights.sum(), 0.0, 1.0))
