"""The reader of a table of measurements: tolerant in spelling, strict in meaning."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

from ..errors import InputError
from .measurements import NORMAL_NODE_MM, ROLES, Measurement, Role, Status
from .text_table import (
    EMPTY,
    find_columns,
    parse_number,
    parse_partial_date,
    read_table,
    spelling,
    suspected_misspellings,
    whole_day,
)

BASELINE_WINDOW_DAYS = 28
LARGEST_MM = 1000
LARGEST_ML = 100_000


@dataclass(frozen=True)
class PatientMeasurements:
    """What a table says about one patient.

    ``measurements`` count days from the baseline scan. ``day_offset`` is the day that the table itself gives to the
    baseline: add it to a day to speak in the table's days. ``treatment_start_day`` counts from the baseline scan. ``first_row``
    has the first row of every lesion.
    """

    patient: str
    measurements: tuple[Measurement, ...]
    day_offset: int = 0
    treatment_start_day: int | None = None
    symptoms_worse: tuple[int, ...] = ()
    ecog: tuple[tuple[int, int], ...] = ()
    volumes_ml: tuple[tuple[str, int, float], ...] = ()
    first_row: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class MeasurementTable:
    """A table of measurements, one entry per patient in the order of the table, and what the reader had to assume."""

    patients: tuple[PatientMeasurements, ...]
    notes: tuple[str, ...] = ()


_COLUMNS: dict[str, tuple[str, ...]] = {
    "patient": ("patient", "patientid", "subject", "subjectid", "usubjid", "subjid", "case", "caseid", "id"),
    "day": ("day", "days", "studyday", "visitday", "ady", "trdy", "dayssincebaseline", "daysfrombaseline"),
    "date": ("date", "scandate", "visitdate", "imagingdate", "adt", "trdtc", "studydate"),
    "visit": ("timepoint", "visit", "visitname", "avisit", "scan"),
    "lesion": (
        "lesion",
        "lesionid",
        "trlnkid",
        "tulnkid",
        "lnkid",
        "lesionname",
        "tumour",
        "tumor",
        "tumourid",
        "tumorid",
    ),
    "role": ("role", "lesionrole", "type", "lesiontype", "category", "class", "trgrpid", "tuorres", "kind"),
    "organ": ("organ", "site", "location", "tuloc", "trloc", "organsite", "anatomicsite", "anatomy"),
    "node": ("node", "isnode", "lymphnode", "nodal", "islymphnode", "ln"),
    "status": ("status", "state", "lesionstatus", "tumstate", "assessment", "finding"),
    "unit": ("unit", "units", "trstresu", "trorresu", "sizeunit"),
    "symptoms": ("symptomsworse", "symptoms", "symptomatic", "clinicallyworse", "clinicalworsening"),
    "ecog": ("ecog", "ecogps", "performancestatus", "ps"),
    "volume": ("volumeml", "volume", "volumecm3", "volumecc"),
    "start": ("treatmentstart", "treatmentstartdate", "trtsdt", "startdate", "referencedate"),
    "start_day": ("treatmentstartday", "startday"),
}
_LONG = (
    "long",
    "longaxis",
    "longdiameter",
    "longestdiameter",
    "longest",
    "ld",
    "ldiam",
    "longaxisdiameter",
    "major",
    "majoraxis",
)
_SHORT = (
    "short",
    "shortaxis",
    "shortdiameter",
    "shortestdiameter",
    "shortest",
    "sad",
    "sdiam",
    "shortaxisdiameter",
    "minor",
    "minoraxis",
    "perpendicular",
    "lperp",
)
_SIZE = ("size", "diameter", "diam", "measurement", "length", "value", "trstresn", "")

_ROLE_WORDS: dict[str, Role | Literal["new"]] = {
    **dict.fromkeys(("target", "targetlesion", "t", "tl", "index", "indexlesion", "targets"), "target"),
    **dict.fromkeys(("nontarget", "nontargetlesion", "nt", "ntl", "nonindex", "nontargets"), "non-target"),
    **dict.fromkeys(("newtarget", "nlt", "newlesiontarget", "newtargetlesion", "targetnew", "newmeasurable"), "new-target"),
    **dict.fromkeys(
        ("newnontarget", "nlnt", "newlesionnontarget", "newnontargetlesion", "nontargetnew", "newnonmeasurable"),
        "new-non-target",
    ),
    **dict.fromkeys(("new", "newlesion", "nl"), "new"),
}  # fmt: skip

_STATUS_WORDS: dict[str, Status] = {
    **dict.fromkeys(("measured", "measurable", "evaluated", "done"), "measured"),
    **dict.fromkeys(
        (
            "absent", "gone", "resolved", "disappeared", "vanished", "cr", "complete", "completeresponse", "none",
            "notpresent", "notvisible", "merged", "coalesced",
        ),
        "absent",
    ),
    **dict.fromkeys(
        ("toosmall", "toosmalltomeasure", "tstm", "tstom", "belowmeasurable", "visiblenotmeasurable", "blq"), "too small"
    ),
    **dict.fromkeys(
        (
            "notevaluated", "notevaluable", "notassessed", "notassessable", "notdone", "notmeasured", "ne", "nd", "na",
            "inevaluable", "unevaluable", "missing", "unknown", "notallevaluated", "notimaged",
        ),
        "not evaluated",
    ),
    **dict.fromkeys(
        (
            "present", "stable", "persistent", "persisting", "unchanged", "nochange", "nc", "noncrnonpd", "nonprogressed",
            "nonpd", "sd", "decreased", "visible", "unequivocallypresent", "new",
        ),
        "present",
    ),
    **dict.fromkeys(
        (
            "progressed", "progression", "progressive", "pd", "unequivocal", "unequivocalprogression",
            "unequivocallyprogressed", "une", "progressivedisease",
        ),
        "progressed",
    ),
    **dict.fromkeys(
        ("furtherprogressed", "furtherprogression", "furthergrowth", "furtherincrease", "furtherincreased", "incla"),
        "further progressed",
    ),
    **dict.fromkeys(("equivocal", "uncertain", "possible", "suspected", "equivocalnew"), "equivocal"),
}  # fmt: skip

_TRUE = ("1", "yes", "y", "true", "t", "node", "nodal", "lymphnode", "ja", "oui", "x", "1.0")
_FALSE = ("0", "no", "n", "false", "f", "nonnode", "nonnodal", "extranodal", "nein", "non", "0.0")
_BASELINE_WORDS = ("baseline", "bl", "screening", "tp0", "visit0", "c0")
_PREBASELINE_WORDS = ("prebaseline", "pretreatment", "previous", "prior", "reference")
_MM_PER_UNIT = {"mm": Decimal(1), "millimeter": Decimal(1), "millimetre": Decimal(1), "millimeters": Decimal(1),
                "millimetres": Decimal(1), "cm": Decimal(10), "centimeter": Decimal(10), "centimetre": Decimal(10),
                "centimeters": Decimal(10), "centimetres": Decimal(10)}  # fmt: skip
_FRAGMENT = re.compile(r"^(?P<parent>.+?)(?:[._/]\s*(?:[0-9]{1,2}|[A-Za-z])|(?<=[0-9])[a-z])$")


@dataclass(frozen=True)
class _SizeColumn:
    axis: Literal["long", "short", "size"]
    unit: Literal["mm", "cm"] | None
    index: int


@dataclass(frozen=True)
class _Row:
    """One parsed row: ``number`` is its line in the table (the header is 1)."""

    number: int
    patient: str
    day: int | None
    date: datetime.date | None
    visit: str
    lesion: str
    role: Role | Literal["new"] | None
    organ: str
    node: bool | None
    long_mm: Decimal | None
    short_mm: Decimal | None
    size_mm: Decimal | None
    units: frozenset[str]
    status: Status | None
    symptoms: bool
    ecog: int | None
    volume_ml: float | None
    start: datetime.date | None
    start_day: int | None


def _length(text: str, unit: str | None) -> tuple[Decimal | None, str | None]:
    """Return a length in mm and the unit that it was written in."""
    match = re.fullmatch(r"\s*([-+0-9.,eE]+)\s*([A-Za-z]+)\s*", text)
    if match and match.group(2).lower() in _MM_PER_UNIT:
        written = "cm" if _MM_PER_UNIT[match.group(2).lower()] == 10 else "mm"
        value = parse_number(match.group(1))
    else:
        written = unit or "mm"
        value = parse_number(text)
    if value is None:
        return None, None
    return value * (10 if written == "cm" else 1), written


def _size_columns(header: Sequence[str]) -> list[_SizeColumn]:
    columns = []
    for index, name in enumerate(header):
        bare = spelling(name)
        unit: Literal["mm", "cm"] | None = "mm" if bare.endswith("mm") else "cm" if bare.endswith("cm") else None
        stem = bare[:-2] if unit else bare
        if stem in _LONG:
            columns.append(_SizeColumn("long", unit, index))
        elif stem in _SHORT:
            columns.append(_SizeColumn("short", unit, index))
        elif stem in _SIZE and bare:
            columns.append(_SizeColumn("size", unit, index))
    return columns


class _RowReader:
    """Turns the cells of one table into rows and keeps every problem that it meets."""

    def __init__(self, path: Path, header: Sequence[str]):
        self.path = path
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.columns = find_columns(header, _COLUMNS)
        self.sizes = _size_columns(header)
        missing = [key for key in ("patient", "lesion", "role") if key not in self.columns]
        if "day" not in self.columns and "date" not in self.columns:
            missing.append("day or date")
        if missing:
            raise InputError(
                f"{path}: row 1: no column {', '.join(missing)} (found: {', '.join(header)}). "
                "A table of measurements has patient, day or date, lesion, role, organ, node, long_mm, short_mm, status."
            )
        suspects = suspected_misspellings(
            [name for index, name in enumerate(header) if index not in {column.index for column in self.sizes}],
            _COLUMNS | self._missing_sizes(),
        )
        if suspects:
            raise InputError([f"{path}: row 1: {text}" for text in suspects])

    def _missing_sizes(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the axes that the table has no column of; one of any axis will do."""
        axes = {column.axis for column in self.sizes}
        if "size" in axes:
            return {}
        names = {"long_mm": ("longmm", *_LONG), "short_mm": ("shortmm", *_SHORT)}
        return {name: words for name, words in names.items() if name.removesuffix("_mm") not in axes}

    def cell(self, cells: Sequence[str], key: str) -> str:
        index = self.columns.get(key)
        text = cells[index] if index is not None and index < len(cells) else ""
        return "" if text.lower() in ("nan", "null") else text

    def problem(self, number: int, text: str) -> None:
        self.problems.append(f"{self.path}: row {number}: {text}")

    def lengths(
        self, number: int, cells: Sequence[str]
    ) -> tuple[dict[str, Decimal | None], frozenset[str], Status | None]:
        """Read the sizes of a row; a word such as `too small to measure` in a size cell is a status."""
        unit_text = self.cell(cells, "unit").lower()
        unit: str | None = None
        if unit_text not in EMPTY:
            if unit_text in _MM_PER_UNIT:
                unit = "cm" if _MM_PER_UNIT[unit_text] == 10 else "mm"
            else:
                self.problem(number, f"unit '{unit_text}' is not known. Use mm or cm.")
        values: dict[str, Decimal | None] = {"long": None, "short": None, "size": None}
        units: set[str] = set()
        status: Status | None = None
        for column in self.sizes:
            text = cells[column.index] if column.index < len(cells) else ""
            if text.lower() in EMPTY:
                continue
            word = _STATUS_WORDS.get(spelling(text))
            if word in ("absent", "too small", "not evaluated"):
                status = word
                continue
            if column.unit and unit and column.unit != unit:
                self.problem(number, f"the unit column says {unit} but the column of the size says {column.unit}.")
                continue
            try:
                value, written = _length(text, column.unit or unit)
            except InvalidOperation:
                self.problem(number, f"size '{text}' is not a number.")
                continue
            if value is None or written is None:
                continue
            if column.unit and written != column.unit:
                self.problem(number, f"size '{text}' is written in {written} in a column of {column.unit}.")
                continue
            if value < 0:
                self.problem(number, f"size {text} is negative. A lesion that is gone is 0 or has status absent.")
                continue
            if value >= LARGEST_MM:
                self.problem(number, f"size {text} is {value / 1000:.3g} m long. Check its unit.")
                continue
            if values[column.axis] is not None and values[column.axis] != value:
                self.problem(number, f"the {column.axis} axis is given twice, as {values[column.axis]} and {value} mm.")
                continue
            values[column.axis] = value
            units.add(written)
        return values, frozenset(units), status

    def row(self, number: int, cells: Sequence[str]) -> _Row:
        def flag(key: str, allowed: str) -> bool | None:
            text = self.cell(cells, key).lower()
            bare = text if text in ("1.0", "0.0") else spelling(text)
            if bare in _TRUE:
                return True
            if bare in _FALSE:
                return False
            if text not in EMPTY:
                self.problem(number, f"{key} '{text}' is not understood. Use {allowed}.")
            return None

        def whole(key: str, name: str) -> int | None:
            text = self.cell(cells, key)
            if text.lower() in EMPTY:
                return None
            try:
                return whole_day(text)
            except (InvalidOperation, ValueError):
                self.problem(number, f"{name} '{text}' is not a whole number.")
                return None

        def calendar(key: str) -> datetime.date | None:
            text = self.cell(cells, key)
            if text.lower() in EMPTY:
                return None
            try:
                date, partial = parse_partial_date(text)
            except ValueError:
                self.problem(number, f"date '{text}' is not understood. Write it as 2024-03-02.")
                return None
            if partial:
                self.notes.append(f"{self.path}: date {text} has no day: it is taken for the {date}.")
            return date

        patient, lesion = self.cell(cells, "patient"), self.cell(cells, "lesion")
        if not patient:
            self.problem(number, "the patient is missing.")
        if not lesion:
            self.problem(number, "the lesion is missing.")
        role_text = self.cell(cells, "role")
        role = _ROLE_WORDS.get(spelling(role_text))
        if role is None:
            self.problem(number, f"lesion role '{role_text}' is not known. Use {', '.join(ROLES)}.")
        values, units, status_from_size = self.lengths(number, cells)
        status_text = self.cell(cells, "status")
        status = _STATUS_WORDS.get(spelling(status_text)) if status_text not in ("", ".", "-") else status_from_size
        if role not in ("target", "non-target") and spelling(status_text) == "unequivocal":
            status = "present"
        if status is None and status_text not in ("", ".", "-"):
            self.problem(
                number,
                f"status '{status_text}' is not known. Use measured, absent, too small or not evaluated for measured "
                "lesions, present, absent, progressed, further progressed or not evaluated for the others.",
            )
        volume_text = self.cell(cells, "volume")
        volume: float | None = None
        try:
            number_read = parse_number(volume_text)
            volume = None if number_read is None else float(number_read)
        except InvalidOperation:
            self.problem(number, f"volume '{volume_text}' is not a number.")
        if volume is not None and not 0 <= volume < LARGEST_ML:
            self.problem(number, f"volume {volume_text} ml is negative or impossibly large.")
            volume = None
        day, date = whole("day", "day"), calendar("date")
        if day is None and date is None and not self.problems_at(number, "day", "date"):
            self.problem(number, "neither day nor date is given.")
        return _Row(
            number=number,
            patient=patient,
            day=day,
            date=date,
            visit=spelling(self.cell(cells, "visit")),
            lesion=lesion,
            role=role,
            organ=self.cell(cells, "organ").lower(),
            node=flag("node", "1 or 0"),
            long_mm=values["long"],
            short_mm=values["short"],
            size_mm=values["size"],
            units=units,
            status=status,
            symptoms=bool(flag("symptoms", "yes or no")),
            ecog=whole("ecog", "ECOG"),
            volume_ml=volume,
            start=calendar("start"),
            start_day=whole("start_day", "treatment start day"),
        )

    def problems_at(self, number: int, *words: str) -> bool:
        start = f"{self.path}: row {number}: "
        return any(item.startswith(tuple(start + word for word in words)) for item in self.problems)


