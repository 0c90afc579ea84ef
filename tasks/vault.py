"""The vault: prepared, written to, and the one key in it that opens the WAL."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError
from lifeboat.core.points import Asset, Facts, Tier
from lifeboat.core.suspicion import pack_counts
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, restic, seal
from tasks import catalogue, locks, progress
from tasks.orchestration import side_by_side, step
from tasks.places import (
    RESTIC_TIERS,
    bucket,
    hot_directory,
    repository,
    repository_directory,
    runs_directory,
    snapshot_names,
    wal_directory,
)
from tasks.record import Run

log = logging.getLogger("lifeboat")

WAL_KEY_NAME = "wal-key.txt"

_WAL_KEY = "wal-key"


@step(retries=2)
def prepare_vault(settings: Settings) -> None:
    """Make the vault's directories, repositories and WAL key where they are missing.

    Safe to run again. Raises PreconditionError if a repository exists with another password.
    """
    for directory in (hot_directory(settings), wal_directory(settings), runs_directory(settings)):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    bucket(settings).reachable()
    side_by_side(
        {
            f"{asset} {tier}": repository(settings, asset, tier).initialise
            for asset in Asset
            for tier in RESTIC_TIERS
        }
    )
    _prepare_wal_key(settings)


def ensure_prepared(settings: Settings) -> None:
    """Prepare the vault on the first backup of a platform; later ones pay nothing for it.

    Raises PreconditionError where S3 is in use and the local vault is not there: a disk that is not
    mounted must not become a second vault on the disk below it.
    """
    if _recipient_path(settings).exists():
        return
    local = settings.vault.local
    some_is_there = any(repository_directory(settings, asset).exists() for asset in Asset)
    if not some_is_there and snapshot_names(settings, Asset.DATABASE, Tier.S3):
        raise PreconditionError(
            f"Backing up: there is no vault in {local}, and the bucket says that there was one.",
            hint="Is its disk mounted? If the local vault is lost for good, make a new one there "
            "with `lifeboat prepare`: the points in S3 stay.",
        )
    prepare_vault(settings)


class Extent(BaseModel):
    """How much a snapshot of something that does not change must hold."""

    model_config = ConfigDict(frozen=True)

    files: int
    bytes: int


@step(retries=3)
def store_snapshot(
    settings: Settings,
    tier: Tier,
    facts: Facts,
    paths: Collection[Path],
    exactly: Extent | None = None,
) -> restic.BackupSummary:
    """Put directories and their `lifeboat.json` into one tier's repository as one point.

    A backup that fails half way leaves no snapshot, so no point that could be chosen; nor does one
    that holds more or less than `exactly` that much, or whose source went away: for that it raises
    PermanentError, or LockBusy while a recovery runs.
    """
    tags = {"asset": str(facts.asset), "point": facts.point, "platform": facts.platform}
    if facts.database:
        # So that pruning WAL, and looking for holes in it, need not open every base.
        tags[catalogue.WAL] = catalogue.base_copy_of(facts).tag
        tags[catalogue.ROWS] = pack_counts(facts.database.tables)
    else:
        files = {name: told.files for name, told in facts.directories.items()}
        tags[catalogue.DIRECTORY_FILES] = pack_counts(files)
    if facts.set_id:
        tags[catalogue.SET] = facts.set_id
    if facts.fingerprint:
        tags[catalogue.CONTENT] = facts.fingerprint
    if tier is Tier.S3:
        # restic tries a store that does not answer for a minute, which this asks in a moment.
        bucket(settings).exists(runs_directory(settings).name)
    summary = repository(settings, facts.asset, tier).backup(
        paths,
        tags=tags,
        taken_at=facts.taken_at,
        on_progress=progress.of_restic(f"{facts.asset} to {tier}"),
    )
    got = Extent(files=summary.total_files, bytes=summary.total_bytes)
    if exactly and (got != exactly or not all(path.exists() for path in paths)):
        repository(settings, facts.asset, tier).forget([summary.snapshot_id])
        doing = f"Storing {facts.point} in {tier}"
        locks.stand_aside(settings, doing=doing)
        raise PermanentError(
            f"{doing}: it changed or went away meanwhile ({got.files} files with {got.bytes} "
            f"bytes were there, of {exactly.files} with {exactly.bytes}).",
            hint="No recovery point was made of it. If a recovery took it, all is well: the next "
            "backup makes one.",
        )
    log.info(
        "%s in %s: %d files, %d new bytes, %.1f s",
        facts.point,
        tier,
        summary.total_files,
        summary.added_bytes,
        summary.seconds,
    )
    return summary


def store_in_both_tiers(
    settings: Settings, facts: Facts, paths: Collection[Path], *, exactly: Extent | None = None
) -> dict[Tier, str]:
    """Local and S3 at the same time; give the snapshots' names.

    If one fails this raises, and the other's copy counts.
    """
    done = side_by_side(
        {
            str(tier): functools.partial(store_snapshot, settings, tier, facts, paths, exactly)
            for tier in RESTIC_TIERS
        }
    )
    return {Tier(tier): summary.snapshot_id for tier, summary in done.items()}


# --- records ---------------------------------------------------------------------------------


def publish_record(settings: Settings, run: Run) -> None:
    """Copy a run's record to the bucket, where it survives the host. Never raises."""
    if run.directory is None:
        return
    try:
        for path in sorted(run.directory.iterdir()):
            bucket(settings).put(f"records/runs/{run.id}/{path.name}", path.read_bytes())
    except (RecoveryError, OSError) as error:
        log.warning("The record of %s is only in %s: %s", run.id, run.directory, error)


