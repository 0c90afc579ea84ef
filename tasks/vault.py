"""The vault: where every copy lies, which recovery points there are, and what they tell.

One restic repository per asset and tier, so that they work side by side and fail apart. The
catalogue is the store: points are read from the repositories each time (DESIGN, section 3).
"""

from __future__ import annotations

import functools
import json
import logging
import tempfile
from collections.abc import Collection, Iterable
from datetime import datetime, timezone
from pathlib import Path

from pydantic import ValidationError

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError
from lifeboat.core.points import (
    FACTS_NAME,
    Asset,
    Facts,
    RecoveryPoint,
    Tier,
    merge_copies,
    taken_at_of,
)
from lifeboat.settings import Settings, find_restic, secret_of_environment
from lifeboat.tools import filesystem, restic, s3, seal
from tasks import progress
from tasks.orchestration import side_by_side, step
from tasks.record import Run

log = logging.getLogger("lifeboat")

_S3_REPOSITORY = {
    Asset.DATABASE: "database/repository",
    Asset.FILES: "file-backups",
    Asset.MODELS: "model-backups",
    Asset.CONFIG: "configs",
}
_WAL_KEY = "wal-key"
_WAL_FROM = "wal_from"
RESTIC_TIERS = (Tier.LOCAL, Tier.S3)


def records_directory(settings: Settings) -> Path:
    return settings.vault.local / "records"


def runs_directory(settings: Settings) -> Path:
    return records_directory(settings) / "runs"


def hot_directory(settings: Settings) -> Path:
    return settings.vault.local / "database" / "hot"


def wal_directory(settings: Settings) -> Path:
    return settings.vault.local / "database" / "wal"


@functools.lru_cache(maxsize=8)
def _bucket(
    endpoint: str | None, name: str, region: str, prefix: str, access: str, secret: str
) -> s3.Bucket:
    return s3.Bucket(
        endpoint=endpoint,
        name=name,
        region=region,
        access_key=access,
        secret_key=secret,
        prefix=prefix,
    )


def bucket(settings: Settings) -> s3.Bucket:
    told = settings.vault.s3
    return _bucket(
        told.endpoint,
        told.bucket,
        told.region,
        told.prefix,
        settings.secret("AWS_ACCESS_KEY_ID"),
        settings.secret("AWS_SECRET_ACCESS_KEY"),
    )


def repository(settings: Settings, asset: Asset, tier: Tier) -> restic.Repository:
    """The restic repository of an asset in a tier; it need not exist yet."""
    environment: dict[str, str] = {}
    if tier is Tier.S3:
        location = bucket(settings).restic_location(_S3_REPOSITORY[asset])
        environment = {
            "AWS_ACCESS_KEY_ID": settings.secret("AWS_ACCESS_KEY_ID"),
            "AWS_SECRET_ACCESS_KEY": settings.secret("AWS_SECRET_ACCESS_KEY"),
            "AWS_DEFAULT_REGION": settings.vault.s3.region,
        }
    else:
        location = str(settings.vault.local / str(asset) / "repository")
    local = settings.vault.local
    return restic.Repository(
        location=location,
        password=settings.secret("LIFEBOAT_VAULT_PASSWORD"),
        environment=environment,
        program=Path(settings.restic_program()),
        # On a new host nothing is written to the vault's place before the plan is approved.
        cache_directory=local / "cache" if local.exists() else None,
        host=settings.platform,
    )


def configuration_repository(bucket: s3.Bucket, *, region: str) -> restic.Repository:
    """The configuration in a bucket, for a host that has no settings yet."""
    return restic.Repository(
        location=bucket.restic_location(_S3_REPOSITORY[Asset.CONFIG]),
        password=secret_of_environment("LIFEBOAT_VAULT_PASSWORD"),
        environment={
            "AWS_ACCESS_KEY_ID": bucket.access_key,
            "AWS_SECRET_ACCESS_KEY": bucket.secret_key,
            "AWS_DEFAULT_REGION": region,
        },
        program=find_restic(),
        cache_directory=None,
        host="",
    )


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
    """Prepare the vault on the first backup of a host; later ones pay nothing for it."""
    if not _recipient_path(settings).exists():
        prepare_vault(settings)