def read_measurements(path: Path, *, prebaseline: bool = False) -> MeasurementTable:
    """Read and validate a table of measurements in long form, one row per lesion and visit.

    Columns: patient, day or date, lesion, role, organ, node, long_mm, short_mm, status; optional: unit, timepoint,
    symptoms_worse, ecog, volume_ml, treatment_start. Spelling is free (``Long axis (cm)``, ``NT``, ``12 mm``, ``not done``,
    decimal comma, semicolons), meaning is not.

    The baseline of a patient is the visit that a timepoint column calls so; else day 0; else the last day before day 0 (days then
    count from the start of treatment, and so do dates with a column treatment_start); else the first visit, if that is no later
    than day 28. Earlier visits are an error unless the timepoint column calls them `prebaseline` or
    ``prebaseline`` is set; they are then kept with negative days.

    Raises
    ------
    InputError
        With every problem of the table and its row: a column that is missing or nearly the name of a missing one, unknown role or status, units mixed within a lesion, a visit given
        twice, a negative size, no baseline or a target without baseline, a visit before the baseline, a role that changes, a new lesion at
        baseline, a size that contradicts the status.
    """
    header, raw = read_table(path)
    reader = _RowReader(path, header)
    rows = [reader.row(number, cells) for number, cells in raw]
    if not reader.sizes and any(
        row.role in ("target", "new-target", "new") and row.status != "not evaluated" for row in rows
    ):
        raise InputError(
            f"{path}: row 1: no column long_mm or short_mm for the sizes of the targets (found: {', '.join(header)})."
        )
    notes = reader.notes
    short_used = any(row.short_mm is not None for row in rows)
    patients = []
    for patient in dict.fromkeys(row.patient for row in rows if row.patient):
        own = [row for row in rows if row.patient == patient and row.lesion]
        if not own:
            continue
        item = _read_patient(reader, patient, own, short_used=short_used, prebaseline=prebaseline, notes=notes)
        if item is not None:
            patients.append(item)
    if reader.problems:
        raise InputError(_by_row(reader.problems))
    if "unit" not in reader.columns and any(column.unit is None for column in reader.sizes):
        notes.append("A size column names no unit: sizes without one are taken to be millimetres.")
    return MeasurementTable(tuple(patients), tuple(dict.fromkeys(notes)))


