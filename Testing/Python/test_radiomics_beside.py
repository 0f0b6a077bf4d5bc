"""PET, MR and the fused image beside a CT: where their features are read, what they are called, and what cannot be measured."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ImmunoRadiomicsLib.analysis import Features
from ImmunoRadiomicsLib.cli import main
from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics import Beside, extract, extract_beside, load_preset, presets_beside
from ImmunoRadiomicsLib.radiomics.beside import covers, fused

SIZE = 40


def volume(
    values: np.ndarray, spacing: tuple[float, float, float], origin: tuple[float, float, float] = (0, 0, 0)
) -> sitk.Image:
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def ball(centre: float = 20.0, radius: float = 7.0) -> np.ndarray:
    z, y, x = np.mgrid[:SIZE, :SIZE, :SIZE]
    return np.asarray((z - centre) ** 2 + (y - centre) ** 2 + (x - centre) ** 2 <= radius**2)


@pytest.fixture(scope="module")
def scene() -> tuple[sitk.Image, list[RegionMask], tuple[Features, ...]]:
    rng = np.random.default_rng(0)
    ct = volume(np.where(ball(), 40.0, -800.0) + rng.normal(0, 10, (SIZE,) * 3), (2, 2, 2))
    regions = [
        RegionMask.from_array("baseline", "L1", "core", ball()),
        RegionMask.from_array("baseline", "L1", "tiny", ball(radius=1.0)),
        RegionMask.from_array("baseline", None, "lungs", ~ball()),
    ]
    measured = tuple(
        Features(item.timepoint, item.lesion, item.region, item.count, None, {"original_shape_MeshVolume": 1.0})
        for item in regions
    )
    return ct, regions, measured


def test_uptake_is_read_in_the_region_of_the_ct(
    scene: tuple[sitk.Image, list[RegionMask], tuple[Features, ...]],
) -> None:
    ct, regions, measured = scene
    # Uptake that grows by 0.1 SUV per mm along x, on a coarser grid that begins elsewhere: linear interpolation gives it exactly.
    x = -8.0 + 4.0 * np.arange(26)
    pet = volume(np.broadcast_to(3 + 0.1 * x, (26, 26, 26)), (4, 4, 4), (-8, -8, -8))
    core, tiny, lungs = extract_beside(measured, regions, {"baseline": ct}, {"baseline": Beside(pet=pet)})
    assert core.values["original_shape_MeshVolume"] == 1.0
    assert core.values["suv_original_firstorder_Mean"] == pytest.approx(3 + 0.1 * 40, abs=0.05)
    assert core.values["suv_original_firstorder_Maximum"] == pytest.approx(3 + 0.1 * 54, abs=0.2)
    plain = sitk.Resample(sitk.Cast(pet, sitk.sitkFloat64), ct, sitk.Transform(), sitk.sitkLinear, 0.0)
    (expected,) = extract({"baseline": plain}, regions[:1], load_preset("pet-suv"))
    for name, value in expected.values.items():
        assert core.values[f"suv_{name}"] == pytest.approx(value, rel=1e-9), name
    # Half of 7 of 20 SUV and half of (40 + 1000) of 1400 HU.
    assert core.values["fused_original_firstorder_Median"] == pytest.approx(50 * (7 / 20 + 1040 / 1400), abs=1.0)
    assert tiny.values["suv_original_firstorder_Mean"] is None
    assert not [name for name in lungs.values if name.startswith(("suv_", "fused_"))]
    assert not [name for name in core.values if name.startswith("mr_")]


def test_regions_are_brought_on_the_grid_of_the_mr(
    scene: tuple[sitk.Image, list[RegionMask], tuple[Features, ...]],
) -> None:
    ct, regions, measured = scene
    rng = np.random.default_rng(1)
    z, y, x = (np.mgrid[:60, :60, :60] * 1.5) - 5.0
    inside = (z - 40) ** 2 + (y - 40) ** 2 + (x - 40) ** 2 <= 14**2
    values = np.where(inside, 900.0, 300.0) + rng.normal(0, 20, inside.shape)
    mr = volume(values, (1.5, 1.5, 1.5), (-5, -5, -5))
    core = extract_beside(measured, regions, {"baseline": ct}, {"baseline": Beside(mr=mr)})[0]
    scaled = 100 * (values - values.mean()) / values.std()
    # The preset cuts at three standard deviations.
    assert core.values["mr_original_firstorder_Median"] == pytest.approx(min(np.median(scaled[inside]), 300.0), abs=3.0)
    assert core.values["mr_original_shape_VoxelVolume"] == pytest.approx(ball().sum() * 8, rel=0.05)
    assert {name for name in core.values if name.startswith("mr_")} == {
        f"mr_{name}" for name in presets_beside()["mr"].columns
    }


def test_what_an_image_does_not_cover_is_not_measured(
    scene: tuple[sitk.Image, list[RegionMask], tuple[Features, ...]],
) -> None:
    ct, regions, measured = scene
    short = volume(np.full((10, 26, 26), 4.0), (4, 4, 4))
    assert not covers(short, regions[0], ct)
    core = extract_beside(measured, regions, {"baseline": ct}, {"baseline": Beside(pet=short)})[0]
    assert core.values["suv_original_firstorder_Mean"] is None
    assert core.values["fused_original_firstorder_Mean"] is None


def test_fixed_ranges_of_the_fused_image() -> None:
    found = fused(np.array([0.0, 20.0, 30.0, 10.0]), np.array([-1000.0, 400.0, 2000.0, -300.0]))
    assert found == pytest.approx([0.0, 100.0, 100.0, 50.0])


def test_a_whole_run_measures_what_lies_beside_the_ct(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    step, centre, radius = 1.5, 36.0, 9.0

    def away(count: int, spacing: float, origin: float) -> np.ndarray:
        axis = origin + spacing * np.arange(count) - centre
        return np.asarray(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2))

    def write(name: str, values: np.ndarray, spacing: float, origin: float = 0.0) -> None:
        sitk.WriteImage(volume(values, (spacing,) * 3, (origin,) * 3), str(tmp_path / name), useCompression=True)

    far = away(48, step, 0.0)
    inside = far <= radius
    for number in range(2):
        tissue = np.where(inside, 40.0, np.where(far <= 3 * radius, -90.0, -900.0))
        write(f"ct{number}.nrrd", (tissue + rng.normal(0, 10, far.shape)).round(), step)
        mask = sitk.Cast(volume(inside, (step,) * 3), sitk.sitkUInt8)
        sitk.WriteImage(mask, str(tmp_path / f"seg{number}.nrrd"), useCompression=True)
        # Uptake grows by 0.1 SUV per mm along x and doubles until the follow-up.
        uptake = (1 + number) * (5 + 0.1 * (4.0 * np.arange(24) - 8))
        write(f"pet{number}.nrrd", np.broadcast_to(uptake, (24,) * 3), 4.0, -8.0)
    bright = away(20, 5.0, -10.0) <= radius
    signal = np.where(bright, 500.0, 300.0) + rng.normal(0, 100, bright.shape)
    write("mr.nrrd", signal, 5.0, -10.0)
    (tmp_path / "few.yaml").write_text("imageType: {Original: {}}\nfeatureClass: {shape: [], firstorder: []}\n")
    (tmp_path / "study.yaml").write_text(
        "patient: P1\ntimepoints:\n"
        "- {name: baseline, date: 2024-01-10, ct: ct0.nrrd, segmentation: seg0.nrrd, pet: pet0.nrrd, mr: mr.nrrd}\n"
        "- {name: followup-1, date: 2024-03-12, ct: ct1.nrrd, segmentation: seg1.nrrd, pet: pet1.nrrd}\n"
    )
    options = ["--narrow-ring", "--no-scene", "--progress", "off", "--preset", str(tmp_path / "few.yaml")]
    assert main(["analyze", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), *options]) == 0
    with (tmp_path / "out" / "features.csv").open(newline="") as stream:
        found = {(row["timepoint"], row["region"], row["feature"]): row for row in csv.DictReader(stream)}

    def value(region: str, feature: str, timepoint: str = "baseline") -> float:
        return float(found[timepoint, region, feature]["value"])

    # The grid that features are read on may lie half of its voxel, 1.5 mm, beside the middle of the ball.
    for region in ("core", "border", "ring-0-5mm", "ring-5-10mm"):
        assert value(region, "suv_original_firstorder_Mean") == pytest.approx(8.6, abs=0.2), region
        assert value(region, "suv_original_firstorder_Mean", "followup-1") == pytest.approx(17.2, abs=0.4), region
        assert value(region, "original_shape_VoxelVolume") > 500, region
    # Two millimetres are less than the voxels of a PET.
    assert "too small" in found["baseline", "ring-0-2mm", "suv_original_firstorder_Mean"]["reason"]
    assert value("core", "suv_original_firstorder_Maximum") == pytest.approx(8.6 + 0.1 * radius, abs=0.3)
    assert value("ring-0-2mm", "original_shape_VoxelVolume") < value("ring-0-5mm", "original_shape_VoxelVolume")
    assert -90 < value("border", "original_firstorder_Mean") < 40
    assert value("ring-0-2mm", "original_firstorder_Mean") == pytest.approx(-90, abs=5)
    # Half of the uptake of 20 SUV and half of (40 + 1000) of 1400 HU.
    assert value("core", "fused_original_firstorder_Median") == pytest.approx(50 * (8.6 / 20 + 1040 / 1400), abs=1.5)
    scaled = 100 * (signal - signal.mean()) / signal.std()
    assert value("core", "mr_original_firstorder_Mean") == pytest.approx(scaled[bright].mean(), abs=40)
    assert ("followup-1", "core", "mr_original_firstorder_Mean") not in found
    with (tmp_path / "out" / "delta.csv").open(newline="") as stream:
        changes = {(row["region"], row["feature"]): row for row in csv.DictReader(stream)}
    assert float(changes["core", "suv_original_firstorder_Mean"]["relative"]) == pytest.approx(1.0, abs=0.02)
    assert ("core", "fused_original_firstorder_Mean") in changes
