"""Commands that run as services beside the platform: the WAL receiver and the keeper."""

from __future__ import annotations

import functools
import logging

import typer

from lifeboat.cli.common import ConfigOption, app, choose_orchestrator
from lifeboat.core.points import Asset

log = logging.getLogger("lifeboat")

wal = typer.Typer(no_args_is_help=True, help="The write-ahead log: received, shipped, waited for.")
app.add_typer(wal, name="wal")


@wal.command()
def receive(config: ConfigOption = None) -> None:
    """Receive the database's WAL into the local vault, until ended. Run it as a service."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import wal_receiver

    wal_receiver.receive(load_settings(config))


@wal.command()
def ship(config: ConfigOption = None) -> None:
    """Ship the WAL that was received, and that S3 lacks, once."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from flows.ship_wal import ship_wal
    from lifeboat.core.requests import Backup

    shipment = ship_wal(Backup(config=str(config or "")))
    partial = f" and the newest bytes of {shipment.partial}" if shipment.partial else ""
    until = shipment.held_until
    held = f"; S3 holds all that was written until {until:%Y-%m-%d %H:%M:%S} UTC" if until else ""
    typer.echo(f"{len(shipment.segments)} segments{partial}{held}")


@wal.command()
def asynchronous(config: ConfigOption = None) -> None:
    """Let commits wait for no WAL receiver: the way out when it is dead and the platform hangs.

    When a receiver streams again, commits wait for it again.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import wal_receiver

    wal_receiver.disarm(load_settings(config))
    typer.echo("Commits no longer wait for the WAL receiver. What it lags may be lost.")


@app.command()
def keep(config: ConfigOption = None) -> None:
    """Ship WAL and make every backup when it is due, without Prefect. Run it as a service."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.cli.backups import backup_flow
    from lifeboat.core.requests import Backup
    from lifeboat.settings import load_settings
    from tasks import keeper

    settings = load_settings(config)
    request = Backup(config=str(settings.file))
    often = {
        Asset.DATABASE: settings.keep.database_seconds,
        Asset.FILES: settings.keep.files_seconds,
        Asset.MODELS: settings.keep.models_seconds,
        Asset.CONFIG: settings.keep.on_change_seconds,
    }
    jobs = {
        str(asset): keeper.backup_job(
            settings,
            asset,
            every_seconds=seconds,
            act=functools.partial(backup_flow(asset), request),
        )
        for asset, seconds in often.items()
    }
    keeper.keep(settings, jobs)
