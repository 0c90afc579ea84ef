"""Texts for people: jinja2 templates by moment and audience, your own before ours.

The first line of a template is the title, the rest the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox

_OURS = Path(__file__).parent / "templates" / "messages"


@dataclass(frozen=True)
class Text:
    """A message ready to be sent. `problem` says why one of your templates was passed over."""

    title: str
    body: str
    template: str
    problem: str = ""


def render(
    moment: str, kinds: Sequence[str], values: Mapping[str, Any], *, own: Path | None = None
) -> Text:
    """Make a message by the first template that is there: `<moment>.<kind>.txt.j2`, then
    `<moment>.txt.j2`; of these your own first.

    One of your own that can't be read or filled in is passed over for ours, and named.
    """
    names = [*(f"{moment}.{kind}.txt.j2" for kind in kinds), f"{moment}.txt.j2"]
    problem = ""
    # The most particular comes first, and of the same name your own.
    for name in names:
        for place in filter(None, (own, _OURS)):
            if not (place / name).is_file():
                continue
            try:
                return _rendered(place, name, values, problem)
            except (jinja2.TemplateError, OSError, TypeError, ValueError) as error:
                if place == _OURS:
                    raise
                problem = f"{place / name}: {error}"
    raise FileNotFoundError(f"no template for {moment}")


def _rendered(place: Path, name: str, values: Mapping[str, Any], problem: str) -> Text:
    # Templates lie beside lifeboat.yaml and come out of a backup: they get figures, and no more.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(place),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds_in_words
    told = environment.get_template(name).render(**values).strip()
    title, _, body = told.partition("\n")
    return Text(title=title.strip(), body=body.strip(), template=name, problem=problem)


def seconds_in_words(seconds: float) -> str:
    """Say a duration as people do: 12 s, 3 min, 4 h 10 min."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
