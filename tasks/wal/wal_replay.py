"""The write-ahead log on its way back: every segment from a base copy to the target, or a refusal.

It is brought together from everywhere: the local vault, S3, the damaged server's own pg_wal, and
what the base copy carries with it.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core import wal as log_positions
from lifeboat.core.errors import (
    PermanentError,
    PreconditionError,
    RecoveryError,
    VerificationFailed,
)
from lifeboat.core.points import DatabaseFacts, Facts, Tier
from lifeboat.core.wal import (
    PARTIAL,
    Segment,
    history_timeline,
    partial_segments,
    whole_segments,
)
from lifeboat.settings import Settings
from lifeboat.tools import postgres, s3, seal
from tasks import places, vault
from tasks.wal.wal_shipping import SEALED

log = logging.getLogger("lifeboat")

_PARALLEL = 8

# What a recovery wants of a base copy, kept in it until the replay has proven it. In pg_wal, whose
# strange names neither the server nor a base backup nor its proof looks at.
STAGED = "pg_wal/lifeboat-recovery.json"


class CollectedWal(BaseModel):
    """The WAL that a recovery will replay, as plain files on this host."""

    model_config = ConfigDict(frozen=True)

    segments: Mapping[str, Path]  # by segment name, `.partial` taken off
    histories: Mapping[str, Path]  # every history file known, so that the new timeline is new
    timeline: int
    must_reach_lsn: int | None  # replay that ends before this stopped short
    scratch: Path  # where downloaded segments lie
    own_log: bool = False  # what the recovered server itself had written goes to the same end
    until: datetime | None = None  # where replay stops; None: at the end of all that there is


@dataclass(frozen=True)
class _Sources:
    """What each place has, by file name."""

    local: Mapping[str, Path]  # the local vault
    remote: Mapping[str, s3.Object]  # the bucket
    salvaged: Mapping[str, Path]  # pg_wal of the server that is being recovered
    carried: Mapping[str, Path]  # pg_wal of the base copy; its last segment is not complete
    prefer: Tier

    def whole(self, segment_bytes: int) -> set[Segment]:
        """Segments of which some place has all."""
        found = whole_segments({*self.local, *self.remote}, segment_bytes)
        for place in (self.salvaged, self.carried):
            there = whole_segments(place, segment_bytes)
            found |= there - {max(there, key=lambda s: s.number, default=None)}
        return found

    def ends(self, segment_bytes: int) -> set[Segment]:
        """Segments whose copies may end within: partial ones, and the last of a data directory."""
        found = partial_segments({*self.local, *self.remote}, segment_bytes)
        return found | whole_segments({*self.salvaged, *self.carried}, segment_bytes)

    def all_of(self, name: str) -> Iterator[Path | str]:
        yield from self.complete(name)
        yield from self.growing(name)

    def complete(self, name: str) -> Iterator[Path | str]:
        """Whole copies of a segment, the best first. A text is a name in the bucket."""
        in_vault: list[Path | str] = [self.local[name]] if name in self.local else []
        if name in self.remote:
            in_vault.append(name)
        yield from reversed(in_vault) if self.prefer is Tier.S3 else in_vault

    def growing(self, name: str) -> Iterator[Path | str]:
        """Copies that may end within the segment."""
        if name in self.salvaged:
            yield self.salvaged[name]
        if name in self.carried:
            yield self.carried[name]
        if name + PARTIAL in self.local:
            yield self.local[name + PARTIAL]
        if name + PARTIAL in self.remote:
            yield name + PARTIAL


class Key:
    """The key that opens the bucket's WAL, which the vault is asked for once.

    That takes restic two runs, half a second of a recovery in which nothing waits for anything
    else: `ask_ahead` is for the time in which something does.
    """

    def __init__(
        self, settings: Settings, *, tiers: tuple[Tier, ...] = (Tier.S3, Tier.LOCAL)
    ) -> None:
        self._settings, self._tiers = settings, tiers
        self._identity = ""
        self._asking = threading.Lock()

    def read(self) -> str:
        """From the first tier that has it. Raises what `vault.wal_identity` raises."""
        return self._read(self._tiers)

    def ask_ahead(self) -> None:
        """Ask the first tier alone: whether it is needed is not known yet. Never raises."""
        try:
            self._read(self._tiers[:1])
        except RecoveryError as error:
            log.warning("The key of the WAL can't be read yet: %s", error)

    def _read(self, tiers: tuple[Tier, ...]) -> str:
        with self._asking:
            if not self._identity:
                self._identity = vault.wal_identity(self._settings, tiers=tiers)
            return self._identity


class _Download:
    """Fetches and unseals objects of the bucket into a scratch directory, once each."""

    def __init__(
        self, settings: Settings, remote: Mapping[str, s3.Object], scratch: Path, key: Key
    ) -> None:
        self._settings, self._remote, self._scratch = settings, remote, scratch
        self._key = key

    def fetch(self, names: list[str]) -> dict[str, Path]:
        paths = {name: self._scratch / name for name in names}
        missing = [name for name, path in paths.items() if not path.exists()]
        if not missing:
            return paths
        identity = self._key.read()
        store = places.bucket(self._settings)

        def one(name: str) -> None:
            key = self._remote[name].key
            # Whole or not at all: what was fetched ahead is taken for whole. And not `.partial`, as
            # a segment is called that grows.
            unfinished = self._scratch / f".{name}.part"
            opened = seal.unseal(store.get(key), identity, doing=f"Opening {key}")
            unfinished.write_bytes(opened)
            unfinished.rename(paths[name])

        with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
            list(pool.map(one, missing))
        return paths

    def nothing(self, name: str) -> Path:
        """An empty file in the place of an object that can't be opened."""
        path = self._scratch / name
        path.write_bytes(b"")
        return path

    def local(self, found: Path | str) -> Path:
        return found if isinstance(found, Path) else self.fetch([found])[found]


