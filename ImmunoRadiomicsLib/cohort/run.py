"""Run a cohort: every patient once, whatever happens to workers, driver or single patients; then the tables."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ..errors import BusyError, InputError, MissingDependencyError
from ..files import write_text
from ..order import Settings
from ..progress import Progress, silent
from ..workspace import code_fingerprint, lock
from .harmonised import HARMONISED_FILE, Batch, check_batch, harmonise_features
from .kept import is_kept, key_of, settings_key
from .listing import Cohort, read_cohort
from .memory import available_bytes, needed_bytes
from .page import write_page
from .pool import DaskPool, LocalPool, WorkerDiedError
from .printed import PRINTED_FILE, write_printed
from .stability import PERTURBED_FILE, STABILITY_FILE, write_stability
from .summary import SUMMARY_FILE, TRAINING_FILE
from .tables import PARQUET_FILE, check_columns, write_parquet, write_tables
from .view import view_of
from .work import FAILURE_FILE, RESULT, Outcome, Task, lost_dates, run_patient

_LOCK_FILE = ".cohort.lock"
_DIED = "The process of this patient ended without a word several times, most often because the memory was not enough."
# What ends the work for every patient, and not for one.
_NO_USE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)


@dataclass(frozen=True)
class CohortResult:
    """How a cohort ended: each patient in the order of the list, and notes on scans that were left out and on what could not be written."""

    folder: Path
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The patients that could not be analysed."""
        return tuple(item for item in self.outcomes if item.status == "failed")


