"""Where the batches of an extraction are measured: in this process, or spread over several."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, resource_tracker
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..errors import StageError
from ..processes import end_with_parent, single_threaded_children
from .measurement import measure
from .plan import Batch, Results
from .preparation import Source

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def _one_itk_thread() -> Iterator[None]:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def run_here(
    volumes: Mapping[str, sitk.Image],
    batches: Sequence[Batch],
    engine: str,
    results: Results,
    tick: Callable[[str], None],
) -> None:
    """Measure batches in this process."""
    with _one_itk_thread():
        # Grouped by volume, so that one at a time is kept prepared.
        groups: dict[tuple[str, str], list[Batch]] = {}
        for batch in batches:
            groups.setdefault(batch.source, []).append(batch)
        for (timepoint, _), members in groups.items():
            source = Source(volumes[timepoint], members[0].parameters.get("setting", {}))
            for batch in members:
                regions = [task.region for task in batch.tasks]
                heartbeat = partial(tick, f"Measuring {batch.label}")
                results.add(batch, measure(source, regions, batch.parameters, engine, heartbeat))


class _SharedVolume:
    """A volume in memory that processes share, instead of being sent a copy through a pipe.

    It goes to a process when that starts, and is filled by then or later. It ends with the last process, however that ends.
    """

    def __init__(self, volume: sitk.Image, context: multiprocessing.context.SpawnContext):
        array = sitk.GetArrayViewFromImage(volume)
        self._bytes = context.RawArray("B", array.nbytes)
        self._dtype, self._shape = array.dtype.str, array.shape
        self._geometry = volume.GetSpacing(), volume.GetOrigin(), volume.GetDirection()

    def _array(self) -> np.ndarray:
        return np.frombuffer(self._bytes, self._dtype).reshape(self._shape)

    def fill(self, volume: sitk.Image) -> None:
        """Take over the voxels."""
        self._array()[...] = sitk.GetArrayViewFromImage(volume)

    def image(self) -> sitk.Image:
        """Return the volume, a copy of what is shared."""
        image = sitk.GetImageFromArray(self._array())
        spacing, origin, direction = self._geometry
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
        return image


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    link: connection.Connection
    source: tuple[str, str] | None = None
    batch: Batch | None = None


def _serve(link: connection.Connection, engine: str, shared: Mapping[str, _SharedVolume]) -> None:
    """Measure what is sent until None comes: the name of a volume with settings (to be kept), or regions of it with parameters."""
    # An interrupt from the keyboard reaches every process of the terminal; the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    source = None
    while (message := _received(link)) is not None:
        what, parameters = message
        if isinstance(what, str):
            source = None  # lets go of one volume before the next is taken over
            source = Source(shared[what].image(), parameters)
        elif source is not None:
            outcomes = measure(source, what, parameters, engine)
            try:
                link.send(outcomes)
            except OSError:
                return


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


def run_in_processes(
    volumes: Mapping[str, sitk.Image],
    batches: Sequence[Batch],
    jobs: int,
    engine: str,
    results: Results,
    tick: Callable[[str], None],
) -> None:
    """Measure batches in several processes.

    Raises
    ------
    StageError
        If a process was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    pending = list(batches)
    names = sorted({batch.source[0] for batch in batches})
    shared = {name: _SharedVolume(volumes[name], context) for name in names}
    full: set[str] = set()

    def assign(worker: _Worker) -> None:
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
                timepoint = batch.source[0]
                if timepoint not in full:
                    shared[timepoint].fill(volumes[timepoint])
                    full.add(timepoint)
                worker.link.send((timepoint, batch.parameters.get("setting", {})))
                worker.source = batch.source
            worker.link.send(([task.region for task in batch.tasks], batch.parameters))
        except ConnectionError as error:
            raise _died(worker, batch) from error

    try:
        with single_threaded_children(), _uninterrupted():
            for _ in range(jobs):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, engine, shared), daemon=True)
                process.start()
                there.close()
                workers.append(_Worker(process, here))
        for worker in workers:
            assign(worker)
        while any(worker.batch is not None for worker in workers):
            ready = connection.wait([worker.link for worker in workers if worker.batch is not None], _POLL_SECONDS)
            if not ready:
                tick(f"Measuring {', '.join(worker.batch.label for worker in workers if worker.batch is not None)}")
            for worker in workers:
                if worker.link in ready and worker.batch is not None:
                    batch = worker.batch
                    try:
                        outcomes = worker.link.recv()
                    except (EOFError, ConnectionError) as error:
                        raise _died(worker, batch) from error
                    assign(worker)
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


def _died(worker: _Worker, batch: Batch) -> StageError:
    worker.process.join(timeout=5)
    return StageError(
        f"The process that measured {batch.label} ended unexpectedly (exit code {worker.process.exitcode}), "
        "most often for want of memory: use fewer jobs or a preset with larger voxels."
    )