def collect(
    settings: Settings,
    facts: Facts,
    *,
    base: Path,
    to_time: datetime | None,
    prefer: Tier,
    key: Key,
    bucket_alone: bool = False,
) -> CollectedWal:
    """Plan the replay from everything that is known and bring the segments to this host.

    `base` is the base copy, beside which downloads go. `prefer` says whose copy wins where both
    tiers have a segment; the other one fills the holes, unless the bucket has to do alone, as it
    will when this host is lost. Raises PreconditionError, naming the first missing segment, if the
    log has a hole.
    """
    told = facts.database
    if told is None:
        raise PermanentError(f"Reading {facts.point}: it holds no database.")
    sources = _look(settings, told, base, prefer, bucket_alone)
    scratch = _scratch_of(base)
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        download = _Download(settings, sources.remote, scratch, key)
        return _collect(settings, told, to_time, sources, download, scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def fetch_ahead(settings: Settings, facts: Facts, *, base: Path, key: Key) -> None:
    """Fetch from the bucket what `collect` will ask for, while the base copy is on its way.

    From where the base begins, as after a base from the bucket its copy of a segment comes first.
    It decides nothing, and what it could not get is asked for again.
    """
    told = facts.database
    if told is None:
        return
    try:
        remote = _remote_objects(settings, told.system_identifier, needed=False)
        wanted = list(_needed_from(remote, told))
        scratch = _scratch_of(base)
        scratch.mkdir(parents=True, exist_ok=True)
        _Download(settings, remote, scratch, key).fetch(wanted)
    except (RecoveryError, OSError) as error:
        log.warning("WAL could not be fetched beside the base copy: %s", error)


def _needed_from(remote: Mapping[str, s3.Object], told: DatabaseFacts) -> Iterator[str]:
    """What the bucket has from a base copy on and will never change: segments, and histories.

    One that grows is asked for last: meanwhile the bucket may have got more of it.
    """
    size = told.wal_segment_bytes
    first = log_positions.parse_lsn(told.start_lsn) // size
    yield from (s.name(size) for s in whole_segments(remote, size) if s.number >= first)
    yield from (name for name in remote if history_timeline(name) is not None)


def forget_ahead(base: Path) -> None:
    """Remove what was fetched for a base that did not come."""
    shutil.rmtree(_scratch_of(base), ignore_errors=True)


def _scratch_of(base: Path) -> Path:
    return base.with_name(f"{base.name}.wal")


def discard(collected: CollectedWal) -> None:
    """Remove what was downloaded."""
    shutil.rmtree(collected.scratch, ignore_errors=True)


def _look(
    settings: Settings, told: DatabaseFacts, base: Path, prefer: Tier, bucket_alone: bool
) -> _Sources:
    carried = postgres.salvage_segments(base, told.system_identifier, told.wal_segment_bytes)
    if bucket_alone:
        remote = _remote_objects(settings, told.system_identifier, needed=True)
        return _Sources(local={}, remote=remote, salvaged={}, carried=carried, prefer=Tier.S3)
    local = postgres.collect_segments(places.wal_directory(settings), told.system_identifier)
    salvaged: dict[str, Path] = {}
    data = settings.database.data_directory
    # A rung that failed before has moved the damaged directory aside already.
    for place in (*sorted(data.parent.glob(f"{data.name}.damaged-*")), data):
        if _stopped_short(place):
            continue
        salvaged |= postgres.salvage_segments(place, told.system_identifier, told.wal_segment_bytes)
    return _Sources(
        local=local,
        remote=_remote_objects(settings, told.system_identifier, needed=not local),
        salvaged=salvaged,
        carried=carried,
        prefer=prefer,
    )


def _stopped_short(place: Path) -> bool:
    """Whether a recovery that did not come to its end has ended the replay there before the log
    did, by damage or at a moment that was wanted. It has begun a timeline of its own, which is
    nobody's: to follow it would lose what comes after.
    """
    try:
        collected = json.loads((place / STAGED).read_bytes())["collected"]
        if collected["until"] is not None:
            return True
        wanted = collected["must_reach_lsn"]
        return wanted is not None and postgres.recovered_to(place).lsn < int(wanted)
    except (OSError, ValueError, LookupError, TypeError):
        return False
    except PermanentError:  # it has not come to an end yet
        return False


def _remote_objects(
    settings: Settings, system_identifier: str, *, needed: bool
) -> dict[str, s3.Object]:
    """What the bucket has of this database's WAL, by plain name.

    An unreachable bucket counts as empty, unless it is all there is.
    """
    try:
        objects = places.bucket(settings).list(f"database/wal/{system_identifier}/")
    except RecoveryError as error:
        if needed:
            raise
        log.warning("WAL in S3 is left out: %s", error)
        return {}
    return {item.key.rpartition("/")[2].removesuffix(SEALED): item for item in objects}


def _collect(
    settings: Settings,
    told: DatabaseFacts,
    to_time: datetime | None,
    sources: _Sources,
    download: _Download,
    scratch: Path,
) -> CollectedWal:
    size = told.wal_segment_bytes
    histories = _histories(sources, download)
    read = [_history(name, path, sources) for name, path in histories.items()]
    target = log_positions.choose_timeline(
        read,
        base_timeline=told.timeline,
        stop_lsn=log_positions.parse_lsn(told.stop_lsn),
        taken_at=told.stopped_at,
        moment=to_time,
    )
    replay = log_positions.plan_replay(
        base_timeline=told.timeline,
        start_lsn=log_positions.parse_lsn(told.start_lsn),
        stop_lsn=log_positions.parse_lsn(told.stop_lsn),
        target_timeline=target,
        ancestors=next((h.ancestors for h in read if h.timeline == target), ()),
        available=sources.whole(size),
        growing=sources.ends(size),
        segment_bytes=size,
        until_hole=to_time is not None,
    )
    segments: dict[str, Path] = {}
    to_fetch: list[str] = []
    *others, newest = (segment.name(size) for segment in replay.segments)
    for name in others:
        found = next(sources.all_of(name))
        if isinstance(found, Path):
            segments[name] = found
        else:
            to_fetch.append(found)
    fetched = download.fetch(to_fetch)
    segments |= {name.removesuffix(PARTIAL): path for name, path in fetched.items()}
    segments[newest], end, own_log = _furthest(settings, newest, sources, download, size)
    if end is None:  # as where one record goes through all of it: then to where the log surely goes
        end = _last_end(settings, replay, segments, size)
    until = _where_to_stop(settings, replay, segments, to_time, size) if to_time else None
    return CollectedWal(
        segments=segments,
        histories=histories,
        timeline=replay.timeline,
        must_reach_lsn=None if until else end,
        scratch=scratch,
        own_log=own_log,
        until=until,
    )


def _last_end(
    settings: Settings, replay: log_positions.Replay, segments: Mapping[str, Path], size: int
) -> int | None:
    """Where the last whole record of the log ends; None if there is none in any segment."""
    bin_directory = settings.database.bin_directory
    for segment in reversed(replay.segments):
        name = segment.name(size)
        end = postgres.end_of_wal(segments[name], name, bin_directory, segment_bytes=size)
        if end is not None:
            return end
    return None


def _where_to_stop(
    settings: Settings,
    replay: log_positions.Replay,
    segments: Mapping[str, Path],
    to_time: datetime,
    size: int,
) -> datetime | None:
    """The moment, if the log holds a commit from after it, by which a recovery knows that it is
    there; None if all of the log is from before it: to its end is to that moment then.

    Raises PreconditionError if the log goes on behind a hole: it would end only after it has
    replaced what is there now.
    """
    last: datetime | None = None
    for segment in reversed(replay.segments):
        name = segment.name(size)
        told = settings.database.bin_directory
        last = postgres.last_commit_at(segments[name], name, told, segment_bytes=size)
        if last is not None:
            break
    if last is not None and last > to_time:
        if replay.missing:
            log.warning("Segment %s is missing, but comes later.", replay.missing.name(size))
        return to_time
    if replay.missing:
        until = f"only moments before {last.isoformat()}" if last else "no moment"
        raise PreconditionError(
            f"Collecting the WAL: segment {replay.missing.name(size)} is missing; from this base "
            f"copy {until} can be reached.",
            hint="Nothing was touched. Recover to a time before the gap, or to one after the next "
            "base copy; `lifeboat points` shows the base copies.",
        )
    log.warning(
        "Nothing was committed after %s, as far as the log goes: all of it is replayed.",
        last.isoformat() if last else "the base copy was taken",
    )
    return None


def _furthest(
    settings: Settings, name: str, sources: _Sources, download: _Download, size: int
) -> tuple[Path, int | None, bool]:
    """Of all copies of the newest segment the one with the most in it, where it ends, and whether
    the copy of the server that is being recovered gets as far.

    The newest rows are in here, and each place may have got further than the others: the receiver's
    file may be ahead of the bucket, and the server's own behind damage in it.
    """
    candidates: list[Path] = []
    refused: list[RecoveryError] = []
    for found in sources.all_of(name):
        try:
            candidates.append(download.local(found))
        except RecoveryError as error:
            refused.append(error)
    if not candidates:
        raise refused[0]
    told = settings.database.bin_directory
    ends = [postgres.end_of_wal(path, name, told, segment_bytes=size) for path in candidates]
    best = max(range(len(candidates)), key=lambda index: ends[index] or 0)
    own = sources.salvaged.get(name)
    own_end = ends[candidates.index(own)] if own in candidates else None
    return candidates[best], ends[best], own_end is not None and own_end == ends[best]


def _histories(sources: _Sources, download: _Download) -> dict[str, Path]:
    found = {
        name: path
        for place in (sources.carried, sources.salvaged, sources.local)
        for name, path in place.items()
        if history_timeline(name) is not None
    }
    for name in sources.remote:
        if history_timeline(name) is None or name in found:
            continue
        try:
            found |= download.fetch([name])
        except VerificationFailed as error:
            # Empty it says nothing of its ancestors; its number is taken all the same.
            log.warning("The history of a timeline can't be read: %s", error)
            found[name] = download.nothing(name)
    return found


def _history(name: str, path: Path, sources: _Sources) -> log_positions.History:
    timeline = history_timeline(name)
    assert timeline is not None
    # The first who had it: a receiver may have come to that timeline long after it began.
    copies = (sources.carried, sources.salvaged, sources.local, {name: path})
    seen = min(place[name].stat().st_mtime for place in copies if name in place)
    began_at = datetime.fromtimestamp(seen).astimezone(timezone.utc)
    if name in sources.remote and name not in sources.local:
        began_at = sources.remote[name].modified_at
    try:
        ancestors = log_positions.parse_history(path.read_text(errors="replace"))
    except PreconditionError as error:
        log.warning("%s: %s", name, error)
        ancestors = ()
    return log_positions.History(timeline=timeline, began_at=began_at, ancestors=ancestors)
