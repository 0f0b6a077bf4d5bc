"""Pages of a printed report: their size and furniture, fonts that are embedded, headings, paragraphs, tables and framed notes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape

from ..errors import MissingDependencyError
from ..files import whole_file
from .pdf_drawing import BOLD, FONT, INK, ITALIC, LINE, SOFT

if TYPE_CHECKING:
    from reportlab.platypus import Flowable

PageSize = Literal["A4", "letter"]

_MARGIN = 48.0
_ROOM_UNDER_TITLE = 90.0
_BAND = 0.95
_SPELT = {
    "→": "to",
    "′": "'",
    "″": '"',
    "\u00a0": " ",
    "\u202f": " ",
    "✓": "",
    "✕": "x",
    "●": "",
    "○": "",
    "Δ": "change",
    "⁹": "^9",
}


@dataclass(frozen=True)
class Furniture:
    """What stands on every page, and what the document says of itself; ``notice`` is in the head, the others at the foot."""

    title: str
    author: str
    notice: str
    left: str
    made: str


class Pages:
    """Sets the parts of a document. ``width`` and ``height`` are those of the text on a page, in points.

    Raises
    ------
    MissingDependencyError
        If reportlab is not installed.
    """

    def __init__(self, furniture: Furniture, page: PageSize):
        try:
            from reportlab.lib import pagesizes
        except ImportError as error:
            raise MissingDependencyError("The PDF needs reportlab. Install it: pip install reportlab") from error
        self._paper = pagesizes.A4 if page == "A4" else pagesizes.LETTER
        self._furniture = furniture
        self.width, self.height = self._paper[0] - 2 * _MARGIN, self._paper[1] - 2 * _MARGIN - 14
        self._glyphs = _register_fonts()
        self._styles = _styles()

    def write(self, parts: Iterable[Flowable], path: Path) -> None:
        """Write the document; the file is either whole or absent. A title never stands alone at the end of a page."""
        from reportlab.platypus import BaseDocTemplate, CondPageBreak, Frame, PageTemplate

        stream = io.BytesIO()
        document = BaseDocTemplate(
            stream,
            pagesize=self._paper,
            leftMargin=_MARGIN,
            rightMargin=_MARGIN,
            topMargin=_MARGIN + 8,
            bottomMargin=_MARGIN + 6,
            title=self._furniture.title,
            author=self._furniture.author,
            subject=self._furniture.notice,
            lang="en",
            invariant=1,
            displayDocTitle=True,
        )
        frame = Frame(_MARGIN, _MARGIN + 6, self.width, self.height, 0, 0, 0, 0)
        document.addPageTemplates([PageTemplate("page", [frame], onPage=self._furnish)])
        titles = (self._styles["section"], self._styles["sub"])
        story: list[Flowable] = []
        for item in parts:
            if getattr(item, "style", None) in titles:
                story.append(CondPageBreak(_ROOM_UNDER_TITLE))
            story.append(item)
        with _binary_streams():
            document.build(story, canvasmaker=_numbered_canvas())
        with whole_file(path) as temporary:
            temporary.write_bytes(stream.getvalue())

    def _furnish(self, canvas: Any, document: Any) -> None:
        """Draw what stands on every page."""
        width, height = canvas._pagesize
        canvas.setFont(BOLD, 7.5)
        canvas.setFillGray(INK)
        canvas.drawCentredString(width / 2, height - _MARGIN + 8, self.plain(self._furniture.notice))
        canvas.setStrokeGray(LINE)
        canvas.line(_MARGIN, height - _MARGIN + 2, width - _MARGIN, height - _MARGIN + 2)
        canvas.setFont(FONT, 7)
        canvas.setFillGray(SOFT)
        canvas.drawString(_MARGIN, _MARGIN - 10, self.plain(self._furniture.left))
        canvas.drawCentredString(width / 2, _MARGIN - 10, self.plain(self._furniture.made))

    def plain(self, text: str) -> str:
        """Return text in the characters that the font has."""
        spelt = "".join(_SPELT.get(character, character) for character in text)
        return "".join(character if ord(character) in self._glyphs or character == "\n" else "?" for character in spelt)

    def text(self, words: str, style: str = "body") -> Flowable:
        """Return a paragraph; ``words`` are plain text."""
        return self.marked(escape(self.plain(words)), style)

    def marked(self, markup: str, style: str = "body") -> Flowable:
        """Return a paragraph of text that is already escaped, with bold and italic marks."""
        from reportlab.platypus import Paragraph

        return Paragraph(markup, self._styles[style])

    def bold(self, words: str) -> str:
        """Return markup of plain text in bold."""
        return f'<font name="{BOLD}">{escape(self.plain(words))}</font>'

    def safe(self, words: str) -> str:
        """Return markup of plain text."""
        return escape(self.plain(words))

    def heading(self, title: str) -> Flowable:
        """Return a section heading that also stands in the outline of the document."""
        return _heading(self.plain(title), self._styles["section"])

    def table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[str | Flowable]],
        shares: Sequence[float],
        *,
        right: Iterable[int] = (),
        strong_rows: Iterable[int] = (),
    ) -> Flowable:
        """Return a table that goes on over pages under its repeated header; ``shares`` are the widths of its columns."""
        from reportlab.platypus import Table

        numeric = set(right)

        def cell(value: str | Flowable, column: int, style: str) -> Any:
            return (
                self.text(value, style + ("-right" if column in numeric else "")) if isinstance(value, str) else value
            )

        body = [[cell(value, column, "cell") for column, value in enumerate(row)] for row in rows]
        head = [[cell(value, column, "head") for column, value in enumerate(header)]]
        total = sum(shares)
        made = Table(
            head + body,
            colWidths=[self.width * share / total for share in shares],
            repeatRows=1,
            hAlign="LEFT",
            spaceAfter=6,
        )
        commands: list[tuple[Any, ...]] = [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 3),
            ("RIGHTPADDING", (0, 0), (-1, -1), 5),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
            ("LINEBELOW", (0, 0), (-1, 0), 0.8, _grey(SOFT)),
            ("LINEBELOW", (0, 1), (-1, -1), 0.3, _grey(LINE)),
        ]
        commands += [("BACKGROUND", (0, row + 1), (-1, row + 1), _grey(_BAND)) for row in strong_rows]
        made.setStyle(commands)
        return made

    def boxed(self, title: str, words: str) -> Flowable:
        """Return a framed note."""
        from reportlab.platypus import Table

        made = Table(
            [[[self.text(title, "strong"), self.text(words)]]], colWidths=[self.width], spaceBefore=4, spaceAfter=6
        )
        made.setStyle([("BOX", (0, 0), (-1, -1), 1.2, _grey(INK)), ("BACKGROUND", (0, 0), (-1, -1), _grey(_BAND))])
        return made


@contextlib.contextmanager
def _binary_streams() -> Iterator[None]:
    """Let reportlab write compressed pages and pictures as they are: as text (ASCII85) they take a second and a quarter more room."""
    from reportlab import rl_config

    before = rl_config.useA85
    rl_config.useA85 = 0
    try:
        yield
    finally:
        rl_config.useA85 = before


def _numbered_canvas() -> Any:
    """Return a canvas class that writes `page of pages`, which is known only at the end."""
    from reportlab.pdfgen.canvas import Canvas

    class NumberedCanvas(Canvas):
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **options)
            self._kept: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802
            self._kept.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for state in self._kept:
                self.__dict__.update(state)
                self.setFont(FONT, 7)
                self.setFillGray(SOFT)
                self.drawRightString(
                    self._pagesize[0] - _MARGIN, _MARGIN - 10, f"{self._pageNumber} / {len(self._kept)}"
                )
                super().showPage()
            super().save()

    return NumberedCanvas


def _grey(level: float) -> Any:
    from reportlab.lib.colors import Color

    return Color(level, level, level)


def _register_fonts() -> frozenset[int]:
    """Register the fonts that reportlab brings, and return the characters that they have."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    for name in (FONT, BOLD, ITALIC):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    return frozenset.intersection(*(frozenset(pdfmetrics.getFont(name).face.charToGlyph) for name in (FONT, BOLD)))


