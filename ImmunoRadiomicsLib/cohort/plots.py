"""Drawings of the page of a cohort as SVG; batches differ by form and fill as well, so that they read without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np

from .harmonised import HarmonisedPart

_WIDTH, _HEIGHT, _GAP, _TOP, _BOTTOM, _LEFT = 860, 330, 50, 44, 40, 46
# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_REACH = 3.0
_SHARES = 20


def scatter_plot(part: HarmonisedPart) -> str:
    """Draw the first two principal components before and after, side by side."""
    wide = (_WIDTH - _LEFT - _GAP) / 2
    high = _HEIGHT - _TOP - _BOTTOM
    parts = []
    for number, (title, points) in enumerate(zip(("before", "after"), part.scatter, strict=True)):
        left = _LEFT + number * (wide + _GAP)
        parts.append(_frame(left, wide, high, title))
        for (x, y), batch in zip(np.clip(points, -_REACH, _REACH), part.scattered, strict=True):
            place = (left + (x + _REACH) / (2 * _REACH) * wide, _TOP + (_REACH - y) / (2 * _REACH) * high)
            parts.append(_mark(*place, part.batches.index(batch), batch))
        parts.append(_text(left + wide / 2, _HEIGHT - 14, "first principal component, in standard deviations"))
    middle = _TOP + high / 2
    parts.append(f'<g transform="rotate(-90 16 {middle:.1f})">{_text(16, middle, "second principal component")}</g>')
    legend, height = _legend(part.batches)
    return _document(f"Features of {part.name} by batch, before and after harmonisation", parts + legend, height)


def share_plot(part: HarmonisedPart) -> str:
    """Draw how many features have which share of their variance between batches, before (outline) and after (filled)."""
    wide, high = _WIDTH - 2 * _LEFT, _HEIGHT - _TOP - _BOTTOM
    edges = np.linspace(0, 1, _SHARES + 1)
    before, after = (np.histogram(item[np.isfinite(item)], edges)[0] for item in part.shares)
    most = max(1, int(before.max()), int(after.max()))
    slot = wide / _SHARES
    parts = [_frame(_LEFT, wide, high, "")]
    for number, (early, late) in enumerate(zip(before, after, strict=True)):
        for count, inset, style in (
            (late, 0.22, 'fill="#8c8c8c"'),
            (early, 0.08, 'fill="none" stroke="#222222" stroke-width="1.5"'),
        ):
            tall = count / most * (high - 6)
            if tall:
                parts.append(
                    f'<rect x="{_LEFT + slot * (number + inset):.1f}" y="{_TOP + high - tall:.1f}" width="{slot * (1 - 2 * inset):.1f}" '
                    f'height="{tall:.1f}" {style}/>'
                )
    parts += [_text(_LEFT + wide * tick / 5, _TOP + high + 15, f"{tick * 20} %") for tick in range(6)]
    parts.append(_text(_LEFT + wide / 2, _HEIGHT - 6, "share of a feature's variance that lies between batches"))
    parts.append(_text(_LEFT - 6, _TOP + 10, str(most), "end"))
    parts.append(_text(_LEFT - 6, _TOP + high, "0", "end"))
    parts.append(
        f'<rect x="{_WIDTH - 330}" y="{_TOP + 8}" width="12" height="12" fill="none" stroke="#222222" stroke-width="1.5"/>'
        + _text(_WIDTH - 312, _TOP + 18, "before", "start")
        + f'<rect x="{_WIDTH - 240}" y="{_TOP + 8}" width="12" height="12" fill="#8c8c8c"/>'
        + _text(_WIDTH - 222, _TOP + 18, "after", "start")
    )
    return _document(f"Features of {part.name}: variance between batches", parts, _HEIGHT)


def flag_plot(levels: Mapping[str, Mapping[str, int]]) -> str:
    """Draw a bar for each question, parted by level; ``levels`` counts the patients of each. The likelier the darker."""
    row, left, wide = 40, 150, _WIDTH - 150 - 20
    shades = {"likely": "#333333", "indeterminate": "#8c8c8c", "unlikely": "#d9d9d9", "not assessable": "#ffffff"}
    parts = []
    for number, (question, counts) in enumerate(levels.items()):
        y, x, total = 34 + number * row, float(left), max(1, sum(counts.values()))
        parts.append(_text(left - 10, y + 17, question, "end"))
        for level, shade in shades.items():
            length = counts.get(level, 0) / total * wide
            if not length:
                continue
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="26" fill="{shade}" stroke="#333333"/>'
            )
            if length > 8 * len(str(counts[level])) + 4:
                ink = "#ffffff" if level == "likely" else "#111111"
                parts.append(
                    f'<text x="{x + length / 2:.1f}" y="{y + 17}" text-anchor="middle" fill="{ink}">{counts[level]}</text>'
                )
            x += length
    y = 34 + len(levels) * row + 12
    for number, (level, shade) in enumerate(shades.items()):
        x = left + number * 140
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{shade}" stroke="#333333"/>')
        parts.append(_text(x + 18, y, level, "start"))
    return _document("Patients by level of each question", parts, y + 14)


def _document(title: str, parts: Sequence[str], height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{escape(title)}</title>'
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#ffffff"/>'
        f'<text x="{_LEFT}" y="18" font-size="15" font-weight="600">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def _frame(left: float, wide: float, high: float, title: str) -> str:
    frame = f'<rect x="{left:.1f}" y="{_TOP}" width="{wide:.1f}" height="{high:.1f}" fill="none" stroke="#999999"/>'
    return frame + (_text(left + wide / 2, _TOP - 7, title) if title else "")


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333333">{escape(text)}</text>'


def _mark(x: float, y: float, number: int, title: str = "") -> str:
    """Draw a batch: a circle, a square, a triangle or a rhombus, filled or not."""
    colour = _COLOURS[number % len(_COLOURS)]
    style = f'fill="{colour}"' if number // 4 % 2 == 0 else f'fill="#ffffff" stroke="{colour}" stroke-width="1.5"'
    inside = f"<title>{escape(title)}</title>" if title else ""
    outlines = {
        1: ((-3, -3), (3, -3), (3, 3), (-3, 3)),
        2: ((-4, 3), (4, 3), (0, -4)),
        3: ((0, -4.5), (4, 0), (0, 4.5), (-4, 0)),
    }
    if number % 4 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" {style}>{inside}</circle>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in outlines[number % 4])
    return f'<polygon points="{points}" {style}>{inside}</polygon>'


def _legend(batches: Sequence[str]) -> tuple[list[str], float]:
    """Return the marks of the batches below the drawing, in rows of three, and the height with them."""
    parts = []
    for number, name in enumerate(batches):
        x, y = _LEFT + number % 3 * 270, _HEIGHT + 8 + number // 3 * 20
        parts += [_mark(x, y - 4, number), _text(x + 12, y, name if len(name) < 36 else f"{name[:34]}…", "start")]
    return parts, _HEIGHT + 8 + (len(batches) + 2) // 3 * 20
