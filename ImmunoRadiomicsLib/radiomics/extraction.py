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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..analysis import Features
from ..errors import InputError, StageError
from ..images import RegionMask
from ..progress import Progress, silent
from .cache import Cache
from .ibsi import VERSION as IBSI_VERSION
from .measurement import Parameters, measure, pyradiomics
from .preparation import Source, UnmeasurableError
from .presets import Preset

ENGINE_VERSION = 1
_POLL_SECONDS = 0.2
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True, eq=False)
class _Task:
    """One region to measure; ``number`` is its place in the result."""

    number: int
    region: RegionMask
    preset: Preset
    key: str
    cost: float

    @property
    def source(self) -> tuple[str, str]:
        """What can be shared between tasks: the time point and how its volume is prepared."""
        return self.region.timepoint, self.preset.sha256


@dataclass(frozen=True)
class _Outcome:
    reason: str | None
    values: dict[str, float | None]


def extract(
    volumes: Mapping[str, sitk.Image],
    regions: Sequence[RegionMask],
    preset: Preset,
    *,
    lung_preset: Preset | None = None,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
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
        Told after every region; it may raise ``CancelledError``, and what was finished stays in the cache.

    Returns
    -------
    tuple of Features
        One for every region, in the order given, with the same names for the same preset. A region that cannot be
        measured has a ``reason`` and no values; a feature that is not defined for a region is None.

    Raises
    ------
    InputError
        If a region has no volume or does not lie inside it, or a volume is not a scalar 3D image.
    MissingDependencyError
        If pyradiomics is not installed.
    StageError
        If a process was ended from outside (most often for want of memory).
    """
    _check(volumes, regions)
    pyradiomics()
    store = Cache(cache)
    progress(0.0, "Preparing the extraction of features")
    digests = {name: _volume_digest(volumes[name]) for name in sorted({region.timepoint for region in regions})}
    versions = software_versions()
    tasks = []
    for number, region in enumerate(regions):
        chosen = lung_preset if lung_preset is not None and region.lesion is None else preset
        key = _key(digests[region.timepoint], region, chosen, versions)
        tasks.append(_Task(number, region, chosen, key, _cost(volumes[region.timepoint], region, chosen)))

    outcomes: dict[int, _Outcome] = {}
    pending = []
    for task in tasks:
        kept = store.read(task.key)
        if kept is None:
            pending.append(task)
        else:
            outcomes[task.number] = _Outcome(*kept)
    total = sum(task.cost for task in tasks) or 1.0
    done = total - sum(task.cost for task in pending)

    def finish(task: _Task, outcome: _Outcome) -> None:
        nonlocal done
        outcomes[task.number] = outcome
        store.write(task.key, outcome.reason, outcome.values)
        done += task.cost
        progress(done / total, f"Features of {_label(task.region)}")

    # Largest first, so that no process is left alone with the longest task at the end.
    pending.sort(key=lambda task: task.cost, reverse=True)
    if pending:
        if min(jobs, len(pending)) <= 1:
            _run_here(volumes, pending, finish)
        else:
            _run_in_processes(volumes, pending, min(jobs, len(pending)), finish, lambda: progress(done / total, ""))
    progress(1.0, "Features extracted")
    return tuple(_features(task, outcomes[task.number]) for task in tasks)


def software_versions() -> dict[str, str]:
    """Return the versions of what computes the features, for provenance and for the key of the cache."""
    versions = {
        "engine": f"pyradiomics through ImmunoRadiomics extraction {ENGINE_VERSION}",
        "pyradiomics": str(pyradiomics().__version__),
        "ibsi engine": IBSI_VERSION,
        "numpy": np.__version__,
        "SimpleITK": sitk.Version_VersionString(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
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


def _features(task: _Task, outcome: _Outcome) -> Features:
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


def _measured(source: Source, region: RegionMask, parameters: Parameters) -> _Outcome:
    """Measure one region; whatever the engine cannot do with it becomes its reason."""
    try:
        return _Outcome(None, measure(source, region, parameters))
    except UnmeasurableError as error:
        return _Outcome(str(error), {})
    except MemoryError:
        return _Outcome("the region needs more memory than there is; a larger bin width or voxel needs less", {})
    except (ValueError, IndexError, RuntimeError, ArithmeticError) as error:
        return _Outcome(f"the region could not be measured ({' '.join(str(error).split())[:200]})", {})


@contextlib.contextmanager
def _one_itk_thread() -> Iterator[None]:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _run_here(
    volumes: Mapping[str, sitk.Image], pending: Sequence[_Task], finish: Callable[[_Task, _Outcome], None]
) -> None:
    with _one_itk_thread():
        # Grouped by volume, so that one at a time is kept prepared.
        groups: dict[tuple[str, str], list[_Task]] = {}
        for task in pending:
            groups.setdefault(task.source, []).append(task)
        for (timepoint, _), tasks in groups.items():
            parameters = tasks[0].preset.parameters()
            source = Source(volumes[timepoint], parameters.get("setting", {}))
            for task in tasks:
                finish(task, _measured(source, task.region, parameters))


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    link: connection.Connection
    source: tuple[str, str] | None = None
    task: _Task | None = None


def _serve(link: connection.Connection) -> None:
    """Measure what is sent until None comes: a volume with parameters (to be kept) or a region of it."""
    # An interrupt from the keyboard reaches every process of the terminal; the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    pyradiomics()
    source, parameters = None, {}
    while (message := _received(link)) is not None:
        if isinstance(message, RegionMask) and source is not None:
            link.send(_measured(source, message, parameters))
        else:
            array, spacing, origin, direction, parameters = message
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(spacing)
            image.SetOrigin(origin)
            image.SetDirection(direction)
            source = Source(image, parameters.get("setting", {}))


def _received(link: connection.Connection) -> Any:
    """Return the next message, or None where the parent is gone."""
    try:
        return link.recv()
    except (EOFError, ConnectionError):
        return None


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let processes that start now use one thread for linear algebra: several would only wait for one another."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run_in_processes(
    volumes: Mapping[str, sitk.Image],
    pending: list[_Task],
    jobs: int,
    finish: Callable[[_Task, _Outcome], None],
    tick: Callable[[], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        with _single_threaded_children():
            for _ in range(jobs):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there,), daemon=True)
                process.start()
                there.close()
                workers.append(_Worker(process, here))
        for worker in workers:
            _assign(worker, workers, volumes, pending)
        while any(worker.task is not None for worker in workers):
            ready = connection.wait([worker.link for worker in workers if worker.task is not None], _POLL_SECONDS)
            if not ready:
                tick()
            for worker in workers:
                if worker.link in ready and worker.task is not None:
                    task = worker.task
                    try:
                        outcome = worker.link.recv()
                    except (EOFError, ConnectionError) as error:
                        raise _died(worker, task) from error
                    _assign(worker, workers, volumes, pending)
                    finish(task, outcome)
    finally:
        for worker in workers:
            if worker.task is None and worker.process.is_alive():
                with contextlib.suppress(OSError):
                    worker.link.send(None)
            else:
                worker.process.terminate()
        for worker in workers:
            worker.process.join()
            worker.link.close()


def _died(worker: _Worker, task: _Task) -> StageError:
    worker.process.join(timeout=5)
    return StageError(
        f"The process that measured {_label(task.region)} ended unexpectedly (exit code {worker.process.exitcode}), "
        "most often for want of memory: use fewer jobs or a preset with larger voxels."
    )


def _assign(
    worker: _Worker, workers: Sequence[_Worker], volumes: Mapping[str, sitk.Image], pending: list[_Task]
) -> None:
    """Give a worker the largest task left of the volume it holds, else of one that nobody holds, else of any."""
    worker.task = None
    if not pending:
        return
    taken = {other.source for other in workers}
    task = min(pending, key=lambda item: (item.source != worker.source, item.source in taken))
    pending.remove(task)
    worker.task = task
    try:
        if task.source != worker.source:
            volume = volumes[task.region.timepoint]
            array = sitk.GetArrayViewFromImage(volume)
            geometry = (volume.GetSpacing(), volume.GetOrigin(), volume.GetDirection())
            worker.link.send((array, *geometry, task.preset.parameters()))
            worker.source = task.source
        worker.link.send(task.region)
    except (BrokenPipeError, ConnectionError) as error:
        raise _died(worker, task) from error
