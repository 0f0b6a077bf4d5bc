"""How progress is shown in a terminal, in a log and to a program."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TextIO

from .errors import InputError
from .progress import Progress, silent

MODES = ("auto", "json", "off")
_BAR_CHARACTERS = 24
_REDRAW_SECONDS = 0.1


def display(mode: str, stream: TextIO | None = None, *, lines: bool = False) -> Progress:
    """Return the progress for a mode; everything goes to stderr.

    `auto` draws a bar in a terminal and writes a line per stage elsewhere, `json` writes a JSON object per line (`fraction`, `stage`,
    `message`), `off` shows nothing. With ``lines`` every message is a line of its own in `auto`, with the time that is left.
    """
    stream = stream or sys.stderr
    if mode == "off":
        return silent
    if mode == "json":
        return _JsonLines(stream)
    if mode != "auto":
        raise InputError(f"--progress {mode}: choose one of {', '.join(MODES)}.")
    if lines:
        return _Lines(stream)
    return _Bar(stream) if stream.isatty() else _StageLines(stream)


def _split(message: str) -> tuple[str, str]:
    stage, separator, rest = message.partition(": ")
    return (stage, rest) if separator else ("", message)


class _JsonLines:
    """One JSON object per line, for the panel and other programs."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __call__(self, fraction: float, message: str) -> None:
        stage, rest = _split(message)
        print(
            json.dumps({"fraction": round(fraction, 4), "stage": stage, "message": rest}), file=self.stream, flush=True
        )


class _StageLines:
    """One line when a stage starts, for logs."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.stage = ""

    def __call__(self, fraction: float, message: str) -> None:
        stage = _split(message)[0] or message
        if stage != self.stage:
            self.stage = stage
            print(f"[{fraction:4.0%}] {stage}", file=self.stream, flush=True)


class _Lines:
    """Every message on a line of its own, with the time that has passed and what is left at this rate."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.started = time.monotonic()
        self.first = -1.0

    def __call__(self, fraction: float, message: str) -> None:
        passed = time.monotonic() - self.started
        if self.first < 0:
            self.first = fraction  # what was there already says nothing about the rate
        left = ""
        if self.first < fraction < 1:
            left = f", about {_clock((1 - fraction) / (fraction - self.first) * passed)} left"
        print(f"[{fraction:4.0%}, {_clock(passed)}{left}] {message}", file=self.stream, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Bar:
    """One line that is drawn over, with the time that has passed."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.started = time.monotonic()
        self.drawn = 0.0

    def __call__(self, fraction: float, message: str) -> None:
        now = time.monotonic()
        if now - self.drawn < _REDRAW_SECONDS and fraction < 1.0:
            return
        self.drawn = now
        full = round(fraction * _BAR_CHARACTERS)
        seconds = int(now - self.started)
        line = f"{'█' * full}{'░' * (_BAR_CHARACTERS - full)} {fraction:4.0%} {seconds // 60}:{seconds % 60:02d}  {message}"
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("\r\x1b[K" + line[:width] + ("\n" if fraction >= 1.0 else ""))
        self.stream.flush()
