"""The features of the image biomarker standard: consensus values, definitions by brute force, and odd regions."""

from __future__ import annotations

import csv
import itertools
import math
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from radiomics_cases import OBLIQUE, ball, ct, region
from scipy.spatial import ConvexHull

from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics import extract, load_preset
from ImmunoRadiomicsLib.radiomics.ibsi import (
    FEATURES,
    WITHOUT_CONSENSUS,
    Discretisation,
    IbsiSettings,
    Interpolation,
    measure,
)
from ImmunoRadiomicsLib.radiomics.ibsi.catalogue import AGGREGATIONS
from ImmunoRadiomicsLib.radiomics.ibsi.grid import PEAK_RADIUS_MM, Levels, Region, discretise, prepare
from ImmunoRadiomicsLib.radiomics.ibsi.intensity import histogram, peaks, statistics, volume_histogram
from ImmunoRadiomicsLib.radiomics.ibsi.morphology import (
    ellipsoid_area,
    enclosing_ellipsoid,
    morphology,
    oriented_box,
    surface_extremes,
)
from ImmunoRadiomicsLib.radiomics.ibsi.texture import textures
from ImmunoRadiomicsLib.radiomics.preparation import UnmeasurableError
from ImmunoRadiomicsLib.resources import resource

CT_PHANTOM = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "images" / "ibsi_ct_phantom"

# The digital phantom as the reference manual defines it (doi:10.1148/radiol.2020191145): slices of 4 rows and 5 columns,
# voxels of 2 mm; in brackets what does not belong to the region.
DIGITAL = """
1 4 4 1 1  |   1  4 4 1 1  |  1 4  4  (1) (1)  |  1 4 4 (1) (1)
1 4 6 1 1  |   1  1 6 1 1  |  1 1  1   1   1   |  1 1 1  1   1
4 1 6 4 1  |  (1) 1 3 1 1  |  1 1 (9)  1   1   |  1 1 1  1   1
4 4 6 4 1  |   4  4 6 1 1  |  1 1  6   1   1   |  1 1 6  1   1
"""
WHOLE_HU = Discretisation("none")


def digital_phantom() -> tuple[sitk.Image, RegionMask]:
    cells = np.array([[part.split() for part in row.split("|")] for row in DIGITAL.strip().splitlines()])
    cells = cells.transpose(1, 0, 2)
    image = sitk.GetImageFromArray(np.char.strip(cells, "()").astype(np.int16))
    image.SetSpacing((2.0, 2.0, 2.0))
    return image, region(~np.char.startswith(cells, "("))


@lru_cache
def ct_phantom() -> tuple[sitk.Image, RegionMask]:
    if not CT_PHANTOM.is_dir():
        pytest.skip(f"the CT phantom is not in {CT_PHANTOM}")
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(CT_PHANTOM / "mask.nii.gz"))) != 0
    return sitk.ReadImage(str(CT_PHANTOM / "phantom.nii.gz")), region(mask)


@lru_cache
def table() -> tuple[dict[str, str], ...]:
    with resource("Presets", "ibsi_compliance.csv").open(encoding="ascii", newline="") as file:
        return tuple(csv.DictReader(file))


def rows_of(configuration: str) -> list[dict[str, str]]:
    return [row for row in table() if row["configuration"] == configuration]


def assert_consensus(found: dict[str, float | None], configuration: str) -> None:
    """Every value lies within the published tolerance, and is the one in the table that is shipped."""
    rows = rows_of(configuration)
    assert [row["feature"] for row in rows] == list(found)
    wrong = []
    for row in rows:
        value = found[row["feature"]]
        assert value is not None, row["feature"]
        if row["reference"]:
            rounded = float(f"{value:.2e}")
            reference, tolerance = float(row["reference"]), float(row["tolerance"])
            if not abs(rounded - reference) <= tolerance + 1e-9 * abs(reference):
                wrong.append((row["feature"], value, reference, tolerance))
        assert value == pytest.approx(float(row["value"]), rel=1e-4, abs=1e-9), row["feature"]
    assert not wrong


