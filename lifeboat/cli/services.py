"""Commands that run as services beside the platform: the WAL receiver and the keeper."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from lifeboat.cli.common import ConfigOption, app, choose_orchestrator
from lifeboat.core.kinds import Asset

if TYPE_CHECKING:
    from lifeboat.settings import Settings
    from tasks.keeper import Job

log = logging.getLogger("lifeboat")

_REMIND_SECONDS = 3600.0
_PAGE_SECONDS = 3600.0

wal = typer.Typer(no_args_is_help=True, help="The write-ahead log: received, shipped, waited for.")
app.add_typer(wal, name="wal")


@wal.command()
def receive(config: ConfigOption = None) -> None:
    """Receive the database's WAL into the local vault, until ended. Run it as a service."""
    choose_orchestrator(without_prefect=True, with_prefect=False)
    from lifeboat.settings import load_settings
    from tasks.wal import wal_receiver

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
    from tasks.wal import wal_receiver

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
    from flows.remind_people import remind_people
    from flows.show_readiness import show_readiness
    from flows.test_restore import test_restore
    from flows.watch_objectives import watch_objectives
    from flows.watch_stability import watch_stability
    from lifeboat.cli.backups import backup_flow
    from lifeboat.core.requests import Backup, Prune, Request, RestoreTest, WatchObjectives
    from tasks import keeper, objectives
    from tasks.people import communication
    from tasks.wal import wal_shipping

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
    stability = keeper.Job(
        settings.follow_ups.look_seconds,
        lambda: watch_stability(Request(config=config)),
        due_in_seconds=lambda: min(settings.follow_ups.look_seconds, keeper.SETTLE_SECONDS),
        only_looks=True,
    )
    reminders = keeper.Job(
        _REMIND_SECONDS,
        lambda: remind_people(Request(config=config)),
        due_in_seconds=lambda: _REMIND_SECONDS,
        only_looks=True,
    )
    page = keeper.Job(
        _PAGE_SECONDS,
        lambda: show_readiness(Request(config=config)),
        due_in_seconds=lambda: min(_PAGE_SECONDS, keeper.SETTLE_SECONDS),
        only_looks=True,
    )
    escalation = keeper.Job(60.0, lambda: communication.each_minute(settings), only_looks=True)
    return {
        "readiness": page,
        "stability": stability,
        "reminders": reminders,
        "wal": keeper.Job(often.wal_seconds, wal_shipping.Shipper(settings).ship),
        **backups,
        "platform": sets,
        "watch": watch,
        "escalation": escalation,
        **more,
        **upkeep,
    }


@app.command()
def work(
    pool: Annotated[str, typer.Option(help="Work pool.")],
    work_queue: Annotated[str, typer.Option(help="Work queue of this host.")],
    name: Annotated[str, typer.Option(help="Name of this worker.")] = "lifeboat",
    poll_seconds: Annotated[
        float,
        typer.Option(min=0.2, help="How often it asks for runs while the server can't tell it."),
    ] = 1,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How long runs may go on after SIGTERM.")
    ] = 10,
) -> None:
    """Run what the Prefect server schedules for this host, each run at once. Run it as a service.

    As `prefect worker start`, with a process that has everything imported before a run comes.
    Restart it after an upgrade of Lifeboat.
    """
    from lifeboat.settings import give_secrets

    give_secrets({"PREFECT_WORKER_QUERY_SECONDS": str(poll_seconds)})
    # Prefect reads its settings when it is imported, so only now.
    from tasks.prefect_server import warm_worker

    warm_worker.serve(pool, queue=work_queue, name=name, drain_seconds=drain_seconds)
