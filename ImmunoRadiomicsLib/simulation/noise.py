"""CT noise as a filtered back-projection leaves it: grainy in the slice, weakly tied from slice to slice."""

from __future__ import annotations

import numpy as np
from scipy import fft


class NoiseSource:
    """Slices of unit-variance noise, one after the other.

    The power spectrum is that of a ramp with a roll-off, (f + c) exp(-(f / f0)²): a peak near f0 / sqrt(2) and little power at
    the lowest frequencies, but not none, because sampling folds some down there (doi 10.1088/0031-9155/32/5/003).
    """

    def __init__(self, rng: np.random.Generator, shape_yx: tuple[int, int], spacing_yx: tuple[float, float]):
        self._rng = rng
        self._shape = shape_yx
        rows = fft.fftfreq(shape_yx[0], spacing_yx[0])[:, None]
        columns = fft.rfftfreq(shape_yx[1], spacing_yx[1])[None, :]
        frequency = np.hypot(rows, columns)
        power = (frequency + 0.02) * np.exp(-((frequency / 0.34) ** 2))
        full = np.concatenate([power, power[:, 1 : (shape_yx[1] + 1) // 2]], axis=1)
        size = shape_yx[0] * shape_yx[1]
        # A white field of unit variance has a spectrum of mean square ``size``; the sum of the gains is the variance.
        self._gain = np.sqrt(power * (size / full.sum())).astype(np.float32)
        self._previous = self._plane()

    def _plane(self) -> np.ndarray:
        white = self._rng.standard_normal(self._shape, dtype=np.float32)
        return fft.irfft2(fft.rfft2(white) * self._gain, s=self._shape)

    def next_slice(self) -> np.ndarray:
        """Return the next slice (y, x), float32; neighbouring slices correlate by 0.4."""
        fresh = self._plane()
        # a² + b² = 1 and ab = 0.4.
        result = np.float32(0.8944272) * fresh + np.float32(0.4472136) * self._previous
        self._previous = fresh
        return result


def noise_map(body: np.ndarray, spacing_yx: tuple[float, float]) -> np.ndarray:
    """Return how noise is spread over one slice whose body mask is given (y, x), relative to a 300 mm wide chest.

    The photons that are left fall with the path through the body, so that thick slices and their middle are noisier.
    """
    area = float(body.sum()) * spacing_yx[0] * spacing_yx[1]
    if area == 0.0:
        return np.full(body.shape, 0.5, dtype=np.float32)
    diameter = 2.0 * np.sqrt(area / np.pi)
    rows, columns = np.nonzero(body.any(axis=1))[0], np.nonzero(body.any(axis=0))[0]
    y = (np.arange(body.shape[0]) - 0.5 * (rows[0] + rows[-1])) * spacing_yx[0]
    x = (np.arange(body.shape[1]) - 0.5 * (columns[0] + columns[-1])) * spacing_yx[1]
    off_centre = np.minimum((y[:, None] ** 2 + x[None, :] ** 2) / (0.5 * diameter) ** 2, 1.6)
    # Half the attenuation of water over the additional path, as tube current modulation leaves it.
    level = np.exp(0.25 * 0.019 * (diameter - 280.0))
    return (level * (1.12 - 0.38 * off_centre)).astype(np.float32)
