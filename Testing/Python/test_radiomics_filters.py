"""Filters and surfaces computed on a part equal those computed on the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from radiomics import cShape, imageoperations
from radiomics_cases import ball, ct, region

from ImmunoRadiomicsLib.radiomics.filters import derive
from ImmunoRadiomicsLib.radiomics.laplacian import laplacian_of_gaussian, recursion, same_as_itk
from ImmunoRadiomicsLib.radiomics.preparation import Source
from ImmunoRadiomicsLib.radiomics.surface import surface_of

SPACINGS = st.sampled_from([0.5, 0.75, 0.9765625, 1.0, 1.25, 3.27, 10.0])


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random(shape) < draw(st.floats(0.05, 1.0))
    mask[tuple(rng.integers(0, size) for size in shape)] = True
    return mask


def assert_surface(mask: np.ndarray, spacing: tuple[float, ...]) -> None:
    area, volume, diameters = cShape.calculate_coefficients(np.pad(mask, 1), np.array(spacing))
    found = surface_of(mask, spacing)
    assert found.area == pytest.approx(area, rel=1e-11)
    assert found.volume == pytest.approx(volume, rel=1e-11)
    assert found.diameters == pytest.approx(diameters, rel=1e-12)


@settings(max_examples=150, deadline=None)
@given(masks(), st.tuples(SPACINGS, SPACINGS, SPACINGS))
def test_surface_of_any_region(mask: np.ndarray, spacing: tuple[float, float, float]) -> None:
    assert_surface(mask, spacing)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 15)] * 3),
    st.sampled_from(["coif1", "coif3", "haar", "db2", "sym4"]),
    st.integers(1, 2),
    st.integers(0, 1),
    st.sampled_from([np.uint8, np.int16, np.float32, np.float64]),
    st.sampled_from([None, 0, 1, 2]),
    st.integers(0, 2**32 - 1),
)
def test_wavelets_of_any_box_are_those_of_the_whole_image(
    shape: tuple[int, int, int], name: str, level: int, start: int, dtype: type, plane: int | None, seed: int
) -> None:
    """To the last bit, also where the image continues on its far side and where it is shorter than the filter."""
    rng = np.random.default_rng(seed)
    array = (rng.normal(0, 50, shape) + 100).astype(dtype)
    own = {
        "wavelet": name,
        "level": level,
        "start_level": start,
        "force2D": plane is not None,
        "force2Ddimension": plane,
    }
    box = tuple(slice(*sorted(rng.choice(size + 1, 2, replace=False).tolist())) for size in shape)
    image = sitk.GetImageFromArray(array)
    whole = {
        label: sitk.GetArrayFromImage(derived)
        for derived, label, _ in imageoperations.getWaveletImage(image, None, **own)
    }
    found = list(derive("Wavelet", own, image, box))
    assert [item.name for item in found] == list(whole)
    for item in found:
        assert item.values.dtype == whole[item.name].dtype
        np.testing.assert_array_equal(item.values, whole[item.name][box])


def test_surface_of_large_regions() -> None:
    image = ct((50, 70, 66), (1.0, 1.0, 1.0))
    core = ball(image, (25, 35, 33), 20)
    assert_surface(core, (1.0, 1.0, 1.0))
    assert_surface(core & ~ball(image, (25, 34, 33), 15), (1.25, 0.75, 0.75))
    assert_surface(ball(image, (25, 20, 20), 9) | ball(image, (25, 50, 50), 9), (3.0, 0.75, 0.75))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.6, 6.0), st.tuples(SPACINGS, SPACINGS, SPACINGS), st.integers(0, 1000), st.booleans())
def test_laplacian_of_gaussian_is_that_of_itk(
    sigma: float, spacing: tuple[float, float, float], seed: int, integer: bool
) -> None:
    if not same_as_itk(sigma, spacing):
        pytest.skip("this build of ITK rounds otherwise; it is used itself then")
    rng = np.random.default_rng(seed)
    shape = rng.integers(4, 24, 3)
    array = rng.normal(0, 400, shape)
    array = array.astype(np.int16) if integer else array
    box = tuple(slice(*sorted(rng.choice(size + 1, 2, replace=False).tolist())) for size in shape)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    reference = sitk.GetArrayFromImage(sitk.LaplacianRecursiveGaussian(image, sigma, True))
    np.testing.assert_array_equal(laplacian_of_gaussian(array, spacing, sigma, box), reference[box])


def test_recursion_smooths_to_unit_sum_and_differentiates() -> None:
    """A constant is kept, a parabola has its second derivative, times the variance."""
    sigma = 3.0
    for second, expected in ((False, 1.0), (True, 0.0)):
        coefficients = recursion(sigma, 1.0, second_derivative=second)
        total = (sum(coefficients.n) + sum(coefficients.m)) / (1 + sum(coefficients.d))
        assert total == pytest.approx(expected, abs=1e-9)
    z = np.arange(-60.0, 61.0)
    parabola = np.broadcast_to((z**2)[:, None, None], (121, 5, 5))
    found = laplacian_of_gaussian(parabola, (1.0, 1.0, 1.0), sigma, (slice(60, 61), slice(2, 3), slice(2, 3)))
    assert found.item() == pytest.approx(2 * sigma**2, rel=1e-3)


@pytest.mark.parametrize("centre", [(20, 30, 28), (1, 12, 2), (38, 58, 54)])
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("LoG", {"sigma": [0.8]}),
        ("Wavelet", {"wavelet": "coif1"}),
        ("Wavelet", {"wavelet": "db3", "start_level": 1, "level": 2}),
        ("Square", {}),
        ("Logarithm", {}),
        ("Exponential", {}),
        ("Gradient", {}),
    ],
)
@pytest.mark.parametrize("size", [(40, 60, 56), (41, 61, 57)])
def test_filters_on_a_window(
    centre: tuple[int, int, int], name: str, own: dict[str, Any], size: tuple[int, int, int]
) -> None:
    image = ct(size)
    mask = region(ball(image, centre, 5))
    whole = {
        label: sitk.GetArrayFromImage(derived)
        for derived, label, _ in getattr(imageoperations, f"get{name}Image")(image, None, **own)
    }
    box = tuple(slice(a, a + n) for a, n in zip(mask.offset_zyx, mask.voxels.shape, strict=True))
    found = list(derive(name, own, image, box))
    assert {item.name for item in found} == set(whole)
    for item in found:
        np.testing.assert_array_equal(item.values, whole[item.name][box])


def test_a_constant_region_shows_the_same_traces_of_what_is_far_away() -> None:
    array = np.full((14, 40, 40), 1000, np.int16)
    array[:, 16:] = np.random.default_rng(3).normal(0, 300, (14, 24, 40))
    image = sitk.GetImageFromArray(array)
    box = (slice(4, 9), slice(8, 10), slice(12, 20))
    (found,) = derive("LoG", {"sigma": [0.5]}, image, box)
    whole = sitk.GetArrayFromImage(sitk.LaplacianRecursiveGaussian(image, 0.5, True))
    assert 0 < np.abs(found.values).max() < 1e-4
    assert np.array_equal(found.values, whole[box])


def test_laplacian_wider_than_the_image_is_left_out() -> None:
    image = ct((5, 30, 30))
    box = (slice(1, 3), slice(10, 20), slice(10, 20))
    assert [item.name for item in derive("LoG", {"sigma": [1.0, 20.0]}, image, box)] == ["log-sigma-1-0-mm-3D"]
    assert list(derive("LoG", {"sigma": [1.0]}, ct((3, 30, 30)), box)) == []


@pytest.mark.parametrize("spacing", [(0.75, 0.75, 1.25), (1.0, 1.0, 3.0), (0.5, 0.5, 0.5)])
def test_resampling_is_that_of_pyradiomics(spacing: tuple[float, float, float]) -> None:
    """Also where values are whole numbers, on voxels of the grid and in constant air: there rounding decides by 1 HU."""
    image = ct(spacing=spacing)
    mask = region(ball(image, (20, 14, 28), 5))
    own = {"resampledPixelSpacing": [1.0, 1.0, 1.0], "interpolator": "sitkBSpline", "padDistance": 20}
    found = Source(image, own).prepare(mask)
    wanted, wanted_mask = imageoperations.resampleImage(image, sitk.Cast(mask.image(image), sitk.sitkUInt32), **own)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.image), sitk.GetArrayFromImage(wanted))
    full = region(sitk.GetArrayFromImage(wanted_mask) == 1)
    assert found.offset_zyx == full.offset_zyx
    np.testing.assert_array_equal(found.mask, full.voxels)
