"""From single slices to stacks: sorted by where they lie, told apart where a series holds several, refused where they make no volume.

A stack is a lattice: an origin, the directions of a row and of a column, and the step from one slice to the next, which is oblique to
the slices where the gantry was tilted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .headers import Picture

FEWEST_SLICES = 3

# Positions are written with two or three digits: a slice may lie off its place by this share of the step.
POSITION_TOLERANCE = 0.05
_SMALLEST_STEP_MM = 0.01
# Directions that differ by less are one direction: 0.06 degrees, written with four digits.
_DIRECTION_TOLERANCE = 1e-3
# Over the whole stack the slices may shift sideways by this share of a pixel before it counts as tilt.
_SHIFT_TOLERANCE_PIXELS = 0.1
# RECIST 1.1 asks for slices of 5 mm or less (doi:10.1016/j.ejca.2008.10.026); wider gaps are not filled by interpolation.
LARGEST_FILLED_STEP_MM = 5.0

Kind = Literal["straight", "tilted", "variable"]


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices that make one volume, ordered along the normal of their planes.

    ``positions_mm`` are the places of the slices along ``normal``; ``step`` is the vector from a slice to the next (LPS mm).
    """

    pictures: tuple[Picture, ...]
    kind: Kind
    step: np.ndarray
    positions_mm: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Picture:
        """The first slice."""
        return self.pictures[0]

    @property
    def origin(self) -> np.ndarray:
        """The centre of the first voxel, LPS mm."""
        return np.asarray(self.first.position, dtype=float)

    @property
    def row(self) -> np.ndarray:
        """Unit vector along a row."""
        return _unit(np.asarray(self.first.orientation, dtype=float)[:3])

    @property
    def column(self) -> np.ndarray:
        """Unit vector along a column."""
        row = self.row
        given = np.asarray(self.first.orientation, dtype=float)[3:]
        return _unit(given - (given @ row) * row)

    @property
    def normal(self) -> np.ndarray:
        """Unit normal of the slices."""
        return np.cross(self.row, self.column)

    @property
    def step_mm(self) -> float:
        """Distance between neighbouring planes."""
        return float(abs(self.step @ self.normal))

    @property
    def coverage_mm(self) -> float:
        """Length of the scanned region along the normal."""
        return float(self.positions_mm[-1] - self.positions_mm[0]) + self.step_mm

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Distance between neighbouring columns (x) and between neighbouring rows (y)."""
        between_rows, between_columns = self.first.spacing_mm or (1.0, 1.0)
        return between_columns, between_rows

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.pictures), self.first.rows, self.first.columns

    @property
    def is_axial(self) -> bool:
        """Whether the slices lie across the body, with room for any gantry tilt (at most 30 degrees)."""
        return bool(abs(self.normal[2]) > np.cos(np.deg2rad(35)))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def stacks_of(pictures: Sequence[Picture], notes: tuple[str, ...] = ()) -> tuple[tuple[Stack, ...], tuple[str, ...]]:
    """Sort the images of one series, each there once, into stacks; ``notes`` are what is said of each of them already.

    Returns
    -------
    tuple
        The stacks, and for each group of images that makes none the reason.
    """
    stacks: list[Stack] = []
    reasons: list[str] = []
    usable = []
    for picture in pictures:
        reason = _unusable(picture)
        if reason is None:
            usable.append(picture)
        else:
            reasons.append(reason)
    reasons = [f"{reasons.count(reason)} images: {reason}" for reason in dict.fromkeys(reasons)]
    for group in _by_plane(usable):
        try:
            for part, said in _acquisitions(group):
                try:
                    stacks.append(_stack(part, (*notes, *said)))
                except InputError as error:
                    reasons += error.problems
        except InputError as error:
            reasons += error.problems
    return tuple(stacks), tuple(dict.fromkeys(reasons))


def _unusable(picture: Picture) -> str | None:
    """Say why an image is no slice of a volume, None if it may be one."""
    if picture.samples != 1 or not picture.photometric.startswith("MONOCHROME"):
        return f"a colour or palette picture ({picture.photometric or 'unknown colours'})"
    if "LOCALIZER" in picture.image_type:
        return "a localiser"
    if picture.position is None or picture.orientation is None:
        return "no position or no orientation in the patient is given (a capture, a report page or an old object)"
    if picture.spacing_mm is None or min(picture.spacing_mm) <= 0:
        return "no pixel spacing is given"
    row, column = np.asarray(picture.orientation[:3]), np.asarray(picture.orientation[3:])
    if abs(np.linalg.norm(row) - 1) > 0.01 or abs(np.linalg.norm(column) - 1) > 0.01 or abs(row @ column) > 0.01:
        return "the directions of row and column are no unit vectors at right angles"
    return None


def _by_plane(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Group images of one size, spacing, direction and frame of reference."""
    groups: list[list[Picture]] = []
    for picture in pictures:
        for group in groups:
            if _same_plane(group[0], picture):
                group.append(picture)
                break
        else:
            groups.append([picture])
    return groups


