"""Spider, waterfall and swimmer plots of a cohort as stand-alone SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 480, 70, 30, 40, 56
_COLOURS = {
    "CR": "#1b7837", "PR": "#5aae61", "SD": "#8c8c8c", "NON-CR/NON-PD": "#8c8c8c", "PD": "#c0392b", "NE": "#c9c9c9",
    "iCR": "#1b7837", "iPR": "#5aae61", "iSD": "#8c8c8c", "NON-iCR/NON-iUPD": "#8c8c8c", "iUPD": "#e08214", "iCPD": "#c0392b",
}  # fmt: skip
_UNKNOWN = "#c9c9c9"
# Narrower bars of the waterfall have no mark, or no name, of their own.
_ROOM_FOR_MARK, _ROOM_FOR_TURNED_NAME = 10.0, 17.0


class ShownVisit(Protocol):
    """What is drawn of a visit."""

    @property
    def day(self) -> int:
        """Days from the baseline."""
        ...

    @property
    def irecist(self) -> str:
        """The letters of iRECIST."""
        ...

    @property
    def change_from_baseline_percent(self) -> float | None:
        """The change of the sum of diameters in percent."""
        ...


class ShownResponse(Protocol):
    """What is drawn of a patient: a ``Response`` has it, and so has a summary of one."""

    @property
    def visits(self) -> Sequence[ShownVisit]:
        """The visits after the baseline."""
        ...

    @property
    def best_irecist(self) -> str:
        """The best overall response by iRECIST."""
        ...


PatientResponse = tuple[str, int, ShownResponse]
"""A patient, the day that the table gives to the baseline, and the response."""


def cohort_plots(patients: Sequence[PatientResponse]) -> dict[str, str]:
    """Return the three plots of a cohort by name, each a whole SVG document."""
    return {
        "spider": spider(patients),
        "waterfall": waterfall(patients),
        "swimmer": swimmer(patients),
    }


def _document(title: str, parts: Sequence[str], height: float = HEIGHT) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
        'font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>'
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="600">{escape(title)}</text>' + "".join(parts) + "</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333333">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#cccccc", dash: str = "") -> str:
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{style}/>'


def _percent_scale(values: Sequence[float]) -> tuple[float, float]:
    top = max([40.0, *values])
    # One lesion that grew tenfold must not flatten all the others.
    return -100.0, min(top * 1.05, 300.0)


def _y(value: float, low: float, high: float) -> float:
    inside = min(max(value, low), high)
    return TOP + (high - inside) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _percent_axis(low: float, high: float) -> list[str]:
    step = 50 if high > 150 else 20
    ticks = [value for value in range(-100, int(high) + 1, step) if low <= value <= high]
    parts = []
    for value in ticks:
        parts.append(_line(LEFT, _y(value, low, high), WIDTH - RIGHT, _y(value, low, high), "#eeeeee"))
        parts.append(_text(LEFT - 8, _y(value, low, high) + 4, f"{value:+d} %" if value else "0 %", "end"))
    for value in (-30, 20):
        parts.append(_line(LEFT, _y(value, low, high), WIDTH - RIGHT, _y(value, low, high), "#555555", "5 4"))
    return parts


def spider(patients: Sequence[PatientResponse]) -> str:
    """Draw the change of the sum of diameters from baseline over time, a line per patient."""
    changes = [
        visit.change_from_baseline_percent
        for _, _, result in patients
        for visit in result.visits
        if visit.change_from_baseline_percent is not None
    ]
    last = max([1, *(visit.day for _, _, result in patients for visit in result.visits)])
    low, high = _percent_scale(changes)
    parts = _percent_axis(low, high)

    def x(day: float) -> float:
        return LEFT + day / last * (WIDTH - LEFT - RIGHT)

    for name, _, result in patients:
        points = [(0.0, 0.0)] + [
            (float(visit.day), visit.change_from_baseline_percent)
            for visit in result.visits
            if visit.change_from_baseline_percent is not None
        ]
        if len(points) < 2:
            continue
        colour = _COLOURS.get(result.best_irecist, _UNKNOWN)
        path = " ".join(f"{x(day):.1f},{_y(change, low, high):.1f}" for day, change in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-opacity="0.8">'
            f"<title>{escape(name)}: {escape(result.best_irecist)}</title></polyline>"
        )
        for day, change in points[1:-1]:
            parts.append(f'<circle cx="{x(day):.1f}" cy="{_y(change, low, high):.1f}" r="2.4" fill="{colour}"/>')
        parts.append(_mark(x(points[-1][0]), _y(points[-1][1], low, high), result.best_irecist))
    parts += _day_axis(last, x, HEIGHT - BOTTOM)
    parts += _legend(HEIGHT + 14, "best response:")
    return _document("Change of the sum of diameters from baseline", parts, HEIGHT + 30)


def _day_axis(last: int, x: Callable[[float], float], y: float) -> list[str]:
    step = next((size for size in (7, 14, 28, 56, 84, 168, 364, 728) if last / size <= 12), 1456)
    parts = [_line(LEFT, y, WIDTH - RIGHT, y, "#555555")]
    parts += [_text(x(day), y + 18, str(day)) for day in range(0, last + 1, step)]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, y + 38, "days since baseline"))
    return parts


def waterfall(patients: Sequence[PatientResponse]) -> str:
    """Draw the best change of the sum from baseline, a bar per patient, the largest growth first.

    Visits after the one that confirmed a progression do not count, as they do not for the best response.
    """
    best = []
    for name, _, result in patients:
        end = next((visit.day for visit in result.visits if visit.irecist == "iCPD"), None)
        changes = [
            visit.change_from_baseline_percent
            for visit in result.visits
            if visit.change_from_baseline_percent is not None and (end is None or visit.day <= end)
        ]
        if changes:
            best.append((min(changes), name, result.best_irecist))
    best.sort(key=lambda item: (-item[0], item[1]))
    low, high = _percent_scale([change for change, _, _ in best])
    parts = _percent_axis(low, high)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(best))
    for index, (change, name, letter) in enumerate(best):
        top, zero = _y(max(change, 0), low, high), _y(0, low, high)
        height = max(abs(_y(change, low, high) - zero), 1.0)
        parts.append(
            f'<rect x="{LEFT + slot * index + slot * 0.1:.1f}" y="{top:.1f}" width="{slot * 0.8:.1f}" height="{height:.1f}" '
            f'fill="{_COLOURS.get(letter, _UNKNOWN)}"><title>{escape(name)}: {change:+.0f} %, {escape(letter)}</title></rect>'
        )
        x, y = LEFT + slot * (index + 0.5), HEIGHT - BOTTOM + 14
        if slot >= _ROOM_FOR_MARK:
            tip = _y(change, low, high)
            parts.append(_mark(x, tip - 9 if change >= 0 else tip + 9, letter))
        if slot >= 7 * len(name) + 6:
            parts.append(_text(x, y, name))
        elif slot >= _ROOM_FOR_TURNED_NAME:
            parts.append(f'<g transform="rotate(-50 {x:.1f} {y:.1f})">{_text(x + 4, y, name, "end")}</g>')
    parts.append(_line(LEFT, _y(0, low, high), WIDTH - RIGHT, _y(0, low, high), "#555555"))
    parts += _legend(HEIGHT + 14, "best response:")
    return _document("Best change of the sum of diameters from baseline", parts, HEIGHT + 30)


def swimmer(patients: Sequence[PatientResponse]) -> str:
    """Draw a bar per patient from baseline to the last visit, with the iRECIST response of every visit."""
    return swimmer_pages(patients, max(1, len(patients)))[0]


def swimmer_pages(patients: Sequence[PatientResponse], rows: int) -> list[str]:
    """Draw the same on several drawings of so many rows, all with the same axis."""
    ordered = sorted(patients, key=lambda item: (-max([0, *(v.day for v in item[2].visits)]), item[0]))
    last = max([1, *(visit.day for _, _, result in patients for visit in result.visits)])
    return [_swimmer(ordered[start : start + rows], last) for start in range(0, max(1, len(ordered)), rows)]


def _swimmer(ordered: Sequence[PatientResponse], last: int) -> str:
    row = 22
    bottom = TOP + row * max(1, len(ordered))
    longest = max([0, *(len(name) for name, _, _ in ordered)])
    left = min(max(LEFT + 40, 24 + 7 * longest), WIDTH // 2)

    def x(day: float) -> float:
        return left + day / last * (WIDTH - left - RIGHT)

    parts = []
    for index, (name, _, result) in enumerate(ordered):
        y = TOP + row * index
        days = [visit.day for visit in result.visits]
        if days:
            parts.append(
                f'<rect x="{x(0):.1f}" y="{y + 5}" width="{x(max(days)) - x(0):.1f}" height="{row - 10}" fill="#dfe6ee"/>'
            )
        parts.append(_text(left - 8, y + row / 2 + 4, name, "end"))
        for visit in result.visits:
            parts.append(_mark(x(visit.day), y + row / 2, visit.irecist, f"{name}, day {visit.day}: {visit.irecist}"))
    parts += _day_axis(last, x, bottom + 6)
    parts += _legend(bottom + 62)
    return _document("Response over time (iRECIST)", parts, bottom + 90)


# Corners of the marks, so that every response reads without colour; NE is a ring.
_SHAPES = {
    "iCR": ((0, -6), (5.5, 0), (0, 6), (-5.5, 0)),
    "iPR": ((-5.5, -4.5), (5.5, -4.5), (0, 5.5)),
    "iSD": ((-5.5, -2.2), (5.5, -2.2), (5.5, 2.2), (-5.5, 2.2)),
    "NON-iCR/NON-iUPD": ((-5.5, -2.2), (5.5, -2.2), (5.5, 2.2), (-5.5, 2.2)),
    "iUPD": ((-5.5, 4.5), (5.5, 4.5), (0, -5.5)),
    "iCPD": ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
}


def _mark(x: float, y: float, letter: str, title: str = "") -> str:
    """Draw a response by its colour and its own shape."""
    colour = _COLOURS.get(letter, _UNKNOWN)
    inside = f"<title>{escape(title)}</title>" if title else ""
    if letter not in _SHAPES:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2" fill="#ffffff" stroke="#777777" stroke-width="1.5">{inside}</circle>'
    points = " ".join(f"{x + across:.1f},{y + down:.1f}" for across, down in _SHAPES[letter])
    return f'<polygon points="{points}" fill="{colour}">{inside}</polygon>'


def _legend(y: float, of: str = "") -> list[str]:
    parts = [_text(LEFT, y, of, "start")] if of else []
    x = LEFT + (110.0 if of else 0.0)
    for letter in ("iCR", "iPR", "iSD", "iUPD", "iCPD", "NE"):
        parts.append(_mark(x, y - 4, letter))
        parts.append(_text(x + 10, y, letter, "start"))
        x += 80
    return parts
