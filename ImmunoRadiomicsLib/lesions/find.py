"""The stage that finds and follows every lesion of a patient: from contours and alignments to lesions and regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ..analysis import Lesion, LesionObservation, LocalFit, LungMeasures, Point
from ..images import LUNG_LABELS, RegionMask, Segmentation, segmentation_from_arrays
from ..organs import is_node
from ..progress import Progress, part, silent
from ..study import LesionLink, LesionSpec, Study, Timepoint
from ..transforms import invert_points
from .correspondence import Contour, Scan, Sighting, Track, contour, follow
from .geometry import (
    Crop,
    axial_axis,
    crop_of,
    dilate,
    margin_voxels,
    padded_box,
    shape_of,
    spacing_of,
)
from .lungs import measure_lungs
from .measurement import Measurement, measure, significant_parts
from .names import is_organ
from .propagation import propagate
from .regions import RINGS_MM, OrganProposal, lesion_regions, lung_region, propose_organ, region_problem, within
from .roles import Candidate, propose_roles

LocalAlignment = Callable[[str, Point, float], LocalFit]
"""Answers, for a time point, a position of the reference (LPS) and a radius in mm, how well the images lie on each other there."""

Source = Literal["given", "propagated"]

LUNG_EXCLUDE_MM = 5.0
LOW_LOCAL_ALIGNMENT = 0.5
_FEWEST_VOXELS = 8


@dataclass(frozen=True, eq=False)
class Found:
    """Every lesion over time, where its features are read, and the lungs.

    ``segmentations`` hold, per time point, one segment per lesion id and the lungs.
    """

    lesions: tuple[Lesion, ...]
    regions: tuple[RegionMask, ...]
    segmentations: dict[str, Segmentation]
    lungs: tuple[LungMeasures, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Visit:
    """One time point while lesions are being found."""

    timepoint: Timepoint
    ct: sitk.Image
    anatomy: sitk.Image
    transform: sitk.Transform | None
    segments: dict[str, Crop]
    source: Source = "given"
    checks: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    carried: frozenset[str] = frozenset()
    """Segments that were carried over to here, found or not."""

    @property
    def readable(self) -> bool:
        """Whether lesions without a contour can be said to be absent."""
        return bool(self.segments) or self.timepoint.no_visible_lesions or self.source == "propagated"


def lesion_segments(segmentation: Segmentation, specs: Sequence[LesionSpec] = ()) -> dict[str, Crop]:
    """Return the segments that are lesions: those that the study names, and all others whose name is not an organ's.

    Segments without voxels are left out.
    """
    named = {spec.segment for spec in specs}
    found = {}
    for segment in segmentation.segments:
        if segment.name in named or not is_organ(segment.name):
            mask = crop_of(segmentation.array(segment.name))
            if mask.count:
                found[segment.name] = mask
    return found


def find(
    study: Study,
    volumes: Mapping[str, sitk.Image],
    segmentations: Mapping[str, Segmentation | None],
    anatomies: Mapping[str, sitk.Image],
    transforms: Mapping[str, sitk.Transform],
    *,
    local_alignment: LocalAlignment | None = None,
    edits: Sequence[LesionLink] = (),
    rings: Sequence[tuple[float, float]] = RINGS_MM,
    progress: Progress = silent,
) -> Found:
    """Find every lesion, follow it over time, measure it, and say where its features are read.

    Parameters
    ----------
    volumes, segmentations, anatomies
        By name of the time point, all on that time point's grid. Where a segmentation is None, the contours of the baseline,
        and of lesions first seen at a time point between, are carried over and fitted to the image. Where it has no lesion, although the time point is not said to show
        none, lesions are "not evaluated".
    transforms
        By name of the time point, from positions of the baseline to positions of that time point (LPS). The baseline
        has none. A time point without one (its alignment failed) is compared as if it were already aligned, and
        nothing is carried over to it.
    edits
        Links between segments and lesions that a person has set.
    rings
        The (inner, outer) distances in mm of the rings around each lesion.
    """
    baseline = study.baseline.name
    visits = _visits(study, volumes, segmentations, anatomies, transforms, edits, part(progress, 0.0, 0.2))
    warnings = [warning for visit in visits for warning in visit.warnings]
    progress(0.2, "following them over time")
    tracks = follow([_scan(visit) for visit in visits], baseline, edits=edits)
    progress(0.3, "measuring")
    lesions, masks = _measured(study, visits, tracks, local_alignment, part(progress, 0.3, 0.6))
    regions: list[RegionMask] = []
    lungs: list[LungMeasures] = []
    drawn: dict[str, Segmentation] = {}
    organs = {lesion.id: lesion.organ for lesion in lesions}
    for index, visit in enumerate(visits):
        name = visit.timepoint.name
        progress(0.6 + 0.4 * index / len(visits), f"regions of {name}")
        here = masks[name]
        found = lesion_regions(name, here, visit.anatomy, visit.ct, organs=organs, rings=rings)
        regions.extend(found)
        warnings.extend(
            f"{name}, {region.lesion}: {problem}."
            for region in found
            if region.region == "core" and (problem := region_problem(region)) is not None
        )
        whole = lung_region(name, visit.anatomy, list(here.values()))
        if whole.count:
            regions.append(whole)
        lungs.extend(measure_lungs(visit.ct, visit.anatomy, _excluded(here, visit.ct), name))
        drawn[name] = _drawn(here, visit)
    progress(1.0, "done")
    return Found(lesions, tuple(regions), drawn, tuple(lungs), tuple(warnings))


def _visits(
    study: Study,
    volumes: Mapping[str, sitk.Image],
    segmentations: Mapping[str, Segmentation | None],
    anatomies: Mapping[str, sitk.Image],
    transforms: Mapping[str, sitk.Transform],
    edits: Sequence[LesionLink],
    progress: Progress,
) -> list[_Visit]:
    """Gather the contours of every time point, carried over from earlier ones where none are given."""
    baseline = study.baseline
    drawn = segmentations.get(baseline.name)
    reference = lesion_segments(drawn, study.lesions) if drawn is not None else {}
    visits: list[_Visit] = []
    for index, timepoint in enumerate(study.timepoints):
        name = timepoint.name
        progress(index / len(study.timepoints), f"contours of {name}")
        transform = None if timepoint == baseline else transforms.get(name)
        visit = _Visit(timepoint, volumes[name], anatomies[name], transform, {})
        segmentation = segmentations.get(name)
        if timepoint == baseline:
            visit = replace(visit, segments=reference)
        elif segmentation is not None:
            visit = replace(visit, segments=lesion_segments(segmentation, study.lesions))
        elif not timepoint.no_visible_lesions and transform is not None:
            steps = part(progress, index / len(study.timepoints), (index + 1) / len(study.timepoints))
            sources = [(baseline.name, reference)] if reference else []
            sources += _first_seen_later(visits, baseline.name, edits)
            if sources:
                visit = _carried_over(visit, sources, volumes, transforms, steps)
        if not visit.readable:
            visit = replace(visit, warnings=(f"{name}: no lesion is contoured; its lesions are not evaluated.",))
        visits.append(visit)
    return visits


def _first_seen_later(
    visits: Sequence[_Visit], baseline: str, edits: Sequence[LesionLink]
) -> list[tuple[str, dict[str, Crop]]]:
    """Return the lesions that are in contours after the baseline and not in those of the baseline, where they were last seen.

    They come by time point and, because the names of segments may differ between time points, are called as lesions.
    """
    given = [visit for visit in visits if visit.source == "given"]
    names = {visit.timepoint.name for visit in given}
    if baseline not in names:
        return []
    tracks = follow(
        [_scan(visit) for visit in given], baseline, edits=[edit for edit in edits if edit.timepoint in names]
    )
    found: dict[str, dict[str, Crop]] = {}
    for track in tracks:
        last = track.sightings[-1] if track.sightings else None
        if last is None or last.status != "measured" or track.at(baseline).segments:
            continue
        visit = next(item for item in given if item.timepoint.name == last.timepoint)
        mask = _union([visit.segments[name] for name in last.segments])
        found.setdefault(last.timepoint, {})[track.id] = mask
    return list(found.items())


def _carried_over(
    visit: _Visit,
    sources: Sequence[tuple[str, dict[str, Crop]]],
    volumes: Mapping[str, sitk.Image],
    transforms: Mapping[str, sitk.Transform],
    progress: Progress,
) -> _Visit:
    """Return the visit with the contours of other time points carried over and fitted to its image."""
    segments: dict[str, Crop] = {}
    checks: dict[str, str] = {}
    carried: set[str] = set()
    for index, (source, lesions) in enumerate(sources):
        steps = part(progress, index / len(sources), (index + 1) / len(sources))
        found = propagate(
            volumes[source],
            lesions,
            visit.ct,
            visit.transform,
            source_transform=transforms.get(source),
            progress=steps,
        )
        for name, item in found.items():
            own = name
            while own in carried:
                own += f" ({source})"
            carried.add(own)
            if not item.gone:
                taken = np.zeros_like(item.mask.voxels)
                for other in segments.values():
                    taken |= within(other, item.mask.box)
                free = crop_of(item.mask.voxels & ~taken, item.mask.offset_zyx)
                if free.count:
                    segments[own] = free
            if item.check is not None:
                checks[own] = item.check
    origin = " and ".join(source for source, _ in sources)
    warning = f"{visit.timepoint.name}: contours were carried over from {origin}; new lesions are not looked for."
    return replace(
        visit,
        segments=segments,
        source="propagated",
        checks=checks,
        warnings=(warning,),
        carried=frozenset(carried),
    )


def _scan(visit: _Visit) -> Scan:
    contours: list[Contour] = [contour(name, mask, visit.ct, visit.transform) for name, mask in visit.segments.items()]
    return Scan(visit.timepoint.name, tuple(contours), visit.ct, visit.transform, visit.readable)


def _measured(
    study: Study,
    visits: Sequence[_Visit],
    tracks: Sequence[Track],
    local_alignment: LocalAlignment | None,
    progress: Progress,
) -> tuple[tuple[Lesion, ...], dict[str, dict[str, Crop]]]:
    """Measure every lesion at every time point, and say its organ and role. Returns the lesions, and their masks by time point."""
    masks: dict[str, dict[str, Crop]] = {visit.timepoint.name: {} for visit in visits}
    lesions, candidates = [], []
    baseline = study.baseline.name
    for index, track in enumerate(tracks):
        progress(index / len(tracks), f"organ and role of {track.id}")
        observations: list[LesionObservation] = []
        whole_at_first: bool | None = None
        proposals: list[OrganProposal] = []
        for visit in visits:
            sighting = track.at(visit.timepoint.name)
            # Of a lesion that was not carried over to here nobody knows.
            known = {name for item in track.sightings for name in (track.id, *item.segments)}
            if visit.source == "propagated" and sighting.status == "absent" and not known & visit.carried:
                sighting = Sighting(sighting.timepoint, "not evaluated", "not evaluated")
            if sighting.status != "measured":
                observations.append(_without_measurement(sighting, visit, observations, track.id))
                continue
            mask = _union([visit.segments[name] for name in sighting.segments])
            masks[visit.timepoint.name][track.id] = mask
            pieces = [visit.segments[name] for name in sighting.segments]
            parts = significant_parts(mask)
            if whole_at_first is None:
                whole_at_first = len(parts) == 1
            elif len(pieces) == 1 and len(parts) > 1 and whole_at_first:
                pieces = [crop_of(piece, mask.offset_zyx) for piece in parts]
                if not any(item.event == "split" for item in observations):
                    sighting = replace(sighting, event="split")
            observations.append(_observation(sighting, visit, mask, pieces, local_alignment))
            proposals.append(propose_organ(mask, visit.anatomy, visit.ct))
        spec = _spec_of(track, study.lesions)
        organ = spec.organ if spec is not None and spec.organ else _most_likely(proposals)
        node = spec.node if spec is not None and spec.node is not None else is_node(organ)
        lesions.append(
            Lesion(
                track.id,
                organ,
                "given" if spec is not None and spec.organ else "proposed",
                "non-target",
                "",
                node,
                tuple(observations),
            )
        )
        candidates.append(_candidate(lesions[-1], visits, baseline, spec))
    roles = propose_roles(candidates)
    named = tuple(replace(item, role=roles[item.id].role, role_reason=roles[item.id].reason) for item in lesions)
    return named, masks


def _observation(
    sighting: Sighting,
    visit: _Visit,
    mask: Crop,
    pieces: Sequence[Crop],
    local_alignment: LocalAlignment | None,
) -> LesionObservation:
    """Measure one lesion at one time point; the diameters of the fragments of a split lesion are added (RECIST 1.1)."""
    total = measure(mask, visit.ct)
    assert total is not None  # noqa: S101 - contours without voxels were left out
    fragments = (
        [item for piece in pieces if (item := measure(piece, visit.ct)) is not None] if len(pieces) > 1 else [total]
    )
    largest: Measurement = max(fragments, key=lambda item: item.long_axis_mm)
    reference = invert_points(np.array([total.centroid_lps_mm]), visit.transform)[0]
    place: Point = (float(reference[0]), float(reference[1]), float(reference[2]))
    fit = None
    if local_alignment is not None and visit.transform is not None:
        radius = 0.5 * total.long_axis_mm + 10.0
        fit = local_alignment(visit.timepoint.name, place, radius)
    notes = [sighting.check] if sighting.check else []
    notes += [visit.checks[name] for name in sighting.segments if name in visit.checks]
    if len(fragments) == 1 and total.parts > 1:
        notes.append(f"its contour has {total.parts} separate pieces; the diameters are those of the longest")
    if fit is not None and (doubt := misfit(fit)) is not None:
        notes.append(doubt)
    return LesionObservation(
        timepoint=sighting.timepoint,
        status="too small" if total.voxels < _FEWEST_VOXELS else "measured",
        event=sighting.event,
        segments=sighting.segments,
        source=visit.source,
        confidence=sighting.confidence,
        check="; ".join(notes) or None,
        long_axis_mm=sum(item.long_axis_mm for item in fragments),
        short_axis_mm=sum(item.short_axis_mm for item in fragments),
        volume_ml=total.volume_ml,
        mean_hu=total.mean_hu,
        sd_hu=total.sd_hu,
        voxels=total.voxels,
        slice_index=largest.slice_index,
        long_axis_ends_lps_mm=largest.long_axis_ends_lps_mm,
        short_axis_ends_lps_mm=largest.short_axis_ends_lps_mm,
        centroid_lps_mm=total.centroid_lps_mm,
        centroid_reference_lps_mm=place,
        local_alignment=fit.correlation if fit is not None else None,
        local_shift_mm=fit.shift_mm if fit is not None else None,
    )


def misfit(fit: LocalFit) -> str | None:
    """Say why a scan may not lie well on the baseline at a lesion; None where it does."""
    if fit.correlation is None:
        return "it could not be judged whether this scan lies well on the baseline here: the two share no structure"
    figures = f"local correlation {fit.correlation:.2f}"
    if fit.shift_mm:
        figures += f", better when moved by {fit.shift_mm:.0f} mm"
    elif fit.correlation >= LOW_LOCAL_ALIGNMENT:
        return None
    return f"this scan does not lie well on the baseline here ({figures})"


def _without_measurement(
    sighting: Sighting, visit: _Visit, earlier: Sequence[LesionObservation], lesion: str
) -> LesionObservation:
    """Return the observation of a lesion without a contour; one that is absent measures 0."""
    known = {lesion, *(name for item in earlier for name in item.segments)}
    notes = [sighting.check] if sighting.check else []
    if sighting.event == "vanished":
        notes += [check for name, check in visit.checks.items() if name in known]
    size = 0.0 if sighting.status == "absent" else None
    given = visit.readable or visit.timepoint.segmentation is not None
    return LesionObservation(
        timepoint=sighting.timepoint,
        status=sighting.status,
        event=sighting.event,
        source=visit.source if given else "propagated",
        merged_into=sighting.merged_into,
        confidence=sighting.confidence,
        check="; ".join(notes) or None,
        long_axis_mm=size,
        short_axis_mm=size,
        volume_ml=size,
    )


def _union(crops: Sequence[Crop]) -> Crop:
    if len(crops) == 1:
        return crops[0]
    starts = np.min([crop.offset_zyx for crop in crops], axis=0)
    stops = np.max([np.add(crop.offset_zyx, crop.voxels.shape) for crop in crops], axis=0)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True))
    merged = np.zeros(tuple(stops - starts), dtype=bool)
    for crop in crops:
        merged |= within(crop, (z, y, x))
    return Crop(merged, (z.start, y.start, x.start))


def _spec_of(track: Track, specs: Sequence[LesionSpec]) -> LesionSpec | None:
    """Return what the study says of a lesion, by the name of the earliest of its segments that it speaks of."""
    by_name = {spec.segment: spec for spec in specs}
    for sighting in track.sightings:
        for name in sighting.segments:
            if name in by_name:
                return by_name[name]
    return None


def _most_likely(proposals: Sequence[OrganProposal]) -> str:
    """Return the organ that most of a lesion's scans agree on, each weighing as much as it is sure."""
    weight: dict[str, float] = {}
    for item in proposals:
        weight[item.organ] = weight.get(item.organ, 0.0) + item.confidence
    return max(sorted(weight), key=lambda organ: weight[organ]) if weight else "soft tissue"


