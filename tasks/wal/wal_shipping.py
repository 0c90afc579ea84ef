"""The write-ahead log on its way to S3: sealed, in order, and never further behind than a round.

Where it lies: in the local vault as the receiver wrote it, see `tasks.wal.wal_receiver`; in S3
`database/wal/<system identifier>/<timeline>/<segment>.zst.age`.

The segment being written is shipped again in every round, as `.partial`, so that nothing waits
longer than the interval and no segment switch is forced on the database. A switch once a minute
would do as much, but it needs a privilege, and writes 16 MB to the receiver's disk and to pg_wal
for a database that does nothing: 23 GB a day, 690 GB in the 30 days that the local vault keeps.
The partial costs one upload of half a segment, compressed, and only where it has grown. It can't
be shipped where the receiver is dead or hangs, and there a switch would bring nothing either. A
bucket that keeps old versions keeps those of the partial too: let it expire them.

Segments go one after another, the oldest first, also after days without S3. A recovery refuses a
log with a hole, so what comes after a missing segment is worth nothing until that one is there:
the newest first, or several at a time, would leave the bucket with a hole for as long as it takes,
and for good if this host dies meanwhile. Only the sealing runs ahead.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import PreconditionError, RecoveryError, TransientError
from lifeboat.core.points import Tier
from lifeboat.core.wal import PARTIAL, Segment, history_timeline, is_segment_name
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, seal
from tasks import catalogue, places, vault
from tasks.orchestration import step
from tasks.places import wal_key
from tasks.wal import wal_continuity
from tasks.wal.wal_continuity import WalFile
from tasks.wal.wal_witness import Witness

log = logging.getLogger("lifeboat")

SEALED = places.SEALED

_AT_ONCE = 64  # closed segments, then it is made sure that they are there
_SEALED_AHEAD = 4  # segments in memory
_AGAIN_SECONDS = 900.0
_NOTE_NAME = "bucket-listed"


class Shipment(BaseModel):
    """What one round of shipping put into the bucket."""

    model_config = ConfigDict(frozen=True)

    segments: tuple[str, ...]
    partial: str | None
    held_until: datetime | None = None  # everything that was written until then is in the bucket


@step(retries=3)
def ship(settings: Settings) -> Shipment:
    """One round of shipping."""
    return Shipper(settings).ship()


class Shipper:
    """Ships what the receiver has written and the bucket lacks.

    It remembers what the bucket holds from one listing, and lists again every 15 minutes and after
    each failure: a store that was away may have come back without its newest objects, and what was
    deleted behind our back is shipped again while this host still has it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = places.bucket(settings)
        self.recipient = vault.wal_recipient(settings)
        self._there = _InBucket(settings)
        self._witness = Witness(settings)
        self._partial_lengths: dict[str, int] = {}  # of what the bucket has of this round

    def ship(self) -> Shipment:
        """Ship all closed segments, histories, and the newest bytes of the open segment.

        Idempotent. Raises TransientError if the bucket can't be reached, or what was uploaded is
        not found there; then nothing is said to be held.
        """
        self._witness.look()
        held = None
        try:
            shipment = self._ship()
            held = self._witness.testify(self._is_there)
            self._look_for_gaps()
        except RecoveryError as error:
            self._there.doubt()
            self._witness.tell_if_late(str(error))
            raise
        except OSError as error:
            # A full disk here must not keep the log from getting away from it.
            raise TransientError(f"Shipping WAL: {error.filename}: {error.strerror}.") from error
        self._witness.tell_if_late()
        return shipment.model_copy(update={"held_until": held})

    def _ship(self) -> Shipment:
        self._there.learn()
        self._refuse_another_future()
        files = wal_continuity.local_files(self.settings)
        waiting = self._waiting(files)
        names: list[str] = []
        for begin in range(0, len(waiting), _AT_ONCE):
            names += self._ship_closed(waiting[begin : begin + _AT_ONCE])
        partials = self._ship_partials(files)
        with suppress(OSError):
            self._there.remember(file.key for file in files if not file.is_partial)
        return Shipment(segments=tuple(names), partial=next(iter(partials), None))

    def _refuse_another_future(self) -> None:
        """Raise PreconditionError if the bucket is ahead of the database on its own timeline.

        Then the database was set back without beginning a new timeline, as by a snapshot of the
        whole machine, and what it writes now has the names of what it wrote before.
        """
        for look_again in (False, True):
            at = self._witness.where_now() if look_again else self._witness.running
            if at is None:
                return
            newest = self._there.newest_on(at.position.system_identifier, at.segment[:8])
            if newest <= at.segment:
                return
        raise PreconditionError(
            f"Shipping WAL: S3 has segment {newest}, but the database is only in {at.segment}. It "
            "was set back without a new timeline, as by a snapshot of the machine.",
            hint="Nothing is shipped. Keep what S3 has: move database/wal/"
            f"{at.position.system_identifier}/ of the bucket, and of the local vault, aside; then "
            "restart the WAL receiver and run `lifeboat backup database`.",
        )

    def _ship_closed(self, files: list[WalFile]) -> list[str]:
        """Ship some, make sure of them, and say at once what is held by them: a backlog is long."""
        uploaded: dict[str, int] = {}
        for file, sealed in self._sealed(files):
            if sealed is not None:
                self._put(file.key, sealed, uploaded)
                # Best effort: a complete segment is always preferred to its partial.
                self._there.remove([wal_key(file.system_identifier, file.name + PARTIAL)])
        self._there.confirm(uploaded)
        self._witness.testify(lambda system, segment: wal_key(system, segment) in uploaded)
        return [file.name for file in files if file.key in uploaded]

    def _waiting(self, files: list[WalFile]) -> list[WalFile]:
        """What the bucket lacks, in the order in which a recovery reads it."""
        found = {f.key: f for f in files if not f.is_partial and not self._there.has(f.key)}
        newest = self._there.newest()
        behind = [f for key, f in found.items() if key < newest.get(_cluster(key), "")]
        begins = self._needed_from() if behind else {}
        for file in behind:
            if not _is_needed(file, begins):
                del found[file.key]
        return [file for _, file in sorted(found.items())]

    def _needed_from(self) -> Mapping[str, tuple[int, int]]:
        """By system identifier: the number of the first segment that a base in S3 needs, and the
        bytes of one. What was pruned there would otherwise be shipped again.
        """
        try:
            bases = catalogue.base_copies(self.settings, Tier.S3)
        except RecoveryError as error:
            log.warning("Shipping all WAL, as it is not known what bases need of it: %s", error)
            return {}
        found: dict[str, tuple[int, int]] = {}
        for base in bases:
            first = base.start_lsn // base.segment_bytes
            known = found.get(base.system_identifier, (first, 0))[0]
            found[base.system_identifier] = (min(first, known), base.segment_bytes)
        return found

    def _sealed(self, files: list[WalFile]) -> Iterator[tuple[WalFile, bytes | None]]:
        """Each file with its sealed content, in order; the next ones are sealed meanwhile."""
        pending: collections.deque[tuple[WalFile, Future[bytes | None]]] = collections.deque()
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="seal") as pool:
            for file in files:
                pending.append((file, pool.submit(self._seal, file)))
                if len(pending) >= _SEALED_AHEAD:
                    done, sealed = pending.popleft()
                    yield done, sealed.result()
            for done, sealed in pending:
                yield done, sealed.result()

    def _seal(self, file: WalFile) -> bytes | None:
        """None for a file that can't be had: the ones after it must not wait for it for ever."""
        try:
            return seal.seal(file.path.read_bytes(), self.recipient)
        except FileNotFoundError:
            return None  # pruned meanwhile
        except OSError as error:
            log.error("Shipping %s: it can't be read (%s). It is left out.", file.path, error)
            return None

    def _put(self, key: str, sealed: bytes, uploaded: dict[str, int]) -> None:
        self.bucket.put(key, sealed)
        self._there.add(key)
        uploaded[key] = len(sealed)

    def _ship_partials(self, files: list[WalFile]) -> list[str]:
        """Ship what is being written, on the newest timeline of each cluster, where it has grown.

        Gives the names of what was shipped.
        """
        uploaded: dict[str, int] = {}
        shipped, current = [], {}
        for file in wal_continuity.newest_partials(files):
            try:
                file, data = _read_growing(file)
            except OSError as error:
                log.error("Shipping %s: it can't be read (%s).", file.path, error)
                continue
            length = len(data.rstrip(b"\0"))
            if not length:
                continue
            if self._partial_lengths.get(file.key) != length or not self._there.has(file.key):
                self._put(file.key, seal.seal(data, self.recipient), uploaded)
                shipped.append(file.name)
            if not file.is_partial:
                self._there.remove([file.key.removesuffix(SEALED) + PARTIAL + SEALED])
            current[file.key] = length
        self._there.confirm(uploaded)
        self._partial_lengths = current
        return shipped

    def _is_there(self, system_identifier: str, segment: str) -> bool:
        """Whether the bucket has a segment, whole or with all that was in it in this round."""
        return (
            self._there.has(wal_key(system_identifier, segment))
            or wal_key(system_identifier, segment + PARTIAL) in self._partial_lengths
        )

    def _look_for_gaps(self) -> None:
        """Cheap: the local log by its names, and the bucket's when all of them were just listed."""
        try:
            running = self._witness.running
            system = running.position.system_identifier if running else ""
            wal_continuity.notice(self.settings, Tier.LOCAL, system)
            if self._there.was_listed:
                wal_continuity.notice(self.settings, Tier.S3, system)
        except RecoveryError as error:
            log.warning("Looking for gaps in the log: %s", error)


