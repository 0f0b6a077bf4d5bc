"""The few exceptions of the project, each with the exit code that the terminal gives it."""

from __future__ import annotations

from collections.abc import Iterable


class ImmunoRadiomicsError(Exception):
    """Anything that the project itself says no to."""

    exit_code = 1


class InputError(ImmunoRadiomicsError):
    """The input is wrong: every problem found, each naming the file, the value and the remedy."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]):
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class BusyError(InputError):
    """Another run is writing to the same folder."""


class StageError(ImmunoRadiomicsError):
    """A stage could not do what was asked although its input is valid; the message says which and why."""

    exit_code = 1


class MissingDependencyError(StageError):
    """A package that this step needs is not installed; the message says how to install it."""


class CancelledError(ImmunoRadiomicsError):
    """The user asked to stop; what was finished is kept."""

    exit_code = 3