def list_points(
    settings: Settings,
    *,
    assets: Collection[Asset] = tuple(Asset),
    tiers: Collection[Tier] = tuple(Tier),
    tolerate_failures: bool = False,
) -> tuple[RecoveryPoint, ...]:
    """All recovery points, newest first, with the tiers in which each has a copy.

    With `tolerate_failures` an unreachable tier is left out with a warning, which is right for a
    recovery that has another tier; without, it is an error.
    """
    found: list[RecoveryPoint] = []
    work = {
        f"{asset} {tier}": functools.partial(_points_in, settings, asset, tier)
        for asset in assets
        for tier in tiers
        if tier is not Tier.HOT
    }
    if tolerate_failures:
        work = {name: functools.partial(_or_nothing, name, act) for name, act in work.items()}
    for points in side_by_side(work).values():
        found += points
    if Tier.HOT in tiers and Asset.DATABASE in assets:
        found += _hot_points(settings)
    verified = _verifications(settings, in_bucket=Tier.S3 in tiers)
    return merge_copies(
        point.model_copy(update={"verified_at": verified.get(point.id)}) for point in found
    )


def _or_nothing(name: str, act) -> list[RecoveryPoint]:
    try:
        return act()
    except RecoveryError as error:
        log.warning("No recovery points from %s: %s", name, error)
        return []


def _points_in(settings: Settings, asset: Asset, tier: Tier) -> list[RecoveryPoint]:
    snapshots = repository(settings, asset, tier).snapshots(tags={"asset": str(asset)})
    return [
        RecoveryPoint(
            asset=asset,
            id=snapshot.tags["point"],
            taken_at=taken_at_of(snapshot.tags["point"]),
            copies={tier: snapshot.id},
            bytes=snapshot.bytes,
        )
        for snapshot in snapshots
        if "point" in snapshot.tags
    ]


def _hot_points(settings: Settings) -> list[RecoveryPoint]:
    points = []
    for path in hot_directory(settings).glob(f"*/{FACTS_NAME}"):
        # `.partial`: a backup that did not finish. No base: a recovery has renamed it into place.
        if path.parent.suffix or not (path.parent / "base").is_dir():
            continue
        facts = parse_facts(path.read_bytes(), where=str(path))
        points.append(
            RecoveryPoint(
                asset=Asset.DATABASE,
                id=facts.point,
                taken_at=facts.taken_at,
                copies={Tier.HOT: str(path.parent)},
                bytes=facts.directories["base"].bytes,
            )
        )
    return points


def parse_facts(data: bytes, *, where: str) -> Facts:
    try:
        return Facts.model_validate_json(data)
    except ValidationError as error:
        raise PermanentError(
            f"Reading {FACTS_NAME} from {where}: it is damaged ({error.error_count()} errors).",
            hint="Choose another recovery point.",
        ) from error


def read_facts(settings: Settings, point: RecoveryPoint, tier: Tier | None = None) -> Facts:
    """What a point says of itself, from `tier` or else from the cheapest tier that has it."""
    tier = tier or point.tiers[0]
    copy = point.copies[tier]
    if tier is Tier.HOT:
        path = Path(copy) / FACTS_NAME
        return parse_facts(path.read_bytes(), where=str(path))
    store = repository(settings, point.asset, tier)
    path = facts_path(store, copy)
    return parse_facts(store.dump(copy, path), where=f"{point.id} in {tier}")


def facts_path(store: restic.Repository, snapshot_id: str) -> str:
    snapshot = next((s for s in store.snapshots() if s.id == snapshot_id), None)
    paths = snapshot.paths if snapshot else ()
    path = next((p for p in paths if p.endswith("/" + FACTS_NAME)), None)
    if path is None:
        raise PermanentError(
            f"Reading the facts of snapshot {snapshot_id[:8]}: it has no {FACTS_NAME}.",
            hint="Choose another recovery point.",
        )
    return path


def newest_facts(
    settings: Settings, *, tiers: Collection[Tier] = tuple(Tier), not_after: datetime | None = None
) -> dict[Asset, Facts]:
    """The facts of the newest point of each asset; an asset without one is left out."""
    points = list_points(settings, tiers=tiers, tolerate_failures=True)
    newest: dict[Asset, RecoveryPoint] = {}
    for point in points:
        if not_after is None or point.taken_at <= not_after:
            newest.setdefault(point.asset, point)

    def read(point: RecoveryPoint) -> Facts | None:
        try:
            return read_facts(settings, point)
        except RecoveryError as error:
            log.warning("%s", error)
            return None

    read_all = side_by_side(
        {str(asset): functools.partial(read, point) for asset, point in newest.items()}
    )
    return {Asset(name): facts for name, facts in read_all.items() if facts is not None}