def _read_growing(file: WalFile) -> tuple[WalFile, bytes]:
    """What is being written; or the whole segment, if it was closed since the files were listed."""
    try:
        return file, file.path.read_bytes()
    except FileNotFoundError:
        name = file.name.removesuffix(PARTIAL)
        closed = WalFile(file.system_identifier, name, file.path.with_name(name))
        return closed, closed.path.read_bytes()


def _is_needed(file: WalFile, begins: Mapping[str, tuple[int, int]]) -> bool:
    if history_timeline(file.name) is not None or file.system_identifier not in begins:
        return True
    first, segment_bytes = begins[file.system_identifier]
    segment = Segment.parse(file.name, segment_bytes)
    return segment is None or segment.number >= first


# --- what the bucket holds ------------------------------------------------------------------


class _InBucket:
    """What is known of the bucket's WAL objects: from listings, and from what was put there.

    A process that lives for one round only would list everything each time. So each leaves a note
    of when all was listed and up to which key of each cluster all was there, and the next one lists
    from there on.
    """

    def __init__(self, settings: Settings) -> None:
        self._bucket = places.bucket(settings)
        self._note = places.wal_directory(settings) / _NOTE_NAME
        self._keys: set[str] = set()
        self._sure_until: dict[str, str] = {}  # by cluster: what sorts before this was there
        self._listed_at: float | None = None  # seconds since the epoch; None: nothing is known
        self.was_listed = False
        """Whether all of it was listed in this round."""

    def has(self, key: str) -> bool:
        return key in self._keys or key < self._sure_until.get(_cluster(key), "")

    def newest(self) -> dict[str, str]:
        """The last key of each cluster."""
        found = dict(self._sure_until)
        for key in self._keys:
            cluster = _cluster(key)
            found[cluster] = max(key, found.get(cluster, ""))
        return found

    def newest_on(self, system_identifier: str, timeline: str) -> str:
        """Name of the newest segment of a timeline; empty: there is none, as far as is known."""
        prefix = f"{places.WAL_PREFIX}{system_identifier}/{timeline}/"
        names = (key.removeprefix(prefix)[:24] for key in self._keys if key.startswith(prefix))
        return max((name for name in names if is_segment_name(name)), default="")

    def add(self, key: str) -> None:
        self._keys.add(key)

    def learn(self) -> None:
        """List what is not known."""
        self.was_listed = False
        if self._listed_at is None:
            self._go_on_from_note()
        if self._listed_at is not None and _is_recent(self._listed_at):
            return
        began = time.time()
        self._keys = {item.key for item in self._bucket.list(places.WAL_PREFIX)}
        self._sure_until, self._listed_at, self.was_listed = {}, began, True
        # Left by a process that died between shipping a segment and removing its partial.
        self.remove([key for key in self._keys if _whole_of(key) in self._keys])

    def _go_on_from_note(self) -> None:
        try:
            listed_at, *newest = self._note.read_text().split()
            if not _is_recent(float(listed_at)):
                return
        except (OSError, ValueError):
            return
        for key in newest:
            found = self._bucket.list(_cluster(key), after=key)
            self._keys |= {item.key for item in found}
            self._sure_until[_cluster(key)] = key
        self._listed_at = float(listed_at)

    def remember(self, local: Iterable[str]) -> None:
        """All these keys are there now, but for those that nothing needs."""
        newest: dict[str, str] = {}
        for key in local:
            newest[_cluster(key)] = max(key, newest.get(_cluster(key), ""))
        keys = (key.removesuffix(SEALED) for key in newest.values())
        text = "\n".join([str(self._listed_at), *keys])
        if not self._note.exists() or self._note.read_text() != text:
            filesystem.atomic_write(self._note, text.encode())

    def doubt(self) -> None:
        """Something failed: all is looked at again before anything is believed."""
        self._listed_at = None
        self._note.unlink(missing_ok=True)

    def remove(self, keys: Iterable[str]) -> None:
        """Delete partial segments that are not needed any more. Best effort."""
        some = [key for key in keys if key in self._keys]
        if not some:
            return
        try:
            self._bucket.delete(some)
            self._keys.difference_update(some)
        except RecoveryError as error:
            log.warning("%d partial segments stay in the bucket: %s", len(some), error)

    def confirm(self, uploaded: Mapping[str, int]) -> None:
        """Find what was uploaded by name and size, with one listing. Raises TransientError."""
        if not uploaded:
            return
        first = min(uploaded)
        there = {o.key: o.bytes for o in self._bucket.list(places.WAL_PREFIX, after=first[:-1])}
        lost = [key for key, size in uploaded.items() if there.get(key) != size]
        self._keys.difference_update(lost)
        if lost:
            raise TransientError(
                f"Shipping WAL: {len(lost)} of {len(uploaded)} objects are not in the bucket as "
                f"they were uploaded, first {min(lost)}.",
                hint="They are shipped again. Who else writes to or deletes from the bucket?",
            )


def _cluster(key: str) -> str:
    """`database/wal/<system identifier>/` of a key."""
    return key[: key.find("/", len(places.WAL_PREFIX)) + 1]


def _whole_of(key: str) -> str | None:
    """The complete segment's key, given its partial's."""
    ending = PARTIAL + SEALED
    return key.removesuffix(ending) + SEALED if key.endswith(ending) else None


def _is_recent(listed_at: float) -> bool:
    return 0 <= time.time() - listed_at < _AGAIN_SECONDS
