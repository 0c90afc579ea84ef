"""Commands that prepare the vault, make backups, and clean up behind those that died."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lifeboat import __version__
from lifeboat.cli.common import (
    ConfigOption,
    DryRun,
    Exit,
    JsonOption,
    WithoutPrefect,
    WithPrefect,
    app,
    choose_orchestrator,
    show_result,
)
from lifeboat.core.kinds import Asset

if TYPE_CHECKING:
    from lifeboat.core.points import Facts


@app.command()
def version() -> None:
    """Print Lifeboat's version."""
    typer.echo(__version__)


@app.command()
def prepare(
    what: Annotated[
        Literal["vault", "s3"],
        typer.Argument(help="The vault itself, or the bucket's protection from whoever has a key."),
    ] = "vault",
    config: ConfigOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="s3 only: say what would be set, and set nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the vault's directories, repositories and WAL key where they are missing.

    With `s3`: set the bucket's versioning, Object Lock, lifecycle, public access block and TLS-only
    policy. That needs an administrator's key, once. Exit 4 if something is not in force afterwards.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings

    if what == "s3":
        from tasks import protection

        done = protection.prepare_bucket(load_settings(config), dry_run=dry_run)
        typer.echo(done.model_dump_json(indent=2) if as_json else done.in_words())
        if not (done.good or dry_run):
            raise typer.Exit(Exit.NOT_GOOD)
        return
    if dry_run or as_json:
        raise typer.BadParameter("--dry-run and --json are for `lifeboat prepare s3`")
    from tasks import vault

    vault.prepare_vault(load_settings(config))


class What(StrEnum):
    """What a backup may be of."""

    DATABASE = "database"
    FILES = "files"
    MODELS = "models"
    CONFIG = "config"
    PLATFORM = "platform"
    ORCHESTRATOR = "orchestrator"


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
    what: Annotated[
        What,
        typer.Argument(
            help="One asset, the whole platform as one coherent set, or Prefect's own database."
        ),
    ],
    always: Annotated[
        bool,
        typer.Option("--always", help="Also configuration or models that have not changed."),
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    without_prefect: WithoutPrefect = False,
    with_prefect: WithPrefect = False,
) -> None:
    """Back up one asset, or all of them as one set, into the local vault and S3.

    Prints the point that holds it. Configuration and models that have not changed need no new
    point, and get none.
    """
    choose_orchestrator(without_prefect=without_prefect, with_prefect=with_prefect)
    from lifeboat.core.requests import Backup

    request = Backup(config=str(config or ""), only_if_changed=not always)
    if what is What.PLATFORM:
        from flows.backup_platform import backup_platform

        show_result(backup_platform(request), as_json=as_json)
        return
    if what is What.ORCHESTRATOR:
        from flows.backup_orchestrator import backup_orchestrator

        facts = backup_orchestrator(request)
    else:
        facts = backup_flow(Asset(what))(request)
    typer.echo(facts.model_dump_json(indent=2) if as_json else facts.point)


@app.command()
def tidy(config: ConfigOption = None, dry_run: DryRun = False, as_json: JsonOption = False) -> None:
    """Clean up what dead runs left behind, and say what it was; every backup does it by itself."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import leftovers

    found = leftovers.tidy(load_settings(config), dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps([leftover.model_dump() for leftover in found], indent=2))
        return
    for leftover in found:
        typer.echo(leftover.in_words())
    if not found:
        typer.echo("Dead runs have left nothing behind.")


def backup_flow(asset: Asset) -> Callable[..., Facts]:
    """The flow that backs an asset up, imported alone: each import costs start-up time."""
    return getattr(importlib.import_module(f"flows.backup_{asset}"), f"backup_{asset}")
