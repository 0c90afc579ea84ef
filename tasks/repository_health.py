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
    parts = []
    for how, packs in (("missing", found.missing_packs), ("damaged", found.damaged_packs)):
        if packs:
            parts.append(f"{len(packs)} packs are {how} ({', '.join(packs[:3])})")
    if found.packs:
        parts.append(_harm(settings, tier, store, found))
    elif found.index_is_damaged:
        parts.append("its index lacks what the points refer to")
    return f"{'; '.join([*parts, found.problems[:_WORDS]])}."


def _harm(settings: Settings, tier: Tier, store: restic.Repository, found: restic.Health) -> str:
    """Which points are harmed; one that was verified from S3 is so no longer."""
    try:
        snapshots = store.harmed_by(found.packs)
        points = sorted(s.tags["point"] for s in store.snapshots() if s.id in snapshots)
    except (RecoveryError, KeyError) as error:
        return f"which points that harms can't be told ({error})"
    if tier is Tier.S3:
        for point in points:
            forget_verified(settings, point)
    return f"{len(points)} points are harmed, the newest {points[-1] if points else 'none'}"


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
    until = f"Until it is mended recover with --from {_OTHER[tier]}."
    if found.packs:
        first = "repair index"
        if found.damaged_packs:
            first = f"repair packs {' '.join(found.damaged_packs)}"
        return (
            f"{until} `{restic_} {first}`, then `lifeboat backup {asset}`: it stores again what is "
            f"still here. If `{restic_} check` is not content then, older points have lost files: "
            f"`{restic_} repair snapshots --forget` lets them go."
        )
    if found.index_is_damaged:
        return f"{until} `{restic_} repair index` makes it anew from the packs; nothing is lost."
    return (
        f"{until} Other points in it may be whole: copy it aside before you mend it, see "
        "https://restic.readthedocs.io/en/stable/077_troubleshooting.html."
    )
