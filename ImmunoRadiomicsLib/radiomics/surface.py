"""Area, volume and diameters of the surface of a region, as pyradiomics defines them, in near-linear time.

The surface is the marching cubes mesh whose vertices lie halfway between voxels inside and outside. pyradiomics compares
all pairs of vertices for the diameters, which takes minutes for a lung. The largest distance is that of two corners of
the convex hull, so only those are compared; area and volume are sums over the 256 possible cubes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Surface:
    """Measures of a mesh: mm², mm³, and the largest distances (mm) in planes across z, y and x and in space."""

    area: float
    volume: float
    diameters: tuple[float, float, float, float]


def surface_of(mask: np.ndarray, spacing_zyx: tuple[float, ...]) -> Surface:
    """Measure the surface of a bool array (z, y, x)."""
    from radiomics import cShape

    area, volume, diameters = cShape.calculate_coefficients(np.pad(mask, 1), np.array(spacing_zyx))
    return Surface(area, volume, diameters)
