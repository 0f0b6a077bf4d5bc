"""A virtual patient: anatomy once, then every scan of it with its position, tumours, opacities and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..analysis import LesionEvent, Point
from ..errors import InputError
from ..images import Anatomy, RegionMask
from ..progress import Progress, part, silent
from ..study import Clinical, LesionSpec, Treatment
from .deformation import Deformation, breathing_and_posture, identity
from .lattice import Lattice, smooth_noise
from .noise import NoiseSource, noise_map
from .scenario import Scenario, Size, TimepointPlan, problems_of, random_scenario
from .thorax import AIR_HU, Thorax, build_thorax
from .truth import (
    TRUTH_VERSION,
    Truth,
    TruthLesion,
    TruthObservation,
    TruthTimepoint,
    axial_diameters,
    labels_of,
)
from .tumours import Drawn, Tumour, draw_tumours, paint_tumour, plan_tumours

_SLAB = 16
GROUND_GLASS, CONSOLIDATION = 1, 2
# Voxels (z, y, x) in mm, how many, and how high the top of the baseline CT lies at least, in mm.
_SCANS: dict[Size, tuple[tuple[float, float, float], tuple[int, int, int], float]] = {
    "full": ((1.25, 0.75, 0.75), (300, 512, 512), 124.0),
    "small": ((2.5, 2.0, 2.0), (120, 160, 192), 118.0),
    "tiny": ((4.0, 3.5, 3.5), (75, 92, 110), 118.0),
}


@dataclass(frozen=True, eq=False)
class VirtualTimepoint:
    """One scan: the CT in HU (int16), the named contours, the anatomy (see ``Anatomy``) and the opacities.

    ``opacities`` is 1 in ground glass and 2 in consolidation, None where there is neither. ``deformation`` carries baseline
    points to this scan.
    """

    plan: TimepointPlan
    ct: sitk.Image
    segments: tuple[tuple[str, RegionMask], ...]
    anatomy: sitk.Image
    opacities: sitk.Image | None
    deformation: Deformation


@dataclass(frozen=True, eq=False)
class VirtualPatient:
    """A simulated patient with everything that is known about it."""

    name: str
    seed: int
    size: Size
    scenario: Scenario
    timepoints: tuple[VirtualTimepoint, ...]
    treatment: Treatment
    clinical: Clinical
    lesions: tuple[LesionSpec, ...]
    truth: Truth

    def at(self, timepoint: str) -> VirtualTimepoint:
        """Return a time point by name; KeyError if there is none."""
        for item in self.timepoints:
            if item.plan.name == timepoint:
                return item
        raise KeyError(timepoint)


@dataclass(frozen=True, eq=False)
class _Scan:
    """A scan as it is drawn, before the truth is put together."""

    image: VirtualTimepoint
    drawn: list[Drawn]
    names: tuple[tuple[str, ...], ...]
    ground_glass_ml: float
    consolidation_ml: float
    lung_ml: tuple[float, float]
    error_mm: float


def simulate_patient(
    seed: int,
    *,
    size: Size = "full",
    scenario: Scenario | None = None,
    name: str = "P0001",
    progress: Progress = silent,
) -> VirtualPatient:
    """Make a virtual patient; the same arguments give the same patient.

    The seed decides anatomy, places and forms of lesions, irregular motion and noise, each from random numbers of its own.
    Noise and irregular motion of a time point depend on its place in the order of the scans, not on the other scans;
    lesions are drawn one after the other and make way for each other, so that another list of lesions moves them all.
    The anatomy is drawn as far beyond the scan as the largest motion of the scenario needs, and its fine details follow
    that extent. Without a scenario one is drawn.

    ``full`` is 512 x 512 x 300 voxels of 0.75 x 0.75 x 1.25 mm, ``small`` 192 x 160 x 120 of 2 x 2 x 2.5 mm, ``tiny`` 110 x 92 x 75
    of 3.5 x 3.5 x 4 mm.

    Raises
    ------
    InputError
        If the scenario is impossible, with every reason.
    StageError
        If a lesion finds no place.
    """
    scenario = scenario or random_scenario(np.random.default_rng([seed, 0]))
    if problems := problems_of(scenario):
        raise InputError(problems)
    scan = _baseline_scan(size, np.random.default_rng([seed, 6]))
    thorax = build_thorax(
        scan,
        np.random.default_rng([seed, 1]),
        margin_mm=_margin(scenario),
        lungs=scenario.lungs,
        contrast=scenario.contrast,
        progress=part(progress, 0.0, 0.3),
    )
    tumours = plan_tumours(scenario, thorax, np.random.default_rng([seed, 2]), scan)
    potential = _opacity_potential(thorax, np.random.default_rng([seed, 5]))
    scans = []
    count = len(scenario.timepoints)
    for index, plan in enumerate(scenario.timepoints):
        deformation = _deformation(plan, scenario, thorax, np.random.default_rng([seed, 3, index]))
        scans.append(
            _scan(
                plan,
                scenario,
                thorax,
                tumours,
                potential,
                scan,
                deformation,
                np.random.default_rng([seed, 4, index]),
                part(progress, 0.3 + 0.7 * index / count, 0.3 + 0.7 * (index + 1) / count),
            )
        )
    truth = _truth(name, seed, size, scenario, tumours, scans)
    progress(1.0, "virtual patient")
    return VirtualPatient(
        name=name,
        seed=seed,
        size=size,
        scenario=scenario,
        timepoints=tuple(item.image for item in scans),
        treatment=Treatment(start=scenario.treatment_start, agents=("pembrolizumab",), regimen="PD-1", line=1),
        clinical=_clinical(truth, np.random.default_rng([seed, 7])),
        lesions=_specs(scenario, truth),
        truth=truth,
    )


def _baseline_scan(size: Size, rng: np.random.Generator) -> Lattice:
    """Return the voxels of the baseline CT: the top lies a little above the lungs."""
    spacing, shape, top = _SCANS[size]
    top += round(float(rng.uniform(0.0, 8.0)), 2)
    origin = [top - spacing[0] * (shape[0] - 1), -0.5 * spacing[1] * (shape[1] - 1), -0.5 * spacing[2] * (shape[2] - 1)]
    return Lattice((origin[0], origin[1], origin[2]), spacing, shape)


def _margin(scenario: Scenario) -> float:
    """Return how far beyond the scan tissue can come into view at any time point, in mm."""
    need = 4.0
    for plan in scenario.timepoints:
        motion = plan.motion
        tilt = np.sin(np.radians(np.hypot(motion.rotation_degrees[0], motion.rotation_degrees[1])))
        reach = abs(motion.breathing_mm) + abs(motion.translation_mm[2]) + 2 * motion.irregular_mm + 170.0 * tilt
        need = max(need, reach + 4.0)
    return float(need)


def _deformation(plan: TimepointPlan, scenario: Scenario, thorax: Thorax, rng: np.random.Generator) -> Deformation:
    lattice = Lattice.covering(thorax.fine.low - 12.0, thorax.fine.high + 12.0, 5.0)
    if plan is scenario.baseline:
        return identity(lattice)
    motion = plan.motion
    moved = breathing_and_posture(
        motion,
        rng,
        lattice,
        apex_z=thorax.apex_z,
        dome_z=thorax.dome_z,
        chest_half_width=thorax.chest_half_width,
        spine_y=thorax.spine_y,
        centre=np.array([-40.0, 0.0, 0.0]),
    )
    offset = np.asarray(motion.frame_offset_mm[::-1])
    return Deformation(moved.lattice, moved.inner, moved.rotation, moved.centre, moved.translation + offset)


def _scan(
    plan: TimepointPlan,
    scenario: Scenario,
    thorax: Thorax,
    tumours: tuple[Tumour, ...],
    potential: np.ndarray,
    baseline_scan: Lattice,
    deformation: Deformation,
    rng: np.random.Generator,
    progress: Progress,
) -> _Scan:
    """Draw one scan."""
    offset = np.asarray(plan.motion.frame_offset_mm[::-1])
    moved_origin = baseline_scan.low + offset
    scan = Lattice(
        (float(moved_origin[0]), float(moved_origin[1]), float(moved_origin[2])),
        baseline_scan.spacing,
        baseline_scan.shape,
    )
    progress(0.0, f"{plan.name}: position")
    box = _body_box(scan, thorax, deformation)
    body = scan.part(box)
    nodes = Lattice.covering(body.low, body.high, 2.8)
    origin = deformation.inverse_on(nodes)
    hu, labels, opacity, error = _tissue(plan, thorax, deformation, potential, body, nodes, origin, rng, progress)
    drawn = draw_tumours(tumours, float(scenario.day(plan)), scan, deformation, thorax)
    for item in drawn:
        where = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(item.box, box, strict=True))
        inside = tuple(
            slice(max(s.start, 0) - s.start, min(s.stop, n) - s.start) for s, n in zip(where, hu.shape, strict=True)
        )
        if any(s.stop <= s.start for s in inside):
            continue
        where = tuple(slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(where, hu.shape, strict=True))
        whole = np.full(item.level.shape, AIR_HU, dtype=np.float32)
        whole[inside] = hu[where]
        viable, inflamed = tumours[item.members[0]].volume_at(float(scenario.day(plan)))
        paint_tumour(whole, item, tumours[item.members[0]], inflamed / (viable + inflamed))
        hu[where] = whole[inside]
        if opacity is not None:
            opacity[where][item.mask[inside]] = 0
    progress(0.6, f"{plan.name}: noise")
    ct = _with_noise(hu, labels, box, scan, scenario.noise_hu / np.sqrt(plan.dose), rng, part(progress, 0.6, 1.0))
    names, segments = _segments(drawn, tumours, scan, scenario.permute_names, plan.name, rng)
    lungs = [float((labels == label).sum()) * scan.voxel_ml for label in (Anatomy.RIGHT_LUNG, Anatomy.LEFT_LUNG)]
    glass = float((opacity == GROUND_GLASS).sum()) * scan.voxel_ml if opacity is not None else 0.0
    solid = float((opacity == CONSOLIDATION).sum()) * scan.voxel_ml if opacity is not None else 0.0
    image = VirtualTimepoint(
        plan=plan,
        ct=_image(ct, scan),
        segments=segments,
        anatomy=_image(_pasted(labels, box, scan), scan),
        opacities=None if opacity is None else _image(_pasted(opacity, box, scan), scan),
        deformation=deformation,
    )
    return _Scan(image, drawn, names, glass, solid, (lungs[0], lungs[1]), error)


def _body_box(scan: Lattice, thorax: Thorax, deformation: Deformation) -> tuple[slice, slice, slice]:
    """Return the index box of a scan that holds the body; all slices belong to it."""
    surface = np.argwhere(
        np.abs(thorax.coarse.expand(thorax.body, Lattice.covering(thorax.fine.low, thorax.fine.high, 12.0))) < 20
    )
    points = deformation.forward(thorax.fine.low + 12.0 * surface)
    low, high = points.min(axis=0) - 6.0, points.max(axis=0) + 6.0
    low[0], high[0] = scan.low[0] - 1.0, scan.high[0] + 1.0
    return scan.box(low, high)


def _tissue(
    plan: TimepointPlan,
    thorax: Thorax,
    deformation: Deformation,
    potential: np.ndarray,
    body: Lattice,
    nodes: Lattice,
    origin: np.ndarray,
    rng: np.random.Generator,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, float]:
    """Sample the baseline anatomy through the inverse map and lay the opacities over it.

    Returns HU (float32), labels (uint8), opacities (uint8 or None), all on the voxels of ``body``, and the largest distance
    between a voxel and where the map carries the point that it was sampled at.
    """
    fine = thorax.fine
    hu = np.empty(body.shape, dtype=np.float32)
    labels = np.empty(body.shape, dtype=np.uint8)
    points = np.moveaxis(origin, 0, -1)
    # Air dilutes tissue: lung density goes with the inverse of the local volume (mass is kept).
    dilution = 1.0 / deformation.lattice.at(deformation.jacobian, points)
    wish = (plan.ground_glass_ml, plan.consolidation_ml)
    opacity, levels, height = None, (np.inf, np.inf), None
    if sum(wish) > 0:
        opacity = np.zeros(body.shape, dtype=np.uint8)
        height = thorax.coarse.at(potential, points)
        levels = _levels(height[thorax.coarse.at(thorax.lungs, points) < 0], nodes.voxel_ml, wish)
    grain_rng = np.random.default_rng(int(rng.integers(2**31)))
    error = 0.0
    for first in range(0, body.shape[0], _SLAB):
        span = slice(first, min(first + _SLAB, body.shape[0]))
        piece = body.part((span, slice(0, body.shape[1]), slice(0, body.shape[2])))
        if deformation.is_identity:
            value, label = _at_rest(thorax, piece)
        else:
            place = np.stack([nodes.expand(origin[i], piece) for i in range(3)])
            error = max(error, _mismatch(place, piece, deformation))
            for i in range(3):
                place[i] -= fine.origin[i]
                place[i] /= fine.spacing[i]
            value = ndimage.map_coordinates(thorax.hu, place, np.float32, order=1, mode="nearest", prefilter=False)
            label = ndimage.map_coordinates(thorax.labels, place, np.uint8, order=0, mode="nearest", prefilter=False)
            airy = np.clip((-480.0 - value) / 150.0, 0.0, 1.0)
            airy *= (label == Anatomy.RIGHT_LUNG) | (label == Anatomy.LEFT_LUNG)
            value += airy * (value + 1000.0) * (nodes.expand(dilution, piece) - 1.0)
        if opacity is not None and height is not None:
            _lay_opacities(value, label, nodes.expand(height, piece), levels, opacity[span], grain_rng)
        hu[span] = value
        labels[span] = label
        progress(0.1 + 0.5 * span.stop / body.shape[0], f"{plan.name}: tissue")
    return hu, labels, opacity, error


def _at_rest(thorax: Thorax, piece: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Return HU and labels on voxels at the baseline, where nothing has moved."""
    fine = thorax.fine
    margin = np.asarray(fine.spacing)
    near = fine.box(piece.low - margin, piece.high + margin)
    part = fine.part((near[0], slice(0, fine.shape[1]), slice(0, fine.shape[2])))
    value = part.expand(thorax.hu[near[0]], piece)
    index = [
        np.clip(np.rint((piece.axis(i) - fine.origin[i]) / fine.spacing[i]).astype(int), 0, fine.shape[i] - 1)
        for i in range(3)
    ]
    return value, thorax.labels[np.ix_(*index)]


