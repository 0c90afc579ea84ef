"""The command that looks at the platform's health, and pauses the watch of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from lifeboat.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    app,
    choose_orchestrator,
)

if TYPE_CHECKING:
    from lifeboat.settings import Settings


@app.command()
def health(
    pause_hours: Annotated[
        float,
        typer.Option("--pause-hours", min=0, max=72, help="Somebody works on it: judge nothing."),
    ] = 0,
    why: Annotated[str, typer.Option("--why", help="With --pause-hours: the reason.")] = "",
    by: Annotated[str, typer.Option("--by", help="With --pause-hours: your name.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Judge again from now on.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look whether services, database and health endpoints answer. Exit 4 if not.

    With a Prefect server the deployment `watch-health` does this each minute, and after several bad
    looks in a row proposes the recovery that fits, for a person to approve.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.core.health import Health
    from lifeboat.settings import load_settings
    from tasks import health as watch

    settings = load_settings(config)
    if pause_hours or resume:
        _pause(settings, pause_hours, why, by)
        return
    found = Health(
        platform=settings.platform,
        look=watch.look(settings),
        streak=watch.read_streak(settings),
        note="The health watch counts its own looks.",
    )
    typer.echo(found.model_dump_json(indent=2) if as_json else found.in_words())
    if not found.good:
        raise typer.Exit(Exit.NOT_GOOD)


def _pause(settings: Settings, hours: float, why: str, by: str) -> None:
    from lifeboat.core.health import Pause
    from tasks import clock
    from tasks import health as watch

    if not hours:
        watch.pause(settings, None)
        typer.echo("The health watch judges again.")
        return
    if not (why.strip() and by.strip()):
        raise typer.BadParameter("--pause-hours needs --why and --by")
    until = clock.now() + timedelta(hours=hours)
    watch.pause(settings, Pause(until=until, why=why, by=by))
    typer.echo(f"The health watch judges nothing until {until:%Y-%m-%d %H:%M} UTC.")