def _by_row(problems: Iterable[str]) -> list[str]:
    def number(text: str) -> int:
        match = re.search(r": row (\d+):", text)
        return int(match.group(1)) if match else 0

    return sorted(dict.fromkeys(problems), key=number)


def _days(reader: _RowReader, rows: Sequence[_Row]) -> tuple[dict[int, int], int] | None:
    """Give every row its day since the baseline; return them by row number, and the table's day of the baseline."""
    by_day = all(row.day is not None for row in rows)
    if not by_day and not all(row.date is not None for row in rows):
        if all(row.day is not None or row.date is not None for row in rows):
            reader.problem(rows[0].number, "some visits of the patient have a day and others a date. Use one of them.")
        return None
    origin = next((row.start for row in rows if row.start is not None), None)
    if origin is None:
        origin = min((row.date for row in rows if row.date is not None), default=datetime.date.min)
    table_day = {
        row.number: row.day if by_day and row.day is not None else (row.date - origin).days  # type: ignore[operator]
        for row in rows
    }
    baseline, gathered = _baseline(rows, table_day)
    day_of = {number: 0 if number in gathered else day - baseline for number, day in table_day.items()}
    return day_of, baseline if by_day else 0


def _baseline(rows: Sequence[_Row], table_day: dict[int, int]) -> tuple[int, set[int]]:
    """Choose the table's day of the baseline and the rows of other days that belong to it.

    Baseline imaging may take several days: where the table counts from the start of treatment, or names the baseline, a lesion
    that was not read on the day chosen has its reading of up to 28 days before treatment.
    """
    named = [row for row in rows if row.visit in _BASELINE_WORDS]
    strictly = [row for row in named if row.visit in ("baseline", "bl")]
    free = [row for row in rows if row.visit not in _PREBASELINE_WORDS] or list(rows)
    if named:
        baseline = max(table_day[row.number] for row in strictly or named)
        near = named
    else:
        days = {table_day[row.number] for row in free}
        early = [row for row in free if table_day[row.number] < 0]
        if 0 in days or not early:
            return (0 if 0 in days else min(days)), set()
        baseline = max(table_day[row.number] for row in [r for r in early if r.role == "target"] or early)
        near = [row for row in early if abs(table_day[row.number] - baseline) <= BASELINE_WINDOW_DAYS]
    there = {row.lesion for row in free if table_day[row.number] == baseline}
    latest: dict[str, _Row] = {}
    for row in near:
        other = latest.get(row.lesion)
        if row.lesion not in there and (other is None or table_day[row.number] > table_day[other.number]):
            latest[row.lesion] = row
    return baseline, {row.number for row in latest.values()}


