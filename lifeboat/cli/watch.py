"""The command that watches: do the plan's promises hold now?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lifeboat.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    WithoutPrefect,
    WithPrefect,
    app,
    checked,
    choose_orchestrator,
)

_WIDTH = 100
_DAY_SECONDS = 86400


@app.command()
def watch(
    source: Annotated[
        Literal["host", "s3"],
        typer.Option("--from", help="On the platform's host; or from any machine, the bucket."),
    ] = "host",
    bucket: Annotated[
        str, typer.Option("--bucket", help="For s3: the bucket that holds the vault.")
    ] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="For s3: URL of the service; else Amazon's own.")
    ] = "",
    region: Annotated[
        str, typer.Option("--region", help="For s3: the bucket's region.")
    ] = "us-east-1",
    prefix: Annotated[str, typer.Option("--prefix", help="For s3: place inside the bucket.")] = "",
    prometheus: Annotated[
        Path | None,
        typer.Option("--prometheus", help="Also write a file for Prometheus' textfile collector."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Say from the stores alone whether the plan's promises hold now. Exit 4 unless all is good.

    What would be lost, how long a recovery would take, and whether backups, restore tests and the
    vault are as they should be. `--from s3` needs the bucket and, in the environment,
    LIFEBOAT_VAULT_PASSWORD and the S3 key; the platform's host may be gone.
    """
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.watch_objectives import watch_objectives
    from lifeboat.core.requests import WatchObjectives

    if source == "s3" and not bucket:
        raise typer.BadParameter("--from s3 needs --bucket")
    request = checked(
        WatchObjectives,
        config=str(config or ""),
        source=source,
        bucket=bucket,
        endpoint=endpoint,
        region=region,
        prefix=prefix,
    )
    report = watch_objectives(request)
    if prometheus:
        from lifeboat.tools import metrics

        metrics.write(report, prometheus)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _print(report)
    if not report.good:
        raise typer.Exit(Exit.NOT_GOOD)


def _print(report) -> None:
    from rich.console import Console

    console = Console()
    width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    console = Console(width=width, highlight=False)
    if report.exposures:
        console.print(_scenarios(report))
    console.print(_findings(report))
    seen = "the platform's host" if report.seen_from == "host" else "the bucket alone"
    verdict = "all good" if report.good else f"{len(report.red)} not good"
    console.print(
        f"{report.platform}, {report.at:%Y-%m-%d %H:%M:%S} UTC, seen from {seen}: "
        f"{report.passed} of {len(report.findings)} good, [{_colour(report.good)}]{verdict}[/]"
    )


def _scenarios(report):
    from rich.table import Table

    table = Table("if lost now", "would be gone", "RPO", "back in", "RTO", title="Objectives")
    times = {estimate.scenario: estimate for estimate in report.estimates}
    for lost in report.exposures:
        takes = times[lost.scenario]
        back = _span(None if takes.unmeasured else takes.seconds)
        table.add_row(
            lost.scenario,
            _marked("nothing" if lost.seconds == 0 else _span(lost.seconds), lost.status),
            _span(lost.objective_seconds),
            _marked(
                back + ("*" if takes.unrehearsed and not takes.unmeasured else ""), takes.status
            ),
            _span(takes.objective_seconds),
        )
    if any(takes.unrehearsed and not takes.unmeasured for takes in report.estimates):
        table.caption = "* without start and verification: no recovery or drill is on record"
    return table


def _findings(report):
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table("status", "finding", "evidence, and what to do next")
    for names, found in _grouped(report.worst_first):
        status = _marked(found.status, found.status)
        if found.status == "PASS":
            # Of what is good a line is enough.
            table.add_row(status, names, Text(found.evidence, no_wrap=True, overflow="ellipsis"))
            continue
        told = escape(found.evidence)
        if found.advice:
            told += f"\n[dim]-> {escape(found.advice)}[/]"
        table.add_row(status, names, told)
    return table


def _grouped(findings):
    """What is not good for one and the same reason is told once."""
    groups: dict[tuple[str, ...], list] = {}
    for found in findings:
        same = (found.status, found.evidence, found.advice)
        key = (found.name,) if found.status == "PASS" else same
        groups.setdefault(key, []).append(found)
    for group in groups.values():
        yield "\n".join(found.name for found in group), group[0]


def _marked(text: str, status: str) -> str:
    return f"[{ {'PASS': 'green', 'FAIL': 'red'}.get(status, 'yellow') }]{text}[/]"


def _colour(good: bool) -> str:
    return "green" if good else "red"


def _span(seconds: float | None) -> str:
    from lifeboat.tools.report import seconds_in_words

    if seconds is None:
        return "not known"
    if seconds >= 2 * _DAY_SECONDS:
        return f"{seconds / _DAY_SECONDS:.0f} days"
    return seconds_in_words(seconds)
