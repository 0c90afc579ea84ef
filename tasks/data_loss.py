"""Note until when a recovery brought its data back. Measuring never stops what it measures."""

from __future__ import annotations

import logging
from datetime import datetime

from lifeboat.core.data_loss import Until
from lifeboat.core.marks import Kind, Sighting
from lifeboat.core.points import Asset, Facts, RecoveryPoint
from lifeboat.core.wal import Position
from lifeboat.settings import Settings
from lifeboat.tools import postgres
from tasks import marks
from tasks.database import connection
from tasks.record import current_run
from tasks.wal.wal_replay import CollectedWal
from tasks.wal.wal_witness import SUBJECT

log = logging.getLogger("lifeboat")


def note(asset: Asset, moment: datetime | None, because: str, *, chosen: bool = False) -> None:
    """Keep in the run's record until when an asset was brought back; None: nothing is lost."""
    until = Until(asset=asset, moment=moment, because=because, chosen=chosen)
    current_run().fact(**until.as_facts())


def note_database(
    settings: Settings, base: Facts, collected: CollectedWal, *, to_time: datetime | None
) -> None:
    """After the replay: by the server's own log, its last commit, or what the shipper saw."""
    if to_time:
        note(Asset.DATABASE, to_time, "that moment was asked for", chosen=True)
    elif collected.own_log:
        note(Asset.DATABASE, None, "the database's own log was replayed to its end")
    else:
        try:
            note(Asset.DATABASE, *_replayed_until(settings, base, collected))
        except Exception as error:
            log.warning("Until when the database was brought back is not known: %s", error)


def _replayed_until(
    settings: Settings, base: Facts, collected: CollectedWal
) -> tuple[datetime, str]:
    assert base.database
    known = [(base.database.stopped_at, f"the base copy {base.point}")]
    if last := postgres.last_replayed_commit_at(connection(settings)):
        known.append((last, "the last commit that was replayed"))
    seen = _sighting(settings, SUBJECT)
    if seen and collected.must_reach_lsn is not None:
        holds = Position.parse(seen.holds)
        same = holds.system_identifier == base.database.system_identifier
        # An idle database commits nothing, and loses nothing.
        if same and holds.lsn <= collected.must_reach_lsn:
            known.append((seen.as_of, "the log, as the bucket was last seen to hold all of it"))
    return max(known)


def note_tree(settings: Settings, point: RecoveryPoint, *, chosen: bool) -> None:
    """After files or models were restored: as the point has them, or as they were seen later."""
    moment, because = point.taken_at, f"as {point.id} has them"
    seen = _sighting(settings, str(point.asset))
    if seen and seen.holds == point.id and seen.as_of > moment:
        moment, because = seen.as_of, f"as {point.id} has them, unchanged when last looked at"
    note(point.asset, moment, because, chosen=chosen)


def _sighting(settings: Settings, subject: str) -> Sighting | None:
    try:
        found = marks.read(settings, Kind.SIGHTINGS, subject)
    except Exception as error:
        log.info("There is no sighting of %s: %s", subject, error)
        return None
    return found if isinstance(found, Sighting) else None