@step(retries=3)
def store_snapshot(
    settings: Settings, tier: Tier, facts: Facts, paths: Collection[Path]
) -> restic.BackupSummary:
    """Put directories and their `lifeboat.json` into one tier's repository as one point.

    A backup that fails half way leaves no snapshot, so no point that could be chosen.
    """
    tags = {"asset": str(facts.asset), "point": facts.point, "platform": facts.platform}
    if facts.database:
        # So that pruning WAL need not open every base.
        tags[_WAL_FROM] = facts.database.start_lsn
    summary = repository(settings, facts.asset, tier).backup(
        paths,
        tags=tags,
        on_progress=progress.of_restic(f"{facts.asset} to {tier}"),
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


def store_in_both_tiers(settings: Settings, facts: Facts, paths: Collection[Path]) -> None:
    """Local and S3 at the same time. If one fails this raises, and the other's copy counts."""
    side_by_side(
        {
            str(tier): functools.partial(store_snapshot, settings, tier, facts, paths)
            for tier in RESTIC_TIERS
        }
    )


def wal_starts(settings: Settings, points: Iterable[RecoveryPoint], tier: Tier) -> dict[str, str]:
    """Where the WAL of each base copy begins, by the name of the point."""
    points = tuple(points)
    tagged: dict[str, str] = {}
    if tier is not Tier.HOT and points:
        for snapshot in repository(settings, Asset.DATABASE, tier).snapshots():
            if _WAL_FROM in snapshot.tags and "point" in snapshot.tags:
                tagged[snapshot.tags["point"]] = snapshot.tags[_WAL_FROM]
    starts = {}
    for point in points:
        start = tagged.get(point.id)
        if start is None:
            database = read_facts(settings, point, tier).database
            if database is None:
                raise PermanentError(f"Reading {point.id}: it holds no database.")
            start = database.start_lsn
        starts[point.id] = start
    return starts


# --- verification marks and records ---------------------------------------------------------


def mark_verified(
    settings: Settings, point_ids: Iterable[str], *, by: str, **measured: float
) -> None:
    """Remember, in both tiers, that a recovery from these points was started and questioned.

    `measured` is kept with the mark: how many bytes were restored, and in how many seconds.
    """
    now = datetime.now(timezone.utc)
    for point in point_ids:
        name = f"verified/{point}.json"
        told = {"point": point, "verified_at": now.isoformat(), "by": by, **measured}
        text = json.dumps(told).encode()
        path = records_directory(settings) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        filesystem.atomic_write(path, text)
        try:
            bucket(settings).put(f"records/{name}", text)
        except RecoveryError as error:
            log.warning("The verification of %s is recorded only locally: %s", point, error)


def _verifications(settings: Settings, *, in_bucket: bool) -> dict[str, datetime]:
    marks: dict[str, datetime] = {}
    if in_bucket:
        try:
            for mark in bucket(settings).list("records/verified/"):
                point = mark.key.rpartition("/")[2].removesuffix(".json")
                marks[point] = mark.modified_at
        except RecoveryError as error:
            log.warning("Verification marks in the bucket can't be read: %s", error)
    for path in (records_directory(settings) / "verified").glob("*.json"):
        told = json.loads(path.read_text())
        marks[told["point"]] = datetime.fromisoformat(told["verified_at"])
    return marks


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
                path = Path(directory) / "wal-key.txt"
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


def _recipient_path(settings: Settings) -> Path:
    return wal_directory(settings) / "recipient.txt"


def wal_recipient(settings: Settings) -> str:
    """The public key to which WAL is sealed: read from the host, made by `prepare_vault`."""
    ensure_prepared(settings)
    return _recipient_path(settings).read_text().strip()


def wal_identity(settings: Settings) -> str:
    """The key that opens the WAL objects, from S3 or else from the local vault."""
    reasons = []
    for tier in (Tier.S3, Tier.LOCAL):
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
