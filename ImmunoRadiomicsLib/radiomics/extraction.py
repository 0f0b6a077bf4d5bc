"""Extraction of a whole study: every region of every time point, each volume prepared once, spread over processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..analysis import Features
from ..errors import InputError, StageError
from ..images import RegionMask
from ..processes import single_threaded_children
from ..progress import Progress, silent
from .cache import Cache
from .classes import pyradiomics
from .ibsi import VERSION as IBSI_VERSION
from .measurement import PYRADIOMICS, Outcome, Parameters, choose_engine, measure
from .preparation import Source
from .presets import Preset

# Changes whenever a value does.
ENGINE_VERSION = 2
_POLL_SECONDS = 0.2


@dataclass(frozen=True, eq=False)
class _Task:
    """One region to measure; ``number`` is its place in the result."""

    number: int
    region: RegionMask
    preset: Preset
    key: str
    cost: float


@dataclass(frozen=True, eq=False)
class _Batch:
    """Regions of one lesion, or of the lungs, at one time point, which share filtered images; all image types or some."""

    tasks: tuple[_Task, ...]
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


class _Results:
    """Puts the parts of every region together; a region is finished with its last part."""

    def __init__(self, batches: Sequence[_Batch], finish: Callable[[_Task, Outcome], None]):
        self._finish = finish
        self._open: dict[int, int] = {}
        self._outcomes: dict[int, Outcome] = {}
        for batch in batches:
            for task in batch.tasks:
                self._open[task.number] = self._open.get(task.number, 0) + 1

    def add(self, batch: _Batch, outcomes: Sequence[Outcome]) -> None:
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


def extract(
    volumes: Mapping[str, sitk.Image],
    regions: Sequence[RegionMask],
    preset: Preset,
    *,
    lung_preset: Preset | None = None,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
    engine: str = "auto",
) -> tuple[Features, ...]:
    """Measure the features of regions, equal to a plain pyradiomics run on each whole volume and mask.

    Parameters
    ----------
    volumes
        One scalar 3D image for each time point that occurs in ``regions``.
    regions
        On the grid of the volume of their time point.
    preset
        What to extract from regions of lesions, and of the lungs unless ``lung_preset`` is given.
    lung_preset
        What to extract from regions that belong to no lesion.
    jobs
        Number of processes; 1 works in this process.
    cache
        A folder where results are kept by the content of voxels, mask, settings and versions; several runs may share it.
    progress
        Told after every image of a region; it may raise ``CancelledError``, and what was finished stays in the cache.
    engine
        What computes the features of pyradiomics: `pyradiomics`, `own` (numpy and scipy alone, equal to 1e-9), or `auto`, which
        is pyradiomics where it is installed.

    Returns
    -------
    tuple of Features
        One for every region, in the order given, with the same names for the same preset. A region that cannot be
        measured has a ``reason`` and no values; a feature that is not defined for a region is None.

    Raises
    ------
    InputError
        If a region has no volume or does not lie inside it, or a volume is not a scalar 3D image, or there is no such engine.
    MissingDependencyError
        If pyradiomics is asked for and not installed.
    StageError
        If a process was ended from outside (most often for want of memory).
    """
    _check(volumes, regions)
    engine = choose_engine(engine)
    store = Cache(cache)
    progress(0.0, "Preparing the extraction of features")
    digests = {name: _volume_digest(volumes[name]) for name in sorted({region.timepoint for region in regions})}
    versions = software_versions(engine)
    tasks = []
    for number, region in enumerate(regions):
        chosen = lung_preset if lung_preset is not None and region.lesion is None else preset
        key = _key(digests[region.timepoint], region, chosen, versions)
        tasks.append(_Task(number, region, chosen, key, _cost(volumes[region.timepoint], region, chosen)))

    outcomes: dict[int, Outcome] = {}
    pending = []
    for task in tasks:
        kept = store.read(task.key)
        if kept is None:
            pending.append(task)
        else:
            outcomes[task.number] = Outcome(*kept)
    total = sum(task.cost for task in tasks) or 1.0
    done = total - sum(task.cost for task in pending)

    def finish(task: _Task, outcome: Outcome) -> None:
        nonlocal done
        outcomes[task.number] = outcome
        store.write(task.key, outcome.reason, outcome.values)
        done += task.cost
        progress(min(done / total, 1.0), f"Features of {_label(task.region)}")

    def tick(message: str = "") -> None:
        progress(min(done / total, 1.0), message)

    if pending:
        batches = _batches(pending, jobs)
        results = _Results(batches, finish)
        processes = _affordable(min(jobs, len(batches)), batches, volumes)
        if processes <= 1:
            _run_here(volumes, batches, engine, results, tick)
        else:
            _run_in_processes(volumes, batches, processes, engine, results, tick)
        store.prune()
    progress(1.0, "Features extracted")
    return tuple(_features(task, outcomes[task.number]) for task in tasks)


def software_versions(engine: str = "auto") -> dict[str, str]:
    """Return the versions of what computes the features, for provenance and for the key of the cache.

    Raises
    ------
    MissingDependencyError
        If pyradiomics is asked for and not installed.
    """
    engine = choose_engine(engine)
    versions = {
        "engine": f"{engine} through ImmunoRadiomics extraction {ENGINE_VERSION}",
        "ibsi engine": IBSI_VERSION,
        "numpy": np.__version__,
        "SimpleITK": sitk.Version_VersionString(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    if engine == PYRADIOMICS:
        versions["pyradiomics"] = str(pyradiomics().__version__)
    for package in ("PyWavelets", "scipy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _check(volumes: Mapping[str, sitk.Image], regions: Sequence[RegionMask]) -> None:
    problems = []
    for name, volume in volumes.items():
        if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1:
            problems.append(
                f"{name}: features need a scalar 3D image; this one has {volume.GetDimension()} dimensions and "
                f"{volume.GetNumberOfComponentsPerPixel()} components."
            )
    for region in regions:
        if region.timepoint not in volumes:
            problems.append(f"{_label(region)}: there is no volume of that time point; there are {', '.join(volumes)}.")
            continue
        shape = volumes[region.timepoint].GetSize()[::-1]
        ends = [first + size for first, size in zip(region.offset_zyx, region.voxels.shape, strict=True)]
        if min(region.offset_zyx) < 0 or any(end > limit for end, limit in zip(ends, shape, strict=True)):
            problems.append(
                f"{_label(region)}: the region reaches voxel {tuple(ends)} (z, y, x), the volume ends at {shape}; "
                "give a mask on the grid of the volume."
            )
    if problems:
        raise InputError(problems)


def _label(region: RegionMask) -> str:
    owner = f"{region.lesion} " if region.lesion is not None else ""
    return f"{region.timepoint} {owner}{region.region}"


def _features(task: _Task, outcome: Outcome) -> Features:
    region = task.region
    values = {name: outcome.values.get(name) for name in task.preset.columns} if outcome.reason is None else {}
    return Features(region.timepoint, region.lesion, region.region, region.count, outcome.reason, values)


def _cost(volume: sitk.Image, region: RegionMask, preset: Preset) -> float:
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


def _volume_digest(volume: sitk.Image) -> str:
    digest = hashlib.sha256()
    geometry = (volume.GetSize(), volume.GetSpacing(), volume.GetOrigin(), volume.GetDirection())
    digest.update(repr((volume.GetPixelIDTypeAsString(), geometry)).encode())
    digest.update(np.ascontiguousarray(sitk.GetArrayViewFromImage(volume)).data)
    return digest.hexdigest()


def _key(volume_digest: str, region: RegionMask, preset: Preset, versions: dict[str, str]) -> str:
    digest = hashlib.sha256()
    parts = (volume_digest, region.offset_zyx, region.voxels.shape, preset.sha256, versions)
    digest.update(json.dumps(parts, sort_keys=True).encode())
    digest.update(np.packbits(region.voxels).data)
    return digest.hexdigest()


def _batches(pending: Sequence[_Task], jobs: int) -> list[_Batch]:
    """Put together the regions that share images, largest first, so that no process is left alone with a long one at the end.

    What would keep one process busy while others idle is divided by its image types.
    """
    together: dict[tuple[str, str | None, str], list[_Task]] = {}
    for task in pending:
        owner = (task.region.timepoint, task.region.lesion, task.preset.sha256)
        together.setdefault(owner, []).append(task)
    limit = sum(task.cost for task in pending) / (3 * jobs) if jobs > 1 else math.inf
    batches = []
    for tasks in together.values():
        cost = sum(task.cost for task in tasks)
        parts = _parts(tasks[0].preset.parameters(), math.ceil(cost / limit) if limit else 1)
        batches += [_Batch(tuple(tasks), parameters, cost * share) for parameters, share in parts]
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


def _affordable(jobs: int, batches: Sequence[_Batch], volumes: Mapping[str, sitk.Image]) -> int:
    """Return how many processes the memory allows for: each holds a volume, and the images of the batch at hand."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return jobs
    needs = sorted((_memory(batch, volumes) for batch in batches), reverse=True)
    while jobs > 1 and sum(needs[:jobs]) > free:
        jobs -= 1
    return jobs


