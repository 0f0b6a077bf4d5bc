"""Workers: local processes that may die, or an existing Dask cluster; the same work on either.

Both hand out few tasks at a time, so that the driver's memory does not grow with the cohort: one for each worker where a task takes its
time, and several together where handing out would take as long as the work. A task whose worker died is given out again, in the end alone
where that can be, so that one patient that brings its worker down does not count against its neighbours.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnContext
from typing import Any, Generic, TypeVar

from ..errors import ImmunoRadiomicsError, InputError, MissingDependencyError
from ..processes import end_with_parent, single_threaded_children

Item = TypeVar("Item")
Result = TypeVar("Result")

# A worker that dies this often on the same task, working on nothing else, is brought down by it.
DEATHS = 5
# Before that it may be chance: the task keeps its turn among the others.
_DEATHS_AMONG_OTHERS = 2
_POLL_SECONDS = 0.5
# A worker is given as many tasks as it should finish in this time, and gives back those that it did not come to.
_TOGETHER_SECONDS = 1.0
_MOST_TOGETHER = 100
# The scheduler of a cluster holds tasks until a worker is free, also for workers that have yet to arrive.
_LEAST_AT_SCHEDULER = 32
_AHEAD = 2
_COUNT_WORKERS_SECONDS = 5.0


class WorkerDiedError(Exception):
    """The worker of a task died again and again, most often because the memory was not enough."""


@dataclass
class _Attempt(Generic[Item]):
    """A task that was or will be given out, and how often its worker died."""

    item: Item
    deaths: int = 0
    bytes: int | None = None

    @property
    def alone(self) -> bool:
        """Whether nothing else is to be worked on meanwhile."""
        return self.deaths >= _DEATHS_AMONG_OTHERS

    @property
    def given_up(self) -> bool:
        return self.deaths >= _DEATHS_AMONG_OTHERS + DEATHS


class _Pace:
    """How many tasks to give out together, from how long the last ones took."""

    def __init__(self) -> None:
        self._seconds = _TOGETHER_SECONDS

    def saw(self, tasks: int, seconds: float) -> None:
        each = seconds / tasks
        # Slower at once, faster by and by: a long task must not wait behind another for the sake of many short ones.
        self._seconds = max(each, (self._seconds + each) / 2)

    @property
    def together(self) -> int:
        return max(1, min(_MOST_TOGETHER, int(_TOGETHER_SECONDS / max(self._seconds, 1e-6))))


def _work_through(work: Callable[[Item], Result], items: Sequence[Item]) -> tuple[list[Result], float]:
    """Do the first of some tasks and, while there is time, those after it; return the results of these and the seconds that it took."""
    started = time.perf_counter()
    results = []
    for item in items:
        results.append(work(item))
        if (seconds := time.perf_counter() - started) > _TOGETHER_SECONDS:
            break
    return results, seconds


class LocalPool(Generic[Item, Result]):
    """Processes on this machine, each with one thread. They end with the driver, however that ends.

    Where ``needs`` says how many bytes an item takes, those that are worked on at once stay within ``memory_bytes``; an item that
    takes more by itself is worked on alone. ``waited`` tells afterwards whether any had to wait for that.
    """

    def __init__(self, jobs: int, needs: Callable[[Item], int] | None = None, memory_bytes: int | None = None):
        self.jobs = jobs
        self.waited = False
        self._needs, self._memory_bytes = needs, memory_bytes
        self._waiting: deque[_Attempt[Item]] = deque()
        self._context = multiprocessing.get_context("spawn")

    def results(
        self, work: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
        """Yield every item with what the work returned, in the order in which they end; ``add`` may be called meanwhile."""
        waiting = self._waiting = deque(_Attempt(item) for item in items)
        workers: list[_Worker[Item, Result]] = []
        pace = _Pace()
        try:
            while waiting or any(worker.busy for worker in workers):
                while len(workers) < min(self.jobs, len(waiting) + sum(worker.busy for worker in workers)):
                    workers.append(_Worker(self._context, work))
                self._hand_out(waiting, workers, pace)
                for worker in _ready(workers):
                    given = worker.given
                    answer = worker.answer()
                    if answer is None:
                        workers[workers.index(worker)] = _Worker(self._context, work)
                        for attempt in given:
                            attempt.deaths += 1
                        waiting.extendleft(attempt for attempt in reversed(given) if not attempt.given_up)
                        yield from ((attempt.item, WorkerDiedError()) for attempt in given if attempt.given_up)
                        continue
                    results, seconds = answer
                    pace.saw(len(results), seconds)
                    waiting.extendleft(reversed(given[len(results) :]))
                    # The worker goes on before the results are told, which may take a while.
                    self._hand_out(waiting, workers, pace)
                    yield from ((attempt.item, result) for attempt, result in zip(given, results, strict=False))
        finally:
            # What they had to do is done, or not wanted any more.
            for worker in workers:
                worker.end()

    def add(self, items: Sequence[Item]) -> None:
        """Put items before those that wait, while results are being taken."""
        self._waiting.extendleft(_Attempt(item) for item in reversed(items))

    def _hand_out(self, waiting: deque[_Attempt[Item]], workers: Sequence[_Worker[Item, Result]], pace: _Pace) -> None:
        for worker in workers:
            if not worker.busy and (some := self._next(waiting, workers, pace)):
                worker.give(some)

    def _next(
        self, waiting: deque[_Attempt[Item]], workers: Sequence[_Worker[Item, Result]], pace: _Pace
    ) -> list[_Attempt[Item]]:
        """Take what the next worker gets from those that wait: nothing where it has to wait for others."""
        at_work = [attempt for worker in workers for attempt in worker.given]
        if not waiting or any(attempt.alone for attempt in at_work) or (waiting[0].alone and at_work):
            return []
        some: list[_Attempt[Item]] = []
        while waiting and len(some) < pace.together and self._fits(waiting[0], workers, at_work):
            if some and (some[0].alone or waiting[0].alone):
                break
            some.append(waiting.popleft())
        return some

    def _fits(
        self,
        attempt: _Attempt[Item],
        workers: Sequence[_Worker[Item, Result]],
        at_work: Collection[_Attempt[Item]],
    ) -> bool:
        """Whether the memory suffices for this one beside the largest of each worker."""
        if self._needs is None or self._memory_bytes is None:
            return True
        if attempt.bytes is None:
            attempt.bytes = self._needs(attempt.item)
        used = sum(max(item.bytes or 0 for item in worker.given) for worker in workers if worker.busy)
        fits = not at_work or used + attempt.bytes <= self._memory_bytes
        self.waited |= not fits
        return fits


class _Worker(Generic[Item, Result]):
    """One process, and the tasks that it was given and has not answered for."""

    def __init__(self, context: SpawnContext, work: Callable[[Item], Result]):
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, work))
        self.given: list[_Attempt[Item]] = []
        with single_threaded_children():
            self.process.start()
        # Held by the process alone, so that its end is seen here.
        other.close()

    @property
    def busy(self) -> bool:
        return bool(self.given)

    def give(self, some: list[_Attempt[Item]]) -> None:
        self.given = some
        with contextlib.suppress(ConnectionError):  # it has died meanwhile, which its answer tells
            self.pipe.send([attempt.item for attempt in some])

    def answer(self) -> tuple[list[Result], float] | None:
        """Return what the tasks gave and how long they took; None if the process has died. What the work raised is raised here."""
        self.given = []
        try:
            # A process that ended after it had answered is no loss.
            answer = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, ConnectionError):
            answer = None
        if answer is None:
            self.end()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _ready(workers: Sequence[_Worker[Item, Result]]) -> list[_Worker[Item, Result]]:
    """Return the workers that have answered or died, after a while also none."""
    ends = [end for worker in workers for end in (worker.pipe, worker.process.sentinel)]
    seen = connection.wait(ends, _POLL_SECONDS)
    return [worker for worker in workers if worker.pipe in seen or worker.process.sentinel in seen]


def _serve(pipe: connection.Connection, work: Callable[[Item], Result]) -> None:
    """Work through what comes, until the driver is gone."""
    _start_worker()
    while True:
        try:
            items = pipe.recv()
        except EOFError:
            return
        answer: object
        try:
            answer = _work_through(work, items)
        except BaseException as error:  # the driver decides what it means
            answer = error
        pipe.send(answer)


def _start_worker() -> None:
    """Leave interruptions to the driver, and end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


