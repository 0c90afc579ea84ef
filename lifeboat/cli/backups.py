"""Commands that prepare the vault and make backups."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from lifeboat import __version__
from lifeboat.cli.common import (
    ConfigOption,
    Exit,
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
