"""Every feature equals that of a plain pyradiomics run on the whole image and the whole mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from radiomics_cases import OBLIQUE, assert_equal, ball, ct, plain, preset_of, region

from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics import Preset, extract, load_preset

EVERY_FILTER = {
    "Original": {},
    "LoG": {"sigma": [1.0, 2.5]},
    "Wavelet": {"wavelet": "coif1"},
    "Square": {},
    "SquareRoot": {},
    "Logarithm": {},
    "Exponential": {},
    "Gradient": {},
}


def check(image: sitk.Image, mask: RegionMask, preset: Preset) -> None:
    (features,) = extract({mask.timepoint: image}, [mask], preset)
    assert features.reason is None
    assert features.voxels == mask.count
    assert tuple(features.values) == preset.columns
    assert_equal(features.values, plain(image, mask, preset.to_pyradiomics()))


def shapes(image: sitk.Image) -> dict[str, RegionMask]:
    """A ball, a shell around it, a ball cut by the corner of the image, and two parts with a hole and scattered voxels."""
    core = ball(image, (20, 30, 28), 7)
    parts = ball(image, (12, 20, 20), 5) | ball(image, (28, 42, 40), 6)
    parts[12, 20, 20] = False
    parts |= np.random.default_rng(0).random(parts.shape) < 2e-4
    return {
        "core": region(core),
        "ring": region(ball(image, (20, 30, 28), 12) & ~core),
        "corner": region(ball(image, (1, 12, 2), 9)),
        "parts": region(parts),
    }


@pytest.mark.parametrize("shape", ["core", "ring", "corner", "parts"])
@pytest.mark.parametrize("name", ["ct-lesion", "ct-lesion-fast"])
def test_lesion_presets(name: str, shape: str) -> None:
    image = ct()
    check(image, shapes(image)[shape], load_preset(name))


def test_lung_preset() -> None:
    image = ct()
    both = ball(image, (20, 30, 14), 11) | ball(image, (20, 30, 42), 11)
    check(image, region(both, "lungs", None), load_preset("ct-lung"))


@pytest.mark.parametrize("shape", ["core", "ring", "corner", "parts"])
def test_every_filter_without_resampling(shape: str) -> None:
    image = ct()
    check(image, shapes(image)[shape], preset_of(EVERY_FILTER, binWidth=25))


@pytest.mark.parametrize(
    ("size", "spacing"), [((40, 60, 56), (0.5, 0.5, 3.0)), ((40, 61, 57), (0.9765625, 0.9765625, 0.8))]
)
def test_spacing_and_odd_sizes(size: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    image = ct(size, spacing)
    mask = region(ball(image, (20, 30, 28), 8))
    check(image, mask, preset_of(EVERY_FILTER, binWidth=25))
    check(image, mask, load_preset("ct-lesion-fast"))


def test_oblique_image() -> None:
    image = ct(direction=OBLIQUE)
    check(image, shapes(image)["ring"], load_preset("ct-lesion-fast"))
    check(image, shapes(image)["corner"], preset_of(EVERY_FILTER, binWidth=25))


def test_whole_image_as_region() -> None:
    image = ct((12, 15, 14), (1.5, 1.5, 2.0))
    check(image, region(np.ones((12, 15, 14), bool)), preset_of(EVERY_FILTER, binWidth=25))


@pytest.mark.parametrize("seed", range(6))
def test_scattered_voxels(seed: int) -> None:
    """Sparse masks of small images: empty directions, undefined features, windows that meet every border."""
    rng = np.random.default_rng(seed)
    image = ct(rng.integers(7, 22, 3).tolist(), rng.choice([0.5, 0.75, 1.0, 3.0], 3).tolist(), seed=seed)
    mask = rng.random(image.GetSize()[::-1]) < (0.02, 0.2, 0.8)[seed % 3]
    mask[tuple(slice(0, int(first)) for first in rng.integers(0, 4, 3))] = False
    check(image, region(mask), preset_of(EVERY_FILTER, binWidth=25))


@pytest.mark.parametrize(
    "setting",
    [
        {"normalize": True, "normalizeScale": 100, "removeOutliers": 3, "binWidth": 5},
        {"binCount": 16},
        {"force2D": True, "force2Ddimension": 0, "binWidth": 25},
        {"preCrop": True, "padDistance": 3, "binWidth": 25},
        {"resegmentRange": [-100, 100], "binWidth": 25},
        {"resegmentRange": [-2, 2], "resegmentMode": "sigma", "resegmentShape": True, "binWidth": 25},
        {"resegmentRange": [0.1], "resegmentMode": "relative", "binWidth": 25},
        {"distances": [1, 2], "weightingNorm": "euclidean", "symmetricalGLCM": False, "gldm_a": 1, "binWidth": 25},
        {"resampledPixelSpacing": [2, 2, 0], "interpolator": "sitkLinear", "padDistance": 8, "binWidth": 25},
        {"resampledPixelSpacing": [0.75, 0.75, 1.25], "padDistance": 4, "binWidth": 25},
        {"voxelArrayShift": 1000, "binWidth": 25},
    ],
    ids=",".join,
)
def test_settings(setting: dict[str, Any]) -> None:
    image = ct()
    types = {"Original": {}, "LoG": {"sigma": [2]}, "Wavelet": {"start_level": 1, "level": 2, "wavelet": "db2"}}
    check(image, shapes(image)["ring"], preset_of(types, **setting))


def test_flat_region_in_2d() -> None:
    image = ct()
    disc = ball(image, (20, 30, 28), 7)
    disc[:20] = disc[21:] = False
    classes = {"shape2D": None, "firstorder": ["StandardDeviation", "Mean"], "glcm": None}
    preset = preset_of({"Original": {}}, classes, force2D=True, binWidth=25)
    (features,) = extract({"baseline": image}, [region(disc)], preset)
    assert_equal(features.values, plain(image, region(disc), preset.to_pyradiomics()))
    assert "original_firstorder_StandardDeviation" in features.values
    assert "original_firstorder_Variance" not in features.values


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64])
def test_pixel_types(dtype: type) -> None:
    """Narrow integers overflow in pyradiomics when the bin width is a whole number; as a float they are right."""
    source = ct()
    array = sitk.GetArrayFromImage(source).astype(float)
    scaled = np.interp(array, (-1024, 200), (0, 127 if dtype == np.int8 else 255)).astype(dtype)
    image = sitk.GetImageFromArray(scaled)
    image.CopyInformation(source)
    mask = shapes(image)["ring"]
    check(image, mask, preset_of({"Original": {}, "LoG": {"sigma": [2.0]}}, binWidth=10))
    wide = sitk.Cast(image, sitk.sitkFloat64)
    (narrow,) = extract({"baseline": image}, [mask], preset_of({"Original": {}}, binWidth=10))
    assert_equal(narrow.values, plain(wide, mask, preset_of({"Original": {}}, binWidth=10).to_pyradiomics()))


def test_constant_region() -> None:
    image = ct()
    mask = np.zeros(image.GetSize()[::-1], bool)
    mask[10:16, 1:6, 10:20] = True
    check(image, region(mask), preset_of({"Original": {}}, binWidth=25))


def test_extreme_intensities() -> None:
    image = ct((20, 24, 24))
    array = sitk.GetArrayFromImage(image)
    array[8:12, 10:14, 10:14] = 32767
    array[8, 10, 10] = -32768
    extreme = sitk.GetImageFromArray(array)
    extreme.CopyInformation(image)
    check(extreme, region(ball(image, (10, 12, 12), 5)), preset_of({"Original": {}, "Square": {}}, binWidth=500))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lung1", "lung2", "brain1", "breast1"])
def test_data_of_pyradiomics(pyradiomics_data: Path, case: str) -> None:
    image = sitk.ReadImage(str(pyradiomics_data / f"{case}_image.nrrd"))
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(pyradiomics_data / f"{case}_label.nrrd")))
    types = {"Original": {}, "LoG": {"sigma": [1.0, 3.0, 5.0]}, "Wavelet": {}}
    check(image, region(label == 1), preset_of(types, binWidth=25))