def _same_plane(one: Picture, other: Picture) -> bool:
    directions = np.abs(np.subtract(one.orientation, other.orientation)).max()  # type: ignore[arg-type]
    spacing = np.abs(np.subtract(one.spacing_mm, other.spacing_mm)).max()  # type: ignore[arg-type]
    same_kind = (one.rows, one.columns, one.frame_of_reference) == (other.rows, other.columns, other.frame_of_reference)
    return bool(same_kind and directions < _DIRECTION_TOLERANCE and spacing < 1e-4)


def _along(pictures: Sequence[Picture]) -> np.ndarray:
    """Return the places of images along the normal of the first."""
    orientation = np.asarray(pictures[0].orientation, dtype=float)
    normal = _unit(np.cross(orientation[:3], orientation[3:]))
    return np.array([picture.position for picture in pictures], dtype=float) @ normal


def _ordered(pictures: Sequence[Picture]) -> list[Picture]:
    places = _along(pictures)
    order = sorted(range(len(pictures)), key=lambda index: (places[index], pictures[index].number or 0))
    return [pictures[index] for index in order]


def _repeats(pictures: Sequence[Picture]) -> bool:
    """Whether two images lie at one place."""
    places = np.sort(_along(pictures))
    return bool(len(places) > 1 and np.diff(places).min() < _SMALLEST_STEP_MM)


_KEYS: tuple[tuple[str, Callable[[Picture], str]], ...] = (
    ("acquisition number", lambda item: item.acquisition),
    ("temporal position", lambda item: item.temporal),
    ("image type", lambda item: "\\".join(item.image_type)),
    ("kernel", lambda item: item.kernel),
    ("time", lambda item: item.time[:6]),
)


def _acquisitions(pictures: Sequence[Picture]) -> list[tuple[list[Picture], tuple[str, ...]]]:
    """Split images of one plane where they are several acquisitions.

    Raises
    ------
    InputError
        If images lie at one place and nothing in their headers tells them apart.
    """
    if not _repeats(pictures) and not _interleaved(pictures):
        return [(list(pictures), ())]
    for name, key in _KEYS:
        groups: dict[str, list[Picture]] = {}
        for picture in pictures:
            groups.setdefault(key(picture), []).append(picture)
        volumes = max(map(len, groups.values())) >= FEWEST_SLICES
        if len(groups) > 1 and volumes and not any(_repeats(group) for group in groups.values()):
            said = (f"the series holds {len(groups)} acquisitions, told apart by their {name}",)
            return [(group, said) for group in groups.values()]
    if _repeats(pictures):
        raise InputError(
            f"{len(pictures)} images share places in the patient and neither acquisition number, temporal position, image type, kernel "
            "nor time tells them apart"
        )
    return [(list(pictures), ())]


def _interleaved(pictures: Sequence[Picture]) -> bool:
    """Whether acquisitions by number run over the same region with slices at different places."""
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(picture.acquisition, []).append(picture)
    if not 2 <= len(groups) <= 4 or min(map(len, groups.values())) < FEWEST_SLICES:
        return False
    everything = _ordered(pictures)
    runs = 1 + sum(one.acquisition != other.acquisition for one, other in pairwise(everything))
    return runs > len(groups)


