"""Long work on a scene in steps, so that an interface can go on between them.

MRML may only be touched by the thread that shows it. Such work is a generator: between two of its steps the caller may do something
else; what needs no MRML is yielded as a function without arguments, which the caller may run in another thread, and whose result
(or exception) it hands back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
# Yields None where there is a good moment for other things, or a function that touches no MRML.
Steps = Generator[Callable[[], Any] | None, Any, Result]


def run_steps(steps: Steps[Result]) -> Result:
    """Do all steps at once, in this thread, and return their result."""
    try:
        wanted = next(steps)
        while True:
            try:
                given = None if wanted is None else wanted()
            except Exception as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(given)
    except StopIteration as end:
        return end.value
