"""The tables of the scene, filled from the Analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..analysis import Analysis, Lesion, LesionObservation
from .appearance import lesion_course, observed_size_mm


@dataclass(frozen=True)
class Column:
    """One typed column of a table; a number that is not known is NaN there, a text that is not known is empty."""

    name: str
    title: str
    values: Sequence[str | float | int | None]
    kind: Literal["text", "number", "integer"]
    unit: str = ""
    description: str = ""


def flag_columns(analysis: Analysis) -> list[Column]:
    """Return one row per flag."""
    flags = analysis.flags

    def column(name: str, title: str, description: str = "") -> Column:
        values = [getattr(flag, name) for flag in flags]
        number = name in {"probability", "lower", "upper", "prior"}
        return Column(name, title, values, "number" if number else "text", description=description)

    return [
        column("flag", "Flag"),
        column("status", "Status"),
        column("probability", "Probability"),
        column("lower", "Lower", "Lower bound of the central 90 % of the probability"),
        column("upper", "Upper", "Upper bound of the central 90 % of the probability"),
        column("prior", "Prior", "Probability before this patient's evidence"),
        column("level", "Level"),
        column("bundle", "Bundle"),
        column("bundle_version", "Version"),
        column("applicability", "Applicability"),
        column("reason", "Reason"),
    ]


def lesion_columns(analysis: Analysis) -> list[Column]:
    """Return one row per lesion and time point."""
    days = {record.name: record.day for record in analysis.timepoints}
    rows = [
        (lesion, observation)
        for lesion in analysis.lesions
        for observation in sorted(lesion.observations, key=lambda entry: days[entry.timepoint])
    ]

    def change(lesion: Lesion, observation: LesionObservation) -> float | None:
        size = observed_size_mm(lesion, observation)
        start = observed_size_mm(lesion, lesion.at(analysis.baseline))
        return None if size is None or not start else 100.0 * (size / start - 1.0)

    observations = [observation for _, observation in rows]
    return [
        Column("lesion", "Lesion", [lesion.id for lesion, _ in rows], "text"),
        Column("organ", "Organ", [lesion.organ for lesion, _ in rows], "text"),
        Column("role", "Role", [lesion.role for lesion, _ in rows], "text"),
        Column("node", "Node", ["yes" if lesion.node else "no" for lesion, _ in rows], "text"),
        Column("timepoint", "Time point", [entry.timepoint for entry in observations], "text"),
        Column("day", "Day", [days[entry.timepoint] for entry in observations], "integer", "d"),
        Column("status", "Status", [entry.status for entry in observations], "text"),
        Column("event", "Event", [entry.event for entry in observations], "text"),
        Column("long_axis_mm", "Long axis", [entry.long_axis_mm for entry in observations], "number", "mm"),
        Column("short_axis_mm", "Short axis", [entry.short_axis_mm for entry in observations], "number", "mm"),
        Column("volume_ml", "Volume", [entry.volume_ml for entry in observations], "number", "mL"),
        Column("mean_hu", "Mean", [entry.mean_hu for entry in observations], "number", "HU"),
        Column(
            "change_percent",
            "Change",
            [change(*row) for row in rows],
            "number",
            "%",
            "Change of the size from baseline: long axis, for nodes the short axis",
        ),
        Column(
            "course",
            "Course",
            [lesion_course(lesion, analysis).value for lesion, _ in rows],
            "text",
            description="What the colour of the lesion says, from the baseline to the last assessed follow-up",
        ),
        Column("check", "Check", [entry.check for entry in observations], "text"),
    ]


def response_columns(analysis: Analysis) -> list[Column]:
    """Return one row per visit."""
    visits = analysis.response.visits
    kinds: dict[str, tuple[str, Literal["text", "number", "integer"], str]] = {
        "timepoint": ("Time point", "text", ""),
        "day": ("Day", "integer", "d"),
        "sum_mm": ("Sum of diameters", "number", "mm"),
        "baseline_mm": ("At baseline", "number", "mm"),
        "nadir_mm": ("Nadir", "number", "mm"),
        "change_from_baseline_percent": ("Change from baseline", "number", "%"),
        "change_from_nadir_percent": ("Change from nadir", "number", "%"),
        "target": ("Target", "text", ""),
        "non_target": ("Non-target", "text", ""),
        "new_lesion": ("New lesion", "text", ""),
        "recist": ("RECIST 1.1", "text", ""),
        "irecist": ("iRECIST", "text", ""),
        "rule": ("Rule (RECIST 1.1)", "text", ""),
        "irecist_rule": ("Rule (iRECIST)", "text", ""),
    }
    return [
        Column(name, title, [getattr(visit, name) for visit in visits], kind, unit)
        for name, (title, kind, unit) in kinds.items()
    ]


def size_columns(analysis: Analysis) -> list[Column]:
    """Return what the chart draws: one row per time point, one column per lesion."""
    records = sorted(analysis.timepoints, key=lambda record: record.day)
    sums: dict[str, float | None] = {visit.timepoint: visit.sum_mm for visit in analysis.response.visits}
    if analysis.response.visits:
        sums[analysis.baseline] = analysis.response.visits[0].baseline_mm
    columns = [
        Column("timepoint", "Time point", [record.name for record in records], "text"),
        Column("day", "Day", [record.day for record in records], "integer", "d"),
    ]
    for lesion in analysis.lesions:
        values = [observed_size_mm(lesion, lesion.at(record.name)) for record in records]
        seen = next((index for index, value in enumerate(values) if value), len(values))
        values[:seen] = [None] * seen  # a lesion that is not yet there is not drawn as one of size 0
        axis = "Short axis" if lesion.node else "Long axis"
        columns.append(Column(lesion.id, lesion.id, values, "number", "mm", f"{axis} of {lesion.id}"))
    columns.append(
        Column("sum_mm", "Sum", [sums.get(record.name) for record in records], "number", "mm", "Sum of diameters")
    )
    return columns
