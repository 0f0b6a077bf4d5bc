"""Tables of sums: growth rates of patients of whom only the sums of diameters at three scans are known."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import InvalidOperation
from pathlib import Path

from ..analysis import Definition, Kinetics
from ..errors import InputError
from .kinetics import GrowthWindow, assess_kinetics, short_interval_warnings
from .measurements import tenths
from .patterns import ClinicalCourse, FirstEvaluation, hyperprogression
from .recist import is_progression
from .text_table import EMPTY, find_columns, parse_date, parse_number, read_table, spelling

_SUMS: dict[str, tuple[str, ...]] = {
    "reference": ("presum", "prebaselinesum", "referencesum", "recistbefore", "sumbefore", "prebaseline"),
    "baseline": ("baselinesum", "recistbaseline", "sumbaseline"),
    "evaluation": ("eval1sum", "evaluationsum", "firstevaluationsum", "recisteval1", "sumeval1", "followupsum"),
}
_COLUMNS: dict[str, tuple[str, ...]] = {
    "patient": ("patient", "patientid", "subject", "subjectid", "usubjid", "subjid", "case", "caseid", "id"),
    "reference_days": ("refdays", "referencedays"),
    "evaluation_days": ("expdays", "experimentaldays", "evaluationdays"),
    "reference_date": ("scandatebefore", "predate", "prebaselinedate", "referencescandate"),
    "baseline_date": ("scandatebaseline", "baselinedate"),
    "evaluation_date": ("scandateeval1", "eval1date", "evaluationdate"),
    "pd": ("pd", "recistpd", "progression", "pdatfirstevaluation"),
}
_YES, _NO = ("1", "yes", "y", "true", "pd"), ("0", "no", "n", "false", "cr", "pr", "sd")
RATES = (
    "tgr_reference_percent_per_month",
    "tgr_experimental_percent_per_month",
    "tgr_ratio",
    "tgr_difference_percent_per_month",
    "tgk_reference_mm_per_month",
    "tgk_experimental_mm_per_month",
    "tgk_ratio",
    "doubling_time_days",
)


@dataclass(frozen=True)
class GrowthOfSums:
    """The growth rates of one patient and the answer of every definition of hyperprogression that sums allow."""

    patient: str
    window: GrowthWindow
    kinetics: Kinetics
    hyperprogression: tuple[Definition, ...]


def growth_of_sums(
    reference_mm: float | None,
    baseline_mm: float,
    evaluation_mm: float | None,
    reference_days: float | None,
    evaluation_days: float | None,
    *,
    progressed: bool | None = None,
    patient: str = "",
) -> GrowthOfSums:
    """Return the growth before and after the baseline from three sums of diameters in mm.

    ``reference_days`` is the time from the scan before the baseline to it, ``evaluation_days`` from the baseline to the first
    evaluation. ``progressed`` says whether that evaluation was PD; None takes it from the sums. What is None is not
    assessable. The formulas are those of `tumour_growth_rate` and `tumour_growth_kinetics`.
    """
    before = None if reference_mm is None or reference_days is None else -reference_days
    after = None if evaluation_mm is None else evaluation_days
    window = GrowthWindow(
        before,
        after,
        None if before is None else reference_mm,
        baseline_mm,
        None if after is None else evaluation_mm,
        (),
        warnings=tuple(short_interval_warnings(before, after)),
    )
    kinetics = assess_kinetics(window)
    first = None
    if after is not None and evaluation_mm is not None:
        by_sum = is_progression(tenths(evaluation_mm), tenths(baseline_mm))
        first = FirstEvaluation(
            after,
            by_sum if progressed is None else progressed,
            baseline_mm,
            evaluation_mm,
            (),
            frozenset(),
            organs_known=False,
            searched=False,
        )
    return GrowthOfSums(patient, window, kinetics, hyperprogression(kinetics, window, first, ClinicalCourse()))


def _sum_columns(header: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return where each sum is and how many mm its unit has."""
    found: dict[str, tuple[int, int]] = {}
    for index, name in enumerate(header):
        bare = spelling(name)
        stem = re.sub(r"(mm|cm)$", "", bare)
        for key, synonyms in _SUMS.items():
            if stem in synonyms:
                found.setdefault(key, (index, 10 if bare.endswith("cm") else 1))
    return found


def is_growth_table(header: Sequence[str]) -> bool:
    """Whether a header is that of a table of sums: it has those of the baseline and of an evaluation."""
    return {"baseline", "evaluation"} <= set(_sum_columns(header))


