"""What a worker does: one patient, from its source to its own result folder; failures are an answer, not an exception."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import SimpleITK as sitk

from ..dicom.clinical import ClinicalRow, clinical_row
from ..dicom.importing import import_folder
from ..dicom.rows import TABLE as SERIES_TABLE
from ..errors import BusyError, CancelledError, ImmunoRadiomicsError, InputError
from ..files import write_text
from ..order import Settings
from ..pipeline import analyze, run_stage
from ..radiomics import load_preset
from ..study import Study, load_study
from ..workspace import code_fingerprint, fingerprint
from .kept import KEPT_FILE, keep, stamps_of
from .listing import CohortPatient
from .memory import give_back, needed_bytes
from .stability import PERTURBED_FILE, write_perturbed
from .summary import write_summary

RESULT = "result"
# A patient that takes so much memory is handed out in parts, where it has several follow-ups: two full-size scans take 2.8 GiB.
LARGE_BYTES = 2 << 30
FAILURE_FILE = "failure.txt"
_IMPORTED = "imported"
_BUSY_SECONDS = 60.0
_BUSY_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """One patient, or a part of a large one, to analyse into ``folder``: its result, its imported images and its finished steps lie there.

    ``perturbations`` is how many other readers' contours each lesion is read in, for the stability of features. ``key`` is what the
    result is kept under (see ``kept.key_of``), and ``code`` the fingerprint of the engine that asks for it, if the worker has to compare.
    With ``divisible`` a large patient may come back with the parts that others can do (see ``Outcome``); ``followup`` is such a part:
    this time point only is aligned, and its finished steps are what it leaves.
    """

    patient: CohortPatient
    folder: Path
    settings: Settings
    perturbations: int = 0
    key: str = ""
    code: str = ""
    divisible: bool = False
    followup: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a patient ended. ``stage`` and ``reason`` say where and why it failed, ``errno`` what the system said.

    One that is ``open`` is a part that is finished, and names the ``followups`` that remain to be aligned before the patient as a whole.
    """

    patient: str
    status: Literal["done", "failed", "open"]
    stage: str = ""
    reason: str = ""
    seconds: float = 0.0
    errno: int = 0
    followups: tuple[str, ...] = ()


class _Stage:
    """A progress that remembers the stage that it was told of last."""

    def __init__(self) -> None:
        self.name = "read"

    def __call__(self, fraction: float, message: str) -> None:
        name, separator, _ = message.partition(": ")
        if separator:
            self.name = name


def run_patient(task: Task) -> Outcome:
    """Analyse one patient; a result that is there already for the same inputs and settings is left as it is.

    Images are filtered on one thread, so that the result does not depend on how many workers share a machine. A worker whose engine
    is another one than the driver's refuses: its results could differ.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    started = time.monotonic()
    stage = _Stage()
    reason, detail, number = "", "", 0
    try:
        if task.code and task.code != code_fingerprint():
            stage.name = "worker"
            raise InputError("This worker has another version of ImmunoRadiomics. Install the same one everywhere.")
        # From here on the folder may hold a result of other settings than the mark says.
        (task.folder / KEPT_FILE).unlink(missing_ok=True)
        stamps = stamps_of(task.patient.source)
        study = _study(task, stage)
        if task.followup:
            _align_ahead(study, task.followup, task, stage)
            return Outcome(task.patient.patient, "open", seconds=time.monotonic() - started)
        if task.divisible and len(followups := _followups(study)) > 1 and needed_bytes(task.patient) >= LARGE_BYTES:
            # The first one goes ahead of the others: each needs the anatomy of the baseline.
            _align_ahead(study, followups[0], task, stage)
            return Outcome(task.patient.patient, "open", seconds=time.monotonic() - started, followups=followups[1:])
        _when_free(
            lambda: analyze(study, task.folder / RESULT, settings=task.settings, progress=stage, cache=_steps(task))
        )
        write_summary(task.folder / RESULT, task.folder)
        if task.perturbations:
            stage.name = "stability"
            write_perturbed(
                study,
                task.folder / RESULT,
                task.folder / PERTURBED_FILE,
                preset=load_preset(task.settings.preset),
                readings=task.perturbations,
                seed=task.settings.seed,
                cache=_steps(task) / "radiomics",
            )
        (task.folder / FAILURE_FILE).unlink(missing_ok=True)
        keep(task.folder, task.key, stamps)
    except (CancelledError, KeyboardInterrupt):
        raise
    except InputError as error:
        reason = " ".join(error.problems)
    except ImmunoRadiomicsError as error:
        reason = str(error)
    except MemoryError:
        reason = "The memory is not enough. Run with fewer jobs."
    except Exception as error:  # a defect of ours must not end the work on the others
        if isinstance(error, OSError) and error.strerror is not None:
            reason, number = f"{error.filename or 'a file'}: {error.strerror}", error.errno or 0
        else:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            detail = traceback.format_exc()
    finally:
        give_back()
    seconds = time.monotonic() - started
    if not reason:
        return Outcome(task.patient.patient, "done", seconds=seconds)
    # An earlier result is of other inputs: it must not stand for this run.
    shutil.rmtree(task.folder / RESULT, ignore_errors=True)
    with contextlib.suppress(OSError):  # where nothing can be written the outcome tells it
        task.folder.mkdir(parents=True, exist_ok=True)
        write_text(task.folder / FAILURE_FILE, f"{stage.name}: {reason}\n{detail}")
    return Outcome(task.patient.patient, "failed", stage.name, reason, seconds, number)


def _steps(task: Task) -> Path:
    return task.folder / "steps"


def _followups(study: Study) -> tuple[str, ...]:
    return tuple(item.name for item in study.timepoints if item is not study.baseline)


def _align_ahead(study: Study, followup: str, task: Task, stage: _Stage) -> None:
    """Leave the steps of one alignment where the analysis of the patient will take them over."""
    pair = tuple(item for item in study.timepoints if item is study.baseline or item.name == followup)
    out = task.folder / "ahead" / followup
    part = replace(study, timepoints=pair)
    _when_free(lambda: run_stage(part, out, "align", settings=task.settings, progress=stage, cache=_steps(task)))
    shutil.rmtree(out)


def _when_free(work: Callable[[], object]) -> None:
    """Do what needs the patient's folder; a worker that was given up may still be letting go of it."""
    give_up = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            work()
            return
        except BusyError:
            if time.monotonic() > give_up:
                raise
            time.sleep(_BUSY_PAUSE_SECONDS)


