"""The report of one patient as PDF, for printing and for archives: A4 or Letter, readable in greys.

What it says is what the page (``html``) says, in the order in which a report of tumour response is read. Colours only repeat what
words, dashes and shapes say already. Fonts are embedded; every chart and picture has its description as text beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis import Analysis
from .charts import lesion_chart, signed, sum_chart
from .figures import KeyImage, Panel
from .html import (
    MISSING,
    LesionCell,
    alignment_words,
    cautions,
    kinetics_rows,
    lesion_rows,
    lung_maps,
    number,
    pending_visit,
    percent,
    sentence,
    visit_columns,
    without_map,
)
from .pdf_drawing import (
    chart_lines,
    drawing,
    key_picture,
    lung_map,
    probability_bar,
)
from .pdf_pages import Furniture, Pages, PageSize

if TYPE_CHECKING:
    from reportlab.platypus import Flowable

_MOST_COLUMNS = 5
_PANELS_PER_ROW = 4
_PICTURES = (
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("RIGHTPADDING", (0, 0), (-1, -1), 6),
    ("TOPPADDING", (0, 0), (-1, -1), 1),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
)


def write_pdf(analysis: Analysis, images: Sequence[KeyImage], path: Path, *, page: PageSize = "A4") -> None:
    """Write the report of one patient as PDF; the file is either whole or absent.

    Parameters
    ----------
    analysis
        The whole result of one patient.
    images
        Pictures from ``key_images``; none is needed.
    page
        The size of the paper.

    Raises
    ------
    MissingDependencyError
        If reportlab is not installed.
    """
    made = f"{analysis.provenance.software} {analysis.provenance.version}"
    name = analysis.patient if len(analysis.patient) <= 20 else f"{analysis.patient[:18]}…"
    furniture = Furniture(
        title=f"Immunotherapy follow-up, patient {analysis.patient}",
        author=made,
        notice=analysis.research_use_only,
        left=f"Patient {name}",
        made=f"{made}, {analysis.provenance.created}",
    )
    writer = _Writer(analysis, images, furniture, page)
    writer.write(writer.story(), path)


class _Writer(Pages):
    """Turns an analysis into the flowing parts of a document."""

    def __init__(self, analysis: Analysis, images: Sequence[KeyImage], furniture: Furniture, page: PageSize):
        super().__init__(furniture, page)
        self.analysis, self.images = analysis, images

    def story(self) -> list[Flowable]:
        """Return the whole report."""
        return [
            *self.summary(),
            *self.flags(),
            *self.response(),
            *self.lesions(),
            *self.charts(),
            *self.pictures(),
            *self.lungs(),
            *self.quality(),
            *self.provenance(),
        ]

    def summary(self) -> list[Flowable]:
        """Return who, what and when, and the impression."""
        a = self.analysis
        nadir = self._nadir()
        last = a.timepoints[-1]
        baseline = next(item for item in a.timepoints if item.name == a.baseline)
        start = (
            "not known"
            if a.treatment_start_day is None
            else f"day {number(a.treatment_start_day, 0)} after the baseline scan"
        )
        thickness = ", ".join(dict.fromkeys(f"{item.spacing_mm[2]:.2f}" for item in a.timepoints))
        facts = [
            ("Patient", a.patient),
            ("Tumour", a.tumour or "not stated"),
            ("Start of treatment", start),
            ("Criteria", "RECIST 1.1 (doi:10.1016/j.ejca.2008.10.026), iRECIST (doi:10.1016/S1470-2045(17)30074-8)"),
            ("Baseline, nadir, current", f"{baseline.date}, {nadir}, {last.date}"),
            ("Modality", f"CT, {len(a.timepoints)} scans, distance of slices {thickness} mm"),
            (
                "Best response",
                f"{a.response.best_recist or MISSING} (confirmed: {a.response.best_recist_confirmed or MISSING}); iRECIST: {a.response.best_irecist or MISSING}",
            ),
        ]
        parts: list[Flowable] = [
            self.text(f"Immunotherapy follow-up, patient {a.patient}", "title"),
            self.table(("Report", ""), [(self.text(name, "cell-strong"), value) for name, value in facts], (1, 3.6)),
            self.heading("Impression"),
            self.text(a.response.narrative or "The response could not be put into words."),
        ]
        pending = pending_visit(a)
        if pending is not None:
            said = f"At {pending.timepoint}, day {number(pending.day, 0)}. {sentence(pending.irecist_rule)} {sentence(pending.confirmation)}"
            parts.append(self.boxed("Progression waits for confirmation (iUPD)", said))
        return parts

    def _nadir(self) -> str:
        """Return the date of the smallest sum, the baseline included."""
        a = self.analysis
        dates = {item.name: item.date for item in a.timepoints}
        sums = [
            (item.sum_mm, dates.get(item.timepoint, MISSING)) for item in a.response.visits if item.sum_mm is not None
        ]
        start = next((item.baseline_mm for item in a.response.visits if item.baseline_mm is not None), None)
        if start is not None:
            sums.insert(0, (start, dates[a.baseline]))
        if not sums:
            return "no sum"
        size, date = min(sums, key=lambda item: item[0])
        return f"{date} ({size:.1f} mm)"

    def flags(self) -> list[Flowable]:
        """Return the three answers."""
        from reportlab.platypus import KeepTogether

        rows = []
        for flag in self.analysis.flags:
            said = "not assessable"
            if flag.status == "assessed":
                said = f"{percent(flag.probability)} ({percent(flag.lower)} to {percent(flag.upper)})"
            rows.append(
                (
                    self.marked(f"{self.bold(flag.flag.capitalize())}<br/>{self.safe(flag.question)}", "cell"),
                    self.marked(f"{self.bold(flag.level)}<br/>{self.safe(said)}", "cell"),
                    drawing(self.width * 0.19, 30, probability_bar(flag)),
                    self.marked(self.bold(flag.applicability), "cell"),
                )
            )
        parts: list[Flowable] = [
            KeepTogether(
                [
                    self.heading("The three flags"),
                    self.table(("Question", "Answer", "0 to 100 %", "Does it apply?"), rows, (3, 1.7, 1.6, 1.1)),
                    self.text(
                        "Bar: 90 % interval; disc: probability; diamond: prior, before this patient's evidence.",
                        "small",
                    ),
                ]
            )
        ]
        parts += [
            self.marked(f"{self.bold(flag.flag.capitalize())}: {self.safe(sentence(flag.reason))}", "item")
            for flag in self.analysis.flags
        ]
        for flag in self.analysis.flags:
            used = [item for item in flag.evidence if item.use == "used"]
            if used:
                evidence = [(item.name, item.value, signed(item.log_odds, 2), item.source) for item in used]
                parts.append(self.text(f"{flag.flag.capitalize()}: evidence that counts", "sub"))
                parts.append(
                    self.table(("Evidence", "Value", "Log-odds", "Source"), evidence, (2.2, 2, 0.9, 2.4), right=(2,))
                )
        answered = [item for item in self.analysis.response.hyperprogression if item.answer != "not assessable"]
        if self.analysis.response.hyperprogression:
            every = [*self.analysis.response.hyperprogression, *self.analysis.response.dissociated]
            parts.append(
                self.text(f"Definitions of atypical patterns ({len(answered)} of hyperprogression assessable)", "sub")
            )
            parts.append(
                self.table(
                    ("Definition", "Answer", "Why"),
                    [(item.title, item.answer, sentence(item.reason)) for item in every],
                    (2.4, 1.1, 4),
                )
            )
        return parts

    def response(self) -> list[Flowable]:
        """Return the response by visit with the rules that fired."""
        a = self.analysis
        dates = {item.name: item.date for item in a.timepoints}
        rows = [
            (
                f"{item.timepoint}, day {number(item.day, 0)}, {dates.get(item.timepoint, '')}",
                self.marked(
                    number(item.sum_mm)
                    + ("" if item.new_lesion_sum_mm is None else f"<br/>new {number(item.new_lesion_sum_mm)}"),
                    "cell-right",
                ),
                _percent_of(item.change_from_baseline_percent),
                self.marked(
                    f"{self.safe(_percent_of(item.change_from_nadir_percent))}<br/>nadir {number(item.nadir_mm)}",
                    "cell-right",
                ),
                item.target or MISSING,
                self.marked(self.safe(item.non_target or MISSING).replace("/", "/<br/>"), "cell"),
                item.new_lesion or MISSING,
                self.marked(self.bold(item.recist or MISSING), "cell"),
                self.marked(self.bold(item.irecist or MISSING), "cell"),
                percent(item.probability_of_progression),
                percent(item.probability_of_further_growth),
            )
            for item in a.response.visits
        ]
        parts: list[Flowable] = [self.heading("Response by visit")]
        if not rows:
            return [*parts, self.text("No visit could be assessed.")]
        header = (
            "Visit",
            "Sum (mm)",
            "vs base",
            "vs nadir",
            "T",
            "N",
            "New",
            "RECIST",
            "iRECIST",
            "P(PD)",
            "P(growth)",
        )
        parts.append(
            self.table(
                header, rows, (2, 1.15, 0.95, 1.3, 0.65, 1.15, 0.7, 1.0, 1.05, 0.85, 1.1), right=(1, 2, 3, 9, 10)
            )
        )
        parts.append(
            self.text(
                "P(PD): probability that the true sum meets the threshold of progression, given how much readers differ (LIDC, 690 nodules: "
                "standard deviation of ln diameter 0.120, or as set). P(growth): that it grew by at least 5 mm since a progression that waited for confirmation, which confirms it.",
                "small",
            )
        )
        for item in a.response.visits:
            markup = f"{self.bold(item.timepoint)}, RECIST 1.1 {self.safe(item.recist or MISSING)}: {self.safe(sentence(item.rule))}"
            if item.irecist_rule and item.irecist_rule != item.rule:
                markup += f" {self.bold(f'iRECIST {item.irecist}')}: {self.safe(sentence(item.irecist_rule))}"
            if item.confirmation:
                markup += f" {self.bold('Confirmation')}: {self.safe(sentence(item.confirmation))}"
            parts.append(self.marked(markup))
        rates = [
            (
                name,
                unit,
                number(before),
                number(after),
                number(ratio, 2),
                MISSING if difference is None else signed(difference, 1),
            )
            for name, unit, before, after, ratio, difference in kinetics_rows(a)
        ]
        parts.append(self.text("Growth before and after the baseline", "sub"))
        parts.append(
            self.table(
                ("Rate", "Unit", "Before", "After", "Ratio", "Difference"),
                rates,
                (3, 2, 1, 1, 1, 1.1),
                right=(2, 3, 4, 5),
            )
        )
        return parts

    def lesions(self) -> list[Flowable]:
        """Return the lesions over time: at most five time points in a table, so that every column can be read."""
        a = self.analysis
        notes: list[str] = []
        rows = lesion_rows(a, notes)
        parts: list[Flowable] = [self.heading("Lesions over time")]
        if not rows:
            return [*parts, self.text("No lesion.")]
        columns = visit_columns(a)
        for start in range(0, len(columns), _MOST_COLUMNS):
            shown = range(start, min(start + _MOST_COLUMNS, len(columns)))
            header = [
                "Lesion",
                "Site, class, axis",
                *(f"{columns[at].timepoint.name}, day {number(columns[at].timepoint.day, 0)}" for at in shown),
            ]
            body: list[list[str | Flowable]] = []
            for row in rows:
                where = f"{row.lesion.organ}{' (proposed)' if row.lesion.organ_source == 'proposed' else ''}, {row.lesion.role}, {row.axis}"
                body.append(
                    [self.text(row.lesion.id, "cell-strong"), where, *(self._cell(row.cells[at]) for at in shown)]
                )
            totals: list[str | Flowable] = [self.text("Sum of targets", "cell-strong"), "mm"]
            for at in shown:
                visit, name = columns[at].visit, columns[at].timepoint.name
                base = next((item.baseline_mm for item in a.response.visits), None)
                value = visit.sum_mm if visit is not None else base if name == a.baseline else None
                totals.append(number(value))
            body.append(totals)
            numeric = tuple(range(2, 2 + len(shown)))
            parts.append(
                self.table(header, body, (1.1, 2.6, *([1.55] * len(shown))), right=numeric, strong_rows=(len(rows),))
            )
        parts.append(
            self.text(
                "Diameter in mm along the axis of the criteria, its change from baseline (from the first measurement of a new lesion), volume.",
                "small",
            )
        )
        parts += [self.text(f"({index}) {note}", "small") for index, note in enumerate(notes, start=1)]
        return parts

    def _cell(self, cell: LesionCell) -> Flowable:
        lines = [self.bold(cell.size) + (f" ({cell.note})" if cell.note else "")]
        lines += [self.safe(part) for part in (cell.change, cell.volume, cell.event) if part]
        return self.marked("<br/>".join(lines), "cell-right")

    def charts(self) -> list[Flowable]:
        """Return the sum and each lesion over time, drawn as on the page."""
        from reportlab.platypus import KeepTogether

        parts: list[Flowable] = []
        for chart in (sum_chart(self.analysis), lesion_chart(self.analysis)):
            if chart is None:
                continue
            scale = min(self.width / chart.width, 0.88)
            together = [] if parts else [self.heading("Course")]
            together += [
                self.text(f"{chart.title} ({chart.unit})", "sub"),
                drawing(chart.width * scale, chart.height * scale, chart_lines(chart, scale, self.plain)),
                self.text(chart.description, "small"),
            ]
            parts.append(KeepTogether(together))
        return parts

    def pictures(self) -> list[Flowable]:
        """Return the key images: the chest over time, then each lesion, as it is and carried onto the baseline."""
        from reportlab.platypus import KeepTogether

        groups = [item for item in self.images if item.kind in ("overview", "lesion")]
        if not groups:
            return []
        introduction = [
            self.heading("Key images"),
            self.text(
                "Patient right at image left, seen from the feet (axial) or from the front (coronal). Dashed outline: at baseline; solid: at "
                "the time point. White lines: long axis, and dotted the short axis. Pictures on the baseline (second row) are only moved and "
                "turned, by what the alignment says around the lesion, so that growth stays visible.",
                "small",
            ),
        ]
        parts: list[Flowable] = []
        names = [item.name for item in self.analysis.timepoints]
        for group in groups:
            plane = "coronal" if group.kind == "overview" else "axial"
            title = self.text(f"{group.title} ({plane}, {group.window})", "sub")
            shown = [name for name in names if any(panel.timepoint == name for panel in group.panels)]
            for start in range(0, len(shown), _PANELS_PER_ROW):
                table = self._panels(group, shown[start : start + _PANELS_PER_ROW])
                parts.append(KeepTogether([*introduction, title, table] if start == 0 else [table]))
                introduction = []
        return parts

    def _panels(self, group: KeyImage, timepoints: Sequence[str]) -> Flowable:
        """Return pictures of some time points, a column for each: as it is, and below carried onto the baseline."""
        from reportlab.platypus import Table

        # At this width two lesions with both rows of pictures share a page of either size.
        across = self.width / max(len(timepoints), 3.5)
        side = across - 6
        rows: list[list[Any]] = []
        for views in (("own", "overview"), ("registered",)):
            found = [
                next((item for item in group.panels if item.timepoint == name and item.view in views), None)
                for name in timepoints
            ]
            if any(found):
                rows.append(["" if item is None else self._picture(item, side) for item in found])
                rows.append(["" if item is None else self._caption(item) for item in found])
        table = Table(rows, colWidths=[across] * len(timepoints), hAlign="LEFT")
        table.setStyle(_PICTURES)
        return table

    def _picture(self, panel: Panel, side: float) -> Flowable:
        return drawing(side, side * panel.height_mm / panel.width_mm, key_picture(panel, side / panel.width_mm))

    def _caption(self, panel: Panel) -> Flowable:
        sizes = " × ".join(f"{item.length_mm:.1f}" for item in panel.diameters)
        return self.text(f"{panel.title}{f': {sizes} mm' if sizes else ''}", "caption")

    def lungs(self) -> list[Flowable]:
        """Return the densities of the lungs, and the map of what is new."""
        from reportlab.platypus import KeepTogether, Table

        a = self.analysis
        parts: list[Flowable] = [self.heading("Lungs")]
        densities = [
            (item.timepoint, item.part, number(item.volume_ml, 0), number(item.mean_hu, 0), number(item.laa950_percent), number(item.haa_percent), number(item.ground_glass_ml, 0), number(item.consolidation_ml, 0))
            for item in a.lungs
            if item.part in ("both", "left", "right")
        ]  # fmt: skip
        if densities:
            header = (
                "Time point",
                "Part",
                "Volume (ml)",
                "Mean (HU)",
                "LAA (%)",
                "HAA (%)",
                "Ground glass (ml)",
                "Consolidation (ml)",
            )
            parts.append(self.table(header, densities, (1.5, 0.8, 1, 1, 0.9, 0.9, 1.2, 1.4), right=range(2, 8)))
        else:
            parts.append(self.text("The lungs were not measured."))
        changes = [
            (item.timepoint, item.part, "yes" if item.assessable else "no", number(item.new_ground_glass_ml), number(item.new_consolidation_ml), number(item.new_opacity_percent, 2), item.reason)
            for item in a.lung_changes
            if item.part in ("both", "left", "right")
        ]  # fmt: skip
        if changes:
            parts.append(self.text("What is new against the patient's own baseline", "sub"))
            asked = (
                "Time point",
                "Part",
                "Assessable",
                "New ground glass (ml)",
                "New consolidation (ml)",
                "New opacity (%)",
                "Reason",
            )
            parts.append(self.table(asked, changes, (1.4, 0.7, 1, 1.2, 1.3, 1, 2.2), right=(3, 4, 5)))
        maps = lung_maps(a)
        if maps:
            drawn = [drawing(150, 128, lung_map(item, self.plain)) for item in maps]
            table = Table([drawn[start : start + 3] for start in range(0, len(drawn), 3)], hAlign="LEFT")
            parts.append(
                KeepTogether(
                    [
                        self.text("New opacity in % of each third of the lungs, as seen from the front", "sub"),
                        table,
                        self.text("The darker a third, the more of it is new; hatched: not assessable.", "small"),
                    ]
                )
            )
        for group in (item for item in self.images if item.kind == "lungs"):
            parts.append(KeepTogether([self.text(group.title, "sub"), self._lung_pictures(group)]))
        parts += [self.text(said, "small") for said in without_map(a)]
        return parts

    def _lung_pictures(self, group: KeyImage) -> Flowable:
        """Return the pictures of new opacities, a row for each plane: baseline, follow-up, and what is new."""
        from reportlab.platypus import Table

        across = self.width / 3
        rows: list[list[Any]] = []
        for plane in dict.fromkeys(item.plane for item in group.panels):
            found = [item for item in group.panels if item.plane == plane]
            rows.append([self._picture(item, across - 6) for item in found])
            rows.append(
                [self.text(item.description if item.view == "map" else item.title, "caption") for item in found]
            )
        table = Table(rows, colWidths=[across] * 3, hAlign="LEFT")
        table.setStyle(_PICTURES)
        return table

    def quality(self) -> list[Flowable]:
        """Return how far the result can be trusted."""
        a = self.analysis
        parts: list[Flowable] = [self.heading("Limits and validity")]
        parts += [self.marked(f"• {self.safe(said)}", "item") for said in cautions(a)] or [
            self.text("No warning was raised.")
        ]
        if a.alignments:
            parts.append(self.text("Alignment with the baseline", "sub"))
            parts.append(
                self.table(
                    ("Time point", "Quality"),
                    [(item.timepoint, alignment_words(item)) for item in a.alignments],
                    (1, 4.5),
                )
            )
        if a.context:
            parts.append(self.text("Published scores beside the flags", "sub"))
            scores = [(item.title, number(item.value, 2), item.reading or item.reason) for item in a.context]
            parts.append(self.table(("Score", "Value", "Reading"), scores, (2, 0.8, 3), right=(1,)))
        return parts

    def provenance(self) -> list[Flowable]:
        """Return what made the report."""
        p = self.analysis.provenance
        packages = ", ".join(f"{name} {version}" for name, version in p.packages.items())
        parts: list[Flowable] = [
            self.heading("Provenance"),
            self.text(
                f"{p.software} {p.version}, {p.created}, Python {p.python}, {p.platform}, seed {p.seed}, preset {self.analysis.preset}.",
                "small",
            ),
            self.text(f"Packages: {packages}.", "small"),
        ]
        hashes = [(name, value) for name, value in p.inputs_sha256.items()]
        parts.append(self.table(("Input", "SHA-256"), hashes, (1, 3.4)))
        parts.append(
            self.text(
                "Reader: ______________________    Date: ______________    Edits of automatic results: ______________________",
                "small",
            )
        )
        return parts


def _percent_of(value: float | None) -> str:
    return MISSING if value is None else f"{signed(value)} %"