def read_sums(path: Path) -> tuple[GrowthOfSums, ...]:
    """Read a table of sums of diameters, one row per patient, and return their growth.

    Columns: patient, pre_sum_mm, baseline_sum_mm, eval1_sum_mm, and the times between the scans as ref_days and exp_days, or
    their dates as pre_date, baseline_date and eval1_date; optional pd, whether the evaluation was progression. Sums may be in
    cm by their header. Dates with slashes are read if some date of the table tells day and month apart.

    Raises
    ------
    InputError
        With every problem and its row.
    """
    header, raw = read_table(path)
    columns, sums = find_columns(header, _COLUMNS), _sum_columns(header)
    timed = "evaluation_days" in columns or {"baseline_date", "evaluation_date"} <= set(columns)
    if not {"baseline", "evaluation"} <= set(sums) or not timed:
        raise InputError(
            f"{path}: row 1: a table of sums has patient, pre_sum_mm, baseline_sum_mm, eval1_sum_mm, and ref_days and exp_days "
            f"or dates of the scans (found: {', '.join(header)})."
        )
    dates = [columns[key] for key in ("reference_date", "baseline_date", "evaluation_date") if key in columns]
    form = _slash_form(cells[index] for _, cells in raw for index in dates if index < len(cells))
    problems: list[str] = []
    result = []
    for number, cells in raw:
        try:
            result.append(_row(number, cells, columns, sums, form))
        except ValueError as error:
            problems.append(f"{path}: row {number}: {error}")
    if problems:
        raise InputError(problems)
    return tuple(result)


def _row(
    number: int, cells: Sequence[str], columns: dict[str, int], sums: dict[str, tuple[int, int]], form: str | None
) -> GrowthOfSums:
    def cell(index: int | None) -> str:
        text = cells[index] if index is not None and index < len(cells) else ""
        return "" if text.lower() in EMPTY else text

    def size(key: str) -> float | None:
        if key not in sums:
            return None
        index, factor = sums[key]
        try:
            value = parse_number(cell(index))
        except InvalidOperation:
            raise ValueError(f"{key} sum '{cell(index)}' is not a number.") from None
        if value is not None and value < 0:
            raise ValueError(f"{key} sum {cell(index)} is negative.")
        return None if value is None else float(value * factor)

    def days(key: str, first: str, second: str) -> float | None:
        text = cell(columns.get(key))
        if text:
            try:
                number = parse_number(text)
            except InvalidOperation:
                raise ValueError(f"{key.replace('_', ' ')} '{text}' is not a number.") from None
            interval = float(number or 0)
        else:
            ends = [cell(columns.get(name)) for name in (first, second)]
            if not all(ends):
                return None
            interval = float((_date(ends[1], form) - _date(ends[0], form)).days)
        if interval <= 0:
            raise ValueError(
                f"the {key.removesuffix('_days')} period is {interval:g} days; the scans are in the wrong order."
            )
        return interval

    baseline = size("baseline")
    if not baseline:
        raise ValueError("the baseline sum is missing or 0.")
    text = spelling(cell(columns.get("pd")))
    if text and text not in (*_YES, *_NO):
        raise ValueError(f"pd '{cell(columns.get('pd'))}' is not understood. Use yes or no.")
    return growth_of_sums(
        size("reference"),
        baseline,
        size("evaluation"),
        days("reference_days", "reference_date", "baseline_date"),
        days("evaluation_days", "baseline_date", "evaluation_date"),
        progressed=None if not text else text in _YES,
        patient=cell(columns.get("patient")) or f"row {number}",
    )


def _slash_form(texts: Iterable[str]) -> str | None:
    """Return the order of day and month in dates with slashes where one of them can only be read one way."""
    parts = [match.groups() for text in texts if (match := re.fullmatch(r"(\d{1,2})/(\d{1,2})/\d{4}", text))]
    month_first = any(int(second) > 12 for _, second in parts)
    day_first = any(int(first) > 12 for first, _ in parts)
    return None if month_first == day_first else "%m/%d/%Y" if month_first else "%d/%m/%Y"


def _date(text: str, form: str | None) -> datetime.date:
    try:
        if form and "/" in text:
            return datetime.datetime.strptime(text, form).date()
        return parse_date(text)
    except ValueError:
        raise ValueError(f"date '{text}' is not understood. Write it as 2024-03-02.") from None


def growth_rows(found: Sequence[GrowthOfSums]) -> tuple[Sequence[str], list[list[object]]]:
    """Return the header and the rows of the table of growth: intervals, rates, warnings and the answer of every definition."""
    definitions = [item.id for item in found[0].hyperprogression] if found else []
    rows: list[list[object]] = [
        [
            item.patient,
            None if item.window.reference_day is None else f"{-item.window.reference_day:g}",
            None if item.window.evaluation_day is None else f"{item.window.evaluation_day:g}",
            *rates_of(item.kinetics),
            *(definition.answer for definition in item.hyperprogression),
            " ".join(item.kinetics.warnings),
        ]
        for item in found
    ]
    return ("patient", "reference_days", "experimental_days", *RATES, *definitions, "warnings"), rows


def rates_of(kinetics: Kinetics) -> list[str | None]:
    """Return the `RATES` in text, to ten digits; None where one is not assessable."""
    values = [getattr(kinetics, rate) for rate in RATES]
    return [None if value is None else f"{value:.10g}" for value in values]