def _read_patient(
    reader: _RowReader,
    patient: str,
    rows: Sequence[_Row],
    *,
    short_used: bool,
    prebaseline: bool,
    notes: list[str],
) -> PatientMeasurements | None:
    placed = _days(reader, rows)
    if placed is None:
        return None
    day_of, offset = placed
    if (
        rows[0].day is not None
        and offset > BASELINE_WINDOW_DAYS
        and not any(row.visit in _BASELINE_WORDS for row in rows)
    ):
        reader.problem(
            min(row.number for row in rows),
            f"no baseline: the first visit of {patient} is on day {offset}. The baseline is day 0, or is called baseline in a "
            "column timepoint.",
        )
        return None
    for row in rows:
        if day_of[row.number] < 0 and not prebaseline and row.visit not in _PREBASELINE_WORDS:
            reader.problem(
                row.number,
                f"visit before baseline: lesion {row.lesion} of {patient} is {-day_of[row.number]} days before it. If this "
                "is a scan before the baseline, call it prebaseline in a column timepoint.",
            )
    measurements: list[Measurement] = []
    by_lesion: dict[str, list[_Row]] = {}
    for row in rows:
        by_lesion.setdefault(row.lesion, []).append(row)
    parents = _fragments(by_lesion, day_of)
    for lesion, own in by_lesion.items():
        measurements.extend(
            _read_lesion(
                reader, patient, lesion, own, day_of, short_used=short_used, fragment=lesion in parents, notes=notes
            )
        )
    starts = {row.start for row in rows if row.start is not None}
    start_days = {row.start_day for row in rows if row.start_day is not None}
    if len(starts) > 1 or len(start_days) > 1:
        reader.problem(rows[0].number, f"patient {patient} has more than one start of treatment.")
    start_day: int | None = None
    baseline_dates = [row.date for row in rows if row.date is not None and day_of[row.number] == 0]
    if starts and baseline_dates:
        start_day = (starts.pop() - baseline_dates[0]).days
    elif start_days:
        start_day = start_days.pop() - offset
    elif offset < 0:
        start_day = -offset
    return PatientMeasurements(
        patient,
        tuple(sorted(_join(measurements, parents), key=lambda item: (item.day, item.lesion))),
        offset,
        start_day,
        tuple(sorted({day_of[row.number] for row in rows if row.symptoms})),
        tuple(sorted({(day_of[row.number], row.ecog) for row in rows if row.ecog is not None})),
        tuple((row.lesion, day_of[row.number], row.volume_ml) for row in rows if row.volume_ml is not None),
        tuple((lesion, own[0].number) for lesion, own in by_lesion.items()),
    )


