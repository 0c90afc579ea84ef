"""The write-ahead log: shipped to S3 sealed, brought back complete, and armed again after a recovery.

Where it lies: `database/wal/<system identifier>/<timeline>/` in the local vault, one directory for
each timeline at which the receiver began; in S3 `database/wal/<system identifier>/<timeline>/`
`<segment>.zst.age`. The segment being written is shipped again and again as `.partial`, so the
bucket is never further behind than the interval, and no segment switch is forced on the database.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core import wal as log_positions
from lifeboat.core.errors import PermanentError, RecoveryError
from lifeboat.core.points import Facts, Tier
from lifeboat.settings import Settings
from lifeboat.tools import postgres, s3, seal
from tasks import vault
from tasks.orchestration import step

log = logging.getLogger("lifeboat")

SEALED = ".zst.age"
_PARALLEL = 8


class Shipment(BaseModel):
    """What one round of shipping put into the bucket."""

    model_config = ConfigDict(frozen=True)

    segments: tuple[str, ...]
    partial: str | None


class CollectedWal(BaseModel):
    """The WAL that a recovery will replay, as plain files on this host."""

    model_config = ConfigDict(frozen=True)

    segments: Mapping[str, Path]  # by segment name, `.partial` taken off
    histories: Mapping[str, Path]  # every history file known, so that the new timeline is new
    timeline: int
    must_reach_lsn: int | None  # replay that ends before this stopped short
    scratch: Path | None = None  # where downloaded segments lie


# --- shipping -------------------------------------------------------------------------------


class Shipper:
    """Ships what the receiver has written and the bucket lacks. Remembers what it has shipped."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = vault.bucket(settings)
        self.recipient = vault.wal_recipient(settings)
        self._shipped: set[str] | None = None
        self._partial_lengths: dict[str, int] = {}

    def ship(self) -> Shipment:
        """Ship all closed segments, histories, and the newest bytes of the open segment.

        Idempotent. Raises TransientError if the bucket can't be reached.
        """
        root = vault.wal_directory(self.settings)
        if self._shipped is None:
            self._shipped = {item.key for item in self.bucket.list("database/wal/")}
        closed, partials = [], []
        for path in sorted(root.glob("*/*/*")):
            if path.name.endswith(log_positions.PARTIAL):
                partials.append(path)
            elif object_key(path) not in self._shipped and _is_wal(path.name):
                closed.append(path)
        with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
            list(pool.map(self._ship_closed, closed))
        newest = max(partials, key=lambda path: path.stat().st_mtime, default=None)
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


def object_key(path: Path) -> str:
    """The key under which a file of the local WAL directory lies in the bucket."""
    system_identifier = path.parent.parent.name
    timeline = path.name[:8]
    return f"database/wal/{system_identifier}/{timeline}/{path.name}{SEALED}"


def _is_wal(name: str) -> bool:
    return log_positions.history_timeline(name) is not None or log_positions.is_segment_name(name)


@step(retries=3)
def ship(settings: Settings) -> Shipment:
    """One round of shipping."""
    return Shipper(settings).ship()


# --- collecting -----------------------------------------------------------------------------


