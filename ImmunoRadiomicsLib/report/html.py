"""The page of one patient: one HTML file that needs no network, no script and no other file.

The words and numbers of the page are those of the ``Analysis``; this module only arranges and formats them. Every value goes through the
template's escaping, so that a name in the study cannot become markup.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from ..analysis import (
    AlignmentRecord,
    Analysis,
    Definition,
    Evidence,
    Flag,
    Lesion,
    LesionObservation,
    LungChange,
    TimepointRecord,
    Visit,
)
from ..errors import MissingDependencyError
from ..files import write_text
from .charts import Bar, Waterfall, lesion_chart, signed, sum_chart, waterfall
from .figures import KeyImage, Panel
from .measures import RESPONSE_AXIS, change_percent, days, reference_observation, response_size_mm

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

MISSING = "–"
LARGEST_PER_LESION = 3

_DOI = re.compile(r"\b(?:https?://(?:dx\.)?doi\.org/|doi:?\s*)?(10\.\d{4,9}/[^\s,;\"<>]*[^\s,;.\"<>()])", re.IGNORECASE)
_TERMS = ("TGR", "TGK", "TTF", "PD", "ECOG", "LDH", "HU", "HAA", "LAA", "RECIST", "NLR", "iUPD", "iCPD", "iRECIST")
_SPELLING = {term.lower(): term for term in _TERMS}
_UNITS = (
    ("_percent_per_month", "% per month"),
    ("_mm_per_month", "mm per month"),
    ("_points_per_month", "points per month"),
    ("_percent", "%"),
    ("_mm", "mm"),
    ("_ml", "ml"),
    ("_hu", "HU"),
    ("_days", "days"),
    ("_months", "months"),
)


@dataclass(frozen=True)
class LesionCell:
    """One lesion at one time point, as words."""

    size: str
    change: str
    volume: str
    event: str
    note: int | None


@dataclass(frozen=True)
class LesionRow:
    """One lesion over time."""

    lesion: Lesion
    axis: str
    cells: tuple[LesionCell, ...]


@dataclass(frozen=True)
class VisitColumn:
    """The sums that stand under a time point in the lesion table; None where there is no visit."""

    timepoint: TimepointRecord
    visit: Visit | None


@dataclass(frozen=True)
class FlagView:
    """A flag with what is drawn of it: the evidence that counted, each with its bar, and what was only looked at."""

    flag: Flag
    waterfall: Waterfall | None
    used: tuple[tuple[Evidence, Bar | None], ...]
    others: tuple[Evidence, ...]
    definitions: tuple[Definition, ...]


@dataclass(frozen=True)
class LargestChange:
    """One of the largest changes of a lesion's radiomics."""

    lesion: str
    region: str
    feature: str
    earlier: str
    later: str
    before: float | None
    after: float | None
    relative: float
    per_month: float | None


@dataclass(frozen=True)
class RadiomicsView:
    """What is said of the radiomics: counts, what could not be measured, and the largest changes."""

    features: int
    regions: int
    values: int
    undefined: int
    reasons: tuple[str, ...]
    largest: tuple[LargestChange, ...]


@dataclass(frozen=True)
class LesionPictures:
    """The pictures of a lesion, a column per time point: as it is, and below or beside it on the baseline."""

    group: KeyImage
    columns: tuple[tuple[Panel, ...], ...]


@dataclass(frozen=True)
class LungMap:
    """The new opacity of one follow-up by thirds of the lungs, as a reader faces the patient: right lung at the left."""

    timepoint: str
    rows: tuple[tuple[str, LungChange | None, LungChange | None], ...]