def run(
    cohort: Cohort | Path | str,
    out: Path | str,
    *,
    settings: Settings | None = None,
    jobs: int = 1,
    client: Any = None,
    resume: bool = False,
    perturbations: int = 0,
    harmonise: Batch | None = None,
    progress: Progress = silent,
) -> CohortResult:
    """Analyse every patient of a cohort and write the tables of all.

    A patient's result is kept under the hash of everything that it depends on, its finished steps too: a run that is taken up again
    computes only what is missing, and one with another preset only the features.

    Parameters
    ----------
    cohort
        The list, or the path of its CSV table.
    out
        A new or empty folder, or with ``resume`` that of an earlier run.
    settings
        As of ``analyze``; ``jobs`` there has no effect.
    jobs
        Processes on this machine: one for each patient, and those that are left over for the extraction of the patients.
    client
        A ``distributed.Client``: its workers do the work instead. They have to see ``out`` and the images under the same paths.
    perturbations
        Read the features of every lesion of the baseline in that many perturbed contours too, and write stability.csv: the
        intraclass correlation of every feature.
    harmonise
        Write features_harmonised.csv too, in which ComBat has taken out the mark of the `centre` (a column of the list) or the `scanner`
        (a column of the list, or else what the images tell).
    progress
        Told of every patient that has ended; may raise ``CancelledError``.

    Raises
    ------
    InputError
        If the list or the folder is wrong; nothing is written then.
    BusyError
        If another run is writing to the folder.
    OSError
        If the disk is full or may not be written; what was finished is kept.
    """
    cohort = cohort if isinstance(cohort, Cohort) else read_cohort(Path(cohort))
    settings = replace(settings or Settings(), jobs=1)
    out = Path(os.path.realpath(out))
    tasks = _tasks(cohort, out, settings, perturbations, remote=client is not None)
    check_columns(cohort)
    if harmonise is not None:
        check_batch(cohort, harmonise)
    with _Held(out, resume):
        outcomes = {task.patient.patient: Outcome(task.patient.patient, "done") for task in tasks if _is_done(task)}
        open_tasks = [task for task in tasks if task.patient.patient not in outcomes]
        taken_over = len(outcomes)
        progress(taken_over / len(tasks), f"cohort: {taken_over} of {len(tasks)} patients are there already")
        pool: LocalPool[Task, Outcome] | DaskPool[Task, Outcome]
        if client is None:
            # With fewer patients than processes, those left over share the extraction of the patients.
            shared = replace(settings, jobs=max(1, jobs // max(1, len(open_tasks))))
            open_tasks = [replace(task, settings=shared, divisible=jobs > 1) for task in open_tasks]
            pool = LocalPool(jobs, _memory_of if jobs > 1 else None, available_bytes())
        else:
            open_tasks = [replace(task, divisible=True) for task in open_tasks]
            pool = DaskPool(client)
        tally = _Tally(len(tasks), taken_over)
        for outcome in _outcomes(pool, open_tasks):
            outcomes[outcome.patient] = outcome
            progress(0.98 * len(outcomes) / len(tasks), f"cohort: {tally.line(outcome)}")
        notes = []
        if isinstance(pool, LocalPool) and pool.waited:
            notes.append(f"The memory did not suffice for {jobs} of the largest patients at once: some had to wait.")
        progress(0.98, "tables: joining the patients")
        finished = write_tables(cohort, outcomes, out)
        for item in finished:
            if item.patient.source.is_dir():
                notes += [f"{item.patient.patient}: {lost}" for lost in lost_dates(item.folder)]
        # What an earlier run wrote by options that this one lacks is of that run's patients.
        for name in (PARQUET_FILE, STABILITY_FILE, HARMONISED_FILE, PRINTED_FILE):
            (out / name).unlink(missing_ok=True)
        try:
            write_parquet(out / "features.csv", out / PARQUET_FILE)
        except ImportError:
            notes.append(
                "features.parquet was not written: pip install 'immunoradiomics[cohort]' brings what it needs."
            )
        if perturbations:
            folders = {item.patient.patient: out / "patients" / item.patient.folder for item in finished}
            files = {name: path / PERTURBED_FILE for name, path in folders.items()}
            write_stability(files, out / STABILITY_FILE, readings=perturbations)
        harmonised = None
        if harmonise is not None:
            progress(0.99, f"tables: harmonising by {harmonise}")
            harmonised = harmonise_features(cohort, finished, harmonise, out / HARMONISED_FILE)
            notes += [f"Harmonised features of {part.name}: {part.note}" for part in harmonised.parts]
        view = view_of(cohort, outcomes, finished, harmonised)
        write_page(view, out / "cohort.html")
        try:
            write_printed(view, out / PRINTED_FILE, page=settings.paper)
        except MissingDependencyError as error:
            notes.append(f"cohort.pdf was not written: {error}")
    progress(1.0, "done")
    return CohortResult(out, tuple(outcomes[patient.patient] for patient in cohort.patients), tuple(notes))


def _tasks(cohort: Cohort, out: Path, settings: Settings, perturbations: int, *, remote: bool = False) -> list[Task]:
    code, shared = code_fingerprint(), settings_key(settings, perturbations)
    return [
        Task(
            patient,
            out / "patients" / patient.folder,
            settings,
            perturbations,
            key_of(patient, shared),
            # Processes here run what the driver runs; those elsewhere may have another version installed.
            code if remote else "",
        )
        for patient in cohort.patients
    ]


def _is_done(task: Task) -> bool:
    """Whether a patient's result is there for the same inputs and settings."""
    files = (task.folder / RESULT / "provenance.json", task.folder / SUMMARY_FILE, task.folder / TRAINING_FILE)
    return is_kept(task.folder, task.patient.source, task.key) and all(path.is_file() for path in files)


def _memory_of(task: Task) -> int:
    return needed_bytes(task.patient)


def _outcomes(pool: LocalPool[Task, Outcome] | DaskPool[Task, Outcome], tasks: list[Task]) -> Iterator[Outcome]:
    """Yield how each patient ended; a large one is done in parts first, which other workers may do at the same time."""
    parts: dict[str, int] = {}
    for task, answer in pool.results(run_patient, tasks):
        name = task.patient.patient
        if isinstance(answer, WorkerDiedError):
            task.folder.mkdir(parents=True, exist_ok=True)
            write_text(task.folder / FAILURE_FILE, f"worker: {_DIED}\n")
            result = Outcome(name, "failed", "worker", _DIED)
        else:
            result = answer
        if result.errno in _NO_USE:
            raise OSError(result.errno, os.strerror(result.errno), str(task.folder))
        if not task.followup:
            parts[name] = len(result.followups)
        elif parts[name]:
            parts[name] -= 1
        else:
            continue  # another part has failed before, and the patient with it
        if result.status != "open":
            parts[name] = 0
            yield result
        elif result.followups:
            pool.add([replace(task, divisible=False, followup=followup) for followup in result.followups])
        elif not parts[name]:
            pool.add([replace(task, divisible=False, followup="")])


class _Tally:
    """How far a run is: done, failed, left, and how many patients end in an hour."""

    def __init__(self, total: int, taken_over: int):
        self._total, self._done, self._failed = total, taken_over, 0
        self._ended, self._started = 0, time.monotonic()

    def line(self, outcome: Outcome) -> str:
        """Count a patient that has ended, and say how it and the cohort are."""
        self._ended += 1
        if outcome.status == "done":
            self._done += 1
            what = f"done in {outcome.seconds:.0f} s"
        else:
            self._failed += 1
            what = f"failed at {outcome.stage}: {outcome.reason}"
        left = self._total - self._done - self._failed
        rate = 3600 * self._ended / max(time.monotonic() - self._started, 1e-3)
        return (
            f"{outcome.patient} {what} | {self._done} done, {self._failed} failed, {left} left, {rate:.0f} patients/h"
        )


class _Held:
    """The output folder while a run writes to it."""

    def __init__(self, out: Path, resume: bool):
        self.out, self.resume = out, resume
        self._stream: TextIO | None = None

    def __enter__(self) -> _Held:
        mark = self.out / _LOCK_FILE
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: this is a file. Give a folder for the output.")
        if self.out.is_dir() and any(self.out.iterdir()):
            if not mark.exists():
                raise InputError(
                    f"{self.out}: the folder holds other files. Give a new or empty folder for the output."
                )
            if not self.resume:
                raise InputError(
                    f"{self.out}: the folder holds a run of a cohort. Add --resume to go on with it, or choose another folder."
                )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._stream = mark.open("w")
        except OSError as error:
            raise InputError(f"{self.out}: the folder cannot be written ({error.strerror}). Choose another.") from error
        if not lock(self._stream):
            self._stream.close()
            raise BusyError(
                f"{self.out}: another run is writing to this folder. Wait for it, or choose another folder."
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
