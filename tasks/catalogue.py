"""Which recovery points there are and what they tell. The catalogue is the store.

Points are read from the repositories each time; there is no second index that could disagree
(DESIGN, section 3).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from lifeboat.core.continuity import BaseCopy
from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError
from lifeboat.core.marks import Verified
from lifeboat.core.points import (
    FACTS_NAME,
    Asset,
    Facts,
    RecoveryPoint,
    Tier,
    merge_copies,
    taken_at_of,
)
from lifeboat.core.suspicion import judge, unpack_counts
from lifeboat.core.wal import parse_lsn
from lifeboat.settings import Settings
from lifeboat.tools import restic
from tasks import clock, marks
from tasks.orchestration import side_by_side
from tasks.places import hot_directory, repository, snapshot_names

log = logging.getLogger("lifeboat")

WAL = "wal"
SET = "set"
CONTENT = "content"
ROWS = "rows"
DIRECTORY_FILES = "directory-files"


def list_points(
    settings: Settings,
    *,
    assets: Collection[Asset] = tuple(Asset),
    tiers: Collection[Tier] = tuple(Tier),
    tolerate_failures: bool = False,
    also_accepted: Collection[str] = (),
) -> tuple[RecoveryPoint, ...]:
    """All recovery points, newest first, with the tiers in which each has a copy.

    Each says whether it is suspicious, as far as can be told from the tiers that were looked at.
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
    in_bucket = Tier.S3 in tiers
    notes = {
        "verified": functools.partial(marks.verified_points, settings, in_bucket=in_bucket),
        "accepted": functools.partial(marks.accepted_points, settings, in_bucket=in_bucket),
    }
    told = side_by_side({**work, **notes})
    verified, accepted = told.pop("verified"), told.pop("accepted")
    for points in told.values():
        found += points
    if Tier.HOT in tiers and Asset.DATABASE in assets:
        found += _hot_points(settings)
    merged = merge_copies(
        _proven(point, mark) if (mark := verified.get(point.id)) else point for point in found
    )
    return judge(
        merged,
        policy=settings.suspicion,
        accepted={*accepted, *also_accepted},
        now=clock.now(),
    )


def _proven(point: RecoveryPoint, mark: Verified) -> RecoveryPoint:
    told = {"verified_at": mark.verified_at, "verified_here_only": not mark.from_s3}
    return point.model_copy(update=told)


def _or_nothing(name: str, act) -> list[RecoveryPoint]:
    try:
        return act()
    except RecoveryError as error:
        log.warning("No recovery points from %s: %s", name, error)
        return []


def _points_in(settings: Settings, asset: Asset, tier: Tier) -> list[RecoveryPoint]:
    return points_of(repository(settings, asset, tier), asset, tier)


def points_of(store: restic.Repository, asset: Asset, tier: Tier) -> list[RecoveryPoint]:
    """What the snapshots of a repository, oldest first, tell of themselves."""
    snapshots = store.snapshots(tags={"asset": str(asset)})
    for snapshot in snapshots:
        with suppress(PermanentError):
            _facts_paths[store.location, snapshot.id] = facts_path_of(snapshot)
    named = [snapshot for snapshot in snapshots if "point" in snapshot.tags]
    # To an empty repository everything is new, which says nothing of what was backed up.
    return [_point_of(s, asset, tier, compared=number > 0) for number, s in enumerate(named)]


def _point_of(
    snapshot: restic.Snapshot, asset: Asset, tier: Tier, *, compared: bool
) -> RecoveryPoint:
    tags = snapshot.tags
    return RecoveryPoint(
        asset=asset,
        id=tags["point"],
        taken_at=taken_at_of(tags["point"]),
        copies={tier: snapshot.id},
        bytes=snapshot.bytes,
        files=snapshot.files,
        unmodified_files=snapshot.unmodified_files if compared else None,
        added_bytes=snapshot.added_bytes if compared else None,
        new_blobs=snapshot.new_blobs if compared else None,
        rows=unpack_counts(tags[ROWS]) if ROWS in tags else None,
        directory_files=unpack_counts(tags[DIRECTORY_FILES]) if DIRECTORY_FILES in tags else None,
        set_id=tags.get(SET, ""),
        fingerprint=tags.get(CONTENT, ""),
    )


def _hot_points(settings: Settings) -> list[RecoveryPoint]:
    return [
        RecoveryPoint(
            asset=Asset.DATABASE,
            id=facts.point,
            taken_at=facts.taken_at,
            copies={Tier.HOT: str(directory)},
            bytes=facts.directories["base"].bytes,
            files=facts.directories["base"].files,
            rows=facts.database.tables if facts.database else None,
            set_id=facts.set_id,
        )
        for directory, facts in _hot_copies(settings)
    ]


