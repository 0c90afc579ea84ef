"""The write-ahead log on its way out: received as it is written, shipped to S3 sealed.

Where it lies: `database/wal/<system identifier>/<timeline>/` in the local vault, one directory for
each timeline at which the receiver began; in S3 `database/wal/<system identifier>/<timeline>/`
`<segment>.zst.age`. The segment being written is shipped again and again as `.partial`, so the
bucket is never further behind than the interval, and no segment switch is forced on the database.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core import wal as log_positions
from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.settings import Settings
from lifeboat.tools import postgres, seal
from tasks import places, services, vault
from tasks.database import SLOT, connection
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")

SEALED = places.SEALED
_PARALLEL = 8


class Shipment(BaseModel):
    """What one round of shipping put into the bucket."""

    model_config = ConfigDict(frozen=True)

    segments: tuple[str, ...]
    partial: str | None


# --- shipping -------------------------------------------------------------------------------


class Shipper:
    """Ships what the receiver has written and the bucket lacks. Remembers what it has shipped."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = places.bucket(settings)
        self.recipient = vault.wal_recipient(settings)
        self._shipped: set[str] | None = None
        self._partial_lengths: dict[str, int] = {}

    def ship(self) -> Shipment:
        """Ship all closed segments, histories, and the newest bytes of the open segment.

        Idempotent. Raises TransientError if the bucket can't be reached.
        """
        root = places.wal_directory(self.settings)
        if self._shipped is None:
            self._shipped = {item.key for item in self.bucket.list(places.WAL_PREFIX)}
        closed, partials = [], []
        for path in sorted(root.glob("*/*/*")):
            if path.name.endswith(log_positions.PARTIAL):
                partials.append(path)
            elif object_key(path) not in self._shipped and _is_wal(path.name):
                closed.append(path)
        with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
            list(pool.map(self._ship_closed, closed))
        newest = max(partials, key=_modified_at, default=None)
        shipped_partial = newest.name if newest and self._ship_partial(newest) else None
        return Shipment(segments=tuple(path.name for path in closed), partial=shipped_partial)

    def _ship_closed(self, path: Path) -> None:
        assert self._shipped is not None
        key = object_key(path)
        self.bucket.put(key, seal.seal(path.read_bytes(), self.recipient))
        self._shipped.add(key)
        partial = object_key(path.with_name(path.name + log_positions.PARTIAL))
        if partial in self._shipped:
            # Best effort: a complete segment is always preferred to its partial.
            self.bucket.delete([partial])
            self._shipped.discard(partial)

    def _ship_partial(self, path: Path) -> bool:
        assert self._shipped is not None
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return False  # it was closed a moment ago; the next round ships it whole
        length = len(data.rstrip(b"\0"))
        if not length or self._partial_lengths.get(path.name) == length:
            return False
        key = object_key(path)
        self.bucket.put(key, seal.seal(data, self.recipient))
        self._shipped.add(key)
        self._partial_lengths = {path.name: length}
        return True