@lru_cache(maxsize=1)
def _template() -> Template:
    """Return the page's template, which takes half a second to compile: once for all patients of a process."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError("The report needs jinja2. Install it: pip install jinja2") from error

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        general=general,
        signed=_signed,
        percent=percent,
        sourced=sourced,
        words=words,
        sentence=sentence,
        data_uri=data_uri,
        css_string=css_string,
    )
    return environment.get_template("report.html.jinja")


def render_report(analysis: Analysis, images: Sequence[KeyImage]) -> str:
    """Return the page as text.

    Parameters
    ----------
    analysis
        The whole result of one patient.
    images
        Pictures from ``key_images``; none is needed for a valid page.

    Raises
    ------
    MissingDependencyError
        If jinja2 is not installed.
    """
    notes: list[str] = []
    return _template().render(
        a=analysis,
        days={item.name: item for item in analysis.timepoints},
        pending=pending_visit(analysis),
        cautions=cautions(analysis),
        flags=tuple(_flag_view(analysis, flag) for flag in analysis.flags),
        columns=visit_columns(analysis),
        rows=lesion_rows(analysis, notes),
        notes=notes,
        charts=tuple(chart for chart in (sum_chart(analysis), lesion_chart(analysis)) if chart is not None),
        kinetics=kinetics_rows(analysis),
        lesion_images=tuple(_lesion_pictures(analysis, item) for item in images if item.kind == "lesion"),
        overview_images=tuple(item for item in images if item.kind == "overview"),
        alignment_images=tuple(item for item in images if item.kind == "alignment"),
        lung_maps=lung_maps(analysis),
        lung_images=tuple(item for item in images if item.kind == "lungs"),
        without_map=without_map(analysis),
        alignment_words={item.timepoint: alignment_words(item) for item in analysis.alignments},
        radiomics=_radiomics(analysis),
        quantities=quantities,
        MISSING=MISSING,
    )


def write_report(analysis: Analysis, images: Sequence[KeyImage], path: Path) -> None:
    """Write the page of one patient; the file is either whole or absent."""
    write_text(Path(path), render_report(analysis, images))


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with fixed digits and a true minus, or a dash where it is not known."""
    if not _known(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def general(value: float | None) -> str:
    """Return a number of unknown magnitude with four figures."""
    return f"{value:.4g}".replace("-", "−") if _known(value) else MISSING


def _signed(value: float | None, digits: int = 0) -> str:
    return signed(value, digits) if _known(value) else MISSING


def percent(probability: float | None) -> str:
    """Return a probability in whole %, and "below 1 %" or "above 99 %" where rounding would claim certainty."""
    if not _known(probability):
        return MISSING
    if probability < 0.01:
        return "below 1 %"
    if probability > 0.99:
        return "above 99 %"
    return f"{100 * probability:.0f} %"


def words(name: str) -> str:
    """Return an identifier as words, the terms of the field spelt as they are."""
    return " ".join(_SPELLING.get(word, word) for word in name.split("_"))


def sentence(text: str) -> str:
    """Return text as a sentence: a capital in front, unless the first word is a term such as iUPD, and a full stop."""
    if not text:
        return ""
    return _stopped(text if text[1:2].isupper() else text[:1].upper() + text[1:])


def _stopped(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def quantities(numbers: Mapping[str, float | None]) -> tuple[str, ...]:
    """Return named numbers as "name value unit", the unit taken from the end of the name."""
    said = []
    for name, value in numbers.items():
        stem, unit = next(((name[: -len(end)], unit) for end, unit in _UNITS if name.endswith(end)), (name, ""))
        shown = f"{general(value)} {unit}".rstrip() if _known(value) else "not known"
        said.append(f"{words(stem)} {shown}")
    return tuple(said)


def sourced(text: str) -> Markup:
    """Return a source, escaped, with each DOI as a link to it."""
    from markupsafe import Markup, escape

    pieces = []
    end = 0
    for match in _DOI.finditer(text):
        doi = match.group(1)
        pieces.append(escape(text[end : match.start()]))
        pieces.append(Markup('<a href="https://doi.org/{0}">doi:{0}</a>').format(doi))
        end = match.end()
    pieces.append(escape(text[end:]))
    return Markup("").join(pieces)


def data_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def css_string(text: str) -> str:
    """Return text as the inside of a CSS string, every character written by its code."""
    return "".join(f"\\{ord(character):x} " for character in text)


def pending_visit(analysis: Analysis) -> Visit | None:
    """Return the visit whose progression by iRECIST still waits for its confirmation, None if there is none."""
    assessed = [item for item in analysis.response.visits if item.irecist not in ("", "NE")]
    latest = max(assessed, key=lambda item: item.day, default=None)
    return latest if latest is not None and latest.irecist == "iUPD" else None


def cautions(analysis: Analysis) -> tuple[str, ...]:
    """Return everything that limits what this analysis can say, each once, in the order of the stages."""
    found = list(analysis.warnings)
    for alignment in analysis.alignments:
        said = any(alignment.timepoint in item and "alignment" in item for item in found)
        if alignment.quality.verdict != "good" and not said:
            reasons = "; ".join(alignment.quality.reasons) or "no reason given"
            verdict = {"usable": "is usable with care", "failed": "failed"}[alignment.quality.verdict]
            found.append(f"The alignment of {alignment.timepoint} {verdict}: {reasons}")
    for lesion in analysis.lesions:
        found += [
            f"Check {lesion.id} at {seen.timepoint}: {seen.check}"
            for seen in lesion.observations
            if seen.check is not None
        ]
    found += analysis.response.warnings
    found += analysis.response.kinetics.warnings
    found += [
        f"The change of the lungs at {item.timepoint} is not assessable: {item.reason}"
        for item in analysis.lung_changes
        if not item.assessable and item.part == "both"
    ]
    return tuple(dict.fromkeys(_stopped(item) for item in found))


def alignment_words(record: AlignmentRecord) -> str:
    """Return the quality of an alignment as a sentence."""
    quality = record.quality
    said = {
        "good": "Good: positions and registered pictures can be compared",
        "usable": "Usable with care: compare registered pictures with the unregistered ones",
        "failed": "Failed: do not rely on registered pictures or on what is derived from them",
    }[quality.verdict]
    if quality.expected_error_mm is not None:
        said += f"; expected median error {quality.expected_error_mm:.1f} mm"
    if quality.reasons:
        reasons = "; ".join(quality.reasons).rstrip(".")
        said += f". {reasons[:1].upper()}{reasons[1:]}"
    return said + "."


def visit_columns(analysis: Analysis) -> tuple[VisitColumn, ...]:
    """Return each time point with its visit."""
    visits = {item.timepoint: item for item in analysis.response.visits}
    return tuple(VisitColumn(item, visits.get(item.name)) for item in analysis.timepoints)


def lesion_rows(analysis: Analysis, notes: list[str]) -> tuple[LesionRow, ...]:
    """Return the lesion table; what a person should look at is added to ``notes`` and numbered in the cell."""
    rows = []
    for lesion in analysis.lesions:
        start = reference_observation(analysis, lesion)
        cells = []
        for timepoint in analysis.timepoints:
            seen = lesion.at(timepoint.name)
            note = None
            if seen is not None and seen.check is not None:
                notes.append(f"{lesion.id}, {timepoint.name}: {seen.check}")
                note = len(notes)
            change = None if seen is start else change_percent(analysis, lesion, start, seen)
            cells.append(_lesion_cell(lesion, seen, change, note))
        rows.append(LesionRow(lesion, RESPONSE_AXIS[lesion.node], tuple(cells)))
    return tuple(rows)


def _lesion_cell(lesion: Lesion, seen: LesionObservation | None, change: float | None, note: int | None) -> LesionCell:
    if seen is None:
        return LesionCell(MISSING, "", "", "", note)
    size = response_size_mm(lesion, seen)
    measured = size is not None and seen.status != "absent"
    shown = f"{size:.1f}" if measured else MISSING if seen.status == "measured" else seen.status
    event = {"baseline": "", "present": ""}.get(seen.event, seen.event)
    if seen.merged_into is not None:
        event = f"merged into {seen.merged_into}"
    elif seen.event == "split" and len(seen.segments) > 1:
        event = f"split into {len(seen.segments)}"
    elif measured and seen.status != "measured":
        event = seen.status
    volume = seen.volume_ml if measured else None
    return LesionCell(
        size=shown,
        change="" if change is None else f"{signed(change)} %",
        volume="" if volume is None else f"{volume:.{1 if volume >= 1 else 2}f} ml",
        event="" if event == shown else event,
        note=note,
    )


def _flag_view(analysis: Analysis, flag: Flag) -> FlagView:
    """Return a flag with its definitions, those of the response criteria included, each once."""
    further: Iterable[Definition] = ()
    if flag.flag == "pseudoprogression":
        further = (analysis.response.pseudoprogression,)
    elif flag.flag == "hyperprogression":
        further = analysis.response.hyperprogression
    elsewhere = {item.id for item in analysis.response.dissociated}
    unique = {item.id: item for item in (*flag.definitions, *further) if item.id not in elsewhere}
    drawn = waterfall(flag)
    bars = drawn.steps if drawn is not None else (None,) * len(flag.evidence)
    used = tuple((item, bar) for item, bar in zip(flag.evidence, bars, strict=True) if item.use == "used")
    others = tuple(item for item in flag.evidence if item.use != "used")
    return FlagView(flag, drawn, used, others, tuple(unique.values()))


def _lesion_pictures(analysis: Analysis, group: KeyImage) -> LesionPictures:
    columns = (
        tuple(panel for panel in group.panels if panel.timepoint == timepoint.name) for timepoint in analysis.timepoints
    )
    return LesionPictures(group, tuple(column for column in columns if column))


def kinetics_rows(
    analysis: Analysis,
) -> tuple[tuple[str, str, float | None, float | None, float | None, float | None], ...]:
    """Return the growth rates: name, unit, before, after the baseline, ratio, difference."""
    rates = analysis.response.kinetics
    return (
        (
            "Tumour growth rate (TGR)",
            "% volume per month",
            rates.tgr_reference_percent_per_month,
            rates.tgr_experimental_percent_per_month,
            rates.tgr_ratio,
            rates.tgr_difference_percent_per_month,
        ),
        (
            "Tumour growth kinetics (TGK)",
            "mm per month",
            rates.tgk_reference_mm_per_month,
            rates.tgk_experimental_mm_per_month,
            rates.tgk_ratio,
            None,
        ),
        (
            "Growth of the segmented volume",
            "% per month",
            rates.volume_growth_reference_percent_per_month,
            rates.volume_growth_experimental_percent_per_month,
            None,
            None,
        ),
    )


def lung_maps(analysis: Analysis) -> tuple[LungMap, ...]:
    """Return the new opacity by thirds for each follow-up in which thirds were compared."""
    maps = []
    for timepoint in analysis.timepoints:
        parts = {item.part: item for item in analysis.lung_changes if item.timepoint == timepoint.name}
        rows = tuple(
            (third, parts.get(f"right-{third}"), parts.get(f"left-{third}")) for third in ("upper", "middle", "lower")
        )
        if any(right is not None or left is not None for _, right, left in rows):
            maps.append(LungMap(timepoint.name, rows))
    return tuple(maps)


def without_map(analysis: Analysis) -> tuple[str, ...]:
    """Return why there is no picture of new opacities, for each follow-up that has none: nothing is new, or it is withheld."""
    said = []
    for item in analysis.lung_changes:
        if item.part != "both":
            continue
        if not item.assessable:
            said.append(f"The map of {item.timepoint} is withheld: {item.reason}")
        elif not (item.new_ground_glass_ml or item.new_consolidation_ml):
            said.append(f"At {item.timepoint} nothing is new in the lungs, so there is nothing to map")
    return tuple(_stopped(item) for item in said)


def _radiomics(analysis: Analysis) -> RadiomicsView:
    """Count the radiomics and pick the largest relative changes of unfiltered features in the lesions themselves.

    Filtered images give means near zero, whose relative change says nothing, so that only features of the original image are ranked.
    """
    day = days(analysis)
    before = {(item.lesion, item.timepoint, item.region): item.values for item in analysis.features}
    largest: list[LargestChange] = []
    for lesion in analysis.lesions:
        compared = [
            item
            for item in analysis.deltas
            if item.lesion == lesion.id and item.region == "core" and item.earlier == analysis.baseline and item.values
        ]
        latest = max(compared, key=lambda item: day.get(item.later, 0), default=None)
        if latest is None:
            continue
        changes = [
            (name, relative, per_month)
            for name, (_, relative, per_month) in latest.values.items()
            if relative is not None and name.startswith("original_")
        ]
        for name, relative, per_month in sorted(changes, key=lambda item: -abs(item[1]))[:LARGEST_PER_LESION]:
            largest.append(
                LargestChange(
                    lesion.id,
                    latest.region,
                    name.removeprefix("original_").replace("_", " "),
                    latest.earlier,
                    latest.later,
                    before.get((lesion.id, latest.earlier, latest.region), {}).get(name),
                    before.get((lesion.id, latest.later, latest.region), {}).get(name),
                    100 * relative,
                    per_month,
                )
            )
    measured = [item for item in analysis.features if item.values]
    values = [value for item in measured for value in item.values.values()]
    places: dict[str, dict[str, list[str]]] = {}
    for item in analysis.features:
        if not item.values and item.reason:
            places.setdefault(item.reason, {}).setdefault(f"{item.lesion or 'lungs'} {item.region}", []).append(
                item.timepoint
            )
    reasons = tuple(
        f"{reason}: " + "; ".join(f"{place} ({', '.join(timepoints)})" for place, timepoints in found.items())
        for reason, found in places.items()
    )
    return RadiomicsView(
        features=max((len(item.values) for item in measured), default=0),
        regions=len(measured),
        values=len(values),
        undefined=sum(value is None for value in values),
        reasons=reasons,
        largest=tuple(largest),
    )
