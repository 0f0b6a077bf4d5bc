import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ImmunoRadiomicsLib.report.contours import outlines


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def covered(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Which pixel centres lie inside, by the even-odd rule on a horizontal ray."""
    inside = np.zeros(shape, dtype=bool)
    rows, columns = np.indices(shape)
    for polygon in polygons:
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            crosses = (y1 > rows) != (y2 > rows)
            if y1 != y2:
                inside ^= crosses & (columns < x1 + (rows - y1) / (y2 - y1) * (x2 - x1))
    return inside


def test_a_disc_has_its_area_and_centre():
    rows, columns = np.mgrid[:120, :150]
    (outline,) = outlines(35.0 - np.hypot(columns - 70.3, rows - 55.6), level=0.0)
    assert abs(area(outline)) == pytest.approx(np.pi * 35**2, rel=1e-3)
    assert outline.mean(axis=0) == pytest.approx([70.3, 55.6], abs=0.2)
    assert np.hypot(*(outline - [70.3, 55.6]).T) == pytest.approx(np.full(len(outline), 35.0), abs=0.02)


def test_a_hole_runs_the_other_way():
    mask = np.zeros((20, 20))
    mask[3:17, 3:17] = 1
    mask[8:12, 8:12] = 0
    sizes = sorted(area(polygon) for polygon in outlines(mask))
    assert len(sizes) == 2
    assert sizes[0] * sizes[1] < 0


def test_touching_corners_are_split_or_joined_by_the_middle():
    apart = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert len(outlines(apart, 0.6)) == 2
    assert len(outlines(apart, 0.4)) == 1


def test_nothing_and_everything():
    assert outlines(np.zeros((5, 7))) == []
    (frame,) = outlines(np.ones((5, 7)))
    assert covered([frame], (5, 7)).all()
    assert frame.min() >= -0.5
    assert (frame.max(axis=0) <= [6.5, 4.5]).all()


@settings(max_examples=80, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_every_pixel_lies_on_its_side(mask):
    assert (covered(outlines(mask.astype(float)), mask.shape) == mask).all()
