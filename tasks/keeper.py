"""The keeper: ships WAL and repeats backups on a host that has no Prefect server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lifeboat.core.errors import LockBusy, PreconditionError, RecoveryError
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings
from tasks import backup, catalogue, clock, locks, wal

log = logging.getLogger("lifeboat")

_LOOK_SECONDS = 1.0
_FIRST_SET_SECONDS = 3600.0
_AFTER_BUSY_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """Something to do again and again; `due_in_seconds` tells when it is due for the first time."""

    every_seconds: float
    act: Callable[[], object]
    due_in_seconds: Callable[[], float] = lambda: 0.0


def backup_job(
    settings: Settings, asset: Asset, *, every_seconds: float, act: Callable[[], object]
) -> Job:
    """A backup that is due when the newest copy on this host is that old, or when there is none.

    A recovery takes the hot copy of the database away, so that a base copy is due after it.
    """

    def due_in_seconds() -> float:
        tier = Tier.HOT if asset is Asset.DATABASE else Tier.LOCAL
        points = catalogue.list_points(settings, assets=(asset,), tiers=(tier,))
        if not points:
            return 0.0
        age = (clock.now() - points[0].taken_at).total_seconds()
        return max(0.0, every_seconds - age)

    return Job(every_seconds, act, due_in_seconds)


def set_job(settings: Settings, *, every_seconds: float, act: Callable[[], object]) -> Job:
    """A set of everything that is due when the newest member of one on this host is that old.

    The first one comes when the first backups of each asset are surely made.
    """

    def due_in_seconds() -> float:
        points = catalogue.list_points(settings, assets=(Asset.FILES,), tiers=(Tier.LOCAL,))
        newest = next((point for point in points if point.set_id), None)
        if newest is None:
            return min(every_seconds, _FIRST_SET_SECONDS)
        return max(0.0, every_seconds - (clock.now() - newest.taken_at).total_seconds())

    return Job(every_seconds, act, due_in_seconds)


def keep(settings: Settings, jobs: Mapping[str, Job]) -> None:
    """Do each job every so often, for as long as this process lives; a failure is told, not fatal.

    Each job has a thread of its own: a slow backup must not hold the WAL back. Nothing is done
    while a recovery runs, nor on a host that was recovered and not verified.
    """
    shipper = wal.Shipper(settings)
    everything = {"wal": Job(settings.keep.wal_seconds, shipper.ship), **jobs}
    threads = [
        threading.Thread(target=_repeat, args=(settings, name, job), daemon=True, name=name)
        for name, job in everything.items()
    ]
    for thread in threads:
        thread.start()
    while all(thread.is_alive() for thread in threads):
        time.sleep(_LOOK_SECONDS)
    raise RecoveryError("Keeping backups fresh: a job ended.", hint="Look at the log above.")


def _repeat(settings: Settings, name: str, job: Job) -> None:
    try:
        time.sleep(job.due_in_seconds())
    except RecoveryError as error:
        log.warning("Looking when %s is due: %s It is done now.", name, error)
    while True:
        began, every_seconds = time.monotonic(), job.every_seconds
        try:
            locks.stand_aside(settings, doing=f"Keeping {name}")
            backup.refuse_unproven(settings, doing=f"Keeping {name}")
            job.act()
        except LockBusy as error:
            log.info("%s", error)
            # Another one is at work, which is no reason to miss a day.
            every_seconds = min(every_seconds, _AFTER_BUSY_SECONDS)
        except PreconditionError as error:
            log.error("%s", error)
        except RecoveryError as error:
            log.warning("%s", error)
        time.sleep(max(_LOOK_SECONDS, every_seconds - (time.monotonic() - began)))
