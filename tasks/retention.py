"""What the vault lets go: points behind the policy, and the WAL that no kept base needs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from lifeboat.core import retention
from lifeboat.core.continuity import BaseCopy
from lifeboat.core.errors import PreconditionError
from lifeboat.core.marks import Hold, Kind
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.retention import Decision, Policy
from lifeboat.core.wal import format_lsn
from lifeboat.settings import Settings
from tasks import catalogue, clock, journals, locks, marks, places
from tasks.orchestration import side_by_side, step
from tasks.record import current_run
from tasks.wal.wal_shipping import SEALED

log = logging.getLogger("lifeboat")


class Pruning(BaseModel):
    """What will be kept and removed in one tier, each with its reason."""

    model_config = ConfigDict(frozen=True)

    tier: Tier
    decisions: Mapping[Asset, tuple[Decision, ...]]
    wal: tuple[str, ...]  # keys below the bucket's prefix, or paths below the local vault

    def removed(self, asset: Asset) -> tuple[RecoveryPoint, ...]:
        return tuple(d.point for d in self.decisions.get(asset, ()) if not d.keep)

    def in_words(self) -> str:
        lines = [f"{self.tier}:"]
        for asset, decisions in self.decisions.items():
            for decided in decisions:
                what = "keep  " if decided.keep else "REMOVE"
                lines.append(f"  {what} {decided.point.id}: {decided.reason}")
            if not decisions:
                lines.append(f"  no point of {asset}")
        lines.append(f"  WAL: {len(self.wal)} segments that no kept base needs")
        return "\n".join(lines)


@step(retries=2)
def decide(settings: Settings) -> tuple[Pruning, ...]:
    """Decide for both tiers. Nothing is changed.

    Raises if a tier can't be read: what is kept there is not known, so nothing may go.
    """
    held = held_points(settings).keys()
    now = clock.now()
    policies = {
        Tier.LOCAL: Policy(days=settings.retention.local_days, minimum=settings.retention.minimum),
        Tier.S3: Policy(days=settings.retention.s3_days, minimum=settings.retention.minimum),
    }
    # Together, so that what is verified or suspicious in one tier is so in the other.
    points = catalogue.list_points(settings, tiers=tuple(policies))
    found = {
        tier: {
            asset: retention.decide(
                (p for p in points if p.asset is asset and tier in p.copies),
                policy,
                now=now,
                held=held,
            )
            for asset in Asset
        }
        for tier, policy in policies.items()
    }
    wal = _wal_to_remove(settings, {tier: found[tier][Asset.DATABASE] for tier in found})
    return tuple(
        Pruning(tier=tier, decisions=decisions, wal=wal[tier]) for tier, decisions in found.items()
    )


def look(settings: Settings) -> tuple[Pruning, ...]:
    """Decide, and show each decision with its reason in the log and the run's record."""
    prunings = decide(settings)
    told = "\n".join(pruning.in_words() for pruning in prunings)
    current_run().keep("retention.txt", told)
    log.info("Retention decides:\n%s", told)
    return prunings


def prune(settings: Settings) -> tuple[Pruning, ...]:
    """Remove what the policy lets go, and give what was decided; raises as `remove` does."""
    prunings = look(settings)
    remove(settings, prunings)
    return prunings


def _wal_to_remove(
    settings: Settings, decisions: Mapping[Tier, Iterable[Decision]]
) -> dict[Tier, tuple[str, ...]]:
    """Each cluster's WAL from before the oldest of its own base copies that are kept.

    Of a cluster without one nothing goes: what its WAL is for is not known.
    """
    bases = {tier: _kept_bases(settings, tier, decided) for tier, decided in decisions.items()}
    here, there = _wal_by_cluster(settings)
    found: dict[Tier, list[str]] = {tier: [] for tier in decisions}
    for cluster in {*here, *there}:
        local, remote = here.get(cluster, {}), there.get(cluster, {})
        ours = {
            tier: [base for base in kept if base.system_identifier == cluster]
            for tier, kept in bases.items()
        }
        lengths = {base.segment_bytes for kept in ours.values() for base in kept}
        if len(lengths) != 1:
            if lengths:
                log.warning("No WAL of %s is removed: its segments' length changed.", cluster)
            continue
        starts = {tier: [format_lsn(b.start_lsn) for b in kept] for tier, kept in ours.items()}
        [segment_bytes] = lengths
        gone_here = retention.local_wal_to_remove(
            local,
            in_s3=remote,
            kept_here=starts[Tier.LOCAL],
            kept_in_s3=starts[Tier.S3],
            segment_bytes=segment_bytes,
        )
        gone_there = retention.wal_to_remove(
            remote, kept_start_lsns=starts[Tier.S3], segment_bytes=segment_bytes
        )
        found[Tier.LOCAL] += [path for name in gone_here for path in local[name]]
        found[Tier.S3] += [key for name in gone_there for key in remote[name]]
    return {tier: tuple(sorted(names)) for tier, names in found.items()}


