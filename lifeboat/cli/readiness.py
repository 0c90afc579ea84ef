"""The command that says whether the platform could be recovered now, and writes the page of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifeboat.cli.common import ConfigOption, Exit, JsonOption, app, choose_orchestrator


@app.command()
def readiness(
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write the page to this file.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the readiness page: could the platform be recovered now, and how well? Exit 4 if not.

    One HTML file that needs no network, in `records/` of the local vault and of the bucket.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from flows.show_readiness import show_readiness
    from lifeboat.core.requests import Request
    from lifeboat.settings import load_settings
    from tasks.people.readiness import PAGE_NAME, render
    from tasks.places import records_directory

    found = show_readiness(Request(config=str(config or "")))
    if html:
        html.write_text(render(found), encoding="utf-8")
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        typer.echo(found.in_words())
        typer.echo(str(html or records_directory(load_settings(config)) / PAGE_NAME))
    if not found.good:
        raise typer.Exit(Exit.NOT_GOOD)
