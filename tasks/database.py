"""The database on its way into the vault: a base copy that can be renamed into place."""

from __future__ import annotations

import itertools
import logging
import shutil
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import RecoveryError
from lifeboat.core.points import (
    FACTS_NAME,
    Asset,
    DatabaseFacts,
    DirectoryFacts,
    Facts,
    Tier,
    point_id,
)
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, git, postgres
from tasks import catalogue, clock, locks, places, production, progress, suspicion, vault
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")

UNFINISHED = places.UNFINISHED
SLOT = "lifeboat"


def connection(settings: Settings) -> postgres.Connection:
    """How Lifeboat reaches the platform's database: a role with REPLICATION, over TCP."""
    told = settings.database
    return postgres.Connection(
        host=told.host,
        port=told.port,
        user=told.user,
        password=settings.secret("LIFEBOAT_DATABASE_PASSWORD"),
        database=told.name,
        bin_directory=told.bin_directory,
    )


class BaseCopy(BaseModel):
    """A plain copy of the database in `directory/base`, not yet verified or published."""

    model_config = ConfigDict(frozen=True)

    directory: Path
    identity: postgres.Identity
    tables: dict[str, int]
    sequences: dict[str, int]
    backup: postgres.BaseBackup


@step(retries=2)
def copy_base(settings: Settings) -> BaseCopy:
    """Copy the running database. Raises PreconditionError if versions differ or space is short."""
    server = connection(settings)
    postgres.require_same_major(server)
    identity = postgres.identify(server)
    hot = places.hot_directory(settings)
    _remove_unfinished(hot)
    # The repository in the local vault grows by at most the same again.
    filesystem.require_free(
        hot, 2 * postgres.database_bytes(server), doing="Backing up the database"
    )
    tables, sequences = postgres.row_counts(server), postgres.sequences(server)
    directory = hot / f"{clock.now():%Y%m%dT%H%M%SZ}{UNFINISHED}"
    directory.mkdir(parents=True, mode=0o700)
    backup = postgres.base_backup(
        server,
        directory / "base",
        label=settings.platform,
        on_progress=progress.of_lines("copying the database"),
    )
    return BaseCopy(
        directory=directory,
        identity=identity,
        # The copy holds the moment at which it ended, and rows go meanwhile.
        tables=_at_least(tables, postgres.row_counts(server)),
        sequences=_at_least(sequences, postgres.sequences(server)),
        backup=backup,
    )


def _at_least(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What was there all the time, of counts before and after; what was dropped is left out."""
    return {name: min(count, after[name]) for name, count in before.items() if name in after}


def _remove_unfinished(hot: Path) -> None:
    for leftover in hot.glob(f"*{UNFINISHED}"):
        log.warning("Removing %s, left by a backup that did not finish.", leftover)
        shutil.rmtree(leftover)


@step()
def verify_copy(settings: Settings, copy: BaseCopy, *, set_id: str = "") -> Facts:
    """Read every block of the copy, then write down what it is, and of which set if of one."""
    base = copy.directory / "base"
    postgres.verify_backup(base, settings.database.bin_directory)
    data = settings.database.data_directory
    if data.exists():
        filesystem.take_ownership_of(base, like=data)
    files, size = filesystem.tree_size(base)
    # Names have whole seconds; rounding up keeps the promise that the base is from before them.
    taken_at = copy.backup.stopped_at.replace(microsecond=0) + timedelta(seconds=1)
    point = point_id(Asset.DATABASE, taken_at)
    final = _place_of(settings, point) / "base"  # where it is when it is stored
    facts = Facts(
        point=point,
        asset=Asset.DATABASE,
        platform=settings.platform,
        host=socket.gethostname(),
        taken_at=taken_at,
        git_commit=git.head_commit(settings.code.directory) if settings.code else None,
        database=DatabaseFacts(
            system_identifier=copy.identity.system_identifier,
            timeline=copy.backup.timeline,
            start_lsn=copy.backup.start_lsn,
            stop_lsn=copy.backup.stop_lsn,
            server_version=copy.identity.version,
            wal_segment_bytes=copy.identity.wal_segment_bytes,
            started_at=copy.backup.started_at,
            stopped_at=copy.backup.stopped_at,
            tables=copy.tables,
            sequences=copy.sequences,
        ),
        directories={"base": DirectoryFacts(path=str(final), files=files, bytes=size)},
        set_id=set_id,
    )
    filesystem.atomic_write(copy.directory / FACTS_NAME, facts.model_dump_json(indent=2).encode())
    current_run().uses_points(facts.point)
    return facts


def _place_of(settings: Settings, point: str) -> Path:
    return places.hot_directory(settings) / point


@step()
def publish_hot_copy(settings: Settings, copy: BaseCopy, facts: Facts) -> Path:
    """Give the copy its final name, and then remove the hot copies before it.

    While the new one is suspicious the newest trusted one stays too. Stands aside from a recovery,
    which may be about to rename one of them into place.
    """
    locks.stand_aside(settings, doing="Publishing the hot copy")
    place = _place_of(settings, facts.point)
    copy.directory.rename(place)
    filesystem.sync_directory(place.parent)
    kept = {place, *_newest_trusted(settings)}
    for older in place.parent.iterdir():
        if older not in kept and not older.name.endswith(UNFINISHED):
            shutil.rmtree(older)
    return place


def _newest_trusted(settings: Settings) -> set[Path]:
    """The newest hot copy that nothing speaks against; all that are there if it can't be told.

    Asked of this host alone: S3 may be away.
    """
    tiers = (Tier.HOT, Tier.LOCAL)
    try:
        points = catalogue.list_points(
            settings, assets=(Asset.DATABASE,), tiers=tiers, tolerate_failures=True
        )
    except RecoveryError as error:
        log.error("Every hot copy is kept, for which one is trusted can't be told: %s", error)
        return set(places.hot_directory(settings).iterdir())
    trusted = (p.copies[Tier.HOT] for p in points if Tier.HOT in p.copies and not p.suspicion)
    return {Path(copy) for copy in itertools.islice(trusted, 1)}


def store_copy(settings: Settings, hot: Path, facts: Facts) -> None:
    """Snapshot the hot copy and its facts into both tiers, and look at the new point.

    A recovery may rename the copy into place meanwhile, and restic passes over what vanishes below
    a directory: a snapshot that does not hold every file of the copy is removed again. Raises
    LockBusy then, and what `vault.store_in_both_tiers` raises.
    """
    note, base = hot / FACTS_NAME, hot / "base"
    told = facts.directories["base"]
    expected = vault.Extent(files=told.files + 1, bytes=told.bytes + note.stat().st_size)
    vault.store_in_both_tiers(settings, facts, [note, base], exactly=expected)
    suspicion.look_at_new_point(settings, facts)
    production.remember(settings, facts)
