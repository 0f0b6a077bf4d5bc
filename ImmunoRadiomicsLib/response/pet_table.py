"""Tables of uptake: the metabolic criteria from a CSV of SULpeak per lesion and visit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .pet import PetLesion, PetResponse, PetSettings, PetVisit, impercist5, ipercist, pecrit, percimt, percist
from .text_table import find_columns, parse_date, read_table, spelling

PET_CRITERIA = ("percist", "impercist5", "ipercist", "percimt", "pecrit")
PET_COLUMNS = ("patient", "day", "sul_peak_baseline", "sul_peak", "change_percent", "response", "rule")
PET_BEST_COLUMNS = ("patient", "best", "progression_day")
_ORDER = ("CMR", "PMR", "SMD", "UPMD", "CPMD", "PMD", "NE")

_COLUMNS: dict[str, tuple[str, ...]] = {
    "patient": ("patient", "patientid", "subject", "subjectid", "usubjid", "subjid", "case", "caseid", "id"),
    "day": ("day", "days", "studyday", "visitday", "dayssincebaseline"),
    "date": ("date", "scandate", "visitdate", "petdate"),
    "lesion": ("lesion", "lesionid", "lesionname"),
    "sul": ("sulpeak", "sul", "suvpeaklbm", "uptake"),
    "new": ("new", "isnew", "newlesion", "role"),
    "diameter": ("functionaldiametermm", "diametermm", "longmm", "diameter"),
    "liver_mean": ("livermean", "livermeansul", "liversul"),
    "liver_sd": ("liversd", "liversdsul"),
    "recist": ("recist", "recist11", "recistresponse", "overallresponse", "ctresponse"),
}


@dataclass(frozen=True)
class PetCourse:
    """The PETs of one patient in the order of their days; the first is the baseline.

    ``recist`` is the RECIST 1.1 response at each, empty where it is not known; only PECRIT asks for it.
    """

    patient: str
    visits: tuple[PetVisit, ...]
    recist: tuple[str, ...] = ()


def read_pet(path: Path) -> tuple[PetCourse, ...]:
    """Read a table of uptake: patient, day or date, lesion, sul_peak; optional new, diameter_mm, liver_mean, liver_sd, recist.

    ``recist`` is the RECIST 1.1 response at that visit, which PECRIT asks for.
    An avid lesion has one row per PET. A PET without an avid lesion has one row without lesion and sul_peak. The first PET of a patient
    is the baseline.

    Raises
    ------
    InputError
        With every problem and its row.
    """
    header, raw = read_table(path)
    columns = find_columns(header, _COLUMNS)
    missing = [name for name in ("patient", "lesion", "sul") if name not in columns]
    if missing or not {"day", "date"} & set(columns):
        raise InputError(
            f"{path}: row 1: a table of uptake has patient, day (or date), lesion and sul_peak (found: {', '.join(header)})."
        )
    problems: list[str] = []
    found: dict[str, dict[int, list[PetLesion]]] = {}
    liver: dict[tuple[str, int], tuple[float | None, float | None]] = {}
    recist: dict[tuple[str, int], str] = {}
    first_dates: dict[str, str] = {}
    for number, cells in raw:
        row = {key: cells[index] if index < len(cells) else "" for key, index in columns.items()}
        try:
            day = _day(row, first_dates)
            values = {key: _number(row.get(key, "")) for key in ("sul", "diameter", "liver_mean", "liver_sd")}
        except ValueError as error:
            problems.append(f"{path}: row {number}: {error}")
            continue
        visits = found.setdefault(row["patient"], {})
        lesions = visits.setdefault(day, [])
        if values["liver_mean"] is not None:
            liver[row["patient"], day] = (values["liver_mean"], values["liver_sd"])
        letter = row.get("recist", "").upper()
        if letter in ("CR", "PR", "SD", "PD", "NE"):
            if recist.setdefault((row["patient"], day), letter) != letter:
                problems.append(f"{path}: row {number}: RECIST {letter} here and {recist[row['patient'], day]} before.")
        elif spelling(letter) not in ("", "na", "nd", "bl", "baseline"):
            problems.append(f"{path}: row {number}: RECIST response '{row['recist']}' is not known.")
        if not row["lesion"] and values["sul"] is None:
            continue
        if values["sul"] is None:
            problems.append(
                f"{path}: row {number}: lesion {row['lesion']} has no sul_peak. Leave out a lesion that is not avid."
            )
            continue
        if any(item.lesion == row["lesion"] for item in lesions):
            problems.append(
                f"{path}: row {number}: duplicate visit: lesion {row['lesion']} of {row['patient']} on day {day}."
            )
        new = row.get("new", "").strip().lower()
        is_new = new.startswith("new") or new in ("1", "yes", "y", "true")
        lesions.append(PetLesion(row["lesion"], values["sul"], is_new, values["diameter"]))
    if problems:
        raise InputError(problems)
    return tuple(
        PetCourse(
            patient,
            tuple(
                PetVisit(day, tuple(visits[day]), *liver.get((patient, day), (None, None))) for day in sorted(visits)
            ),
            tuple(recist.get((patient, day), "") for day in sorted(visits)),
        )
        for patient, visits in found.items()
    )


def _day(row: dict[str, str], first_dates: dict[str, str]) -> int:
    if not row["patient"]:
        raise ValueError("the patient is missing.")
    if row.get("day"):
        value = _number(row["day"], negative=True)
        if value is None or not value.is_integer():
            raise ValueError(f"day '{row['day']}' is not a whole number.")
        return int(value)
    text = row.get("date", "")
    try:
        return (parse_date(text) - parse_date(first_dates.setdefault(row["patient"], text))).days
    except ValueError:
        raise ValueError(f"date '{text}' is not understood. Write it as 2024-03-02.") from None


def _number(text: str, *, negative: bool = False) -> float | None:
    if text.strip().lower() in ("", ".", "-", "na", "nan"):
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise ValueError(f"'{text}' is not a number.") from None
    if value < 0 and not negative:
        raise ValueError(f"'{text}' is negative.")
    return value


def assess_pet(course: PetCourse, criteria: str, settings: PetSettings | None = None) -> tuple[PetResponse, ...]:
    """Return the response at every PET after the baseline by one of `PET_CRITERIA`."""
    baseline, *later = course.visits
    if criteria == "ipercist":
        return ipercist(baseline, later, settings)
    if criteria == "pecrit":
        letters = course.recist[1:] or ("",) * len(later)
        return tuple(pecrit(letter, baseline, visit, settings) for letter, visit in zip(letters, later, strict=True))
    if criteria == "percimt":
        return tuple(percimt(baseline, visit) for visit in later)
    judge = impercist5 if criteria == "impercist5" else percist
    return tuple(judge(baseline, visit, settings) for visit in later)


def pet_rows(course: PetCourse, responses: Sequence[PetResponse]) -> list[list[object]]:
    """Return the rows of `PET_COLUMNS` of one patient."""
    baseline, *later = course.visits
    return [
        [
            course.patient,
            visit.day,
            f"{baseline.hottest:g}",
            f"{visit.hottest:g}",
            item.change_percent,
            item.letter,
            item.rule,
        ]
        for visit, item in zip(later, responses, strict=True)
    ]


def pet_best_row(course: PetCourse, responses: Sequence[PetResponse]) -> list[object]:
    """Return the row of `PET_BEST_COLUMNS`: the best response before a (confirmed) progression and the day of that progression.

    PECRIT reads one early PET: its first reading that can be made counts, and it knows no progression of its own.
    """
    if any(item.letter in ("benefit", "no benefit") for item in responses):
        return [course.patient, next(item.letter for item in responses if item.letter != "NE"), None]
    final = "CPMD" if any(item.letter in ("UPMD", "CPMD") for item in responses) else "PMD"
    end = next((index for index, item in enumerate(responses) if item.letter == final), None)
    considered = responses if end is None else responses[: end + 1]
    best = min((item.letter for item in considered), key=_ORDER.index, default="NE")
    if best == "UPMD" and end is not None:
        best = "CPMD"
    if end is None:
        return [course.patient, best, None]
    start = end
    while final == "CPMD" and start > 0 and responses[start - 1].letter in ("UPMD", "NE"):
        start -= 1
    first = next(item for item in responses[start : end + 1] if item.letter != "NE")
    return [course.patient, best, first.day]
