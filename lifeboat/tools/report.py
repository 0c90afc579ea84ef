"""A drill's report for people: one HTML page that needs nothing else, and a terminal's table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lifeboat.core.drill import DrillReport, ScenarioResult
from lifeboat.core.timeline import Phase

if TYPE_CHECKING:
    from rich.table import Table

_TEMPLATES = Path(__file__).parent / "templates"
TITLES = {
    "database": "Database server failure",
    "server": "Complete server failure",
    "files": "File storage corruption",
    "models": "AI model loss",
}


def render_html(report: DrillReport) -> str:
    """Give the report as one page that needs no other file: on a phone, in print, in the dark."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds_in_words
    environment.filters["share"] = _share
    return environment.get_template("drill.html.j2").render(
        report=report, titles=TITLES, phases=tuple(Phase), spans=_spans
    )


def result_table(report: DrillReport) -> Table:
    """Give the result as a table, one row for each scenario."""
    from rich.table import Table

    table = Table(
        *("scenario", "recovered", "RTO", "RPO", "rows lost", "files lost", "checks"),
        *("noticed by", "outside steps"),
        title=f"Drill {report.id}",
    )
    for found in report.scenarios:
        table.add_row(
            found.name,
            "[green]yes[/]" if found.recovered else "[red]NO[/]",
            seconds_in_words(found.rto_seconds),
            seconds_in_words(found.rpo_seconds),
            f"{found.rows_lost} of {found.acknowledged_rows}",
            f"{found.files_lost} of {found.acknowledged_files}",
            f"{found.checks_passed} of {found.checks_total}",
            f"{len(found.detected_by)} checks" if found.detected else "[red]NONE[/]",
            seconds_in_words(found.outside_steps_seconds),
        )
    return table


def phase_table(report: DrillReport) -> Table:
    """Give the seconds of each phase as a table, one row for each scenario."""
    from rich.table import Table

    table = Table("scenario", *map(str, Phase), title="Seconds in each phase")
    for found in report.scenarios:
        table.add_row(found.name, *(f"{found.phases.get(phase, 0):.1f}" for phase in Phase))
    return table


def seconds_in_words(seconds: float) -> str:
    """Say a duration as people do: 0.8 s, 12 s, 3 min 20 s, 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _share(part: float, whole: float) -> float:
    """Percent of the whole, at least what the eye can see and never more than all of it."""
    return min(100.0, max(0.5, 100 * part / whole)) if whole > 0 and part > 0 else 0.0


def _spans(found: ScenarioResult) -> list[tuple[Phase, float, float]]:
    """(phase, seconds, percent of all phases), those that took no time left out."""
    total = sum(found.phases.values())
    return [
        (phase, seconds, 100 * seconds / total)
        for phase, seconds in found.phases.items()
        if total > 0 and seconds > 0
    ]
