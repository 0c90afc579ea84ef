"""The platform's settings as the bucket holds them, for a machine that has nothing else.

It needs the bucket, its key and the vault's password, and touches nothing.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lifeboat.core.errors import PreconditionError, RecoveryError, TransientError
from lifeboat.core.marks import Kind
from lifeboat.core.points import (
    Asset,
    RecoveryPoint,
    Tier,
    choose_point,
    merge_copies,
    passed_over,
)
from lifeboat.core.suspicion import Policy, judge
from lifeboat.settings import S3, Settings, load_settings
from lifeboat.tools import restic, s3
from tasks import catalogue, clock, marks, places
from tasks.repair import Source

log = logging.getLogger("lifeboat")

_SETTINGS_NAME = "lifeboat.yaml"
_OLDEST_TRIED = 5


class SettingsInVault(BaseModel):
    """What the settings are, and the recovery point that they come from."""

    model_config = ConfigDict(frozen=True)

    settings: Settings  # as they will be on this machine, with the bucket that was named
    source: Source
    old_root: Path  # directory of lifeboat.yaml on the platform's host
    unreadable: Mapping[str, str]  # newer points whose lifeboat.yaml can't be used, and why


def place(*, bucket: str, endpoint: str, region: str, prefix: str) -> S3:
    """A bucket by what an operator typed. Raises PreconditionError if that can be none."""
    try:
        return S3(endpoint=endpoint or None, bucket=bucket, region=region, prefix=prefix)
    except ValidationError as error:
        told = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors(include_url=False))
        raise PreconditionError(
            f"Looking for the bucket {bucket!r}: {told}.",
            hint="Look at --bucket, --endpoint and --prefix.",
        ) from error


def read(
    where: S3, *, into: Path, trust: Collection[str] = (), older_too: bool = False
) -> SettingsInVault:
    """Read the settings from the newest trusted configuration in a bucket.

    Relative paths are below `into`; `trust` names suspicious points that are right all the same.
    With `older_too` an older configuration stands in for one that can't be read. Raises
    PreconditionError, with nothing touched, if the bucket does not answer, or holds no
    configuration that can be used.
    """
    bucket = places.named_bucket(
        where.bucket, endpoint=where.endpoint or "", region=where.region, prefix=where.prefix
    )
    bucket.reachable()
    store = places.configuration_repository(bucket)
    points = _configurations(store, bucket, trust)
    if not points:
        raise PreconditionError(
            f"Reading bucket {where.bucket}: it holds no backup of a configuration.",
            hint="Nothing was touched. Look at --bucket and --prefix; `lifeboat backup config` "
            "makes one.",
        )
    newest = choose_point(points, asset=Asset.CONFIG, tiers=(Tier.S3,))
    usable = [
        point for point in points if point.taken_at <= newest.taken_at and not point.suspicion
    ]
    unreadable: dict[str, str] = {}
    for point in usable[: _OLDEST_TRIED if older_too else 1]:
        try:
            found = _read_point(store, point, where, into)
        except TransientError:
            raise
        except RecoveryError as error:
            if point is usable[-1] or not older_too:
                raise
            log.warning("%s An older one is tried.", error)
            unreadable[point.id] = str(error)
        else:
            over = passed_over(points, point)
            source = found.source.model_copy(update={"passed_over": over})
            return found.model_copy(update={"source": source, "unreadable": unreadable})
    raise PreconditionError(
        f"Reading bucket {where.bucket}: the lifeboat.yaml of none of the newest "
        f"{_OLDEST_TRIED} configurations can be used: {next(iter(unreadable.values()))}",
        hint="Nothing was touched.",
    )


def _configurations(
    store: restic.Repository, bucket: s3.Bucket, trust: Collection[str]
) -> tuple[RecoveryPoint, ...]:
    """The backups of the configuration, judged by the usual policy: the settings lie in them."""
    found = catalogue.points_of(store, Asset.CONFIG, Tier.S3)
    accepted = {*marks.names_in_bucket(bucket, Kind.ACCEPTED), *trust}
    return judge(merge_copies(found), policy=Policy(), accepted=accepted, now=clock.now())


def _read_point(
    store: restic.Repository, point: RecoveryPoint, where: S3, into: Path
) -> SettingsInVault:
    snapshot = point.copies[Tier.S3]
    facts = catalogue.parse_facts(
        store.dump(snapshot, catalogue.facts_path(store, snapshot)), where=point.id
    )
    told = facts.directories.get(_SETTINGS_NAME)
    if told is None:
        raise PreconditionError(
            f"Reading {facts.point}: {_SETTINGS_NAME} is not in it.",
            hint="Add it to config.paths; until then write it by hand and use `recover database`.",
        )
    settings = _parse(store, snapshot, told.path, into)
    # The bucket that was named counts: it may be a copy of the one in the settings.
    vault = settings.vault.model_copy(update={"s3": where})
    return SettingsInVault(
        settings=settings.model_copy(update={"vault": vault}),
        source=Source(point=point, tier=Tier.S3, facts=facts),
        old_root=Path(told.path).parent,
        unreadable={},
    )


def _parse(store: restic.Repository, snapshot: str, path: str, into: Path) -> Settings:
    with tempfile.TemporaryDirectory(prefix="lifeboat-") as directory:
        copy = Path(directory) / _SETTINGS_NAME
        copy.write_bytes(store.dump(snapshot, path))
        return load_settings(copy, directory=into)