def _fragments(by_lesion: dict[str, list[_Row]], day_of: dict[int, int]) -> dict[str, str]:
    """Find targets that are fragments of a split target: T1.1, T1/2 or T1a of T1, first seen after the baseline."""
    found = {}
    for lesion, rows in by_lesion.items():
        match = _FRAGMENT.match(lesion)
        parent = match.group("parent").strip() if match else ""
        if (
            parent in by_lesion
            and all(row.role == "target" for row in (*rows, *by_lesion[parent]))
            and all(day_of[row.number] > 0 for row in rows)
            and any(day_of[row.number] == 0 for row in by_lesion[parent])
        ):
            found[lesion] = parent
    return found


def _join(measurements: Sequence[Measurement], parents: dict[str, str]) -> list[Measurement]:
    """Add the diameters of the fragments of a split target to it."""
    whole = [item for item in measurements if item.lesion not in parents]
    for piece in measurements:
        parent = parents.get(piece.lesion)
        if parent is None:
            continue
        index = next((i for i, item in enumerate(whole) if item.lesion == parent and item.day == piece.day), None)
        if index is None:
            whole.append(replace(piece, lesion=parent))
            continue
        if piece.status == "not evaluated" or whole[index].status == "not evaluated":
            whole[index] = replace(whole[index], status="not evaluated", long_mm=None, short_mm=None)
            continue
        total = ((whole[index].size_tenths or 0) + (piece.size_tenths or 0)) / 10
        status: Status = "measured" if total else "absent"
        if piece.node:
            whole[index] = replace(whole[index], status=status, short_mm=total)
        else:
            whole[index] = replace(whole[index], status=status, long_mm=total)
    return whole


