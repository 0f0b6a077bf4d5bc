"""The report of a cohort as PDF, with the figures of its page; A4 or Letter, readable in greys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ..pipeline import RESEARCH_USE_ONLY, software_version
from ..report.pdf_drawing import BOLD, FONT, drawing
from ..report.pdf_pages import Furniture, Pages, PageSize
from ..response.plots import spider, swimmer_pages, waterfall
from .plots import flag_plot
from .view import CAPTIONS, LEVELS, SCANNER_COLUMNS, CohortView, harmonisation_drawings

if TYPE_CHECKING:
    from reportlab.platypus import Flowable

PRINTED_FILE = "cohort.pdf"
# Names can still be read on so many rows of a page; more pages than these nobody turns.
_ROWS_OF_SWIMMER, _MOST_SWIMMERS = 40, 10
_ROOM_FOR_CAPTION = 60.0


def write_printed(view: CohortView, path: Path, *, page: PageSize = "A4") -> None:
    """Write cohort.pdf; the file is either whole or absent.

    Raises
    ------
    MissingDependencyError
        If reportlab is not installed.
    """
    made = f"ImmunoRadiomics {software_version()}"
    pages = Pages(Furniture("Cohort report", made, RESEARCH_USE_ONLY, "Cohort report", made), page)
    pages.write(_story(view, pages), path)


def _story(view: CohortView, pages: Pages) -> Iterator[Flowable]:
    yield pages.text("Cohort report", "title")
    yield pages.text(view.headline)
    yield pages.heading("Response")
    if view.patients:
        yield from _figure(pages, waterfall(view.patients), CAPTIONS["waterfall"])
        yield from _figure(pages, spider(view.patients), CAPTIONS["spider"])
    yield pages.table(
        ("Best overall response", "RECIST 1.1", "RECIST 1.1, confirmed", "iRECIST"),
        [(letter or "none", *map(str, counts)) for letter, counts in view.best],
        (2, 1, 1, 1),
        right=(1, 2, 3),
    )
    if len(view.patients) > _ROWS_OF_SWIMMER * _MOST_SWIMMERS:
        yield pages.text(f"The response of each of {len(view.patients)} patients over time is drawn in cohort.html.")
    elif view.patients:
        for one in swimmer_pages(view.patients, _ROWS_OF_SWIMMER):
            yield from _figure(pages, one, CAPTIONS["swimmer"])
    yield pages.heading("The three questions")
    yield from _figure(pages, flag_plot(view.levels), CAPTIONS["flags"])
    yield pages.table(
        ("Question", *LEVELS),
        [(flag, *(str(counts[level]) for level in LEVELS)) for flag, counts in view.levels.items()],
        (2, 1, 1, 1, 1),
        right=(1, 2, 3, 4),
    )
    yield pages.heading("Quality")
    if view.scanners:
        yield pages.table(SCANNER_COLUMNS, view.scanners, (3, 1, 1.4, 2, 1.6, 2.4, 1.4))
    yield pages.text(view.alignment)
    if view.harmonised is not None:
        yield pages.heading(f"Harmonisation by {view.harmonised.by}")
        yield pages.text(view.harmonisation)
        for part in view.harmonised.parts:
            yield pages.text(f"Features of {part.name}", "strong")
            yield pages.text(part.note)
            for caption, svg in harmonisation_drawings(part):
                yield from _figure(pages, svg, caption)
    yield pages.heading("Not analysed")
    if view.failed:
        rows = [(item.patient, item.stage, item.reason) for item in view.failed]
        yield pages.table(("Patient", "Stage", "Reason"), rows, (1.4, 1, 5))
    else:
        yield pages.text("None.")


def _figure(pages: Pages, svg: str, caption: str) -> Iterator[Flowable]:
    """Yield a drawing with what it shows below, as large as the page allows."""
    from reportlab.platypus import KeepTogether

    root = ElementTree.fromstring(svg)  # noqa: S314 - drawn here, not read from anywhere
    wide, high = (float(root.get(name, "1")) for name in ("width", "height"))
    scale = min(pages.width / wide, (pages.height - _ROOM_FOR_CAPTION) / high)

    def draw(canvas: Any, width: float, height: float) -> None:
        canvas.translate(0, height)
        canvas.scale(scale, scale)
        _draw(root, canvas, pages.plain)

    yield KeepTogether([drawing(wide * scale, high * scale, draw), pages.text(caption, "small")])


def _draw(element: ElementTree.Element, canvas: Any, plain: Callable[[str], str]) -> None:
    """Draw what the plots are made of: rectangles, lines, circles, polygons and texts, some of them turned; y runs down in them and up here."""
    for item in element:
        kind = item.tag.rpartition("}")[2]
        canvas.saveState()
        if kind == "g":
            angle, x, y = (float(part) for part in re.findall(r"[-\d.]+", item.get("transform", "rotate(0 0 0)")))
            canvas.translate(x, -y)
            canvas.rotate(-angle)
            canvas.translate(-x, y)
            _draw(item, canvas, plain)
        elif kind == "text":
            _draw_text(item, canvas, plain)
        elif kind != "title":
            _draw_shape(kind, item, canvas)
        canvas.restoreState()


def _draw_text(item: ElementTree.Element, canvas: Any, plain: Callable[[str], str]) -> None:
    from reportlab.lib.colors import HexColor

    canvas.setFillColor(HexColor(item.get("fill", "#222222")))
    canvas.setFont(BOLD if item.get("font-weight") else FONT, float(item.get("font-size", "12")) * 0.92)
    write = {"middle": canvas.drawCentredString, "end": canvas.drawRightString}
    x, y = _numbers(item, "x", "y")
    write.get(item.get("text-anchor", "start"), canvas.drawString)(x, -y, plain(item.text or ""))


def _draw_shape(kind: str, item: ElementTree.Element, canvas: Any) -> None:
    from reportlab.lib.colors import HexColor

    fill, stroke = item.get("fill", "none"), item.get("stroke", "none")
    if fill != "none":
        canvas.setFillColor(HexColor(fill))
    if stroke != "none":
        canvas.setStrokeColor(HexColor(stroke), alpha=float(item.get("stroke-opacity", "1")))
        canvas.setLineWidth(float(item.get("stroke-width", "1")))
    if dash := item.get("stroke-dasharray"):
        canvas.setDash([float(part) for part in dash.split()])
    how = {"fill": int(fill != "none"), "stroke": int(stroke != "none")}
    if kind == "rect":
        x, y, width, height = _numbers(item, "x", "y", "width", "height")
        canvas.rect(x, -y - height, width, height, **how)
    elif kind == "line":
        x1, y1, x2, y2 = _numbers(item, "x1", "y1", "x2", "y2")
        canvas.line(x1, -y1, x2, -y2)
    elif kind == "circle":
        x, y, radius = _numbers(item, "cx", "cy", "r")
        canvas.circle(x, -y, radius, **how)
    else:
        points = [tuple(map(float, point.split(","))) for point in item.get("points", "").split()]
        path = canvas.beginPath()
        path.moveTo(points[0][0], -points[0][1])
        for x, y in points[1:]:
            path.lineTo(x, -y)
        if kind == "polygon":
            path.close()
        canvas.drawPath(path, **how)


def _numbers(item: ElementTree.Element, *names: str) -> tuple[float, ...]:
    return tuple(float(item.get(name, "0")) for name in names)
