"""Whether the scans lie on each other around one place: on textures with a known shift, and on noise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from ImmunoRadiomicsLib.alignment.deform import local_correlation
from ImmunoRadiomicsLib.alignment.grids import Grid
from ImmunoRadiomicsLib.alignment.local import LocalMap
from ImmunoRadiomicsLib.alignment.quality import Measured
from ImmunoRadiomicsLib.analysis import LocalFit
from ImmunoRadiomicsLib.lesions.find import misfit

SPACING_MM = 3.0
SHAPE = (33, 31, 29)
CENTRE = tuple(SPACING_MM * (size // 2) for size in SHAPE[::-1])


def local_map(seed: int, shift_mm: float, *, width_mm: float = 5.0, contrast_hu: float = 80.0) -> LocalMap:
    """A texture of structures ``width_mm`` wide and a follow-up that lies off by ``shift_mm``, each with noise of 15 HU."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.standard_normal(SHAPE), width_mm / SPACING_MM, mode="wrap")
    texture *= contrast_hu / texture.std()
    way = rng.standard_normal(3)
    way *= shift_mm / SPACING_MM / np.linalg.norm(way)
    scans = (texture, ndimage.shift(texture, way, order=3, mode="grid-wrap"))
    baseline, followup = (np.float32(item + rng.normal(0.0, 15.0, SHAPE)) for item in scans)
    correlation, structure = local_correlation(baseline, followup)
    grid = Grid((0.0, 0.0, 0.0), (SPACING_MM,) * 3, SHAPE)
    comparable = np.ones(SHAPE, dtype=bool)
    measured = Measured(None, grid, correlation, structure, comparable, 1.0, None, baseline, followup)
    return LocalMap.of(SimpleNamespace(measured=measured))


@pytest.mark.parametrize("width_mm", [4.0, 6.0, 9.0])
def test_a_shift_of_8_mm_is_found_and_none_where_there_is_none(width_mm: float) -> None:
    moved = [local_map(seed, 8.0, width_mm=width_mm).at(CENTRE, 18.0).shift_mm for seed in range(20)]
    still = [local_map(seed, 0.7, width_mm=width_mm).at(CENTRE, 18.0).shift_mm for seed in range(20)]
    assert still == [0.0] * 20
    assert sum(shift > 0.0 for shift in moved) >= 19
    assert np.median(np.abs(np.array(moved) - 8.0)) <= 1.5


def test_a_shift_that_leaves_broad_structures_correlated_is_found() -> None:
    fits = [local_map(seed, 8.0, width_mm=11.0).at(CENTRE, 18.0) for seed in range(20)]
    unseen = [fit for fit in fits if fit.correlation >= 0.5]
    assert len(unseen) >= 8
    assert sum(fit.shift_mm > 0.0 for fit in unseen) >= 0.9 * len(unseen)


def test_noise_is_not_taken_for_a_shift() -> None:
    fits = [local_map(seed, 0.0, contrast_hu=20.0).at(CENTRE, 15.0) for seed in range(40)]
    assert [fit.shift_mm or 0.0 for fit in fits] == [0.0] * 40


def test_flat_tissue_cannot_be_judged() -> None:
    fit = local_map(3, 8.0, contrast_hu=0.0).at(CENTRE, 15.0)
    assert fit == LocalFit(None, None)
    assert misfit(fit).startswith("it could not be judged")


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = local_map(4, 8.0)
    made.write(tmp_path)
    again = LocalMap.read(tmp_path)
    for place, radius_mm in ((CENTRE, 18.0), ((3.0, 3.0, 3.0), 12.0), ((-60.0, 0.0, 0.0), 12.0)):
        assert again.at(place, radius_mm) == made.at(place, radius_mm)
    assert again.at((-60.0, 0.0, 0.0), 12.0) == LocalFit(None, None)


@pytest.mark.parametrize(
    ("correlation", "shift_mm", "said"),
    [
        (0.93, 0.0, None),
        (0.93, None, None),
        (0.49, 0.0, "local correlation 0.49"),
        (0.84, 7.6, "local correlation 0.84, better when moved by 8 mm"),
        (None, None, "could not be judged"),
    ],
)
def test_what_is_said_of_a_fit(correlation: float | None, shift_mm: float | None, said: str | None) -> None:
    found = misfit(LocalFit(correlation, shift_mm))
    assert (found is None) if said is None else said in found
