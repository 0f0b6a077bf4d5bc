"""From a folder of DICOM files to study folders: what is used, what is left out, and why."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import write_text
from ..progress import Progress, part, silent
from ..serialise import from_json, to_json
from .clinical import ClinicalRow, read_clinical
from .headers import (
    Picture,
    Scan,
    scan_folder,
)
from .patient import PatientImport, Person
from .privacy import KeyFile, read_key, write_key
from .rows import TABLE, SeriesRow, rows_of_files, table_text


@dataclass(frozen=True)
class ImportedPatient:
    """One patient that was imported; ``study`` is the path of its study.yaml."""

    name: str
    study: Path
    timepoints: int


@dataclass(frozen=True)
class ImportResult:
    """What an import wrote, what it left out, and what a reader should know."""

    folder: Path
    patients: tuple[ImportedPatient, ...]
    rows: tuple[SeriesRow, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    """What is kept of a finished patient, so that an interrupted import goes on after it."""

    fingerprint: str
    rows: tuple[SeriesRow, ...]
    warnings: tuple[str, ...]
    timepoints: int


def import_folder(
    folder: Path,
    out: Path,
    *,
    clinical: Path | None = None,
    patient: str | None = None,
    key_file: Path | None = None,
    series: Sequence[str] = (),
    progress: Progress = silent,
) -> ImportResult:
    """Import every patient of a folder tree of DICOM files.

    Writes for each patient a folder P001, P002 ... with study.yaml, ``ct_<time point>.nrrd``, ``pet_<time point>.nrrd``,
    ``seg_<time point>.seg.nrrd``, dicom.json (the instances that the volumes came from) and, where earlier reports give diameters,
    measurements.csv; and series.csv, with one line for each series. A date is a time point. Without a key file patients are numbered
    in the order of their ids within this folder, and nothing that names them is kept; the UIDs of series and instances are, in
    series.csv and dicom.json. With a key file a patient has the same number in every import with that file, and UIDs are replaced.
    Dates are kept.

    Parameters
    ----------
    folder
        Searched with all its subfolders; names of files and folders mean nothing.
    out
        New, empty, or an earlier import, which is replaced. It appears when it is complete; of an import that was stopped the finished
        patients are kept for the next one.
    clinical
        A table as ``read_clinical`` reads it; its patients are named by their DICOM patient id or by their pseudonym.
    patient
        The DICOM patient id or the pseudonym of the only patient that is wanted.
    key_file
        Where pseudonyms and the secret for UIDs are kept; made where there is none.
    series
        UIDs of CT series (with `#2` for the second part of one) that are used whatever the rules of choice say.

    Raises
    ------
    InputError
        If there is nothing that can be imported, with the reason for each series, or an argument is wrong; nothing is written then.
    CancelledError
        If the progress asked to stop.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: this is no folder. Give the folder that holds the DICOM files.")
    _check_out(out, folder, key_file)
    table = read_clinical(clinical) if clinical is not None else {}
    key = read_key(key_file) if key_file is not None else None
    scan = scan_folder(folder, part(progress, 0.0, 0.15))
    people = _people(scan, key)
    if patient is not None:
        people = {name: person for name, person in people.items() if patient in (name, person.identities[0].id)}
        if not people:
            raise InputError(f"--patient: there is no such patient among the {len(_people(scan, key))} in the folder.")
    _check_series(series, people.values(), key)
    return _Import(folder, out, table, key, key_file, tuple(series), progress).run(scan, people)


def _person_key(picture: Picture) -> tuple[str, ...]:
    """Return what tells patients apart; without an id and a name, files of one study are taken as of one patient."""
    identity = picture.identity
    if identity.id:
        return ("id", identity.id, identity.issuer)
    if identity.name:
        return ("name", identity.name, identity.birth_date)
    return ("study", picture.study_uid)


def _people(scan: Scan, key: KeyFile | None) -> dict[str, Person]:
    """Return the patients of a folder by their pseudonym."""
    files: dict[tuple[str, ...], tuple[list[Picture], list[Picture]]] = {}
    for index, found in enumerate((scan.pictures, scan.objects)):
        for picture in found:
            files.setdefault(_person_key(picture), ([], []))[index].append(picture)
    people = {}
    for number, (_, (pictures, objects)) in enumerate(sorted(files.items()), start=1):
        identities = tuple(dict.fromkeys(item.identity for item in (*pictures, *objects)))
        name = key.pseudonym(identities[0]) if key is not None else f"P{number:03d}"
        people[name] = Person(identities, tuple(pictures), tuple(objects))
    return people


def _check_out(out: Path, folder: Path, key_file: Path | None) -> None:
    real = Path(os.path.realpath(out))
    if real.exists() and not real.is_dir():
        raise InputError(f"{out}: this is a file. Give a folder for the output.")
    if real.exists() and any(real.iterdir()) and not (real / TABLE).exists():
        raise InputError(f"{out}: the folder holds other files. Give a new or empty folder for the output.")
    source = Path(os.path.realpath(folder))
    if source == real or source.is_relative_to(real) or real.is_relative_to(source):
        raise InputError(
            f"{out}: the output and the DICOM folder lie one in the other. Choose another folder for the output."
        )
    if key_file is not None and Path(os.path.realpath(key_file)).is_relative_to(real):
        raise InputError(
            f"{key_file}: the key file lies in the output folder, which it would give away. Keep it elsewhere."
        )


