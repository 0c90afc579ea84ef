"""Does a set hold together: what the database refers to, against what the set's snapshots hold."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.points import Asset

NAMED = 10_000  # of what nothing refers to; the rest is only counted


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Referred(_Frozen):
    """One file that the database refers to, by its path below one of the asset's directories."""

    path: str
    sha256: str | None = None  # None: the database does not say
    bytes: int | None = None


class Missing(_Frozen):
    """A file that a row refers to and the snapshot lacks."""

    path: str
    bytes: int | None
    found_bytes: int | None = Field(description="Size of the file of that name, if there is one.")


class CrossCheck(_Frozen):
    """What was found of one asset. Files that nothing refers to are no fault: uploads in flight."""

    asset: Asset
    point: str
    referred: int
    held: int
    missing: tuple[Missing, ...]
    known_lost: int
    unreferenced: int
    unreferenced_names: tuple[str, ...]

    @property
    def in_words(self) -> str:
        told = f"{self.asset}: {self.referred} referred to, {self.held} held"
        if self.missing:
            told += f", {len(self.missing)} missing, first {self.missing[0].path!r}"
        return f"{told}, {self.unreferenced} that nothing refers to"


def cross_check(
    asset: Asset,
    point: str,
    *,
    referred: Iterable[Referred],
    held: Mapping[str, Mapping[str, int]],
    known_losses: Collection[str] = (),
) -> CrossCheck:
    """Compare by path and size. `held` gives sizes in bytes by directory and relative path.

    What an earlier recovery could not bring back and said so is counted apart.
    """
    wanted = {(posixpath.normpath(item.path), item.bytes): item for item in referred}
    paths = {path for path, _ in wanted}
    missing = []
    lost = 0
    for (path, _), item in wanted.items():
        sizes = [files[path] for files in held.values() if path in files]
        if sizes and (item.bytes is None or item.bytes in sizes):
            continue
        if item.path in known_losses:
            lost += 1
            continue
        found = sizes[0] if sizes else None
        missing.append(Missing(path=item.path, bytes=item.bytes, found_bytes=found))
    strangers = [
        f"{directory}/{path}"
        for directory, files in held.items()
        for path in files
        if path not in paths
    ]
    return CrossCheck(
        asset=asset,
        point=point,
        referred=len(paths),
        held=sum(len(files) for files in held.values()),
        missing=tuple(missing),
        known_lost=lost,
        unreferenced=len(strangers),
        unreferenced_names=tuple(sorted(strangers)[:NAMED]),
    )


def still_missing(found: CrossCheck, referred_now: Iterable[Referred]) -> CrossCheck:
    """Leave out what no row refers to any more: it was deleted while the set was made."""
    now = {(item.path, item.bytes) for item in referred_now}
    left = tuple(item for item in found.missing if (item.path, item.bytes) in now)
    return found.model_copy(update={"missing": left})
