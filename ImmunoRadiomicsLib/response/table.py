"""``immunoradiomics respond``: from a table of measurements, visit responses, uptake or sums to tables of responses."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..analysis import Response, Visit
from ..errors import InputError
from ..files import whole_file
from .burden import CRITERIA as BURDEN_CRITERIA
from .burden import BurdenVisit, assess_burden, best_burden
from .engine import ResponseSettings, respond, too_many
from .growth_table import RATES, growth_rows, is_growth_table, rates_of, read_sums
from .irecist import IrecistSettings
from .pet_table import (
    PET_BEST_COLUMNS,
    PET_COLUMNS,
    PET_CRITERIA,
    assess_pet,
    pet_best_row,
    pet_rows,
    read_pet,
)
from .reading import PatientMeasurements, read_measurements
from .recist import BestResponseSettings
from .settings import setting_names, with_settings
from .text_table import read_table
from .uncertainty import READER_SD_LN_DIAMETER
from .visit_table import best_of_visits, is_visit_table, read_visit_responses

RESPONSE_COLUMNS = (
    "patient", "day", "sum_mm", "baseline_mm", "nadir_mm", "target", "non_target", "new_lesion", "recist", "irecist", "rule",
)  # fmt: skip
BEST_COLUMNS = ("patient", "bor", "confirmed_bor", "ibor", "progression_day")
CRITERIA = ("recist1.1", "irecist", *BURDEN_CRITERIA, *PET_CRITERIA, "growth")
_MOST_MESSAGES = 20


@dataclass(frozen=True)
class TableSettings:
    """What `respond_table` is asked to do beyond the criteria; see `ResponseSettings`.

    ``prebaseline`` accepts visits before the baseline; ``narrative``, ``growth``, ``warnings`` and ``plots`` are further files
    (a folder of them) to write.
    """

    response: ResponseSettings = field(default_factory=ResponseSettings)
    prebaseline: bool = False
    narrative: Path | None = None
    growth: Path | None = None
    warnings: Path | None = None
    plots: Path | None = None


@dataclass(frozen=True)
class TableResult:
    """The files that were written, what the reader had to assume or doubts, and the warnings of each patient's response."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def respond_table(table: Path, criteria: str, out: Path, *, settings: TableSettings | None = None) -> TableResult:
    """Apply response criteria to every patient of a table and write the result.

    A table of measurements (see `read_measurements`) gives ``out`` with a row per visit and `best.csv` beside it with a row per
    patient. A table of visit responses (patient, day, response) gives ``out`` with a row per patient. RECIST 1.1 and iRECIST are
    always given; ``criteria`` decides whose sums, nadir, target response, rule and progression day are, and adds a column for
    any other criterion. The metabolic criteria read a table of uptake instead (see `read_pet`); `growth`, or a table of sums (see
    `read_sums`), gives growth rates and every definition of hyperprogression, one row per patient. Days are those of the table; the least duration of stable disease counts from day 0 of the table, or
    from the baseline where that is later.

    Nothing is written unless everything could be computed, and no file is ever half-written.

    Raises
    ------
    InputError
        If the criteria are not known or the table is wrong; every problem is listed with its row.
    """
    settings = settings or TableSettings()
    name = _criterion(criteria)
    immune = name == "irecist"
    beside = out.with_name("best.csv")
    if name in PET_CRITERIA:
        _not_beside(out, beside)
        courses = [(course, assess_pet(course, name)) for course in read_pet(table)]
        return TableResult(
            _write_all(
                {
                    out: (PET_COLUMNS, [row for course, found in courses for row in pet_rows(course, found)]),
                    beside: (PET_BEST_COLUMNS, [pet_best_row(course, found) for course, found in courses]),
                }
            )
        )
    header, _ = read_table(table)
    if is_growth_table(header):
        return TableResult(_write_all({out: growth_rows(read_sums(table))}))
    if is_visit_table(header) and name != "growth":
        visits = read_visit_responses(table)
        best = [
            best_of_visits(patient, settings.response.best, settings.response.irecist, immune=immune)
            for patient in visits.patients
        ]
        return TableResult(_write_all({out: (BEST_COLUMNS, best)}), visits.notes)
    if name != "growth":
        _not_beside(out, beside)
    read = read_measurements(table, prebaseline=settings.prebaseline or name == "growth")
    response = replace(settings.response, criterion="irecist" if immune else "recist1.1")
    results = [(patient, _respond(patient, response)) for patient in read.patients]
    if name == "growth":
        return TableResult(_write_all({out: _growth_table(results)}), read.notes)
    extra = {patient.patient: _burden(patient, name) for patient in read.patients} if name in BURDEN_CRITERIA else {}
    column = name.replace("-", "_")
    files: dict[Path, tuple[Sequence[str], Iterable[Sequence[object]]] | str] = {
        out: (
            (*RESPONSE_COLUMNS, column) if extra else RESPONSE_COLUMNS,
            [
                row
                for patient, result in results
                for row in _rows(patient, result, extra.get(patient.patient), immune=immune)
            ],
        ),
        beside: (
            (*BEST_COLUMNS, column) if extra else BEST_COLUMNS,
            [
                _best_row(patient, result, name, extra.get(patient.patient), response.best)
                for patient, result in results
            ],
        ),
    }
    if settings.narrative is not None:
        files[settings.narrative] = "".join(f"{patient.patient}: {result.narrative}\n" for patient, result in results)
    if settings.growth is not None:
        files[settings.growth] = _growth_table(results)
    warnings = tuple(text for patient, result in results for text in _warnings(table, patient, result))
    if settings.warnings is not None:
        files[settings.warnings] = "".join(f"{text}\n" for text in warnings)
    if settings.plots is not None:
        from .plots import cohort_plots

        for plot, svg in cohort_plots(
            [(patient.patient, patient.day_offset, result) for patient, result in results]
        ).items():
            files[settings.plots / f"{plot}.svg"] = svg
    return TableResult(_write_all(files), read.notes, warnings)


