"""A restore test: recovery points out of S3 into a scratch place, started and questioned.

A backup counts once this, or a real recovery, has passed; only then is the point verified.
Everything comes from S3 and nothing from this host, as it will when this host is lost: no cache of
restic's, no WAL of the local vault.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lifeboat.core import sets
from lifeboat.core import wal as log_positions
from lifeboat.core.errors import LockBusy, PreconditionError, VerificationFailed
from lifeboat.core.marks import Kind, TestResult
from lifeboat.core.points import Asset, Facts, RecoveryPoint, Tier, choose_point
from lifeboat.core.proof import Measured, forecast_bytes, replaces
from lifeboat.core.requests import RestoreTest
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, postgres, restic
from tasks import catalogue, clock, locks, marks, places, progress, repository_health
from tasks.orchestration import step
from tasks.questions import database, directories
from tasks.record import current_run
from tasks.wal import wal_shipping

log = logging.getLogger("lifeboat")

_CACHE = "cache"


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
    postgres.end_orphan(_restored(place, Asset.DATABASE) / "base")
    shutil.rmtree(place)


def _restored(place: Path, asset: Asset) -> Path:
    return place / str(asset)


def cache_directory(place: Path) -> Path:
    """A cache for restic that begins empty: with the host's own, damage in S3 stays unseen."""
    return place / _CACHE


def assets_of(request: RestoreTest) -> tuple[Asset, ...]:
    """What is asked for, without repetition. Raises PreconditionError if the point has no asset."""
    if sets.is_set_id(request.point):
        return tuple(Asset)
    if not request.point:
        return tuple(dict.fromkeys(request.assets))
    try:
        return (Asset(request.point.rpartition("-")[0]),)
    except ValueError:
        raise _no_such(request.point) from None


def _no_such(point: str) -> PreconditionError:
    return PreconditionError(
        f"Testing {point}: there is no such recovery point in S3.",
        hint="`lifeboat points` lists them.",
    )


@contextmanager
def result_remembered(
    settings: Settings, asset: Asset, *, sampled: bool
) -> Iterator[list[RecoveryPoint]]:
    """Write down in both tiers how the test of an asset ended, whatever it was that ended it.

    What watches the vault sees there that it failed. The block puts the point that it tests into
    the list. A test that did not take place, because a recovery runs, leaves no result; nor does a
    sample in which nothing was wrong, for it proves no point.
    """
    tested: list[RecoveryPoint] = []
    try:
        yield tested
    except LockBusy:
        raise
    except Exception as error:
        _remember(settings, asset, tested, str(error) or type(error).__name__)
        raise
    if not sampled:
        _remember(settings, asset, tested, "")


def _remember(settings: Settings, asset: Asset, tested: list[RecoveryPoint], error: str) -> None:
    result = TestResult(
        asset=asset,
        point=tested[0].id if tested else "",
        ended_at=clock.now(),
        passed=not error,
        error=error,
        by=current_run().id,
    )
    known = marks.read_all(settings, Kind.TESTS, tolerate_failures=True).get(asset)
    if replaces(result, known if isinstance(known, TestResult) else None):
        marks.put(settings, Kind.TESTS, asset, result)
    else:
        log.warning("The newest result stays: %s of %s failed.", known.point, asset)


@step(retries=1)
def find_set_to_prove(settings: Settings) -> sets.BackupSet | None:
    """The newest complete set in S3, if not all of it is verified.

    What can't be read now is told when its asset is tested.
    """
    points = catalogue.list_points(settings, tiers=(Tier.S3,), tolerate_failures=True)
    newest = sets.newest_complete(points, Tier.S3)
    return newest if newest and not newest.verified_in(Tier.S3) else None


@step(retries=1)
def choose(
    settings: Settings, request: RestoreTest, asset: Asset, to_prove: sets.BackupSet | None
) -> RecoveryPoint:
    """The newest trusted point of an asset in S3, or what is named: a point, or a set's member.

    The member of a set that is to be proven goes before a newer point until it is verified, for
    only a set of which all was tested is preferred when a server is lost.
    """
    locks.stand_aside(settings, doing=f"Testing {asset}")
    points = catalogue.list_points(settings, assets=(asset,), tiers=(Tier.S3,))
    if not request.point:
        if to_prove and not to_prove.members[asset].verified_in(Tier.S3):
            return to_prove.members[asset]
        return choose_point(points, asset=asset, tiers=(Tier.S3,))
    wanted = request.point
    named = next((point for point in points if wanted in (point.id, point.set_id)), None)
    if named is None:
        raise _no_such(request.point)
    return named


