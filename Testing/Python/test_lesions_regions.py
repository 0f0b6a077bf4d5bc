"""Regions are exact in millimetres, stay in their organ, and keep off other lesions."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ImmunoRadiomicsLib.images import Anatomy
from ImmunoRadiomicsLib.lesions.geometry import crop_of
from ImmunoRadiomicsLib.lesions.regions import (
    lesion_regions,
    lung_region,
    propose_organ,
    region_problem,
    ring_name,
)


def image(array: np.ndarray, spacing_zyx) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.SetSpacing([float(step) for step in spacing_zyx[::-1]])
    return result


def regions_of(masks, labels, values, spacing, **options):
    found = lesion_regions(
        "baseline",
        {name: crop_of(mask) for name, mask in masks.items()},
        image(labels.astype(np.uint8), spacing),
        image(values.astype(np.int16), spacing),
        **options,
    )
    return {(item.lesion, item.region): item for item in found}


def brute_force_distance(mask: np.ndarray, spacing) -> np.ndarray:
    points = np.argwhere(mask) * spacing
    grid = np.indices(mask.shape).reshape(3, -1).T * spacing
    squared = ((grid[:, None, :] - points[None, :, :]) ** 2).sum(axis=2)
    return np.sqrt(squared.min(axis=1)).reshape(mask.shape)


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.floats(0.6, 5.0), st.floats(0.5, 1.5), st.floats(0.5, 1.5)),
    st.lists(st.tuples(st.floats(0.0, 6.0), st.floats(0.5, 6.0)), min_size=1, max_size=3, unique=True),
    st.integers(0, 10_000),
)
def test_rings_equal_brute_force(spacing, widths, seed):
    rng = np.random.default_rng(seed)
    shape = (10, 24, 24)
    mask = np.zeros(shape, dtype=bool)
    mask[3:6, 9:13, 8:14] = rng.random((3, 4, 6)) > 0.4
    mask[4, 10, 10] = True
    other = np.zeros(shape, dtype=bool)
    other[2:7, 15:18, 10:12] = True
    rings = [(inner, inner + width) for inner, width in widths]
    labels = np.full(shape, Anatomy.BODY)
    found = regions_of({"A": mask, "B": other}, labels, np.zeros(shape), spacing, rings=rings)
    assert np.array_equal(found["A", "core"].paste(shape), mask)
    distance = brute_force_distance(mask, np.asarray(spacing))
    for inner, outer in rings:
        truth = (distance > inner + 1e-6) & (distance <= outer + 1e-6) & ~mask & ~other
        assert np.array_equal(found["A", ring_name(inner, outer)].paste(shape), truth)


@pytest.mark.parametrize("spacing", [(1.25, 0.75, 0.75), (5.0, 0.6, 0.6), (2.5, 2.0, 2.0), (1.0, 0.7, 1.3)])
def test_the_ring_of_2_mm_and_both_sides_of_the_border_equal_brute_force(spacing):
    rng = np.random.default_rng(3)
    mask = np.zeros((9, 22, 24), dtype=bool)
    mask[2:7, 6:15, 7:17] = ndimage.gaussian_filter(rng.random((5, 9, 10)), 1.0) > 0.42
    labels = np.full(mask.shape, Anatomy.BODY)
    found = regions_of({"A": mask}, labels, np.zeros(mask.shape), spacing, rings=[(0.0, 2.0), (2.0, 4.0)])
    outside, inside = (brute_force_distance(part, np.asarray(spacing)) for part in (mask, ~mask))
    assert np.array_equal(found["A", "ring-0-2mm"].paste(mask.shape), ~mask & (outside <= 2.0 + 1e-6))
    assert np.array_equal(found["A", "ring-2-4mm"].paste(mask.shape), (outside > 2.0 + 1e-6) & (outside <= 4.0 + 1e-6))
    border = found["A", "border"].paste(mask.shape)
    assert np.array_equal(border & mask, mask & (inside <= 2.0 + 1e-6))
    assert np.array_equal(border & ~mask, ~mask & (outside <= 2.0 + 1e-6))
    assert (border & mask).any()
    assert (border & ~mask).any()


def test_rings_stay_in_the_organ():
    shape, spacing = (30, 60, 60), (1.25, 0.75, 0.75)
    labels = np.full(shape, Anatomy.BODY)
    labels[:, :, 30:] = Anatomy.LEFT_LUNG
    labels[:, :, :4] = Anatomy.OUTSIDE
    values = np.where(labels == Anatomy.LEFT_LUNG, -850, 40)
    values[10:20, 50:, :20] = -900
    mask = np.zeros(shape, dtype=bool)
    mask[12:18, 25:35, 26:34] = True
    lung, body = {Anatomy.LEFT_LUNG}, {Anatomy.BODY}
    names = {
        "lung": lung,
        "Left lung, upper lobe": lung,
        "pulmonary": lung,
        "pleura": lung | body,
        "Left pleura": lung | body,
    }
    names |= {"liver": body, "Pulmonary lymph node": body}
    for organ, allowed in names.items():
        found = regions_of({"A": mask}, labels, values, spacing, organs={"A": organ}, rings=[(0, 5), (5, 20)])
        for inner, outer in ((0, 5), (5, 20)):
            ring = found["A", ring_name(inner, outer)].paste(shape)
            assert set(np.unique(labels[ring])) == allowed
            if organ == "liver":
                assert values[ring].min() > -300
        border = found["A", "border"].paste(shape)
        assert (border & mask).any()
        assert not (border & mask)[14:16, 29:31, 29:31].any()


def test_lungs_are_free_of_lesions_and_names_are_in_mm():
    labels = np.full((8, 20, 20), Anatomy.BODY)
    labels[:, 4:16, 2:9] = Anatomy.RIGHT_LUNG
    labels[:, 4:16, 11:18] = Anatomy.LEFT_LUNG
    mask = np.zeros(labels.shape, dtype=bool)
    mask[3:5, 6:9, 4:7] = True
    lungs = lung_region("baseline", image(labels.astype(np.uint8), (1, 1, 1)), [crop_of(mask)])
    assert lungs.count == (labels > Anatomy.BODY).sum() - mask.sum()
    assert ring_name(0, 5) == "ring-0-5mm"
    assert ring_name(2.5, 7.5) == "ring-2.5-7.5mm"


def test_small_regions_say_so():
    labels = np.full((10, 20, 20), Anatomy.BODY)
    speck, slab, fine = (np.zeros(labels.shape, dtype=bool) for _ in range(3))
    speck[5, 5, 5:9] = True
    slab[5, 10, :] = slab[6, 10, :] = slab[5, 11, :] = slab[6, 11, :] = True
    fine[2:7, 12:18, 12:18] = True
    found = regions_of({"a": speck, "b": slab, "c": fine}, labels, np.zeros(labels.shape), (1, 1, 1))
    assert "4 voxels" in region_problem(found["a", "core"])
    assert "thinner" in region_problem(found["b", "core"])
    assert region_problem(found["c", "core"]) is None


def chest() -> tuple[np.ndarray, np.ndarray]:
    """A schematic chest, 2 mm: lungs beside a mediastinum, ribs, a liver below the right lung."""
    shape = (90, 110, 150)
    z, y, x = np.indices(shape) - np.array([45, 55, 75]).reshape(3, 1, 1, 1)
    labels = np.where((y / 50) ** 2 + (x / 70) ** 2 < 1, Anatomy.BODY, Anatomy.OUTSIDE)
    values = np.where(labels == Anatomy.BODY, 40, -1000)
    for side, label in ((-1, Anatomy.RIGHT_LUNG), (1, Anatomy.LEFT_LUNG)):
        lung = (((x - side * 38) / 24) ** 2 + (y / 38) ** 2 < 1) & (z > -15)
        labels[lung] = label
        values[lung] = -850
    shell = ((y / 50) ** 2 + (x / 70) ** 2 > 0.82) & ((y / 50) ** 2 + (x / 70) ** 2 < 0.93)
    values[shell & (z % 12 < 5)] = 600
    liver = (((x + 30) / 30) ** 2 + ((y) / 34) ** 2 < 1) & (z <= -15)
    values[liver] = 100
    return labels, values


@pytest.mark.parametrize(
    ("centre", "organ"),
    [
        ((50, 55, 37), "lung"),
        ((60, 65, 115), "lung"),
        ((55, 55, 75), "mediastinum"),
        ((15, 55, 45), "liver"),
        ((56, 55, 137), "pleura"),
        ((20, 10, 75), "soft tissue"),
    ],
)
def test_organ_proposals(centre, organ):
    labels, values = chest()
    z, y, x = np.indices(labels.shape) - np.array(centre).reshape(3, 1, 1, 1)
    mask = z**2 + y**2 + x**2 <= 16
    values = values.copy()
    values[mask] = 55
    found = propose_organ(
        crop_of(mask), image(labels.astype(np.uint8), (2, 2, 2)), image(values.astype(np.int16), (2, 2, 2))
    )
    assert found.organ == organ, found


@pytest.mark.parametrize(
    ("centre", "fat", "organ"),
    [
        ((55, 55, 75), True, "lymph node"),
        ((55, 55, 75), False, "mediastinum"),
        ((20, 55, 100), True, "lymph node"),
        # Under the skin.
        ((20, 12, 75), True, "soft tissue"),
    ],
)
def test_a_compact_lesion_in_fat_is_proposed_as_a_node(centre, fat, organ):
    labels, values = chest()
    z, y, x = np.indices(labels.shape) - np.array(centre).reshape(3, 1, 1, 1)
    values = values.copy()
    mask = z**2 + y**2 + x**2 <= 16
    if fat:
        values[(z**2 + y**2 + x**2 <= 64) & (labels == Anatomy.BODY)] = -100
    values[mask] = 55
    found = propose_organ(
        crop_of(mask), image(labels.astype(np.uint8), (2, 2, 2)), image(values.astype(np.int16), (2, 2, 2))
    )
    assert found.organ == organ, found


def test_a_lesion_in_bone_is_proposed_as_such():
    labels, values = chest()
    mask = np.zeros(labels.shape, dtype=bool)
    mask[14:19, 86:92, 72:80] = True
    values[10:24, 82:96, 66:86] = 500
    values[mask] = 120
    found = propose_organ(
        crop_of(mask), image(labels.astype(np.uint8), (2, 2, 2)), image(values.astype(np.int16), (2, 2, 2))
    )
    assert found.organ == "bone"
