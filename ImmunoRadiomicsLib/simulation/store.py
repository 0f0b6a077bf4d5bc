"""Virtual patients as files: a study that the other commands can read, and the truth beside it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from ..errors import InputError, StageError
from ..files import write_text
from ..images import segmentation_from_regions, write_segmentation, write_volume
from ..progress import Progress, part, silent
from ..serialise import to_json
from ..study import Study, Timepoint, save_study
from .patient import VirtualPatient, simulate_patient
from .scenario import Scenario, Size, random_scenario

_MOST_SCENARIOS = 20
QUESTIONS = ("pseudoprogression", "hyperprogression", "pneumonitis")
COHORT_COLUMNS = ("patient", "study", *QUESTIONS)


def write_patient(patient: VirtualPatient, folder: Path, *, progress: Progress = silent) -> Path:
    """Write a virtual patient and return the path of its study.yaml.

    Beside it come ``ct_<time point>.nrrd``, ``seg_<time point>.seg.nrrd`` and, in ``truth``, ``truth.json`` (schema:
    Resources/Schemas/truth.schema.json), ``displacement_<time point>.nrrd`` (vectors in mm, LPS, from baseline points),
    ``lungs_<time point>.nrrd`` (labels of ``images.Anatomy``) and ``opacities_<time point>.nrrd`` (1 ground glass, 2
    consolidation). study.yaml comes last: a folder that has one is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = folder / "truth"
    timepoints = []
    for index, item in enumerate(patient.timepoints):
        name = item.plan.name
        progress(index / len(patient.timepoints), f"write {name}")
        ct = folder / f"ct_{name}.nrrd"
        # CT noise hardly packs; the files of a small patient are packed for the sake of large cohorts.
        write_volume(item.ct, ct, compress=patient.size != "full")
        contours: Path | None = folder / f"seg_{name}.seg.nrrd"
        if item.segments:
            write_segmentation(segmentation_from_regions(item.segments, item.ct), folder / f"seg_{name}.seg.nrrd")
        else:
            contours = None
        if item.plan in patient.scenario.followups and not patient.scenario.segmentation_for_followups:
            contours = None
        write_volume(item.anatomy, truth / f"lungs_{name}.nrrd")
        if item.opacities is not None:
            write_volume(item.opacities, truth / f"opacities_{name}.nrrd")
        if name != "baseline":
            write_volume(item.deformation.displacement_image(), truth / f"displacement_{name}.nrrd")
        timepoints.append(
            Timepoint(
                name=name, date=item.plan.date, ct=ct, segmentation=contours, no_visible_lesions=not item.segments
            )
        )
    write_text(truth / "truth.json", json.dumps(to_json(patient.truth), indent=1) + "\n")
    study = Study(
        patient=patient.name,
        timepoints=tuple(timepoints),
        tumour="NSCLC",
        treatment=patient.treatment,
        clinical=patient.clinical,
        lesions=patient.lesions,
    )
    path = folder / "study.yaml"
    save_study(study, path)
    progress(1.0, "written")
    return path


def simulate_cohort(patients: int, seed: int, out: Path, *, size: Size = "small", progress: Progress = silent) -> Path:
    """Simulate and write patients P0001, P0002 ... into ``out`` and return the path of its cohort.csv.

    cohort.csv has one row per patient: patient, study (relative to it), and the three labels as 0 or 1. The patient with a
    given number is the same in cohorts of any length. Where the tumours of a drawn scenario find no place in the patient's
    anatomy, another scenario is drawn. An earlier cohort in the folder is written over. ``tiny`` patients, which are meant for
    large cohorts, have at most four lesions and two scans.

    Raises
    ------
    InputError
        If ``out`` is a file, or a folder that holds anything but an earlier cohort; nothing is written then.
    """
    _check_cohort_folder(out)
    rows = []
    for number in range(1, patients + 1):
        step = part(progress, (number - 1) / patients, number / patients)
        name = f"P{number:04d}"
        patient = _random_patient(seed, number, size, name, part(step, 0.0, 0.85))
        study = write_patient(patient, out / name, progress=part(step, 0.85, 1.0))
        answers = [int(patient.truth.label(question)) for question in QUESTIONS]
        rows.append([name, study.relative_to(out).as_posix(), *answers])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COHORT_COLUMNS)
    writer.writerows(rows)
    path = out / "cohort.csv"
    write_text(path, text.getvalue())
    return path


def _check_cohort_folder(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: this is a file. Give a folder for the cohort.")
    table = out / "cohort.csv"
    if table.is_file():
        with table.open(encoding="utf-8", errors="replace") as stream:
            if stream.readline().rstrip("\r\n") == ",".join(COHORT_COLUMNS):
                return
    if any(out.iterdir()):
        raise InputError(f"{out}: the folder holds other files. Give a new or empty folder for the cohort.")


def _random_patient(seed: int, number: int, size: Size, name: str, progress: Progress) -> VirtualPatient:
    own_seed = int(np.random.default_rng([seed, number, 1]).integers(2**31))
    # One sequence per patient: its first scenario does not depend on how many are needed.
    rng = np.random.default_rng([seed, number])
    for _ in range(_MOST_SCENARIOS - 1):
        try:
            return simulate_patient(own_seed, size=size, scenario=_scenario(rng, size), name=name, progress=progress)
        except StageError:
            continue
    return simulate_patient(own_seed, size=size, scenario=_scenario(rng, size), name=name, progress=progress)


def _scenario(rng: np.random.Generator, size: Size) -> Scenario:
    return random_scenario(rng, lesions=(1, 4), prebaseline=False) if size == "tiny" else random_scenario(rng)
