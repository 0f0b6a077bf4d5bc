"""Vessels of known course: helices, trees and straight tubes at clinical spacing with blur and noise."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import cKDTree

from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.images import RegionMask
from ImmunoRadiomicsLib.lesions.vessels import (
    measure_vessels,
    trace_vessels,
    vessel_features,
    vessel_names,
    vessels_around,
)

SPACING_MM = (0.75, 0.75, 1.25)
FINER = 3


def scan(
    curves: list[tuple[np.ndarray, float]], shape: tuple[int, int, int] = (50, 60, 60), noise: float = 30.0
) -> sitk.Image:
    """Tubes of blood in lung as a scanner gives them: partial volume, blur, noise."""
    axes = [(np.arange(count * FINER) + 0.5) / FINER - 0.5 for count in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    points = np.stack([x * SPACING_MM[0], y * SPACING_MM[1], z * SPACING_MM[2]], axis=-1).reshape(-1, 3)
    share = np.zeros(len(points), dtype=bool)
    for line, radius in curves:
        share |= np.isfinite(cKDTree(line).query(points, distance_upper_bound=radius)[0])
    blocks = share.reshape(shape[0], FINER, shape[1], FINER, shape[2], FINER).mean(axis=(1, 3, 5))
    hu = ndimage.gaussian_filter(-850 + 900 * blocks, (0.5, 0.6, 0.6)) + np.random.default_rng(0).normal(
        0, noise, shape
    )
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing(SPACING_MM)
    return image


def helix(radius: float, pitch: float, turns: float, start: tuple[float, float, float] = (22, 22, 7)) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi * turns, 3000)
    return np.column_stack(
        [start[0] + radius * np.cos(angle), start[1] + radius * np.sin(angle), start[2] + pitch * angle / (2 * np.pi)]
    )


def arc(first: tuple[float, ...], last: tuple[float, ...], bend: float = 0.0) -> np.ndarray:
    share = np.linspace(0, 1, 1500)[:, None]
    start, end = np.array(first, dtype=float), np.array(last, dtype=float)
    across = np.cross(end - start, [0.0, 1.0, 0.3])
    return start + (end - start) * share + across / np.linalg.norm(across) * bend * np.sin(np.pi * share)


def tortuosity(line: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() / np.linalg.norm(line[-1] - line[0]))


@pytest.mark.parametrize(
    ("radius", "pitch", "turns", "thickness"),
    [(8, 25, 1.8, 1.5), (5, 20, 2.3, 1.5), (10, 30, 1.4, 2.0), (6, 40, 1.0, 1.2)],
)
def test_helix(radius: float, pitch: float, turns: float, thickness: float) -> None:
    line = helix(radius, pitch, turns)
    (branch,) = trace_vessels(scan([(line, thickness)])).branches
    slope = pitch / (2 * np.pi)
    assert branch.tortuosity == pytest.approx(tortuosity(line), rel=0.05)
    assert branch.length_mm == pytest.approx(tortuosity(line) * np.linalg.norm(line[-1] - line[0]), rel=0.05)
    assert branch.mean_curvature == pytest.approx(radius / (radius**2 + slope**2), rel=0.08)
    assert branch.radius_mm == pytest.approx(thickness, abs=0.35)
    # The traced points lie on the line.
    assert cKDTree(line).query(branch.points_mm)[0].mean() < 0.4


def test_tree() -> None:
    fork = (22, 22, 30)
    lines = [arc((22, 22, 5), fork), arc(fork, (8, 14, 57), 4), arc(fork, (37, 31, 57), 6)]
    branches = trace_vessels(scan([(line, 1.6) for line in lines])).branches
    assert len(branches) == 3
    found = sorted(item.tortuosity for item in branches)
    assert found == pytest.approx(sorted(tortuosity(line) for line in lines), rel=0.05)


def test_noise_and_plates_are_no_vessels() -> None:
    image = scan([], (30, 40, 40), noise=40.0)
    values = sitk.GetArrayFromImage(image)
    values[:, 20:23] += 850
    plate = sitk.GetImageFromArray(values)
    plate.SetSpacing(SPACING_MM)
    assert trace_vessels(image).branches == ()
    # Where the scan ends, the cut edge of the plate is a line.
    inner = np.zeros(values.shape, dtype=bool)
    inner[5:-5, 8:-8, 8:-8] = True
    assert trace_vessels(plate, inner).branches == ()


def test_around_a_lesion_only_what_is_near_and_outside_counts() -> None:
    near, far = arc((10, 12, 6), (34, 12, 50)), arc((40, 40, 6), (40, 40, 56))
    image = scan([(near, 1.5), (far, 1.5)])
    lesion = np.zeros(image.GetSize()[::-1], dtype=bool)
    lesion[20:26, 4:10, 24:32] = True
    found = vessels_around(image, lesion, np.ones_like(lesion), reach_mm=12)
    assert found.branches
    for branch in found.branches:
        assert cKDTree(near).query(branch.points_mm)[0].max() < 2.5
    values = vessel_features(found)
    assert tuple(values) == vessel_names()
    assert values["vessels_TortuosityMean"] == pytest.approx(1.0, abs=0.05)
    none = vessel_features(vessels_around(image, lesion, np.zeros_like(lesion)))
    assert none["vessels_Branches"] == 0
    assert none["vessels_TortuosityMean"] is None
    with pytest.raises(InputError, match="empty"):
        vessels_around(image, np.zeros_like(lesion), lesion)
    with pytest.raises(InputError, match="voxels"):
        vessels_around(image, lesion[1:], lesion)


def test_features_of_a_patient_are_those_around_each_lesion() -> None:
    image = scan([(arc((10, 12, 6), (34, 12, 50)), 1.5)])
    lesion = np.zeros(image.GetSize()[::-1], dtype=bool)
    lesion[20:26, 4:10, 24:32] = True
    far = np.roll(lesion, 45, axis=1)
    lungs = np.ones_like(lesion)
    lungs[:, 40:] = False
    regions = [
        RegionMask.from_array("baseline", None, "lungs", lungs & ~lesion),
        RegionMask.from_array("baseline", "L1", "core", lesion),
        RegionMask.from_array("baseline", "L1", "border", lesion),
        RegionMask.from_array("baseline", "L2", "core", far),
        RegionMask.from_array("baseline", "L3", "core", far),
    ]
    first, second = measure_vessels({"baseline": image}, regions, {"L1", "L2"}, reach_mm=6)
    assert (first.timepoint, first.lesion, first.region, first.reason) == ("baseline", "L1", "vessels", None)
    assert first.values == vessel_features(vessels_around(image, lesion, lungs & ~lesion, reach_mm=6))
    assert first.values["vessels_Branches"]
    assert first.voxels > 1000
    assert (second.lesion, second.voxels, second.values) == ("L2", 0, {})
    assert second.reason == "no lung within 6 mm of the lesion"