def _mismatch(place: np.ndarray, piece: Lattice, deformation: Deformation) -> float:
    """Return how far the points that are sampled, carried forward, lie from the voxels that they are sampled for."""
    step = tuple(max(1, size // 9) for size in piece.shape)
    some = tuple(slice(s // 2, None, s) for s in step)
    sampled = np.moveaxis(place[:, some[0], some[1], some[2]], 0, -1).astype(np.float64)
    return float(np.linalg.norm(deformation.forward(sampled) - piece.points()[some], axis=-1).max())


def _opacity_potential(thorax: Thorax, rng: np.random.Generator) -> np.ndarray:
    """Return where opacities come first: patches, rather at the base, at the back and under the pleura."""
    z, y, _ = thorax.coarse.open_mesh()
    patches = smooth_noise(rng, thorax.coarse, 38.0) + 0.25 * smooth_noise(rng, thorax.coarse, 9.0)
    rim = np.clip(1.0 + thorax.lungs / 30.0, 0.0, 1.0)
    return (patches + 0.5 * rim - z / 160.0 + y / 200.0).astype(np.float32)


def _levels(height: np.ndarray, cell_ml: float, wish_ml: tuple[float, float]) -> tuple[float, float]:
    """Return the heights of the potential above which there is opacity, and consolidation."""
    ordered = np.sort(height)[::-1]

    def level(volume_ml: float) -> float:
        if volume_ml <= 0:
            return np.inf
        return float(ordered[min(int(volume_ml / cell_ml), len(ordered) - 1)])

    return level(sum(wish_ml)), level(wish_ml[1])


def _lay_opacities(
    value: np.ndarray,
    label: np.ndarray,
    height: np.ndarray,
    levels: tuple[float, float],
    opacity: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Add ground glass and consolidation to a few slices; airways stay open, vessels can be seen in ground glass."""
    lung = (label == Anatomy.RIGHT_LUNG) | (label == Anatomy.LEFT_LUNG)
    glass = np.clip((height - levels[0]) / 0.12 + 0.5, 0.0, 1.0) * lung
    grain = ndimage.gaussian_filter(rng.standard_normal(value.shape, dtype=np.float32), 1.5) * np.float32(120.0)
    value += glass * (255.0 + grain) * np.clip((-250.0 - value) / 300.0, 0.0, 1.0)
    opacity[(height > levels[0]) & lung] = GROUND_GLASS
    if np.isfinite(levels[1]):
        solid = np.clip((height - levels[1]) / 0.08 + 0.5, 0.0, 1.0) * lung
        value += solid * np.clip(38.0 + 0.2 * grain - value, 0.0, None)
        opacity[(height > levels[1]) & lung] = CONSOLIDATION


def _with_noise(
    hu: np.ndarray,
    labels: np.ndarray,
    box: tuple[slice, slice, slice],
    scan: Lattice,
    noise_hu: float,
    rng: np.random.Generator,
    progress: Progress,
) -> np.ndarray:
    """Return the CT as int16 on the whole scan: body and table, with noise."""
    ct = np.empty(scan.shape, dtype=np.int16)
    table = _table(labels, box, scan)
    source = NoiseSource(rng, scan.shape[1:], scan.spacing[1:])
    for z in range(scan.shape[0]):
        plane = table.copy()
        if box[0].start <= z < box[0].stop:
            row = z - box[0].start
            np.maximum(plane[box[1], box[2]], hu[row], out=plane[box[1], box[2]])
            body = np.zeros(plane.shape, dtype=bool)
            body[box[1], box[2]] = labels[row] > 0
        else:
            body = np.zeros(plane.shape, dtype=bool)
        plane += np.float32(noise_hu) * noise_map(body, scan.spacing[1:]) * source.next_slice()
        ct[z] = np.clip(np.rint(plane), -1024, 3071)
        if z % _SLAB == 0:
            progress(z / scan.shape[0], "noise")
    return ct


def _table(labels: np.ndarray, box: tuple[slice, slice, slice], scan: Lattice) -> np.ndarray:
    """Return the HU of a slice without a patient: air and, below the lowest point of the back, the table."""
    rows = np.flatnonzero((labels > 0).any(axis=(0, 2)))
    lowest = scan.axis(1)[box[1].start + (int(rows[-1]) if len(rows) else 0)]
    y, x = scan.axis(1)[:, None], scan.axis(2)[None, :] - scan.axis(2).mean()
    depth = y - (lowest + 4.0 - (x / 36.0) ** 2)
    plane = np.full(scan.shape[1:], AIR_HU, dtype=np.float32)
    width = np.abs(x) < 205.0
    plane[(depth > 0) & (depth < 16) & width] = -940.0
    shell = np.clip(1.6 - np.minimum(np.abs(depth - 1.0), np.abs(depth - 15.0)), 0.0, 1.0) * width
    plane += shell * (-180.0 - plane)
    return plane


def _segments(
    drawn: list[Drawn],
    tumours: tuple[Tumour, ...],
    scan: Lattice,
    permute: bool,
    timepoint: str,
    rng: np.random.Generator,
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, RegionMask], ...]]:
    """Return the names of the segments of every drawn tumour, and all segments."""
    pieces: list[tuple[int, np.ndarray]] = []
    for number, item in enumerate(drawn):
        mask = item.mask
        if tumours[item.members[0]].plan.fate == "split":
            labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
            pieces += [(number, labels == label) for label in range(1, count + 1)]
        elif mask.any():
            pieces.append((number, mask))
    names: list[str] = []
    for number, _ in pieces:
        own = [other for other, _ in pieces].count(number)
        name = tumours[_host(drawn[number].members, tumours)].id
        names.append(name if own == 1 else name + "abcdefgh"[sum(other.startswith(name) for other in names)])
    if permute:
        names = [f"S{number + 1}" for number in rng.permutation(len(names))]
    found = [
        tuple(name for name, (number, _) in zip(names, pieces, strict=True) if number == i) for i in range(len(drawn))
    ]
    segments = []
    for name, (number, mask) in zip(names, pieces, strict=True):
        region = RegionMask.from_array(timepoint, name, "core", mask)
        box = drawn[number].box
        offset = tuple(box[i].start + region.offset_zyx[i] for i in range(3))
        segments.append((name, RegionMask(timepoint, name, "core", (offset[0], offset[1], offset[2]), region.voxels)))
    if permute:
        segments = [segments[i] for i in rng.permutation(len(segments))]
    return tuple(found), tuple(segments)


def _host(members: tuple[int, ...], tumours: tuple[Tumour, ...]) -> int:
    """Return the member of a conglomerate that keeps its measurements: the one that was larger."""
    return max(members, key=lambda i: tumours[i].volume_ml)


def _truth(
    name: str, seed: int, size: Size, scenario: Scenario, tumours: tuple[Tumour, ...], scans: list[_Scan]
) -> Truth:
    lesions = tuple(_lesion_truth(i, tumours, scenario, scans) for i in range(len(tumours)))
    lesions = tuple(item for item in lesions if any(o.segments or o.merged_into for o in item.observations))
    start = next(item for item in scans if item.image.plan.name == "baseline")
    timepoints = []
    for item in scans:
        plan, deformation = item.image.plan, item.image.deformation
        moved = plan.name != "baseline"
        opaque = item.ground_glass_ml + item.consolidation_ml
        followed = [lesion.at(plan.name) for lesion in lesions if lesion.at("baseline").segments]
        timepoints.append(
            TruthTimepoint(
                name=plan.name,
                date=plan.date.isoformat(),
                day=scenario.day(plan),
                right_lung_ml=item.lung_ml[0],
                left_lung_ml=item.lung_ml[1],
                ground_glass_ml=item.ground_glass_ml,
                consolidation_ml=item.consolidation_ml,
                new_opacity_ml=opaque - start.ground_glass_ml - start.consolidation_ml,
                lung_volume_ratio=sum(item.lung_ml) / max(sum(start.lung_ml), 1e-9),
                sum_of_diameters_mm=sum(observation.long_axis_mm or 0.0 for observation in followed),
                displacement_file=f"displacement_{plan.name}.nrrd" if moved else None,
                displacement_spacing_mm=deformation.lattice.spacing[0] if moved else None,
                displacement_error_mm=item.error_mm,
                largest_displacement_mm=_largest_displacement(deformation),
                smallest_jacobian=deformation.smallest_cell_jacobian(),
                lungs_file=f"lungs_{plan.name}.nrrd",
                opacities_file=None if item.image.opacities is None else f"opacities_{plan.name}.nrrd",
            )
        )
    month = 30.4375
    before = [(t.volume_at(0.0)[0], t.volume_at(-month)[0]) for t in tumours if t.volume_at(0.0)[0] > 0]
    reference = sum(now for now, _ in before) / sum(then for _, then in before) if before else 1.0
    return Truth(
        schema_version=TRUTH_VERSION,
        patient=name,
        seed=seed,
        size=size,
        scenario=scenario,
        timepoints=tuple(timepoints),
        lesions=lesions,
        labels=labels_of(scenario, tuple(timepoints), lesions, reference),
    )


def _largest_displacement(deformation: Deformation) -> float:
    points = deformation.lattice.points()
    return float(np.linalg.norm(deformation.forward(points) - points, axis=-1).max())


def _lesion_truth(index: int, tumours: tuple[Tumour, ...], scenario: Scenario, scans: list[_Scan]) -> TruthLesion:
    tumour = tumours[index]
    observations: list[TruthObservation] = []
    previous: tuple[str, ...] = ()
    for item in scans:
        day = float(scenario.day(item.image.plan))
        at = next((k for k, drawn in enumerate(item.drawn) if index in drawn.members), None)
        names = item.names[at] if at is not None else ()
        host = _host(item.drawn[at].members, tumours) if at is not None else index
        viable, inflamed = tumour.volume_at(day)
        event = _event(tumour, item.image.plan.name, len(names), host != index, observations)
        own = host == index and at is not None and len(names) > 0
        sizes = _sizes(item.drawn[at], names, item.image.segments) if own and at is not None else None
        observations.append(
            TruthObservation(
                timepoint=item.image.plan.name,
                event=event,
                segments=names if own else (),
                links=previous,
                merged_into=tumours[host].id if host != index and names else None,
                volume_ml=sizes[0] if sizes else None,
                long_axis_mm=sizes[1] if sizes else None,
                short_axis_mm=sizes[2] if sizes else None,
                centroid_lps_mm=sizes[3] if sizes else None,
                viable_ml=viable,
                inflamed_ml=inflamed,
            )
        )
        if names:
            previous = names
    return TruthLesion(tumour.id, tumour.plan.organ, tumour.node, tumour.plan.fate, tuple(observations))


def _event(tumour: Tumour, timepoint: str, pieces: int, merged: bool, earlier: list[TruthObservation]) -> LesionEvent:
    seen = any(item.segments or item.merged_into for item in earlier)
    if pieces == 0:
        last = earlier[-1].event if earlier else "absent"
        return "vanished" if seen and last not in ("vanished", "absent") else "absent"
    if merged:
        return "merged"
    if timepoint == "baseline":
        return "baseline"
    if not seen:
        return "new" if earlier else "present"
    if pieces > 1 and all(len(item.segments) < 2 for item in earlier):
        return "split"
    return "present"


def _sizes(
    drawn: Drawn, names: tuple[str, ...], segments: tuple[tuple[str, RegionMask], ...]
) -> tuple[float, float, float, Point]:
    """Return volume, long axis, short axis (of fragments: summed) and centroid of one drawn tumour."""
    mask = drawn.mask
    voxels = np.argwhere(mask)
    middle = drawn.part.low + voxels.mean(axis=0) * np.asarray(drawn.part.spacing)
    if len(names) == 1:
        axes = [axial_diameters(drawn.level, drawn.part.spacing)]
    else:
        labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        axes = [
            axial_diameters(np.where((labels == k) | ~mask, drawn.level, np.abs(drawn.level)), drawn.part.spacing)
            for k in range(1, count + 1)
        ]
    return (
        len(voxels) * drawn.part.voxel_ml,
        sum(long for long, _ in axes),
        sum(short for _, short in axes),
        (float(middle[2]), float(middle[1]), float(middle[0])),
    )


def _specs(scenario: Scenario, truth: Truth) -> tuple[LesionSpec, ...]:
    """Return organ and node of the segments of the baseline."""
    if not scenario.describe_lesions:
        return ()
    return tuple(
        LesionSpec(segment=segment, organ=lesion.organ, node=lesion.node)
        for lesion in truth.lesions
        for segment in lesion.at("baseline").segments
    )


def _clinical(truth: Truth, rng: np.random.Generator) -> Clinical:
    """Draw what the images do not tell; blood is worse where the disease runs away."""
    fast = truth.label("hyperprogression")
    organs = {lesion.organ for lesion in truth.lesions if lesion.at("baseline").segments}
    neutrophils = round(float(rng.normal(6.8 if fast else 5.2, 1.2)), 1)
    lymphocytes = round(float(np.clip(rng.normal(1.2 if fast else 1.6, 0.3), 0.4, 3.5)), 1)
    return Clinical(
        ecog=int(rng.choice([0, 1, 2], p=(0.2, 0.5, 0.3) if fast else (0.4, 0.5, 0.1))),
        ldh=round(float(rng.normal(390.0 if fast else 235.0, 50.0))),
        ldh_uln=250.0,
        albumin_g_l=round(float(rng.normal(33.0 if fast else 38.0, 3.0)), 1),
        neutrophils=max(neutrophils, 2.0),
        leukocytes=round(max(neutrophils, 2.0) + lymphocytes + 0.6, 1),
        lymphocytes=lymphocytes,
        prior_thoracic_rt=bool(rng.random() < 0.2),
        ild=truth.scenario.lungs.fibrosis > 0,
        smoking=("never", "former", "current")[int(rng.integers(3))],
        histology="adenocarcinoma" if rng.random() < 0.7 else "squamous cell carcinoma",
        metastatic_sites=len(organs - {"lung"}),
        liver_metastases="liver" in organs,
        setting="real-world",
        age=float(rng.integers(45, 82)),
        sex="female" if rng.random() < 0.42 else "male",
        pdl1_percent=float(rng.integers(0, 100)),
    )


def _pasted(values: np.ndarray, box: tuple[slice, slice, slice], scan: Lattice) -> np.ndarray:
    whole = np.zeros(scan.shape, dtype=values.dtype)
    whole[box] = values
    return whole


def _image(values: np.ndarray, scan: Lattice) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetOrigin(scan.origin[::-1])
    image.SetSpacing(scan.spacing[::-1])
    return image
