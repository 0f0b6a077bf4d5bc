"""Where the shipped data files are: bundles, presets, recipes and schemas."""

from __future__ import annotations

from pathlib import Path

from .errors import StageError

PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Return the path of a file or folder under ``Resources``.

    A wheel carries ``Resources`` inside the package; a checkout and an installed Slicer extension have it beside the
    package.

    Raises
    ------
    StageError
        If the installation lacks it.
    """
    for root in (PACKAGE / "Resources", PACKAGE.parent / "Resources"):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise StageError(f"The installation is incomplete: Resources/{'/'.join(parts)} is missing. Install it again.")
