"""What earlier structured reports (TID 1500) say of lesions: their tracking, class and diameters."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .headers import Picture, as_date, read_dataset, text
from .headers import integer as whole_number

if TYPE_CHECKING:
    from pydicom import Dataset

_GROUP = "125007"
_TRACKING_ID, _TRACKING_UID = "112039", "112040"
_SITES = ("363698007", "G-C0E3")
_LONG = ("103339001", "G-A185")
_SHORT = ("103340004", "G-A186")
_VOLUME = ("118565006", "G-D705")
_TARGET, _NON_TARGET = "112074", "112075"
_NODES = ("59441001", "T-C4000")
# To mm and to ml, by UCUM.
_TO_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}
_TO_ML = {"mm3": 0.001, "cm3": 1.0, "ml": 1.0, "mL": 1.0, "l": 1000.0, "dm3": 1000.0}
_DEEPEST = 12


@dataclass(frozen=True)
class EarlierLesion:
    """One measurement group of an earlier report. ``segments`` are (SEG instance UID, segment number)."""

    date: datetime.date | None
    tracking_id: str
    tracking_uid: str
    role: str | None
    organ: str
    node: bool
    long_mm: float | None
    short_mm: float | None
    volume_ml: float | None
    segments: tuple[tuple[str, int], ...]
    instances: tuple[str, ...]


def read_report(picture: Picture) -> tuple[EarlierLesion, ...]:
    """Read the measurement groups of a report; other structured reports have none. They are of the day of the study, not of the reading.

    Raises
    ------
    ValueError
        If the file cannot be read.
    """
    data = read_dataset(picture.path)
    date = next(
        (found for name in ("StudyDate", "SeriesDate", "ContentDate") if (found := as_date(text(data, name)))), None
    )
    return tuple(_lesion(group, date) for group in _groups(data))


def _groups(item: Dataset, depth: int = 0) -> Iterator[Dataset]:
    for child in _children(item):
        if _concept(child) == _GROUP:
            yield child
        elif depth < _DEEPEST:
            yield from _groups(child, depth + 1)


def _children(item: Dataset) -> list[Dataset]:
    return list(item.get("ContentSequence") or [])


def _code(item: Dataset, name: str) -> str:
    codes = item.get(name) or []
    return text(codes[0], "CodeValue") if codes else ""


def _concept(item: Dataset) -> str:
    return _code(item, "ConceptNameCodeSequence")


def _lesion(group: Dataset, date: datetime.date | None) -> EarlierLesion:
    words: dict[str, str] = {}
    measures: dict[str, float] = {}
    role, organ, node = None, "", False
    segments: list[tuple[str, int]] = []
    instances: list[str] = []

    def see(item: Dataset, depth: int) -> None:
        nonlocal role, organ, node
        for child in _children(item):
            name, kind = _concept(child), text(child, "ValueType")
            if kind in ("TEXT", "UIDREF"):
                words[name] = text(child, "TextValue") or text(child, "UID")
            elif kind == "NUM":
                _measure(child, name, measures)
            elif kind == "CODE":
                value = _code(child, "ConceptCodeSequence")
                if value in (_TARGET, _NON_TARGET):
                    role = "target" if value == _TARGET else "non-target"
                elif name in _SITES:
                    organ = text(child["ConceptCodeSequence"][0], "CodeMeaning").lower()
                    node = node or value in _NODES or "lymph node" in organ
            elif kind == "IMAGE":
                for reference in child.get("ReferencedSOPSequence") or []:
                    uid = text(reference, "ReferencedSOPInstanceUID")
                    number = whole_number(reference, "ReferencedSegmentNumber")
                    instances.append(uid)
                    if number is not None:
                        segments.append((uid, number))
            if depth < _DEEPEST:
                see(child, depth + 1)

    see(group, 0)

    def first(names: tuple[str, ...]) -> float | None:
        return next((measures[name] for name in names if name in measures), None)

    return EarlierLesion(
        date=date,
        tracking_id=words.get(_TRACKING_ID, ""),
        tracking_uid=words.get(_TRACKING_UID, ""),
        role=role,
        organ=organ,
        node=node,
        long_mm=first(_LONG),
        short_mm=first(_SHORT),
        volume_ml=first(_VOLUME),
        segments=tuple(segments),
        instances=tuple(instances),
    )


def _measure(item: Dataset, name: str, measures: dict[str, float]) -> None:
    """Keep a length in mm or a volume in ml; the first of a name counts."""
    values = item.get("MeasuredValueSequence") or []
    if not values:
        return
    unit = _code(values[0], "MeasurementUnitsCodeSequence")
    try:
        value = float(values[0].NumericValue)
    except (AttributeError, TypeError, ValueError):
        return
    factor = _TO_ML.get(unit) if name in _VOLUME else _TO_MM.get(unit)
    if factor is not None:
        measures.setdefault(name, value * factor)
