"""Pictures of the lesions, of the whole chest and of the alignment.

Every picture is a plane cut out of the volume in patient coordinates, whatever the direction of the image: axial planes show the
patient's right at the left of the picture and anterior at the top, coronal planes the patient's right at the left and the head at the
top. A picture is a PNG of 8 bits; outlines, diameters and marks lie over it as geometry in millimetres from its top left corner, so that
they stay crisp at any size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ..analysis import Analysis, Lesion, LesionObservation, Point, TimepointRecord
from ..images import Segmentation
from ..lesions.lung_change import (
    CONSOLIDATION_COLOUR,
    GROUND_GLASS_COLOUR,
    NEW_CONSOLIDATION,
    NEW_GROUND_GLASS,
)
from ..progress import Progress, silent
from .contours import outlines

LESION_PIXELS = 256
SMALLEST_FIELD_MM = 60.0
LARGEST_FIELD_MM = 300.0
OVERVIEW_PIXEL_MM = 1.0
CHECKER_MM = 30.0
OUTSIDE_HU = -3000.0
BODY_HU = -400.0
# New opacities: how much of the colour covers the image, and the stripes that tell consolidation from ground glass without colour.
TINT = 0.45
STRIPE_MM = 6.0
SEARCH_MM = 4.0


@dataclass(frozen=True)
class Window:
    """What range of HU is shown, from black to white."""

    name: str
    level_hu: float
    width_hu: float

    def grey(self, values: np.ndarray) -> np.ndarray:
        """Return HU as grey values, uint8."""
        share = (values - (self.level_hu - self.width_hu / 2)) / self.width_hu
        return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)


LUNG_WINDOW = Window("lung window", -600.0, 1500.0)
MEDIASTINAL_WINDOW = Window("mediastinal window", 40.0, 400.0)
LIVER_WINDOW = Window("liver window", 70.0, 200.0)
BONE_WINDOW = Window("bone window", 450.0, 1800.0)
FUSION_WINDOW = Window("wide window", -300.0, 1400.0)


@dataclass(frozen=True)
class Contour:
    """The outline of one lesion as an SVG path in mm. ``of`` says at which of the two times it was drawn."""

    label: str
    of: Literal["baseline", "timepoint"]
    main: bool
    path: str


@dataclass(frozen=True)
class Diameter:
    """A measured diameter, its ends in mm from the top left corner."""

    name: Literal["long axis", "short axis"]
    length_mm: float
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A circle round a lesion that need not lie in the plane of the picture; its centre and radius in mm."""

    label: str
    x_mm: float
    y_mm: float
    radius_mm: float


