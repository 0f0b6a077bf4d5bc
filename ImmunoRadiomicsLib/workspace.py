"""Where a run keeps what it has finished, and how a result appears all at once.

Beside the output folder ``OUT`` a run keeps a hidden folder ``.OUT.partial``: finished steps under the hash of what they were made
from, and the result being put together. Only a complete result is renamed to ``OUT``. A run that was killed leaves the hidden
folder; the next run takes from it what is still valid and puts the result together afresh. Where a folder for finished steps is
given, they are kept there instead, for as long as whoever gave it wants.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from .errors import BusyError, InputError
from .files import sha256_of, write_text
from .resources import PACKAGE

RESULT_FILE = "analysis.json"
STAGE_FILE = "stage.json"
PROVENANCE_FILE = "provenance.json"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
_OWN_FILES = (RESULT_FILE, STAGE_FILE, PROVENANCE_FILE)


def fingerprint(*parts: Any) -> str:
    """Return a hash of plain values (strings, numbers, lists, dicts) that names what was made from them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Return a hash of the engine's own code: a finished step is not reused by code that would compute it otherwise."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Workspace:
    """The hidden folder of one run; a context manager that holds a lock on it.

    Raises
    ------
    InputError
        If the output folder cannot be written, or holds something that is no earlier result.
    BusyError
        If another run is writing to it.
    """

    def __init__(self, out: Path, cache: Path | None = None):
        self._kept = None if cache is None else Path(os.path.realpath(cache))
        self.out = Path(os.path.realpath(out))
        if not self.out.name:
            raise InputError(f"{out}: this is the root of the file system. Give a folder for the output.")
        self.folder = self.out.with_name(f".{self.out.name}.partial")
        self._lock: TextIO | None = None
        self._check_out()

    @property
    def result(self) -> Path:
        """The folder in which the result is put together."""
        return self.folder / "result"

    @property
    def cache(self) -> Path:
        """The folder of finished steps."""
        return self._kept or self.folder / "cache"

    @property
    def _previous(self) -> Path:
        """Where the earlier result is while the new one takes its place."""
        return self.folder / "previous"

    def _check_out(self) -> None:
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise InputError(f"{self.out}: this is a file. Give a folder for the output.")
        if any(self.out.iterdir()) and not any((self.out / name).exists() for name in _OWN_FILES):
            raise InputError(f"{self.out}: the folder holds other files. Give a new or empty folder for the output.")

    def check_inputs(self, paths: Iterable[Path]) -> None:
        """Refuse to replace a folder that holds the inputs: an earlier result makes way for the new one.

        Raises
        ------
        InputError
            If one of the paths lies in the output folder.
        """
        inside = sorted({str(path) for path in paths if Path(os.path.realpath(path)).is_relative_to(self.out)})
        if self._kept is not None and self._kept.is_relative_to(self.out):
            inside.append(str(self._kept))
        if inside:
            raise InputError(
                f"{self.out}: this folder is replaced by the result, and it holds {', '.join(inside)}. Choose another folder."
            )

    def __enter__(self) -> Workspace:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.cache.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise InputError(f"{self.out}: the folder cannot be written ({error.strerror}). Choose another.") from error
        if not lock(self._lock):
            self._lock.close()
            raise BusyError(
                f"{self.out}: another run is writing to this folder. Wait for it, or choose another folder."
            )
        if self._previous.exists() and not self.out.exists():
            os.replace(self._previous, self.out)  # a run was killed between the two renames of publish
        shutil.rmtree(self.result, ignore_errors=True)
        self.result.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        # What is finished is kept for the next run, unless the result is out or its input was refused.
        if not self.result.exists() or (kind is not None and issubclass(kind, InputError)):
            shutil.rmtree(self.folder, ignore_errors=True)

    def step(self, name: str, key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """Return the folder of a finished step and whether it was there already; ``make`` fills a new one.

        The folder takes its final name only when ``make`` has returned, so that a killed run leaves no half step.
        """
        folder = self.cache / f"{name}-{key[:32]}"
        if folder.is_dir():
            return folder, True
        unfinished = self.folder / f"unfinished-{name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        _take_name(unfinished, folder)
        return folder, False

    def holds(self, run_sha256: str) -> bool:
        """Say whether the output folder has the untouched result of this very run already."""
        try:
            record = json.loads((self.out / PROVENANCE_FILE).read_text(encoding="utf-8"))
            files = record["files_sha256"]
            same = record["run_sha256"] == run_sha256 and files == self.files_sha256(self.out)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return bool(same and files)

    @staticmethod
    def files_sha256(folder: Path) -> dict[str, str]:
        """Return the hash of every file of a result, by its path there; provenance.json, which holds them, is left out."""
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / PROVENANCE_FILE)
        return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}

    def publish(self) -> None:
        """Rename the complete result to the output folder, in place of an earlier result."""
        shutil.rmtree(self._previous, ignore_errors=True)
        if self.out.exists():
            os.replace(self.out, self._previous)
        try:
            os.replace(self.result, self.out)
        except OSError:
            if self._previous.exists():
                os.replace(self._previous, self.out)
            raise


def _take_name(unfinished: Path, folder: Path) -> None:
    """Rename a finished step, also onto another disk; where another run has finished the same step meanwhile, that one stays."""
    try:
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():
            beside = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
            shutil.copytree(unfinished, beside, dirs_exist_ok=True)
            try:
                os.replace(beside, folder)
            except OSError:
                shutil.rmtree(beside, ignore_errors=True)
                if not folder.is_dir():
                    raise
        shutil.rmtree(unfinished, ignore_errors=True)


def lock(stream: TextIO) -> bool:
    """Lock an open file until it is closed or the process ends; return False if another process holds it.

    On a file system that has no locks nobody can be told apart, and all are let in.
    """
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def write_json(path: Path, data: Any) -> None:
    """Write JSON that is either whole or absent; not-a-number is refused rather than written."""
    write_text(path, json.dumps(data, allow_nan=False, ensure_ascii=False, indent=1) + "\n")
