"""What was asked for: the choices about a run, and the name of all that its result depends on."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from . import SOURCE_VERSION, alignment, radiomics, response
from .classifiers.bundles import CARD_FILE
from .classifiers.flags import choose_bundles
from .errors import InputError
from .files import sha256_of
from .images import image_sha256
from .report.pdf_pages import PageSize
from .serialise import to_json
from .study import TIMEPOINT_FILES, Study, Timepoint, parse_study
from .workspace import Workspace, code_fingerprint, fingerprint


@dataclass(frozen=True)
class Settings:
    """What the user may choose about a run.

    ``preset`` and ``lung_preset`` name extraction presets (or give the path of a pyradiomics parameter file), ``engine`` the
    alignment engine, ``radiomics_engine`` what computes the features: `pyradiomics`, `own`, or `auto` for the first that is there.
    ``criteria`` are choices that the response criteria leave open, such as `sticky_pr=no`; one that is not known raises InputError.
    ``vessels`` traces the vessels around lesions in the lung too, which takes some seconds for each lesion and time point.
    ``narrow_ring`` reads features in the 2 mm around each lesion too.
    ``bundles`` are folders of bundles that take the place of the shipped ones. ``paper`` is the size of the pages of printed reports.
    """

    preset: str = "ct-lesion"
    lung_preset: str = "ct-lung"
    engine: str = "auto"
    jobs: int = 1
    seed: int = 0
    radiomics_engine: str = "auto"
    criteria: tuple[str, ...] = ()
    vessels: bool = False
    bundles: tuple[str, ...] = ()
    paper: PageSize = "A4"
    narrow_ring: bool = False

    def __post_init__(self) -> None:
        _ = self.protocol

    @property
    def protocol(self) -> response.ResponseSettings:
        """What the response criteria go by; a scan without any assessment is NE here."""
        standard = response.ResponseSettings(best=response.BestResponseSettings(missing_as_ne=True))
        return response.with_settings(standard, self.criteria)

    @property
    def record(self) -> dict[str, str | int | float | bool | None]:
        """The settings as provenance keeps them."""
        return {**to_json(self), "criteria": ", ".join(self.criteria), "bundles": ", ".join(self.bundles)}

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings that a result depends on: not how many processes share the work, nor files, which count by what they hold, wherever they lie."""
        elsewhere = ("jobs", "bundles", "preset", "lung_preset")
        return {key: value for key, value in to_json(self).items() if key not in elsewhere}

    @property
    def bundles_sha256(self) -> tuple[str, ...]:
        """What the given bundles hold: a card names its model files by their hashes."""
        return tuple(sha256_of(Path(item) / CARD_FILE) for item in self.bundles)


@dataclass(frozen=True)
class Order:
    """What was asked for, checked as far as that is possible without reading images.

    ``hashes`` are those of the input files, ``sha256`` names everything that the result depends on; both are empty where the study
    or a file of it cannot be read, which ``run`` then says.
    """

    source: Study | Path
    settings: Settings
    presets: tuple[radiomics.Preset, radiomics.Preset]
    workspace: Workspace
    hashes: dict[str, str]
    sha256: str

    @classmethod
    def of(cls, source: Study | Path, out: Path, settings: Settings | None, cache: Path | None, extent: str) -> Order:
        """Check what was asked for and hash its inputs; ``extent`` says how far the run goes. Raises InputError."""
        settings = settings or Settings()
        presets = radiomics.load_preset(settings.preset), radiomics.load_preset(settings.lung_preset)
        if settings.engine not in alignment.ENGINES or settings.engine == "user":
            known = ", ".join(name for name in alignment.ENGINES if name != "user")
            raise InputError(f"The alignment engine {settings.engine!r} is not known. Choose one of: {known}.")
        choose_bundles([Path(item) for item in settings.bundles])
        workspace = Workspace(out, cache)
        study, problems = parse_study(source) if isinstance(source, Path) else (source, [])
        if study is None or problems:
            return cls(source, settings, presets, workspace, {}, "")
        files = [path for item in study.timepoints for path in _files_of(item).values()]
        workspace.check_inputs([*files, source] if isinstance(source, Path) else files)
        try:
            hashes = _hashes_of_inputs(study)
        except (OSError, InputError):
            return cls(source, settings, presets, workspace, {}, "")
        told = [
            {key: value for key, value in vars(item).items() if key not in TIMEPOINT_FILES} for item in study.timepoints
        ]
        # The protocol says what the criteria come to, however they were given.
        chosen = {key: value for key, value in settings.chosen.items() if key != "criteria"}
        return cls(
            source,
            settings,
            presets,
            workspace,
            hashes,
            fingerprint(
                code_fingerprint(),
                software_packages(settings),
                extent,
                hashes,
                told,
                replace(study, timepoints=()),
                chosen,
                to_json(settings.protocol),
                [(item.name, item.sha256) for item in (*presets, *radiomics.presets_beside().values())],
                settings.bundles_sha256,
            ),
        )

    @property
    def is_done(self) -> bool:
        """Whether the output folder has this result already."""
        return bool(self.sha256) and self.workspace.holds(self.sha256)


def _files_of(timepoint: Timepoint) -> dict[str, Path]:
    """Return the files of a time point by what they are."""
    return {key: path for key in TIMEPOINT_FILES if (path := getattr(timepoint, key)) is not None}


def _hashes_of_inputs(study: Study) -> dict[str, str]:
    return {
        f"{item.name}.{key}": image_sha256(path) if key in ("ct", "segmentation", "pet", "mr") else sha256_of(path)
        for item in study.timepoints
        for key, path in _files_of(item).items()
    }


def software_version() -> str:
    """Return the version of the installed distribution, or of the source where it is not installed (inside Slicer)."""
    try:
        return version("immunoradiomics")
    except PackageNotFoundError:
        return SOURCE_VERSION


def software_packages(settings: Settings) -> dict[str, str]:
    """Return the versions of what computes the result, by name; what is not installed is left out."""
    packages = {"SimpleITK": sitk.Version.VersionString(), "numpy": np.__version__}
    packages |= radiomics.software_versions(settings.radiomics_engine)
    with contextlib.suppress(PackageNotFoundError):
        packages["slicer-core"] = version("slicer-core")
    return dict(sorted(packages.items()))
