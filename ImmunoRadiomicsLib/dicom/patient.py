"""One patient's files to a study folder: its CT by date, its contours, its PET and what earlier reports say of its lesions."""

from __future__ import annotations

import csv
import datetime
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from ..errors import InputError
from ..files import write_text
from ..images import segmentation_from_arrays, write_segmentation, write_volume
from ..progress import Progress, part
from ..study import Acquisition, LesionLink, LesionRole, LesionSpec, Study, Timepoint, save_study
from .choice import ranked
from .clinical import ClinicalRow
from .contours import (
    Structure,
    frame_of_reference,
    named_once,
    read_rtstruct,
    read_seg,
    referenced_instances,
    referenced_series,
)
from .earlier import EarlierLesion, read_report
from .geometry import Stack, stacks_of
from .headers import (
    CT_CLASSES,
    PET_CLASSES,
    RTSTRUCT_CLASS,
    SEG_CLASSES,
    SR_CLASSES,
    Identity,
    Picture,
    read_dataset,
)
from .pet import read_suv
from .pixels import Volume, read_ct, without_copies
from .privacy import KeyFile, scrubbed
from .rows import TABLE, SeriesRow
from .sources import Sources, TimepointSource, Tracking, write_sources


@dataclass(frozen=True, eq=False)
class Person:
    """The files of one patient."""

    identities: tuple[Identity, ...]
    pictures: tuple[Picture, ...]
    objects: tuple[Picture, ...]

    def problem(self) -> str | None:
        """Say why the files cannot be of one patient, None if they can."""
        births = {identity.birth_date for identity in self.identities if identity.birth_date}
        sexes = {identity.sex for identity in self.identities if identity.sex in ("M", "F")}
        if len(births) > 1 or len(sexes) > 1:
            what = "dates of birth" if len(births) > 1 else "sexes"
            return f"one patient id stands for several {what}: the folder mixes patients. Separate them first"
        return None


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The CT of one time point."""

    name: str
    date: datetime.date
    stack: Stack
    image: sitk.Image


class PatientImport:
    """The import of one patient."""

    def __init__(
        self,
        name: str,
        person: Person,
        clinical: ClinicalRow,
        folder: Path,
        key: KeyFile | None,
        series: tuple[str, ...],
    ):
        self.name, self.person, self.clinical, self.folder, self.key, self.series = (
            name,
            person,
            clinical,
            folder,
            key,
            series,
        )
        self.rows: list[SeriesRow] = []
        self.warnings: list[str] = []
        self.specs: dict[str, LesionSpec] = {}
        self.tracked: dict[str, str] = {}
        self.tracking: dict[str, Tracking] = {}
        self.links: list[LesionLink] = []

    def import_all(self, progress: Progress) -> int:
        """Write the patient's folder and return the number of time points; 0 where no CT could be imported."""
        problem = self.person.problem()
        if problem is not None:
            self._leave_out(self.person.pictures, problem)
            self._warn(problem)
            return 0
        objects = self._sorted_objects()
        by_date = self._ct_stacks(objects)
        names = timepoint_names(sorted(by_date), self.clinical.treatment.start)
        timepoints, sources = [], []
        seen: set[str] = set()
        reports = [lesion for item in objects["report"] for lesion in self._report(item)]
        for done, date in enumerate(sorted(by_date)):
            share = part(progress, done / len(by_date), (done + 1) / len(by_date))
            chosen = self._choose(names[date], date, by_date[date], part(share, 0.0, 0.7))
            if chosen is None:
                continue
            ct = self.folder / f"ct_{chosen.name}.nrrd"
            share(0.75, f"writing {chosen.name}")
            # Noise hardly packs, and packing takes longer than all the rest.
            write_volume(chosen.image, ct, compress=False)
            segmentation = self._segmentation(chosen, objects, reports, seen)
            pet = self._pet(chosen, part(share, 0.85, 1.0))
            timepoints.append(
                Timepoint(chosen.name, date, ct, segmentation, pet, acquisition=_acquisition(chosen.stack))
            )
            sources.append(self._source(chosen))
        self._leave_out_rest(objects)
        if not timepoints:
            return 0
        renamed = timepoint_names([item.date for item in timepoints], self.clinical.treatment.start)
        timepoints, sources = self._renamed(timepoints, sources, renamed)
        write_sources(Sources("1.0", self.key is not None, tuple(sources), tuple(self.tracking.values())), self.folder)
        self._write_measurements(reports, timepoints)
        self._write_study(timepoints)
        return len(timepoints)

    def _write_study(self, timepoints: Sequence[Timepoint]) -> None:
        if len(timepoints) < 2:
            self._warn("only one date has a CT; an analysis needs two: add the other time points to study.yaml")
        drawn = [item for item in timepoints if item.segmentation is not None]
        used = {spec.segment for spec in self.specs.values()}
        study = Study(
            patient=self.name,
            timepoints=tuple(timepoints),
            tumour=self.clinical.tumour,
            treatment=self.clinical.treatment,
            clinical=self.clinical.clinical,
            lesions=tuple(self.specs[name] for name in self.specs if name in used) if drawn else (),
            links=tuple(self.links),
        )
        save_study(study, self.folder / "study.yaml")

    def _renamed(
        self, timepoints: list[Timepoint], sources: list[TimepointSource], names: dict[datetime.date, str]
    ) -> tuple[list[Timepoint], list[TimepointSource]]:
        """Name the time points anew where a date fell out after names were given."""
        result, moved = [], {}
        for item in timepoints:
            name = names[item.date]
            moved[item.name] = name
            files: dict[str, Any] = {}
            for key in ("ct", "segmentation", "pet"):
                path = getattr(item, key)
                if path is not None and name != item.name:
                    target = path.with_name(path.name.replace(f"_{item.name}.", f"_{name}."))
                    os.replace(path, target)
                    files[key] = target
            result.append(replace(item, name=name, **files))
        self.rows = [replace(row, timepoint=moved.get(row.timepoint, "")) for row in self.rows]
        self.links = [replace(link, timepoint=moved[link.timepoint]) for link in self.links]
        return result, [replace(item, timepoint=moved[item.timepoint]) for item in sources]

    def _warn(self, message: str) -> None:
        self.warnings.append(f"{self.name}: {message}")

    def _uid(self, uid: str) -> str:
        return self.key.uid(uid) if self.key is not None and uid else uid

    def _row(self, pictures: Sequence[Picture], use: str, reason: str, **more: Any) -> None:
        first = pictures[0]
        words = {
            "description": scrubbed(first.description, self.person.identities),
            "kernel": scrubbed(first.kernel, self.person.identities),
        }
        cells: dict[str, Any] = {
            "timepoint": "",
            "kvp": first.kvp,
            "contrast": first.contrast,
            "slice_thickness_mm": first.thickness_mm,
            "notes": "",
            **words,
            **more,
        }
        part_of_series = cells.pop("part", "")
        self.rows.append(
            SeriesRow(
                patient=self.name,
                date=first.date.isoformat() if first.date else "",
                use=use,
                reason=scrubbed(reason, self.person.identities),
                modality=first.modality,
                images=len({(item.path, item.frame) for item in pictures}),
                series=self._uid(first.series_uid) + part_of_series,
                **cells,
            )
        )

    def _leave_out(self, pictures: Sequence[Picture], reason: str, **more: Any) -> None:
        for group in _by_series(pictures).values():
            self._row(group, "left out", reason, **more)

    def _stack_row(
        self, stack: Stack, use: str, reason: str, *, timepoint: str = "", notes: Iterable[str] = ()
    ) -> None:
        self._row(
            stack.pictures,
            use,
            reason,
            timepoint=timepoint,
            part=self._parts.get(id(stack), ""),
            step_mm=round(stack.step_mm, 3),
            coverage_mm=round(stack.coverage_mm, 1),
            notes="; ".join(notes or stack.notes),
        )

    def _sorted_objects(self) -> dict[str, list[Picture]]:
        found: dict[str, list[Picture]] = {"seg": [], "rtstruct": [], "report": []}
        others = []
        seen = set()
        for item in sorted(
            self.person.objects,
            key=lambda item: (item.date or datetime.date.min, item.time, item.series_number or 0, item.path),
        ):
            if item.sop_uid in seen:
                self._row([item], "left out", "a file with the same instance is used already")
                continue
            seen.add(item.sop_uid)
            kind = "seg" if item.sop_class in SEG_CLASSES else "rtstruct" if item.sop_class == RTSTRUCT_CLASS else None
            kind = kind or ("report" if item.sop_class in SR_CLASSES else None)
            if kind is None:
                others.append(item)
            else:
                found[kind].append(item)
        for group in _by_series(others).values():
            self._row(group, "left out", _why_not(group[0]))
        self.used_objects: set[str] = set()
        return found

    def _ct_stacks(self, objects: dict[str, list[Picture]]) -> dict[datetime.date, list[Stack]]:
        """Return the CT stacks by date; keep the PET stacks for later; say why other images make none."""
        by_date: dict[datetime.date, list[Stack]] = {}
        self._pets: list[Stack] = []
        self._parts: dict[int, str] = {}
        for group in _by_series(self.person.pictures).values():
            try:
                stacks, reasons = stacks_of(*without_copies(group))
            except InputError as error:
                self._row(group, "left out", error.problems[0])
                continue
            placed = {(item.sop_uid, item.frame) for stack in stacks for item in stack.pictures}
            rest = [item for item in group if (item.sop_uid, item.frame) not in placed]
            if reasons and rest:
                self._row(rest, "left out", "; ".join(reasons))
            for number, stack in enumerate(stacks, start=1):
                self._parts[id(stack)] = f"#{number}" if len(stacks) > 1 else ""
                date = min((item.date for item in stack.pictures if item.date is not None), default=None)
                if date is None:
                    self._stack_row(stack, "left out", "no date is given, so its place in time is not known")
                elif stack.first.sop_class in CT_CLASSES:
                    by_date.setdefault(date, []).append(stack)
                else:
                    self._pets.append(stack)
        ct_dates = {item.date for item in self.person.pictures if item.sop_class in CT_CLASSES and item.date}
        for date in sorted(ct_dates - set(by_date)):
            self._warn(f"no CT of {date} could be imported; {TABLE} says why")
        self._drawn_on: set[str] = set()
        for item in (*objects["seg"], *objects["rtstruct"]):
            try:
                data = read_dataset(item.path, pixels=False)
            except ValueError:
                continue
            self._drawn_on |= referenced_series(data)
        return by_date

    def _choose(self, name: str, date: datetime.date, stacks: list[Stack], progress: Progress) -> _Chosen | None:
        """Read the best CT of a day that can be read; say of each other one why it was not used."""
        order, why = ranked(stacks)
        drawn = [stack for stack in order if stack.first.series_uid in self._drawn_on and stack.is_axial]
        wished = [stack for stack in order if self._wished(stack)]
        first = wished or drawn[:1]
        order = [*first, *(stack for stack in order if stack not in first)]
        reason = (
            "chosen by --series"
            if wished
            else "the lesions were drawn on it"
            if drawn
            else "best by the rules of choice"
        )
        if len(stacks) == 1 and not wished:
            reason = "the only CT volume of its date"
        chosen: _Chosen | None = None
        for stack in order:
            if chosen is not None:
                self._stack_row(
                    stack,
                    "left out",
                    why.get(id(stack), f"{reason.replace('it', 'another')}: another series of its date"),
                )
                continue
            if not stack.is_axial and not self._wished(stack):
                self._stack_row(stack, "left out", "its slices do not lie across the body")
                continue
            try:
                volume = read_ct(stack, progress)
            except InputError as error:
                self._stack_row(stack, "left out", error.problems[0])
                continue
            chosen = _Chosen(name, date, stack, volume.image)
            self._stack_row(stack, "ct", reason, timepoint=name, notes=volume.notes)
            for note in volume.notes:
                self._warn(f"{name}: {note}")
        if chosen is None:
            self._warn(f"no CT of {date} could be imported; {TABLE} says why")
        return chosen

    def _wished(self, stack: Stack) -> bool:
        own = {stack.first.series_uid, self._uid(stack.first.series_uid)}
        suffix = self._parts.get(id(stack), "")
        return any(wish in own or wish in {f"{uid}{suffix}" for uid in own if suffix} for wish in self.series)

    def _source(self, chosen: _Chosen) -> TimepointSource:
        first = chosen.stack.first
        return TimepointSource(
            chosen.name,
            self._uid(first.study_uid),
            self._uid(first.series_uid),
            self._uid(first.frame_of_reference),
            tuple(self._uid(item.sop_uid) for item in chosen.stack.pictures),
            chosen.stack.kind != "straight" or any(item.frame is not None for item in chosen.stack.pictures),
        )

    def _belongs(self, item: Picture, chosen: _Chosen) -> bool:
        """Whether a SEG or RTSTRUCT was made on the CT of a time point, or in its frame of reference."""
        data = read_dataset(item.path, pixels=False)
        series = referenced_series(data)
        if chosen.stack.first.series_uid in series:
            return True
        if referenced_instances(data) & {picture.sop_uid for picture in chosen.stack.pictures}:
            return True
        frame = chosen.stack.first.frame_of_reference
        same_frame = bool(frame) and frame_of_reference(data) == frame
        return same_frame and item.study_uid == chosen.stack.first.study_uid

    def _segmentation(
        self, chosen: _Chosen, objects: dict[str, list[Picture]], reports: Sequence[EarlierLesion], seen: set[str]
    ) -> Path | None:
        """Write the segmentation of a time point from SEG, or from RTSTRUCT where there is no SEG; None where there is neither."""
        structures: dict[str, Structure] = {}
        for kind in ("seg", "rtstruct"):
            mine = [
                item for item in objects[kind] if item.sop_uid not in self.used_objects and self._belongs(item, chosen)
            ]
            for item in mine:
                self.used_objects.add(item.sop_uid)
                if kind == "rtstruct" and structures:
                    self._row(
                        [item], "left out", "a segmentation (SEG) of the same scan is used", timepoint=chosen.name
                    )
                    continue
                try:
                    found, left_out = (
                        read_seg(item, chosen.stack, chosen.image)
                        if kind == "seg"
                        else read_rtstruct(item, chosen.stack)
                    )
                except (InputError, ValueError) as error:
                    self._row([item], "left out", str(error), timepoint=chosen.name)
                    continue
                found = tuple(_with_report(one, item.sop_uid, reports) for one in found)
                for one in found:
                    structures[one.tracking_uid or one.tracking_id or one.name] = one
                use = "segmentation" if found else "left out"
                reason = f"{len(found)} segments" if found else "no segment could be used"
                self._row([item], use, reason, timepoint=chosen.name, notes="; ".join(left_out))
        if not structures:
            return None
        named = self._named(named_once(structures.values()), chosen.name, seen)
        for one in named:
            self._describe(one, reports)
        colours = {one.name: one.colour for one in named if one.colour is not None}
        segmentation = segmentation_from_arrays(((one.name, one.mask) for one in named), chosen.image, colours=colours)
        path = self.folder / f"seg_{chosen.name}.seg.nrrd"
        write_segmentation(segmentation, path)
        return path

    def _named(self, structures: Sequence[Structure], timepoint: str, seen: set[str]) -> tuple[Structure, ...]:
        """Give a lesion the same name at every time point, and link it with its earlier self."""
        result = []
        for item in structures:
            one = replace(item, name=scrubbed(item.name, self.person.identities) or "segment")
            if one.tracking_uid:
                name = self.tracked.get(one.tracking_uid)
                if name is None:
                    name, count = one.name, 1
                    while name in self.tracking:
                        count += 1
                        name = f"{one.name} {count}"
                    self.tracked[one.tracking_uid] = name
                    self.tracking[name] = Tracking(
                        name, scrubbed(one.tracking_id, self.person.identities) or name, self._uid(one.tracking_uid)
                    )
                one = replace(one, name=name)
                if name in seen:
                    self.links.append(LesionLink(timepoint, name, name))
            result.append(one)
        once = named_once(replace(one, tracking_id="") for one in result)
        seen |= {one.name for one in once if one.tracking_uid}
        return once

    def _describe(self, one: Structure, reports: Sequence[EarlierLesion]) -> None:
        """Add what is known of a structure to the lesions of study.yaml; organs are recognised by their names."""
        report = next((item for item in reports if item.tracking_uid and item.tracking_uid == one.tracking_uid), None)
        known = self.specs.get(one.name)
        role: LesionRole | None = None
        if report is not None and report.role in ("target", "non-target"):
            role = "target" if report.role == "target" else "non-target"
        if one.is_anatomy:
            if not any(word in one.name.lower() for word in ("lung", "airway", "trachea")):
                self.specs[one.name] = LesionSpec(one.name, ignore=True)
            return
        organ = one.organ or (report.organ if report is not None else "")
        node = one.node or (True if report is not None and report.node else None)
        spec = LesionSpec(one.name, scrubbed(organ, self.person.identities) or None, role, node)
        if known is not None:
            spec = replace(
                spec, organ=known.organ or spec.organ, role=known.role or spec.role, node=known.node or spec.node
            )
        self.specs[one.name] = spec

    def _report(self, item: Picture) -> tuple[EarlierLesion, ...]:
        try:
            found = read_report(item)
        except ValueError as error:
            self._row([item], "left out", str(error))
            return ()
        self.used_objects.add(item.sop_uid)
        if found:
            self._row([item], "report", f"{len(found)} measurement groups")
        else:
            self._row([item], "left out", "a structured report without measurement groups (TID 1500)")
        return found

    def _write_measurements(self, reports: Sequence[EarlierLesion], timepoints: Sequence[Timepoint]) -> None:
        """Write the diameters of earlier reports as a table that the response criteria can be applied to."""
        rows = [
            item
            for item in reports
            if item.date is not None and (item.long_mm is not None or item.short_mm is not None)
        ]
        if not rows:
            return
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("patient", "date", "lesion", "role", "organ", "node", "long_mm", "short_mm", "status"))
        for item in sorted(rows, key=lambda item: (item.date, item.tracking_id)):
            name = self.tracked.get(item.tracking_uid) or scrubbed(item.tracking_id, self.person.identities)
            role = item.role or "target"
            status = "measured" if role == "target" else "present"
            sizes = ("" if value is None else repr(float(value)) for value in (item.long_mm, item.short_mm))
            organ = scrubbed(item.organ, self.person.identities)
            writer.writerow((self.name, item.date, name, role, organ, int(item.node), *sizes, status))
        write_text(self.folder / "measurements.csv", stream.getvalue())

    def _pet(self, chosen: _Chosen, progress: Progress) -> Path | None:
        """Write the PET of a time point as SUVbw, None where there is none that can be converted."""
        mine = [
            stack
            for stack in self._pets
            if any(item.date == chosen.date for item in stack.pictures)
            or stack.first.study_uid == chosen.stack.first.study_uid
        ]
        path: Path | None = None
        for stack in sorted(mine, key=lambda item: (-item.coverage_mm, item.step_mm)):
            self._pets.remove(stack)
            if path is not None:
                self._stack_row(stack, "left out", "another PET of the day covers more", timepoint=chosen.name)
                continue
            try:
                volume: Volume = read_suv(stack, progress)
            except InputError as error:
                self._stack_row(stack, "left out", f"no SUV: {error.problems[0]}", timepoint=chosen.name)
                continue
            path = self.folder / f"pet_{chosen.name}.nrrd"
            write_volume(volume.image, path, compress=False)
            self._stack_row(stack, "pet", "SUVbw", timepoint=chosen.name, notes=volume.notes)
        return path

    def _leave_out_rest(self, objects: dict[str, list[Picture]]) -> None:
        for stack in self._pets:
            self._stack_row(stack, "left out", "no CT of the same day was imported")
        for kind in ("seg", "rtstruct"):
            for item in objects[kind]:
                if item.sop_uid not in self.used_objects:
                    self._row([item], "left out", "it was made on no CT series that is used")


