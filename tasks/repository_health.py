"""The health of whole repositories: their structure, and in turns every byte that they hold.

A restore test proves one point. What rots meanwhile in the others is found here, before it is
needed.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from lifeboat.core.errors import RecoveryError, TransientError, VerificationFailed
from lifeboat.core.marks import Kind
from lifeboat.core.points import Asset, Tier
from lifeboat.core.proof import share_now
from lifeboat.settings import Settings
from lifeboat.tools import restic
from tasks import clock, locks, marks, places
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_WORDS = 300  # characters of restic's own words in a message
_NAMED = 3  # packs in a message; all are in the remedy
_OTHER = {Tier.S3: Tier.LOCAL, Tier.LOCAL: Tier.S3}


@step(retries=1)
def check_repository(
    settings: Settings,
    asset: Asset,
    tier: Tier,
    *,
    cache: Path,
    sample_percent: float | None = None,
) -> None:
    """Check a repository's structure and read a share of its packs: today's, or a sample.

    `cache` is a directory for restic that is thrown away. Raises VerificationFailed, naming the
    repository, its damaged packs and what to do. Points whose copies in S3 are harmed do not count
    as verified any longer.
    """
    locks.stand_aside(settings, doing=f"Checking the {tier} repository of {asset}")
    store = dataclasses.replace(places.repository(settings, asset, tier), cache_directory=cache)
    share = share_now(
        clock.now(),
        every_seconds=settings.keep.restore_test_seconds,
        within_days=settings.keep.read_all_days,
    )
    read = str(share) if sample_percent is None else f"{sample_percent:g}%"
    found = store.check(read=read)
    if found.problems:
        log.warning("%s: looking again, with the repository to itself.", found.problems[:_WORDS])
        try:
            found = store.check(read=read if sample_percent is None else "100%", alone=True)
        except TransientError as error:
            log.warning("Without it, the first look counts: %s", error)
    current_run().fact(
        **{
            f"{asset}_{tier}_read": read,
            f"{asset}_{tier}_check_seconds": round(found.seconds, 3),
        }
    )
    if found.problems:
        raise VerificationFailed(
            f"Checking the {tier} repository of {asset}, {store.location}: "
            + _what(settings, asset, tier, store, found),
            hint=_remedy(asset, tier, store, found),
        )


def _what(
    settings: Settings, asset: Asset, tier: Tier, store: restic.Repository, found: restic.Health
) -> str:
    parts = [
        f"{how} packs: {', '.join(packs[:_NAMED])}{_more(len(packs))}"
        for how, packs in (("missing", found.missing_packs), ("damaged", found.damaged_packs))
        if packs
    ]
    if found.packs:
        parts.append(_harm(settings, tier, store, found))
    elif found.index_is_damaged:
        parts.append("its index lacks what the points refer to")
    else:  # also what is lost for good
        parts.append(found.problems[:_WORDS])
    return f"{'; '.join(parts)}."


def _more(count: int) -> str:
    return f" and {count - _NAMED} more" if count > _NAMED else ""


def _harm(settings: Settings, tier: Tier, store: restic.Repository, found: restic.Health) -> str:
    """Which points are harmed; one that was verified from S3 is so no longer."""
    try:
        ids = store.harmed_by(found.packs)
        harmed = [snapshot.tags for snapshot in store.snapshots() if snapshot.id in ids]
    except RecoveryError as error:
        return f"which points lack something by it can't be told ({error})"
    points = sorted(tags["point"] for tags in harmed if "point" in tags)
    if tier is Tier.S3:
        for point in points:
            forget_verified(settings, point)
    told = f"points that lack something by it: {len(points)}"
    told += f", the newest {points[-1]}" if points else ""
    return told + ("; and the key of the WAL" if len(harmed) > len(points) else "")


def forget_verified(settings: Settings, point: str) -> None:
    """Let a point that was found damaged count as not verified, in both tiers.

    Retention then holds on to the newest of those that still do.
    """
    try:
        marks.remove(settings, Kind.VERIFIED, point)
    except RecoveryError as error:
        log.error("%s still looks verified: %s", point, error)


def _remedy(asset: Asset, tier: Tier, store: restic.Repository, found: restic.Health) -> str:
    restic_ = f"restic -r {store.location}"
    until = (
        f"Until it is mended recover with --from {_OTHER[tier]}. To mend it, with RESTIC_PASSWORD "
        "set to the vault's password:"
    )
    if found.packs:
        first = [f"`{restic_} repair index`"] if found.missing_packs else []
        if found.damaged_packs:
            first.append(f"`{restic_} repair packs {' '.join(found.damaged_packs)}`")
        return (
            f"{until} {', '.join(first)}, then `lifeboat backup {asset}`: it stores again what is "
            "still here. The next test tells whether older points have lost files for good."
        )
    if found.index_is_damaged:
        return f"{until} `{restic_} repair index` makes it anew from the packs that are there."
    if found.something_is_lost:
        return (
            f"Some points have lost files here; recover those with --from {_OTHER[tier]}. If "
            f"`lifeboat backup {asset}` does not store them again, `{restic_} repair snapshots "
            "--forget` lets them go."
        )
    return (
        f"{until} see https://restic.readthedocs.io/en/stable/077_troubleshooting.html. Copy it "
        "aside first: what can't be read now may still be read by someone."
    )
