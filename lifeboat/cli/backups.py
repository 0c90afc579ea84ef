"""Commands that prepare the vault and make backups."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated

import typer

from lifeboat import __version__
from lifeboat.cli.common import (
    ConfigOption,
    JsonOption,
    WithoutPrefect,
    WithPrefect,
    app,
    choose_orchestrator,
)
from lifeboat.core.points import Asset, Facts


@app.command()
def version() -> None:
    """Print Lifeboat's version."""
    typer.echo(__version__)


@app.command()
def prepare(config: ConfigOption = None) -> None:
    """Make the vault's directories, repositories and WAL key where they are missing."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import vault

    vault.prepare_vault(load_settings(config))


@app.command()
def enrol(
    config: ConfigOption = None,
    superuser: Annotated[
        str, typer.Option(help="The database's superuser, let in without a password from inside.")
    ] = "postgres",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be changed; change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Let Lifeboat into the platform's running database: role, pg_hba.conf, slot, programs."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from flows.enrol import enrol as flow
    from lifeboat.core.requests import Enrol

    request = Enrol(config=str(config or ""), superuser=superuser, dry_run=dry_run)
    done = flow(request)
    if as_json:
        typer.echo(done.model_dump_json(indent=2))
        return
    would = "would be changed" if dry_run else "changed"
    typer.echo(f"{would}: nothing" if not done.changed else f"{would}:")
    for line in done.changed:
        typer.echo(f"  {line}")
    for line in done.advice:
        typer.echo(f"look at this yourself: {line}")


@app.command()
def backup(
    asset: Annotated[Asset, typer.Argument(help="What to back up.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Back one asset up into the local vault and S3."""
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from lifeboat.core.requests import Backup

    facts = backup_flow(asset)(Backup(config=str(config or "")))
    typer.echo(facts.model_dump_json(indent=2) if as_json else facts.point)


def backup_flow(asset: Asset) -> Callable[..., Facts]:
    """The flow that backs an asset up, imported alone: each import costs start-up time."""
    return getattr(importlib.import_module(f"flows.backup_{asset}"), f"backup_{asset}")
