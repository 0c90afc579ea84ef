"""The command for when something is wrong, and nobody knows what."""

from __future__ import annotations

import typer

from lifeboat.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    WithoutPrefect,
    WithPrefect,
    app,
    choose_orchestrator,
)


@app.command()
def diagnose(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Say which recovery fits what is seen, and why. Exit 4 unless nothing is wrong.

    It changes nothing. Files and models are read as a whole, which takes its time.
    """
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from flows.diagnose import diagnose
    from lifeboat.core.requests import Diagnose

    found = diagnose(Diagnose(config=str(config or "")))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        for number, cure in enumerate(found.cures, start=1):
            typer.echo(f"{number}. {cure.scenario}: {cure.evidence}\n   -> {cure.command}")
        for told in found.unseen:
            typer.echo(f"?  not seen: {told}")
        if found.good:
            typer.echo(f"{found.platform}: nothing is wrong that can be seen.")
    if not found.good:
        raise typer.Exit(Exit.NOT_GOOD)
