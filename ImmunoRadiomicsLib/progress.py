"""How long work tells where it is, and how it is asked to stop.

A progress is any callable ``progress(fraction, message)`` with a fraction from 0 to 1. It may raise
``CancelledError`` to stop the work; stages therefore call it often and hold nothing half-written while they do.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]


def silent(fraction: float, message: str) -> None:
    """Report nothing: the default of every stage."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """Return a progress for a sub-task that fills the range from ``start`` to ``end`` of the whole.

    >>> seen = []
    >>> part(lambda fraction, message: seen.append(fraction), 0.5, 1.0)(0.5, "half of the second half")
    >>> seen
    [0.75]
    """

    def report(fraction: float, message: str) -> None:
        progress(start + (end - start) * min(max(fraction, 0.0), 1.0), message)

    return report
