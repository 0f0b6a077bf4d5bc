"""A finished cohort as pandas tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingDependencyError
from .tables import PATIENT_COLUMNS

_TEXTS = ("patient", "lesion")


@dataclass(frozen=True)
class CohortTables:
    """The tables of a cohort, each read when it is first asked for; patients and lesions are texts whatever they look like."""

    folder: Path

    @cached_property
    def patients(self) -> Any:
        """One row per patient of the list: status, best responses, flags, and the columns of the list."""
        return self._read("patients")

    @cached_property
    def lesions(self) -> Any:
        """One row per lesion and time point."""
        return self._read("lesions")

    @cached_property
    def features(self) -> Any:
        """One row per feature (long form)."""
        return self._read("features")

    @cached_property
    def delta(self) -> Any:
        """One row per change of a feature (long form)."""
        return self._read("delta")

    @cached_property
    def response(self) -> Any:
        """One row per visit."""
        return self._read("response")

    @cached_property
    def best(self) -> Any:
        """One row per patient: best responses."""
        return self._read("best")

    @cached_property
    def flags(self) -> Any:
        """One row per patient and question."""
        return self._read("flags")

    @cached_property
    def quality(self) -> Any:
        """One row per time point: acquisition and alignment."""
        return self._read("quality")

    @cached_property
    def failures(self) -> Any:
        """One row per patient that could not be analysed."""
        return self._read("failures")

    @cached_property
    def training(self) -> Any:
        """One row per lesion: the table that models are trained on."""
        return self._read("training")

    @cached_property
    def stability(self) -> Any:
        """One row per feature: how far it holds still under perturbed contours; for runs with ``perturbations``."""
        return self._read("stability")

    @cached_property
    def features_harmonised(self) -> Any:
        """As ``features``, without the mark of centre or scanner; for runs with ``harmonise``."""
        return self._read("features_harmonised")

    def _read(self, name: str) -> Any:
        import pandas

        path = self.folder / f"{name}.csv"
        if not path.is_file():
            raise InputError(f"{path}: the run did not write this table. Repeat it with the option that does.")
        try:
            header = pandas.read_csv(path, nrows=0).columns
            texts = [name for name in _TEXTS if name in header]
            table = pandas.read_csv(path, dtype=dict.fromkeys(texts, str), low_memory=False)
            # A patient whose code is `NA` is not missing.
            named = pandas.read_csv(path, usecols=texts, dtype=str, keep_default_na=False, na_values=[""])
        except ValueError as error:
            raise InputError(
                f"{path}: the table is damaged ({type(error).__name__}). Run the cohort again with --resume, which writes it anew."
            ) from error
        for text in texts:
            table[text] = named[text]
        return table


def load_cohort(folder: Path | str) -> CohortTables:
    """Return the tables of a finished cohort.

    Raises
    ------
    InputError
        If the folder holds no finished cohort.
    MissingDependencyError
        If pandas is not installed.
    """
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "Tables of a cohort need pandas: pip install 'immunoradiomics[cohort]'."
        ) from error
    folder = Path(folder)
    path = folder / "patients.csv"
    if not path.is_file():
        raise InputError(f"{folder}: there is no patients.csv. Give the output folder of a finished cohort.")
    with path.open(encoding="utf-8", errors="replace") as stream:
        if not stream.readline().startswith(",".join(PATIENT_COLUMNS)):
            raise InputError(f"{path}: this is not the table of a cohort. Give the output folder of a finished cohort.")
    return CohortTables(folder)
