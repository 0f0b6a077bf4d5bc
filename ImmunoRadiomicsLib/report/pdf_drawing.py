"""What is drawn in the PDF rather than set as text: bars, charts, key images and the map of the lungs.

Each function returns one that draws on a canvas of reportlab, given the canvas and the size of its place.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..analysis import Flag
from .charts import Chart
from .figures import Panel
from .html import LungMap, number

if TYPE_CHECKING:
    from reportlab.platypus import Flowable

Draw = Callable[[Any, float, float], None]
Spell = Callable[[str], str]

FONT, BOLD, ITALIC = "Vera", "VeraBd", "VeraIt"
INK, SOFT, LINE = 0.1, 0.38, 0.78
_DASHES = ((), (7, 3), (2, 3), (9, 3, 2, 3), (4, 2))
# Okabe and Ito's colours, told apart by people with any colour vision; in grey the dashes and markers tell lines apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b4558f", "#b07d00", "#2b8cc4", "#333333", "#7a4fbf")


def probability_bar(flag: Flag) -> Draw:
    """Draw the probability of a flag with its interval and its prior on a scale from 0 to 100 %."""

    def draw(canvas: Any, width: float, height: float) -> None:
        left, span, middle = 4.0, width - 8.0, height / 2

        def x(share: float) -> float:
            return left + span * share

        canvas.setLineWidth(0.4)
        canvas.setStrokeGray(SOFT)
        canvas.line(left, middle - 8, left + span, middle - 8)
        for share in (0, 0.25, 0.5, 0.75, 1):
            canvas.line(x(share), middle - 10, x(share), middle - 6)
        if flag.lower is not None and flag.upper is not None:
            canvas.setFillGray(0.72)
            canvas.rect(x(flag.lower), middle, max(x(flag.upper) - x(flag.lower), 0.5), 7, stroke=0, fill=1)
        if flag.prior is not None:
            path = canvas.beginPath()
            at = x(flag.prior)
            path.moveTo(at, middle)
            for step in ((3.2, -3.2), (0, -6.4), (-3.2, -3.2)):
                path.lineTo(at + step[0], middle + step[1])
            path.close()
            canvas.setFillGray(1)
            canvas.setStrokeGray(INK)
            canvas.drawPath(path, stroke=1, fill=1)
        if flag.probability is not None:
            canvas.setFillGray(INK)
            canvas.circle(x(flag.probability), middle + 3.5, 3.2, stroke=0, fill=1)

    return draw


def chart_lines(chart: Chart, scale: float, plain: Spell) -> Draw:
    """Draw a chart; ``plain`` spells text in the characters of the font."""
    from reportlab.lib.colors import HexColor

    def draw(canvas: Any, width: float, height: float) -> None:
        canvas.translate(0, height)
        canvas.scale(scale, scale)

        def label(x: float, y: float, words: str, anchor: str = "start", font: str = FONT) -> None:
            canvas.setFont(font, 10)
            draw_text = {
                "start": canvas.drawString,
                "middle": canvas.drawCentredString,
                "end": canvas.drawRightString,
            }
            draw_text[anchor](x, -y - 3.5, plain(words))

        bands = {"progression": 0.88, "response": 0.94}
        for guide in chart.guides:
            if guide.kind in bands:
                top = chart.top if guide.kind == "progression" else guide.y
                end = guide.y if guide.kind == "progression" else chart.bottom
                canvas.setFillGray(bands[guide.kind])
                canvas.rect(guide.x1, -end, guide.x2 - guide.x1, end - top, stroke=0, fill=1)
        canvas.setLineWidth(0.5)
        for tick in chart.y_ticks:
            canvas.setStrokeGray(LINE)
            canvas.line(chart.left, -tick.at, chart.right, -tick.at)
            canvas.setFillGray(SOFT)
            label(chart.left - 6, tick.at, tick.label, "end")
        for tick in chart.x_ticks:
            canvas.setStrokeGray(SOFT)
            canvas.line(tick.at, -chart.bottom, tick.at, -chart.bottom - 4)
            label(tick.at, chart.bottom + 12, tick.label, "middle")
        label((chart.left + chart.right) / 2, chart.height - 8, "days since baseline", "middle")
        canvas.line(chart.left, -chart.bottom, chart.right, -chart.bottom)
        if chart.start_x is not None:
            canvas.setDash(1, 2)
            canvas.line(chart.start_x, -chart.top, chart.start_x, -chart.bottom)
            label(chart.start_x + 4, chart.top + 5, "treatment")
        dashes = {"baseline": (), "response": (6, 3), "nadir": (1, 2), "progression": (6, 3)}
        for guide in chart.guides:
            canvas.setStrokeGray(SOFT)
            canvas.setLineWidth(0.9)
            canvas.setDash(*(list(dashes[guide.kind]),) if dashes[guide.kind] else ())
            canvas.line(guide.x1, -guide.y, guide.x2, -guide.y)
        canvas.setDash()
        canvas.setFillGray(SOFT)
        for item in chart.guide_labels:
            label(chart.right + 6, item.at, item.label)
        for line in chart.lines:
            colour = HexColor(
                "#1a1a1a" if line.style < 0 or len(chart.lines) == 1 else _COLOURS[line.style % len(_COLOURS)]
            )
            canvas.setStrokeColor(colour)
            canvas.setFillColor(colour)
            canvas.setLineWidth(2.6 if line.style < 0 else 1.6)
            dash = () if line.style < 0 else _DASHES[line.style % len(_DASHES)]
            canvas.setDash(*(list(dash),) if dash else ())
            for one, other in pairwise(line.dots):
                canvas.line(one.x, -one.y, other.x, -other.y)
            canvas.setDash()
            for dot in line.dots:
                _marker(canvas, line.style % 5 if line.style >= 0 else 0, dot.x, -dot.y)
            if line.label_x is not None:
                label(line.label_x, line.label_y, line.label, font=BOLD)

    return draw


def key_picture(panel: Panel, scale: float) -> Draw:
    """Draw a picture with its outlines, diameters and marks."""
    from reportlab.lib.utils import ImageReader

    picture = ImageReader(io.BytesIO(panel.png))

    def draw(canvas: Any, width: float, height: float) -> None:
        canvas.drawImage(picture, 0, 0, width, height)
        clip = canvas.beginPath()
        clip.rect(0, 0, width, height)
        canvas.clipPath(clip, stroke=0, fill=0)
        canvas.translate(0, height)

        def stroke(
            lines: Callable[[], None], wide: float, dash: Sequence[float], colour: tuple[float, float, float]
        ) -> None:
            """Draw twice: a dark casing that shows on bright tissue, and the line itself."""
            canvas.setDash()
            canvas.setStrokeGray(0)
            canvas.setLineWidth(wide + 0.9)
            lines()
            canvas.setDash(*(list(dash),) if dash else ())
            canvas.setStrokeColorRGB(*colour)
            canvas.setLineWidth(wide)
            lines()

        for contour in panel.contours:
            dashed = contour.of == "baseline"
            colour = (0.34, 0.71, 0.91) if dashed else (0.94, 0.76, 0.29)
            stroke(
                partial(canvas.drawPath, _outline(canvas, contour.path, scale), stroke=1, fill=0),
                1.1 if contour.main else 0.6,
                (3, 2) if dashed else (),
                colour,
            )
        for diameter in panel.diameters:
            ends = (
                diameter.start[0] * scale,
                -diameter.start[1] * scale,
                diameter.end[0] * scale,
                -diameter.end[1] * scale,
            )
            stroke(
                partial(canvas.line, *ends),
                0.8,
                (1, 1.6) if diameter.name == "short axis" else (),
                (1, 1, 1),
            )
        for mark in panel.marks:
            place = (mark.x_mm * scale, -mark.y_mm * scale, mark.radius_mm * scale)
            stroke(partial(canvas.circle, *place, stroke=1, fill=0), 0.8, (), (1, 1, 1))
            _on_picture(canvas, (mark.x_mm + mark.radius_mm + 2) * scale, -mark.y_mm * scale - 2, mark.label)
        canvas.setDash()
        _on_picture(canvas, 2, -height / 2, "R")
        _on_picture(canvas, width - 7, -height / 2, "L")
        _on_picture(canvas, width / 2 - 2, -7, "A" if panel.plane == "axial" else "H")
        bar = panel.scale_bar_mm * scale
        stroke(lambda: canvas.line(4, -height + 4, 4 + bar, -height + 4), 1.2, (), (1, 1, 1))
        _on_picture(canvas, 4, -height + 7, f"{panel.scale_bar_mm:.0f} mm")

    return draw


def _on_picture(canvas: Any, x: float, y: float, words: str) -> None:
    """Write white on a dark casing."""
    for wide, grey in ((1.6, 0.0), (0.0, 1.0)):
        text = canvas.beginText(x, y)
        text.setFont(BOLD, 6)
        text.setTextRenderMode(2 if wide else 0)
        canvas.setLineWidth(wide)
        canvas.setStrokeGray(grey)
        canvas.setFillGray(grey)
        text.textOut(words)
        canvas.drawText(text)


def lung_map(item: LungMap, plain: Spell) -> Draw:
    """Draw the new opacity of the thirds of both lungs."""

    def draw(canvas: Any, width: float, height: float) -> None:
        canvas.setFillGray(INK)
        canvas.setFont(BOLD, 7.5)
        canvas.drawCentredString(width / 2, height - 9, plain(item.timepoint))
        canvas.setFont(FONT, 7)
        canvas.drawString(2, height - 20, "right lung")
        canvas.drawRightString(width - 2, height - 20, "left lung")
        for row, (third, right, left) in enumerate(item.rows):
            for column, part in enumerate((right, left)):
                wide, tall = (width - 34) / 2, 30.0
                x, y = 2 + column * (wide + 30), height - 56 - row * (tall + 2)
                value = part.new_opacity_percent if part is not None and part.assessable else None
                canvas.setStrokeGray(SOFT)
                canvas.setLineWidth(0.6)
                grey = 1.0 if value is None else 1 - 0.6 * min(value / 20, 1)
                canvas.setFillGray(grey)
                canvas.roundRect(x, y, wide, tall, 6, stroke=1, fill=1)
                canvas.setFillGray(INK)
                canvas.setFont(BOLD if value is not None else FONT, 8)
                words = f"{number(value)} %" if value is not None else "n/a"
                if value is None:
                    canvas.setStrokeGray(LINE)
                    for step in range(8, int(wide), 8):
                        canvas.line(x + step, y + 1, x + min(step + 6, wide), y + 7)
                canvas.drawCentredString(x + wide / 2, y + tall / 2 - 2, words)
            canvas.setFont(FONT, 6)
            canvas.setFillGray(SOFT)
            canvas.drawCentredString(width / 2, height - 56 - row * 32 + 13, third)

    return draw


def drawing(width: float, height: float, draw: Draw) -> Flowable:
    """Return a flowing part that is drawn by a function of the canvas and its own size."""
    from reportlab.platypus import Flowable

    class Drawing(Flowable):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.height = width, height

        def wrap(self, available_width: float, available_height: float) -> tuple[float, float]:
            return self.width, self.height

        def draw(self) -> None:
            self.canv.saveState()
            draw(self.canv, self.width, self.height)
            self.canv.restoreState()

    return Drawing()


def _marker(canvas: Any, shape: int, x: float, y: float) -> None:
    """Draw the marker of a line: disc, square, triangle, diamond or cross."""
    if shape == 0:
        canvas.circle(x, y, 3.4, stroke=0, fill=1)
    elif shape == 1:
        canvas.rect(x - 3.1, y - 3.1, 6.2, 6.2, stroke=0, fill=1)
    elif shape == 4:
        canvas.line(x - 3.2, y - 3.2, x + 3.2, y + 3.2)
        canvas.line(x - 3.2, y + 3.2, x + 3.2, y - 3.2)
    else:
        points = ((0, 4.2), (4.0, -3.2), (-4.0, -3.2)) if shape == 2 else ((0, 4.4), (4.4, 0), (0, -4.4), (-4.4, 0))
        path = canvas.beginPath()
        path.moveTo(x + points[0][0], y + points[0][1])
        for across, up in points[1:]:
            path.lineTo(x + across, y + up)
        path.close()
        canvas.drawPath(path, stroke=0, fill=1)


def _outline(canvas: Any, path: str, scale: float) -> Any:
    """Return the closed polygons of an SVG path, as ``figures.svg_path`` writes them, on the canvas."""
    drawn = canvas.beginPath()
    for polygon in re.findall(r"M([^Z]*)Z", path):
        points = [tuple(map(float, point.split())) for point in polygon.split("L")]
        drawn.moveTo(points[0][0] * scale, -points[0][1] * scale)
        for x, y in points[1:]:
            drawn.lineTo(x * scale, -y * scale)
        drawn.close()
    return drawn