def _warnings(table: Path, patient: PatientMeasurements, result: Response) -> list[str]:
    """Return the warnings of one patient, with the rows of the lesions where there are too many of them."""
    first_row = dict(patient.first_row)
    rows = {
        text: ", ".join(str(number) for number in sorted(first_row[lesion] for lesion in lesions))
        for text, lesions in too_many(patient.measurements)
    }
    return [
        f"{table}: rows {rows[text]}: {patient.patient} has {text}" if text in rows else f"{patient.patient}: {text}"
        for text in result.warnings
    ]


def _not_beside(out: Path, beside: Path) -> None:
    if beside == out:
        raise InputError(f"{out}: best.csv is the name of the table beside the responses. Choose another name.")


def _criterion(text: str) -> str:
    bare = text.lower().replace(" ", "").replace("_", "-")
    name = {"recist": "recist1.1", "recist11": "recist1.1", "recist-1.1": "recist1.1", "i-recist": "irecist"}.get(
        bare, bare
    )
    if name not in CRITERIA:
        raise InputError(f"criteria '{text}' are not known. Use one of {', '.join(CRITERIA)}.")
    return name


def _respond(patient: PatientMeasurements, settings: ResponseSettings) -> Response:
    return respond(
        patient.measurements,
        settings=settings,
        treatment_start_day=patient.treatment_start_day,
        volumes_ml={(lesion, day): volume for lesion, day, volume in patient.volumes_ml} or None,
        ecog=dict(patient.ecog) or None,
        symptoms_worse=dict.fromkeys(patient.symptoms_worse, True) or None,
    )


def _burden(patient: PatientMeasurements, name: str) -> tuple[BurdenVisit, ...]:
    volumes = {(lesion, day): volume for lesion, day, volume in patient.volumes_ml}
    return assess_burden(patient.measurements, BURDEN_CRITERIA[name], volumes_ml=volumes)


def _rows(
    patient: PatientMeasurements, result: Response, burden: Sequence[BurdenVisit] | None, *, immune: bool
) -> Iterable[list[object]]:
    other = {visit.day: visit for visit in burden or ()}
    for visit in result.visits:
        rule = visit.irecist_rule if immune else visit.rule
        if immune and visit.confirmation:
            rule += f". To confirm: {visit.confirmation}"
        rule += _in_words(visit)
        row: list[object] = [
            patient.patient,
            visit.day + patient.day_offset,
            visit.sum_mm,
            visit.baseline_mm,
            visit.nadir_mm,
            visit.target,
            visit.non_target,
            visit.new_lesion,
            visit.recist,
            visit.irecist,
            rule,
        ]
        if burden is not None:
            judged = other[visit.day]
            row[-1] = judged.rule
            row.append(judged.letter)
        yield row


def _in_words(visit: Visit) -> str:
    """Say how probable it is, given the error of readers, that the true change crosses each threshold."""
    chances = [
        f"{name} {value:.0%}"
        for name, value in (
            ("progression", visit.probability_of_progression),
            ("response", visit.probability_of_response),
            ("further growth", visit.probability_of_further_growth),
        )
        if value is not None
    ]
    return f". Probability that the true change of the targets is one of: {', '.join(chances)}" if chances else ""


def _best_row(
    patient: PatientMeasurements,
    result: Response,
    name: str,
    burden: Sequence[BurdenVisit] | None,
    settings: BestResponseSettings,
) -> list[object]:
    day = result.progression_day
    row: list[object] = [
        patient.patient,
        result.best_recist,
        result.best_recist_confirmed,
        result.best_irecist,
        None if day is None else day + patient.day_offset,
    ]
    if burden is not None:
        row.append(best_burden(burden, BURDEN_CRITERIA[name], settings))
    return row


def _growth_table(
    results: Sequence[tuple[PatientMeasurements, Response]],
) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    """Return growth rates and the answer of every atypical pattern, one row per patient."""
    patterns: list[str] = []
    rows = []
    for patient, result in results:
        definitions = (*result.hyperprogression, *result.dissociated, result.pseudoprogression)
        patterns = [item.id for item in definitions]
        rows.append([patient.patient, *rates_of(result.kinetics), *(item.answer for item in definitions)])
    return ("patient", *RATES, *patterns), rows


