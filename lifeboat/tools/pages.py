"""The status page, its feed and the post-incident report, as text that needs no other file."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import jinja2

from lifeboat.core.incident_report import IncidentReport
from lifeboat.core.status_page import StatusPage

_TEMPLATES = Path(__file__).parent / "templates"
_TONES = {"All systems operational": "good", "Major outage": "bad"}


def status_html(page: StatusPage) -> str:
    tone = _TONES.get(page.overall, "warn")
    return _environment().get_template("status.html.j2").render(page=page, tone=tone)


def status_feed(page: StatusPage) -> str:
    """Give an Atom feed (RFC 4287), one entry for each incident."""
    updated = max((i.changed_at for i in page.incidents), default=page.written_at)
    return _environment().get_template("feed.xml.j2").render(page=page, updated=updated)


def report_html(report: IncidentReport) -> str:
    return _environment().get_template("incident.html.j2").render(report=report)


def report_markdown(report: IncidentReport) -> str:
    return _environment(escape=False).get_template("incident.md.j2").render(report=report)


def _environment(*, escape: bool = True) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["when"] = _when
    environment.filters["cell"] = _cell
    return environment


def _when(at: datetime) -> str:
    return f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _cell(text: object) -> str:
    """Fit for a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")
