"""Alignments with known truth: simulated patients, a real pair with landmarks, and wrong input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ImmunoRadiomicsLib.alignment import align, invert_points, read_transform, transform_points, write_transforms
from ImmunoRadiomicsLib.alignment.deform import local_correlation
from ImmunoRadiomicsLib.alignment.grids import Grid
from ImmunoRadiomicsLib.alignment.quality import Measured
from ImmunoRadiomicsLib.errors import CancelledError, InputError
from ImmunoRadiomicsLib.simulation import simulate_patient

LUNG_PAIR = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "images" / "lung_pair"


@pytest.fixture(scope="module")
def patient():
    return simulate_patient(11, size="small")


@pytest.fixture(scope="module")
def scans(patient):
    followup = next(item for item in patient.timepoints if item.plan.name.startswith("followup"))
    return patient.at("baseline"), followup


@pytest.fixture(scope="module")
def aligned(scans):
    baseline, followup = scans
    return align(baseline.ct, followup.ct)


def lung_points(baseline, count: int = 1500) -> np.ndarray:
    lungs = np.argwhere(np.isin(sitk.GetArrayViewFromImage(baseline.anatomy), (2, 3)))
    chosen = lungs[np.random.default_rng(0).choice(len(lungs), count, replace=False)]
    return np.array([baseline.ct.TransformIndexToPhysicalPoint(index[::-1].tolist()) for index in chosen])


def known(followup, points: np.ndarray) -> np.ndarray:
    return followup.deformation.forward(points[:, ::-1])[:, ::-1]


def test_a_simulated_pair_is_aligned_inside_the_lungs(scans, aligned):
    baseline, followup = scans
    points = lung_points(baseline)
    there = known(followup, points)
    before = np.linalg.norm(points - there, axis=1)
    errors = np.linalg.norm(transform_points(points, aligned.transform) - there, axis=1)
    assert np.median(before) > 4.0
    assert np.median(errors) <= 1.5
    back = np.linalg.norm(transform_points(there, aligned.inverse) - points, axis=1)
    assert np.median(back) <= 1.5
    assert aligned.quality.verdict == "good"
    assert aligned.quality.folding_fraction == 0.0
    assert aligned.quality.correlation > aligned.quality.correlation_before
    # Of errors far below a voxel only the size is known.
    assert np.median(errors) / 3.0 < aligned.quality.expected_error_mm < np.median(errors) * 3.0


def test_a_large_shift_a_turn_and_other_axes_are_found(scans):
    baseline, followup = scans
    moved = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.10, -0.08, 0.20, (45.0, -30.0, 60.0))
    turned = sitk.DICOMOrient(followup.ct, "RAI")
    turned = sitk.Flip(turned, [True, False, True])
    image = sitk.Image(turned)
    direction = np.array(moved.GetMatrix()).reshape(3, 3) @ np.array(turned.GetDirection()).reshape(3, 3)
    image.SetOrigin(moved.TransformPoint(turned.GetOrigin()))
    image.SetDirection(direction.ravel().tolist())
    found = align(baseline.ct, image, engine="local-correlation")
    points = lung_points(baseline, 500)
    truth = transform_points(known(followup, points), moved)
    assert np.median(np.linalg.norm(transform_points(points, found.transform) - truth, axis=1)) <= 1.5


@pytest.mark.parametrize("error_mm", [1.5, 4.0, 12.0])
def test_the_expected_error_follows_a_known_one(scans, aligned, error_mm):
    baseline, followup = scans
    way = np.array([0.6, -0.5, 0.62])
    shift = sitk.TranslationTransform(3, (way * error_mm / np.linalg.norm(way)).tolist())
    wrong = sitk.CompositeTransform([aligned.transform, shift])
    quality = align(baseline.ct, followup.ct, engine="user", initial=wrong).quality
    points = lung_points(baseline, 500)
    true = np.median(np.linalg.norm(transform_points(points, wrong) - known(followup, points), axis=1))
    assert true / 1.5 < quality.expected_error_mm < true * 1.5
    if error_mm > 5.0:
        assert quality.verdict == "failed"


def test_local_quality_is_high_on_a_match_and_low_on_a_mismatch(scans, aligned):
    baseline, followup = scans
    sphere = sitk.Image(baseline.ct.GetSize(), sitk.sitkUInt8)
    sphere.CopyInformation(baseline.ct)
    index = baseline.ct.TransformPhysicalPointToIndex(lung_points(baseline, 5)[0].tolist())
    sphere[index] = 1
    region = sitk.BinaryDilate(sphere, (4, 4, 4))
    displaced = align(
        baseline.ct,
        followup.ct,
        engine="user",
        initial=sitk.CompositeTransform([sitk.TranslationTransform(3, (12.0, 9.0, -14.0)), aligned.transform]),
    )
    good, bad = aligned.local_quality(region), displaced.local_quality(region)
    assert good is not None
    assert bad is not None
    assert 0.0 <= bad < good <= 1.0
    assert good > 0.6
    assert displaced.quality.verdict == "failed"


def test_noise_of_flat_tissue_says_nothing_about_a_faint_lesion_that_lies_well():
    rng = np.random.default_rng(2)
    shape = (31, 31, 31)
    distance = np.linalg.norm(np.indices(shape) - 15.0, axis=0)
    lesion = np.where(distance <= 5.0, 150.0, 0.0)
    first, other = (np.float32(lesion + rng.normal(0.0, 20.0, shape)) for _ in range(2))
    correlation, structure = local_correlation(first, other)
    grid = Grid((0.0, 0.0, 0.0), (3.0, 3.0, 3.0), shape)
    measured = Measured(None, grid, correlation, structure, np.ones(shape, dtype=bool), 1.0, None, first, other)
    telling = measured.telling
    assert (telling[distance > 12.0] == 0.0).all()
    assert (correlation * telling).sum() / telling.sum() > 0.85
    assert (correlation * structure).sum() / structure.sum() < 0.4


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["left-right", "front-back", "head-feet"])
def test_a_flipped_followup_fails(scans, axis):
    baseline, followup = scans
    flipped = sitk.Flip(followup.ct, [item == axis for item in range(3)])
    flipped.CopyInformation(followup.ct)
    quality = align(baseline.ct, flipped, engine="affine").quality
    assert quality.verdict == "failed"
    assert any("axes look mixed up" in reason for reason in quality.reasons)


def test_another_patient_fails(scans):
    other = simulate_patient(12, size="small").at("baseline").ct
    quality = align(scans[0].ct, other).quality
    assert quality.verdict == "failed"
    assert any("another patient" in reason for reason in quality.reasons)


def test_another_kind_of_image_fails(scans):
    baseline, _ = scans
    array = sitk.GetArrayFromImage(baseline.ct).astype(np.float32)
    like_mr = sitk.GetImageFromArray(np.clip(array + 1024.0, 0.0, 2000.0))
    like_mr.CopyInformation(baseline.ct)
    quality = align(baseline.ct, like_mr, engine="rigid").quality
    assert quality.verdict == "failed"
    assert any("does not look like a CT" in reason for reason in quality.reasons)


def test_bad_arguments_are_all_listed(scans):
    baseline, _ = scans
    flat = sitk.Image([8, 8], sitk.sitkInt16)
    with pytest.raises(InputError) as error:
        align(baseline.ct, flat, fixed_mask=baseline.anatomy[1:], engine="magic")
    assert len(error.value.problems) == 3
    with pytest.raises(InputError, match="needs a transform"):
        align(baseline.ct, baseline.ct, engine="user")


def test_it_stops_when_asked(scans):
    baseline, followup = scans

    def stop(fraction: float, message: str) -> None:
        if fraction > 0.1:
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        align(baseline.ct, followup.ct, progress=stop)


def test_both_directions_are_written(scans, aligned, tmp_path):
    there, back = write_transforms(aligned, tmp_path / "transforms", "followup-1")
    assert (there.name, back.name) == ("followup-1.h5", "followup-1_inverse.h5")
    assert max(there.stat().st_size, back.stat().st_size) < 40e6
    points = lung_points(scans[0], 100)
    for path, transform in ((there, aligned.transform), (back, aligned.inverse)):
        assert np.abs(transform_points(points, read_transform(path)) - transform_points(points, transform)).max() < 1e-3
    kept, nearly = read_transform(there), read_transform(back)
    carried = transform_points(points, kept)
    assert np.abs(invert_points(carried, kept, nearly) - points).max() < 1e-3
    # The stored way back alone: exact at its nodes, and linear between them.
    assert np.median(np.linalg.norm(transform_points(carried, nearly) - points, axis=1)) < 0.1


@pytest.mark.slow
def test_a_real_pair_meets_its_landmarks():
    if not LUNG_PAIR.exists():
        pytest.skip(f"the real pair is not at {LUNG_PAIR}")
    images = [sitk.ReadImage(str(LUNG_PAIR / f"{name}.mha")) for name in ("baseline", "followup")]
    marks = [np.loadtxt(LUNG_PAIR / f"{name}_landmarks_lps_mm.txt", skiprows=2) for name in ("baseline", "followup")]
    found = align(*images)
    errors = np.linalg.norm(transform_points(marks[0], found.transform) - marks[1], axis=1)
    assert np.median(errors) <= 1.0
    assert np.median(errors) / 1.5 < found.quality.expected_error_mm < np.median(errors) * 1.5
    assert np.percentile(errors, 90) <= 3.0
    assert found.quality.folding_fraction == 0.0
    assert found.quality.verdict == "good"
