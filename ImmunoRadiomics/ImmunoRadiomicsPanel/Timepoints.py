"""Rows of time points and of segments, kept in the node of the parameters so that they are saved with the scene."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import slicer
from slicer.i18n import tr as _

_COUNT = "timepointCount"
_SEGMENTS = "segmentMeanings"
_NODES = ("Volume", "Segmentation", "Transform")


class Role(enum.Enum):
    """What a time point is in the course of the treatment."""

    PREBASELINE = "prebaseline"
    BASELINE = "baseline"
    FOLLOWUP = "followup"

    def label(self) -> str:
        texts = {"prebaseline": _("before baseline"), "baseline": _("baseline"), "followup": _("follow-up")}
        return texts[self.value]


class TransformUse(enum.Enum):
    """What a transform node that the user has chosen for a time point is for."""

    NONE = ""
    START = "start"
    REPLACE = "replace"


@dataclass(frozen=True)
class TimepointRow:
    """One imaging date as the user has entered it: nodes, a date as a text (YYYY-MM-DD) and the role.

    ``links`` says by the names of segments which lesion they belong to; None: a lesion of its own. ``accepted`` is the fingerprint
    of the alignment that the user has looked at and found good.
    """

    volume: Any = None
    segmentation: Any = None
    date: str = ""
    role: Role = Role.FOLLOWUP
    noVisibleLesions: bool = False
    transform: Any = None
    transformUse: TransformUse = TransformUse.NONE
    links: Mapping[str, str | None] = field(default_factory=dict)
    accepted: str = ""

    def day(self) -> datetime.date | None:
        """Return the date, None where the text is no date."""
        try:
            return datetime.date.fromisoformat(self.date.strip())
        except ValueError:
            return None


class Kind(enum.Enum):
    """What a segment is."""

    AUTOMATIC = ""
    LESION = "lesion"
    NODE = "node"
    ORGAN = "organ"
    NOTHING = "nothing"

    def label(self) -> str:
        texts = {
            "": _("automatic"),
            "lesion": _("lesion"),
            "node": _("lymph node"),
            "organ": _("organ"),
            "nothing": _("not a lesion"),
        }
        return texts[self.value]


@dataclass(frozen=True)
class SegmentMeaning:
    """What a segment is. Empty texts and an automatic kind mean: let the engine propose it."""

    segment: str
    organ: str = ""
    role: str = ""
    kind: Kind = Kind.AUTOMATIC


def readRows(parameterNode: Any) -> list[TimepointRow]:
    """Return the time points that a vtkMRMLScriptedModuleNode holds."""
    rows = []
    for index in range(int(parameterNode.GetParameter(_COUNT) or 0)):
        key = f"timepoint{index}"
        rows.append(
            TimepointRow(
                parameterNode.GetNodeReference(f"{key}Volume"),
                parameterNode.GetNodeReference(f"{key}Segmentation"),
                parameterNode.GetParameter(f"{key}Date"),
                Role(parameterNode.GetParameter(f"{key}Role") or Role.FOLLOWUP.value),
                parameterNode.GetParameter(f"{key}NoVisibleLesions") == "True",
                parameterNode.GetNodeReference(f"{key}Transform"),
                TransformUse(parameterNode.GetParameter(f"{key}TransformUse")),
                json.loads(parameterNode.GetParameter(f"{key}Links") or "{}"),
                parameterNode.GetParameter(f"{key}Accepted"),
            )
        )
    return rows


def writeRows(parameterNode: Any, rows: Sequence[TimepointRow]) -> None:
    """Replace the time points that a vtkMRMLScriptedModuleNode holds; observers are told once."""
    with slicer.util.NodeModify(parameterNode):
        for index in range(len(rows), int(parameterNode.GetParameter(_COUNT) or 0)):
            key = f"timepoint{index}"
            for name in _NODES:
                parameterNode.SetNodeReferenceID(f"{key}{name}", None)
            for name in ("Date", "Role", "NoVisibleLesions", "TransformUse", "Links", "Accepted"):
                parameterNode.UnsetParameter(f"{key}{name}")
        for index, row in enumerate(rows):
            key = f"timepoint{index}"
            for name, node in zip(_NODES, (row.volume, row.segmentation, row.transform), strict=True):
                parameterNode.SetNodeReferenceID(f"{key}{name}", node.GetID() if node else None)
            parameterNode.SetParameter(f"{key}Date", row.date)
            parameterNode.SetParameter(f"{key}Role", row.role.value)
            parameterNode.SetParameter(f"{key}NoVisibleLesions", str(row.noVisibleLesions))
            parameterNode.SetParameter(f"{key}TransformUse", row.transformUse.value)
            parameterNode.SetParameter(f"{key}Links", json.dumps(dict(row.links), sort_keys=True))
            parameterNode.SetParameter(f"{key}Accepted", row.accepted)
        parameterNode.SetParameter(_COUNT, str(len(rows)))


def readMeanings(parameterNode: Any) -> dict[str, SegmentMeaning]:
    """Return what the user has said about segments, by their names."""
    items = json.loads(parameterNode.GetParameter(_SEGMENTS) or "[]")
    return {
        item["segment"]: SegmentMeaning(item["segment"], item["organ"], item["role"], Kind(item["kind"]))
        for item in items
    }


def writeMeanings(parameterNode: Any, meanings: Sequence[SegmentMeaning]) -> None:
    """Replace what the user has said about segments; what says nothing is not kept."""
    said = [{**vars(item), "kind": item.kind.value} for item in meanings if item != SegmentMeaning(item.segment)]
    parameterNode.SetParameter(_SEGMENTS, json.dumps(said))


def timepointNames(rows: Sequence[TimepointRow]) -> list[str]:
    """Return the engine's names of rows with dates: `baseline`, `prebaseline`, `followup-1`..., numbered by date."""
    order = sorted(range(len(rows)), key=lambda index: (rows[index].day() or datetime.date.max, index))
    names = [""] * len(rows)
    counts = dict.fromkeys(Role, 0)
    for index in order:
        role = rows[index].role
        counts[role] += 1
        if role is Role.FOLLOWUP:
            names[index] = f"followup-{counts[role]}"
        else:
            names[index] = role.value if counts[role] == 1 else f"{role.value}-{counts[role]}"
    return names


