"""The readiness page for people: one HTML file that needs nothing else, on any screen, in print."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import jinja2

from lifeboat.core.plan import age_in_words, size_in_words
from lifeboat.core.readiness import SCENARIOS, Measured, Readiness
from lifeboat.core.timeline import Phase

_TEMPLATES = Path(__file__).parent / "templates"


def render_html(found: Readiness) -> str:
    """Give the page: light and dark, wide and narrow, with its data inside for machines."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = _seconds
    environment.filters["size"] = size_in_words
    environment.filters["share"] = _share
    return environment.get_template("readiness.html.j2").render(
        found=found, scenarios=SCENARIOS, phases=tuple(Phase), parts=_parts, highest=_highest
    )


def _seconds(seconds: float) -> str:
    """Say a duration as people do; below ten seconds with a tenth."""
    return f"{seconds:.1f} s" if 0 < seconds < 10 else age_in_words(timedelta(seconds=seconds))


def _share(part: float, whole: float) -> float:
    """Percent of the whole, at least what the eye can see and never more than all of it."""
    return min(100.0, max(1.0, 100 * part / whole)) if whole > 0 and part > 0 else 0.0


def _highest(measured: tuple[Measured, ...]) -> float:
    return max((m.seconds for m in measured), default=0.0)


def _parts(one: Measured) -> list[tuple[str, float, float]]:
    """(phase, seconds, percent of the bar), from the bottom up; what no phase has is `other`.

    Phases overlap where work went on side by side: then they share the bar by their lengths.
    """
    spent = [(str(phase), seconds) for phase, seconds in one.phases.items() if seconds > 0]
    total = sum(seconds for _, seconds in spent)
    if one.seconds > total:
        spent.append(("other", one.seconds - total))
        total = one.seconds
    return [(name, seconds, 100 * seconds / total) for name, seconds in spent if total > 0]