def _stack(pictures: Sequence[Picture], notes: tuple[str, ...]) -> Stack:
    """Make one volume's stack of images that lie at different places.

    Raises
    ------
    InputError
        If slices are missing, unevenly spaced beyond what may be interpolated, or shifted against each other.
    """
    ordered = _ordered(pictures)
    if len(ordered) < FEWEST_SLICES:
        raise InputError(f"{len(ordered)} slices are no volume")
    places = _along(ordered)
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    tolerance = max(POSITION_TOLERANCE * usual, _SMALLEST_STEP_MM)
    steps = np.arange(len(places))
    regular = np.abs(places - np.polyval(np.polyfit(steps, places, 1), steps)).max() <= tolerance
    if not regular:
        _check_gaps(places, gaps, usual, tolerance)
    shift, drift = _sideways(ordered, places)
    _, pixel = ordered[0].spacing_mm or (1.0, 1.0)
    if shift > _SHIFT_TOLERANCE_PIXELS * pixel + 0.02:
        raise InputError(
            f"the slices are shifted sideways against each other by up to {shift:.2f} mm and not evenly, so they make no straight volume"
        )
    tilted = np.linalg.norm(drift) * (places[-1] - places[0]) > _SHIFT_TOLERANCE_PIXELS * pixel
    orientation = np.asarray(ordered[0].orientation, dtype=float)
    normal = _unit(np.cross(orientation[:3], orientation[3:]))
    mean = (places[-1] - places[0]) / (len(places) - 1) if regular else usual
    if tilted and not regular:
        raise InputError("the gantry was tilted and the slices are unevenly spaced")
    said = list(notes)
    if tilted:
        angle = float(np.degrees(np.arctan(np.linalg.norm(drift))))
        said.append(f"the gantry was tilted by {angle:.1f} degrees: resampled to a straight grid (linear)")
    if not regular:
        said.append(
            f"the slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart: resampled to {usual:.2f} mm (linear)"
        )
    split = any("acquisitions" in note for note in notes)
    said += _header_notes(ordered, tilted=tilted, split=split, step_mm=mean)
    step = mean * (normal + drift) if tilted else mean * normal
    return Stack(
        tuple(ordered), "tilted" if tilted else "straight" if regular else "variable", step, places, tuple(said)
    )


def _check_gaps(places: np.ndarray, gaps: np.ndarray, usual: float, tolerance: float) -> None:
    """Refuse missing slices, and spacing too uneven to interpolate."""
    multiples = np.rint(gaps / usual)
    whole = np.abs(gaps - multiples * usual) <= tolerance * np.maximum(multiples, 1)
    as_usual = np.abs(gaps - usual) <= tolerance
    if as_usual.mean() >= 0.5 and whole.all() and (multiples > 1).any():
        where = [f"{places[index]:.1f}" for index in np.flatnonzero(multiples > 1)]
        shown = ", ".join(where[:5]) + (", ..." if len(where) > 5 else "")
        raise InputError(
            f"{int((multiples - 1).sum())} slices are missing (step {usual:.2f} mm, after {shown} mm along the stack). Send the series again"
        )
    if gaps.max() > LARGEST_FILLED_STEP_MM:
        raise InputError(
            f"the slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart; gaps of more than {LARGEST_FILLED_STEP_MM:g} mm are not filled"
        )


def _sideways(ordered: Sequence[Picture], places: np.ndarray) -> tuple[float, np.ndarray]:
    """Return how far slices lie off a straight (maybe oblique) line, and the sideways shift per mm along the normal."""
    positions = np.array([picture.position for picture in ordered], dtype=float)
    orientation = np.asarray(ordered[0].orientation, dtype=float)
    normal = _unit(np.cross(orientation[:3], orientation[3:]))
    sideways = positions - np.outer(positions @ normal, normal)
    along = places - places.mean()
    slope = along @ (sideways - sideways.mean(axis=0)) / (along @ along)
    left = sideways - sideways.mean(axis=0) - np.outer(along, slope)
    return float(np.linalg.norm(left, axis=1).max()), slope


