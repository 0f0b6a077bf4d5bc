"""ImmunoRadiomics: follow lesions and lungs on CT under immunotherapy, and weigh what the change may mean.

The engine behind the 3D Slicer module of the same name; it needs neither Slicer nor Qt. ``analyze`` is the whole of it:

>>> from pathlib import Path
>>> from ImmunoRadiomicsLib import analyze
>>> result = analyze(Path("study.yaml"), Path("out"))  # doctest: +SKIP
>>> [(flag.flag, flag.probability, flag.reason) for flag in result.flags]  # doctest: +SKIP

Research use only.
"""

from __future__ import annotations

from typing import Any

SOURCE_VERSION = "0.1.0"

__all__ = ["SOURCE_VERSION", "analyze", "load_study", "save_study"]


def __getattr__(name: str) -> Any:
    """Import the engine when it is first asked for, so that importing the package costs nothing."""
    if name == "analyze":
        from .pipeline import analyze

        return analyze
    if name in ("load_study", "save_study"):
        from . import study

        return getattr(study, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
