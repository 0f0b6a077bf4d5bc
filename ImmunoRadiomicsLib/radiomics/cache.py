"""Results kept by content: the name of a file is the hash of everything that its content depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

_Kept = tuple[str | None, dict[str, float | None]]


# A region of a thousand features takes 50 KiB, a patient of twenty regions 1 MiB.
LIMIT_BYTES = 1 << 30
# What a run that was killed left half-written; no write takes an hour.
_STALE_SECONDS = 3600.0


class Cache:
    """A folder of JSON files, safe to share between runs; without a folder it keeps nothing.

    A file appears whole or not at all, and one that cannot be read, or is not as it was written under its name, counts as absent. A folder that cannot be written to is
    read only: a result that cannot be kept is no reason to lose it.
    """

    def __init__(self, folder: Path | None, limit_bytes: int = LIMIT_BYTES):
        self._folder = folder
        self._limit_bytes = limit_bytes

    def read(self, key: str) -> _Kept | None:
        """Return (reason, values) as they were written, or None."""
        if self._folder is None:
            return None
        path = _path(self._folder, key)
        try:
            text = path.read_text(encoding="ascii")
            content = json.loads(text)
            reason, values = content["reason"], content["values"]
            if text != _text(key, reason, values):
                return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # what is used stays longest
        return reason, values

    def write(self, key: str, reason: str | None, values: dict[str, float | None]) -> None:
        """Keep a result; floats are written so that they are read back the same to the last bit."""
        if self._folder is None:
            return
        path = _path(self._folder, key)
        text = _text(key, reason, values)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        except OSError:
            return
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
            os.replace(name, path)
        except OSError:  # a full disk, or another run that prunes
            _remove(Path(name))
        except BaseException:
            _remove(Path(name))
            raise

    def prune(self) -> None:
        """Delete what was used longest ago until the folder is below its limit, and what killed runs left behind."""
        if self._folder is None:
            return
        entries = []
        for path in self._folder.glob("??/*.json"):
            with contextlib.suppress(OSError):
                found = path.stat()
                entries.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._limit_bytes:
                break
            _remove(path)
            total -= size
        for path in self._folder.glob("??/.*.part"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    _remove(path)


def _text(key: str, reason: str | None, values: dict[str, float | None]) -> str:
    """Return the content of a file, with a hash that tells a wrong figure or the result of another key."""
    content = json.dumps({"reason": reason, "values": values}, allow_nan=False)
    digest = hashlib.sha256(f"{key} {content}".encode()).hexdigest()
    return f'{content[:-1]}, "sha256": "{digest}"}}'


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"