def _memory(batch: _Batch, volumes: Mapping[str, sitk.Image]) -> float:
    """Estimate the bytes that a process needs for a batch."""
    region = max((task.region for task in batch.tasks), key=lambda item: item.voxels.size)
    volume = volumes[region.timepoint]
    voxels = volume.GetNumberOfPixels()
    resampled = batch.parameters.get("setting", {}).get("resampledPixelSpacing") is not None
    # The volume as it came and as it is held, its spline coefficients, and about eight images of the box at a time.
    return 2e8 + voxels * (2 * volume.GetSizeOfPixelComponent() + (8 if resampled else 0)) + 64 * region.voxels.size


@contextlib.contextmanager
def _one_itk_thread() -> Iterator[None]:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _run_here(
    volumes: Mapping[str, sitk.Image],
    batches: Sequence[_Batch],
    engine: str,
    results: _Results,
    tick: Callable[[str], None],
) -> None:
    with _one_itk_thread():
        # Grouped by volume, so that one at a time is kept prepared.
        groups: dict[tuple[str, str], list[_Batch]] = {}
        for batch in batches:
            groups.setdefault(batch.source, []).append(batch)
        for (timepoint, _), members in groups.items():
            source = Source(volumes[timepoint], members[0].parameters.get("setting", {}))
            for batch in members:
                regions = [task.region for task in batch.tasks]
                heartbeat = partial(tick, f"Measuring {batch.label}")
                results.add(batch, measure(source, regions, batch.parameters, engine, heartbeat))


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    link: connection.Connection
    source: tuple[str, str] | None = None
    batch: _Batch | None = None


