"""Boxes that are interpolated together, and masks picked voxel by voxel, are those of ITK to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from radiomics_cases import OBLIQUE, ball, region

from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics import load_preset, preparation
from ImmunoRadiomicsLib.radiomics.preparation import Prepared, Source

FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
TURNED = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def volume(
    spacing: tuple[float, float, float], direction: tuple[float, ...] = (), dtype: type = np.int16
) -> sitk.Image:
    """Tissue in air that is cut off at -1000, where the last bits decide between -1000 and -999."""
    rng = np.random.default_rng(3)
    array = np.full((20, 34, 36), -1000.0)
    array[:, 6:28, 4:30] = rng.normal(0, 400, (20, 22, 26))
    image = sitk.GetImageFromArray(np.clip(array, -1000, 3000).astype(dtype))
    image.SetSpacing(spacing)
    image.SetOrigin((-191.37, 12.7, -300.1))
    if direction:
        image.SetDirection(direction)
    return image


def lesion(image: sitk.Image) -> list[RegionMask]:
    core = ball(image, (10, 16, 16), 3 * min(image.GetSpacing()))
    ring = ball(image, (10, 16, 16), 6 * min(image.GetSpacing())) & ~core
    return [region(core, "core"), region(ring, "ring-0-5mm"), region(ball(image, (1, 32, 34), 4), "corner")]


def prepared(image: sitk.Image, regions: list[RegionMask], **settings: Any) -> list[Prepared]:
    setting = {**load_preset("ct-lesion").to_pyradiomics()["setting"], "padDistance": 6, **settings}
    source = Source(image, setting)
    source.expect(regions)
    return [source.prepare(item) for item in regions]


def by_itk(monkeypatch: pytest.MonkeyPatch, work: Callable[[], list[Prepared]]) -> list[Prepared]:
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "lattice_of", lambda resampler, image: None)
        return work()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32, np.float32])
@pytest.mark.parametrize(
    ("spacing", "direction"),
    [
        ((2.0, 2.0, 2.5), ()),
        ((0.7421875, 0.7421875, 1.25), FLIPPED),
        ((0.9, 0.8, 3.0), TURNED),
        ((0.75, 0.75, 0.75), ()),
        ((0.9, 0.8, 1.3), OBLIQUE),
    ],
)
def test_boxes_and_masks_are_those_of_itk(
    monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, float, float], direction: tuple[float, ...], dtype: type
) -> None:
    image = volume(spacing, direction, dtype)
    regions = lesion(image)
    expected = by_itk(monkeypatch, lambda: prepared(image, regions))
    for mine, itk in zip(prepared(image, regions), expected, strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(mine.image), sitk.GetArrayFromImage(itk.image))
        assert np.array_equal(mine.mask, itk.mask)
        assert mine.offset_zyx == itk.offset_zyx
        for name in ("Spacing", "Origin", "Direction"):
            assert getattr(mine.image, f"Get{name}")() == getattr(itk.image, f"Get{name}")()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_doubtful_voxels_are_computed_as_itk_would(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Where nearly all voxels lie next to a whole number, whether ITK is asked or its arithmetic repeated."""
    monkeypatch.setattr("ImmunoRadiomicsLib.radiomics.resampling.MAXIMUM_DOUBT", share)
    image = volume((0.7421875, 0.7421875, 1.25))
    regions = lesion(image)
    results = prepared(image, regions)
    expected = by_itk(monkeypatch, lambda: prepared(image, regions))
    values = [sitk.GetArrayFromImage(item.image) for item in results]
    assert all(np.array_equal(a, sitk.GetArrayFromImage(b.image)) for a, b in zip(values, expected, strict=True))
    # The case is one: cut-off air that comes out as both.
    assert {-1000, -999} <= set(np.unique(np.concatenate([item.ravel() for item in values])))


def test_a_region_in_one_slice_keeps_its_own_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    image = volume((2.0, 2.0, 2.5))
    flat = np.zeros(image.GetSize()[::-1], dtype=bool)
    flat[10, 12:20, 12:20] = True
    regions = [*lesion(image), region(flat, "core")]
    expected = by_itk(monkeypatch, lambda: prepared(image, regions))
    found = prepared(image, regions)
    assert found[3].image.GetSpacing() == (1.0, 1.0, 2.5)
    for mine, itk in zip(found, expected, strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(mine.image), sitk.GetArrayFromImage(itk.image))


@pytest.mark.parametrize("spacing", [0.5, 0.75, 1.5])
def test_ties_between_two_voxels_go_the_way_of_itk(monkeypatch: pytest.MonkeyPatch, spacing: float) -> None:
    image = volume((spacing, spacing, spacing))
    scattered = region(np.random.default_rng(0).random(image.GetSize()[::-1]) < 0.4)
    (expected,) = by_itk(monkeypatch, lambda: prepared(image, [scattered], interpolator="sitkLinear"))
    (found,) = prepared(image, [scattered], interpolator="sitkLinear")
    assert np.array_equal(found.mask, expected.mask)
