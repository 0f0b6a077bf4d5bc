"""Diameters against an exhaustive search, volumes and positions against analytic truth, on every kind of grid."""

from __future__ import annotations

import time

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ImmunoRadiomicsLib.lesions.geometry import Crop, crop_of, index_to_world, world_to_index
from ImmunoRadiomicsLib.lesions.measurement import (
    contour_segments,
    measure,
    mesh_volume_voxels,
    repeatability_limit_percent,
)


def image(shape_zyx, spacing_xyz=(1.0, 1.0, 1.0), direction=None, values=None) -> sitk.Image:
    ct = sitk.GetImageFromArray(np.zeros(shape_zyx, np.int16) if values is None else values)
    ct.SetSpacing(spacing_xyz)
    ct.SetOrigin((-31.0, 17.5, -402.0))
    if direction is not None:
        ct.SetDirection(np.asarray(direction).ravel().tolist())
    return ct


def blob(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random connected 2D shape, convex or not, on a grid of the given size."""
    noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), rng.uniform(0.7, max(1.0, size / 8)))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    mask = noise / noise.std() - 6.0 * ((y**2 + x**2) / size**2) * rng.uniform(1.0, 3.0) > rng.uniform(-1.5, 0.3)
    labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
    if number == 0:
        mask[size // 2, size // 2] = True
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def farthest_vertices(mask: np.ndarray, step: np.ndarray) -> float:
    """Longest distance between any two vertices of the contour."""
    points = np.unique((contour_segments(mask) * step).reshape(-1, 2), axis=0)
    return float(np.linalg.norm(points[:, None] - points[None], axis=2).max())


def chord_by_scanning(mask: np.ndarray, step: np.ndarray, ends: np.ndarray) -> float:
    """Longest chord across the line between two ends, by cutting the contour with 3,000 parallel lines."""
    segments = contour_segments(mask) * step
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    across = np.array([-along[1], along[0]])
    u, v = segments @ along, segments @ across
    sloped = np.abs(u[:, 0] - u[:, 1]) > 1e-9
    u, v = u[sloped], v[sloped]
    best = 0.0
    for lines in np.array_split(np.linspace(u.min(), u.max(), 3000)[:, None], 30):
        hit = (u.min(axis=1) <= lines) & (u.max(axis=1) >= lines)
        crossing = v[:, 0] + (lines - u[:, 0]) / (u[:, 1] - u[:, 0]) * (v[:, 1] - v[:, 0])
        extent = np.where(hit, crossing, -np.inf).max(axis=1) - np.where(hit, crossing, np.inf).min(axis=1)
        best = max(best, float(extent.max()))
    return best


def test_diameters_equal_an_exhaustive_search_on_500_shapes():
    rng = np.random.default_rng(11)
    for _ in range(500):
        plane = blob(rng, int(rng.integers(6, 40)))
        spacing = rng.uniform(0.5, 2.0, 2)
        mask = np.zeros((3, *plane.shape), dtype=bool)
        mask[1] = plane
        ct = image(mask.shape, (*spacing[::-1], 2.5))
        found = measure(crop_of(mask), ct)
        longest = farthest_vertices(plane, spacing)
        assert found.long_axis_mm == pytest.approx(longest, abs=1e-6)
        assert found.slice_index == 1
        ends = world_to_index(np.array(found.long_axis_ends_lps_mm), ct)[:, 1:] * spacing
        assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(longest, abs=1e-6)
        short_ends = world_to_index(np.array(found.short_axis_ends_lps_mm), ct)[:, 1:] * spacing
        assert abs((ends[1] - ends[0]) @ (short_ends[1] - short_ends[0])) < 1e-4
        scanned = chord_by_scanning(plane, spacing, ends)
        assert scanned - 1e-6 <= found.short_axis_mm <= scanned + 0.1


def test_of_equally_long_diameters_the_widest_counts_however_the_image_lies():
    rng = np.random.default_rng(4)
    for _ in range(60):
        plane, spacing = blob(rng, int(rng.integers(5, 12))), rng.uniform(0.5, 2.0, 2)
        short_mm = set()
        for turned in (plane, plane[::-1], plane[:, ::-1], plane[::-1, ::-1]):
            found = measure(crop_of(turned[None].copy()), image((1, *plane.shape), (*spacing[::-1], 1.0)))
            short_mm.add(round(found.short_axis_mm, 6))
        assert max(short_mm) - min(short_mm) < 1e-5


@pytest.mark.parametrize("radius", [3.0, 5.0, 10.0, 20.0])
def test_a_ball_is_measured_within_a_voxel_and_its_volume_without_bias(radius):
    rng = np.random.default_rng(5)
    spacing = np.array([1.25, 0.75, 0.75])
    errors, volumes, meshes = [], [], []
    for _ in range(12):
        shape = (2 * (radius + 3) / spacing).astype(int) + 3
        centre = rng.uniform(-0.5, 0.5, 3)
        axes = [(np.arange(n) - n / 2) * s - c for n, s, c in zip(shape, spacing, centre, strict=True)]
        z, y, x = np.meshgrid(*axes, indexing="ij")
        found = measure(crop_of(z**2 + y**2 + x**2 <= radius**2), image(shape, (0.75, 0.75, 1.25)))
        errors += [found.long_axis_mm - 2 * radius, found.short_axis_mm - 2 * radius]
        volumes.append(found.volume_ml / (4 / 3 * np.pi * radius**3 / 1000) - 1)
        meshes.append(found.mesh_volume_ml / (4 / 3 * np.pi * radius**3 / 1000) - 1)
    assert np.abs(errors).max() <= 0.75 + 1e-9
    assert abs(np.mean(volumes)) < 0.01
    # The reason why volumes are reported by voxel count.
    assert abs(np.mean(volumes)) < abs(np.mean(meshes))


def steps(low, high):
    """Angles in radians as headers hold them: ITK cannot invert direction cosines of 1e-311."""
    return st.floats(low, high).map(lambda angle: round(angle, 9))


@settings(max_examples=40, deadline=None)
@given(st.tuples(steps(-3.1, 3.1), steps(-0.4, 0.4), steps(-0.4, 0.4)), st.integers(0, 7))
def test_positions_hold_on_oblique_and_flipped_grids(angles, flips):
    turn = np.asarray(sitk.Euler3DTransform((0, 0, 0), angles[1], angles[2], angles[0]).GetMatrix()).reshape(3, 3)
    direction = turn @ np.diag([-1.0 if flips >> axis & 1 else 1.0 for axis in range(3)])
    mask = np.zeros((9, 30, 32), dtype=bool)
    mask[3:6, 8:14, 5:25] = True
    ct = image(mask.shape, (0.7, 0.9, 2.0), direction)
    found = measure(crop_of(mask), ct)
    length = np.hypot(20 * 0.7, 5 * 0.9)
    other = np.hypot(19 * 0.7, 6 * 0.9)
    assert found.long_axis_mm == pytest.approx(max(length, other), abs=1e-9)
    for ends, size in (
        (found.long_axis_ends_lps_mm, found.long_axis_mm),
        (found.short_axis_ends_lps_mm, found.short_axis_mm),
    ):
        assert np.linalg.norm(np.subtract(*ends)) == pytest.approx(size, abs=1e-6)
        index = ct.TransformPhysicalPointToContinuousIndex(ends[0])
        assert index[2] == pytest.approx(found.slice_index, abs=1e-6)
    assert found.centroid_lps_mm == pytest.approx(ct.TransformContinuousIndexToPhysicalPoint((14.5, 10.5, 4.0)))
    assert index_to_world(np.array([[4.0, 10.5, 14.5]]), ct)[0] == pytest.approx(found.centroid_lps_mm)


def test_slices_are_axial_whatever_the_order_of_the_axes():
    """A sagittally stored volume: the longest diameter is sought in the plane of the table, not of the file."""
    direction = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    mask = np.zeros((20, 40, 20), dtype=bool)
    mask[5:10, 5:35, 5:8] = True
    found = measure(crop_of(mask), image(mask.shape, (1.0, 1.0, 1.0), direction))
    # Array axis 1 runs to the head here: 30 voxels long, which no axial slice sees.
    assert found.long_axis_mm == pytest.approx(max(np.hypot(5, 2), np.hypot(4, 3)))
    assert abs(found.long_axis_ends_lps_mm[0][2] - found.long_axis_ends_lps_mm[1][2]) < 1e-9


def test_the_longest_slice_is_chosen_and_gaps_are_no_diameter():
    mask = np.zeros((6, 40, 60), dtype=bool)
    mask[1, 10:14, 5:15] = True
    mask[2, 10:14, 5:25] = True
    mask[4, 30:34, 50:58] = True
    found = measure(crop_of(mask), image(mask.shape))
    assert found.slice_index == 2
    assert found.long_axis_mm == pytest.approx(np.hypot(20, 3))
    assert found.parts == 2


def test_a_ragged_lesion_of_10_cm_is_measured_at_once_whether_its_mask_is_cropped_or_whole():
    rng = np.random.default_rng(5)
    z, y, x = np.ogrid[-22:22, -90:90, -90:90]
    mask = np.zeros((60, 512, 512), dtype=bool)
    mask[10:54, 100:280, 100:280] = (z / 20) ** 2 + (y / 72) ** 2 + (x / 72) ** 2 < 1 + 30 * ndimage.gaussian_filter(
        rng.normal(size=(44, 180, 180)), 4
    )
    ct = image(mask.shape, (0.7, 0.7, 2.5))
    for crop in (crop_of(mask), Crop(mask)):
        seconds = []
        for _ in range(3):
            start = time.process_time()
            found = measure(crop, ct)
            seconds.append(time.process_time() - start)
        assert min(seconds) < 0.2
        assert found == measure(crop_of(mask), ct)
    assert found.long_axis_mm > 100


def test_density_and_empty_masks():
    rng = np.random.default_rng(2)
    values = rng.integers(-100, 200, (5, 12, 12)).astype(np.int16)
    mask = np.zeros(values.shape, dtype=bool)
    mask[1:4, 3:9, 2:10] = rng.random((3, 6, 8)) > 0.3
    found = measure(crop_of(mask), image(values.shape, values=values))
    assert found.mean_hu == pytest.approx(values[mask].mean())
    assert found.sd_hu == pytest.approx(values[mask].std())
    assert found.voxels == mask.sum()
    assert measure(Crop(np.zeros((0, 0, 0), dtype=bool)), image((4, 4, 4))) is None


def test_a_single_voxel_has_the_size_of_its_contour():
    mask = np.zeros((3, 5, 5), dtype=bool)
    mask[1, 2, 2] = True
    found = measure(crop_of(mask), image(mask.shape, (0.8, 0.8, 3.0)))
    assert found.long_axis_mm == pytest.approx(0.8)
    assert found.short_axis_mm == pytest.approx(0.8)


def test_mesh_volume_of_boxes_is_that_of_their_marching_surface():
    """A box of n voxels a side: its corners, edges and faces are cut as the surface at level 0.5 cuts them."""
    for size in (4, 9, 17):
        box = np.ones((size, size, size), dtype=bool)
        shortfall = size**3 - mesh_volume_voxels(box)
        # Every one of the 12 edges loses the same area per length; the corners a constant.
        assert 0 < shortfall < 12 * size * 0.25
    half = np.zeros((30, 30, 30), dtype=bool)
    half[:15] = True
    bare = mesh_volume_voxels(np.pad(half, ((5, 0), (0, 0), (0, 0))))
    assert bare == pytest.approx(mesh_volume_voxels(half), abs=1e-9)


def test_repeatability_limit():
    assert repeatability_limit_percent() == pytest.approx(39.5, abs=0.1)
    assert repeatability_limit_percent(1) == pytest.approx(26.5, abs=0.1)