# --- the key that opens the WAL objects -----------------------------------------------------


def _prepare_wal_key(settings: Settings) -> None:
    """Make one age identity for the platform, kept in the vault so that its password opens all."""
    stores = {tier: repository(settings, Asset.DATABASE, tier) for tier in RESTIC_TIERS}
    known = {tier: _read_wal_key(store) for tier, store in stores.items()}
    identities = {identity for identity in known.values() if identity}
    if len(identities) > 1:
        raise PreconditionError(
            "Preparing the vault: the local vault and S3 hold different WAL keys.",
            hint="One of them belongs to another platform: check vault.local and vault.s3.",
        )
    identity = next(iter(identities), None) or seal.new_identity()[0]
    for tier, store in stores.items():
        if known[tier] is None:
            with tempfile.TemporaryDirectory(prefix="lifeboat-") as directory:
                path = Path(directory) / WAL_KEY_NAME
                path.write_text(identity)
                path.chmod(0o600)
                store.backup([path], tags={"kind": _WAL_KEY})
    filesystem.atomic_write(_recipient_path(settings), seal.recipient_of(identity).encode())


def _read_wal_key(store: restic.Repository) -> str | None:
    snapshots = store.snapshots(tags={"kind": _WAL_KEY})
    if not snapshots:
        return None
    newest = max(snapshots, key=lambda snapshot: snapshot.taken_at)
    return store.dump(newest.id, newest.paths[0]).decode().strip()


def has_wal_key(settings: Settings, tier: Tier) -> bool:
    """Whether a tier keeps the key that opens the WAL objects. It is not opened."""
    store = repository(settings, Asset.DATABASE, tier)
    return bool(store.snapshots(tags={"kind": _WAL_KEY}))


def _recipient_path(settings: Settings) -> Path:
    return wal_directory(settings) / "recipient.txt"


def wal_recipient(settings: Settings) -> str:
    """The public key to which WAL is sealed: read from the host, made by `prepare_vault`."""
    ensure_prepared(settings)
    return _recipient_path(settings).read_text().strip()


def wal_identity(settings: Settings, *, tiers: Iterable[Tier] = (Tier.S3, Tier.LOCAL)) -> str:
    """The key that opens the WAL objects, from the first tier that has it."""
    reasons = []
    for tier in tiers:
        try:
            identity = _read_wal_key(repository(settings, Asset.DATABASE, tier))
        except RecoveryError as error:
            reasons.append(str(error))
            continue
        if identity:
            return identity
        reasons.append(f"{tier} holds none")
    raise PermanentError(
        "Reading the key of the WAL objects from the vault: " + "; ".join(reasons),
        hint="Without it WAL in S3 can't be opened; base backups still can.",
    )