def _hot_copies(settings: Settings) -> Iterator[tuple[Path, Facts]]:
    """Each hot copy's directory, and what it says of itself; a damaged one is told and left out."""
    for path in hot_directory(settings).glob(f"*/{FACTS_NAME}"):
        # `.partial`: a backup that did not finish. No base: a recovery has renamed it into place.
        if path.parent.suffix or not (path.parent / "base").is_dir():
            continue
        # A newer one may take its place while we look.
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            try:
                facts = parse_facts(data, where=str(path))
            except PermanentError as error:
                log.warning("%s", error)
                continue
            yield path.parent, facts


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


# A snapshot never changes, and whoever reads its facts has just listed it: restic takes half a
# second to open a repository, so that once less is felt in every recovery.
_facts_paths: dict[tuple[str, str], str] = {}


def facts_path(store: restic.Repository, snapshot_id: str) -> str:
    if known := _facts_paths.get((store.location, snapshot_id)):
        return known
    snapshot = next((s for s in store.snapshots() if s.id == snapshot_id), None)
    if snapshot is None:
        raise PermanentError(
            f"Reading the facts of snapshot {snapshot_id[:8]}: it is not there.",
            hint="Choose another recovery point.",
        )
    return facts_path_of(snapshot)


def facts_path_of(snapshot: restic.Snapshot) -> str:
    """Where a snapshot has its `lifeboat.json`. Raises PermanentError if it has none."""
    path = next((p for p in snapshot.paths if p.endswith("/" + FACTS_NAME)), None)
    if path is None:
        raise PermanentError(
            f"Reading the facts of snapshot {snapshot.short_id}: it has no {FACTS_NAME}.",
            hint="Choose another recovery point.",
        )
    return path


def newest_facts(
    settings: Settings, *, tiers: Collection[Tier] = tuple(Tier), not_after: datetime | None = None
) -> dict[Asset, Facts]:
    """The facts of the newest trusted point of each asset; an asset without one is left out.

    A suspicious one would let a platform that has lost half of its data pass for whole.
    """
    points = list_points(settings, tiers=tiers, tolerate_failures=True)
    newest: dict[Asset, RecoveryPoint] = {}
    for point in points:
        if not point.suspicion and (not_after is None or point.taken_at <= not_after):
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


def base_copies(settings: Settings, tier: Tier) -> tuple[BaseCopy, ...]:
    """What each base copy in a tier needs of the WAL, newest first; hot copies count as local.

    A copy whose description is damaged is told and left out: no recovery could use it either.
    """
    found: dict[str, BaseCopy] = {}
    if tier is not Tier.S3:
        found = {facts.point: base_copy_of(facts) for _, facts in _hot_copies(settings)}
    if tier is not Tier.HOT:
        found |= {base.point: base for base in _stored_bases(settings, tier)}
    return tuple(sorted(found.values(), key=lambda base: base.taken_at, reverse=True))


# Asked for every minute; restic itself is asked only when there are other snapshots than before.
_bases_of: dict[str, tuple[frozenset[str], tuple[BaseCopy, ...]]] = {}


def _stored_bases(settings: Settings, tier: Tier) -> tuple[BaseCopy, ...]:
    store = repository(settings, Asset.DATABASE, tier)
    names = snapshot_names(settings, Asset.DATABASE, tier)
    known = _bases_of.get(store.location)
    if known is None or known[0] != names:
        bases = []
        told = store.snapshots(tags={"asset": str(Asset.DATABASE)}) if names else ()
        for snapshot in (snapshot for snapshot in told if "point" in snapshot.tags):
            if base := _tagged_base(snapshot) or _described_base(store, snapshot):
                bases.append(base)
        known = _bases_of[store.location] = (names, tuple(bases))
    return known[1]


def _tagged_base(snapshot: restic.Snapshot) -> BaseCopy | None:
    point, tag = snapshot.tags["point"], snapshot.tags.get(WAL, "")
    try:
        return BaseCopy.of_tag(tag, point=point, taken_at=taken_at_of(point))
    except PreconditionError:
        return None


_described: dict[tuple[str, str], BaseCopy | None] = {}


def _described_base(store: restic.Repository, snapshot: restic.Snapshot) -> BaseCopy | None:
    """Of a copy from before its tags told all, what its `lifeboat.json` says; read once."""
    key = (store.location, snapshot.id)
    if key not in _described:
        try:
            told = store.dump(snapshot.id, facts_path_of(snapshot))
            where = f"{snapshot.tags['point']} in {store.location}"
            _described[key] = base_copy_of(parse_facts(told, where=where))
        except PermanentError as error:
            log.warning("%s", error)
            _described[key] = None
    return _described[key]


def base_copy_of(facts: Facts) -> BaseCopy:
    """What a base copy needs of the WAL. Raise PermanentError if the point is none."""
    told = facts.database
    if told is None:
        raise PermanentError(f"Reading {facts.point}: it holds no database.")
    return BaseCopy(
        point=facts.point,
        system_identifier=told.system_identifier,
        timeline=told.timeline,
        start_lsn=parse_lsn(told.start_lsn),
        stop_lsn=parse_lsn(told.stop_lsn),
        segment_bytes=told.wal_segment_bytes,
        taken_at=facts.taken_at,
    )
