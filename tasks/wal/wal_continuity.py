"""Whether the log of a store is whole: looked at from outside, by names, without opening a base.

The look sees the store alone, so that a watcher on another machine sees the same.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from lifeboat.core import continuity, wal
from lifeboat.core.continuity import BaseCopy, Continuity
from lifeboat.core.errors import PermanentError, RecoveryError
from lifeboat.core.marks import Gap, Kind
from lifeboat.core.points import Tier
from lifeboat.core.wal import Switch, history_timeline
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, seal
from tasks import catalogue, clock, marks, places, vault
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_NOT_AGAIN = timedelta(minutes=15)


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


def bases_left_behind(
    settings: Settings, tiers: Collection[Tier] = (Tier.LOCAL, Tier.S3), *, holes: bool = True
) -> frozenset[str]:
    """The base copies from which the WAL does not lead to the newest row, as the names tell.

    Those on a branch that a point-in-time recovery has left, and, if `holes`, those behind which
    each of the tiers lacks a segment. A tier that does not answer is left out with a warning.
    """
    leads: dict[str, bool] = {}
    for tier in tiers:
        try:
            found = look(settings, tier)
        except RecoveryError as error:
            log.warning(
                "Whether the WAL in %s leads to the newest row is not known: %s", tier, error
            )
            continue
        for reach in found.reaches:
            fits = reach.whole if holes else reach.leads_to_newest
            leads[reach.base.point] = leads.get(reach.base.point, False) or fits
    return frozenset(point for point, fits in leads.items() if not fits)


# --- gaps -----------------------------------------------------------------------------------


def notice(settings: Settings, tier: Tier, running: str = "") -> Continuity:
    """Look, write down what is new of gaps and what has gone of them, and say what was seen.

    `running` is the system identifier of the database, where that is known: it may be another
    cluster than the one that the base copies are of.
    """
    found = look(settings, tier)
    now = {_name_of(gap): gap for gap in _gaps_in(found, tier, running)}
    before = _noted(settings, tier)
    for name, gap in now.items():
        known = before.get(name)
        if known is None or known.closed_at:
            log.error("%s", gap.why)
            current_run().fact(**{f"gap_{tier}": gap.why})
            marks.put(settings, Kind.GAPS, name, gap)
        elif (known.newest_base, known.base_is_behind) != (gap.newest_base, gap.base_is_behind):
            same = {"noticed_at": known.noticed_at}
            marks.put(settings, Kind.GAPS, name, gap.model_copy(update=same))
    for name, known in before.items():
        if name not in now and not known.closed_at:
            log.info("%s: what was missing is there again, or nothing needs it.", tier)
            closed = known.model_copy(update={"closed_at": clock.now()})
            marks.put(settings, Kind.GAPS, name, closed)
    return found


def _noted(settings: Settings, tier: Tier) -> dict[str, Gap]:
    """What this host has written down of gaps in a tier."""
    known = marks.read_all(settings, Kind.GAPS, in_bucket=False)
    return {n: gap for n, gap in known.items() if isinstance(gap, Gap) and gap.tier == str(tier)}


def _name_of(gap: Gap) -> str:
    return f"{gap.tier}-{gap.missing or 'other-history'}"


def _gaps_in(found: Continuity, tier: Tier, running: str) -> Iterator[Gap]:
    newest = found.newest_base
    if newest is None:
        return

    def gap(why: str, missing: str = "", *, base_is_behind: bool) -> Gap:
        return Gap(
            tier=str(tier),
            missing=missing,
            why=f"The WAL in {tier}: {why}",
            newest_base=newest.base.point,
            base_is_behind=base_is_behind,
            noticed_at=clock.now(),
            earliest=found.earliest,
        )

    if running and running != found.system_identifier:
        yield gap(
            f"the database is another cluster ({running}) than the one of the newest base copy, "
            f"{newest.base.point}. {_MOVED_TO_NEXT}",
            base_is_behind=True,
        )
    elif not newest.leads_to_newest:
        yield gap(
            f"the database went on on timeline {found.timeline}, which does not come from the "
            f"newest base copy, {newest.base.point} on timeline {newest.base.timeline}. "
            + _moved_to(found),
            base_is_behind=True,
        )
    for missing in dict.fromkeys(r.missing for r in found.broken if r.leads_to_newest):
        yield gap(
            f"segment {missing} is missing. {_moved_to(found)} Moments before the gap can be "
            "reached all the same.",
            missing,
            base_is_behind=newest.missing == missing,
        )


_MOVED_TO_NEXT = "The earliest recoverable point moved to the next base copy, which is due now."


def _moved_to(found: Continuity) -> str:
    reach = found.whole_from
    if reach is None:
        return _MOVED_TO_NEXT
    moment = f"{reach.base.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"The earliest recoverable point moved to {moment} ({reach.base.point})."


def base_is_due_because(settings: Settings) -> str | None:
    """Why a new base copy must be made at once, whatever the age of the newest; None: no reason.

    Goes by the gaps that were noticed, so that it costs next to nothing to ask. What was noticed
    before the newest base copy of that tier was made is no reason any more.
    """
    for tier in (Tier.LOCAL, Tier.S3):
        behind = [gap for gap in _noted(settings, tier).values() if gap.base_is_behind]
        behind = [gap for gap in behind if not gap.closed_at]
        if not behind:
            continue
        try:
            if _is_still_newest(settings, tier, behind[-1].newest_base):
                return behind[-1].why
        except RecoveryError as error:
            log.warning("Looking whether a base copy is due: %s", error)
    return None


def _is_still_newest(settings: Settings, tier: Tier, point: str) -> bool:
    newest = next(iter(catalogue.base_copies(settings, tier)), None)
    if newest is None or newest.point != point:
        return False
    if tier is Tier.LOCAL:
        return True
    # The copy that S3 lacks may just have been made, and not have got there.
    here = next(iter(catalogue.base_copies(settings, Tier.LOCAL)), None)
    return here is None or clock.now() - here.taken_at > _NOT_AGAIN


# --- what a store holds ---------------------------------------------------------------------


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
        if _is_wal(name):
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
    return _sorted_in((f.system_identifier, f.name, f.path) for f in local_files(settings))


# --- the local files ------------------------------------------------------------------------


@dataclass(frozen=True)
class WalFile:
    """A WAL file that the receiver has written: a segment, a `.partial` or a history."""

    system_identifier: str
    name: str
    path: Path

    @property
    def is_partial(self) -> bool:
        return self.name.endswith(wal.PARTIAL)

    @property
    def key(self) -> str:
        """Of its object in the bucket."""
        return places.wal_key(self.system_identifier, self.name)


def local_files(settings: Settings) -> list[WalFile]:
    """Every WAL file of the local vault, in no order."""
    root = places.wal_directory(settings)
    if not root.exists():
        return []
    found = []
    for entry in filesystem.walk(root):
        *_, system, _, name = entry.path.split("/")
        if _is_wal(name):
            found.append(WalFile(system, name, Path(entry.path)))
    return found


def _is_wal(name: str) -> bool:
    return wal.is_segment_name(name.removesuffix(wal.PARTIAL)) or (
        history_timeline(name) is not None
    )


def newest_partials(files: Iterable[WalFile]) -> list[WalFile]:
    """Of each cluster the partial segments of the newest timeline that has one.

    What an older timeline has beyond the switch leads to a moment that was left behind, and what it
    has before is in the newer one's first segment too.
    """
    partials = [file for file in files if file.is_partial]
    newest: dict[str, str] = {}
    for file in partials:
        system = file.system_identifier
        newest[system] = max(file.name[:8], newest.get(system, ""))
    chosen = (f for f in partials if f.name[:8] == newest[f.system_identifier])
    return sorted(chosen, key=lambda file: file.key)


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
