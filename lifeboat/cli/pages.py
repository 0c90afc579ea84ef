"""Commands that write what people read: the status page and the post-incident report."""

from __future__ import annotations

from typing import Annotated

import typer

from lifeboat.cli.common import ConfigOption, Exit, app, choose_orchestrator


@app.command("status-page")
def status_page(config: ConfigOption = None) -> None:
    """Write the status page now, to the bucket and all web roots, and tell the hosted page.

    Exit 4 unless all took it.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks.people import hosted_page
    from tasks.people.status_page import look, publish

    settings = load_settings(config)
    page = look(settings)
    failed = (*publish(settings, page), *hosted_page.publish(settings, page))
    for told in failed:
        typer.echo(f"lifeboat: {told}", err=True)
    if failed:
        raise typer.Exit(Exit.NOT_GOOD)


@app.command("incident-report")
def incident_report(
    id: Annotated[str, typer.Argument(help="Id of the incident; else the newest open one.")] = "",
    config: ConfigOption = None,
) -> None:
    """Write the report of an incident from its record, beside it, and print where it is."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks.people import incidents
    from tasks.people.incident_report import write_report

    settings = load_settings(config)
    typer.echo(str(write_report(settings, incidents.find(settings, id))))