@dataclass(frozen=True)
class Panel:
    """One picture: a PNG, what lies over it, and what it shows in words."""

    title: str
    description: str
    timepoint: str
    view: Literal["own", "registered", "overview", "fusion", "checkerboard", "map"]
    plane: Literal["axial", "coronal"]
    png: bytes
    width_mm: float
    height_mm: float
    scale_bar_mm: float
    contours: tuple[Contour, ...] = ()
    diameters: tuple[Diameter, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class KeyImage:
    """Pictures that belong together: one lesion over time, the chest over time, what is new in the lungs, or one alignment."""

    kind: Literal["lesion", "overview", "lungs", "alignment"]
    title: str
    lesion: str | None
    timepoint: str | None
    window: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class _Plane:
    """A grid of one slice in patient coordinates (LPS mm); ``origin`` is the centre of its top left pixel."""

    name: Literal["axial", "coronal"]
    origin: Point
    width: int
    height: int
    pixel_mm: float

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors to the right, down and into the plane, one per row."""
        if self.name == "axial":
            return np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
        return np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])

    @classmethod
    def around(
        cls, name: Literal["axial", "coronal"], centre: Point, size_mm: tuple[float, float], pixel_mm: float
    ) -> _Plane:
        """Return the plane of a size through a point that lies in its middle."""
        width, height = (max(round(length / pixel_mm), 2) for length in size_mm)
        right, down, _ = cls(name, centre, width, height, pixel_mm).axes
        origin = np.asarray(centre) - pixel_mm * ((width - 1) / 2 * right + (height - 1) / 2 * down)
        return cls(name, (float(origin[0]), float(origin[1]), float(origin[2])), width, height, pixel_mm)

    def position(self, point: Point) -> tuple[float, float]:
        """Return where a point projects onto the picture, in mm from its top left corner."""
        offset = np.asarray(point) - self.origin
        right, down, _ = self.axes
        return float(offset @ right + self.pixel_mm / 2), float(offset @ down + self.pixel_mm / 2)

    def cut(self, image: sitk.Image, transform: sitk.Transform | None, outside: float) -> np.ndarray:
        """Return the image in this plane, float32 (row, column), carried here by a transform of this plane's points to the image's."""
        result = sitk.Resample(
            image,
            [self.width, self.height, 1],
            transform or sitk.Transform(3, sitk.sitkIdentity),
            sitk.sitkLinear,
            self.origin,
            [self.pixel_mm] * 3,
            self.axes.T.ravel().tolist(),
            outside,
            sitk.sitkFloat32,
        )
        return sitk.GetArrayFromImage(result)[0]

    def crop(self, image: sitk.Image, transform: sitk.Transform | None) -> sitk.Image | None:
        """Return the part of an image that this plane sees, None where it sees none of it.

        The part is found by a coarse lattice of the plane's points; a margin of 10 mm takes up what a smooth transform does
        between them.
        """
        right, down, _ = self.axes
        steps = [
            np.asarray(self.origin) + self.pixel_mm * (column * right + row * down)
            for row in np.linspace(0, self.height - 1, 9)
            for column in np.linspace(0, self.width - 1, 9)
        ]
        points = [transform.TransformPoint(step.tolist()) if transform else step.tolist() for step in steps]
        indices = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points])
        margin = np.ceil(10.0 / np.asarray(image.GetSpacing())) + 1
        first = np.maximum(np.floor(indices.min(axis=0) - margin), 0).astype(int)
        last = np.minimum(np.ceil(indices.max(axis=0) + margin) + 1, image.GetSize()).astype(int)
        if (last <= first).any():
            return None
        return sitk.RegionOfInterest(image, (last - first).tolist(), first.tolist())


class _Encoder:
    """Turns arrays into PNG bytes through a folder that the caller removes."""

    def __init__(self, folder: Path):
        self._path = folder / "picture.png"

    def png(self, array: np.ndarray) -> bytes:
        """Encode uint8 grey (row, column) or colour (row, column, 3)."""
        # The highest level, 9, takes twice as long for a fiftieth of the size.
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(self._path), True, 4)
        return self._path.read_bytes()


@dataclass(frozen=True)
class _Material:
    """What pictures are made from; ``shown`` are the time points that have a volume."""

    analysis: Analysis
    shown: tuple[TimepointRecord, ...]
    volumes: Mapping[str, sitk.Image]
    segmentations: Mapping[str, Segmentation]
    transforms: Mapping[str, sitk.Transform]
    encoder: _Encoder


def window_for(organ: str) -> Window:
    """Return the window in which a reader looks at lesions of an organ."""
    words = organ.lower()
    if any(word in words for word in ("bone", "rib", "spine", "vertebra", "skelet", "sternum")):
        return BONE_WINDOW
    if "liver" in words or "hepatic" in words:
        return LIVER_WINDOW
    # The hilum and the nodes beside the lung are read like the mediastinum.
    if ("lung" in words or "pulmon" in words) and "node" not in words:
        return LUNG_WINDOW
    return MEDIASTINAL_WINDOW


def scale_bar_mm(width_mm: float) -> float:
    """Return the length of a scale bar that takes up to a third of a picture."""
    return max((length for length in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0) if length <= width_mm / 3), default=1.0)


def key_images(
    analysis: Analysis,
    volumes: Mapping[str, sitk.Image],
    segmentations: Mapping[str, Segmentation],
    transforms: Mapping[str, sitk.Transform],
    progress: Progress = silent,
    *,
    opacities: Mapping[str, Segmentation] | None = None,
) -> tuple[KeyImage, ...]:
    """Make the pictures of a report.

    Parameters
    ----------
    analysis
        The result that is pictured; it says where each lesion is and how it was measured.
    volumes
        CT in HU per time point. A time point without a volume gets no picture.
    segmentations
        Per time point, with segments named by lesion id, on the grid of that time point's volume. May lack time points.
    transforms
        Per time point other than the baseline: LPS points of the baseline to LPS points of that time point. May lack time points; what
        needs them is left out.
    progress
        Told about each group of pictures; may raise to stop.
    opacities
        Per time point, the segments `new ground-glass` and `new consolidation` on the grid of its volume. May lack time
        points; of those in which nothing is new there is no picture.

    Returns
    -------
    tuple of KeyImage
        The chest over time, then each lesion in the order of the analysis, then each map of new opacities, then each
        alignment.
    """
    shown = tuple(item for item in analysis.timepoints if item.name in volumes)
    aligned = [item for item in shown if item.name in transforms and item.name != analysis.baseline]
    work = 1 + len(analysis.lesions) + len(aligned)
    groups: list[KeyImage] = []
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        material = _Material(analysis, shown, volumes, segmentations, transforms, _Encoder(Path(folder)))
        progress(0.0, "Picturing the chest")
        groups += _overview(material)
        for done, lesion in enumerate(analysis.lesions, start=1):
            progress(done / work, f"Picturing lesion {done} of {len(analysis.lesions)}")
            pictures = _lesion(material, lesion)
            if pictures is not None:
                groups.append(pictures)
        for item in aligned:
            new = _new_opacities(material, item, (opacities or {}).get(item.name))
            if new is not None:
                groups.append(new)
        for done, item in enumerate(aligned, start=1 + len(analysis.lesions)):
            progress(done / work, f"Picturing the alignment of {item.name}")
            if analysis.baseline in volumes:
                groups.append(_alignment(material, item))
    progress(1.0, "Pictures made")
    return tuple(groups)


def when(timepoint: TimepointRecord) -> str:
    """Return a time point in words: its name and its day."""
    return f"{timepoint.name}, day {timepoint.day}".replace("day -", "day −")


def on_baseline(analysis: Analysis, timepoint: TimepointRecord) -> str:
    """Return what a picture carried onto the baseline is called; a failed alignment is said with it."""
    failed = any(item.timepoint == timepoint.name and item.quality.verdict == "failed" for item in analysis.alignments)
    return f"{when(timepoint)} on {analysis.baseline}" + (" (alignment failed)" if failed else "")


def _lesion(material: _Material, lesion: Lesion) -> KeyImage | None:
    """Picture one lesion: each time point as it is and, but for the baseline, carried onto the baseline."""
    analysis, segmentations = material.analysis, material.segmentations
    sizes = [item.long_axis_mm for item in lesion.observations if item.long_axis_mm is not None]
    field = float(np.clip(np.ceil((2.2 * max(sizes, default=0.0) + 20) / 10) * 10, SMALLEST_FIELD_MM, LARGEST_FIELD_MM))
    window = window_for(lesion.organ)
    ids = {item.id for item in analysis.lesions}
    reference = _reference_centre(analysis, lesion)
    at_baseline = _measured_centre(lesion.at(analysis.baseline)) is not None
    panels: list[Panel] = []

    def picture(
        item: TimepointRecord,
        view: Literal["own", "registered"],
        centre: Point,
        transform: sitk.Transform | None,
        how: str,
    ) -> None:
        plane = _Plane.around("axial", centre, (field, field), field / LESION_PIXELS)
        seen = lesion.at(item.name)
        main = (seen.merged_into if seen else None) or lesion.id
        contours: list[Contour] = []
        if item.name in segmentations:
            of: Literal["baseline", "timepoint"] = "baseline" if item.name == analysis.baseline else "timepoint"
            contours += _contours(plane, segmentations[item.name], transform, ids=ids, main=main, of=of)
        if view == "registered" and analysis.baseline in segmentations:
            contours += _contours(
                plane, segmentations[analysis.baseline], None, ids={lesion.id}, main=lesion.id, of="baseline"
            )
        panels.append(
            Panel(
                title=on_baseline(analysis, item) if view == "registered" else when(item),
                description=f"Axial CT of lesion {lesion.id} ({lesion.organ}) at {when(item)}, {window.name}, {how}. "
                f"Field of view {field:.0f} mm. Patient right at image left.",
                timepoint=item.name,
                view=view,
                plane="axial",
                png=material.encoder.png(window.grey(plane.cut(material.volumes[item.name], transform, OUTSIDE_HU))),
                width_mm=field,
                height_mm=field,
                scale_bar_mm=scale_bar_mm(field),
                contours=tuple(contours),
                diameters=_diameters(plane, seen) if view == "own" else (),
            )
        )

    for item in material.shown:
        transform = material.transforms.get(item.name)
        centre = _measured_centre(lesion.at(item.name))
        there = centre is not None
        how = "slice of its measurement"
        if item.name == analysis.baseline:
            if reference is not None:
                picture(item, "own", reference, None, how if centre else "where it lies later")
            continue
        if centre is None and reference is not None and transform is not None:
            centre, how = transform.TransformPoint(reference), "corresponding slice"
        if centre is not None:
            picture(item, "own", centre, None, how)
        if reference is not None and transform is not None and (there or at_baseline):
            moved = locally_rigid(transform, reference, field, max(sizes, default=0.0) / 2)
            picture(item, "registered", reference, moved, "moved and turned onto the slice of the baseline")
    if not panels:
        return None
    title = f"{lesion.id}: {lesion.organ}, {lesion.role}"
    return KeyImage("lesion", title, lesion.id, None, window.name, tuple(panels))


def locally_rigid(transform: sitk.Transform, centre: Point, field_mm: float, without_mm: float) -> sitk.Transform:
    """Return the shift and turn that come closest to a transform around a point.

    A deformable alignment maps a grown lesion onto its former size, so that the growth would not be seen. The fit (Kabsch,
    doi:10.1107/S0567739476001873) takes points of a cube of side ``field_mm`` that are farther than ``without_mm`` from its centre.
    """
    steps = np.linspace(-0.5, 0.5, 7) * field_mm
    offsets = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    here = np.asarray(centre) + offsets[np.linalg.norm(offsets, axis=1) > without_mm]
    there = np.array([transform.TransformPoint(point) for point in here.tolist()])
    middle, target = here.mean(axis=0), there.mean(axis=0)
    left, _, right = np.linalg.svd((there - target).T @ (here - middle))
    turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    rigid = sitk.AffineTransform(3)
    rigid.SetCenter(middle.tolist())
    rigid.SetMatrix(turn.ravel().tolist())
    rigid.SetTranslation((target - middle).tolist())
    return rigid


def _measured_centre(seen: LesionObservation | None) -> Point | None:
    """Return the middle of a lesion in the slice in which it was measured."""
    if seen is None:
        return None
    if seen.long_axis_ends_lps_mm is None:
        return seen.centroid_lps_mm
    middle = np.mean(seen.long_axis_ends_lps_mm, axis=0)
    return float(middle[0]), float(middle[1]), float(middle[2])


def _reference_centre(analysis: Analysis, lesion: Lesion) -> Point | None:
    """Return where a lesion is at the baseline, or would be if it were there."""
    centre = _measured_centre(lesion.at(analysis.baseline))
    carried = (item.centroid_reference_lps_mm for item in lesion.observations)
    return centre or next((point for point in carried if point is not None), None)


def _contours(
    plane: _Plane,
    segmentation: Segmentation,
    transform: sitk.Transform | None,
    *,
    ids: Iterable[str],
    main: str,
    of: Literal["baseline", "timepoint"],
) -> list[Contour]:
    """Return the outlines of lesions in a plane, those of the main lesion last, so that they lie on top."""
    wanted = set(ids)
    contours = []
    for number, layer in enumerate(segmentation.layers):
        part = plane.crop(layer, transform)
        if part is None:
            continue
        present = set(np.unique(sitk.GetArrayViewFromImage(part)).tolist())
        for segment in segmentation.segments:
            if segment.layer != number or segment.name not in wanted or segment.label not in present:
                continue
            inside = plane.cut(part == segment.label, transform, 0.0)
            if inside.max() > 0.5:
                path = svg_path(outlines(inside), plane.pixel_mm)
                contours.append(Contour(segment.name, of, segment.name == main, path))
    return sorted(contours, key=lambda item: item.main)


def svg_path(polygons: Iterable[np.ndarray], pixel_mm: float) -> str:
    """Return closed polygons, in pixels with whole numbers at pixel centres, as an SVG path in mm from the top left corner."""
    pieces = []
    for polygon in polygons:
        points = (polygon + 0.5) * pixel_mm
        pieces.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) + "Z")
    return "".join(pieces)


def _diameters(plane: _Plane, seen: LesionObservation | None) -> tuple[Diameter, ...]:
    """Return the measured diameters, projected onto the plane."""
    if seen is None:
        return ()
    found = []
    for name, ends, length in (
        ("long axis", seen.long_axis_ends_lps_mm, seen.long_axis_mm),
        ("short axis", seen.short_axis_ends_lps_mm, seen.short_axis_mm),
    ):
        if ends is not None and length is not None:
            found.append(Diameter(name, length, plane.position(ends[0]), plane.position(ends[1])))  # type: ignore[arg-type]
    return tuple(found)


def _box(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest LPS coordinates of the voxels of an image."""
    last = np.asarray(image.GetSize()) - 1
    corners = [
        image.TransformContinuousIndexToPhysicalPoint((np.asarray(corner) * last).astype(float).tolist())
        for corner in np.ndindex(2, 2, 2)
    ]
    return np.min(corners, axis=0), np.max(corners, axis=0)


def _body_centre(image: sitk.Image) -> Point:
    """Return the centre of the body, from one voxel in eight along each axis."""
    voxels = sitk.GetArrayViewFromImage(image)[::8, ::8, ::8]
    hits = np.argwhere(voxels > BODY_HU)
    middle = hits.mean(axis=0) * 8 if len(hits) else (np.asarray(image.GetSize()[::-1]) - 1) / 2
    point = image.TransformContinuousIndexToPhysicalPoint(middle[::-1].astype(float).tolist())
    return float(point[0]), float(point[1]), float(point[2])


def _whole_plane(name: Literal["axial", "coronal"], image: sitk.Image, through: Point) -> _Plane:
    """Return the plane through a point that spans the whole image."""
    low, high = _box(image)
    middle = (low + high) / 2
    extent = high - low
    kept = 2 if name == "axial" else 1
    middle[kept] = through[kept]
    size = (float(extent[0]), float(extent[1] if name == "axial" else extent[2]))
    return _Plane.around(name, (float(middle[0]), float(middle[1]), float(middle[2])), size, OVERVIEW_PIXEL_MM)


def _overview(material: _Material) -> list[KeyImage]:
    """Picture the chest at each time point in the coronal plane through its largest lesion, every lesion marked."""
    panels = []
    for item in material.shown:
        seen = [(lesion, found) for lesion in material.analysis.lesions if (found := lesion.at(item.name)) is not None]
        placed = [(lesion, found, found.centroid_lps_mm) for lesion, found in seen if found.centroid_lps_mm is not None]
        largest = max(placed, key=lambda entry: entry[1].long_axis_mm or 0.0, default=None)
        image = material.volumes[item.name]
        plane = _whole_plane("coronal", image, largest[2] if largest else _body_centre(image))
        marks = tuple(
            Mark(lesion.id, *plane.position(centre), max((found.long_axis_mm or 0.0) / 2 + 3.0, 6.0))
            for lesion, found, centre in placed
        )
        listed = ", ".join(mark.label for mark in marks) or "none"
        width, height = plane.width * plane.pixel_mm, plane.height * plane.pixel_mm
        panels.append(
            Panel(
                title=when(item),
                description=f"Coronal CT at {when(item)}, lung window. Lesions marked by circles: {listed}; a circle may lie in front of or "
                "behind the plane. Patient right at image left.",
                timepoint=item.name,
                view="overview",
                plane="coronal",
                png=material.encoder.png(LUNG_WINDOW.grey(plane.cut(image, None, OUTSIDE_HU))),
                width_mm=width,
                height_mm=height,
                scale_bar_mm=scale_bar_mm(width),
                marks=marks,
            )
        )
    return (
        [KeyImage("overview", "Where the lesions are", None, None, LUNG_WINDOW.name, tuple(panels))] if panels else []
    )


def _new_opacities(material: _Material, item: TimepointRecord, map_: Segmentation | None) -> KeyImage | None:
    """Picture what is new in the lungs where most of it lies: the baseline, the follow-up carried onto it, and the same marked."""
    name_of_baseline = material.analysis.baseline
    if map_ is None or name_of_baseline not in material.volumes:
        return None
    baseline, followup = (material.volumes[name] for name in (name_of_baseline, item.name))
    transform = material.transforms[item.name]
    record = next(entry for entry in material.shown if entry.name == name_of_baseline)
    masks = [map_.mask(name) for name in (NEW_GROUND_GLASS, NEW_CONSOLIDATION)]
    centre = _fullest_planes(sitk.Or(*masks), baseline, transform)
    if centre is None:
        return None
    panels = []
    for name in ("coronal", "axial"):
        plane = _whole_plane(name, baseline, centre)
        before = LUNG_WINDOW.grey(plane.cut(baseline, None, OUTSIDE_HU))
        after = LUNG_WINDOW.grey(plane.cut(followup, transform, OUTSIDE_HU))
        shares = [plane.cut(mask, transform, 0.0) for mask in masks]
        is_solid = (shares[1] > 0.5) | ((sum(shares) > 0.5) & (shares[1] > shares[0]))
        is_glass = (sum(shares) > 0.5) & ~is_solid
        marked = _tinted(after, is_glass, is_solid, plane.pixel_mm)
        where = f"{name} plane that holds most of what is new, lung window"
        views: tuple[tuple[Literal["own", "registered", "map"], str, str, np.ndarray], ...] = (
            ("own", when(record), f"CT at {name_of_baseline}", before),
            ("registered", on_baseline(material.analysis, item), f"CT of {item.name} carried onto the baseline", after),
            (
                "map",
                "What is new: light ground glass, dark striped consolidation",
                f"CT of {item.name} carried onto the baseline with new ground glass in light blue "
                f"({_share_words(is_glass, plane)}) and new consolidation in dark blue with stripes ({_share_words(is_solid, plane)})",
                marked,
            ),
        )
        for view, title, said, array in views:
            panels.append(
                Panel(
                    title=f"{title}, {name}" if view != "map" else title,
                    description=f"{said}; {where}. Patient right at image left.",
                    timepoint=item.name if view != "own" else name_of_baseline,
                    view=view,
                    plane=plane.name,
                    png=material.encoder.png(array),
                    width_mm=plane.width * plane.pixel_mm,
                    height_mm=plane.height * plane.pixel_mm,
                    scale_bar_mm=scale_bar_mm(plane.width * plane.pixel_mm),
                )
            )
    title = f"New lung opacities, {on_baseline(material.analysis, item)}"
    return KeyImage("lungs", title, None, item.name, LUNG_WINDOW.name, tuple(panels))


def _fullest_planes(mask: sitk.Image, baseline: sitk.Image, transform: sitk.Transform) -> Point | None:
    """Return the point of the baseline in whose coronal and axial planes most of a carried mask lies; None where it is empty."""
    size = [
        max(round(count * step / SEARCH_MM), 1)
        for count, step in zip(baseline.GetSize(), baseline.GetSpacing(), strict=True)
    ]
    spacing = [
        count * step / few for count, step, few in zip(baseline.GetSize(), baseline.GetSpacing(), size, strict=True)
    ]
    carried = sitk.Resample(
        mask,
        size,
        transform,
        sitk.sitkLinear,
        baseline.TransformContinuousIndexToPhysicalPoint(
            [0.5 * (wide / fine - 1.0) for wide, fine in zip(spacing, baseline.GetSpacing(), strict=True)]
        ),
        spacing,
        baseline.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )
    filled = np.argwhere(sitk.GetArrayViewFromImage(carried) > 0.5)[:, ::-1]
    if not len(filled):
        return None
    points = np.array([carried.TransformIndexToPhysicalPoint(cell) for cell in filled.tolist()])
    fullest = []
    for along in np.sort(points, axis=0).T:
        # Most points within a slab; of equals the middle one.
        held = np.searchsorted(along, along + SEARCH_MM) - np.searchsorted(along, along - SEARCH_MM)
        fullest.append(float(np.median(along[held == held.max()])))
    return fullest[0], fullest[1], fullest[2]


def _tinted(
    grey: np.ndarray,
    glass: np.ndarray,
    solid: np.ndarray,
    pixel_mm: float,
) -> np.ndarray:
    """Return a grey picture (row, column) in colour, ground glass tinted and consolidation tinted and striped."""
    rows, columns = np.indices(grey.shape)
    stripes = (rows + columns) * pixel_mm % STRIPE_MM < STRIPE_MM / 2
    picture = np.repeat(grey[..., None].astype(np.float32), 3, axis=2)
    for mask, colour, share in (
        (glass, GROUND_GLASS_COLOUR, TINT),
        (solid, CONSOLIDATION_COLOUR, TINT),
        (solid & stripes, CONSOLIDATION_COLOUR, 0.9),
    ):
        picture[mask] += share * (255.0 * np.asarray(colour, dtype=np.float32) - picture[mask])
    return np.rint(picture).astype(np.uint8)


def _share_words(mask: np.ndarray, plane: _Plane) -> str:
    return f"{mask.sum() * plane.pixel_mm**2 / 100.0:.0f} cm² in this plane"


def _alignment(material: _Material, item: TimepointRecord) -> KeyImage:
    """Picture a time point on the baseline: both in complementary colours, and as a checkerboard."""
    name_of_baseline = material.analysis.baseline
    baseline = material.volumes[name_of_baseline]
    centre = _body_centre(baseline)
    pair = f"{name_of_baseline} and {item.name}"
    panels = []
    for name in ("coronal", "axial"):
        plane = _whole_plane(name, baseline, centre)
        fixed = FUSION_WINDOW.grey(plane.cut(baseline, None, OUTSIDE_HU))
        carried = plane.cut(material.volumes[item.name], material.transforms[item.name], np.nan)
        # Where the later scan does not reach, the baseline alone is shown, darkened, instead of a mismatch.
        scanned = np.isfinite(carried)
        fixed = np.where(scanned, fixed, fixed // 3)
        moved = np.where(scanned, FUSION_WINDOW.grey(np.nan_to_num(carried)), fixed)
        rows, columns = np.indices(fixed.shape) // round(CHECKER_MM / plane.pixel_mm)
        views = (
            ("fusion", np.stack([fixed, moved, moved], axis=2), "in red and cyan; grey where they agree"),
            (
                "checkerboard",
                np.where((rows + columns) % 2 == 0, fixed, moved),
                "as a checkerboard; edges run on where they agree",
            ),
        )
        for view, array, how in views:
            panels.append(
                Panel(
                    title=f"{view.capitalize()}, {name}",
                    description=f"{name.capitalize()} CT of {pair} after alignment, {how}. Patient right at image left.",
                    timepoint=item.name,
                    view=view,  # type: ignore[arg-type]
                    plane=plane.name,
                    png=material.encoder.png(array),
                    width_mm=plane.width * plane.pixel_mm,
                    height_mm=plane.height * plane.pixel_mm,
                    scale_bar_mm=scale_bar_mm(plane.width * plane.pixel_mm),
                )
            )
    return KeyImage(
        "alignment", on_baseline(material.analysis, item), None, item.name, FUSION_WINDOW.name, tuple(panels)
    )
