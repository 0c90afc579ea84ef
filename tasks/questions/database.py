"""A restored database: started, compared with its facts, replayed to its end, read and checked."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import PermanentError, PreconditionError, VerificationFailed
from lifeboat.core.points import DatabaseFacts, Facts, Tier
from lifeboat.core.suspicion import Policy as Suspicion
from lifeboat.core.wal import Segment, format_lsn, parse_lsn
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, postgres
from tasks.record import current_run
from tasks.wal import wal_replay

log = logging.getLogger("lifeboat")

_START_SECONDS = 7200.0
_READ_SECONDS = 7200.0

_Start = Callable[..., AbstractContextManager[postgres.Connection]]


class Replayed(BaseModel):
    """How much WAL was replayed after the end of the backup, and how long it took."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    seconds: float


def question(
    settings: Settings, facts: Facts, data: Path, *, restore_again: Callable[[], None]
) -> Replayed:
    """Start a base copy as it was when it was backed up, then with all the WAL that S3 has.

    `data` is thrown away afterwards. Rarely the copy can't go on from where it was looked at first
    (see `postgres.scratch_server`), and is restored once more. Raises VerificationFailed, naming
    what is wrong; and PreconditionError if this host can't tell.
    """
    told, expected = settings.database, facts.database
    if expected is None:
        raise VerificationFailed(f"Testing {facts.point}: it holds no database.")
    _require_same_major(settings, facts.point, expected)
    _prepare(settings, data)
    collected = _collect(settings, facts, data)
    postgres.prepare_scratch(data, told.bin_directory)
    start = partial(
        postgres.scratch_server,
        data,
        database=told.name,
        user=told.user,
        bin_directory=told.bin_directory,
        log_path=data.parent / "postgres.log",
        timeout_seconds=_START_SECONDS,
    )
    with _started(facts.point, start, at_backup=True) as server:
        tolerance = settings.checks.tables_complete.tolerance_percent
        compare_rows(server, facts.point, expected, tolerance, settings.suspicion)
        stayed = postgres.stayed(server)
    if not stayed:
        log.info("%s can't go on from there: restoring it once more.", facts.point)
        shutil.rmtree(data)
        restore_again()
        _prepare(settings, data)
        postgres.prepare_scratch(data, told.bin_directory)
    postgres.stage_recovery(
        data,
        segments=collected.segments,
        histories=collected.histories,
        target_time=None,
        target_timeline=collected.timeline,
        scratch=collected.scratch,
    )
    began = time.monotonic()
    with _started(facts.point, start, at_backup=False) as server:
        seconds = time.monotonic() - began
        reached = _require_end(data, collected, expected)
        current_run().fact(
            wal_replayed_segments=len(collected.segments),
            wal_replay_seconds=round(seconds, 3),
            wal_replayed_to=format_lsn(reached),
        )
        _examine(server, facts.point)
    return Replayed(bytes=max(0, reached - parse_lsn(expected.stop_lsn)), seconds=seconds)


def _prepare(settings: Settings, data: Path) -> None:
    postgres.verify_backup(data, settings.database.bin_directory)
    filesystem.take_ownership_of(data, like=data.parent)


def _require_same_major(settings: Settings, point: str, expected: DatabaseFacts) -> None:
    ours = postgres.tools_version(settings.database.bin_directory)
    if int(expected.server_version.split(".")[0]) != ours:
        raise PreconditionError(
            f"Testing {point}: it is of PostgreSQL {expected.server_version}, the programs here "
            f"are of PostgreSQL {ours}.",
            hint="Set database.bin_directory to programs of that version.",
        )


