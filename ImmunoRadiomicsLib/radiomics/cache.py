"""Results kept by content: the name of a file is the hash of everything that its content depends on."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

_Kept = tuple[str | None, dict[str, float | None]]


class Cache:
    """A folder of JSON files, safe to share between runs; without a folder it keeps nothing.

    A file appears whole or not at all, and one that cannot be read counts as absent.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder

    def read(self, key: str) -> _Kept | None:
        """Return (reason, values) as they were written, or None."""
        if self._folder is None:
            return None
        try:
            content = json.loads(_path(self._folder, key).read_text(encoding="ascii"))
            reason, values = content["reason"], content["values"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (reason, values) if isinstance(reason, str | None) and isinstance(values, dict) else None

    def write(self, key: str, reason: str | None, values: dict[str, float | None]) -> None:
        """Keep a result; floats are written so that they are read back the same to the last bit."""
        if self._folder is None:
            return
        path = _path(self._folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump({"reason": reason, "values": values}, file, allow_nan=False)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"
