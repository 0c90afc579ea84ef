"""The disaster recovery plan as PDF, by reportlab: to print, and to put in the safe."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from reportlab.lib import pagesizes
from reportlab.lib.colors import HexColor, black
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

from lifeboat.core.disaster_plan import Block

Paper = Literal["a4", "letter"]

_SIZES = {"a4": pagesizes.A4, "letter": pagesizes.LETTER}
_FONTS = Path(__file__).parent / "fonts"
_REGULAR, _BOLD = "IBMPlexMono-Regular", "IBMPlexMono-Bold"
_MARGIN = 16 * mm
_PALE, _LINE = HexColor("#EEEEEE"), HexColor("#BBBBBB")
_SHARES = {2: (0.42, 0.58), 3: (0.45, 0.3, 0.25), 4: (0.24, 0.4, 0.18, 0.18)}


def render(blocks: tuple[Block, ...], *, title: str, paper: Paper = "a4") -> bytes:
    """Give the plan as a PDF file, each page with its number and the title."""
    _register_fonts()
    file = io.BytesIO()
    made = SimpleDocTemplate(
        file,
        pagesize=_SIZES[paper],
        title=title,
        author="Lifeboat",
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        invariant=1,
    )

    def foot(canvas, document) -> None:
        canvas.setFont(_REGULAR, 7)
        canvas.drawString(_MARGIN, 8 * mm, title)
        canvas.drawRightString(_SIZES[paper][0] - _MARGIN, 8 * mm, str(document.page))

    story = [flowable for block in blocks for flowable in _flowables(block, made.width)]
    made.build(story, onFirstPage=foot, onLaterPages=foot)
    return file.getvalue()


@cache
def _register_fonts() -> None:
    for name in (_REGULAR, _BOLD):
        pdfmetrics.registerFont(TTFont(name, str(_FONTS / f"{name}.ttf")))


def _flowables(block: Block, width: float) -> Iterator[Flowable]:
    if block.kind == "title":
        yield _text(block.text, size=16, bold=True, after=6)
    elif block.kind == "chapter":
        yield Spacer(0, 9)
        yield _text(block.text, size=12.5, bold=True, after=4, keep=True)
    elif block.kind == "section":
        yield Spacer(0, 5)
        yield _text(block.text, size=9.5, bold=True, after=2, keep=True)
    elif block.kind == "text":
        yield _text(block.text, size=8, after=3)
    elif block.kind == "code":
        told = [[_text(line, size=8.5, bold=True)] for line in block.items]
        yield Table(told, colWidths=[width], style=[("BACKGROUND", (0, 0), (-1, -1), _PALE)])
        yield Spacer(0, 3)
    elif block.kind == "table":
        yield _table(block, width)
        yield Spacer(0, 4)
    else:
        mark = "[ ]" if block.kind == "boxes" else "-"
        for item in block.items:
            yield _text(f"{mark} {item}", size=8, after=1.5, indent=5 * mm)


def _table(block: Block, width: float) -> Flowable:
    columns = len(block.rows[0])
    shares = _SHARES.get(columns, (1 / columns,) * columns)
    rows = [
        [_text(cell, size=7.2, bold=number == 0) for cell in row]
        for number, row in enumerate(block.rows)
    ]
    return Table(
        rows,
        colWidths=[share * width for share in shares],
        repeatRows=1,
        style=[
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 1.5),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
        ],
    )


def _text(
    text: str,
    *,
    size: float,
    bold: bool = False,
    after: float = 0.0,
    indent: float = 0.0,
    keep: bool = False,
) -> Flowable:
    style = ParagraphStyle(
        "text",
        fontName=_BOLD if bold else _REGULAR,
        fontSize=size,
        leading=1.3 * size,
        textColor=black,
        spaceAfter=after,
        leftIndent=indent,
        firstLineIndent=-indent,
        splitLongWords=True,
        keepWithNext=keep,
    )
    marked = re.sub(r"`([^`]*)`", rf'<font name="{_BOLD}">\1</font>', escape(text))
    return Paragraph(marked, style)
