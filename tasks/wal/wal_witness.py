"""Until when S3 holds the log: said by one who asked the database, for those who see S3 alone.

The sighting that is left in the bucket is what a watcher elsewhere has: without it an idle database
looks like a stopped backup, and a stopped backup like an idle database.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from lifeboat.core.errors import RecoveryError
from lifeboat.core.marks import Kind, Sighting
from lifeboat.core.wal import Position
from lifeboat.settings import Settings
from lifeboat.tools import postgres
from tasks import clock, marks
from tasks.database import SLOT, connection

log = logging.getLogger("lifeboat")

SUBJECT = "wal"
"""The name of the sighting."""

_REACH_SECONDS = 5.0  # a receiver that is not synchronous tells every 2 s how far it is
_POLL_SECONDS = 0.1
_SAMPLES = 1440  # a day of rounds for which the receiver was behind


def last_sighting(settings: Settings) -> Sighting | None:
    """What this host last said of it; None: nothing yet."""
    found = marks.read_all(settings, Kind.SIGHTINGS, in_bucket=False).get(SUBJECT)
    return found if isinstance(found, Sighting) else None


@dataclass(frozen=True)
class _Sample:
    """At `as_of` the database had made its log durable up to here."""

    as_of: datetime
    flushed: postgres.Flushed


class Witness:
    """Knows from the database itself what the bucket has to hold, and says when it does.

    It asks the database before a round how far its log goes, and the receiver's own reports, as
    the server has them, how much of that has been written where we read it. After the round the
    newest sample that was written before we read is in the bucket. A dead database, a dead
    receiver or a failed upload leaves the sighting as it was.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._samples: collections.deque[_Sample] = collections.deque(maxlen=_SAMPLES)
        self._written: Position | None = None
        self._why = ""

    @property
    def running(self) -> postgres.Flushed | None:
        """Where the database was when it was asked last; None: it did not answer."""
        return self._samples[-1].flushed if self._samples and not self._why else None

    def where_now(self) -> postgres.Flushed | None:
        """Where the database is; None: it does not answer."""
        try:
            return postgres.flushed_to(connection(self._settings))
        except RecoveryError:
            return None

    def look(self) -> None:
        """Take a sample, and wait a moment until the receiver has got that far."""
        server = connection(self._settings)
        self._written, self._why = None, ""
        try:
            # Our clock, read before the question: what was committed until now is in the answer,
            # and a watcher on this clock can subtract it.
            as_of = clock.now()
            flushed = postgres.flushed_to(server)
            self._samples.append(_Sample(as_of, flushed))
            self._written = self._wait_for(server, flushed.position)
        except RecoveryError as error:
            self._why = str(error)

    def _wait_for(self, server: postgres.Connection, position: Position) -> Position | None:
        deadline = time.monotonic() + _REACH_SECONDS
        while True:
            receiver = postgres.receiver_of(server, SLOT)
            written = receiver.written_lsn if receiver else None
            if (written or 0) >= position.lsn or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        if written is None:
            return None
        return Position(position.system_identifier, position.timeline, written)

    def testify(self, is_there: Callable[[str, str], bool]) -> datetime | None:
        """Write down until when the bucket holds everything; give that moment.

        `is_there` says of a system identifier and a segment whether the bucket has it as it was
        read in this round. Raises TransientError if it can't be written into the bucket.
        """
        last = last_sighting(self._settings)
        covered = [sample for sample in self._samples if self._is_covered(sample, is_there)]
        newest = covered[-1] if covered else None
        if newest and (last is None or last.as_of < newest.as_of):
            _tell_of_switch(last, newest.flushed.position)
            last = Sighting(subject=SUBJECT, as_of=newest.as_of, holds=str(newest.flushed.position))
            marks.put(self._settings, Kind.SIGHTINGS, SUBJECT, last, bucket_first=True)
            while self._samples[0] is not newest:
                self._samples.popleft()
        return last.as_of if last else None

    def _is_covered(self, sample: _Sample, is_there: Callable[[str, str], bool]) -> bool:
        position, written = sample.flushed.position, self._written
        return (
            written is not None
            and position.lsn <= written.lsn
            and position.timeline == written.timeline
            and position.system_identifier == written.system_identifier
            and is_there(position.system_identifier, sample.flushed.segment)
        )

    def tell_if_late(self, why: str = "") -> None:
        """Log an alarm if what S3 holds is older than it should be."""
        told, last = self._settings, last_sighting(self._settings)
        behind = (clock.now() - last.as_of).total_seconds() if last else None
        if behind is not None and behind <= told.keep.wal_seconds * told.watch.late_factor:
            return
        why = why or self._why
        if not why and self._written is None:
            why = "no WAL receiver is connected to the database"
        since = f"{behind:.0f} s behind the database" if behind is not None else "without any WAL"
        log.warning("S3 is %s: %s", since, why or "the WAL receiver has not got further.")


def _tell_of_switch(last: Sighting | None, now: Position) -> None:
    if last is None:
        return
    before = Position.parse(last.holds)
    if before.system_identifier != now.system_identifier:
        log.warning(
            "The database is another cluster now: %s, not %s.",
            now.system_identifier,
            before.system_identifier,
        )
    elif before.timeline != now.timeline:
        log.warning(
            "The database went on on timeline %d, as after a recovery; it was on %d.",
            now.timeline,
            before.timeline,
        )