def _collect(settings: Settings, facts: Facts, data: Path) -> wal_replay.CollectedWal:
    """All the WAL that the bucket has for it. What refuses a recovery fails this test."""
    try:
        # Even if there is nothing yet that it would open: WAL will come.
        key = wal_replay.Key(settings, tiers=(Tier.S3,))
        key.read()
        return wal_replay.collect(
            settings, facts, base=data, to_time=None, prefer=Tier.S3, key=key, bucket_alone=True
        )
    except VerificationFailed:
        raise
    except PermanentError as error:
        raise VerificationFailed(
            f"Testing {facts.point}: {error.message}",
            hint=f"{error.hint} `lifeboat backup database` makes a new base copy, which needs no "
            "older WAL.",
        ) from error


@contextmanager
def _started(point: str, start: _Start, *, at_backup: bool) -> Iterator[postgres.Connection]:
    """A server that must start: if it does not, the point is not good."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(start(at_backup=at_backup))
        except PreconditionError:
            raise
        except PermanentError as error:
            raise VerificationFailed(
                f"Testing {point}: {error.message}", hint=error.hint
            ) from error
        yield server


_IF_IT_IS_RIGHT = (
    "Tables that empty themselves, as queues and sessions do, are named in "
    "suspicion.except_tables; how many rows may be deleted while the database is copied, in "
    "checks.tables_complete.tolerance_percent."
)


def compare_rows(
    server: postgres.Connection,
    point: str,
    expected: DatabaseFacts,
    tolerance_percent: float,
    suspicion: Suspicion,
) -> None:
    """Raise VerificationFailed if rows or sequences fall short; not of tables that it excepts."""
    identity = postgres.identify(server)
    if identity.system_identifier != expected.system_identifier:
        raise VerificationFailed(
            f"Testing {point}: it is another database ({identity.system_identifier}, not "
            f"{expected.system_identifier})."
        )
    have = postgres.row_counts(server)
    fewer = _too_few_rows(have, suspicion.lasting(expected.tables), tolerance_percent)
    newest = postgres.sequences(server)
    wrong = fewer + [
        f"sequence {name} is at {newest.get(name, 'nothing')}, not at {value}"
        for name, value in expected.sequences.items()
        if newest.get(name, value - 1) < value
    ]
    if wrong:
        raise VerificationFailed(
            f"Testing {point}: {'; '.join(wrong[:5])}.", hint=_IF_IT_IS_RIGHT if fewer else ""
        )
    current_run().fact(database_rows=sum(have.values()), database_tables=len(have))


def _too_few_rows(
    have: Mapping[str, int], expected: Mapping[str, int], tolerance_percent: float
) -> list[str]:
    return [
        f"{name} has {have.get(name, 'no')} rows, not {rows}"
        for name, rows in expected.items()
        if have.get(name, -1) < int(rows * (1 - tolerance_percent / 100))
    ]


def _require_end(data: Path, collected: wal_replay.CollectedWal, expected: DatabaseFacts) -> int:
    """Where the replay ended. Raises VerificationFailed, naming the segment, if that was early."""
    reached = postgres.recovered_to(data)
    if collected.must_reach_lsn and reached.lsn < collected.must_reach_lsn:
        size = expected.wal_segment_bytes
        name = Segment(collected.timeline, reached.lsn // size).name(size)
        raise VerificationFailed(
            f"Replaying the WAL of S3: it ended at {format_lsn(reached.lsn)}, in segment {name}, "
            f"but the segments go to {format_lsn(collected.must_reach_lsn)}.",
            hint=f"Segment {name} in S3 is damaged, or another server's. `lifeboat backup "
            "database` makes a new base copy, which needs no older WAL.",
        )
    return reached.lsn


def _examine(server: postgres.Connection, point: str) -> None:
    """Every row read, every table and index checked, every foreign key kept."""
    postgres.read_every_row(server)
    postgres.check_everything(server, timeout_seconds=_READ_SECONDS)
    keys = 0
    dangling: list[str] = []
    for database in postgres.databases(server):
        found = postgres.check_references(database, timeout_seconds=_READ_SECONDS)
        keys += found.keys
        dangling += found.dangling
    if dangling:
        raise VerificationFailed(f"Testing {point}: {'; '.join(dangling[:5])}.")
    current_run().fact(database_foreign_keys=keys)
