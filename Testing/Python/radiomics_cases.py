"""Images and regions with known properties, and plain pyradiomics runs to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from scipy import ndimage

from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics import Preset
from ImmunoRadiomicsLib.radiomics.presets import parse_preset

ORIGIN = (-100.3, -57.1, 33.3)
OBLIQUE = (0.96, 0.28, 0.0, -0.28, 0.96, 0.0, 0.0, 0.0, 1.0)

ALL_CLASSES = dict.fromkeys(("shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm"))


def preset_of(image_types: dict[str, Any], classes: dict[str, Any] | None = None, **setting: Any) -> Preset:
    """A preset of exactly these image types, classes and settings."""
    content = {"imageType": image_types, "featureClass": classes or ALL_CLASSES, "setting": setting}
    return parse_preset(yaml.safe_dump(content), Path("test.yaml"))


def ct(
    shape_zyx: Sequence[int] = (40, 60, 56),
    spacing: Sequence[float] = (0.75, 0.75, 1.25),
    direction: Sequence[float] | None = None,
    seed: int = 0,
) -> sitk.Image:
    """A soft-tissue cylinder in air, with correlated noise, and constant air beside it as outside a field of view."""
    rng = np.random.default_rng(seed)
    _, y, x = np.indices(shape_zyx)
    inside = (x / shape_zyx[2] - 0.5) ** 2 + (y / shape_zyx[1] - 0.5) ** 2 < 0.2
    texture = ndimage.gaussian_filter(rng.normal(0, 1, shape_zyx), 1.5)
    array = np.where(inside, 40.0, -850.0) + 60 * texture / texture.std() + rng.normal(0, 15, shape_zyx)
    array[:, : shape_zyx[1] // 6] = -1024
    image = sitk.GetImageFromArray(np.clip(array, -1024, 3071).astype(np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin(ORIGIN)
    if direction is not None:
        image.SetDirection(direction)
    return image


def ball(image: sitk.Image, centre_zyx: Sequence[float], radius_mm: float) -> np.ndarray:
    """A ball as a bool array on the grid of an image."""
    grid = np.indices(image.GetSize()[::-1])
    squares = [
        ((axis - centre) * spacing) ** 2
        for axis, centre, spacing in zip(grid, centre_zyx, image.GetSpacing()[::-1], strict=True)
    ]
    return sum(squares) <= radius_mm**2


def region(mask: np.ndarray, name: str = "core", lesion: str | None = "L1", timepoint: str = "baseline") -> RegionMask:
    return RegionMask.from_array(timepoint, lesion, name, mask)


def plain(image: sitk.Image, mask: RegionMask, parameters: dict[str, Any]) -> dict[str, float]:
    """The features of a plain pyradiomics run on the whole image and the whole mask."""
    from radiomics import setVerbosity
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    setVerbosity(60)
    found = RadiomicsFeatureExtractor(parameters).execute(image, mask.image(image))
    return {name: float(np.real(value)) for name, value in found.items() if not name.startswith("diagnostics_")}


def assert_equal(found: dict[str, float | None], expected: dict[str, float], tolerance: float = 1e-9) -> None:
    """Every feature of a plain run is there and equal; one that is not a finite number there is None here."""
    assert set(expected) <= set(found)
    wrong = []
    for name, value in expected.items():
        ours = found[name]
        if not math.isfinite(value):
            if ours is not None:
                wrong.append((name, ours, value))
        elif ours is None or abs(ours - value) > tolerance * abs(value):
            wrong.append((name, ours, value))
    assert not wrong, f"{len(wrong)} of {len(expected)} features differ, first {wrong[:3]}"
    assert all(found[name] is None for name in set(found) - set(expected))
