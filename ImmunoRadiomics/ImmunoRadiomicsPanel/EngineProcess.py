"""The engine as a process of its own: started, read, and ended with everything that it has started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import slicer
from slicer.i18n import tr as _

from . import engineFolder

# Asked to stop, the engine writes what it has finished; after this it is killed. Together under two seconds.
_SECONDS_TO_STOP = 1.0
_SECONDS_TO_DIE = 0.7
_LOG_LINES_SHOWN = 25


class ProcessProtocol(Protocol):
    """A process with all its descendants."""

    def start(self, arguments: Sequence[str], logPath: Path, environment: Mapping[str, str]) -> None:
        """Start it; what it and its descendants say goes to a file."""

    def exitCode(self) -> int | None:
        """Return the exit code, None while it runs."""

    def isAlive(self) -> bool:
        """Say whether it or a descendant still runs."""

    def stop(self) -> None:
        """Ask it to stop."""

    def kill(self) -> None:
        """End it and its descendants."""


class TreeProcess:
    """A process in a group of its own.

    Neither threads nor pipes: Slicer's main thread holds the interpreter while it waits for events, so a reading thread would
    starve and a full pipe would stall the engine. A QProcess can neither lead a group nor end its descendants.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def start(self, arguments: Sequence[str], logPath: Path, environment: Mapping[str, str]) -> None:
        flags = 0
        if os.name == "nt":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        with logPath.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=str(logPath.parent),
                start_new_session=os.name != "nt",
                creationflags=flags,
            )

    def exitCode(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def isAlive(self) -> bool:
        if self._process is None:
            return False
        if self._process.poll() is None:
            return True
        return os.name != "nt" and self._signal(0)

    def stop(self) -> None:
        if os.name == "nt":
            self.kill()
        else:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        if self._process is None:
            return
        if os.name == "nt":
            command = [shutil.which("taskkill") or "taskkill", "/F", "/T", "/PID", str(self._process.pid)]
            subprocess.run(command, check=False, capture_output=True)  # noqa: S603
        else:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> bool:
        """Signal the whole group; return False where nobody is left."""
        if self._process is None:
            return False
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


@dataclass(frozen=True)
class EngineProgress:
    """Where the engine is: a fraction from 0 to 1, the stage, and what it does there."""

    fraction: float
    stage: str
    message: str


class EngineRun:
    """One run of a Python module in the engine's interpreter. It advances only when ``poll`` is called.

    >>> run = EngineRun(["-m", "ImmunoRadiomicsLib", "analyze", "study.yaml", "--out", "out"], folder)
    >>> while not run.poll():
    ...     time.sleep(0.1)
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        process: ProcessProtocol | None = None,
        onProgress: Callable[[EngineProgress], None] | None = None,
    ) -> None:
        """Start the run; ``folder`` is where its log goes."""
        self._log = folder / "engine.log"
        self._process = process or TreeProcess()
        self._onProgress = onProgress or (lambda progress: None)
        self._read = 0
        self._rest = b""
        self._lines: list[str] = []
        self._cancelled: float | None = None
        self._killed: float | None = None
        self.finished = False
        self._process.start([pythonExecutable(), *arguments], self._log, engineEnvironment())

    @property
    def cancelled(self) -> bool:
        """Whether the user has asked to stop."""
        return self._cancelled is not None

    @property
    def exitCode(self) -> int | None:
        """The exit code of the engine, None while it runs."""
        return self._process.exitCode()

    def poll(self) -> bool:
        """Take in what the engine has said, end it where it was asked to and did not; return True once all is over."""
        if self.finished:
            return True
        over = self._process.exitCode() is not None
        self._takeIn()
        if self._cancelled is not None and self._process.isAlive():
            now = time.monotonic()
            if self._killed is None and now - self._cancelled >= _SECONDS_TO_STOP:
                self._process.kill()
                self._killed = now
            # A descendant that is dead but not yet collected by the system still counts as one; nothing is left to end.
            over = over and self._killed is not None and now - self._killed >= _SECONDS_TO_DIE
        elif over and self._process.isAlive():
            self._process.kill()
        self.finished = over
        return over

    def wait(self, interval: float = 0.05) -> None:
        """Block until the engine has ended."""
        while not self.poll():
            time.sleep(interval)

    def cancel(self) -> None:
        """Ask the engine to stop; ``poll`` kills it if it does not."""
        if self._cancelled is None and not self.finished:
            self._cancelled = time.monotonic()
            self._process.stop()

    def kill(self) -> None:
        """End the engine and its descendants at once."""
        if self._cancelled is None:
            self._cancelled = time.monotonic()
        self._process.kill()

    def endOfLog(self) -> str:
        """Return the last lines that the engine has said, without its progress."""
        return "\n".join(self._lines[-_LOG_LINES_SHOWN:])

    def errors(self) -> list[str]:
        """Return the problems that the engine has named."""
        return [line[len("error: ") :] for line in self._lines if line.startswith("error: ")]

    def _takeIn(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        if self._process.exitCode() is not None and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        last = None
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            progress = _progress(text)
            if progress is not None:
                last = progress
            elif text:
                self._lines.append(text)
        if last is not None:
            self._onProgress(last)


def _progress(line: str) -> EngineProgress | None:
    if not line.startswith("{"):
        return None
    try:
        content = json.loads(line)
        return EngineProgress(float(content["fraction"]), str(content["stage"]), str(content["message"]))
    except (ValueError, KeyError, TypeError):
        return None


def pythonExecutable() -> str:
    """Return Slicer's Python for processes; outside the application, the running one.

    Slicer's launcher puts PythonSlicer on the path; it lies beside the application in ``<Slicer>/bin``. ``sys.executable`` is
    the application itself where that is older than 5.13, and must then never be started in its place.

    :raises RuntimeError: if there is none.
    """
    found = shutil.which("PythonSlicer")
    if found:
        return found
    suffix = ".exe" if os.name == "nt" else ""
    application = getattr(slicer, "app", None)
    homes = [Path(application.slicerHome)] if application is not None else []
    candidates = [home / "bin" / f"PythonSlicer{suffix}" for home in homes]
    candidates += [Path(sys.executable).with_name(f"PythonSlicer{suffix}"), Path(sys.executable)]
    candidates += [Path(sys.prefix) / "bin" / name for name in (f"PythonSlicer{suffix}", "python3")]
    for candidate in candidates:
        if "python" in candidate.name.lower() and candidate.is_file():
            return str(candidate)
    raise RuntimeError(_("PythonSlicer was not found. Install Slicer again."))


def engineEnvironment() -> dict[str, str]:
    """Return this process's environment, with the engine and the panel importable and texts in UTF-8."""
    environment = dict(os.environ)
    folders = [str(Path(__file__).resolve().parent.parent), str(engineFolder())]
    known = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    environment["PYTHONPATH"] = os.pathsep.join([*dict.fromkeys(folders), *known])
    environment["PYTHONIOENCODING"] = "utf-8"
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
