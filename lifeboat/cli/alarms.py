"""The commands of the alarms: the way to people is tried before it is needed."""

from __future__ import annotations

import json

import typer

from lifeboat.cli.common import ConfigOption, Exit, JsonOption, app, choose_orchestrator

alarms = typer.Typer(no_args_is_help=True, help="Whom to tell when something is not good.")
app.add_typer(alarms, name="alarms")


@alarms.command()
def test(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send a message by every channel. Exit 4 unless each service has taken it.

    Taken is not read: look whether it came.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.core.errors import SettingsError
    from lifeboat.settings import load_settings
    from tasks.alarms import test_message

    settings = load_settings(config)
    if not settings.alarms.channels:
        raise SettingsError(
            "Testing the alarms: lifeboat.yaml names no channel.",
            hint="Set alarms.channels; docs/alarms.md has examples.",
        )
    done = test_message(settings)
    if as_json:
        typer.echo(json.dumps([delivery.model_dump() for delivery in done], indent=2))
    else:
        for delivery in done:
            typer.echo(f"{delivery.channel}: {delivery.error or 'taken'}")
    if any(delivery.error for delivery in done):
        raise typer.Exit(Exit.NOT_GOOD)
