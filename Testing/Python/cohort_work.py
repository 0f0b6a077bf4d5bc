"""Work for the pools of a cohort that a spawned process can import."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path


def square(number: int) -> int:
    return number * number


def square_unless_first(task: tuple[int, str]) -> int:
    """Kill the own process the first time that a task with a path is worked on."""
    number, path = task
    if path and not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def pid_unless_first(task: tuple[int, str]) -> int:
    square_unless_first(task)
    time.sleep(0.02)
    return os.getpid()


def nap(task: tuple[int, float]) -> int:
    time.sleep(task[1])
    return os.getpid()


def always_die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def hold(task: tuple[str, int]) -> int:
    """Take some time, and write from when to when."""
    folder, size = task
    started = time.time()
    time.sleep(0.2)
    (Path(folder) / secrets.token_hex(8)).write_text(f"{size} {started} {time.time()}")
    return size


def write_pid_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)
