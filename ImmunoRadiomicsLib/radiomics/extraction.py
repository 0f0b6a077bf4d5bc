"""Extraction of a whole study: every region of every time point, each volume prepared once, spread over processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..analysis import Features
from ..errors import InputError
from ..images import RegionMask
from ..progress import Progress, silent
from .cache import Cache
from .classes import pyradiomics
from .ibsi import VERSION as IBSI_VERSION
from .measurement import PYRADIOMICS, Outcome, choose_engine
from .plan import Results, Task, affordable, batches_of, cost_of
from .presets import Preset
from .workers import run_here, run_in_processes

# Changes whenever a value does.
ENGINE_VERSION = 3


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
    presets = [lung_preset if lung_preset is not None and item.lesion is None else preset for item in regions]
    keys = [""] * len(regions) if cache is None else _keys(volumes, regions, presets, software_versions(engine), jobs)
    tasks = [
        Task(number, region, chosen, key, cost_of(volumes[region.timepoint], region, chosen))
        for number, (region, chosen, key) in enumerate(zip(regions, presets, keys, strict=True))
    ]

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

    def finish(task: Task, outcome: Outcome) -> None:
        nonlocal done
        outcomes[task.number] = outcome
        store.write(task.key, outcome.reason, outcome.values)
        done += task.cost
        progress(min(done / total, 1.0), f"Features of {_label(task.region)}")

    def tick(message: str) -> None:
        progress(min(done / total, 1.0), message)

    if pending:
        batches = batches_of(pending, jobs)
        results = Results(batches, finish)
        processes = affordable(min(jobs, len(batches)), batches, volumes)
        if processes <= 1:
            run_here(volumes, batches, engine, results, tick)
        else:
            run_in_processes(volumes, batches, processes, engine, results, tick)
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


def _features(task: Task, outcome: Outcome) -> Features:
    region = task.region
    values = {name: outcome.values.get(name) for name in task.preset.columns} if outcome.reason is None else {}
    return Features(region.timepoint, region.lesion, region.region, region.count, outcome.reason, values)


def _volume_digest(volume: sitk.Image) -> str:
    digest = hashlib.sha256()
    geometry = (volume.GetSize(), volume.GetSpacing(), volume.GetOrigin(), volume.GetDirection())
    digest.update(repr((volume.GetPixelIDTypeAsString(), geometry)).encode())
    digest.update(np.ascontiguousarray(sitk.GetArrayViewFromImage(volume)).data)
    return digest.hexdigest()


def _keys(
    volumes: Mapping[str, sitk.Image],
    regions: Sequence[RegionMask],
    presets: Sequence[Preset],
    versions: dict[str, str],
    jobs: int,
) -> list[str]:
    names = sorted({region.timepoint for region in regions})
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        digests = dict(zip(names, pool.map(_volume_digest, (volumes[name] for name in names)), strict=True))
    return [
        _key(digests[region.timepoint], region, chosen, versions)
        for region, chosen in zip(regions, presets, strict=True)
    ]


def _key(volume_digest: str, region: RegionMask, preset: Preset, versions: dict[str, str]) -> str:
    digest = hashlib.sha256()
    parts = (volume_digest, region.offset_zyx, region.voxels.shape, preset.sha256, versions)
    digest.update(json.dumps(parts, sort_keys=True).encode())
    digest.update(np.packbits(region.voxels).data)
    return digest.hexdigest()