def rowProblems(rows: Sequence[TimepointRow]) -> list[str]:
    """Say everything that keeps rows from being analysed, in the user's words."""
    problems = []
    if len(rows) < 2:
        problems.append(_("Add at least two time points, each with a CT volume and a date."))
    for number, row in enumerate(rows, start=1):
        if row.volume is None:
            problems.append(_("Time point {number}: choose the CT volume.").format(number=number))
        if row.day() is None:
            problems.append(_("Time point {number}: give the date as YYYY-MM-DD.").format(number=number))
        elif row.day() > datetime.date.today():
            problems.append(_("Time point {number}: the date lies in the future.").format(number=number))
        if row.segmentation is not None and row.noVisibleLesions:
            problems.append(
                _("Time point {number}: it has a segmentation and no visible lesion. Keep one.").format(number=number)
            )
        if row.transformUse is not TransformUse.NONE and row.transform is None:
            problems.append(
                _("Time point {number}: its transform was removed. Choose another under Alignment.").format(
                    number=number
                )
            )
    baselines = [row for row in rows if row.role is Role.BASELINE]
    if rows and len(baselines) != 1:
        problems.append(_("Exactly one time point must have the role baseline."))
    problems += _orderProblems(rows, baselines[0].day() if len(baselines) == 1 else None)
    volumes = [row.volume.GetID() for row in rows if row.volume is not None]
    if len(set(volumes)) < len(volumes):
        problems.append(_("A volume is chosen for several time points."))
    return problems


def _orderProblems(rows: Sequence[TimepointRow], baseline: datetime.date | None) -> list[str]:
    problems = []
    days = [day for row in rows if (day := row.day()) is not None]
    for day in sorted({day for day in days if days.count(day) > 1}):
        problems.append(_("Several time points have the date {date}.").format(date=day.isoformat()))
    for number, row in enumerate(rows, start=1):
        day = row.day()
        if baseline is None or day is None:
            continue
        if row.role is Role.FOLLOWUP and day < baseline:
            problems.append(_("Time point {number}: a follow-up lies before the baseline.").format(number=number))
        if row.role is Role.PREBASELINE and day > baseline:
            problems.append(_("Time point {number}: it lies after the baseline.").format(number=number))
    return problems


def proposeRoles(rows: Sequence[TimepointRow], treatmentStart: datetime.date | None) -> list[TimepointRow]:
    """Sort rows by date; the last one until the start of treatment (without one, the first) is the baseline."""
    ordered = sorted(rows, key=lambda row: row.day() or datetime.date.max)
    before = [
        index
        for index, row in enumerate(ordered)
        if treatmentStart is not None and row.day() is not None and row.day() <= treatmentStart
    ]
    baseline = before[-1] if before else 0

    def role(index: int) -> Role:
        if index == baseline:
            return Role.BASELINE
        return Role.PREBASELINE if index < baseline else Role.FOLLOWUP

    return [replace(row, role=role(index)) for index, row in enumerate(ordered)]
