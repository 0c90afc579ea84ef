"""Commands that run as services beside the platform: the WAL receiver and the keeper."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

import typer

from lifeboat.cli.common import ConfigOption, app, choose_orchestrator
from lifeboat.core.points import Asset

if TYPE_CHECKING:
    from lifeboat.settings import Settings
    from tasks.keeper import Job

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
    """Do all that is due again and again, without Prefect. Run it as a service.

    Ships WAL, backs up, prunes, tests restores and watches the objectives; how often is in `keep`
    of lifeboat.yaml.
    """
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks import keeper

    settings = load_settings(config)
    keeper.keep(settings, _jobs(settings))


def _jobs(settings: Settings) -> dict[str, Job]:
    from flows.backup_platform import backup_platform
    from flows.prune_backups import prune_backups
    from flows.test_restore import test_restore
    from flows.watch_objectives import watch_objectives
    from lifeboat.cli.backups import backup_flow
    from lifeboat.core.requests import Backup, Prune, RestoreTest, WatchObjectives
    from tasks import keeper, objectives, wal

    config = str(settings.file)
    often = settings.keep
    backups = {
        str(asset): keeper.backup_job(
            settings,
            asset,
            every_seconds=seconds,
            act=functools.partial(backup_flow(asset), Backup(config=config)),
        )
        for asset, seconds in {
            Asset.DATABASE: often.database_seconds,
            Asset.FILES: often.files_seconds,
            Asset.MODELS: often.on_change_seconds,
            Asset.CONFIG: often.on_change_seconds,
        }.items()
    }
    upkeep = {
        "prune": keeper.upkeep_job(
            settings,
            "prune-backups",
            every_seconds=often.prune_seconds,
            act=lambda: prune_backups(Prune(config=config)),
        ),
        "restore-test": keeper.upkeep_job(
            settings,
            "test-restore",
            every_seconds=often.restore_test_seconds,
            act=lambda: test_restore(RestoreTest(config=config)),
        ),
    }
    sets = keeper.set_job(
        settings,
        every_seconds=often.platform_seconds,
        act=lambda: backup_platform(Backup(config=config)),
    )
    more = {}
    if settings.orchestrator:
        from flows.backup_orchestrator import backup_orchestrator

        more["orchestrator"] = keeper.orchestrator_job(
            settings,
            every_seconds=settings.orchestrator.every_seconds,
            act=lambda: backup_orchestrator(Backup(config=config)),
        )
    announcer = objectives.Announcer()
    watch = keeper.Job(
        often.watch_seconds,
        lambda: announcer.tell(watch_objectives(WatchObjectives(config=config))),
        due_in_seconds=lambda: often.watch_seconds,
        only_looks=True,
    )
    return {
        "wal": keeper.Job(often.wal_seconds, wal.Shipper(settings).ship),
        **backups,
        "platform": sets,
        "watch": watch,
        **more,
        **upkeep,
    }
