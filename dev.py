"""Set up, run and test a checkout with nothing but Python's standard library.

``python3 dev.py demo``   installs everything into ``.venv`` and analyses a simulated patient
``python3 dev.py test``   installs everything into ``.venv`` and runs the tests
``python3 dev.py setup``  only installs
``python3 dev.py lint``   runs the linters and the type checker

Further arguments go to the command itself: ``python3 dev.py test -k recist``.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
SCRIPTS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")

EXTRAS = {"demo": "scene", "test": "test", "setup": "test", "lint": "test"}
MINIMUM_PYTHON = (3, 10)


def run(*arguments: str | Path) -> int:
    """Run a command in the checkout and return its exit code."""
    return subprocess.call([str(argument) for argument in arguments], cwd=ROOT)


def installed_stamp(extra: str) -> Path:
    """Return the file that says this extra of this pyproject.toml is installed, so that a second run starts at once."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()[:16]
    return ENVIRONMENT / f"installed-{extra}-{digest}"


def install(extra: str) -> None:
    """Make ``.venv`` if it is missing and install the project with one of its extras, editable."""
    if not PYTHON.exists():
        print(f"Making {ENVIRONMENT.name} ...", flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
    stamps = [installed_stamp(extra), installed_stamp("test")]  # "test" contains every other extra
    if any(stamp.exists() for stamp in stamps):
        return
    print(f"Installing immunoradiomics[{extra}] (the first time takes a few minutes) ...", flush=True)
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    code = run(*pip, "--editable", f".[{extra}]")
    if code:
        raise SystemExit(
            "The installation failed; pip's message is above. pyradiomics is compiled here, which needs a C compiler "
            "(Debian and Ubuntu: apt-get install gcc python3-dev)."
        )
    installed_stamp(extra).touch()


def main(arguments: list[str]) -> int:
    """Dispatch one command."""
    if sys.version_info < MINIMUM_PYTHON:
        raise SystemExit(f"Python 3.10 or later is needed; this is {sys.version.split()[0]}.")
    if not arguments or arguments[0] not in EXTRAS:
        print(__doc__)
        return 0 if arguments and arguments[0] in {"-h", "--help"} else 2
    command, further = arguments[0], arguments[1:]
    install(EXTRAS[command])
    if command == "demo":
        return run(SCRIPTS / "immunoradiomics", "demo", *further)
    if command == "test":
        return run(PYTHON, "-m", "pytest", *further)
    if command == "lint":
        checks = (
            (PYTHON, "-m", "ruff", "check", "."),
            (PYTHON, "-m", "ruff", "format", "--check", "."),
            (PYTHON, "-m", "mypy"),
        )
        return max([run(*check) for check in checks])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(3)
