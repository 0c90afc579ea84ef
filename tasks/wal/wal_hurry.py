"""A base copy that can't wait for its schedule: the log has a hole behind the newest one."""

from __future__ import annotations

import logging
from datetime import datetime

from lifeboat.core.errors import RecoveryError
from lifeboat.settings import Settings
from tasks import clock
from tasks.prefect_server import runs
from tasks.wal import wal_continuity

log = logging.getLogger("lifeboat")

_QUARTER = 15  # minutes


def hurry_base_copy(settings: Settings) -> None:
    """Have the database backed up at once where a hole lies behind its newest base copy.

    Until then a lost server loses all that came after the hole, and the schedule may be hours away.
    Asked for once in a quarter of an hour, however often this is called. Without a server the
    keeper sees to it. Never raises: the WAL has to go on being shipped.
    """
    try:
        why = wal_continuity.base_is_due_because(settings)
        if why is None or not runs.there_is_a_server():
            return
        key = f"{settings.platform}.base-copy.{_quarter(clock.now())}"
        run, _ = runs.start(
            settings.platform, "backup-database", key=key, doing="Hurrying a base copy"
        )
        log.warning("A new base copy is made at once (%s): %s", run, why)
    except (RecoveryError, OSError) as error:
        log.error("A new base copy is due, and was not asked for: %s", error)


def _quarter(now: datetime) -> str:
    return f"{now:%Y%m%dT%H}{now.minute // _QUARTER}"