def _with_report(one: Structure, sop_uid: str, reports: Sequence[EarlierLesion]) -> Structure:
    """Give a segment without tracking the tracking of the report that refers to it."""
    if one.tracking_uid:
        return one
    for report in reports:
        if (sop_uid, one.number) in report.segments and report.tracking_uid:
            return replace(one, tracking_uid=report.tracking_uid, tracking_id=one.tracking_id or report.tracking_id)
    return one


def _acquisition(stack: Stack) -> Acquisition:
    first = stack.first
    voltage = first.kvp if first.kvp is not None and 40 <= first.kvp <= 200 else None
    thickness = first.thickness_mm if first.thickness_mm is not None and 0.1 <= first.thickness_mm <= 20 else None
    return Acquisition(
        kvp=voltage,
        kernel=first.kernel.replace("\\", " ") or None,
        slice_thickness_mm=thickness,
        contrast=first.contrast,
        manufacturer=first.manufacturer or None,
        model=first.model or None,
    )


def _by_series(pictures: Iterable[Picture]) -> dict[tuple[str, str], list[Picture]]:
    groups: dict[tuple[str, str], list[Picture]] = {}
    for item in pictures:
        groups.setdefault((item.study_uid, item.series_uid), []).append(item)
    return groups


def _why_not(item: Picture) -> str:
    """Say why an object of another kind is not used."""
    from pydicom.uid import UID

    name = UID(item.sop_class).name
    if "Secondary Capture" in name:
        return f"{name}: a capture of a screen or a report, not the measured image"
    if "Presentation State" in name or "Encapsulated" in name:
        return f"{name}: not an image"
    if item.sop_class in CT_CLASSES | PET_CLASSES:
        return f"{name}: the file holds a header without an image"
    return f"{name}: not CT, PET, segmentation, contours or a report of measurements"


def timepoint_names(dates: Sequence[datetime.date], start: datetime.date | None) -> dict[datetime.date, str]:
    """Name dates: the baseline is the last one not after the start of treatment, or the first; the later ones are follow-ups."""
    if not dates:
        return {}
    before = [date for date in dates if start is not None and date <= start]
    baseline = dates.index(before[-1]) if before else 0
    names = {dates[baseline]: "baseline"}
    for index, date in enumerate(dates[:baseline], start=1):
        names[date] = "prebaseline" if baseline == 1 else f"prebaseline-{index}"
    for index, date in enumerate(dates[baseline + 1 :], start=1):
        names[date] = f"followup-{index}"
    return names
