"""The command ``respond`` on tables that a test writes."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from ImmunoRadiomicsLib.response.table import add_arguments, run

HEADER = "patient,day,lesion,role,organ,node,long_mm,short_mm,status\n"


def command(*words: str | Path) -> int:
    """Run ``respond`` with these arguments and return its exit code."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


def write(folder: Path, text: str, name: str = "table.csv") -> Path:
    """Write a table and return its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, str]]:
    """Read a table, a dictionary a row."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
