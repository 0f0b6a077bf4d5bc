"""DICOM segmentations and contours (SEG, RTSTRUCT) on the voxels of a stack."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..errors import InputError
from .geometry import Stack, to_image
from .headers import Picture, numbers, read_dataset, text
from .headers import integer as whole_number

if TYPE_CHECKING:
    from pydicom import Dataset

# Regions of a radiotherapy plan that are no structures of the patient that a reader would measure.
_PLANNING = (
    "EXTERNAL", "PTV", "CTV", "TREATED_VOLUME", "IRRAD_VOLUME", "BOLUS", "AVOIDANCE", "MARKER", "REGISTRATION", "ISOCENTER",
    "CONTRAST_AGENT", "BRACHY_CHANNEL", "BRACHY_ACCESSORY", "BRACHY_SRC_APP", "BRACHY_CHNL_SHLD", "SUPPORT", "FIXATION",
    "DOSE_REGION", "CONTROL", "DOSE_MEASUREMENT",
)  # fmt: skip
_NODE_CODES = {"59441001", "T-C4000", "30746006", "M-33000"}
_ANATOMY_CATEGORIES = {"123037004", "T-D000A", "91723000", "85756007", "T-D0050"}
# A contour belongs to the slice it lies on; farther off than this share of the step it lies on none.
_OFF_SLICE = 0.5


@dataclass(frozen=True, eq=False)
class Structure:
    """One segment or region of interest: where it is (a bool array (z, y, x) on the grid of the imported volume) and what is said of it.

    ``tracking_uid`` is the same for one lesion over time. ``organ`` is the stated site, ``is_anatomy`` marks an organ as such.
    """

    name: str
    mask: np.ndarray
    tracking_id: str = ""
    tracking_uid: str = ""
    organ: str = ""
    node: bool | None = None
    is_anatomy: bool = False
    number: int = 0
    colour: tuple[float, float, float] | None = None


def referenced_series(data: Dataset) -> set[str]:
    """Return the UIDs of the series that an object says it was made on."""
    found: set[str] = set()

    def walk(item: Dataset, depth: int) -> None:
        for element in item:
            if element.VR == "SQ" and depth < 8:
                for part in element.value:
                    walk(part, depth + 1)
            elif element.keyword == "SeriesInstanceUID" and depth > 0:
                found.add(str(element.value))

    for name in (
        "ReferencedSeriesSequence",
        "ReferencedFrameOfReferenceSequence",
        "CurrentRequestedProcedureEvidenceSequence",
        "PertinentOtherEvidenceSequence",
    ):
        for part in data.get(name) or []:
            walk(part, 1)
    return found


def referenced_instances(data: Dataset) -> set[str]:
    """Return the UIDs of all instances that an object refers to."""
    return {
        str(element.value)
        for element in data.iterall()
        if element.keyword in ("ReferencedSOPInstanceUID",) and element.value
    }


def frame_of_reference(data: Dataset) -> str:
    """Return the frame of reference of a SEG or RTSTRUCT."""
    stated = text(data, "FrameOfReferenceUID")
    for item in data.get("ReferencedFrameOfReferenceSequence") or []:
        stated = stated or text(item, "FrameOfReferenceUID")
    return stated


def read_seg(picture: Picture, stack: Stack, reference: sitk.Image) -> tuple[tuple[Structure, ...], tuple[str, ...]]:
    """Read a DICOM SEG on the grid of the volume that a stack became.

    Returns
    -------
    tuple
        The segments, and what had to be left out with the reason.

    Raises
    ------
    InputError
        If its pixels or its geometry cannot be read.
    """
    data = read_dataset(picture.path)
    try:
        frames = np.asarray(data.pixel_array)
    except Exception as error:  # decoders fail in any way there is
        raise InputError(f"the pixels cannot be decoded ({type(error).__name__})") from error
    if frames.ndim == 2:
        frames = frames[np.newaxis]
    kind = text(data, "SegmentationType").upper()
    least = 0.5 * (whole_number(data, "MaximumFractionalValue") or 255) if kind == "FRACTIONAL" else 0.5
    planes = _planes(picture, data, len(frames))
    own = bool(referenced_instances(data) & {item.sop_uid for item in stack.pictures})
    structures, left_out = [], []
    for description in data.get("SegmentSequence") or []:
        number = whole_number(description, "SegmentNumber") or 0
        if kind == "LABELMAP":
            chosen = [(plane, frames[index] == number) for index, (plane, _) in enumerate(planes)]
        else:
            chosen = [
                (plane, frames[index] >= least) for index, (plane, segment) in enumerate(planes) if segment == number
            ]
        chosen = [(plane, mask) for plane, mask in chosen if mask.any()]
        if not chosen:
            left_out.append(f"segment {number} is empty")
            continue
        try:
            mask = _placed(chosen, stack, reference, _step(data), own=own)
        except InputError as error:
            left_out.append(f"segment {number}: {error.problems[0]}")
            continue
        structures.append(_segment(description, number, mask))
    return tuple(structures), tuple(left_out)


def _planes(picture: Picture, data: Dataset, frames: int) -> list[tuple[Picture, int]]:
    """Return where each frame lies, and the number of its segment."""
    shared = next(iter(data.get("SharedFunctionalGroupsSequence") or []), None)
    own = list(data.get("PerFrameFunctionalGroupsSequence") or [])
    if len(own) != frames:
        raise InputError("the frames are not described one by one")
    result = []
    for item in own:

        def group(name: str, item: Dataset = item) -> Dataset | None:
            found = item.get(name) or (shared.get(name) if shared is not None else None)
            return found[0] if found else None

        position, orientation = group("PlanePositionSequence"), group("PlaneOrientationSequence")
        measures, segment = group("PixelMeasuresSequence"), group("SegmentIdentificationSequence")
        if position is None or orientation is None or measures is None:
            raise InputError("the frames have no position, orientation or pixel spacing")
        where = numbers(position, "ImagePositionPatient", 3)
        spacing = numbers(measures, "PixelSpacing", 2)
        plane = dataclasses.replace(
            picture,
            position=None if where is None else (where[0], where[1], where[2]),
            orientation=numbers(orientation, "ImageOrientationPatient", 6),
            spacing_mm=None if spacing is None else (spacing[0], spacing[1]),
            samples=1,
            photometric="MONOCHROME2",
            image_type=(),
            acquisition="",
            temporal="",
            time="",
        )
        if plane.position is None or plane.orientation is None or plane.spacing_mm is None:
            raise InputError("the frames have no position, orientation or pixel spacing")
        result.append((plane, 0 if segment is None else whole_number(segment, "ReferencedSegmentNumber") or 0))
    return result


def _step(data: Dataset) -> float | None:
    """Return the stated distance of the slices of a SEG in mm, or their thickness, None where neither is given."""
    shared = next(iter(data.get("SharedFunctionalGroupsSequence") or []), None)
    frames = data.get("PerFrameFunctionalGroupsSequence") or []
    for item in (shared, *frames[:1]):
        measures = None if item is None else item.get("PixelMeasuresSequence")
        if measures:
            found = numbers(measures[0], "SpacingBetweenSlices", 1) or numbers(measures[0], "SliceThickness", 1)
            if found and found[0] > 0:
                return found[0]
    return None


def _segment(description: Dataset, number: int, mask: np.ndarray) -> Structure:
    def code(name: str, inside: Dataset | None = description) -> Dataset | None:
        items = None if inside is None else inside.get(name)
        return items[0] if items else None

    category, kind = code("SegmentedPropertyCategoryCodeSequence"), code("SegmentedPropertyTypeCodeSequence")
    site = code("AnatomicRegionSequence") or code("AnatomicRegionSequence", kind)
    codes = {text(item, "CodeValue") for item in (kind, site) if item is not None}
    anatomy = category is not None and text(category, "CodeValue") in _ANATOMY_CATEGORIES
    return Structure(
        name=text(description, "SegmentLabel") or f"segment {number}",
        mask=mask,
        tracking_id=text(description, "TrackingID"),
        tracking_uid=text(description, "TrackingUID"),
        organ="" if site is None or anatomy else text(site, "CodeMeaning").lower(),
        node=True if codes & _NODE_CODES and not anatomy else None,
        is_anatomy=anatomy,
        number=number,
    )


def _placed(
    planes: Sequence[tuple[Picture, np.ndarray]],
    stack: Stack,
    reference: sitk.Image,
    step_mm: float | None,
    *,
    own: bool,
) -> np.ndarray:
    """Return frames of a mask on the grid of the reference: slice by slice where they were drawn on the stack, else resampled.

    Frames of thicker slices may lie on slices of the stack too, but stand for those between them as well.
    """
    same_step = own or (step_mm is not None and abs(step_mm - stack.step_mm) < 0.1 * stack.step_mm)
    on_stack = _on_slices(planes, stack) if same_step else None
    if on_stack is not None:
        image = to_image(stack, on_stack, labels=True, outside=0.0)
    else:
        image = sitk.Resample(
            _volume(planes, step_mm), reference, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor, 0.0
        )
    return sitk.GetArrayFromImage(image).astype(bool)


def _volume(planes: Sequence[tuple[Picture, np.ndarray]], step_mm: float | None) -> sitk.Image:
    """Return frames as a volume of their own; slices without a frame are empty."""
    first = planes[0][0]
    orientation = np.asarray(first.orientation, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([plane.position for plane, _ in planes], dtype=float)
    along = positions @ normal
    gaps = np.diff(np.unique(along.round(3)))
    step = step_mm or (float(gaps.min()) if len(gaps) else None)
    if not step:
        raise InputError("it has one frame, and the distance of slices is not given")
    at = np.rint((along - along.min()) / step).astype(int)
    origin = positions[int(np.argmin(along))]
    off = positions - origin - np.outer(at * step, normal)
    directions = np.array([plane.orientation for plane, _ in planes], dtype=float)
    turned = bool(np.abs(directions - orientation).max() > 1e-3)
    if turned or np.abs(off).max() > max(0.1 * step, 0.05):
        raise InputError("its frames lie neither on the slices of the CT nor on an even grid of their own")
    voxels = np.zeros((int(at.max()) + 1, *planes[0][1].shape), dtype=np.uint8)
    for index, (_, mask) in zip(at, planes, strict=True):
        voxels[index] |= mask.astype(np.uint8)
    image = sitk.GetImageFromArray(voxels)
    between_rows, between_columns = first.spacing_mm or (1.0, 1.0)
    image.SetOrigin(origin.tolist())
    image.SetSpacing((between_columns, between_rows, step))
    image.SetDirection(np.stack([orientation[:3], orientation[3:], normal], axis=1).ravel().tolist())
    return image


def _on_slices(planes: Sequence[tuple[Picture, np.ndarray]], stack: Stack) -> np.ndarray | None:
    """Return a mask (slice, row, column) on the slices of a stack, None where a frame does not lie on one."""
    first = stack.first
    result = np.zeros(stack.shape_zyx, dtype=np.uint8)
    origins = np.array([picture.position for picture in stack.pictures], dtype=float)
    pixel = min(stack.pixel_mm)
    for plane, mask in planes:
        same = mask.shape == (first.rows, first.columns)
        same = same and np.allclose(plane.orientation, first.orientation, atol=1e-3)  # type: ignore[arg-type]
        same = same and np.allclose(plane.spacing_mm, first.spacing_mm, rtol=1e-3)  # type: ignore[arg-type]
        if not same:
            return None
        offsets = origins - np.asarray(plane.position)
        at = int(np.argmin(np.linalg.norm(offsets, axis=1)))
        along = offsets[at] @ stack.normal
        aside = np.linalg.norm(offsets[at] - along * stack.normal)
        if abs(along) > 0.1 * stack.step_mm or aside > 0.1 * pixel:
            return None
        result[at] |= mask.astype(np.uint8)
    return result


def read_rtstruct(picture: Picture, stack: Stack) -> tuple[tuple[Structure, ...], tuple[str, ...]]:
    """Read the closed planar contours of an RTSTRUCT on the grid of the volume that a stack became; returns as ``read_seg`` does.

    A voxel belongs to a region if its centre lies inside. Contours of one region on one slice are combined by the even-odd rule, which
    makes an inner contour a hole.
    """
    data = read_dataset(picture.path)
    described = {whole_number(item, "ROINumber"): item for item in data.get("StructureSetROISequence") or []}
    kinds: dict[int | None, str] = {}
    for item in data.get("RTROIObservationsSequence") or []:
        kinds[whole_number(item, "ReferencedROINumber")] = text(item, "RTROIInterpretedType").upper()
    structures, left_out = [], []
    for item in data.get("ROIContourSequence") or []:
        number = whole_number(item, "ReferencedROINumber")
        name = text(described[number], "ROIName") if number in described else ""
        kind = kinds.get(number, "")
        if kind in _PLANNING:
            left_out.append(f"region {number} is of the type {kind}: no lesion and no organ")
            continue
        try:
            mask = _rasterised(item, stack)
        except InputError as error:
            left_out.append(f"region {number}: {error.problems[0]}")
            continue
        image = to_image(stack, mask, labels=True, outside=0.0)
        colour = numbers(item, "ROIDisplayColor", 3)
        structures.append(
            Structure(
                name=name or f"region {number}",
                mask=sitk.GetArrayFromImage(image).astype(bool),
                is_anatomy=kind == "ORGAN",
                number=number or 0,
                colour=None if colour is None else (colour[0] / 255, colour[1] / 255, colour[2] / 255),
            )
        )
    return tuple(structures), tuple(left_out)


def _rasterised(item: Dataset, stack: Stack) -> np.ndarray:
    """Fill the contours of one region on the slices of a stack, uint8 (slice, row, column)."""
    across, down = stack.pixel_mm
    origins = np.array([picture.position for picture in stack.pictures], dtype=float)
    places = origins @ stack.normal
    slices: dict[int, np.ndarray] = {}
    for contour in item.get("ContourSequence") or []:
        if text(contour, "ContourGeometricType").upper() not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            continue
        try:
            points = np.array([float(value) for value in contour.ContourData]).reshape(-1, 3)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError("the points of a contour cannot be read") from error
        if len(points) < 3:
            continue
        along = points @ stack.normal
        if np.ptp(along) > 0.1 * stack.step_mm + 0.02:
            raise InputError("its contours do not lie in the planes of the CT slices")
        at = int(np.argmin(np.abs(places - along.mean())))
        if abs(places[at] - along.mean()) > _OFF_SLICE * stack.step_mm + 1e-3:
            raise InputError("its contours lie outside the CT slices")
        offsets = points - origins[at]
        polygon = np.stack([offsets @ stack.row / across, offsets @ stack.column / down], axis=1)
        filled = filled_polygon(polygon, stack.shape_zyx[1:])
        slices[at] = slices[at] ^ filled if at in slices else filled
    if not slices:
        raise InputError("it has no closed planar contour")
    result = np.zeros(stack.shape_zyx, dtype=np.uint8)
    for at, mask in {**slices, **_between(slices)}.items():
        result[at] = mask
    if not result.any():
        raise InputError("its contours hold no voxel centre")
    return result


def filled_polygon(polygon: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which pixel centres lie inside a closed polygon, bool (row, column), by the even-odd rule.

    ``polygon`` is an (n, 2) array of x = column and y = row with whole numbers at pixel centres. Each edge turns over the pixels to
    its right, row by row.
    """
    rows, columns = shape
    turned = np.zeros((rows, columns + 1), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        (low_x, low_y), (high_x, high_y) = ((x0, y0), (x1, y1)) if y0 < y1 else ((x1, y1), (x0, y0))
        first, last = max(int(np.ceil(low_y)), 0), min(int(np.ceil(high_y)), rows)
        if last <= first:
            continue
        crossed = np.arange(first, last)
        at = low_x + (crossed - low_y) * (high_x - low_x) / (high_y - low_y)
        turned[crossed, np.clip(np.ceil(at), 0, columns).astype(int)] ^= True
    return np.logical_xor.accumulate(turned, axis=1)[:, :columns]


def _between(slices: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return masks for slices between contours that were drawn on every second or third slice only.

    They are the zero level of the mean of the signed distances of the neighbours, weighted by nearness (shape-based interpolation,
    Raya and Udupa, doi:10.1109/42.52980). Wider gaps than the usual one are left open.
    """
    drawn = sorted(slices)
    gaps = np.diff(drawn)
    usual = int(np.median(gaps)) if len(gaps) else 1
    if usual < 2:
        return {}
    result = {}
    for low, high in itertools.pairwise(drawn):
        if not 1 < high - low <= usual:
            continue
        below, above = (_signed_distance(slices[at]) for at in (low, high))
        for at in range(low + 1, high):
            share = (at - low) / (high - low)
            result[at] = (1 - share) * below + share * above > 0
    return result


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)


def named_once(structures: Iterable[Structure]) -> tuple[Structure, ...]:
    """Give each structure a name of its own: the tracking identifier where there is one, else the label, numbered where repeated."""
    taken: set[str] = set()
    result = []
    for item in structures:
        wanted = " ".join((item.tracking_id or item.name).split())
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted} {count}"
        taken.add(name)
        result.append(dataclasses.replace(item, name=name))
    return tuple(result)
