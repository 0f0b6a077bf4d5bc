"""A study with its images: everything that is wrong with either is said at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import SimpleITK as sitk

from .alignment import read_transform
from .errors import InputError
from .images import Segmentation, read_segmentation, read_volume
from .study import Study, Timepoint, parse_study


@dataclass(frozen=True, eq=False)
class Inputs:
    """A valid study with its images, by the name of the time point; segments that the study says to ignore are left out.

    ``transforms`` are the user's own: what replaces an alignment, or what it starts from.
    """

    study: Study
    volumes: Mapping[str, sitk.Image]
    segmentations: Mapping[str, Segmentation]
    transforms: Mapping[str, sitk.Transform] = field(default_factory=dict)


def read_inputs(source: Study | Path) -> Inputs:
    """Read a study and every image of it.

    Raises
    ------
    InputError
        With every problem of study.yaml and of every image at once.
    """
    study, problems = parse_study(source) if isinstance(source, Path) else (source, [])
    said_missing = isinstance(source, Path)
    volumes: dict[str, sitk.Image] = {}
    segmentations: dict[str, Segmentation] = {}
    transforms: dict[str, sitk.Transform] = {}
    for timepoint in study.timepoints if study else ():
        try:
            if not said_missing or os.path.exists(timepoint.ct):
                volumes[timepoint.name] = read_volume(timepoint.ct)
        except InputError as error:
            problems.extend(error.problems)
        for beside in (timepoint.pet, timepoint.mr):
            try:
                if beside is not None and (not said_missing or os.path.exists(beside)):
                    read_volume(beside, ct=False)
            except InputError as error:
                problems.extend(error.problems)
        file = _transform_file(timepoint)
        try:
            if file is not None and (not said_missing or os.path.exists(file)):
                transforms[timepoint.name] = read_transform(file)
        except InputError as error:
            problems.extend(error.problems)
        if timepoint.segmentation is None or timepoint.name not in volumes:
            continue
        if said_missing and not os.path.exists(timepoint.segmentation):
            continue
        try:
            segmentations[timepoint.name] = read_segmentation(timepoint.segmentation, volumes[timepoint.name])
        except InputError as error:
            problems.extend(error.problems)
    if study is not None:
        problems.extend(_lesion_problems(study, segmentations, source if isinstance(source, Path) else Path("study")))
    if problems or study is None:
        raise InputError(problems)
    ignored = {spec.segment for spec in study.lesions if spec.ignore}
    kept = {
        name: replace(item, segments=tuple(segment for segment in item.segments if segment.name not in ignored))
        for name, item in segmentations.items()
    }
    return Inputs(study, volumes, kept, transforms)


def _transform_file(timepoint: Timepoint) -> Path | None:
    return timepoint.transform or timepoint.start_transform


def _lesion_problems(study: Study, segmentations: Mapping[str, Segmentation], source: Path) -> list[str]:
    """Say which named lesions exist in no segmentation, and whether follow-ups are contoured but the baseline is not."""
    problems = []
    readable = all(item.segmentation is None or item.name in segmentations for item in study.timepoints)
    found = {segment.name for segmentation in segmentations.values() for segment in segmentation.segments}
    marked = {
        segment.name
        for segmentation in segmentations.values()
        for segment in segmentation.segments
        if segmentation.array(segment.name).any()
    }
    for spec in study.lesions if readable else ():
        if spec.segment not in found:
            names = ", ".join(sorted(found)) or "none, since no segmentation is given"
            problems.append(f"{source}: the lesion `{spec.segment}` is in no segmentation. The segments are: {names}.")
        elif spec.segment not in marked:
            problems.append(
                f"{source}: the segment `{spec.segment}` is empty at every time point. Draw it, or leave it out."
            )
    for link in study.links:
        segmentation = segmentations.get(link.timepoint)
        if segmentation is not None and link.segment not in [segment.name for segment in segmentation.segments]:
            names = ", ".join(segment.name for segment in segmentation.segments)
            problems.append(
                f"{source}: a link names the segment `{link.segment}` of `{link.timepoint}`, which has only: {names}."
            )
    baseline = study.baseline if study.timepoints else None
    if baseline is not None and baseline.segmentation is None and not baseline.no_visible_lesions and segmentations:
        others = ", ".join(f"`{name}`" for name in segmentations)
        problems.append(
            f"{source}: {others} have a segmentation but the baseline `{baseline.name}` has none, so that every lesion would count as "
            "new. Give one, or write `no_visible_lesions: true` there."
        )
    return problems
