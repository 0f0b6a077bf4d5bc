"""Fixtures that tests of several parts share."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

DATA_VARIABLE = "IMMUNORADIOMICS_PYRADIOMICS_DATA"
SOURCE = "pyradiomics==3.0.1"


@pytest.fixture(scope="session")
def pyradiomics_data(pytestconfig: pytest.Config) -> Path:
    """The folder of the images that pyradiomics ships with its source, fetched once and kept in pytest's cache."""
    if given := os.environ.get(DATA_VARIABLE):
        return Path(given)
    kept = Path(pytestconfig.cache.mkdir("pyradiomics-data"))
    if not (kept / "complete").exists():
        try:
            _fetch(kept)
        except (subprocess.SubprocessError, OSError, tarfile.TarError) as error:
            pytest.skip(f"the source of {SOURCE} cannot be had ({error}); name its data folder in {DATA_VARIABLE}")
    return kept


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        # pip wants to build the metadata of what it downloads, which this release only does where wheel is present.
        subprocess.run([*pip, "install", "--target", str(folder / "wheel"), "wheel"], check=True, timeout=120)
        subprocess.run(
            [*pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", name, SOURCE],
            check=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(folder / "wheel")},
        )
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            for member in archive:
                source = archive.extractfile(member) if member.name.endswith(".nrrd") else None
                if source is not None:
                    (target / Path(member.name).name).write_bytes(source.read())
    (target / "complete").touch()
