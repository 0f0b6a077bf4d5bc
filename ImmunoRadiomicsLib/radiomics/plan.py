"""How the extraction of a study is divided: what shares images, what is large, and what the memory allows."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import SimpleITK as sitk

from ..images import RegionMask
from .measurement import Outcome, Parameters
from .presets import Preset


@dataclass(frozen=True, eq=False)
class Task:
    """One region to measure; ``number`` is its place in the result."""

    number: int
    region: RegionMask
    preset: Preset
    key: str
    cost: float


@dataclass(frozen=True, eq=False)
class Batch:
    """Regions of one lesion, or of the lungs, at one time point, which share filtered images; all image types or some."""

    tasks: tuple[Task, ...]
    parameters: Parameters
    cost: float

    @property
    def source(self) -> tuple[str, str]:
        """What can be shared between batches: the time point and how its volume is prepared."""
        return self.tasks[0].region.timepoint, self.tasks[0].preset.sha256

    @property
    def label(self) -> str:
        """What is being worked on, for a message."""
        region = self.tasks[0].region
        return f"{region.timepoint} {region.lesion or region.region}"


class Results:
    """Puts the parts of every region together.

    Parameters
    ----------
    batches
        All that will be measured.
    finish
        Called with a region when its last part has come.
    """

    def __init__(self, batches: Sequence[Batch], finish: Callable[[Task, Outcome], None]):
        self._finish = finish
        self._open: dict[int, int] = {}
        self._outcomes: dict[int, Outcome] = {}
        for batch in batches:
            for task in batch.tasks:
                self._open[task.number] = self._open.get(task.number, 0) + 1

    def add(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Take over what was measured of a batch."""
        for task, outcome in zip(batch.tasks, outcomes, strict=True):
            whole = self._outcomes.setdefault(task.number, Outcome())
            if whole.reason is None:
                whole.reason = outcome.reason
            whole.values.update(outcome.values)
            self._open[task.number] -= 1
            if not self._open[task.number]:
                if whole.reason is not None:
                    whole.values.clear()
                self._finish(task, whole)


def cost_of(volume: sitk.Image, region: RegionMask, preset: Preset) -> float:
    """Estimate the microseconds of a task, to share tasks out and to report progress; only proportions matter."""
    settings = preset.settings
    spacing = volume.GetSpacing()[::-1]
    wanted = settings["resampledPixelSpacing"]
    ratio = [1.0, 1.0, 1.0]
    if wanted is not None:
        ratio = [old / (new or old) for old, new in zip(spacing, wanted[::-1], strict=True)]
    pad = 2 * settings["padDistance"] if wanted is not None or settings["preCrop"] else 0
    sizes = [size * factor + pad for size, factor in zip(region.voxels.shape, ratio, strict=True)]
    images = sum(len(item.images()) for item in preset.image_types)
    return 1e4 + 0.3 * math.prod(sizes) + 2.0 * images * region.count * math.prod(ratio)


def batches_of(pending: Sequence[Task], jobs: int) -> list[Batch]:
    """Put together the regions that share images, largest first, so that no process is left alone with a long one at the end.

    What would keep one process busy while others idle is divided by its image types.
    """
    together: dict[tuple[str, str | None, str], list[Task]] = {}
    for task in pending:
        owner = (task.region.timepoint, task.region.lesion, task.preset.sha256)
        together.setdefault(owner, []).append(task)
    limit = sum(task.cost for task in pending) / (3 * jobs) if jobs > 1 else math.inf
    batches = []
    for tasks in together.values():
        cost = sum(task.cost for task in tasks)
        parts = _parts(tasks[0].preset.parameters(), math.ceil(cost / limit) if limit else 1)
        batches += [Batch(tuple(tasks), parameters, cost * share) for parameters, share in parts]
    return sorted(batches, key=lambda batch: batch.cost, reverse=True)


def _parts(parameters: Parameters, count: int) -> list[tuple[Parameters, float]]:
    """Divide parameters by image types into at most ``count`` parts of about equal work; each with its share of it."""
    images: list[tuple[str, dict[str, Any], float]] = []
    for name, own in parameters.get("imageType", {}).items():
        if name == "LoG":
            sigmas = own.get("sigma", parameters["setting"].get("sigma", []))
            # The margin of the filter, and so the voxels that it visits, grows with its width.
            images += [(name, {**own, "sigma": [sigma]}, 1.0 + sigma) for sigma in sigmas]
        else:
            images.append((name, own, 8.0 if name == "Wavelet" else 1.0))
    if count <= 1 or len(images) <= 1:
        return [(parameters, 1.0)]
    loads = [0.0] * min(count, len(images))
    chosen: list[list[tuple[str, dict[str, Any]]]] = [[] for _ in loads]
    for name, own, weight in sorted(images, key=lambda item: item[2], reverse=True):
        least = loads.index(min(loads))
        loads[least] += weight
        chosen[least].append((name, own))
    result = []
    for number, (load, items) in enumerate(zip(loads, chosen, strict=True)):
        types: dict[str, dict[str, Any]] = {}
        for name, own in items:
            held = types.setdefault(name, {**own, **({"sigma": []} if name == "LoG" else {})})
            if name == "LoG":
                held["sigma"] = [*held["sigma"], *own["sigma"]]
        classes = parameters["featureClass"]
        if number:  # the shape does not depend on the image
            classes = {name: features for name, features in classes.items() if not name.startswith("shape")}
        result.append(({**parameters, "imageType": types, "featureClass": classes}, load / sum(loads)))
    return result


def affordable(jobs: int, batches: Sequence[Batch], volumes: Mapping[str, sitk.Image]) -> int:
    """Return how many processes the memory allows for.

    They share the volumes; each has a copy of one, and the images of the batch at hand.
    """
    names = {batch.source[0] for batch in batches}
    shared = sum(volumes[name].GetNumberOfPixels() * volumes[name].GetSizeOfPixelComponent() for name in names)
    # Where the standard library puts what is shared; a write beyond what is free there would end this process.
    places = [place for place in ("/dev/shm", tempfile.gettempdir()) if os.path.isdir(place)]  # noqa: S108
    if all(shutil.disk_usage(place).free < shared for place in places):
        return 1
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - shared
    except (AttributeError, ValueError, OSError):
        return jobs
    needs = sorted((_memory(batch, volumes) for batch in batches), reverse=True)
    while jobs > 1 and sum(needs[:jobs]) > free:
        jobs -= 1
    return jobs


def _memory(batch: Batch, volumes: Mapping[str, sitk.Image]) -> float:
    """Estimate the bytes that a process needs for a batch."""
    region = max((task.region for task in batch.tasks), key=lambda item: item.voxels.size)
    volume = volumes[region.timepoint]
    voxels = volume.GetNumberOfPixels()
    resampled = batch.parameters.get("setting", {}).get("resampledPixelSpacing") is not None
    # The volume as it came and as it is held, its spline coefficients, and about sixteen images of the box at a time.
    return 2e8 + voxels * (2 * volume.GetSizeOfPixelComponent() + (8 if resampled else 0)) + 128 * region.voxels.size