def whole(shape: tuple[int, ...] = (6, 7, 8), *, seed: int = 0, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)):
    """A region of random whole numbers with random holes, already on its grid."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.8
    return Region(rng.integers(-20, 30, shape).astype(float), mask, mask & (rng.random(shape) < 0.9), spacing)


def settings_with(**changes) -> IbsiSettings:
    values = {
        "interpolation": None,
        "intensity_range": (None, None),
        "outlier_sigma": None,
        "discretisation": Discretisation("fixed_bin_size", width=25.0),
        "volume_histogram": WHOLE_HU,
        "aggregations": tuple(AGGREGATIONS),
    }
    return IbsiSettings(**{**values, **changes})


def test_digital_phantom() -> None:
    image, mask = digital_phantom()
    assert mask.count == 74
    found = measure(image, mask, settings_with(discretisation=Discretisation("fixed_bin_size", width=1.0)))
    assert_consensus(found, "digital")


@pytest.mark.parametrize("configuration", "abcde")
def test_ct_phantom(configuration: str) -> None:
    image, mask = ct_phantom()
    features = extract({"baseline": image}, [mask], load_preset(f"ibsi-{configuration}"))[0]
    assert features.reason is None
    assert_consensus(features.values, configuration)


@pytest.mark.parametrize(
    ("configuration", "voxels", "kept", "extremes"),
    [
        ("a", 125256, 114596, (-500, 377)),
        ("b", 29842, 27359, (-500, 391)),
        ("c", 45985, 45981, (-939, 393)),
        ("d", 45985, 44465, (-724, 521)),
        ("e", 45985, 44484, (-743, 345)),
    ],
)
def test_masks_of_the_ct_phantom(configuration: str, voxels: int, kept: int, extremes: tuple[int, int]) -> None:
    """The published diagnostic values of the morphological and the intensity mask, met exactly."""
    preset = load_preset(f"ibsi-{configuration}")
    assert preset.ibsi is not None
    prepared = prepare(*ct_phantom(), preset.ibsi)
    assert np.count_nonzero(prepared.morphological) == voxels
    assert np.count_nonzero(prepared.intensity) == kept
    assert (prepared.inside.min(), prepared.inside.max()) == extremes


def test_the_table_holds_every_feature_and_no_mismatch() -> None:
    checked = [row for row in table() if row["reference"]]
    assert {row["configuration"] for row in checked} == {"digital", *"abcde"}
    assert {row["match"] for row in checked} == {"yes"}
    assert len({row["code"] for row in checked}) == len(FEATURES) - len(WITHOUT_CONSENSUS) == 169
    assert len({feature.code for feature in FEATURES}) == len({feature.name for feature in FEATURES}) == 174
    assert {row["pyradiomics_match"] for row in checked} == {"", "yes", "no"}
    causes = {row["pyradiomics_deviation"] for row in checked if row["pyradiomics_match"] == "no"}
    assert causes == {"resampling and mask", "bin edges", "definition"}


def test_new_grid_has_the_centre_of_the_old_one() -> None:
    shape, spacing = (30, 61, 72), np.array((2.5, 0.9, 0.7))
    places = np.indices(shape).transpose(1, 2, 3, 0) - (np.array(shape) - 1) / 2
    image = sitk.GetImageFromArray((places * spacing) @ np.array([3.0, -2.0, 1.5]) + 7)
    image.SetSpacing(spacing[::-1].tolist())
    mask = region(ball(image, (15, 30, 36), 9))
    for order in (1, 3):
        grid = Interpolation((1.0, 1.0, 1.0), order, round_intensities=False)
        values = prepare(image, mask, settings_with(interpolation=grid)).values
        # Both kinds of interpolation keep a ramp, so values tell where the new voxels lie.
        for axis, slope in enumerate((3.0, -2.0, 1.5)):
            assert np.diff(values, axis=axis) == pytest.approx(slope, abs=1e-4)
        # The middle one of 75 x 55 x 51 voxels of 1 mm is at the centre, where the ramp is 7.
        steps = (values - 7) / 0.5
        assert steps == pytest.approx(np.rint(steps), abs=1e-3)


def test_splines_of_a_part_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ct((90, 60, 56))
    mask = region(ball(image, (40, 30, 28), 4))
    wanted = settings_with(interpolation=Interpolation((1.0, 1.0, 1.0), 3, round_intensities=False))
    found = prepare(image, mask, wanted)
    monkeypatch.setattr("ImmunoRadiomicsLib.radiomics.ibsi.grid._SPLINE_MARGIN", 60)
    whole_image = prepare(image, mask, wanted)
    assert found.values == pytest.approx(whole_image.values, abs=1e-9)


def test_half_a_voxel_is_inside() -> None:
    image = sitk.GetImageFromArray(np.arange(8**3, dtype=np.int16).reshape(8, 8, 8))
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask[2:5, 2:6, 2:6] = True
    found = prepare(image, region(mask), settings_with(interpolation=Interpolation((2.0, 2.0, 2.0))))
    # Voxels of 2 mm begin at 0: the third layer of the region fills half of its voxel.
    assert np.count_nonzero(found.morphological) == 2 * 2 * 2
    less = Interpolation((2.0, 2.0, 2.0), mask_threshold=0.6)
    found = prepare(image, region(mask), settings_with(interpolation=less))
    assert np.count_nonzero(found.morphological) == 1 * 2 * 2


def test_resegmentation_is_the_intersection_and_leaves_the_shape() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 100, (9, 10, 11))
    values[0, 0, :3] = (5000, -5000, 900)
    image = sitk.GetImageFromArray(values)
    mask = np.ones(values.shape, dtype=bool)
    found = prepare(image, region(mask), settings_with(intensity_range=(-50.0, 150.0), outlier_sigma=0.5))
    near = np.abs(values - values.mean()) <= 0.5 * values.std()
    expected = (values >= -50) & (values <= 150) & near
    assert np.array_equal(found.intensity, expected)
    assert found.morphological.all()


def test_bins_begin_at_the_lower_limit() -> None:
    values = np.array([[[-30.0, -5.0, -5.1, 0.0, 19.9, 20.0]]])
    mask = np.ones(values.shape, dtype=bool)
    prepared = Region(values, mask, mask, (1.0, 1.0, 1.0))
    fixed = discretise(prepared, Discretisation("fixed_bin_size", width=25.0), -55.0)
    assert fixed.array.ravel().tolist() == [2, 3, 2, 3, 3, 4]
    assert discretise(prepared, Discretisation("fixed_bin_size", width=25.0), None).array.ravel().tolist() == [
        1,
        2,
        1,
        2,
        2,
        3,
    ]
    number = discretise(prepared, Discretisation("fixed_bin_number", bins=2), None)
    assert number.array.ravel().tolist() == [1, 2, 1, 2, 2, 2]
    assert number.count == 2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.9)])
def test_spatial_correlation_over_all_pairs(spacing: tuple[float, float, float]) -> None:
    prepared = whole(spacing=spacing)
    places = np.argwhere(prepared.intensity) * np.array(spacing)
    values = prepared.inside
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    weight = np.divide(1, distance, out=np.zeros_like(distance), where=distance > 0)
    deviation = values - values.mean()
    count = len(values)
    moran = count / weight.sum() * (weight * np.outer(deviation, deviation)).sum() / (deviation @ deviation)
    squares = (weight * (values[:, None] - values[None]) ** 2).sum()
    geary = (count - 1) / (2 * weight.sum()) * squares / (deviation @ deviation)
    found = morphology(prepared)
    assert found["morph_moran_i"] == pytest.approx(moran, rel=1e-9)
    assert found["morph_geary_c"] == pytest.approx(geary, rel=1e-9)


def test_spatial_correlation_of_a_large_box_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = whole((20, 21, 22), seed=7, spacing=(2.5, 0.7, 0.9))
    expected = morphology(prepared)
    monkeypatch.setattr("ImmunoRadiomicsLib.radiomics.ibsi.morphology._DOUBLE_PRECISION_VOXELS", 0)
    found = morphology(prepared)
    for name in ("morph_moran_i", "morph_geary_c"):
        assert found[name] != expected[name]
        assert found[name] == pytest.approx(expected[name], rel=1e-4)


def test_peaks_by_brute_force() -> None:
    prepared = whole((8, 9, 10), spacing=(3.0, 2.0, 2.5))
    places = np.indices(prepared.values.shape).reshape(3, -1).T * np.array(prepared.spacing_zyx)
    flat = prepared.values.ravel()
    means = []
    for place in np.argwhere(prepared.intensity) * np.array(prepared.spacing_zyx):
        near = np.linalg.norm(places - place, axis=1) <= PEAK_RADIUS_MM
        means.append(flat[near].mean())
    found = peaks(prepared)
    assert found["loc_peak_glob"] == pytest.approx(max(means), rel=1e-9)
    highest = prepared.inside == prepared.inside.max()
    assert found["loc_peak_loc"] == pytest.approx(np.array(means)[highest].max(), rel=1e-9)


def test_extreme_points_have_the_hull_of_the_surface() -> None:
    mask = whole((5, 6, 7), seed=3).morphological
    padded = np.pad(mask, 1)
    vertices = []
    for axis in range(3):
        change = np.argwhere(np.diff(padded, axis=axis)).astype(float)
        change[:, axis] += 0.5
        vertices.append(change - 1)
    expected, found = ConvexHull(np.concatenate(vertices)), ConvexHull(surface_extremes(mask))
    assert found.volume == pytest.approx(expected.volume, rel=1e-12)
    assert found.area == pytest.approx(expected.area, rel=1e-12)


def test_enclosing_bodies_of_known_bodies() -> None:
    rng = np.random.default_rng(2)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    box = np.array(list(itertools.product((-1, 1), repeat=3))) * np.array([2.0, 3.0, 5.0]) @ turn.T
    edges = oriented_box(box, ConvexHull(box).equations[:, :3])
    assert np.sort(edges) == pytest.approx([4, 6, 10], rel=1e-9)
    directions = rng.normal(size=(4000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    semi = enclosing_ellipsoid(directions * np.array([2.0, 3.0, 5.0]) @ turn.T)
    assert np.sort(semi) == pytest.approx([2, 3, 5], rel=0.01)
    # The smallest ellipsoid around a box has the semi-axes of the box times the square root of 3.
    assert np.sort(enclosing_ellipsoid(box)) == pytest.approx(np.sqrt(3) * np.array([2, 3, 5]), rel=1e-3)
    assert ellipsoid_area(3.0, 3.0, 3.0) == pytest.approx(36 * math.pi, rel=1e-12)


def test_shape_of_a_ball() -> None:
    image = ct((50, 50, 50), spacing=(1.0, 1.0, 1.0))
    found = morphology(prepare(image, region(ball(image, (25, 25, 25), 20)), settings_with()))
    assert found["morph_volume"] == pytest.approx(4 / 3 * math.pi * 20**3, rel=0.01)
    assert found["morph_diam"] == pytest.approx(40, abs=1.1)
    for axis in ("maj", "min", "least"):
        assert found[f"morph_pca_{axis}_axis"] == pytest.approx(4 * 20 / math.sqrt(5), rel=0.01)
    assert found["morph_pca_flatness"] == pytest.approx(1, rel=1e-9)
    assert found["morph_vol_dens_mvee"] == pytest.approx(1, abs=0.08)
    assert found["morph_vol_dens_conv_hull"] == pytest.approx(1, abs=0.05)
    assert found["morph_vol_dens_aabb"] == pytest.approx(math.pi / 6, abs=0.04)


def test_statistics_of_one_intensity() -> None:
    found = statistics(np.full(9, 5.0))
    assert (found["stat_var"], found["stat_skew"], found["stat_kurt"]) == (0, 0, 0)
    assert found["stat_energy"] == 225
    assert histogram(np.ones(4, dtype=int), 1)["ih_entropy"] == 0


def test_volume_histogram_of_a_ramp() -> None:
    values = np.arange(101.0).reshape(1, 1, -1)
    mask = np.ones(values.shape, dtype=bool)
    found = volume_histogram(Region(values, mask, mask, (1.0, 1.0, 1.0)), WHOLE_HU, (None, None))
    # Of 101 intensities 91 lie at or above 10, and the smallest that at most 10 % reach is 91.
    assert found["ivh_v10"] == pytest.approx(91 / 101)
    assert found["ivh_v90"] == pytest.approx(11 / 101)
    assert (found["ivh_i10"], found["ivh_i90"]) == (91, 11)
    assert found["ivh_auc"] == pytest.approx(0.5, abs=0.01)


@settings(max_examples=12, deadline=None)
@given(arrays.arrays(np.int64, (4, 5, 3), elements=st.integers(0, 4)), st.permutations(range(3)), st.booleans())
def test_textures_in_3d_do_not_depend_on_the_orientation(levels: np.ndarray, axes: list[int], flip: bool) -> None:
    if not levels.any():
        return
    turned = levels.transpose(axes)
    if flip:
        turned = turned[::-1]
    wanted = ("3D_avg", "3D_comb")
    before = textures(Levels(levels, 4), levels > 0, wanted)
    after = textures(Levels(np.ascontiguousarray(turned), 4), turned > 0, wanted)
    assert list(before) == list(after)
    assert np.array(list(after.values())) == pytest.approx(np.array(list(before.values())), rel=1e-9, nan_ok=True)


def test_slices_of_one_kind_have_the_features_of_one() -> None:
    """Identical slices: averages over slices are those of one slice, and so is what is normalised after merging."""
    rng = np.random.default_rng(4)
    one = rng.integers(0, 5, (1, 8, 9))
    wanted = ("2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb")
    single = textures(Levels(one, 4), one > 0, wanted)
    stack = np.repeat(one, 5, axis=0)
    several = textures(Levels(stack, 4), stack > 0, wanted)
    grows = ("nu_2_5D", "nu_2_5D_comb", "nu_2_5D_avg")
    for name, value in single.items():
        if name.startswith("ngt") and "2_5D" in name:
            continue
        factor = 5 if name.endswith(grows) else 1
        assert several[name] == pytest.approx(factor * value, rel=1e-9), name


def odd_regions() -> dict[str, np.ndarray]:
    masks = {name: np.zeros((9, 10, 11), dtype=bool) for name in ("voxel", "line", "layer", "hole", "parts", "corner")}
    masks["voxel"][4, 5, 6] = True
    masks["line"][4, 5, 2:8] = True
    masks["layer"][4, 2:8, 2:8] = True
    masks["hole"][2:7, 2:7, 2:7] = True
    masks["hole"][4, 4, 4] = False
    masks["parts"][0:2, 0:2, 0:2] = True
    masks["parts"][7:9, 8:10, 9:11] = True
    masks["corner"][0:2, 0:2, 0:2] = True
    masks["full"] = np.ones((9, 10, 11), dtype=bool)
    return masks


@pytest.mark.parametrize("constant", [False, True], ids=["noise", "constant"])
@pytest.mark.parametrize("name", odd_regions())
def test_odd_regions_are_measured_or_missing(name: str, constant: bool) -> None:
    rng = np.random.default_rng(5)
    array = np.full((9, 10, 11), 40.0) if constant else rng.normal(40, 30, (9, 10, 11))
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.5, 10.0))
    image.SetDirection(OBLIQUE)
    wanted = settings_with(interpolation=Interpolation((0.5, 0.5, None)))
    found = measure(image, region(odd_regions()[name]), wanted)
    assert tuple(found) == wanted.columns
    values = [value for value in found.values() if value is not None]
    assert all(math.isfinite(value) for value in values)
    if name == "voxel":
        assert found["cm_contrast_3D_avg"] is None
        assert found["morph_moran_i"] is None
        assert found["stat_mean"] == pytest.approx(round(float(array[4, 5, 6])))
    elif not constant:
        assert found["cm_contrast_3D_avg"] is not None
        assert found["morph_moran_i"] is not None


def test_extremes_of_sixteen_bits() -> None:
    array = np.full((8, 8, 8), -32768, dtype=np.int16)
    array[:, :, 4:] = 32767
    mask = region(np.ones(array.shape, dtype=bool))
    binned = settings_with(discretisation=Discretisation("fixed_bin_number", bins=64))
    found = measure(sitk.GetImageFromArray(array), mask, binned)
    assert found["stat_range"] == 65535
    assert found["ih_max"] == 64
    with pytest.raises(UnmeasurableError, match="grey levels"):
        measure(
            sitk.GetImageFromArray(array),
            mask,
            settings_with(discretisation=Discretisation("fixed_bin_size", width=1.0)),
        )


def test_reasons() -> None:
    image = ct()
    mask = ball(image, (20, 30, 28), 7)
    with pytest.raises(UnmeasurableError, match="leaves none of the"):
        measure(image, region(mask), settings_with(intensity_range=(5000.0, None)))
    speck = np.zeros_like(mask)
    speck[3, 3, 3] = True
    with pytest.raises(UnmeasurableError, match="after interpolation"):
        measure(image, region(speck), settings_with(interpolation=Interpolation((5.0, 5.0, 5.0))))
    array = sitk.GetArrayFromImage(image).astype(float)
    array[20, 30, 28] = np.nan
    bad = sitk.GetImageFromArray(array)
    bad.CopyInformation(image)
    with pytest.raises(UnmeasurableError, match="not finite"):
        measure(bad, region(mask), settings_with())
    features = extract({"baseline": image}, [region(mask & False), region(speck)], load_preset("ibsi-c"))
    assert features[0].reason == "the region is empty"
    assert features[0].values == {}


def test_pyradiomics_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ct()
    mask = region(ball(image, (20, 30, 28), 7))
    expected = extract({"baseline": image}, [mask], load_preset("ibsi-c"))[0]
    for name in ("radiomics", "pywt"):
        monkeypatch.setitem(sys.modules, name, None)
    found = extract({"baseline": image}, [mask], load_preset("ibsi-c"))[0]
    assert found.values == expected.values


def test_values_do_not_depend_on_the_place_in_the_image() -> None:
    """A wider image around the same voxels gives the same values, also where the region touches the border."""
    rng = np.random.default_rng(6)
    array = rng.integers(-100, 200, (12, 14, 16)).astype(np.int16)
    mask = np.zeros(array.shape, dtype=bool)
    mask[3:9, 4:10, 5:12] = True
    wanted = settings_with(aggregations=("3D_comb",))
    before = measure(sitk.GetImageFromArray(array), region(mask), wanted)
    wide = np.pad(array, 20, mode="constant", constant_values=-1000)
    after = measure(sitk.GetImageFromArray(wide), region(np.pad(mask, 20)), wanted)
    for name, value in before.items():
        if not name.startswith("loc_"):
            assert after[name] == pytest.approx(value, rel=1e-9, nan_ok=True), name
