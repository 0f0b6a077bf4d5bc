"""Tables of visit responses: the best responses of patients whose visits were judged elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .irecist import IrecistSettings, best_irecist, confirmed_progression_day, letters_that_count
from .recist import (
    BestResponseSettings,
    DatedResponse,
    best_response,
    confirmed_best_response,
    progression_day,
)
from .text_table import EMPTY, find_columns, parse_partial_date, read_table, spelling, suspected_misspellings, whole_day

_LETTERS = {
    **{letter.lower(): letter for letter in ("CR", "PR", "SD", "PD", "NE", "ND")},
    **{f"i{letter}".lower(): f"i{letter}" for letter in ("CR", "PR", "SD", "UPD", "CPD")},
    **dict.fromkeys(("noncrnonpd", "nn", "nonpd", "ncrnpd", "noncrpd", "ncrnonpd", "noncrornonpd"), "NON-CR/NON-PD"),
    **dict.fromkeys(
        ("nonicrnoniupd", "nonicrnonipd", "inoncrnonpd", "noncrnonupd", "inoncrnonupd", "nonicriupd"),
        "NON-iCR/NON-iUPD",
    ),
    **dict.fromkeys(("completeresponse", "complete"), "CR"),
    **dict.fromkeys(("partialresponse", "partial"), "PR"),
    **dict.fromkeys(("stabledisease", "stable"), "SD"),
    **dict.fromkeys(("progressivedisease", "progression", "progressed"), "PD"),
    **dict.fromkeys(("unconfirmedprogressivedisease", "unconfirmedprogression", "upd"), "iUPD"),
    **dict.fromkeys(("confirmedprogressivedisease", "confirmedprogression", "cpd"), "iCPD"),
    # A patient without disease has nothing that could respond.
    **dict.fromkeys(
        (
            "notevaluable", "inevaluable", "unevaluable", "notassessable", "unknown", "unk", "ine", "ue", "iue",
            "notallevaluated", "ned", "noevidenceofdisease", "nodisease",
        ),
        "NE",
    ),
    **dict.fromkeys(("notdone", "missing", "na", "notapplicable", ""), "ND"),
}  # fmt: skip
_BASELINE = ("baseline", "bl", "screening")
VISIT_COLUMNS: dict[str, tuple[str, ...]] = {
    "patient": ("patient", "patientid", "subject", "subjectid", "usubjid", "subjid", "case", "caseid", "id"),
    "day": ("day", "days", "studyday", "visitday", "ady", "rsdy", "dayssincebaseline"),
    "date": ("date", "visitdate", "adt", "rsdtc", "assessmentdate"),
    "reference": ("referencedate", "treatmentstart", "treatmentstartdate", "trtsdt", "startdate", "randdt"),
    "response": (
        "response", "overall", "overallresponse", "avalc", "rsstresc", "rsorres", "visitresponse", "timepointresponse", "recist",
    ),
    "irecist": ("irecist", "iresponse", "immuneresponse"),
    "last_day": ("lastday", "lastassessmentday", "newtherapyday", "progressionday", "pdday"),
    "last_date": ("lastdate", "lastassessmentdate", "newtherapydate", "nactdt", "progressiondate", "pddate", "pddt"),
}  # fmt: skip
_TO_RECIST = {"iCR": "CR", "iPR": "PR", "iSD": "SD", "iUPD": "PD", "iCPD": "PD", "NON-iCR/NON-iUPD": "NON-CR/NON-PD"}


@dataclass(frozen=True)
class PatientResponses:
    """The visit responses of one patient by both criteria in the order of their days, which count from the reference date.

    `ND` stands for "not done". ``immune_only``: the table has letters of iRECIST alone, from which those of RECIST 1.1 are. ``last_day`` is the last day that counts, such as that of a progression found elsewhere or
    of a new therapy; None where all do.
    """

    patient: str
    recist: tuple[DatedResponse, ...] = ()
    irecist: tuple[DatedResponse, ...] = ()
    immune_only: bool = False
    last_day: int | None = None


@dataclass(frozen=True)
class VisitTable:
    """A table of visit responses, one entry per patient in the order of the table, and what the reader had to assume."""

    patients: tuple[PatientResponses, ...]
    notes: tuple[str, ...] = ()


def is_visit_table(header: Sequence[str]) -> bool:
    """Whether a header is that of a table of visit responses: it has a response, and no lesion or role."""
    columns = find_columns(header, VISIT_COLUMNS)
    lesions = {"lesion": ("lesion", "lesionid", "trlnkid", "tulnkid", "lnkid", "role", "lesionrole")}
    return bool({"response", "irecist"} & set(columns)) and not find_columns(header, lesions)


def read_visit_responses(path: Path) -> VisitTable:
    """Read a table of visit responses, one row per visit in any order.

    Columns: patient, day (or date with reference_date), response; optional irecist, and last_day (or last_date) after which no
    visit counts. A row without day and response is a patient who was never assessed. A row whose response is `baseline` is no
    assessment; its date is the reference where none is given. Where only one column holds responses and these are those of
    iRECIST, iUPD and iCPD stand for PD in RECIST 1.1.

    Raises
    ------
    InputError
        With every problem and its row: an unknown response, a visit given twice, a day that is no whole number.
    """
    header, raw = read_table(path)
    columns = find_columns(header, VISIT_COLUMNS)
    found = f"(found: {', '.join(header)})"
    if "patient" not in columns or not {"day", "date"} & set(columns):
        raise InputError(f"{path}: row 1: a table of visit responses has patient, day (or date) and response {found}.")
    suspects = suspected_misspellings(header, VISIT_COLUMNS)
    if suspects:
        raise InputError([f"{path}: row 1: {text}" for text in suspects])
    reader = _Reader(path, columns)
    cells_of: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, cells in raw:
        row = {key: cells[index] if index < len(cells) else "" for key, index in columns.items()}
        if not row["patient"]:
            reader.problem(number, "the patient is missing.")
        cells_of.setdefault(row["patient"], []).append((number, row))
    if "day" not in columns and "reference" not in columns:
        without = [
            (number, patient)
            for patient, rows in cells_of.items()
            for number, row in rows[:1]
            if not any(spelling(item.get("response", "")) in _BASELINE for _, item in rows)
        ]
        if without:
            raise InputError(
                f"{path}: row 1: dates need a column reference_date (start of treatment), or give the day since it {found}."
            )
    result = tuple(reader.patient(patient, rows) for patient, rows in cells_of.items())
    if reader.problems:
        raise InputError([text for _, text in sorted(reader.problems)])
    return VisitTable(result, tuple(dict.fromkeys(reader.notes)))


class _Reader:
    """Turns the rows of one table into responses and keeps every problem that it meets with its row."""

    def __init__(self, path: Path, columns: dict[str, int]):
        self.path = path
        self.columns = columns
        self.problems: list[tuple[int, str]] = []
        self.notes: list[str] = []

    def problem(self, number: int, text: str) -> None:
        self.problems.append((number, f"{self.path}: row {number}: {text}"))

    def patient(self, patient: str, rows: Sequence[tuple[int, dict[str, str]]]) -> PatientResponses:
        both = {"response", "irecist"} <= set(self.columns)
        reference = self._reference(rows)
        seen: dict[int, int] = {}
        first, second, ends = [], [], []
        for number, row in rows:
            ends += self._last_days(number, row, reference)
            texts = [row.get(key, "") for key in ("response", "irecist")]
            if any(spelling(text) in _BASELINE for text in texts):
                continue
            letters = [self._letter(number, text) for text in texts]
            if row.get("day", "").lower() in EMPTY and row.get("date", "").lower() in EMPTY and letters == ["ND", "ND"]:
                continue
            day = self._day(number, row, reference)
            if day is None:
                continue
            if day in seen:
                self.problem(
                    number,
                    f"duplicate visit: patient {patient} already has a response on day {day} in row {seen[day]}.",
                )
            seen.setdefault(day, number)
            first.append(DatedResponse(day, letters[0]))
            second.append(DatedResponse(day, letters[1]))
        first.sort(key=lambda item: item.day)
        second.sort(key=lambda item: item.day)
        immune_only = not both and any(item.response in _TO_RECIST for item in (*first, *second))
        if immune_only:
            first = second = first if "response" in self.columns else second
        return PatientResponses(
            patient,
            tuple(DatedResponse(item.day, _TO_RECIST.get(item.response, item.response)) for item in first),
            tuple(second) if any(item.response in _TO_RECIST for item in second) else (),
            immune_only,
            min(ends, default=None),
        )

    def _letter(self, number: int, text: str) -> str:
        letter = _LETTERS.get(spelling(text))
        if letter is None:
            self.problem(
                number,
                f"response '{text}' is not known. Use CR, PR, SD, NON-CR/NON-PD, PD, NE, ND, or iCR, iPR, iSD, iUPD, iCPD.",
            )
        return letter or "ND"

    def _reference(self, rows: Sequence[tuple[int, dict[str, str]]]) -> str:
        named = next((row["reference"] for _, row in rows if row.get("reference", "").lower() not in EMPTY), "")
        if named:
            return named
        return next((row.get("date", "") for _, row in rows if spelling(row.get("response", "")) in _BASELINE), "")

    def _last_days(self, number: int, row: dict[str, str], reference: str) -> list[int]:
        found = []
        if row.get("last_day", "").lower() not in EMPTY:
            found.append(self._whole(number, row["last_day"]))
        if row.get("last_date", "").lower() not in EMPTY:
            found.append(self._since(number, row["last_date"], reference))
        return [day for day in found if day is not None]

    def _day(self, number: int, row: dict[str, str], reference: str) -> int | None:
        if row.get("day", "").lower() not in EMPTY:
            return self._whole(number, row["day"])
        if row.get("date", "").lower() in EMPTY:
            self.problem(number, "neither day nor date is given.")
            return None
        return self._since(number, row["date"], reference)

    def _whole(self, number: int, text: str) -> int | None:
        try:
            return whole_day(text)
        except (ArithmeticError, ValueError):
            self.problem(number, f"day '{text}' is not a whole number.")
            return None

    def _since(self, number: int, text: str, reference: str) -> int | None:
        if not reference:
            self.problem(number, "a date needs a column reference_date (start of treatment), or give the day since it.")
            return None
        try:
            days = (parse_partial_date(text)[0] - parse_partial_date(reference)[0]).days
        except ValueError:
            self.problem(number, f"date '{text}' or '{reference}' is not understood. Write it as 2024-03-02.")
            return None
        for date in (text, reference):
            if parse_partial_date(date)[1]:
                self.notes.append(f"{self.path}: date {date} has no day: it is taken for the middle of the month.")
        return days


def best_of_visits(
    patient: PatientResponses, settings: BestResponseSettings, irecist: IrecistSettings, *, immune: bool
) -> list[object]:
    """Return patient, best response, confirmed best response, iBOR (empty without iRECIST) and the day of progression."""
    end = patient.last_day
    responses = [item for item in patient.recist if end is None or item.day <= end]
    letters = [
        (item.day, item.response)
        for item in patient.irecist
        if item.response != "ND" and (end is None or item.day <= end)
    ]
    if patient.irecist and (immune or patient.immune_only):
        progression = confirmed_progression_day(letters, unconfirmed=irecist.unconfirmed_progression_counts)
    else:
        progression = progression_day(responses)
    return [
        patient.patient,
        best_response(responses, settings).response,
        confirmed_best_response(responses, settings).response,
        best_irecist(letters_that_count(letters, settings)) if patient.irecist else "",
        progression,
    ]
