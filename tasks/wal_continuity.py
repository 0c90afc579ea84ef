"""Whether the log of a store is whole: looked at from outside, by names, without opening a base.

The look sees the store alone, so that a watcher on another machine sees the same.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lifeboat.core import continuity, wal
from lifeboat.core.continuity import BaseCopy, Continuity
from lifeboat.core.errors import PermanentError
from lifeboat.core.points import Tier
from lifeboat.core.wal import Switch, history_timeline
from lifeboat.settings import Settings
from lifeboat.tools import seal
from tasks import catalogue, places, vault

log = logging.getLogger("lifeboat")


def look(settings: Settings, tier: Tier) -> Continuity:
    """What the log of the bucket, or of the local vault, is good for.

    Costs one listing and one look at the snapshots; histories are opened, once a process, only
    where there is more than one timeline. Raises TransientError if the store can't be reached.
    """
    bases = catalogue.base_copies(settings, tier)
    found = _judge(settings, tier, bases)
    # A segment that was being closed while the names were read may have been passed over.
    return _judge(settings, tier, bases) if found.broken else found


def _judge(settings: Settings, tier: Tier, bases: Sequence[BaseCopy]) -> Continuity:
    store = _bucket(settings) if tier is Tier.S3 else _local(settings)
    ours = bases[0].system_identifier if bases else ""
    size = bases[0].segment_bytes if bases else wal.DEFAULT_SEGMENT_BYTES
    names = store.names.get(ours, frozenset())
    return continuity.judge(
        bases,
        whole=wal.whole_segments(names, size),
        partial=wal.partial_segments(names, size),
        histories=_read_histories(settings, store, ours),
        other_systems=store.names.keys() - {ours},
    )


@dataclass(frozen=True)
class _Store:
    """The names of all WAL files by system identifier, and where each history lies."""

    names: Mapping[str, Collection[str]]
    histories: Mapping[tuple[str, int], str | Path] = field(default_factory=dict)


def _sorted_in(found: Iterable[tuple[str, str, str | Path]]) -> _Store:
    names: dict[str, set[str]] = {}
    histories: dict[tuple[str, int], str | Path] = {}
    for system, name, place in found:
        timeline = history_timeline(name)
        if timeline is not None:
            histories[system, timeline] = place
        if timeline is not None or wal.is_segment_name(name.removesuffix(wal.PARTIAL)):
            names.setdefault(system, set()).add(name)
    return _Store(names, histories)


def _bucket(settings: Settings) -> _Store:
    keys = (item.key for item in places.bucket(settings).list(places.WAL_PREFIX))
    told = ((key, key.removeprefix(places.WAL_PREFIX).split("/")) for key in keys)
    return _sorted_in(
        (words[0], words[-1].removesuffix(places.SEALED), key)
        for key, words in told
        if len(words) == 3 and words[-1].endswith(places.SEALED)
    )


def _local(settings: Settings) -> _Store:
    paths = places.wal_directory(settings).glob("*/*/*")
    return _sorted_in((path.parent.parent.name, path.name, path) for path in paths)


# --- histories ------------------------------------------------------------------------------

# Histories never change; opening those of the bucket asks the vault for its key.
_opened: dict[str, tuple[Switch, ...]] = {}


def _read_histories(
    settings: Settings, store: _Store, system_identifier: str
) -> continuity.Histories:
    found: dict[int, tuple[Switch, ...]] = {}
    identity = ""
    for (system, timeline), place in sorted(store.histories.items(), key=lambda item: item[0]):
        if system != system_identifier:
            continue
        if isinstance(place, Path):
            found[timeline] = wal.parse_history(place.read_text())
            continue
        known = f"{places.bucket(settings).restic_location(place)}"
        if known not in _opened:
            identity = identity or vault.wal_identity(settings)
            try:
                sealed = places.bucket(settings).get(place)
                text = seal.unseal(sealed, identity, doing=f"Opening {place}").decode()
            except (PermanentError, UnicodeDecodeError) as error:
                log.warning("A history can't be read, as if it were not there: %s", error)
                continue
            _opened[known] = wal.parse_history(text)
        found[timeline] = _opened[known]
    return found
