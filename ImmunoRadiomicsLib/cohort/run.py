"""Run a cohort: every patient once, whatever happens to workers, driver or single patients; then the tables."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from .. import radiomics
from ..errors import BusyError, InputError
from ..files import write_text
from ..pipeline import Settings
from ..progress import Progress, silent
from ..study import TIMEPOINT_FILES, parse_study
from ..workspace import code_fingerprint, fingerprint, lock
from .listing import Cohort, read_cohort
from .memory import available_bytes, jobs_that_fit
from .page import write_page
from .pool import DaskPool, LocalPool, WorkerDiedError
from .stability import PERTURBED_FILE, write_stability
from .tables import write_parquet, write_tables
from .work import FAILURE_FILE, RESULT, Outcome, Task, run_patient

_LOCK_FILE = ".cohort.lock"
_DONE_FILE = "done.json"
_DIED = "The process of this patient ended without a word several times, most often because the memory was not enough."
# What ends the work for every patient, and not for one.
_NO_USE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)


@dataclass(frozen=True)
class CohortResult:
    """How a cohort ended: each patient in the order of the list, and what could not be written for want of a package."""

    folder: Path
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The patients that could not be analysed."""
        return tuple(item for item in self.outcomes if item.status == "failed")


def run(
    cohort: Cohort | Path,
    out: Path,
    *,
    settings: Settings | None = None,
    jobs: int = 1,
    client: Any = None,
    resume: bool = False,
    perturbations: int = 0,
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
        As of ``analyze``; ``jobs`` there has no effect, a patient has one process.
    jobs
        Processes on this machine.
    client
        A ``distributed.Client``: its workers do the work instead. They have to see ``out`` and the images under the same paths.
    perturbations
        Read the features of every lesion of the baseline in that many perturbed contours too, and write stability.csv: the
        intraclass correlation of every feature.
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
    cohort = read_cohort(cohort) if isinstance(cohort, Path) else cohort
    settings = replace(settings or Settings(), jobs=1)
    presets = [radiomics.load_preset(name).sha256 for name in (settings.preset, settings.lung_preset)]
    out = Path(os.path.realpath(out))
    with _Held(out, resume):
        tasks = [
            Task(patient, out / "patients" / patient.folder, settings, perturbations) for patient in cohort.patients
        ]
        outcomes: dict[str, Outcome] = {}
        open_tasks = []
        for task in tasks:
            if _is_done(task, presets):
                outcomes[task.patient.patient] = Outcome(task.patient.patient, "done")
            else:
                open_tasks.append(task)
        taken_over = len(outcomes)
        progress(taken_over / len(tasks), f"cohort: {taken_over} of {len(tasks)} patients are there already")
        notes = []
        pool: LocalPool[Task, Outcome] | DaskPool[Task, Outcome]
        if client is None:
            fitting = min(jobs, jobs_that_fit([task.patient for task in open_tasks], available_bytes()))
            if fitting < jobs:
                notes.append(f"The memory suffices for {fitting} of {jobs} jobs with the largest patients of the list.")
                progress(taken_over / len(tasks), f"cohort: {notes[-1]}")
            pool = LocalPool(fitting)
        else:
            pool = DaskPool(client)
        for outcome in _outcomes(pool, open_tasks, presets):
            outcomes[outcome.patient] = outcome
            progress(0.98 * len(outcomes) / len(tasks), f"cohort: {_line(outcome, outcomes, len(tasks))}")
        progress(0.98, "tables: joining the patients")
        finished = write_tables(cohort, outcomes, out)
        try:
            write_parquet(out / "features.parquet", finished)
        except ImportError:
            notes.append(
                "features.parquet was not written: pip install 'immunoradiomics[cohort]' brings what it needs."
            )
        if perturbations:
            folders = {item.patient.patient: out / "patients" / item.patient.folder for item in finished}
            write_stability({name: path / PERTURBED_FILE for name, path in folders.items()}, out / "stability.csv")
        write_page(cohort, outcomes, finished, out / "cohort.html")
    progress(1.0, "done")
    return CohortResult(out, tuple(outcomes[patient.patient] for patient in cohort.patients), tuple(notes))


def _outcomes(
    pool: LocalPool[Task, Outcome] | DaskPool[Task, Outcome], tasks: list[Task], presets: list[str]
) -> Iterator[Outcome]:
    for task, result in pool.results(run_patient, tasks):
        if isinstance(result, WorkerDiedError):
            task.folder.mkdir(parents=True, exist_ok=True)
            write_text(task.folder / FAILURE_FILE, f"worker: {_DIED}\n")
            yield Outcome(task.patient.patient, "failed", "worker", _DIED)
            continue
        if result.status == "done":
            write_text(task.folder / _DONE_FILE, json.dumps({"sha256": _signature(task, presets)}) + "\n")
        elif result.errno in _NO_USE:
            raise OSError(result.errno, os.strerror(result.errno), str(task.folder))
        yield result


def _line(outcome: Outcome, outcomes: dict[str, Outcome], total: int) -> str:
    failed = sum(item.status == "failed" for item in outcomes.values())
    what = (
        f"done in {outcome.seconds:.0f} s"
        if outcome.status == "done"
        else f"failed at {outcome.stage}: {outcome.reason}"
    )
    return f"{outcome.patient} {what} | {len(outcomes) - failed} done, {failed} failed, {total - len(outcomes)} left"


def _is_done(task: Task, presets: list[str]) -> bool:
    """Whether a patient's result is there for the same inputs, told by the sizes and times of their files."""
    if not (task.folder / RESULT / "provenance.json").is_file():
        return False
    try:
        kept = json.loads((task.folder / _DONE_FILE).read_text(encoding="utf-8"))
        return bool(kept["sha256"] == _signature(task, presets))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _signature(task: Task, presets: list[str]) -> str:
    """Name what a patient's result depends on, without reading images: their sizes and times stand for them."""
    source = task.patient.source
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    if not source.is_dir():
        study, _ = parse_study(source)
        for timepoint in study.timepoints if study else ():
            named = (getattr(timepoint, key) for key in TIMEPOINT_FILES)
            files += [path for path in named if path is not None and path.is_file()]
    seen = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    settings = {key: value for key, value in asdict(task.settings).items() if key != "jobs"}
    return fingerprint(
        code_fingerprint(), task.patient.patient, task.patient.facts, seen, settings, presets, task.perturbations
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
