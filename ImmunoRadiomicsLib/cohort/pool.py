"""Workers: local processes that may die, or an existing Dask cluster; the same work on either.

Both hand out few tasks at a time, so that the driver's memory does not grow with the cohort. A task whose worker died is given
out again, alone where that can be, so that one patient that brings its worker down does not count against its neighbours.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from ..errors import InputError, MissingDependencyError
from ..processes import single_threaded_children

Item = TypeVar("Item")
Result = TypeVar("Result")

# A worker that dies this often on the same task, working on nothing else, is brought down by it.
DEATHS = 5
# Tasks handed out for each worker, so that it need not wait for the driver between two.
_AHEAD = 2
_POLL_SECONDS = 0.5


class WorkerDiedError(Exception):
    """The worker of a task died again and again, most often because the memory was not enough."""


@dataclass
class _Attempt(Generic[Item]):
    """A task that was given out, and how often its worker died."""

    item: Item
    deaths: int = 0
    bytes: int | None = None


class LocalPool(Generic[Item, Result]):
    """Processes on this machine, each with one thread. They end with the driver, however that ends.

    Where ``needs`` says how many bytes an item takes, those that are worked on at once stay within ``memory_bytes``; an item that
    takes more by itself is worked on alone. ``waited`` tells afterwards whether any had to wait for that.
    """

    def __init__(self, jobs: int, needs: Callable[[Item], int] | None = None, memory_bytes: int | None = None):
        self.jobs = jobs
        self.waited = False
        self._needs, self._memory_bytes = needs, memory_bytes
        self._context = multiprocessing.get_context("spawn")

    def results(
        self, work: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
        """Yield every item with what the work returned, in the order in which they end."""
        waiting = deque(_Attempt(item) for item in items)
        suspects: deque[_Attempt[Item]] = deque()
        while waiting or suspects:
            flying: dict[Future[Result], _Attempt[Item]] = {}
            executor = ProcessPoolExecutor(self.jobs, mp_context=self._context, initializer=_start_worker)
            try:
                while waiting or suspects or flying:
                    if suspects and not flying:
                        flying |= {_submitted(executor, work, suspects[0].item): suspects[0]}
                        suspects.popleft()
                    while waiting and not suspects and len(flying) < _AHEAD * self.jobs:
                        if not self._fits(waiting[0], flying.values()):
                            break
                        # Taken from the queue only when it is given out: a pool that has broken meanwhile refuses it.
                        flying |= {_submitted(executor, work, waiting[0].item): waiting[0]}
                        waiting.popleft()
                    done, _ = wait(flying, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        yield flying.pop(future).item, result
            except BrokenProcessPool:
                alone = len(flying) == 1
                for attempt in flying.values():
                    attempt.deaths += alone
                    if attempt.deaths >= DEATHS:
                        yield attempt.item, WorkerDiedError()
                    else:
                        suspects.append(attempt)
            except BaseException:
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
            finally:
                executor.shutdown(wait=True, cancel_futures=True)

    def _fits(self, attempt: _Attempt[Item], others: Collection[_Attempt[Item]]) -> bool:
        """Whether the largest items, as many as there are jobs, stay within the memory when this one joins them."""
        if self._needs is None or self._memory_bytes is None:
            return True
        if attempt.bytes is None:
            attempt.bytes = self._needs(attempt.item)
        largest = sorted((item.bytes or 0 for item in (attempt, *others)), reverse=True)[: self.jobs]
        fits = not others or sum(largest) <= self._memory_bytes
        self.waited |= not fits
        return fits


def _submitted(executor: ProcessPoolExecutor, work: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Give an item out. A process that is started for it uses one thread."""
    with single_threaded_children():
        return executor.submit(work, item)


def _start_worker() -> None:
    """Leave interruptions to the driver, and end when it ends: a killed driver cannot tell its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class DaskPool(Generic[Item, Result]):
    """The workers of an existing Dask cluster; ``client`` is a ``distributed.Client``."""

    def __init__(self, client: Any):
        self.client = client

    @classmethod
    def connect(cls, address: str) -> DaskPool[Item, Result]:
        """Connect to a scheduler.

        Raises
        ------
        InputError
            If there is no scheduler at the address, or it has no worker.
        MissingDependencyError
            If Dask is not installed.
        """
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingDependencyError(
                "A Dask cluster needs the package distributed: pip install 'immunoradiomics[cohort]'."
            ) from error
        try:
            client = Client(address, timeout="10s", set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(
                f"--scheduler {address}: no Dask scheduler answers there. Give an address such as tcp://host:8786."
            ) from error
        return cls(client)

    def results(
        self, work: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
        """Yield every item with what the work returned, in the order in which they end."""
        from distributed import KilledWorker, as_completed

        waiting = iter(items)
        flying: dict[Any, _Attempt[Item]] = {}
        running = as_completed()

        def submit(attempt: _Attempt[Item]) -> None:
            future = self.client.submit(work, attempt.item, pure=False)
            flying[future] = attempt
            running.add(future)

        try:
            for item in itertools.islice(waiting, self._window()):
                submit(_Attempt(item))
            for future in running:
                attempt = flying.pop(future)
                try:
                    outcome: Result | WorkerDiedError = future.result()
                except KilledWorker:
                    # The scheduler has tried it on several workers by now; other patients may have brought those down.
                    attempt.deaths += 1
                    if attempt.deaths < DEATHS:
                        submit(attempt)
                        continue
                    outcome = WorkerDiedError()
                future.release()
                for item in itertools.islice(waiting, 1):
                    submit(_Attempt(item))
                yield attempt.item, outcome
        finally:
            if flying:
                self.client.cancel(list(flying), force=True)

    def _window(self) -> int:
        return max(_AHEAD, _AHEAD * sum(self.client.nthreads().values()))
