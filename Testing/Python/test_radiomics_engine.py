"""The engine of our own: matrices equal those of pyradiomics to the last count, features to 1e-9, and it needs no pyradiomics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from radiomics import cMatrices, getFeatureClasses
from radiomics.featureextractor import RadiomicsFeatureExtractor
from radiomics_cases import OBLIQUE, assert_equal, ball, ct, plain, preset_of, region

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.radiomics import Preset, extract, load_preset, software_versions
from ImmunoRadiomicsLib.radiomics.engine import matrices, texture
from ImmunoRadiomicsLib.radiomics.engine.intensity import central_moment
from ImmunoRadiomicsLib.radiomics.engine.shape import shape2d_features, shape_features

FILTERS = {
    "Original": {},
    "LoG": {"sigma": [1.0, 2.5]},
    "Wavelet": {},
    "Square": {},
    "SquareRoot": {},
    "Logarithm": {},
    "Exponential": {},
    "Gradient": {},
}


def check(image: sitk.Image, mask: RegionMask, preset: Preset, engine: str = "own") -> None:
    (found,) = extract({mask.timepoint: image}, [mask], preset, engine=engine)
    assert found.reason is None
    assert tuple(found.values) == preset.columns
    expected = plain(image, mask, preset.to_pyradiomics())
    # A value that is zero but for the rounding of its last digit has no relative difference.
    noise = {name for name, value in expected.items() if abs(value) < 1e-13}
    assert_equal(
        {name: value for name, value in found.values.items() if name not in noise},
        {name: value for name, value in expected.items() if name not in noise},
    )
    assert all(abs(found.values[name] or 0) < 1e-11 for name in noise)


@st.composite
def levels(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(*[st.integers(2, 9)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = rng.integers(1, draw(st.sampled_from([1, 2, 6, 40, 300])) + 1, shape)
    if draw(st.booleans()):
        array.sort(axis=draw(st.integers(0, 2)))
    array *= rng.random(shape) < draw(st.sampled_from([0.05, 0.4, 0.9, 1.0]))
    array[0, 0, 0] = 1
    return array


@settings(max_examples=80, deadline=None)
@given(
    levels(), st.sampled_from([(1,), (1, 2), (2,)]), st.sampled_from([None, 0, 1, 2]), st.integers(0, 2), st.booleans()
)
def test_matrices_are_those_of_pyradiomics(
    array: np.ndarray, distances: tuple[int, ...], plane: int | None, alpha: int, large: bool
) -> None:
    with mock.patch.multiple(matrices, _SMALL=0 if large else 1 << 14, _BLOCK=64):
        compare_matrices(array, distances, plane, alpha)


def compare_matrices(array: np.ndarray, distances: tuple[int, ...], plane: int | None, alpha: int) -> None:
    ng, mask = int(array.max()), array > 0
    flat = (plane is not None, plane or 0)
    wanted = np.array(distances)
    if not len(matrices.directions(array.shape, distances, plane)):
        return
    pairs, steps = cMatrices.calculate_glcm(array, mask, wanted, ng, *flat)
    np.testing.assert_array_equal(matrices.directions(array.shape, distances, plane), steps)
    np.testing.assert_array_equal(matrices.glcm(array, ng, distances, plane), pairs[0].transpose(2, 0, 1))

    runs, _ = cMatrices.calculate_glrlm(array, mask, ng, max(array.shape), *flat)
    found = matrices.glrlm(array, ng, plane)
    found[matrices.lone_directions(array, plane)] = 0
    whole = np.zeros((len(found), ng, max(array.shape)))
    whole[:, :, : found.shape[2]] = found
    np.testing.assert_array_equal(whole, runs[0].transpose(2, 0, 1))

    sizes, zones = matrices.glszm(array, ng, plane)
    reference = cMatrices.calculate_glszm(array, mask, ng, int(mask.sum()), *flat)[0]
    assert zones.sum() == reference.sum()
    np.testing.assert_array_equal(zones, reference[:, sizes - 1])

    dependences = matrices.gldm(array, ng, alpha, distances, plane)
    reference = cMatrices.calculate_gldm(array, mask, wanted, ng, alpha, *flat)[0]
    np.testing.assert_array_equal(dependences, reference[:, : dependences.shape[1]])

    counts, differences, _ = matrices.ngtdm(array, ng, distances, plane)
    reference = cMatrices.calculate_ngtdm(array, mask, wanted, ng, *flat)[0]
    np.testing.assert_array_equal(np.column_stack([counts, differences]), reference[:, :2])


@settings(max_examples=80, deadline=None)
@given(levels(), st.booleans(), st.sampled_from([None, 1e-9]))
def test_the_maximal_correlation_is_that_of_pyradiomics(
    array: np.ndarray, symmetrical: bool, rare: float | None
) -> None:
    """By way of a symmetrical matrix, also where rare levels let the epsilon of pyradiomics count."""
    counts = matrices.glcm(array, int(array.max())).transpose(1, 2, 0)
    used = (counts.sum(axis=(1, 2)) + counts.sum(axis=(0, 2))) > 0
    counts = counts[used][:, used]
    counts = counts[:, :, counts.sum(axis=(0, 1)) > 0]
    if len(counts) < 2:
        return
    p = counts + counts.transpose(1, 0, 2) if symmetrical else counts
    if rare is not None:
        p[0] *= rare
        p[:, 0] *= rare
    p = p / p.sum(axis=(0, 1))
    px, py = p.sum(axis=1), p.sum(axis=0)
    expected = texture._maximal_correlation_step_by_step(p, px, py)
    found = texture.maximal_correlation(p, px, py)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("shift", [0.0, 1e-7, 0.3])
def test_moments_that_all_but_vanish(shift: float) -> None:
    """A symmetrical distribution has no skewness but for the rounding of powers, which is kept."""
    half = np.random.default_rng(0).normal(0, 100, 500)
    values = np.concatenate([half, -half, [shift]])
    d = values - values.mean()
    expected = [float(np.power(d, order).mean()) for order in (2, 3, 4)]
    np.testing.assert_allclose([central_moment(values, order) for order in (2, 3, 4)], expected, rtol=1e-9, atol=0)


@settings(max_examples=60, deadline=None)
@given(levels(), st.tuples(*[st.floats(0.5, 4)] * 3), st.booleans())
def test_shapes_are_those_of_pyradiomics(array: np.ndarray, spacing: tuple[float, float, float], flat: bool) -> None:
    mask = array[:1] > 0 if flat else array > 0
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    for name in ("shape", "shape2D")[: 1 + flat]:
        instance = getFeatureClasses()[name](image, image, force2D=True, force2Ddimension=0)
        for feature in instance.featureNames:
            instance.enableFeatureByName(feature)
        with np.errstate(all="ignore"):
            expected = {feature: float(np.real(value)) for feature, value in instance.execute().items()}
        found = shape_features(mask, spacing) if name == "shape" else shape2d_features(mask[0], spacing[1:])
        assert set(found) == set(expected)
        for feature, value in expected.items():
            if np.isfinite(value):
                assert found[feature] == pytest.approx(value, rel=1e-9, abs=1e-12), feature


@pytest.mark.parametrize("shape", ["ring", "corner", "scattered"])
def test_every_filter(shape: str) -> None:
    image = ct((30, 40, 42))
    masks = {
        "ring": ball(image, (15, 20, 21), 9) & ~ball(image, (15, 20, 21), 5),
        "corner": ball(image, (1, 9, 2), 8),
        "scattered": np.random.default_rng(1).random((30, 40, 42)) < 0.01,
    }
    check(image, region(masks[shape]), preset_of(FILTERS, binWidth=25))


@pytest.mark.parametrize("name", ["ct-lesion-fast", "ct-lung", "pet-suv", "mr"])
def test_presets(name: str) -> None:
    image = ct((40, 60, 56), direction=OBLIQUE)
    if name == "pet-suv":
        image = sitk.Cast(image, sitk.sitkFloat32) / 400 + 4
    check(image, region(ball(image, (20, 30, 28), 14)), load_preset(name))


@pytest.mark.parametrize(
    "setting",
    [
        {"binCount": 16},
        {"force2D": True, "force2Ddimension": 1, "binWidth": 25},
        {"preCrop": True, "padDistance": 3, "binWidth": 25},
        {"resegmentRange": [-2, 2], "resegmentMode": "sigma", "resegmentShape": True, "binWidth": 25},
        {"distances": [1, 2], "weightingNorm": "manhattan", "symmetricalGLCM": False, "gldm_a": 1, "binWidth": 25},
        {"weightingNorm": "infinity", "voxelArrayShift": 1000, "binWidth": 25},
        {"normalize": True, "normalizeScale": 100, "removeOutliers": 2, "binWidth": 5},
    ],
    ids=",".join,
)
def test_settings(setting: dict[str, Any]) -> None:
    image = ct((30, 40, 42))
    types = {"Original": {}, "Wavelet": {"start_level": 1, "level": 2, "wavelet": "haar"}}
    check(image, region(ball(image, (15, 20, 21), 7)), preset_of(types, **setting))


def odd_regions() -> dict[str, np.ndarray]:
    whole = np.zeros((12, 14, 13), bool)
    regions = {name: whole.copy() for name in ("line", "plane", "hole", "parts", "diagonal")}
    regions["line"][5, 5, 3:9] = True
    regions["plane"][5, 3:9, 3:9] = True
    regions["hole"][2:9, 2:9, 2:9] = True
    regions["hole"][4:7, 4:7, 4:7] = False
    regions["parts"][1:4, 1:4, 1:4] = regions["parts"][8:11, 8:11, 8:11] = True
    regions["diagonal"][np.arange(10), np.arange(10), np.arange(10)] = True
    return {**regions, "full": ~whole}


@pytest.mark.parametrize("engine", ["own", "pyradiomics"])
@pytest.mark.parametrize("name", odd_regions())
def test_odd_regions(name: str, engine: str) -> None:
    image = ct((12, 14, 13), (0.5, 0.5, 10.0))
    preset = preset_of({"Original": {}}, binWidth=25, minimumROIDimensions=1)
    check(image, region(odd_regions()[name]), preset, engine)


@pytest.mark.parametrize("engine", ["own", "pyradiomics"])
def test_label_255_of_an_oblique_image(engine: str) -> None:
    image = ct((12, 14, 13), direction=OBLIQUE)
    labels = np.where(ball(image, (6, 7, 6), 4), 255, 0).astype(np.uint8)
    labels[0, 0, 0] = 1
    mask = sitk.GetImageFromArray(labels)
    mask.CopyInformation(image)
    preset = preset_of({"Original": {}}, binWidth=25)
    expected = RadiomicsFeatureExtractor(preset.to_pyradiomics()).execute(image, mask, label=255)
    (found,) = extract({"baseline": image}, [region(labels == 255)], preset, engine=engine)
    assert_equal(found.values, {name: float(np.real(expected[name])) for name in preset.columns})


@pytest.mark.parametrize("engine", ["own", "pyradiomics"])
def test_one_voxel_has_a_reason(engine: str) -> None:
    image = ct((12, 14, 13))
    mask = np.zeros((12, 14, 13), bool)
    mask[5, 5, 5] = True
    preset = preset_of({"Original": {}}, binWidth=25, minimumROIDimensions=1)
    (found,) = extract({"baseline": image}, [region(mask)], preset, engine=engine)
    assert (found.reason, found.values) == ("the region is a single voxel", {})


@pytest.mark.parametrize("engine", ["own", "pyradiomics"])
def test_a_region_without_neighbours_in_its_plane_has_a_reason(engine: str) -> None:
    image = ct((12, 14, 13))
    mask = np.zeros((12, 14, 13), bool)
    mask[3:9, 5, 5] = True
    preset = preset_of({"Original": {}}, binWidth=25, minimumROIDimensions=1, force2D=True, force2Ddimension=0)
    (found,) = extract({"baseline": image}, [region(mask)], preset, engine=engine)
    assert "no neighbours" in str(found.reason)


@pytest.mark.parametrize("engine", ["own", "pyradiomics"])
@pytest.mark.parametrize("kind", ["constant", "extremes", "float64", "checkered"])
def test_odd_intensities(kind: str, engine: str) -> None:
    rng = np.random.default_rng(0)
    array = {
        "constant": np.full((12, 14, 13), 50, np.int16),
        "extremes": rng.choice([-32768, 32767, 0], (12, 14, 13)).astype(np.int16),
        "float64": rng.normal(0, 1e-3, (12, 14, 13)),
        "checkered": np.where(np.indices((12, 14, 13)).sum(0) % 2, 0, 100).astype(np.int16),
    }[kind]
    image = sitk.GetImageFromArray(array)
    width = {"extremes": 500, "float64": 2e-4}.get(kind, 25)
    check(image, region(ball(image, (6, 7, 6), 5)), preset_of({"Original": {}}, binWidth=width), engine)


def test_engines_are_named_and_chosen() -> None:
    image = ct((12, 20, 20))
    mask = region(ball(image, (6, 10, 10), 4))
    preset = preset_of({"Original": {}}, binWidth=25)
    assert software_versions("own")["engine"].startswith("own")
    assert "pyradiomics" not in software_versions("own")
    assert software_versions()["engine"].startswith("pyradiomics")
    with pytest.raises(InputError, match="no engine"):
        extract({"baseline": image}, [mask], preset, engine="fast")


def test_without_pyradiomics_and_pywavelets_our_own_engine_is_used() -> None:
    code = (
        "import sys\n"
        "for name in ('radiomics', 'pywt'): sys.modules[name] = None\n"
        "from radiomics_cases import ball, ct, region\n"
        "from ImmunoRadiomicsLib.radiomics import extract, load_preset, software_versions\n"
        "image = ct((30, 40, 42))\n"
        "preset = load_preset('ct-lesion')\n"
        "(found,) = extract({'baseline': image}, [region(ball(image, (15, 20, 21), 7))], preset)\n"
        "assert found.reason is None and sum(value is None for value in found.values.values()) == 0\n"
        "print(len(found.values), software_versions()['engine'])\n"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{here}:{here.parents[1]}", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1130 own")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lung1", "lung2", "brain1", "breast1"])
def test_data_of_pyradiomics(pyradiomics_data: Path, case: str) -> None:
    image = sitk.ReadImage(str(pyradiomics_data / f"{case}_image.nrrd"))
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(pyradiomics_data / f"{case}_label.nrrd")))
    types = {"Original": {}, "LoG": {"sigma": [1.0, 3.0, 5.0]}, "Wavelet": {}}
    check(image, region(label == 1), preset_of(types, binWidth=25))
