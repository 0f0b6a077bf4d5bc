"""Results as texts and rows for the panel; colors of text are left to the theme."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from .Timepoints import TransformUse

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ImmunoRadiomicsLib.analysis import AlignmentRecord, Analysis, Evidence, Flag

# Readable on light and dark backgrounds, and told apart by people who do not see red and green.
_RAISES = "#d95f02"
_LOWERS = "#1f78b4"
_HALF_BAR_PIXELS = 70
_FULL_BAR_LOG_ODDS = 2.0
_NO_BAR_LOG_ODDS = 0.005


def flagTitle(flag: Flag) -> str:
    """Return the name of a flag for a heading."""
    titles = {
        "pseudoprogression": _("Pseudoprogression"),
        "hyperprogression": _("Hyperprogression"),
        "pneumonitis": _("Pneumonitis"),
    }
    return titles[flag.flag]


def levelText(flag: Flag) -> str:
    """Return the level of a flag in words."""
    texts = {
        "unlikely": _("unlikely"),
        "indeterminate": _("indeterminate"),
        "likely": _("likely"),
        "yes": _("yes"),
        "no": _("no"),
        "not assessable": _("not assessable"),
    }
    return texts[flag.level]


def flagHtml(flag: Flag) -> str:
    """Return a flag as a card: probability with interval, prior, level, applicability, reason, and the evidence as bars."""
    lines = [f"<p>{escape(flag.question)}</p>"]
    if flag.status == "assessed" and flag.probability is not None:
        head = _("{probability} ({lower} to {upper}): {level}").format(
            probability=_percent(flag.probability),
            lower=_percent(flag.lower),
            upper=_percent(flag.upper),
            level=levelText(flag),
        )
        lines.append(f"<p><b>{escape(head)}</b></p>")
    else:
        lines.append("<p><b>" + escape(_("not assessable")) + "</b></p>")
    if flag.prior is not None:
        prior = _("Before this patient's evidence: {prior} ({source})").format(
            prior=_percent(flag.prior), source=flag.prior_source
        )
        lines.append(f"<p>{escape(prior)}</p>")
    lines.append(
        f"<p>{escape(_('Applicability: {applicability}').format(applicability=_applicability(flag)))}<br>"
        f"{escape(flag.reason)}</p>"
    )
    used = [item for item in flag.evidence if item.use == "used"]
    if used:
        lines.append(_evidenceTable(used))
    missing = [item.name for item in flag.evidence if item.use == "missing"]
    if missing:
        lines.append(f"<p>{escape(_('Not known, would count: {names}').format(names=', '.join(missing)))}</p>")
    lines += [f"<p>{escape(text)}</p>" for text in flag.counterfactuals]
    beside = [f"{item.name}: {item.value}" for item in flag.evidence if item.use == "context"]
    if beside:
        lines.append(
            f"<p><small>{escape(_('Beside it, without weight: {facts}').format(facts='; '.join(beside)))}</small></p>"
        )
    model = _("Model {bundle} {version}. Research use only.").format(bundle=flag.bundle, version=flag.bundle_version)
    lines.append(f"<p><small>{escape(model)}</small></p>")
    return "".join(lines)


def _percent(value: float | None) -> str:
    return _("unknown") if value is None else f"{value:.0%}"


def _applicability(flag: Flag) -> str:
    texts = {
        "applicable": _("applicable"),
        "caution": _("with caution"),
        "not assessable": _("not assessable"),
    }
    return texts[flag.applicability]


def _evidenceTable(items: Sequence[Evidence]) -> str:
    """Return evidence as a bar chart: to the right what raises the probability, to the left what lowers it, in log-odds."""
    rows = []
    for item in sorted(items, key=lambda entry: -abs(entry.log_odds)):
        width = max(1, round(_HALF_BAR_PIXELS * min(abs(item.log_odds) / _FULL_BAR_LOG_ODDS, 1.0)))
        colour = _RAISES if item.log_odds > 0 else _LOWERS
        bar = f'<table cellspacing="0" cellpadding="0"><tr><td width="{width}" bgcolor="{colour}">&nbsp;</td></tr></table>'
        if abs(item.log_odds) < _NO_BAR_LOG_ODDS:
            bar = ""
        left, right = ("", bar) if item.log_odds > 0 else (bar, "")
        rows.append(
            f"<tr><td>{escape(item.name)}: {escape(item.value)}</td>"
            f'<td width="{_HALF_BAR_PIXELS}" align="right">{left}</td><td width="{_HALF_BAR_PIXELS}">{right}</td>'
            f'<td align="right">{item.log_odds:+.2f}</td></tr>'
        )
    head = (
        f"<tr><th align='left'>{escape(_('Evidence'))}</th><th colspan='2'></th><th>{escape(_('log-odds'))}</th></tr>"
    )
    return f'<table cellpadding="2">{head}{"".join(rows)}</table>'


def lesionRows(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """Return headings and one row per lesion: what it is, and its size at every time point."""
    names = [record.name for record in sorted(analysis.timepoints, key=lambda record: record.day)]
    rows = []
    for lesion in analysis.lesions:
        row = [lesion.id, lesion.organ, lesion.role]
        for name in names:
            observation = lesion.at(name)
            size = None
            if observation is not None:
                size = observation.short_axis_mm if lesion.node else observation.long_axis_mm
            if observation is None:
                row.append("")
            elif size is None or observation.status == "absent":
                row.append(observation.status)
            else:
                row.append(_("{size} mm").format(size=f"{size:.1f}"))
        rows.append(row)
    return [_("Lesion"), _("Organ"), _("Role"), *names], rows


def visitRows(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """Return headings and one row per visit: the sum of diameters and the response by both criteria."""
    rows = [
        [
            visit.timepoint,
            str(visit.day),
            "" if visit.sum_mm is None else f"{visit.sum_mm:.1f}",
            visit.recist,
            visit.irecist,
            visit.rule,
        ]
        for visit in analysis.response.visits
    ]
    return [_("Visit"), _("Day"), _("Sum (mm)"), _("RECIST 1.1"), _("iRECIST"), _("Rule")], rows


def lungRows(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """Return headings and one row per follow-up and part of the lungs: what is new against the aligned baseline."""
    rows = []
    for change in analysis.lung_changes:
        if change.assessable:
            figures = [
                _figure(change.new_ground_glass_ml, 1),
                _figure(change.new_consolidation_ml, 1),
                _figure(change.new_opacity_percent, 2),
            ]
        else:
            figures = [_("not assessable"), "", ""]
        rows.append([change.timepoint, change.part, *figures, change.reason])
    headings = [_("Time point"), _("Part"), _("Ground glass (ml)"), _("Consolidation (ml)"), _("Of the lung (%)")]
    return [*headings, _("Remarks")], rows


def alignmentRows(
    records: Sequence[AlignmentRecord], accepted: Collection[str], used: Mapping[str, TransformUse]
) -> tuple[list[str], list[list[str]]]:
    """Return headings and one row per time point: how it lies on the baseline, how well, and whether the user has accepted it."""
    made = {
        TransformUse.NONE: _("automatic"),
        TransformUse.START: _("from a transform"),
        TransformUse.REPLACE: _("own transform"),
    }
    rows = [
        [
            record.timepoint,
            made[used.get(record.timepoint, TransformUse.NONE)],
            record.quality.verdict,
            _("accepted") if record.timepoint in accepted else "",
            _figure(record.quality.expected_error_mm, 1),
            _figure(record.quality.lung_dice, 3),
            _figure(record.quality.correlation, 2),
            _figure(record.quality.maximum_displacement_mm, 1),
            "; ".join(record.quality.reasons),
        ]
        for record in records
    ]
    headings = [_("Time point"), _("Alignment"), _("Verdict"), _("Review"), _("Error (mm)"), _("Lung Dice")]
    return [*headings, _("Correlation"), _("Largest shift (mm)"), _("Remarks")], rows


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