def _modified_at(path: Path) -> float:
    """The receiver renames a `.partial` when its segment is full; then it is not the newest."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def object_key(path: Path) -> str:
    """The key under which a file of the local WAL directory lies in the bucket."""
    system_identifier = path.parent.parent.name
    timeline = path.name[:8]
    return f"{places.WAL_PREFIX}{system_identifier}/{timeline}/{path.name}{SEALED}"


def _is_wal(name: str) -> bool:
    return log_positions.history_timeline(name) is not None or log_positions.is_segment_name(name)


@step(retries=3)
def ship(settings: Settings) -> Shipment:
    """One round of shipping."""
    return Shipper(settings).ship()


# --- the receiver ---------------------------------------------------------------------------

_LOOK_SECONDS = 0.25
_REST_SECONDS = 0.5
_LONG_REST_SECONDS = 10.0
_RECEIVER_SECONDS = 30.0


def receiver_directory(settings: Settings, identity: postgres.Identity) -> Path:
    """Where the receiver writes: a directory of its own for each timeline at which it begins.

    After a recovery to an earlier point a receiver on the old directory would go on at a position
    that no longer exists.
    """
    root = places.wal_directory(settings) / identity.system_identifier
    return root / f"{identity.timeline:08X}"


def receive(settings: Settings) -> None:
    """Receive WAL for as long as this process lives; wait out every absence of the database.

    Once it streams it lets commits wait for it, if the settings say synchronous: so a receiver
    that was switched off by `lifeboat wal asynchronous` takes its place again by itself.
    """
    server = connection(settings)
    log.info("Receiving WAL of %s:%d (%s)", server.host, server.port, settings.database.wal)
    while True:
        try:
            if not postgres.answers(server):
                time.sleep(_LOOK_SECONDS)
                continue
            _receive_once(settings, server)
            log.warning("The database ended the stream; connecting again.")
        except PreconditionError as error:
            log.error("%s", error)
            time.sleep(_LONG_REST_SECONDS)
        except RecoveryError as error:
            log.warning("%s", error)
        time.sleep(_REST_SECONDS)


def _receive_once(settings: Settings, server: postgres.Connection) -> None:
    identity = postgres.identify(server)
    if identity.in_recovery:
        return
    postgres.ensure_slot(server, SLOT)
    directory = receiver_directory(settings, identity)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    over = threading.Event()
    arming = threading.Thread(target=_arm_when_streaming, args=(settings, server, over))
    arming.start()
    try:
        postgres.receive_wal(
            server,
            directory,
            slot=SLOT,
            name=SLOT,
            synchronous=settings.database.wal == "synchronous",
            on_line=lambda line: log.info("%s", line),
        )
    finally:
        over.set()
        arming.join()


def _arm_when_streaming(
    settings: Settings, server: postgres.Connection, over: threading.Event
) -> None:
    while not over.wait(_LOOK_SECONDS):
        try:
            if arm(settings, server):
                return
        except RecoveryError as error:
            log.warning("Waiting for the receiver to stream: %s", error)


def arm(settings: Settings, server: postgres.Connection) -> bool:
    """Let commits wait for the receiver if they should; say whether it streams."""
    receiver = postgres.receiver_of(server, SLOT)
    if receiver is None or receiver.state != "streaming":
        return False
    if settings.database.wal == "synchronous":
        postgres.set_synchronous(server, SLOT)
    return True


def disarm(settings: Settings) -> None:
    """Let commits wait for no receiver, until one streams again."""
    postgres.set_synchronous(connection(settings), "")


def rearm(settings: Settings) -> None:
    """Make the slot, start the receiver and wait until it streams.

    A receiver that does not come must not keep the platform down: commits then wait for none, and
    the record and the log say so.
    """
    server = connection(settings)
    identity = postgres.identify(server)
    postgres.ensure_slot(server, SLOT)
    _bridge(settings, server, identity)
    receivers = [name for name in settings.stack.backup_services if "receiver" in name]
    if not receivers:
        log.warning("No WAL receiver is named in stack.backup_services: WAL is not protected.")
        return
    try:
        services.stack_of(settings).start(receivers)
        deadline = time.monotonic() + _RECEIVER_SECONDS
        while not arm(settings, server):
            if time.monotonic() > deadline:
                raise PreconditionError(
                    f"Waiting for the WAL receiver: it does not stream after "
                    f"{_RECEIVER_SECONDS:g} s.",
                    hint=f"Look at the log of {receivers[0]}.",
                )
            time.sleep(_LOOK_SECONDS / 5)
    except RecoveryError as error:
        log.error("The recovered database is not protected yet: %s", error)
        postgres.set_synchronous(server, "")
        current_run().fact(wal_receiver="does not stream")


def _bridge(settings: Settings, server: postgres.Connection, identity: postgres.Identity) -> None:
    """Copy what the new timeline has written before the slot begins, so that the vault has it."""
    if identity.timeline == 1:
        return
    data = settings.database.data_directory
    size = identity.wal_segment_bytes
    began = postgres.recovered_to(data)
    begins = postgres.slot_restart_lsn(server, SLOT)
    if began.timeline != identity.timeline or begins is None:
        return
    directory = receiver_directory(settings, identity)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    there = postgres.salvage_segments(data, identity.system_identifier, size)
    for number in range(began.lsn // size, begins // size):
        name = log_positions.Segment(identity.timeline, number).name(size)
        if name in there and not (directory / name).exists():
            shutil.copyfile(there[name], directory / name)
