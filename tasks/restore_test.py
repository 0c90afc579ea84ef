"""A restore test: recovery points out of S3 into a scratch place, started and questioned.

A backup counts once this, or a real recovery, has passed; only then is the point verified.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from lifeboat.core import sets
from lifeboat.core.errors import PermanentError, PreconditionError, VerificationFailed
from lifeboat.core.points import Asset, DatabaseFacts, Facts, RecoveryPoint, Tier, choose_point
from lifeboat.core.requests import RestoreTest
from lifeboat.core.wal import format_lsn
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import filesystem, postgres
from tasks import catalogue, marks, places, progress, wal_replay
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_START_SECONDS = 7200.0
_SCALE = 100  # percent


@contextmanager
def scratch_place(settings: Settings) -> Iterator[Path]:
    """A directory of this run alone, removed however it ends; what dead runs left goes first."""
    root = settings.vault.local / "restore-tests"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for leftover in root.iterdir():
        log.warning("Removing %s, left by a restore test that was interrupted.", leftover)
        _remove(leftover)
    place = root / current_run().id
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        _remove(place)


def _remove(place: Path) -> None:
    # Its server outlives a starter that was killed, and would go on writing.
    postgres.end_orphan(_restored(place, Asset.DATABASE, "base"))
    shutil.rmtree(place)


@step(retries=1)
def choose_points(settings: Settings, request: RestoreTest) -> tuple[RecoveryPoint, ...]:
    """The newest trusted point in S3 of each asset that is asked for, or what is named.

    A member of the newest complete set goes before a newer point until it is verified, for only a
    set of which all was tested is preferred when a server is lost.
    """
    points = catalogue.list_points(settings, tiers=(Tier.S3,))
    if request.point:
        wanted = request.point
        named = tuple(point for point in points if wanted in (point.id, point.set_id))
        if not named:
            raise PreconditionError(
                f"Testing {request.point}: there is no such recovery point in S3.",
                hint="`lifeboat points` lists them.",
            )
        return named
    newest_set = sets.newest_complete(points, Tier.S3)
    members = newest_set.members if newest_set else {}
    return tuple(
        members[asset]
        if asset in members and not members[asset].verified_at
        else choose_point(points, asset=asset, tiers=(Tier.S3,))
        for asset in request.assets
    )


@step(retries=2)
def restore(settings: Settings, point: RecoveryPoint, place: Path) -> Facts:
    """Restore a whole point from S3; every byte is compared with its digest on the way."""
    facts = catalogue.read_facts(settings, point, Tier.S3)
    size = sum(directory.bytes for directory in facts.directories.values())
    filesystem.require_free(place, size, doing=f"Testing {point.id}")
    store = places.repository(settings, point.asset, Tier.S3)
    began = time.monotonic()
    for name, directory in facts.directories.items():
        store.restore(
            point.copies[Tier.S3],
            subfolder=directory.path,
            target=_restored(place, point.asset, name),
            overwrite="always",
            on_progress=progress.of_restic(f"{point.asset} from s3"),
        )
    current_run().fact(
        **{
            f"{point.asset}_restore_seconds": round(time.monotonic() - began, 3),
            f"{point.asset}_bytes": size,
        }
    )
    return facts


def _restored(place: Path, asset: Asset, name: str) -> Path:
    return place / str(asset) / name


@step()
def read_sample(settings: Settings, point: RecoveryPoint, percent: float) -> None:
    """For a store too large to restore each day: check its structure and read a share of it.

    Raises VerificationFailed if anything is wrong. The point does not become verified by it.
    """
    places.repository(settings, point.asset, Tier.S3).check(read_data_percent=percent)
    current_run().fact(**{f"{point.asset}_sampled_percent": percent})


@step()
def question(settings: Settings, point: RecoveryPoint, facts: Facts, place: Path) -> None:
    """Compare what was restored with what it should be. Raises VerificationFailed."""
    if point.asset is Asset.DATABASE:
        _question_database(settings, facts, _restored(place, Asset.DATABASE, "base"))
        return
    _compare_with_facts(facts, place)
    if point.asset is Asset.CONFIG:
        _parse_configuration(facts, place)


# --- the database ---------------------------------------------------------------------------


def _question_database(settings: Settings, facts: Facts, data: Path) -> None:
    """Start it as it was when it was backed up, then with all of the WAL that S3 has."""
    told, expected = settings.database, facts.database
    if expected is None:
        raise PermanentError(f"Testing {facts.point}: it holds no database.")
    _require_same_major(settings, facts.point, expected)
    postgres.verify_backup(data, told.bin_directory)
    filesystem.take_ownership_of(data, like=data.parent)
    collected = wal_replay.collect(
        settings, facts, base=data, to_time=None, prefer=Tier.S3, bucket_alone=True
    )

    def start(*, at_backup: bool):
        return postgres.scratch_server(
            data,
            database=told.name,
            user=told.user,
            bin_directory=told.bin_directory,
            log_path=data.parent / "postgres.log",
            timeout_seconds=_START_SECONDS,
            at_backup=at_backup,
        )

    with start(at_backup=True) as server:
        tolerance = settings.checks.tables_complete.tolerance_percent
        _compare_rows(server, facts.point, expected, tolerance)
    _replay(collected, data, start)
    wal_replay.discard(collected)


def _require_same_major(settings: Settings, point: str, expected: DatabaseFacts) -> None:
    ours = postgres.tools_version(settings.database.bin_directory)
    if int(expected.server_version.split(".")[0]) != ours:
        raise PreconditionError(
            f"Testing {point}: it is of PostgreSQL {expected.server_version}, the programs here "
            f"are of PostgreSQL {ours}.",
            hint="Set database.bin_directory to programs of that version.",
        )


def _compare_rows(
    server: postgres.Connection, point: str, expected: DatabaseFacts, tolerance_percent: float
) -> None:
    identity = postgres.identify(server)
    if identity.system_identifier != expected.system_identifier:
        raise VerificationFailed(
            f"Testing {point}: it is another database ({identity.system_identifier}, not "
            f"{expected.system_identifier})."
        )
    have = postgres.row_counts(server)
    wrong = [
        f"{name} has {have.get(name, 'no')} rows, not {rows}"
        for name, rows in expected.tables.items()
        # Rows may be deleted between the count and the end of the backup.
        if have.get(name, -1) < int(rows * (1 - tolerance_percent / _SCALE))
    ]
    newest = postgres.sequences(server)
    wrong += [
        f"sequence {name} is at {newest.get(name, 'nothing')}, not at {value}"
        for name, value in expected.sequences.items()
        if newest.get(name, value - 1) < value
    ]
    if wrong:
        raise VerificationFailed(f"Testing {point}: {'; '.join(wrong)}.")
    current_run().fact(database_rows=sum(have.values()), database_tables=len(have))


def _replay(collected: wal_replay.CollectedWal, data: Path, start: Callable) -> None:
    postgres.stage_recovery(
        data,
        segments=collected.segments,
        histories=collected.histories,
        target_time=None,
        target_timeline=collected.timeline,
    )
    began = time.monotonic()
    with start(at_backup=False) as server:
        seconds = time.monotonic() - began
        reached = postgres.recovered_to(data)
        if collected.must_reach_lsn and reached.lsn < collected.must_reach_lsn:
            raise VerificationFailed(
                f"Replaying the WAL of S3: it ended at {format_lsn(reached.lsn)}, but the segments "
                f"go to {format_lsn(collected.must_reach_lsn)}.",
                hint="A segment is damaged. Make a new base backup: `lifeboat backup database`.",
            )
        current_run().fact(
            wal_replayed_segments=len(collected.segments),
            wal_replay_seconds=round(seconds, 3),
            wal_replayed_to=format_lsn(reached.lsn),
        )
        postgres.read_every_row(server)
        postgres.check_everything(server)
        references = postgres.check_references(server, timeout_seconds=_START_SECONDS)
        if references.dangling:
            raise VerificationFailed(f"Testing the database: {'; '.join(references.dangling)}.")


# --- files, models, configuration -----------------------------------------------------------


def _compare_with_facts(facts: Facts, place: Path) -> None:
    wrong = []
    for name, expected in facts.directories.items():
        path = _restored(place, facts.asset, name)
        files, size = (
            filesystem.tree_size(path)
            if path.is_dir()
            else (int(path.is_file()), path.stat().st_size if path.is_file() else 0)
        )
        if files < expected.files:
            wrong.append(f"{name}: {files} files, not {expected.files}")
        if size < expected.bytes:
            wrong.append(f"{name}: {size} bytes, not {expected.bytes}")
        there = filesystem.digests(path) if expected.digests else {}
        wrong += [
            f"{name}/{file} is {'altered' if file in there else 'missing'}"
            for file, digest in expected.digests.items()
            if there.get(file) != digest
        ]
    if wrong:
        raise VerificationFailed(f"Testing {facts.point}: {'; '.join(wrong[:5])}.")


def _parse_yaml(text: str) -> object:
    return list(YAML(typ="safe").load_all(text))


_PARSERS: Mapping[str, Callable[[str], object]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": json.loads,
}
_NEVER_EMPTY = {*_PARSERS, ".conf", ".crt", ".env", ".ini", ".key", ".pem", ".toml"}


def _parse_configuration(facts: Facts, place: Path) -> None:
    """Every file whose form is known must have it, and `lifeboat.yaml` must be settings."""
    root = place / str(Asset.CONFIG)
    wrong = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        # `.env` and `.env.production` have no suffix, or another one.
        kind = ".env" if path.name.startswith(".env") else path.suffix
        if kind in _NEVER_EMPTY and not path.read_bytes().strip():
            wrong.append(f"{path.relative_to(root)} is empty")
            continue
        try:
            _PARSERS.get(kind, str)(path.read_text(errors="replace"))
        except (ValueError, YAMLError) as error:
            wrong.append(f"{path.relative_to(root)} can't be parsed ({error})")
    settings_file = root / "lifeboat.yaml"
    if settings_file.is_file():
        load_settings(settings_file)
    else:
        wrong.append("lifeboat.yaml is not in it, so that a lost server can't be rebuilt")
    if wrong:
        raise VerificationFailed(f"Testing {facts.point}: {'; '.join(wrong[:5])}.")


@step()
def mark_verified(settings: Settings, point: RecoveryPoint) -> None:
    """Remember that this point was restored and questioned, and how long restoring takes."""
    run = current_run()
    run.uses_points(point.id)
    told = run.record.facts
    marks.mark_verified(
        settings,
        [point.id],
        by=run.id,
        restored_bytes=int(told[f"{point.asset}_bytes"]),
        restore_seconds=float(told[f"{point.asset}_restore_seconds"]),
    )
