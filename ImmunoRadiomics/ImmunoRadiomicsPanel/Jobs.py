"""Long work of the panel: steps on the interface's thread, work beside it, and processes, one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from .EngineProcess import EngineRun

# One turn may take this long; the interface answers between turns.
_SECONDS_PER_TURN = 0.03
# While another thread works, each turn lends it the interpreter this long: Slicer's event loop never does.
_SECONDS_LENT = 0.005

# What a job yields: None for a pause, a function that touches neither MRML nor widgets and is run in a thread, or a process.
Work = Generator[Callable[[], Any] | EngineRun | None, Any, None]


class CancelledWork(Exception):
    """The user has stopped the work."""


class Job:
    """A generator that is advanced by ``turn``, a little at a time. What it raises, ``turn`` raises.

    >>> job = Job(steps())
    >>> while not job.turn():
    ...     slicer.app.processEvents()
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._given: Any = None
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self.run: EngineRun | None = None
        self.cancelled = False
        self.finished = False

    @property
    def waits(self) -> bool:
        """Whether a process is what the job waits for, so that turns may be rare."""
        return self.run is not None

    def turn(self) -> bool:
        """Go on for a moment and return whether all is done.

        :raises CancelledWork: once everything that was started has ended after ``cancel``.
        """
        end = time.monotonic() + _SECONDS_PER_TURN
        while not self.finished and self._ready():
            if self.cancelled and self.run is None:
                self._close()
                raise CancelledWork
            self._advance()
            if time.monotonic() >= end:
                break
        return self.finished

    def cancel(self) -> None:
        """Ask the work to stop; later turns see to it."""
        self.cancelled = True
        if self.run is not None:
            self.run.cancel()

    def kill(self) -> None:
        """End everything at once."""
        self.cancelled = True
        if self.run is not None:
            self.run.kill()
        if self._thread is not None:
            self._thread.join()
        self._close()

    def _close(self) -> None:
        self.finished = True
        self._work.close()

    def _ready(self) -> bool:
        if self.run is not None:
            return self.run.poll()
        if self._thread is not None:
            self._thread.join(_SECONDS_LENT)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def _advance(self) -> None:
        if self.run is not None and self.run.cancelled:
            self.run = None
            return
        self.run = None
        error, given, self._error, self._given = self._error, self._given, None, None
        try:
            wanted = self._work.send(given) if error is None else self._work.throw(error)
        except StopIteration:
            self.finished = True
            return
        except BaseException:
            self.finished = True
            raise
        if isinstance(wanted, EngineRun):
            self.run = wanted
        elif wanted is not None:
            self._thread = threading.Thread(target=self._beside, args=(wanted,), daemon=True)
            self._thread.start()

    def _beside(self, work: Callable[[], Any]) -> None:
        try:
            self._given = work()
        except Exception as error:
            self._error = error


def doAll(work: Work) -> None:
    """Do all work at once, blocking; a process that runs is killed if this is interrupted."""
    job = Job(work)
    try:
        while not job.turn():
            time.sleep(_SECONDS_LENT)
    except BaseException:
        job.kill()
        raise