def prove(settings: Settings, point: RecoveryPoint, place: Path) -> None:
    """Restore one point, question it, and mark it verified; what was restored goes again.

    A point that is not good does not count as verified any longer, if it ever did.
    """
    try:
        facts, seconds = restore(settings, point, place)
        measured = question(settings, point, facts, place, seconds)
    except VerificationFailed:
        if point.verified_at:
            log.warning("%s was verified before and is not any longer.", point.id)
        repository_health.forget_verified(settings, point.id)
        raise
    finally:
        _remove_restored(place, point.asset)
    mark_verified(settings, point, measured)


def _remove_restored(place: Path, asset: Asset) -> None:
    if _restored(place, asset).exists():
        shutil.rmtree(_restored(place, asset))


@step(retries=2)
def restore(settings: Settings, point: RecoveryPoint, place: Path) -> tuple[Facts, float]:
    """Restore a whole point from S3, every byte compared with its digest on the way.

    Give its facts, and the seconds that it took. Raises PreconditionError, before anything is
    fetched, if there is not enough space; VerificationFailed for damage.
    """
    locks.stand_aside(settings, doing=f"Testing {point.id}")
    store = _store(settings, point.asset, place)
    copy = point.copies[Tier.S3]
    facts = catalogue.parse_facts(
        store.dump(copy, catalogue.facts_path(store, copy)), where=f"{point.id} in S3"
    )
    filesystem.require_free(
        place,
        forecast_bytes(_size(facts), _wal_bytes(settings, facts)),
        doing=f"Testing {point.id}",
    )
    began = time.monotonic()
    _bring(store, point, facts, place)
    seconds = time.monotonic() - began
    current_run().fact(
        **{
            f"{point.asset}_restore_seconds": round(seconds, 3),
            f"{point.asset}_bytes": _size(facts),
        }
    )
    return facts, seconds


def _bring(store: restic.Repository, point: RecoveryPoint, facts: Facts, place: Path) -> None:
    for name, directory in facts.directories.items():
        store.restore(
            point.copies[Tier.S3],
            subfolder=directory.path,
            target=_restored(place, point.asset) / name,
            overwrite="always",
            on_progress=progress.of_restic(f"{point.asset} from s3"),
        )


def _store(settings: Settings, asset: Asset, place: Path) -> restic.Repository:
    store = places.repository(settings, asset, Tier.S3)
    return dataclasses.replace(store, cache_directory=cache_directory(place))


def _size(facts: Facts) -> int:
    return sum(directory.bytes for directory in facts.directories.values())


def _wal_bytes(settings: Settings, facts: Facts) -> int:
    """How much WAL the bucket has from the beginning of a base copy on."""
    if facts.database is None:
        return 0
    size = facts.database.wal_segment_bytes
    first = log_positions.parse_lsn(facts.database.start_lsn) // size
    prefix = f"database/wal/{facts.database.system_identifier}/"
    names = [
        item.key.rpartition("/")[2].removesuffix(wal_shipping.SEALED)
        for item in places.bucket(settings).list(prefix)
    ]
    segments = {
        *log_positions.whole_segments(names, size),
        *log_positions.partial_segments(names, size),
    }
    return size * sum(segment.number >= first for segment in segments)


@step()
def question(
    settings: Settings, point: RecoveryPoint, facts: Facts, place: Path, restore_seconds: float
) -> Measured:
    """Ask what was restored whether it is what it should be. Raises VerificationFailed."""
    measured = Measured(restored_bytes=_size(facts), restore_seconds=restore_seconds)
    if point.asset is not Asset.DATABASE:
        directories.question(settings, facts, _restored(place, point.asset))
        return measured
    replayed = database.question(
        settings,
        facts,
        _restored(place, Asset.DATABASE) / "base",
        restore_again=lambda: _bring(_store(settings, point.asset, place), point, facts, place),
    )
    return measured.model_copy(
        update={
            "wal_replayed_bytes": replayed.bytes,
            "wal_replay_seconds": replayed.seconds,
        }
    )


@step()
def mark_verified(settings: Settings, point: RecoveryPoint, measured: Measured) -> None:
    """Remember that this point was restored and questioned, and how long that took."""
    run = current_run()
    run.uses_points(point.id)
    told = measured.model_dump(exclude_none=True)
    marks.mark_verified(settings, [point.id], by=run.id, tier=Tier.S3, **told)
