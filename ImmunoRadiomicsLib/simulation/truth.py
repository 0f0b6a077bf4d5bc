"""What is known about a virtual patient, and how the known sizes are measured.

The measurements are brute force on the level sets that the images were drawn from, and share nothing with the stages that
are tested against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ..analysis import LesionEvent, Point
from ..serialise import json_schema
from .scenario import Scenario, Size

TRUTH_VERSION = "1.0"


@dataclass(frozen=True)
class TruthObservation:
    """One lesion at one time point.

    ``segments`` are the names in that time point's segmentation, ``links`` those of the same lesion at the time point before.
    ``volume_ml`` counts the voxels whose centre is inside. ``long_axis_mm`` is the longest diameter within an axial slice,
    ``short_axis_mm`` the longest extent at right angles to it in that slice, both of the exact outline; of a split lesion
    they are the sums over its fragments. A merged lesion has no sizes of its own. ``viable_ml`` and ``inflamed_ml`` are
    what the growth law says, before the organ bounds the tumour.
    """

    timepoint: str
    event: LesionEvent
    segments: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    merged_into: str | None = None
    volume_ml: float | None = None
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None
    centroid_lps_mm: Point | None = None
    viable_ml: float = 0.0
    inflamed_ml: float = 0.0


@dataclass(frozen=True)
class TruthLesion:
    """One tumour over time; ``id`` is the name of its segment where it is first seen and names are not permuted."""

    id: str
    organ: str
    node: bool
    fate: str
    observations: tuple[TruthObservation, ...]

    def at(self, timepoint: str) -> TruthObservation:
        """Return the observation at a time point; KeyError if there is none."""
        for item in self.observations:
            if item.timepoint == timepoint:
                return item
        raise KeyError(timepoint)


@dataclass(frozen=True)
class TruthTimepoint:
    """What one scan shows beside tumours, and how it lies on the baseline.

    Lung volumes take in vessels, tumours and opacities inside the pleura, but no airways down to the segments and no
    effusion. The displacement file carries baseline points to this time point; ``displacement_error_mm`` is its largest
    deviation from the map that was drawn, when read with linear interpolation. ``smallest_jacobian`` is the smallest local volume
    ratio of the map.
    """

    name: str
    date: str
    day: int
    right_lung_ml: float
    left_lung_ml: float
    ground_glass_ml: float
    consolidation_ml: float
    new_opacity_ml: float
    lung_volume_ratio: float
    sum_of_diameters_mm: float
    displacement_file: str | None
    displacement_spacing_mm: float | None
    displacement_error_mm: float
    largest_displacement_mm: float
    smallest_jacobian: float
    lungs_file: str
    opacities_file: str | None


@dataclass(frozen=True)
class TruthLabel:
    """The answer to one of the three questions, the definition used, and the numbers that it was read from."""

    question: str
    answer: bool
    definition: str
    numbers: dict[str, float | None]


@dataclass(frozen=True)
class Truth:
    """Everything that is known about a virtual patient."""

    schema_version: str
    patient: str
    seed: int
    size: Size
    scenario: Scenario
    timepoints: tuple[TruthTimepoint, ...]
    lesions: tuple[TruthLesion, ...]
    labels: tuple[TruthLabel, ...]

    def label(self, question: str) -> bool:
        """Return the answer to one of the three questions; KeyError if it is none of them."""
        for item in self.labels:
            if item.question == question:
                return item.answer
        raise KeyError(question)


def truth_schema() -> dict[str, Any]:
    """Return the JSON Schema of truth.json, as it is kept in Resources/Schemas/truth.schema.json."""
    return json_schema(
        Truth,
        title="truth.json",
        description="What is known about a virtual patient. Lengths in mm, volumes in ml, positions in LPS mm, days from the baseline.",
    )


def axial_diameters(level: np.ndarray, spacing_zyx: tuple[float, float, float]) -> tuple[float, float]:
    """Return the longest diameter within an axial slice and the extent at right angles to it in that slice, in mm.

    ``level`` (z, y, x) is negative inside; the outline is where it crosses zero on the lines between voxel centres. All
    pairs of points of the convex hull of every connected outline are compared.
    """
    pixel = np.asarray(spacing_zyx[1:])
    level = np.pad(level, ((0, 0), (1, 1), (1, 1)), constant_values=0.5 * float(pixel.min()))
    best = (0.0, 0.0)
    for plane in level:
        labels, count = ndimage.label(plane < 0, structure=np.ones((3, 3)))
        for label in range(1, count + 1):
            piece = labels == label
            outline = _crossings(plane, piece) * pixel
            hull = _hull_points(outline)
            gaps = np.linalg.norm(hull[:, None] - hull[None], axis=-1)
            long_axis = float(gaps.max())
            if long_axis <= best[0]:
                continue
            a, b = np.unravel_index(int(gaps.argmax()), gaps.shape)
            direction = (hull[b] - hull[a]) / long_axis
            best = (long_axis, _extent_across(plane, piece, pixel, direction))
    return best


def _crossings(plane: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Return the points (y, x), in pixels, where the level is zero between a pixel of the piece and its neighbours."""
    points = []
    for axis in (0, 1):
        for step in (-1, 1):
            outside = np.roll(plane, -step, axis=axis)
            at = np.argwhere(piece & (outside >= 0))
            inner = plane[at[:, 0], at[:, 1]]
            outer = outside[at[:, 0], at[:, 1]]
            moved = at.astype(np.float64)
            moved[:, axis] += step * inner / np.minimum(inner - outer, -1e-9)
            points.append(moved)
    return np.concatenate(points)


