"""Where everything of the vault lies: its directories on this host, the bucket, the repositories.

One restic repository per asset and tier, so that they work side by side and fail apart (DESIGN,
section 3). Making any of these objects touches nothing.
"""

from __future__ import annotations

import functools
from pathlib import Path

from lifeboat.core.orchestrator import ASSET as ORCHESTRATOR
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import (
    Settings,
    find_restic,
    optional_secret_of_environment,
    secret_of_environment,
)
from lifeboat.tools import restic, s3

_S3_REPOSITORY: dict[str, str] = {
    Asset.DATABASE: "database/repository",
    Asset.FILES: "file-backups",
    Asset.MODELS: "model-backups",
    Asset.CONFIG: "configs",
    ORCHESTRATOR: "orchestrator/repository",
}
RESTIC_TIERS = (Tier.LOCAL, Tier.S3)
WAL_PREFIX = "database/wal/"
SEALED = ".zst.age"
UNFINISHED = ".partial"  # the end of a hot copy's name until it is whole
INCOMING = ".incoming-"  # between the data directory's name and the id of a recovery

# Below these prefixes of the bucket nobody wants an old version back: restic's locks.
PASSING_IN_S3 = tuple(f"{place}/locks/" for place in _S3_REPOSITORY.values())
# And here objects are rewritten each minute: only the last few versions may be wanted.
REWRITTEN_IN_S3 = ("database/wal-partial/", "records/sightings/")
PACKS_IN_S3 = tuple(f"{place}/data/" for place in _S3_REPOSITORY.values())


def records_directory(settings: Settings) -> Path:
    return settings.vault.local / "records"


def runs_directory(settings: Settings) -> Path:
    return records_directory(settings) / "runs"


def repairs_directory(settings: Settings) -> Path:
    """Where a repair puts versions of files before it knows whether they are the right ones."""
    return settings.vault.local / "repairs"


def hot_directory(settings: Settings) -> Path:
    return settings.vault.local / "database" / "hot"


def wal_directory(settings: Settings) -> Path:
    return settings.vault.local / "database" / "wal"


def wal_key(system_identifier: str, name: str) -> str:
    """The object of a WAL file: in one place for each timeline, whatever directory it lay in."""
    return f"{WAL_PREFIX}{system_identifier}/{name[:8]}/{name}{SEALED}"


@functools.lru_cache(maxsize=8)
def _bucket(
    endpoint: str | None,
    name: str,
    region: str,
    prefix: str,
    access: str,
    secret: str,
    token: str | None,
) -> s3.Bucket:
    return s3.Bucket(
        endpoint=endpoint,
        name=name,
        region=region,
        access_key=access,
        secret_key=secret,
        prefix=prefix,
        session_token=token,
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
        settings.optional_secret("AWS_SESSION_TOKEN"),
    )


def named_bucket(name: str, *, endpoint: str, region: str, prefix: str) -> s3.Bucket:
    """A bucket by its coordinates, with the keys of the environment: for a host without settings.

    Raises SettingsError if a key is not set.
    """
    return _bucket(
        endpoint or None,
        name,
        region,
        prefix,
        secret_of_environment("AWS_ACCESS_KEY_ID"),
        secret_of_environment("AWS_SECRET_ACCESS_KEY"),
        optional_secret_of_environment("AWS_SESSION_TOKEN"),
    )


def repository_directory(settings: Settings, asset: Asset | str) -> Path:
    """Where an asset's repository lies in the local vault."""
    return settings.vault.local / str(asset) / "repository"


def repository(settings: Settings, asset: Asset | str, tier: Tier) -> restic.Repository:
    """The restic repository of an asset in a tier; it need not exist yet."""
    environment: dict[str, str] = {}
    if tier is Tier.S3:
        location = bucket(settings).restic_location(_S3_REPOSITORY[asset])
        environment = _restic_environment(bucket(settings))
    else:
        location = str(repository_directory(settings, asset))
    local = settings.vault.local
    return restic.Repository(
        location=location,
        password=settings.secret("LIFEBOAT_VAULT_PASSWORD"),
        environment=environment,
        program=Path(settings.restic_program()),
        # On a new host nothing is written to the vault's place before the plan is approved.
        cache_directory=local / "cache" if local.exists() else None,
        host_keys=local / "host-keys" if settings.vault.host_keys else None,
        host=settings.platform,
    )


def snapshot_names(settings: Settings, asset: Asset, tier: Tier) -> frozenset[str]:
    """The names under which a repository keeps its snapshots, without opening it.

    Empty where there is no repository. Raises TransientError if the bucket can't be reached.
    """
    if tier is Tier.S3:
        keys = bucket(settings).list(f"{_S3_REPOSITORY[asset]}/snapshots/")
        return frozenset(item.key.rpartition("/")[2] for item in keys)
    try:
        place = settings.vault.local / str(asset) / "repository" / "snapshots"
        return frozenset(path.name for path in place.iterdir())
    except FileNotFoundError:
        return frozenset()


def repository_key(asset: Asset | str) -> str:
    """Where the repository of an asset lies in the bucket, below its prefix."""
    return _S3_REPOSITORY[asset]


def _restic_environment(bucket: s3.Bucket) -> dict[str, str]:
    token = {"AWS_SESSION_TOKEN": bucket.session_token} if bucket.session_token else {}
    return {
        "AWS_ACCESS_KEY_ID": bucket.access_key,
        "AWS_SECRET_ACCESS_KEY": bucket.secret_key,
        "AWS_DEFAULT_REGION": bucket.region,
        **token,
    }


def configuration_repository(bucket: s3.Bucket) -> restic.Repository:
    """The configuration in a bucket, for a host that has no settings yet."""
    return restic.Repository(
        location=bucket.restic_location(_S3_REPOSITORY[Asset.CONFIG]),
        password=secret_of_environment("LIFEBOAT_VAULT_PASSWORD"),
        environment=_restic_environment(bucket),
        program=find_restic(),
        cache_directory=None,
        host="",
    )
