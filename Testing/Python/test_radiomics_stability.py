"""Contours of other readers, and the intraclass correlation of what is measured in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics.perturbation import VOLUME_SHARE, perturbed
from ImmunoRadiomicsLib.radiomics.reliability import intraclass_correlation

SPACING = (2.5, 0.8, 0.8)
SHAPE = (30, 80, 80)


def ball(radius_mm: float, centre: tuple[float, float, float] = (36.0, 32.0, 32.0)) -> RegionMask:
    grid = np.meshgrid(*(np.arange(size) * step for size, step in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    mask = sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True)) <= radius_mm**2
    return RegionMask.from_array("baseline", "L1", "core", mask)


def test_a_perturbed_contour_is_that_of_another_reader() -> None:
    region = ball(12.0)
    first = region.paste(SHAPE)
    for number in range(8):
        other = perturbed(region, SPACING, SHAPE, 1, number)
        second = other.paste(SHAPE)
        dice = 2 * (first & second).sum() / (first.sum() + second.sum())
        assert 0.85 < dice < 1.0
        assert abs(second.sum() / first.sum() - 1) <= VOLUME_SHARE + 1e-3
        shift = np.subtract(ndimage.center_of_mass(second), ndimage.center_of_mass(first))
        assert np.abs(shift).max() < 1.5
        np.testing.assert_array_equal(second, perturbed(region, SPACING, SHAPE, 1, number).paste(SHAPE))
    contours = {perturbed(region, SPACING, SHAPE, 1, number).voxels.tobytes() for number in range(8)}
    assert len(contours) == 8


def test_small_regions_and_those_at_the_edge_stay_in_the_image() -> None:
    single = np.zeros(SHAPE, dtype=bool)
    single[0, 0, 0] = True
    for number in range(5):
        region = perturbed(RegionMask.from_array("baseline", "L1", "core", single), SPACING, SHAPE, 0, number)
        assert region.count >= 1
        assert region.paste(SHAPE).sum() == region.count
    cut = perturbed(ball(15.0, (0.0, 0.0, 0.0)), SPACING, SHAPE, 0, 1)
    assert cut.paste(SHAPE).sum() == cut.count
    with pytest.raises(ValueError, match="empty"):
        perturbed(RegionMask.from_array("b", None, "core", np.zeros(SHAPE, dtype=bool)), SPACING, SHAPE, 0, 0)


# Shrout and Fleiss 1979, table 2: six subjects, four judges.
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])


def test_the_published_example() -> None:
    found = intraclass_correlation(SHROUT)
    assert found is not None
    assert found.icc == pytest.approx(0.166, abs=5e-4)
    assert (found.lower, found.upper) == (pytest.approx(-0.133, abs=5e-4), pytest.approx(0.723, abs=5e-4))
    assert (found.subjects, found.readings) == (6, 4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(-1e3, 1e3), st.floats(0.01, 100))
def test_the_scale_of_a_feature_does_not_matter(seed: int, offset: float, scale: float) -> None:
    values = np.random.default_rng(seed).normal(size=(12, 3)) + np.arange(12)[:, None]
    plain, moved = intraclass_correlation(values), intraclass_correlation(offset + scale * values)
    assert plain is not None
    assert moved is not None
    assert moved.icc == pytest.approx(plain.icc, abs=1e-6)
    assert plain.lower < plain.icc < plain.upper


def test_what_cannot_be_estimated_is_none() -> None:
    assert intraclass_correlation(np.ones((5, 3))) is None
    assert intraclass_correlation(np.array([[1.0, 2.0], [2.0, 3.0]])) is None
    assert intraclass_correlation(np.array([[1.0], [2.0], [3.0]])) is None
    with_gap = np.vstack([SHROUT, [[np.nan, 1, 2, 3]]])
    assert intraclass_correlation(with_gap) == intraclass_correlation(SHROUT)
    same = intraclass_correlation(np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]))
    assert same is not None
    assert same.icc == 1.0


def test_the_interval_covers_the_truth() -> None:
    """Readings with a known share of the variance between subjects: the 95 % interval holds it in about 95 % of draws."""
    random = np.random.default_rng(0)
    truth, hits = 0.8, 0
    for _ in range(400):
        subjects = random.normal(size=(20, 1)) * np.sqrt(truth)
        found = intraclass_correlation(subjects + random.normal(size=(20, 4)) * np.sqrt(1 - truth))
        assert found is not None
        hits += found.lower <= truth <= found.upper
    assert 0.92 <= hits / 400 <= 0.98