def collect(
    settings: Settings, facts: Facts, *, to_time: datetime | None, prefer: Tier, beside: Path
) -> CollectedWal:
    """Plan the replay from everything that is known and bring the segments to this host.

    `prefer` says whose copy wins where both tiers have a segment. The other fills the holes.
    Raises PreconditionError if the log has a hole.
    """
    base = facts.database
    if base is None:
        raise PermanentError(f"Reading {facts.point}: it holds no database.", hint="")
    local = postgres.collect_segments(vault.wal_directory(settings), base.system_identifier)
    salvaged = postgres.salvage_segments(
        settings.database.data_directory, base.system_identifier, base.wal_segment_bytes
    )
    remote = _remote_objects(settings, base.system_identifier, needed=not local)
    scratch = beside.with_name(f"{beside.name}.wal")
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        return _collect(settings, facts, to_time, prefer, local, salvaged, remote, scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _collect(
    settings: Settings,
    facts: Facts,
    to_time: datetime | None,
    prefer: Tier,
    local: Mapping[str, Path],
    salvaged: Mapping[str, Path],
    remote: Mapping[str, s3.Object],
    scratch: Path,
) -> CollectedWal:
    base = facts.database
    assert base is not None
    size = base.wal_segment_bytes
    fetch = functools.partial(_fetch, settings, remote, scratch)
    histories = dict(_histories(local))
    histories |= fetch([name for name in remote if _is_history(name) and name not in histories])
    target, ancestors = _choose_timeline(histories, base.timeline, to_time, local, remote)
    usable = log_positions.usable_segments({*local, *salvaged, *remote}, size)
    replay = log_positions.plan_replay(
        base_timeline=base.timeline,
        start_lsn=log_positions.parse_lsn(base.start_lsn),
        stop_lsn=log_positions.parse_lsn(base.stop_lsn),
        target_timeline=target,
        ancestors=ancestors,
        available=usable,
        segment_bytes=size,
    )
    segments: dict[str, Path] = {}
    to_fetch: dict[str, str] = {}
    for segment in replay.segments:
        name = segment.name(size)
        found = _best_copy(name, prefer, local, salvaged, remote)
        if isinstance(found, Path):
            segments[name] = found
        else:
            to_fetch[name] = found
    fetched = fetch(list(to_fetch.values()))
    segments |= {name: fetched[object_name] for name, object_name in to_fetch.items()}
    newest = max(segments, key=lambda name: name[8:])
    return CollectedWal(
        segments=segments,
        histories=histories,
        timeline=replay.timeline,
        must_reach_lsn=None
        if to_time
        else postgres.end_of_wal(
            segments[newest], settings.database.bin_directory, segment_bytes=size
        ),
        scratch=scratch,
    )


def _best_copy(
    name: str,
    prefer: Tier,
    local: Mapping[str, Path],
    salvaged: Mapping[str, Path],
    remote: Mapping[str, s3.Object],
) -> Path | str:
    """A complete copy before a partial one; the server's own pg_wal before a partial one."""
    partial = name + log_positions.PARTIAL
    if prefer is Tier.S3 and name in remote:
        return name
    if name in local:
        return local[name]
    if name in remote:
        return name
    if name in salvaged:
        return salvaged[name]
    if partial in local:
        return local[partial]
    return partial


def _choose_timeline(
    histories: Mapping[str, Path],
    base_timeline: int,
    to_time: datetime | None,
    local: Mapping[str, Path],
    remote: Mapping[str, s3.Object],
) -> tuple[int, tuple[log_positions.Switch, ...]]:
    """The newest timeline, or for a point in time the one that was being written then."""
    began: list[tuple[int, datetime]] = []
    for name, path in histories.items():
        timeline = log_positions.history_timeline(name)
        if timeline is None:
            continue
        when = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
        if name in remote and name not in local:
            when = remote[name].modified_at
        began.append((timeline, when))
    if to_time is not None:
        target = log_positions.timeline_current_at(
            to_time, first_timeline=base_timeline, began_at=began
        )
        target = max(target, base_timeline)
    else:
        target = max([base_timeline, *(timeline for timeline, _ in began)])
    path = histories.get(f"{target:08X}.history")
    return target, log_positions.parse_history(path.read_text()) if path else ()


def _is_history(name: str) -> bool:
    return log_positions.history_timeline(name) is not None


def _histories(local: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in local.items() if _is_history(name)}


def _remote_objects(
    settings: Settings, system_identifier: str, *, needed: bool
) -> dict[str, s3.Object]:
    """What the bucket has of this database's WAL, by plain name. An unreachable bucket has none,
    unless it is all there is.
    """
    try:
        objects = vault.bucket(settings).list(f"database/wal/{system_identifier}/")
    except RecoveryError as error:
        if needed:
            raise
        log.warning("WAL in S3 is left out: %s", error)
        return {}
    return {item.key.rpartition("/")[2].removesuffix(SEALED): item for item in objects}


def _fetch(
    settings: Settings, remote: Mapping[str, s3.Object], scratch: Path, names: list[str]
) -> dict[str, Path]:
    """Download and unseal objects side by side."""
    if not names:
        return {}
    identity = vault.wal_identity(settings)
    store = vault.bucket(settings)

    def fetch(name: str) -> tuple[str, Path]:
        path = scratch / name
        path.write_bytes(seal.unseal(store.get(remote[name].key), identity))
        return name, path

    with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
        return dict(pool.map(fetch, names))


def discard(collected: CollectedWal) -> None:
    """Remove what was downloaded, once it has been replayed."""
    if collected.scratch:
        shutil.rmtree(collected.scratch, ignore_errors=True)


# --- the receiver ---------------------------------------------------------------------------


def receiver_directory(settings: Settings, identity: postgres.Identity) -> Path:
    """Where the receiver writes: a directory of its own for each timeline at which it begins.

    After a recovery to an earlier point a receiver on the old directory would go on at a position
    that no longer exists.
    """
    root = vault.wal_directory(settings) / identity.system_identifier
    return root / f"{identity.timeline:08X}"


def rearm(settings: Settings, server: postgres.Connection, slot: str) -> None:
    """Make the slot, start the receiver, and with synchronous WAL wait for it with each commit."""
    from tasks.services import stack_of

    postgres.ensure_slot(server, slot)
    receivers = [name for name in settings.stack.backup_services if "receiver" in name]
    if receivers:
        stack_of(settings).start(receivers)
    if settings.database.wal == "synchronous":
        postgres.wait_for_receiver(server, slot, timeout_seconds=30)
        postgres.set_synchronous(server, slot)