def _serve(link: connection.Connection, engine: str) -> None:
    """Measure what is sent until None comes: a volume with settings (to be kept) or regions of it with parameters."""
    # An interrupt from the keyboard reaches every process of the terminal; the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    source = None
    while (message := _received(link)) is not None:
        if len(message) == 2 and source is not None:
            regions, parameters = message
            outcomes = measure(source, regions, parameters, engine)
            try:
                link.send(outcomes)
            except OSError:
                return
        else:
            array, spacing, origin, direction, settings = message
            image = sitk.GetImageFromArray(array)
            del array, message
            image.SetSpacing(spacing)
            image.SetOrigin(origin)
            image.SetDirection(direction)
            source = Source(image, settings)


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, rather than with the region at hand."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _received(link: connection.Connection) -> Any:
    """Return the next message, or None where the parent is gone."""
    try:
        return link.recv()
    except (EOFError, OSError):
        return None


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold an interrupt from the keyboard back while processes start: they would report it before they can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It would be started with the first process, and let interrupts through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # A thread of a library may take the interrupt all the same, and Python then hands it to the main thread.
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    held: list[int] = []
    if handler is not None:
        signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _run_in_processes(
    volumes: Mapping[str, sitk.Image],
    batches: Sequence[_Batch],
    jobs: int,
    engine: str,
    results: _Results,
    tick: Callable[[], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    pending = list(batches)
    try:
        with single_threaded_children(), _uninterrupted():
            for _ in range(jobs):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, engine), daemon=True)
                process.start()
                there.close()
                workers.append(_Worker(process, here))
        for worker in workers:
            _assign(worker, workers, volumes, pending)
        while any(worker.batch is not None for worker in workers):
            ready = connection.wait([worker.link for worker in workers if worker.batch is not None], _POLL_SECONDS)
            if not ready:
                tick()
            for worker in workers:
                if worker.link in ready and worker.batch is not None:
                    batch = worker.batch
                    try:
                        outcomes = worker.link.recv()
                    except (EOFError, ConnectionError) as error:
                        raise _died(worker, batch) from error
                    _assign(worker, workers, volumes, pending)
                    results.add(batch, outcomes)
    finally:
        for worker in workers:
            if worker.batch is None and worker.process.is_alive():
                with contextlib.suppress(OSError):
                    worker.link.send(None)
            else:
                worker.process.terminate()
        for worker in workers:
            worker.process.join()
            worker.link.close()


def _died(worker: _Worker, batch: _Batch) -> StageError:
    worker.process.join(timeout=5)
    return StageError(
        f"The process that measured {batch.label} ended unexpectedly (exit code {worker.process.exitcode}), "
        "most often for want of memory: use fewer jobs or a preset with larger voxels."
    )


def _assign(
    worker: _Worker, workers: Sequence[_Worker], volumes: Mapping[str, sitk.Image], pending: list[_Batch]
) -> None:
    """Give a worker the largest batch left of the volume it holds, else of one that nobody holds, else of any."""
    worker.batch = None
    if not pending:
        return
    taken = {other.source for other in workers}
    batch = min(pending, key=lambda item: (item.source != worker.source, item.source in taken))
    pending.remove(batch)
    worker.batch = batch
    try:
        if batch.source != worker.source:
            volume = volumes[batch.source[0]]
            array = sitk.GetArrayViewFromImage(volume)
            geometry = (volume.GetSpacing(), volume.GetOrigin(), volume.GetDirection())
            worker.link.send((array, *geometry, batch.parameters.get("setting", {})))
            worker.source = batch.source
        worker.link.send(([task.region for task in batch.tasks], batch.parameters))
    except ConnectionError as error:
        raise _died(worker, batch) from error
