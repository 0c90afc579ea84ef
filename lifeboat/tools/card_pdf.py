"""The bootstrap card as one page of PDF, by reportlab: for the wall and for the envelope.

All of it is set in IBM Plex Mono (fonts/, SIL Open Font License), whose 0 is no O and whose l is no
1: it will be typed from paper by somebody who is in a hurry.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from reportlab.lib import pagesizes
from reportlab.lib.colors import HexColor, black, white
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Frame, Paragraph, Spacer, Table

from lifeboat.core.card import Card, Step
from lifeboat.core.errors import PermanentError

Paper = Literal["a4", "letter"]

_SIZES = {"a4": pagesizes.A4, "letter": pagesizes.LETTER}
_FONTS = Path(__file__).parent / "fonts"
_REGULAR, _BOLD = "IBMPlexMono-Regular", "IBMPlexMono-Bold"
_MARGIN = 13 * mm
_BAND = 20 * mm
_GAP = 6 * mm
_INK, _GREY, _PALE = black, HexColor("#3C3C3C"), HexColor("#EEEEEE")
_SCALES = (1.2, 1.15, 1.1, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_UNDERLINE = "_" * 28


def render(card: Card, *, paper: Paper = "a4") -> bytes:
    """Give the page as a PDF file. What does not fit is set smaller, never on a second page.

    Raises PermanentError if it fits in no size that can still be read.
    """
    _register_fonts()
    for scale in _SCALES:
        data = _Page(card, paper, scale).draw()
        if data is not None:
            return data
    raise PermanentError(
        "Drawing the card: it does not fit on one page.",
        hint="Shorten the section `card` of lifeboat.yaml.",
    )


@cache
def _register_fonts() -> None:
    for name in (_REGULAR, _BOLD):
        pdfmetrics.registerFont(TTFont(name, str(_FONTS / f"{name}.ttf")))


def _fitting(wanted: float, characters: int, width: float) -> float:
    """The size in which so many characters are no wider than that: each is 0.6 of it wide."""
    return min(wanted, width / (0.602 * characters))


class _Page:
    """One try to set the card, all sizes multiplied by `scale`."""

    def __init__(self, card: Card, paper: Paper, scale: float) -> None:
        self.card = card
        self.scale = scale
        self.width, self.height = _SIZES[paper]
        self.inner = self.width - 2 * _MARGIN

    def draw(self) -> bytes | None:
        """The whole page; None if the content does not fit."""
        file = io.BytesIO()
        canvas = Canvas(file, pagesize=(self.width, self.height), invariant=1)
        canvas.setTitle(f"Bootstrap card of {self.card.platform}")
        canvas.setAuthor("Lifeboat")
        self._draw_band(canvas)
        below = self.height - _BAND - 4 * mm
        steps = list(self._steps())
        steps_height = self._height_of(steps, self.inner)
        column = (self.inner - _GAP) / 2
        columns = (list(self._left(column)), list(self._right(column)))
        columns_height = max(self._height_of(story, column) for story in columns)
        if steps_height + columns_height + 4 * mm > below - _MARGIN / 2:
            return None
        self._place(canvas, steps, _MARGIN, below, self.inner)
        top = below - steps_height - 4 * mm
        canvas.setStrokeColor(_INK)
        canvas.setLineWidth(0.8)
        canvas.line(_MARGIN, top + 2 * mm, self.width - _MARGIN, top + 2 * mm)
        for story, left in zip(columns, (_MARGIN, _MARGIN + column + _GAP), strict=True):
            self._place(canvas, story, left, top, column)
        canvas.showPage()
        canvas.save()
        return file.getvalue()

    def _draw_band(self, canvas: Canvas) -> None:
        canvas.setFillColor(_INK)
        canvas.rect(0, self.height - _BAND, self.width, _BAND, stroke=0, fill=1)
        canvas.setFillColor(white)
        canvas.setFont(_BOLD, _fitting(19, len(self.card.platform), self.inner - 45 * mm))
        canvas.drawString(_MARGIN, self.height - 10 * mm, self.card.platform)
        canvas.setFont(_REGULAR, 9)
        canvas.drawString(
            _MARGIN,
            self.height - 15.5 * mm,
            "The server is gone? Do this, from top to bottom.",
        )
        right = self.width - _MARGIN
        canvas.setFont(_BOLD, 9)
        canvas.drawRightString(right, self.height - 8 * mm, "BOOTSTRAP CARD")
        canvas.setFont(_REGULAR, 7.5)
        canvas.drawRightString(right, self.height - 12 * mm, self.card.environment)
        printed = f"printed {self.card.printed_at:%Y-%m-%d %H:%M} UTC"
        told = f"{printed}, Lifeboat {self.card.lifeboat_version}"
        canvas.drawRightString(right, self.height - 15.5 * mm, told)

    # -- the steps

    def _steps(self) -> Iterator[Flowable]:
        for number, step in enumerate(self.card.steps, start=1):
            yield self._step(number, step)
            yield Spacer(0, 5 * self.scale)

    def _step(self, number: int, step: Step) -> Flowable:
        is_the_one = step.types == self.card.command
        content: list[Flowable] = [self._text(step.title, size=10.5, bold=True)]
        content += [self._text(says, size=8.5, color=_GREY) for says in step.says]
        if step.types:
            content.append(Spacer(0, 2 * self.scale))
            content.append(self._typed(step.types, big=is_the_one))
        badge = self._text(str(number), size=14, bold=True)
        return Table(
            [[badge, content]],
            colWidths=[9 * mm, self.inner - 9 * mm],
            style=[
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), 0),
                ("TOPPADDING", (0, 0), (-1, -1), 0),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 0),
            ],
        )

    def _typed(self, lines: tuple[str, ...], *, big: bool) -> Flowable:
        """What is typed: larger than all else, and the one command in a frame."""
        wanted = (13.0 if big else 10.0) * self.scale
        size = _fitting(wanted, max(map(len, lines)), self.inner - 9 * mm - 6 * mm)
        style = ParagraphStyle(
            "typed", fontName=_BOLD if big else _REGULAR, fontSize=size, leading=1.32 * size
        )
        told = "<br/>".join(escape(line).replace(" ", "\u00a0") for line in lines)
        return Table(
            [[Paragraph(told, style)]],
            colWidths=[self.inner - 9 * mm],
            style=[
                ("BACKGROUND", (0, 0), (-1, -1), white if big else _PALE),
                ("BOX", (0, 0), (-1, -1), 1.6 if big else 0, _INK if big else _PALE),
                ("LEFTPADDING", (0, 0), (-1, -1), 2.5 * mm),
                ("RIGHTPADDING", (0, 0), (-1, -1), 2.5 * mm),
                ("TOPPADDING", (0, 0), (-1, -1), (5 if big else 2.5) * self.scale),
                ("BOTTOMPADDING", (0, 0), (-1, -1), (8 if big else 5) * self.scale),
            ],
        )

    # -- what stands below them

    def _left(self, width: float) -> Iterator[Flowable]:
        yield self._heading("The vault")
        yield self._pairs(self.card.where, width)
        yield Spacer(0, 5 * self.scale)
        yield self._heading("What comes back")
        for told in self.card.points:
            yield self._text(told.point, size=8, bold=True)
            yield self._text(told.proof, size=7.5, color=_GREY, after=2.0)
        if not self.card.points:
            yield self._text(self.card.no_points, size=7.5)

    def _right(self, width: float) -> Iterator[Flowable]:
        yield self._heading("Emergency contacts")
        blank = tuple((_UNDERLINE, "") for _ in range(3))
        calls = tuple(
            (contact.phone, " ".join(filter(None, (contact.role, contact.name))))
            for contact in self.card.contacts
        )
        yield self._pairs(calls or blank, width, first_bold=True)
        yield Spacer(0, 5 * self.scale)
        yield self._heading("The secrets")
        for name in self.card.secrets:
            yield self._text(name, size=8)
        yield Spacer(0, 2 * self.scale)
        yield self._text(f"fingerprint of the first: {self.card.fingerprint}", size=8, bold=True)
        yield self._text(self.card.secret_in_words, size=7, color=_GREY)
        for label in ("kept at", "kept by"):
            yield Spacer(0, 8 * self.scale)  # for a hand that writes
            yield self._text(f"{label} {_UNDERLINE}", size=8)

    def _pairs(
        self, pairs: tuple[tuple[str, str], ...], width: float, *, first_bold: bool = False
    ) -> Flowable:
        size = 8.0
        longest = max((len(first) for first, _ in pairs), default=1)
        first = min((longest + 2) * 0.6 * size * self.scale, width * 0.62)
        rows = [
            [self._text(a, size=size, bold=first_bold), self._text(b, size=size)] for a, b in pairs
        ]
        return Table(
            rows,
            colWidths=[first, width - first],
            style=[
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), 0),
                ("TOPPADDING", (0, 0), (-1, -1), 0.6 * self.scale),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 0.6 * self.scale),
            ],
        )

    def _heading(self, text: str) -> Flowable:
        return self._text(text.upper(), size=8.5, bold=True, after=2.0)

    def _text(
        self,
        text: str,
        *,
        size: float,
        bold: bool = False,
        color=_INK,
        after: float = 0.0,
    ) -> Flowable:
        scaled = size * self.scale
        style = ParagraphStyle(
            "text",
            fontName=_BOLD if bold else _REGULAR,
            fontSize=scaled,
            leading=1.28 * scaled,
            textColor=color,
            spaceAfter=after * self.scale,
            splitLongWords=True,
        )
        return Paragraph(escape(text), style)

    # -- placing

    def _height_of(self, story: list[Flowable], width: float) -> float:
        return sum(
            flowable.wrap(width, self.height)[1] + flowable.getSpaceAfter() for flowable in story
        )

    def _place(
        self, canvas: Canvas, story: list[Flowable], left: float, top: float, width: float
    ) -> None:
        height = self._height_of(story, width) + 2 * mm
        frame = Frame(
            left,
            top - height,
            width,
            height,
            leftPadding=0,
            rightPadding=0,
            topPadding=0,
            bottomPadding=0,
        )
        frame.addFromList(story, canvas)