def _check_series(series: Sequence[str], people: Iterable[Person], key: KeyFile | None) -> None:
    known = {picture.series_uid for person in people for picture in person.pictures}
    known |= {key.uid(uid) for uid in known} if key is not None else set()
    problems = [
        f"--series {uid}: there is no such CT or PET series in the folder. The column `series` of {TABLE} names them."
        for uid in series
        if uid.split("#")[0] not in known
    ]
    if problems:
        raise InputError(problems)


class _Import:
    """One run of the import: where it writes, and what it has to say."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        table: dict[str, ClinicalRow],
        key: KeyFile | None,
        key_file: Path | None,
        series: tuple[str, ...],
        progress: Progress,
    ):
        self.folder, self.table, self.key, self.key_file, self.series = folder, table, key, key_file, series
        self.out = Path(os.path.realpath(out))
        self.partial = self.out.with_name(f".{self.out.name}.partial")
        self.progress = progress

    def run(self, scan: Scan, people: dict[str, Person]) -> ImportResult:
        try:
            return self._run(scan, people)
        except InputError:
            shutil.rmtree(self.partial, ignore_errors=True)
            raise

    def _run(self, scan: Scan, people: dict[str, Person]) -> ImportResult:
        records: dict[str, _Record] = {}
        for done, (name, person) in enumerate(people.items()):
            start, end = (0.15 + 0.8 * at / len(people) for at in (done, done + 1))
            records[name] = self._person(name, person, part(self.progress, start, end))
        rows = [row for record in records.values() for row in record.rows]
        rows += rows_of_files(scan)
        if not any(record.timepoints for record in records.values()):
            reasons = [
                f"{row.patient or 'files'}: {row.modality or 'file'} of {row.images}: {row.reason}" for row in rows
            ]
            raise InputError(
                [
                    f"{self.folder}: no CT series could be imported. Give a folder with DICOM CT of one or more patients.",
                    *dict.fromkeys(reasons),
                ]
            )
        warnings = [warning for record in records.values() for warning in record.warnings]
        unknown = sorted(
            set(self.table)
            - {name for name, person in people.items() for name in (name, *(item.id for item in person.identities))}
        )
        if unknown:
            warnings.append(
                f"{len(unknown)} of {len(self.table)} patients of the clinical table have no images in the folder"
            )
        if scan.unreadable:
            warnings.append(
                f"{len(scan.unreadable)} DICOM files cannot be read and were left out: {scan.unreadable[0][1]}"
            )
        for name, record in records.items():
            if not record.timepoints:
                shutil.rmtree(self.partial / name, ignore_errors=True)
            (self.partial / f"{name}.json").unlink(missing_ok=True)
        for left in self.partial.iterdir():
            if left.name not in records:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        write_text(self.partial / TABLE, table_text(rows))
        if self.key is not None and self.key_file is not None:
            write_key(self.key, self.key_file)
        self._publish()
        patients = tuple(
            ImportedPatient(name, self.out / name / "study.yaml", record.timepoints)
            for name, record in records.items()
            if record.timepoints
        )
        self.progress(1.0, "done")
        return ImportResult(self.out, patients, tuple(rows), tuple(dict.fromkeys(warnings)))

    def _publish(self) -> None:
        """Put the complete folder in the place of an earlier import."""
        previous = self.out.with_name(f".{self.out.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        if self.out.exists():
            os.replace(self.out, previous)
        os.replace(self.partial, self.out)
        shutil.rmtree(previous, ignore_errors=True)

    def _person(self, name: str, person: Person, progress: Progress) -> _Record:
        """Import one patient, or take over what an interrupted import has finished."""
        clinical = self._clinical(name, person)
        fingerprint = self._fingerprint(person, clinical)
        kept = self.partial / f"{name}.json"
        if kept.exists():
            try:
                record = from_json(_Record, json.loads(kept.read_text(encoding="utf-8")))
            except (ValueError, InputError):
                record = None
            if record is not None and record.fingerprint == fingerprint:
                return record
        folder = self.partial / name
        shutil.rmtree(folder, ignore_errors=True)
        kept.unlink(missing_ok=True)
        folder.mkdir(parents=True)
        patient = PatientImport(name, person, clinical, folder, self.key, self.series)
        timepoints = patient.import_all(progress)
        record = _Record(fingerprint, tuple(patient.rows), tuple(patient.warnings), timepoints)
        write_text(kept, json.dumps(to_json(record)))
        return record

    def _clinical(self, name: str, person: Person) -> ClinicalRow:
        named = [
            self.table[key]
            for key in dict.fromkeys((name, *(item.id for item in person.identities)))
            if key in self.table
        ]
        if len(named) > 1:
            raise InputError(
                f"{name}: the clinical table has this patient twice, under its id and its pseudonym. Keep one."
            )
        return named[0] if named else ClinicalRow(name)

    def _fingerprint(self, person: Person, clinical: ClinicalRow) -> str:
        files = sorted(
            (str(item.path), item.path.stat().st_size, item.sop_uid) for item in (*person.pictures, *person.objects)
        )
        text = json.dumps([files, to_json(clinical), self.series, self.key.secret if self.key else ""])
        return hashlib.sha256(text.encode()).hexdigest()
