"""The keeper: what Prefect's schedules do, on a host that has no Prefect server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from lifeboat.core.errors import LockBusy, PreconditionError, RecoveryError
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings
from tasks import backup, catalogue, clock, journals, locks, places
from tasks.prefect_server import orchestrator
from tasks.wal import wal_continuity

log = logging.getLogger("lifeboat")

_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 60.0  # after a failure, then twice as long each time, at most the job's interval
# A host that was recovered or rebooted a moment ago has better things to do than to test itself.
SETTLE_SECONDS = 600.0
_HURRY_SECONDS = 10.0
_FIRST_SET_SECONDS = 3600.0
_TROUBLES = (RecoveryError, OSError)


@dataclass(frozen=True)
class Job:
    """Something to do again and again; `due_in_seconds` tells when it is due for the first time."""

    every_seconds: float
    act: Callable[[], object]
    due_in_seconds: Callable[[], float] = lambda: 0.0
    due_because: Callable[[], str | None] = lambda: None  # why it can't wait until then
    only_looks: bool = False  # so that a recovery need not be waited for


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
        return _left(every_seconds, points[0].taken_at)

    def due_because() -> str | None:
        if asset is not Asset.DATABASE:
            return None
        return wal_continuity.base_is_due_because(settings)

    return Job(every_seconds, act, due_in_seconds, due_because)


def orchestrator_job(settings: Settings, *, every_seconds: float, act: Callable[[], object]) -> Job:
    """A backup of Prefect's database that is due when the newest one here is that old."""

    def due_in_seconds() -> float:
        points = orchestrator.list_points(settings, tiers=(Tier.LOCAL,))
        if not points:
            return 0.0
        return _left(every_seconds, points[0].taken_at)

    return Job(every_seconds, act, due_in_seconds)


def upkeep_job(
    settings: Settings, procedure: str, *, every_seconds: float, act: Callable[[], object]
) -> Job:
    """Something that is due when its last run on this host was that long ago, and not at once."""

    def due_in_seconds() -> float:
        last = journals.last_run_at(places.runs_directory(settings), procedure)
        left = _left(every_seconds, last) if last else 0.0
        return max(min(SETTLE_SECONDS, every_seconds), left)

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
        return _left(every_seconds, newest.taken_at)

    return Job(every_seconds, act, due_in_seconds)


def _left(every_seconds: float, last: datetime) -> float:
    """Seconds until it is due again, the interval at most: `last` may lie ahead of a clock that is
    wrong for a moment, as at the start of a machine without a battery.
    """
    age = (clock.now() - last).total_seconds()
    return min(every_seconds, max(0.0, every_seconds - age))


def keep(settings: Settings, jobs: Mapping[str, Job]) -> None:
    """Do each job every so often, for as long as this process lives; a failure is told, not fatal.

    Each job has a thread of its own: a slow backup must not hold the WAL back. While a recovery
    runs, and on a host that was recovered and not verified, it does nothing but look. A disk that
    is full, or can't be read, ends none of them: the others may be what helps.
    """
    threads = [
        threading.Thread(target=_repeat, args=(settings, name, job), daemon=True, name=name)
        for name, job in jobs.items()
    ]
    for thread in threads:
        thread.start()
    while all(thread.is_alive() for thread in threads):
        time.sleep(_LOOK_SECONDS)
    ended = ", ".join(thread.name for thread in threads if not thread.is_alive())
    raise RecoveryError(
        f"Keeping backups fresh: the job {ended} ended by a defect.", hint="Look at the log above."
    )


def _repeat(settings: Settings, name: str, job: Job) -> None:
    try:
        first = job.due_in_seconds()
        _rest(name, first, job.due_because)
    except _TROUBLES as error:
        log.warning("Looking when %s is due: %s It is done now.", name, error)
    failures = 0
    while True:
        began = time.monotonic()
        try:
            failures = 0 if _done(settings, name, job) else failures + 1
        except LockBusy as error:
            # Another run is at work, which is no fault, and no reason to miss a day.
            log.info("%s", error)
            failures = 1
        pause = job.every_seconds
        if failures:
            pause = min(pause, _AGAIN_SECONDS * 2 ** min(failures - 1, 10))
        # What has just failed is not hurried: its reason is still there.
        because = job.due_because if not failures else lambda: None
        _rest(name, pause - (time.monotonic() - began), because)


def _done(settings: Settings, name: str, job: Job) -> bool:
    try:
        if not job.only_looks:
            locks.stand_aside(settings, doing=f"Keeping {name}")
            backup.refuse_unproven(settings, doing=f"Keeping {name}")
        job.act()
    except LockBusy:
        raise
    except PreconditionError as error:
        log.error("%s", error)
    except RecoveryError as error:
        log.warning("%s", error)
    except OSError as error:
        log.error("%s failed: %s", name, error)
    else:
        return True
    return False


def _rest(name: str, seconds: float, because: Callable[[], str | None]) -> None:
    """Wait until a job is due by the clock, or for a reason of its own."""
    until = time.monotonic() + max(_LOOK_SECONDS, seconds)
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _HURRY_SECONDS))
        try:
            why = because()
        except _TROUBLES as error:
            log.warning("Looking whether %s can wait: %s", name, error)
            continue
        if why:
            log.warning("%s is due at once: %s", name, why)
            return