def _header_notes(ordered: Sequence[Picture], *, tilted: bool, split: bool, step_mm: float) -> list[str]:
    """Say what in the headers does not fit the geometry."""
    first = ordered[0]
    notes = []
    if not tilted and first.tilt_degrees is not None and abs(first.tilt_degrees) > 0.5:
        normal = _unit(np.cross(first.orientation[:3], first.orientation[3:]))  # type: ignore[index]
        if abs(normal[2]) > np.cos(np.deg2rad(0.25)):
            notes.append(
                f"the header says that the gantry was tilted by {first.tilt_degrees:g} degrees, the positions do not: taken as straight"
            )
    expected = first.images_in_acquisition
    if expected is not None and expected > len(ordered) and first.frame is None:
        notes.append(f"the header counts {expected} images in the acquisition, {len(ordered)} are here")
    counted = [picture.number for picture in ordered if picture.number is not None and picture.frame is None]
    if not split and len(counted) == len(ordered) and (min(counted) > 1 or max(counted) - min(counted) >= len(counted)):
        notes.append(
            f"the images are numbered {min(counted)} to {max(counted)} and {len(ordered)} are here: slices at the ends may be missing"
        )
    if first.thickness_mm and step_mm > 1.05 * first.thickness_mm:
        notes.append(
            f"slices of {first.thickness_mm:g} mm lie {step_mm:.2f} mm apart: what is between them was not scanned"
        )
    return notes


def to_image(stack: Stack, voxels: np.ndarray, *, labels: bool, outside: float) -> sitk.Image:
    """Return voxels (slice, row, column) of a stack as a volume on a straight grid with even spacing.

    A straight stack keeps its voxels. A tilted one is resampled to the grid whose third axis is the direction in which the table
    moved, an uneven one to its usual step; both linearly, or to the nearest voxel for ``labels``. What was not scanned becomes
    ``outside``.
    """
    if stack.kind == "variable":
        voxels = _even(stack, voxels, labels=labels)
    image = sitk.GetImageFromArray(voxels)
    if stack.kind != "tilted":
        image.SetOrigin(stack.origin.tolist())
        image.SetSpacing([*stack.pixel_mm, stack.step_mm])
        image.SetDirection(np.stack([stack.row, stack.column, stack.normal], axis=1).ravel().tolist())
        return image
    return _straightened(stack, image, labels=labels, outside=outside)


def _even(stack: Stack, voxels: np.ndarray, *, labels: bool) -> np.ndarray:
    """Interpolate unevenly spaced slices at even places."""
    count = int(np.floor((stack.positions_mm[-1] - stack.positions_mm[0]) / stack.step_mm + 1e-6)) + 1
    wanted = stack.positions_mm[0] + stack.step_mm * np.arange(count)
    after = np.clip(np.searchsorted(stack.positions_mm, wanted, side="right"), 1, len(stack.positions_mm) - 1)
    share = (wanted - stack.positions_mm[after - 1]) / (stack.positions_mm[after] - stack.positions_mm[after - 1])
    result = np.empty((count, *voxels.shape[1:]), dtype=voxels.dtype)
    for index in range(count):
        if labels:
            result[index] = voxels[after[index] - int(share[index] < 0.5)]
            continue
        mixed = (1 - share[index]) * voxels[after[index] - 1] + share[index] * voxels[after[index]]
        result[index] = np.rint(mixed) if np.issubdtype(voxels.dtype, np.integer) else mixed
    return result


def _straightened(stack: Stack, lattice: sitk.Image, *, labels: bool, outside: float) -> sitk.Image:
    """Resample an oblique lattice to a grid at right angles that encloses it."""
    across, down = stack.pixel_mm
    oblique = np.stack([stack.row * across, stack.column * down, stack.step], axis=1)
    axis_z = _unit(stack.step)
    axis_x = _unit(stack.row - (stack.row @ axis_z) * axis_z)
    axis_y = np.cross(axis_z, axis_x)
    directions = np.stack([axis_x, axis_y, axis_z], axis=1)
    spacing = np.array([across, down, np.linalg.norm(stack.step)])
    last = np.asarray(lattice.GetSize()) - 1
    corners = np.array([oblique @ (np.asarray(corner) * last) for corner in np.ndindex(2, 2, 2)]) @ directions
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.ceil((high - low) / spacing - 1e-6).astype(int) + 1
    lattice.SetOrigin((0.0, 0.0, 0.0))
    lattice.SetSpacing((1.0, 1.0, 1.0))
    to_index = sitk.AffineTransform(3)
    inverse = np.linalg.inv(oblique)
    to_index.SetMatrix(inverse.ravel().tolist())
    to_index.SetTranslation((-inverse @ stack.origin).tolist())
    return sitk.Resample(
        lattice,
        size.tolist(),
        to_index,
        sitk.sitkNearestNeighbor if labels else sitk.sitkLinear,
        (stack.origin + directions @ low).tolist(),
        spacing.tolist(),
        directions.ravel().tolist(),
        outside,
        lattice.GetPixelID(),
    )
