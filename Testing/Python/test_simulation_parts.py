"""The parts that virtual patients are made of: growth, deformation, trees, noise and measurement, each on known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from ImmunoRadiomicsLib.simulation.deformation import breathing_and_posture
from ImmunoRadiomicsLib.simulation.growth import GrowthLaw, law_for_factor
from ImmunoRadiomicsLib.simulation.lattice import Lattice
from ImmunoRadiomicsLib.simulation.noise import NoiseSource
from ImmunoRadiomicsLib.simulation.scenario import Motion
from ImmunoRadiomicsLib.simulation.trees import Branches, draw_coverage, grow_tree, tube
from ImmunoRadiomicsLib.simulation.truth import axial_diameters

SPACING = (2.5, 0.8, 0.8)


def ellipse_level(a: float, b: float, angle: float, centre: tuple[float, float]) -> np.ndarray:
    """One slice-filling elliptic cylinder of semi-axes a and b, as a signed distance to first order."""
    y, x = np.mgrid[0:90, 0:100] * 0.8
    y, x = y - centre[0], x - centre[1]
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    radius = np.hypot(u / a, v / b)
    level = radius * (radius - 1.0) / np.maximum(np.hypot(u / a**2, v / b**2), 1e-6)
    return np.repeat(level[None], 3, axis=0)


@settings(max_examples=40, deadline=None)
@given(
    a=st.floats(6, 28),
    ratio=st.floats(0.4, 0.9),
    angle=st.floats(0, math.pi),
    shift=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
)
def test_diameters_of_an_ellipse(a: float, ratio: float, angle: float, shift: tuple[float, float]) -> None:
    level = ellipse_level(a, ratio * a, angle, (36.0 + shift[0], 40.0 + shift[1]))
    long_axis, short_axis = axial_diameters(level, SPACING)
    # A quarter of a pixel: the tips of a slender ellipse are narrower than two pixels.
    assert long_axis == pytest.approx(2 * a, abs=0.2)
    assert short_axis == pytest.approx(2 * ratio * a, abs=0.25)


def test_diameters_do_not_bridge_two_outlines() -> None:
    apart = np.minimum(ellipse_level(8, 6, 0.0, (36.0, 20.0)), ellipse_level(7, 6, 0.0, (36.0, 58.0)))
    assert axial_diameters(apart, SPACING)[0] == pytest.approx(16.0, abs=0.1)


def test_growth_meets_its_factor_and_is_continuous() -> None:
    law = law_for_factor(2.5, 60.0, start_day=8.0, rate_before=0.004)
    assert law.viable(0.0) == pytest.approx(1.0)
    assert law.viable(60.0) == pytest.approx(2.5)
    assert law.viable(8.0 + 1e-9) == pytest.approx(law.viable(8.0 - 1e-9))
    assert law.viable(-30.0) == pytest.approx(math.exp(-0.12))


def test_inflammation_is_a_pulse_after_the_start_of_treatment() -> None:
    law = GrowthLaw(rate_after=-0.01, start_day=5.0, inflammation=2.0, peak_days=50.0)
    assert law.inflamed(5.0) == 0.0
    assert law.inflamed(55.0) == pytest.approx(2.0)
    assert law.inflamed(54.0) < 2.0
    assert law.inflamed(56.0) < 2.0
    assert law.inflamed(300.0) < 0.05
    assert law.viable(55.0) == pytest.approx(math.exp(-0.5))


def test_a_lesion_is_seen_only_between_its_days() -> None:
    law = GrowthLaw(appears_day=30.0, vanishes_day=90.0)
    assert [law.viable(day) for day in (29.0, 30.0, 89.0, 90.0)] == [0.0, 1.0, 1.0, 0.0]


CHEST = Lattice.covering((-260.0, -150.0, -190.0), (160.0, 160.0, 190.0), 6.0)
POSITIONS = {
    "apex_z": 112.0,
    "dome_z": -98.0,
    "chest_half_width": 134.0,
    "spine_y": 52.0,
    "centre": np.array([-40.0, 0.0, 0.0]),
}


@settings(max_examples=12, deadline=None)
@given(
    breathing=st.floats(-40, 40),
    rotation=st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(-9, 9)),
    translation=st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.floats(-40, 40)),
    irregular=st.floats(0, 5),
    seed=st.integers(0, 10**6),
)
def test_every_plausible_motion_can_be_inverted(
    breathing: float,
    rotation: tuple[float, float, float],
    translation: tuple[float, float, float],
    irregular: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    motion = Motion(breathing, rotation, translation, irregular)
    deformation = breathing_and_posture(motion, rng, CHEST, **POSITIONS)
    assert deformation.smallest_cell_jacobian() > 0.25
    points = rng.uniform(CHEST.low + 60.0, CHEST.high - 60.0, (2000, 3))
    back = deformation.inverse(deformation.forward(points))
    assert np.abs(back - points).max() < 0.01


def test_breathing_moves_the_diaphragm_by_what_was_asked_and_leaves_the_apex() -> None:
    motion = Motion(breathing_mm=30.0, irregular_mm=0.0)
    deformation = breathing_and_posture(motion, np.random.default_rng(0), CHEST, **POSITIONS)
    dome, apex = np.array([[-110.0, -20.0, 40.0]]), np.array([[108.0, 0.0, 40.0]])
    descent = (deformation.forward(dome) - dome)[0, 0]
    assert -30.0 < descent < -22.0
    assert abs((deformation.forward(apex) - apex)[0, 0]) < 0.5


def test_the_displacement_image_is_the_map_in_the_convention_of_itk() -> None:
    rng = np.random.default_rng(3)
    motion = Motion(-18.0, (3.0, -4.0, 6.0), (12.0, -7.0, 20.0), 3.0)
    deformation = breathing_and_posture(motion, rng, CHEST, **POSITIONS)
    image = sitk.Cast(deformation.displacement_image(), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(image)
    points = rng.uniform(CHEST.low + 1.0, CHEST.high - 1.0, (500, 3))
    carried = np.array([transform.TransformPoint(point[::-1].tolist()) for point in points])[:, ::-1]
    assert np.abs(carried - deformation.forward(points)).max() < 1e-4


def test_a_rotation_is_right_handed_about_the_axes_of_lps() -> None:
    motion = Motion(rotation_degrees=(0.0, 0.0, 90.0), irregular_mm=0.0)
    deformation = breathing_and_posture(motion, np.random.default_rng(0), CHEST, **{**POSITIONS, "centre": np.zeros(3)})
    left = np.array([[0.0, 0.0, 10.0]])
    assert deformation.forward(left)[0] == pytest.approx([0.0, 10.0, 0.0], abs=1e-6)


def test_a_tree_reaches_every_seed_and_keeps_the_law_of_murray() -> None:
    rng = np.random.default_rng(5)
    seeds = rng.uniform(-50, 50, (300, 3))
    tree = grow_tree(np.array([0.0, 0.0, -80.0]), seeds, 6.0, rng)
    tips = tree.end[tree.fed == 1]
    gaps = np.linalg.norm(seeds[:, None] - tips[None], axis=-1).min(axis=1)
    assert gaps.max() < 1e-9
    widest = tree.fed == 300
    assert tree.start_radius[widest].max() == pytest.approx(6.0)
    assert tree.end_radius[tree.fed == 1].max() < 6.0 / 300 ** (1 / 3) + 1e-9


def test_a_tube_takes_its_volume() -> None:
    lattice = Lattice((0.0, 0.0, 0.0), (1.0, 0.7, 0.7), (40, 60, 60))
    coverage = np.zeros(lattice.shape, dtype=np.uint8)
    line = tube([(-20.0, 20.0, 21.0), (60.0, 20.0, 21.0)], [5.0, 5.0])
    draw_coverage(Branches.joined([line]), lattice, coverage)
    volume = coverage.sum() / 255.0 * lattice.voxel_ml * 1000.0
    assert volume == pytest.approx(math.pi * 25.0 * 40.0, rel=0.02)


def test_noise_has_unit_variance_and_is_correlated_as_a_reconstruction_leaves_it() -> None:
    source = NoiseSource(np.random.default_rng(1), (256, 256), (0.75, 0.75))
    slices = np.stack([source.next_slice() for _ in range(40)])
    assert slices.std() == pytest.approx(1.0, abs=0.01)
    assert np.mean(slices[1:] * slices[:-1]) == pytest.approx(0.4, abs=0.02)
    assert 0.3 < np.mean(slices[:, :, 1:] * slices[:, :, :-1]) < 0.8
    power = np.abs(np.fft.fft2(slices, axes=(1, 2))) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(256, 0.75), np.fft.fftfreq(256, 0.75)))
    low, middle = power[:, radius < 0.03].mean(), power[:, np.abs(radius - 0.3) < 0.02].mean()
    assert middle > 3.0 * low