def _read_lesion(
    reader: _RowReader,
    patient: str,
    lesion: str,
    rows: Sequence[_Row],
    day_of: dict[int, int],
    *,
    short_used: bool,
    fragment: bool,
    notes: list[str],
) -> list[Measurement]:
    roles = list(dict.fromkeys(row.role for row in rows if row.role is not None))
    if not roles:
        return []
    name = f"lesion {lesion} of {patient}"
    if len(roles) > 1:
        odd = next(row for row in rows if row.role is not None and row.role != roles[0])
        reader.problem(odd.number, f"{name} is {odd.role} here and {roles[0]} before. A lesion keeps its role.")
        return []
    units = {unit: row.number for row in reversed(rows) for unit in row.units}
    if len(units) > 1:
        reader.problem(
            max(units.values()), f"units mixed: {name} is in mm (row {units['mm']}) and in cm (row {units['cm']})."
        )
    seen: dict[int, int] = {}
    for row in rows:
        day = day_of[row.number]
        if day in seen:
            reader.problem(row.number, f"duplicate visit: {name} is already given for this visit in row {seen[day]}.")
        seen.setdefault(day, row.number)
    organ = next((row.organ for row in rows if row.organ), "")
    flags = {row.node for row in rows if row.node is not None}
    if len(flags) > 1:
        reader.problem(rows[0].number, f"{name} is a node in some rows and none in others.")
        return []
    node = flags.pop() if flags else bool(re.search(r"\bnod(e|es|al)\b|\blymph", organ))
    role: Role = _new_role(rows, node) if roles[0] == "new" else roles[0]
    result = [
        item
        for row in rows
        if (
            item := _read_row(
                reader, row, name, role, organ, node=node, day=day_of[row.number], short_used=short_used, notes=notes
            )
        )
    ]
    at_baseline = [row for row in rows if day_of[row.number] == 0]
    if role == "target" and not fragment:
        if not at_baseline:
            reader.problem(
                rows[0].number,
                f"target without baseline: {name} has no row at the baseline. A lesion that appeared later is new-target.",
            )
        elif not any(item.day == 0 and (item.size_tenths or 0) > 0 for item in result):
            reader.problem(at_baseline[0].number, f"target without baseline: {name} has no size at the baseline.")
    if role == "non-target" and at_baseline and any(item.day == 0 and item.status == "absent" for item in result):
        reader.problem(
            at_baseline[0].number, f"{name} is a non-target and absent at baseline. Leave it out or correct it."
        )
    if role.startswith("new"):
        for row, item in ((row, item) for item in result for row in rows if day_of[row.number] == item.day):
            if item.day <= 0 and item.status not in ("absent", "not evaluated"):
                reader.problem(
                    row.number,
                    f"{name} is new but seen at or before the baseline. Its role is then target or non-target.",
                )
    return result


