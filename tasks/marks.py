"""Marks on recovery points and sources: written to the local vault and the bucket, read from both.

What this host wrote itself counts first; the bucket tells what others wrote, and all of it on a
machine that has no vault.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from lifeboat.core.errors import PermanentError, RecoveryError
from lifeboat.core.kinds import Tier
from lifeboat.core.marks import MODELS, Kind, Verified
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, s3
from tasks import clock, many
from tasks.places import bucket, records_directory

log = logging.getLogger("lifeboat")

_SUFFIX = ".json"


def put(
    settings: Settings, kind: Kind, name: str, mark: BaseModel, *, bucket_first: bool = False
) -> None:
    """Write a mark to both tiers.

    An unreachable bucket is told and not fatal, unless it comes first: what only this host knows
    dies with it.
    """
    text = mark.model_dump_json(indent=2).encode()
    try:
        bucket(settings).put(key_of(kind, name), text)
    except RecoveryError as error:
        if bucket_first:
            raise
        log.warning("The mark %s of %s is only on this host: %s", kind, name, error)
    path = path_of(settings, kind, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    filesystem.atomic_write(path, text)


def remove(settings: Settings, kind: Kind, name: str) -> None:
    """Take a mark away in both tiers, the bucket first. Raises if the bucket can't be reached."""
    bucket(settings).delete([key_of(kind, name)])
    path_of(settings, kind, name).unlink(missing_ok=True)


def read(settings: Settings, kind: Kind, name: str, *, from_bucket: bool = False) -> BaseModel:
    """One mark, from this host or else from the bucket. Raises PermanentError if it is damaged."""
    path = path_of(settings, kind, name)
    if path.exists() and not from_bucket:
        return _parse(kind, path.read_bytes(), where=str(path))
    return _parse(
        kind, bucket(settings).get(key_of(kind, name)), where=f"bucket {key_of(kind, name)}"
    )


def read_all(
    settings: Settings, kind: Kind, *, in_bucket: bool = True, tolerate_failures: bool = False
) -> dict[str, BaseModel]:
    """All marks of a kind by name, from this host and the bucket.

    With `tolerate_failures` an unreachable bucket is told and left out.
    """
    found: dict[str, BaseModel] = {
        path.stem: _parse(kind, path.read_bytes(), where=str(path))
        for path in _local(settings, kind)
    }
    try:
        for name in _remote(settings, kind) if in_bucket else ():
            if name not in found:
                found[name] = read(settings, kind, name)
    except RecoveryError as error:
        if not tolerate_failures:
            raise
        log.warning("The marks %s in the bucket can't be read: %s", kind, error)
    return found


def names_in_bucket(store: s3.Bucket, kind: Kind) -> dict[str, datetime]:
    """Name and time of each mark in a bucket, by one listing; none of them is opened."""
    return {
        item.key.rpartition("/")[2].removesuffix(_SUFFIX): item.modified_at
        for item in store.list(f"records/{kind}/")
    }


def _local(settings: Settings, kind: Kind) -> list[Path]:
    return sorted((records_directory(settings) / kind).glob(f"*{_SUFFIX}"))


def _remote(settings: Settings, kind: Kind) -> dict[str, datetime]:
    return names_in_bucket(bucket(settings), kind)


def _parse(kind: Kind, data: bytes, *, where: str) -> BaseModel:
    try:
        return MODELS[kind].model_validate_json(data)
    except ValidationError as error:
        raise PermanentError(
            f"Reading {where}: it is damaged ({error.error_count()} errors).",
            hint="Remove it, and make the mark again.",
        ) from error


def path_of(settings: Settings, kind: Kind, name: str) -> Path:
    """Where this host keeps a mark."""
    return records_directory(settings) / kind / f"{name}{_SUFFIX}"


def key_of(kind: Kind, name: str) -> str:
    """Where the bucket keeps a mark."""
    return f"records/{kind}/{name}{_SUFFIX}"


# --- verified points ------------------------------------------------------------------------


def mark_verified(
    settings: Settings, point_ids: Iterable[str], *, by: str, tier: Tier, **measured: float
) -> None:
    """Remember, in both tiers, that a recovery from these points was started and questioned.

    `tier` is the one whose copy was restored. What a host's copy proves takes no proof from S3
    away. `measured` is kept with the mark, see `core.marks.Verified`.
    """
    for point in point_ids:
        if tier is not Tier.S3 and _is_proven_from_s3(settings, point):
            continue
        mark = Verified(point=point, verified_at=clock.now(), by=by, tier=tier, **measured)
        put(settings, Kind.VERIFIED, point, mark)


def _is_proven_from_s3(settings: Settings, point: str) -> bool:
    for from_bucket in (False, True):
        try:
            mark = read(settings, Kind.VERIFIED, point, from_bucket=from_bucket)
        except RecoveryError:  # there is none, or it can't be read
            continue
        if isinstance(mark, Verified) and mark.from_s3:
            return True
    return False


def verified_points(settings: Settings, *, in_bucket: bool) -> dict[str, Verified]:
    """How each point was verified, from S3 if ever. An unreachable bucket is told and left out."""
    found: dict[str, Verified] = {}
    if in_bucket:
        try:
            found |= _verified_in(bucket(settings))
        except RecoveryError as error:
            log.warning("Verification marks in the bucket can't be read: %s", error)
    for path in _local(settings, Kind.VERIFIED):
        mark = _parse(Kind.VERIFIED, path.read_bytes(), where=str(path))
        assert isinstance(mark, Verified)
        known = found.get(mark.point)
        if known is None or mark.from_s3 or not known.from_s3:
            found[mark.point] = mark
    return found


# Opened once a process: the store's own time is another after the mark was brought back or copied.
_verified: dict[tuple[str, str, datetime], Verified] = {}


def _verified_in(store: s3.Bucket) -> dict[str, Verified]:
    where = store.restic_location("")
    told = {name: (where, name, at) for name, at in names_in_bucket(store, Kind.VERIFIED).items()}
    new = [key for key in told.values() if key not in _verified]

    def read_one(key: tuple[str, str, datetime]) -> Verified:
        _, name, written_at = key
        place = key_of(Kind.VERIFIED, name)
        try:
            mark = _parse(Kind.VERIFIED, store.get(place), where=place)
        except PermanentError as error:  # damaged, or taken away meanwhile
            log.warning("%s", error)
            return Verified(point=name, verified_at=written_at, by="")
        assert isinstance(mark, Verified)
        return mark

    read = many.act_on_all(new, read_one, doing="Reading when points were verified")
    _verified.update(zip(new, read, strict=True))
    return {name: _verified[key] for name, key in told.items()}


# --- accepted points ------------------------------------------------------------------------


def accepted_points(settings: Settings, *, in_bucket: bool) -> frozenset[str]:
    """The suspicious points that someone accepted. An unreachable bucket is told and left out."""
    found = {path.stem for path in _local(settings, Kind.ACCEPTED)}
    if in_bucket:
        try:
            found |= _remote(settings, Kind.ACCEPTED).keys()
        except RecoveryError as error:
            log.warning("Which points are accepted can't be read in the bucket: %s", error)
    return frozenset(found)
