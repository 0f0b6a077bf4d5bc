"""Charts of a validation as SVG, in the style of the other reports: colours come from the page, so that they print and invert."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 12.0, 44.0


@dataclass(frozen=True)
class Series:
    """A line, or with ``dots`` separate points with optional vertical ``ranges``; ``style`` chooses the colour, ``dash`` the dashes."""

    label: str
    points: tuple[tuple[float, float], ...]
    style: int = 0
    dash: str = ""
    dots: bool = False
    ranges: tuple[tuple[float, float], ...] = ()


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Return the round numbers from ``low`` to ``high``, four to eight of them, whose step is 1, 2 or 5 at some place."""
    size = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(size * factor for factor in (10, 5, 2, 1) if (high - low) / (size * factor) >= 3)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded to the place of the step, because 3 * 0.1 is not 0.3.
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return tuple(round(number * step, digits) + 0.0 for number in range(first, last + 1))


def chart(
    title: str, series: Sequence[Series], *, x: str, y: str, x_range: tuple[float, float], y_range: tuple[float, float]
) -> str:
    """Return a chart of lines and points as SVG; what lies outside of the ranges is cut at their edge."""

    def at(px: float, py: float) -> tuple[float, float]:
        sx = (min(max(px, x_range[0]), x_range[1]) - x_range[0]) / (x_range[1] - x_range[0])
        sy = (min(max(py, y_range[0]), y_range[1]) - y_range[0]) / (y_range[1] - y_range[0])
        return _LEFT + sx * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - sy * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(title)}">']
    for px in ticks(*x_range):
        left = at(px, 0)[0]
        parts.append(
            f'<path class="grid" d="M{left:.1f} {_TOP:g}V{HEIGHT - _BOTTOM:g}"/>'
            f'<text class="label" x="{left:.1f}" y="{HEIGHT - _BOTTOM + 15:g}" text-anchor="middle">{px:g}</text>'
        )
    for py in ticks(*y_range):
        bottom = at(0, py)[1]
        parts.append(
            f'<path class="grid" d="M{_LEFT:g} {bottom:.1f}H{WIDTH - _RIGHT:g}"/>'
            f'<text class="label" x="{_LEFT - 6:g}" y="{bottom + 4:.1f}" text-anchor="end">{py:g}</text>'
        )
    parts.append(
        f'<text class="label" x="{(_LEFT + WIDTH - _RIGHT) / 2:g}" y="{HEIGHT - 8:g}" text-anchor="middle">{escape(x)}</text>'
        f'<text class="label" transform="translate(12 {(HEIGHT - _BOTTOM + _TOP) / 2:g}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    )
    for item in series:
        places = [at(*point) for point in item.points]
        if item.dots:
            for (left, _), (low, high), (px, _) in zip(places, item.ranges, item.points, strict=False):
                parts.append(f'<path class="whisker" d="M{left:.1f} {at(px, low)[1]:.1f}V{at(px, high)[1]:.1f}"/>')
            parts += [
                f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" style="fill:var(--s{item.style})"/>'
                for left, top in places
            ]
        elif places:
            path = "M" + "L".join(f"{left:.1f} {top:.1f}" for left, top in places)
            parts.append(
                f'<path class="series" style="stroke:var(--s{item.style})" stroke-dasharray="{item.dash}" d="{path}"/>'
            )
    named = [item for item in series if item.label]
    for row, item in enumerate(named):
        top = _TOP + 14 + 15 * row
        parts.append(
            f'<path class="series" style="stroke:var(--s{item.style})" stroke-dasharray="{item.dash}" d="M{WIDTH - 150:g} {top - 4:g}h22"/>'
            f'<text class="label" x="{WIDTH - 122:g}" y="{top:g}">{escape(item.label)}</text>'
        )
    return "".join((*parts, "</svg>"))


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Return horizontal bars (name, length, what is written behind) as SVG; the longest fills the width."""
    height = 20.0 * len(rows) + 8
    longest = max((length for _, length, _ in rows), default=0.0) or 1.0
    parts = [f'<svg viewBox="0 0 860 {height:g}" role="img" aria-label="{escape(title)}">']
    for place, (name, length, text) in enumerate(rows):
        top = 20.0 * place + 4
        parts.append(
            f'<text class="label" x="430" y="{top + 12:g}" text-anchor="end">{escape(name[-64:])}</text>'
            f'<rect x="438" y="{top + 2:g}" width="{max(300 * length / longest, 0.5):.1f}" height="12" style="fill:var(--s0)"/>'
            f'<text class="label" x="{444 + 300 * length / longest:.1f}" y="{top + 12:g}">{escape(text)}</text>'
        )
    return "".join((*parts, "</svg>"))