def _study(task: Task, stage: _Stage) -> Study:
    """Load or import the study, under the name and with the clinical facts that the list gives."""
    source, lost = task.patient.source, []
    if source.is_dir():
        stage.name = "import"
        source = _imported(task, stage)
        lost = lost_dates(task.folder)
        stage.name = "read"
    try:
        study = replace(load_study(source), patient=task.patient.patient)
    except InputError as error:
        raise InputError([*error.problems, *lost]) from error
    row, problems = clinical_row({"patient": task.patient.patient, **task.patient.facts})
    if problems:
        raise InputError([f"row of {task.patient.patient}: {problem}" for problem in problems])
    return _with_facts(study, row)


def _imported(task: Task, stage: _Stage) -> Path:
    """Import the patient's DICOM folder and return the study.yaml; an import of the same files is taken over."""
    source, mark = task.patient.source, task.folder / "imported.txt"
    wanted = fingerprint(code_fingerprint(), stamps_of(source))
    try:
        key, found = mark.read_text(encoding="utf-8").splitlines()
        if key == wanted and (study := task.folder / found).is_file():
            return study
    except (OSError, ValueError):
        pass  # none yet, or one that was not finished
    mark.unlink(missing_ok=True)
    imported = import_folder(source, task.folder / _IMPORTED, progress=stage)
    if len(imported.patients) != 1:
        raise InputError(
            f"{source}: the folder holds {len(imported.patients)} patients. Give each its own folder and row."
        )
    study = imported.patients[0].study
    write_text(mark, f"{wanted}\n{os.path.relpath(study, task.folder)}\n")
    return study


def lost_dates(folder: Path) -> list[str]:
    """Say which dates of the DICOM folder that a patient was imported from have a CT and none that could be used: no time point was made of them."""
    used: set[str] = set()
    left_out: dict[str, list[str]] = {}
    table = folder / _IMPORTED / SERIES_TABLE
    if not table.exists():
        return []  # imported images were removed to save room
    with table.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["use"] == "ct":
                used.add(row["date"])
            elif row["modality"] == "CT":
                left_out.setdefault(row["date"], []).append(row["reason"])
    return [
        f"The CT of {date} was left out: {'; '.join(dict.fromkeys(reasons))}."
        for date, reasons in sorted(left_out.items())
        if date not in used
    ]


def _with_facts(study: Study, row: ClinicalRow) -> Study:
    """Put what the list says in the place of what study.yaml says."""
    clinical = {key: value for key, value in vars(row.clinical).items() if value is not None}
    treatment = {key: value for key, value in vars(row.treatment).items() if value not in (None, ())}
    return replace(
        study,
        tumour=row.tumour or study.tumour,
        clinical=replace(study.clinical, **clinical),
        treatment=replace(study.treatment, **treatment),
    )
