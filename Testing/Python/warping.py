"""A known change of a real image: a smooth displacement, and growth around one point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage


@dataclass(frozen=True, eq=False)
class KnownChange:
    """Maps positions of the follow-up to the baseline (LPS mm): a smooth field, and a swelling around ``centre``.

    A sphere of ``radius_mm`` around the centre is ``growth`` times as large (by diameter) at the follow-up; the swelling fades outside it.
    """

    coefficients: np.ndarray
    origin: np.ndarray
    extent: np.ndarray
    centre: np.ndarray
    radius_mm: float
    growth: float

    @classmethod
    def over(
        cls, image: sitk.Image, centre: np.ndarray, radius_mm: float, *, amplitude_mm: float, growth: float, seed: int
    ) -> KnownChange:
        rng = np.random.default_rng(seed)
        corners = np.array(
            [
                image.TransformIndexToPhysicalPoint(
                    [int(c * (n - 1)) for c, n in zip(corner, image.GetSize(), strict=True)]
                )
                for corner in np.ndindex(2, 2, 2)
            ]
        )
        origin, extent = corners.min(axis=0), np.ptp(corners, axis=0)
        coefficients = rng.normal(0, 1, (3, 3, 3, 3))
        change = cls(coefficients, origin, extent, np.asarray(centre), radius_mm, growth)
        points = origin + rng.uniform(0, 1, (4000, 3)) * extent
        largest = np.linalg.norm(change.smooth(points), axis=1).max()
        return cls(coefficients * amplitude_mm / largest, origin, extent, np.asarray(centre), radius_mm, growth)

    def smooth(self, points: np.ndarray) -> np.ndarray:
        """A few low-frequency cosines over the image: at least a whole image wide per half wave."""
        unit = (points - self.origin) / self.extent
        waves = [np.cos(np.pi * np.outer(unit[:, axis], np.arange(3)) * 0.75) for axis in range(3)]
        return np.einsum("pi,pj,pk,dijk->pd", *waves, self.coefficients)

    def to_baseline(self, points: np.ndarray) -> np.ndarray:
        """Baseline position of each follow-up position."""
        moved = points + self.smooth(points)
        offset = moved - self.centre
        distance = np.linalg.norm(offset, axis=1, keepdims=True) / (self.radius_mm * self.growth)
        # Inside the grown sphere everything is scaled alike; outside the scaling fades smoothly within two more radii.
        fading = np.clip(1 - (distance - 1) / 2, 0, 1)
        weight = np.where(distance <= 1, 1.0, fading**2 * (3 - 2 * fading))
        return self.centre + offset * (1 - weight * (1 - 1 / self.growth))

    def to_followup(self, points: np.ndarray) -> np.ndarray:
        """Follow-up position of each baseline position, by fixed-point iteration to 1e-3 mm."""
        result = points.copy()
        for _ in range(300):
            step = points - self.to_baseline(result)
            result += 0.5 * step
            if np.abs(step).max() < 1e-3:
                return result
        raise AssertionError("the known change does not invert")

    def followup(self, image: sitk.Image, order: int) -> np.ndarray:
        """The values of the follow-up on the baseline's grid (z, y, x)."""
        size = image.GetSize()
        matrix = np.asarray(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        values = sitk.GetArrayFromImage(image).astype(np.float32)
        result = np.empty_like(values)
        for z in range(size[2]):
            x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
            indices = np.stack([x.ravel(), y.ravel(), np.full(x.size, z)])
            points = (matrix @ indices).T + image.GetOrigin()
            back = np.linalg.solve(matrix, (self.to_baseline(points) - image.GetOrigin()).T)
            sampled = ndimage.map_coordinates(values, back[::-1], order=order, mode="nearest")
            result[z] = sampled.reshape(size[1], size[0])
        return result


def like(values: np.ndarray, reference: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(reference)
    return image
