"""Where an alignment begins: other positions, arms, fields of view and grids are found; wrong input is recognised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ImmunoRadiomicsLib.alignment import Alignment, align, resample, transform_points
from ImmunoRadiomicsLib.simulation import simulate_patient

IMAGES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "images"
TURN = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.10, -0.08, 0.15, (12.0, -9.0, 15.0))


@pytest.fixture(scope="module")
def baseline() -> sitk.Image:
    """A chest on a grid of 4 mm: enough for a linear alignment, and quick."""
    fine = simulate_patient(11, size="small").at("baseline").ct
    size = [int(length * step / 4.0) for length, step in zip(fine.GetSize(), fine.GetSpacing(), strict=True)]
    coarse = sitk.SmoothingRecursiveGaussian(sitk.Cast(fine, sitk.sitkFloat32), 1.6)
    return sitk.Resample(
        coarse,
        size,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        fine.GetOrigin(),
        [4.0] * 3,
        fine.GetDirection(),
    )


def noisy(image: sitk.Image, seed: int = 1) -> sitk.Image:
    values = sitk.GetArrayFromImage(image)
    values += np.random.default_rng(seed).normal(0.0, 15.0, values.shape).astype(np.float32)
    result = sitk.GetImageFromArray(values)
    result.CopyInformation(image)
    return result


def carried(image: sitk.Image, transform: sitk.Euler3DTransform) -> sitk.Image:
    """The image with its voxels as they are and its place in space moved: no interpolation, known truth."""
    result = noisy(image)
    direction = np.array(transform.GetMatrix()).reshape(3, 3) @ np.array(image.GetDirection()).reshape(3, 3)
    result.SetOrigin(transform.TransformPoint(image.GetOrigin()))
    result.SetDirection(direction.ravel().tolist())
    return result


def shifted(offset: tuple[float, float, float]) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform(TURN)
    transform.SetTranslation((np.array(TURN.GetTranslation()) + offset).tolist())
    return transform


def body_points(image: sitk.Image, count: int = 400) -> np.ndarray:
    inside = np.argwhere(sitk.GetArrayViewFromImage(image) > -300)
    chosen = inside[np.random.default_rng(0).choice(len(inside), count)][:, ::-1]
    return np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in chosen])


def check(found: Alignment, truth: sitk.Transform, points: np.ndarray, largest_mm: float = 1.5) -> None:
    errors = np.linalg.norm(transform_points(points, found.transform) - transform_points(points, truth), axis=1)
    assert np.median(errors) <= largest_mm
    assert found.quality.verdict != "failed", found.quality.reasons


def test_origins_that_lie_far_apart_are_found(baseline):
    truth = shifted((-350.0, 120.0, -900.0))
    check(align(baseline, carried(baseline, truth), engine="rigid"), truth, body_points(baseline))


@pytest.mark.parametrize("part", ["lower half", "upper half as baseline"])
def test_a_part_of_the_body_is_found_in_the_whole(baseline, part):
    truth = shifted((150.0, 80.0, -200.0))
    moved = carried(baseline, truth)
    half = baseline.GetSize()[2] // 2
    cut = slice(None, half) if part == "lower half" else slice(half, None)
    if part.endswith("baseline"):
        check(align(baseline[:, :, cut], moved, engine="rigid"), truth, body_points(baseline[:, :, cut]))
    else:
        check(align(baseline, moved[:, :, cut], engine="rigid"), truth, body_points(baseline[:, :, cut]))


def test_arms_beside_the_body_in_one_of_the_scans_do_not_lead_astray(baseline):
    wide = sitk.ConstantPad(baseline, (28, 0, 0), (28, 0, 0), -1000.0)
    values = sitk.GetArrayFromImage(wide)
    y, x = np.indices(values.shape[1:])
    body = np.argwhere(values[values.shape[0] // 2] > -300)
    edges = body[:, 1].min() - 13, body[:, 1].max() + 13
    for edge in edges:
        distance = np.hypot(x - edge, y - body[:, 0].mean())
        arm = np.where(distance < 4.0, 700.0, 40.0) * np.ones_like(values)
        values = np.where((distance < 11.0)[None], arm, values)
    down = sitk.GetImageFromArray(values.astype(np.float32))
    down.CopyInformation(wide)
    truth = shifted((0.0, 60.0, 40.0))
    check(align(down, carried(baseline, truth), engine="rigid"), truth, body_points(baseline))


def test_another_grid_is_no_hindrance(baseline):
    spacing = (2.0, 2.0, 8.0)
    truth = shifted((60.0, 0.0, -100.0))
    moved = carried(baseline, truth)
    size = [round(n * old / new) for n, old, new in zip(moved.GetSize(), moved.GetSpacing(), spacing, strict=True)]
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing(spacing)
    grid.SetOrigin(moved.GetOrigin())
    grid.SetDirection(moved.GetDirection())
    other = resample(moved, grid, sitk.Transform(3, sitk.sitkIdentity), -1000.0)
    check(align(baseline, other, engine="rigid"), truth, body_points(baseline))


@pytest.mark.parametrize("axes", [(1, 2), (0, 1, 2)], ids=str)
def test_a_followup_that_is_turned_over_fails(baseline, axes):
    turned = sitk.Flip(noisy(baseline), [axis in axes for axis in range(3)])
    turned.CopyInformation(baseline)
    quality = align(baseline, turned, engine="rigid").quality
    assert quality.verdict == "failed"
    assert any("axes look mixed up" in reason for reason in quality.reasons)


@pytest.mark.parametrize("engine", ["affine", pytest.param("local-correlation", marks=pytest.mark.slow)])
def test_another_part_of_the_body_fails(engine):
    if not IMAGES.exists():
        pytest.skip(f"the real images are not at {IMAGES}")
    chest = sitk.ReadImage(str(IMAGES / "lung_pair" / "baseline.mha"), sitk.sitkFloat32)
    thigh = sitk.ReadImage(str(IMAGES / "soft_tissue_sarcoma_petct" / "STS_019_CT_image.nii.gz"), sitk.sitkFloat32)
    quality = align(chest, thigh, engine=engine).quality
    assert quality.verdict == "failed"
    assert quality.score < 0.1