class DaskPool(Generic[Item, Result]):
    """The workers of an existing Dask cluster; ``client`` is a ``distributed.Client``."""

    def __init__(self, client: Any):
        self.client = client
        self._waiting: deque[_Attempt[Item]] = deque()

    @classmethod
    def connect(cls, address: str) -> DaskPool[Item, Result]:
        """Connect to a scheduler.

        Raises
        ------
        InputError
            If there is no scheduler at the address.
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
        """Yield every item with what the work returned, in the order in which they end; ``add`` may be called meanwhile."""
        from distributed import KilledWorker, as_completed

        waiting = self._waiting = deque(_Attempt(item) for item in items)
        flying: dict[Any, list[_Attempt[Item]]] = {}
        running = as_completed(loop=self.client.loop, with_results=True, raise_errors=False)
        pace, window = _Pace(), _Window(self.client)

        def submit() -> None:
            while waiting and len(flying) < window.size():
                some = [waiting.popleft()]
                while waiting and len(some) < pace.together and not some[0].deaths and not waiting[0].deaths:
                    some.append(waiting.popleft())
                future = self.client.submit(_work_through, work, [attempt.item for attempt in some], pure=False)
                flying[future] = some
                running.add(future)

        try:
            submit()
            while flying:
                future, answer = next(running)
                given = flying.pop(future)
                if future.status == "finished":
                    results, seconds = answer
                    future.release()
                    pace.saw(len(results), seconds)
                    waiting.extendleft(reversed(given[len(results) :]))
                    submit()
                    yield from ((attempt.item, result) for attempt, result in zip(given, results, strict=False))
                    submit()
                    continue
                error = answer[1] if isinstance(answer, tuple) else answer
                if future.status != "error":
                    raise ImmunoRadiomicsError(
                        "The Dask cluster has dropped the work, most often because its scheduler has ended. "
                        "Go on with --resume when there is one again."
                    ) from error
                if not isinstance(error, KilledWorker):
                    raise error
                # The scheduler has tried it on several workers by now; other patients may have brought those down.
                for attempt in given:
                    attempt.deaths += 1
                waiting.extendleft(attempt for attempt in reversed(given) if attempt.deaths < DEATHS)
                submit()
                yield from ((attempt.item, WorkerDiedError()) for attempt in given if attempt.deaths >= DEATHS)
        finally:
            if flying:
                self.client.cancel(list(flying), force=True)

    def add(self, items: Sequence[Item]) -> None:
        """Put items before those that wait, while results are being taken."""
        self._waiting.extendleft(_Attempt(item) for item in reversed(items))


class _Window:
    """How many tasks the scheduler of a cluster is given at once; workers may come and go."""

    def __init__(self, client: Any):
        self._client = client
        self._size, self._counted = 0, -_COUNT_WORKERS_SECONDS

    def size(self) -> int:
        if time.monotonic() - self._counted >= _COUNT_WORKERS_SECONDS:
            self._size = max(_LEAST_AT_SCHEDULER, _AHEAD * sum(self._client.nthreads().values()))
            self._counted = time.monotonic()
        return self._size