def _hull_points(points: np.ndarray) -> np.ndarray:
    try:
        return points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        # Fewer than three points, or all on a line: they are their own hull.
        return points


def _extent_across(plane: np.ndarray, piece: np.ndarray, pixel: np.ndarray, direction: np.ndarray) -> float:
    """Return the longest chord of a piece at right angles to a direction (y, x), by sampling 8 x 8 points per pixel."""
    rows, columns = np.nonzero(piece)
    window = (slice(rows.min() - 1, rows.max() + 2), slice(columns.min() - 1, columns.max() + 2))
    near = ndimage.binary_dilation(piece[window], structure=np.ones((3, 3)))
    values = np.where(near, plane[window], np.abs(plane[window]))
    fine = 8
    y = np.arange((values.shape[0] - 1) * fine + 1) / fine
    x = np.arange((values.shape[1] - 1) * fine + 1) / fine
    sampled = ndimage.map_coordinates(values, np.meshgrid(y, x, indexing="ij"), order=1)
    inside = np.argwhere(sampled < 0) / fine * pixel
    along = inside @ direction
    across = inside @ np.array([-direction[1], direction[0]])
    step = float(pixel.min()) / fine
    line = np.floor((along - along.min()) / (2.0 * step)).astype(int)
    order = np.argsort(line, kind="stable")
    starts = np.flatnonzero(np.diff(line[order], prepend=-1))
    longest = np.maximum.reduceat(across[order], starts) - np.minimum.reduceat(across[order], starts)
    return float(longest.max()) + step


def labels_of(
    scenario: Scenario,
    timepoints: tuple[TruthTimepoint, ...],
    lesions: tuple[TruthLesion, ...],
    reference_growth: float,
) -> tuple[TruthLabel, ...]:
    """Answer the three questions from what is known.

    ``reference_growth`` is the viable volume of the lesions of the baseline over that 30.4375 days before it.
    """
    at_baseline = [item for item in lesions if item.at("baseline").viable_ml > 0]
    viable = {point.name: sum(item.at(point.name).viable_ml for item in at_baseline) for point in timepoints}
    later = [point for point in timepoints if point.day > 0]
    start = next(point for point in timepoints if point.name == "baseline")

    nadir = start.sum_of_diameters_mm
    pseudo, rise, change = False, None, None
    progressed = []
    for point in later:
        grown = point.sum_of_diameters_mm - nadir
        if nadir > 0 and grown >= 5.0 and grown >= 0.2 * nadir:
            progressed.append(point.name)
            ratio = viable[point.name] / viable["baseline"]
            if ratio < 1.0 and not pseudo:
                pseudo, rise, change = True, 100.0 * grown / nadir, ratio
        nadir = min(nadir, point.sum_of_diameters_mm)

    first = later[0]
    months = first.day / 30.4375
    growth = None
    if viable["baseline"] > 0:
        growth = 100.0 * ((viable[first.name] / viable["baseline"]) ** (1.0 / months) - 1.0)
    reference = 100.0 * (reference_growth - 1.0)
    hyper = first.name in progressed and growth is not None and growth >= 2.0 * reference and growth - reference >= 50.0
    fresh = max(point.new_opacity_ml for point in later)
    return (
        TruthLabel(
            "pseudoprogression",
            pseudo,
            "At some follow-up the sum of diameters of the lesions of the baseline is at least 20 % and 5 mm above its nadir "
            "while their viable tumour volume is below that of the baseline: the growth is inflammation.",
            {"rise_percent": rise, "viable_ratio": change},
        ),
        TruthLabel(
            "hyperprogression",
            hyper,
            "At the first follow-up the sum of diameters of the lesions of the baseline is at least 20 % and 5 mm above the "
            "baseline, and their viable volume grows at least twice as fast, in % per month, as in the month before the "
            "baseline and faster by at least 50 % per month.",
            {"growth_percent_per_month": growth, "reference_percent_per_month": reference},
        ),
        TruthLabel(
            "pneumonitis",
            fresh >= 20.0,
            "At some follow-up ground glass and consolidation take at least 20 ml more than at the baseline.",
            {"new_opacity_ml": fresh},
        ),
    )