def _styles() -> dict[str, Any]:
    from reportlab.lib.enums import TA_CENTER, TA_RIGHT
    from reportlab.lib.styles import ParagraphStyle

    body = ParagraphStyle(
        "body", fontName=FONT, fontSize=8.5, leading=12, spaceAfter=4, textColor=_grey(INK), splitLongWords=1
    )
    cell = ParagraphStyle("cell", body, fontSize=7.2, leading=9.2, spaceAfter=0)
    head = ParagraphStyle("head", cell, fontName=BOLD, fontSize=6.8, textColor=_grey(SOFT))
    return {
        "body": body,
        "strong": ParagraphStyle("strong", body, fontName=BOLD),
        "title": ParagraphStyle("title", body, fontName=BOLD, fontSize=15, leading=19, spaceAfter=6),
        "section": ParagraphStyle(
            "section", body, fontName=BOLD, fontSize=11.5, leading=15, spaceBefore=10, spaceAfter=4
        ),
        "sub": ParagraphStyle("sub", body, fontName=BOLD, fontSize=8.5, leading=11, spaceBefore=6, spaceAfter=3),
        "small": ParagraphStyle("small", body, fontSize=7, leading=9.2, textColor=_grey(SOFT)),
        "item": ParagraphStyle("item", body, leftIndent=9, firstLineIndent=-9, spaceAfter=2, fontSize=8, leading=10.5),
        "caption": ParagraphStyle("caption", cell, fontSize=6.4, leading=8, textColor=_grey(SOFT)),
        "cell": cell,
        "cell-strong": ParagraphStyle("cell-strong", cell, fontName=BOLD),
        "cell-right": ParagraphStyle("cell-right", cell, alignment=TA_RIGHT),
        "cell-centre": ParagraphStyle("cell-centre", cell, alignment=TA_CENTER),
        "head": head,
        "head-right": ParagraphStyle("head-right", head, alignment=TA_RIGHT),
    }


def _heading(title: str, style: Any) -> Flowable:
    """Return a heading that adds itself to the outline of the document."""
    from reportlab.platypus import Paragraph

    class Heading(Paragraph):
        def draw(self) -> None:
            self.canv.bookmarkPage(title)
            self.canv.addOutlineEntry(title, title, 0)
            super().draw()

    return Heading(escape(title), style)