def _text(value: object) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _write_all(
    files: Mapping[Path, tuple[Sequence[str], Iterable[Sequence[object]]] | str],
) -> tuple[Path, ...]:
    """Write every file beside its place first and give them their names only when all are complete."""
    try:
        with ExitStack() as stack:
            for path, content in files.items():
                temporary = stack.enter_context(whole_file(path))
                if isinstance(content, str):
                    temporary.write_text(content, encoding="utf-8", newline="\n")
                    continue
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerow(content[0])
                    writer.writerows([_text(value) for value in row] for row in content[1])
    except OSError as error:
        raise InputError(f"{error.filename or 'output'}: cannot be written ({error.strerror}).") from None
    return tuple(files)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``respond`` on a table to a parser."""
    parser.add_argument(
        "measurements",
        type=Path,
        metavar="MEASUREMENTS.csv",
        help="measurements, visit responses, uptake (metabolic criteria), or sums of diameters (growth)",
    )
    parser.add_argument("--criteria", default="irecist", help=f"one of {', '.join(CRITERIA)} (default: irecist)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RESPONSE.csv", help="the table of responses to write"
    )
    parser.add_argument("--confirm-days", type=int, default=28, help="least time from a response to its confirmation")
    parser.add_argument("--min-sd-days", type=int, default=42, help="least duration of stable disease")
    parser.add_argument(
        "--max-ne", type=int, default=1, help="NE visits allowed between a response and its confirmation"
    )
    parser.add_argument("--accept-sd", action="store_true", help="accept one SD between a PR and its confirmation")
    parser.add_argument(
        "--keep-after-pd", action="store_true", help="let visits after the first PD count for best responses"
    )
    parser.add_argument("--missing-as-ne", action="store_true", help="no assessment at all is NE, not MISSING")
    parser.add_argument(
        "--tolerance-days", type=int, default=0, help="how much earlier than 28 days a scan may confirm iUPD"
    )
    parser.add_argument(
        "--stable-new-lesion",
        choices=("smaller sum", "keep", "reset"),
        default="smaller sum",
        help="what an unchanged new lesion means after iUPD",
    )
    parser.add_argument(
        "--pseudoprogression",
        choices=("any", "response"),
        default="any",
        help="what makes the label: any later non-progression",
    )
    parser.add_argument(
        "--reader-sd",
        type=float,
        default=READER_SD_LN_DIAMETER,
        help="standard deviation of ln(diameter) between your readers (default: %(default)s)",
    )
    parser.add_argument(
        "--prebaseline", action="store_true", help="accept visits before the baseline (for growth rates)"
    )
    parser.add_argument("--growth", type=Path, metavar="FILE.csv", help="also write growth rates and atypical patterns")
    parser.add_argument("--narrative", type=Path, metavar="FILE.txt", help="also write the findings in words")
    add_setting(parser)
    parser.add_argument("--warnings", type=Path, metavar="FILE.txt", help="also write all warnings")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also draw spider, waterfall and swimmer plots (SVG)")


def add_setting(parser: argparse.ArgumentParser) -> None:
    """Add the choices of a protocol, which hold for a table and for images alike."""
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"any other choice where the criteria leave one, repeatable: {', '.join(setting_names())}",
    )


def run(args: argparse.Namespace) -> int:
    """Run ``respond`` on a table and return the exit code; wrong input raises InputError (exit code 2)."""
    numbers = {
        "--confirm-days": args.confirm_days,
        "--min-sd-days": args.min_sd_days,
        "--max-ne": args.max_ne,
        "--tolerance-days": args.tolerance_days,
        "--reader-sd": args.reader_sd,
    }
    wrong = [
        f"{name} {value}: must be a number of at least 0."
        for name, value in numbers.items()
        if not (math.isfinite(value) and value >= 0)
    ]
    if wrong:
        raise InputError(wrong)
    response = with_settings(
        ResponseSettings(
            irecist=IrecistSettings(tolerance_days=args.tolerance_days, stable_new_lesion=args.stable_new_lesion),
            best=BestResponseSettings(
                min_sd_days=args.min_sd_days,
                confirm_days=args.confirm_days,
                max_ne=args.max_ne,
                accept_sd=args.accept_sd,
                missing_as_ne=args.missing_as_ne,
                drop_after_pd=not args.keep_after_pd,
            ),
            reader_sd_ln_diameter=args.reader_sd,
            pseudoprogression=args.pseudoprogression,
        ),
        args.setting,
    )
    settings = TableSettings(
        response,
        prebaseline=args.prebaseline,
        narrative=args.narrative,
        growth=args.growth,
        warnings=args.warnings,
        plots=args.plots,
    )
    result = respond_table(args.measurements, args.criteria, args.out, settings=settings)
    messages = (*result.notes, *result.warnings)
    for text in messages[:_MOST_MESSAGES]:
        print(text, file=sys.stderr)
    if len(messages) > _MOST_MESSAGES:
        print(f"and {len(messages) - _MOST_MESSAGES} more; --warnings FILE.txt writes all.", file=sys.stderr)
    return 0