def _candidate(lesion: Lesion, visits: Sequence[_Visit], baseline: str, spec: LesionSpec | None) -> Candidate:
    """Return what decides a lesion's role: its size at the baseline or, for a new one, where it first appears after it."""
    order = [visit.timepoint.name for visit in visits]
    later = order[order.index(baseline) :]
    seen = [item for name in later if (item := lesion.at(name)) is not None and item.long_axis_mm]
    first = seen[0] if seen else None
    visit = visits[order.index(first.timepoint if first is not None else baseline)]
    return Candidate(
        id=lesion.id,
        organ=lesion.organ,
        node=lesion.node,
        new=first is not None and first.timepoint != baseline,
        long_axis_mm=first.long_axis_mm if first is not None else None,
        short_axis_mm=first.short_axis_mm if first is not None else None,
        slice_thickness_mm=spacing_of(visit.ct)[axial_axis(visit.ct)],
        given=spec.role if spec is not None else None,
    )


def _excluded(lesions: Mapping[str, Crop], ct: sitk.Image) -> np.ndarray | None:
    """Return the lesions with a margin: what must not count as lung tissue."""
    if not lesions:
        return None
    spacing, shape = spacing_of(ct), shape_of(ct)
    mask = np.zeros(shape, dtype=bool)
    for crop in lesions.values():
        box = padded_box(crop.box, margin_voxels(LUNG_EXCLUDE_MM, spacing), shape)
        mask[box] |= dilate(within(crop, box), LUNG_EXCLUDE_MM, spacing)
    return mask


def _drawn(lesions: Mapping[str, Crop], visit: _Visit) -> Segmentation:
    """Build the segmentation of one time point: its lesions by id, then the lungs."""
    shape = shape_of(visit.ct)
    labels = sitk.GetArrayViewFromImage(visit.anatomy)

    def masks() -> Iterator[tuple[str, np.ndarray]]:
        for name, crop in lesions.items():
            yield name, crop.paste(shape)
        for label, name in zip(LUNG_LABELS, ("right lung", "left lung"), strict=True):
            lung = labels == label
            if lung.any():
                yield name, lung

    return segmentation_from_arrays(masks(), visit.ct)