def _new_role(rows: Sequence[_Row], node: bool) -> Role:
    """Return the role of a lesion that is only called new: target if it is ever large enough to measure, else non-target."""
    limit = 15 if node else 10
    sizes = [size for row in rows for size in (row.short_mm if node else row.long_mm, row.size_mm) if size is not None]
    return "new-target" if any(size >= limit for size in sizes) else "new-non-target"


def _read_row(
    reader: _RowReader,
    row: _Row,
    name: str,
    role: Role,
    organ: str,
    *,
    node: bool,
    day: int,
    short_used: bool,
    notes: list[str],
) -> Measurement | None:
    long_mm, short_mm = row.long_mm, row.short_mm
    if row.size_mm is not None:
        if node and short_mm is None:
            short_mm = row.size_mm
        elif not node and long_mm is None:
            long_mm = row.size_mm
    if node and short_mm is None and long_mm is not None and not short_used:
        short_mm, long_mm = long_mm, None
        notes.append("The table has no short axes: the diameter of a lymph node is taken to be its short axis.")
    if long_mm is not None and short_mm is not None and short_mm > long_mm > 0:
        reader.problem(
            row.number, f"the short axis of {name} ({short_mm} mm) is longer than its long axis ({long_mm} mm)."
        )
    size = short_mm if node else long_mm
    axis = "short axis" if node else "long axis"
    sized = role in ("target", "new-target")
    status = row.status
    if sized:
        if status in ("present", "progressed", "further progressed"):
            status = "measured"
        if status is None:
            status = "not evaluated" if size is None and long_mm is None and short_mm is None else "measured"
        if status in ("measured", "equivocal") and size is None:
            if reader.problems_at(row.number, "size", "the unit column", "unit "):
                return None
            reader.problem(
                row.number,
                f"{name} is {status} but its {axis} is missing. Give it, or the status too small or not evaluated.",
            )
            return None
        if status == "measured" and size == 0:
            status = "absent"
        if status == "absent" and size and node and size < NORMAL_NODE_MM:
            status = "measured"
        if status == "absent" and size:
            reader.problem(row.number, f"{name} is absent but has a size of {size} mm.")
        if status == "not evaluated" and size is not None:
            reader.problem(row.number, f"{name} is not evaluated but has a size of {size} mm.")
    else:
        if status is None:
            status = "not evaluated" if size is None else "absent" if size == 0 else "present"
        if status == "measured":
            status = "absent" if size == 0 else "present"
        if status == "too small":
            status = "present"
        if status == "absent" and size and not node:
            reader.problem(row.number, f"{name} is absent but has a size of {size} mm.")
    if status == "equivocal" and not role.startswith("new"):
        reader.problem(row.number, f"{name} is equivocal, which only a new lesion can be.")
    return Measurement(
        row.patient,
        day,
        row.lesion,
        role,
        organ,
        node,
        None if long_mm is None else float(long_mm),
        None if short_mm is None else float(short_mm),
        status,
    )
