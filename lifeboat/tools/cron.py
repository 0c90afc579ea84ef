"""How far apart the moments of a cron line are, by cronsim."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

_FROM = datetime(2024, 1, 1, tzinfo=timezone.utc)
_FOR = timedelta(days=400)
_MOMENTS = 12000  # of one that is due every minute: a week, with its weekend


def longest_gap_seconds(line: str) -> float:
    """The longest time between two moments of a cron line, its nights and weekends included.

    Raises ValueError if it is none, or has not two moments within a year.
    """
    from cronsim import CronSim, CronSimError

    gap, before = 0.0, None
    try:
        for number, moment in enumerate(CronSim(line, _FROM)):
            if before is not None:
                gap = max(gap, (moment - before).total_seconds())
            if number >= _MOMENTS or moment - _FROM > _FOR:
                break
            before = moment
    except CronSimError as error:
        raise ValueError(f"{line!r} is no cron line: {error}") from error
    if not gap:
        raise ValueError(f"{line!r} has not two moments within a year")
    return gap
