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
from tasks import backup, catalogue, clock, locks, wal, wal_continuity

log = logging.getLogger("lifeboat")

_LOOK_SECONDS = 1.0
_HURRY_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """Something to do again and again; `due_in_seconds` tells when it is due for the first time."""

    every_seconds: float
    act: Callable[[], object]
    due_in_seconds: Callable[[], float] = lambda: 0.0
    due_because: Callable[[], str | None] = lambda: None  # why it can't wait until then


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

    def due_because() -> str | None:
        if asset is not Asset.DATABASE:
            return None
        return wal_continuity.base_is_due_because(settings)

    return Job(every_seconds, act, due_in_seconds, due_because)


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
        _rest(name, job, job.due_in_seconds())
    except RecoveryError as error:
        log.warning("Looking when %s is due: %s It is done now.", name, error)
    while True:
        began = time.monotonic()
        try:
            locks.stand_aside(settings, doing=f"Keeping {name}")
            backup.refuse_unproven(settings, doing=f"Keeping {name}")
            job.act()
        except LockBusy as error:
            log.info("%s", error)
        except PreconditionError as error:
            log.error("%s", error)
        except RecoveryError as error:
            log.warning("%s", error)
        _rest(name, job, max(_LOOK_SECONDS, job.every_seconds - (time.monotonic() - began)))


def _rest(name: str, job: Job, seconds: float) -> None:
    """Wait until a job is due by the clock, or for a reason of its own."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _HURRY_SECONDS))
        why = job.due_because()
        if why:
            log.warning("%s is due at once: %s", name, why)
            return