def _kept_bases(settings: Settings, tier: Tier, decided: Iterable[Decision]) -> list[BaseCopy]:
    """The base copies that stay in a tier; every hot copy stays, and counts as local."""
    gone = {decision.point.id for decision in decided if not decision.keep}
    if tier is Tier.LOCAL:
        hot = catalogue.base_copies(settings, Tier.HOT)
        gone -= {base.point for base in hot}
    return [base for base in catalogue.base_copies(settings, tier) if base.point not in gone]


def _wal_by_cluster(
    settings: Settings,
) -> tuple[dict[str, dict[str, list[str]]], dict[str, dict[str, list[str]]]]:
    """What there is here and in S3: by system identifier and plain name, each where it lies.

    Two clusters give their segments the same names, and a receiver that began anew has written
    some a second time.
    """
    here: dict[str, dict[str, list[str]]] = {}
    root = places.wal_directory(settings)
    for path in root.glob("*/*/*"):
        cluster = path.parent.parent.name
        where = here.setdefault(cluster, {}).setdefault(path.name, [])
        where.append(str(path.relative_to(root)))
    there: dict[str, dict[str, list[str]]] = {}
    for item in places.bucket(settings).list("database/wal/"):
        _, _, cluster, *_, name = item.key.split("/")
        where = there.setdefault(cluster, {}).setdefault(name.removesuffix(SEALED), [])
        where.append(item.key)
    return here, there


def remove(settings: Settings, prunings: Iterable[Pruning]) -> None:
    """Remove what was decided, asset by asset, each while no backup of it runs.

    An asset that fails, or is being backed up, keeps what it has and does not hold up the others;
    what failed is raised in the end. The WAL goes only if the base copies before it are gone.
    """
    prunings = tuple(prunings)
    work = {str(asset): functools.partial(_remove_of, settings, asset, prunings) for asset in Asset}
    try:
        side_by_side(work, at_once=1)
    finally:
        records_removed = journals.forget_everyday_runs(
            places.runs_directory(settings),
            began_before=clock.now() - timedelta(days=settings.retention.local_days),
        )
        current_run().fact(records_removed=records_removed)


def _remove_of(settings: Settings, asset: Asset, prunings: tuple[Pruning, ...]) -> None:
    gone = {f"{asset} {p.tier}": p for p in prunings if p.removed(asset)}
    with (
        locks.backup_lock(settings, asset, run="prune-backups"),
        locks.removal(settings, run="prune-backups"),
    ):
        side_by_side(
            {name: functools.partial(remove_points, settings, asset, p) for name, p in gone.items()}
        )
    removed = sum(len(p.removed(asset)) for p in gone.values())
    current_run().fact(**{f"{asset}_points_removed": removed})
    if asset is Asset.DATABASE:
        with locks.removal(settings, run="prune-backups"):
            for pruning in prunings:
                remove_wal(settings, pruning)
        current_run().fact(wal_removed=sum(len(p.wal) for p in prunings))


@step(retries=1)
def remove_points(settings: Settings, asset: Asset, pruning: Pruning) -> None:
    """Forget snapshots and give their space back."""
    gone = pruning.removed(asset)
    current_run().about_to(
        "remove points", tier=str(pruning.tier), points=" ".join(point.id for point in gone)
    )
    store = places.repository(settings, asset, pruning.tier)
    store.forget([point.copies[pruning.tier] for point in gone])
    store.prune()


@step(retries=1)
def remove_wal(settings: Settings, pruning: Pruning) -> None:
    if pruning.tier is Tier.S3:
        if pruning.wal:
            places.bucket(settings).delete(pruning.wal)
        return
    root = places.wal_directory(settings)
    for name in pruning.wal:
        (root / name).unlink(missing_ok=True)


# --- holds ----------------------------------------------------------------------------------


def hold(settings: Settings, point_id: str, *, why: str) -> None:
    """Keep a point until it is released. Raises PreconditionError if there is no such point."""
    known = {point.id for point in catalogue.list_points(settings, tolerate_failures=True)}
    if point_id not in known:
        raise PreconditionError(
            f"Holding {point_id}: there is no such recovery point.",
            hint="`lifeboat points` lists them.",
        )
    mark = Hold(point=point_id, why=why, since=clock.now())
    marks.put(settings, Kind.HOLDS, point_id, mark, bucket_first=True)


def release(settings: Settings, point_id: str) -> None:
    """Let retention decide on a point again."""
    if point_id not in held_points(settings):
        raise PreconditionError(f"Releasing {point_id}: it is not on hold.")
    marks.remove(settings, Kind.HOLDS, point_id)


def held_points(settings: Settings) -> dict[str, str]:
    """Points on hold, and why: what this host or the bucket knows. Raises if one can't be read."""
    found = marks.read_all(settings, Kind.HOLDS)
    return {name: mark.why for name, mark in found.items() if isinstance(mark, Hold)}
