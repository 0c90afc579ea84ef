"""The keys of this host to the vault's repositories: made, put into them, and proven."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from lifeboat.core.errors import PreconditionError
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, restic
from tasks import clock, locks, places
from tasks.orchestration import side_by_side

log = logging.getLogger("lifeboat")

# restic tries at most 20 keys, and the vault's password must be among them.
_MOST_KEYS = 10


def make_missing(settings: Settings, assets: Collection[Asset | str]) -> None:
    """Give this host a key to each repository of these assets to which it has none. Never raises.

    Without one the vault's password opens the repository, as it does on any other host.
    """
    try:
        _make_missing(settings, assets)
    except Exception as error:  # whatever it is: no backup may fail for want of half a second
        log.warning("This host can't be given keys of its own to the vault: %s", error)


def _make_missing(settings: Settings, assets: Collection[Asset | str]) -> None:
    with locks.making_keys(settings) as it_is_us:
        wanted = {}
        for asset in assets if it_is_us else ():
            for tier in places.RESTIC_TIERS:
                own = places.repository(settings, asset, tier).own_key
                if own and own.is_wanted:
                    act = functools.partial(_try_to_make, settings, asset, tier, own)
                    wanted[f"{asset} {tier}"] = act
        side_by_side(wanted)


def _try_to_make(settings: Settings, asset: Asset | str, tier: Tier, own: restic.HostKey) -> None:
    try:
        _make(places.repository(settings, asset, tier), _Keys(settings, asset, tier), own)
    except Exception as error:
        log.warning("This host has no key of its own to %s in %s: %s", asset, tier, error)
        with suppress(OSError):
            now = places.repository(settings, asset, tier).own_key or own
            _keep(replace(now, id=""))  # so that it is not tried again with each backup


def _make(store: restic.Repository, keys: _Keys, own: restic.HostKey) -> None:
    there = keys.read()
    if not there:
        return  # there is no repository yet
    left = [
        name
        for name, data in there.items()
        if name in own.made or restic.is_left_by_this_host(data, clock.now())
    ]
    if left:
        keys.remove(left)
    if (others := len(there) - len(left)) >= _MOST_KEYS:
        raise PreconditionError(
            f"Looking at the keys of {store.location}: it has {others}.",
            hint="Remove those that nobody needs: `restic key list`, `restic key remove`.",
        )
    new, data = store.new_host_key(replace(own, made=()))
    _keep(replace(new, id=""))  # known before it is there, so that it can be removed again
    keys.write(new.id, data)
    try:
        store.require_opened_by(new)
        _keep(new)
    except BaseException:
        keys.remove([new.id])
        raise


def _keep(own: restic.HostKey) -> None:
    own.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    filesystem.atomic_write(own.path, own.to_bytes())


class _Keys:
    """The key files of one repository, by their names."""

    def __init__(self, settings: Settings, asset: Asset | str, tier: Tier) -> None:
        self._bucket = places.bucket(settings) if tier is Tier.S3 else None
        self._directory = places.repository_directory(settings, asset) / "keys"
        self._prefix = f"{places.repository_key(asset)}/keys/"

    def read(self) -> Mapping[str, bytes]:
        if self._bucket:
            found = self._bucket.list(self._prefix)
            return {item.key.rpartition("/")[2]: self._bucket.get(item.key) for item in found}
        # Beside them may lie what a power cut has left of one, which restic passes over too.
        return {path.name: path.read_bytes() for path in self._directory.glob("[0-9a-f]*")}

    def write(self, name: str, data: bytes) -> None:
        if self._bucket:
            self._bucket.put(self._prefix + name, data)
        else:
            filesystem.atomic_write(self._directory / name, data)

    def remove(self, names: Collection[str]) -> None:
        if self._bucket:
            self._bucket.delete([self._prefix + name for name in names])
        else:
            for name in names:
                (self._directory / name).unlink(missing_ok=True)
