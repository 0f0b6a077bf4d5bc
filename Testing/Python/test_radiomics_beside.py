"""PET, MR and the fused image beside a CT: where their features are read, what they are called, and what cannot be measured."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from ImmunoRadiomicsLib.analysis import Features
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
