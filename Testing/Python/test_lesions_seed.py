"""One click: lesions of the lung against experts' contours, schematic lesions of known form, and clicks that are mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from ImmunoRadiomicsLib.errors import CancelledError, InputError
from ImmunoRadiomicsLib.lesions.seed import segment_from_seed

SHAPE, SPACING = (90, 90, 90), (1.0, 1.0, 1.0)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2.0 * float((first & second).sum()) / float(first.sum() + second.sum())


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    return (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def image(values: np.ndarray, noise_hu: float = 15.0) -> sitk.Image:
    rng = np.random.default_rng(0)
    blurred = ndimage.gaussian_filter(values.astype(float), 0.6)
    ct = sitk.GetImageFromArray((blurred + rng.normal(0.0, noise_hu, SHAPE)).round().astype(np.int16))
    ct.SetOrigin((-40.0, 12.0, 300.0))
    ct.SetDirection((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    return ct


def chest(*, wall: bool = False) -> np.ndarray:
    values = np.full(SHAPE, -850.0)
    # A vessel through the lung, and the wall of the chest on one side.
    z, y, x = np.indices(SHAPE)
    values[(y - 45) ** 2 + (x - 45) ** 2 <= 2] = 40.0
    if wall:
        values[x < 22] = 45.0
        values[(x < 14) & (z % 24 < 10)] = 600.0
    return values


def clicked(ct: sitk.Image, index: tuple[int, int, int]) -> np.ndarray:
    found = segment_from_seed(ct, ct.TransformIndexToPhysicalPoint(index[::-1]))
    return found.mask.paste(SHAPE)


@pytest.mark.parametrize("height", [36, 40, 44])
def test_a_click_at_the_end_of_a_lesion_on_the_diaphragm(height: int):
    values = chest()
    z, y, x = np.indices(SHAPE)
    dome = z < 30 - ((y - 45) ** 2 + (x - 45) ** 2) / 200
    values[dome] = 50.0
    lesion = ball((height, 50, 45), 14.0) & ~dome
    values[lesion] = 45.0
    ct = image(values)
    # From there the search alone climbs into the liver.
    found = segment_from_seed(ct, ct.TransformIndexToPhysicalPoint((45, 50, 30)))
    assert dice(found.mask.paste(SHAPE), lesion) >= 0.85
    assert "beside the point" in found.check


@pytest.mark.parametrize("radius", [4.0, 11.0])
def test_a_nodule_on_a_vessel(radius):
    lesion = ball((45, 45, 45), radius)
    values = chest()
    values[lesion] = 40.0
    ct = image(values)
    for index in ((45, 45, 45), (45, 45 + int(0.5 * radius), 45), (45, 45, 45 - int(0.6 * radius))):
        assert dice(clicked(ct, index), lesion) >= 0.9


def test_a_lesion_on_the_wall_of_the_chest_is_cut_from_it():
    values = chest(wall=True)
    lesion = ball((45, 50, 28), 13.0) & (np.indices(SHAPE)[2] >= 20)
    values[lesion] = 40.0
    assert dice(clicked(image(values), (45, 50, 30)), lesion) >= 0.8


def test_a_metastasis_in_an_even_organ():
    lesion = ball((42, 47, 45), 10.0)
    values = np.where(lesion, 65.0, 110.0)
    ct = image(values)
    for index in ((42, 47, 45), (42, 52, 45)):
        assert dice(clicked(ct, index), lesion) >= 0.85


def test_a_node_in_fat():
    lesion = ball((45, 45, 45), 8.0)
    values = np.where(lesion, 70.0, -95.0)
    assert dice(clicked(image(values), (45, 47, 43)), lesion) >= 0.9


def test_a_node_between_lung_and_a_vessel_keeps_off_its_fat():
    x = np.indices(SHAPE)[2]
    lesion = ball((45, 45, 45), 9.0)
    values = np.where(x < 34, -850.0, -100.0)
    values[(x >= 54) & (x < 74)] = 150.0
    values[lesion] = 60.0
    for index in ((45, 45, 45), (45, 49, 42)):
        assert dice(clicked(image(values), index), lesion) >= 0.9


def test_a_cavity_belongs_to_its_lesion():
    lesion = ball((45, 50, 50), 14.0)
    values = np.full(SHAPE, -850.0)
    values[lesion] = 40.0
    values[ball((45, 50, 50), 8.0)] = -950.0
    assert dice(clicked(image(values), (45, 50, 61)), lesion) >= 0.85


def test_what_cannot_be_told_apart_is_to_be_checked():
    found = segment_from_seed(
        image(np.full(SHAPE, 50.0)), image(np.zeros(SHAPE)).TransformIndexToPhysicalPoint((45, 45, 45))
    )
    assert found.confidence < 0.5
    assert found.check is not None


@pytest.mark.parametrize(("index", "word"), [((45, 45, 200), "outside"), ((45, 70, 70), "air"), ((2, 40, 5), "bone")])
def test_mistaken_clicks_are_refused(index, word):
    ct = image(chest(wall=True))
    point = ct.TransformContinuousIndexToPhysicalPoint([float(value) for value in index[::-1]])
    with pytest.raises(InputError, match=word):
        segment_from_seed(ct, point)


@pytest.mark.parametrize(("case", "points", "lowest"), [("lung1", 6, 0.80), ("lung2", 5, 0.80)])
def test_experts_contours_of_real_lesions(pyradiomics_data: Path, case: str, points: int, lowest: float):
    ct = sitk.ReadImage(str(pyradiomics_data / f"{case}_image.nrrd"))
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(pyradiomics_data / f"{case}_label.nrrd"))) > 0
    where = np.argwhere(label)
    box = tuple(slice(a, b + 1) for a, b in zip(where.min(axis=0), where.max(axis=0), strict=True))
    depth = ndimage.distance_transform_edt(np.pad(label[box], 1), sampling=ct.GetSpacing()[::-1])[1:-1, 1:-1, 1:-1]
    # Anywhere that is at least half as deep as the deepest place.
    places = np.argwhere(depth >= 0.5 * depth.max()) + where.min(axis=0)
    for index in places[np.random.default_rng(0).choice(len(places), points, replace=False)]:
        found = segment_from_seed(ct, ct.TransformIndexToPhysicalPoint(index[::-1].tolist()))
        assert dice(found.mask.paste(label.shape), label) >= lowest
        assert found.confidence >= 0.5


def test_confidence_tells_lung_from_soft_tissue():
    values = chest()
    values[ball((45, 60, 45), 8.0)] = 40.0
    assert segment_from_seed(image(values), image(values).TransformIndexToPhysicalPoint((45, 60, 45))).confidence >= 0.8
    values = np.full(SHAPE, 100.0)
    values[ball((45, 45, 45), 9.0)] = 50.0
    ct = image(values, 10.0)
    found = segment_from_seed(ct, ct.TransformIndexToPhysicalPoint((45, 45, 45)))
    assert found.confidence <= 0.5
    assert "soft tissue" in found.check


def test_it_can_be_stopped():
    def stop(fraction: float, message: str) -> None:
        raise CancelledError

    ct = image(chest())
    with pytest.raises(CancelledError):
        segment_from_seed(ct, ct.TransformIndexToPhysicalPoint((45, 45, 45)), progress=stop)
