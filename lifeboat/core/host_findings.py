"""What only the platform's own host can tell: the hot copy, the receiver, the disk, its places."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from lifeboat.core import coverage
from lifeboat.core.alarms import Finding, Limits, failed, passed, unknown
from lifeboat.core.exposure import trusted
from lifeboat.core.plan import age_in_words
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.protection import State, wrong
from lifeboat.core.survey import Host, HostReport, Survey, Unseen

_GROWTH_WINDOW = timedelta(days=7)
_LEAST_SPAN_SECONDS = 6 * 3600.0  # less tells nothing of a week
_DAY_SECONDS = 86400.0
_SLOW_SECONDS = 10.0


def hot_copy_findings(survey: Survey, host: Host, now: datetime) -> Iterator[Finding]:
    """`hot-copy`: the copy that is renamed into place is there, whole, and the newest there is."""
    name = "hot-copy"
    advice = "Run `lifeboat backup database`: it makes a new one. Until then a recovery restores."
    hot = host.hot_copy
    store = survey.store(Asset.DATABASE, Tier.LOCAL)
    points = () if store is None or isinstance(store.points, Unseen) else store.points
    newest = next(iter(trusted(points, now)), None)
    if isinstance(hot, Unseen):
        yield unknown(name, hot.why)
    elif hot is None:
        yield failed(name, "there is none, so that a lost database is not back at once", advice)
    elif hot.problem:
        yield failed(name, f"{hot.point}: {hot.problem}", advice)
    elif newest and newest.taken_at > hot.taken_at:
        yield failed(name, f"{hot.point} is older than {newest.id}", advice)
    else:
        yield passed(name, f"{hot.point}: every file is there, in its size")


def receiver_findings(host: Host, limits: Limits) -> Iterator[Finding]:
    """`wal-receiver`: what the database writes is received at once, as the settings ask for."""
    name = "wal-receiver"
    advice = "Look at the service that runs `lifeboat wal receive`, and at its log."
    receiver = host.receiver
    if isinstance(receiver, Unseen):
        yield unknown(name, receiver.why)
        return
    told = f"{receiver.lag_bytes} bytes behind, {receiver.kept_percent:.0f} % of its slot"
    if receiver.problems:
        what = " ".join(problem.what for problem in receiver.problems)
        yield failed(name, what, receiver.problems[0].advice)
    elif not receiver.streaming:
        yield failed(
            name, f"it does not stream: what is written now is not protected; {told}", advice
        )
    elif limits.synchronous and not receiver.synchronous:
        yield failed(
            name,
            f"commits wait for no receiver although the settings say synchronous; {told}",
            "It was switched off (`lifeboat wal asynchronous`), or is not the one that commits "
            f"wait for. {advice}",
        )
    else:
        mode = "synchronous" if receiver.synchronous else "asynchronous"
        yield passed(name, f"streams ({mode}), {told}")


def listing_findings(host: Host) -> Iterator[Finding]:
    """`bucket-listing`: what is written to the bucket is in its listing at once.

    The catalogue is the store: a listing that lags hides the newest points, and tempts a prune.
    """
    name = "bucket-listing"
    listing = host.listing
    if isinstance(listing, Unseen):
        yield failed(
            name,
            listing.why,
            "Nothing leaves this host meanwhile. Look at the network, at vault.s3 and its keys.",
        )
    elif not listing.same_content:
        yield failed(
            name,
            "an object that was just written came back with other content",
            "Do not trust this store. Look at caches or proxies between this host and the bucket.",
        )
    elif not listing.listed:
        yield failed(
            name,
            "an object that was just written is not in the listing, which is stale",
            "Look at caches or proxies between this host and the bucket; Lifeboat needs a store "
            "with consistent listings. Do not prune meanwhile.",
        )
    elif listing.seconds > _SLOW_SECONDS:
        yield failed(
            name,
            f"writing, listing and reading one small object took {listing.seconds:.0f} s",
            "Look at the network: a recovery from S3 would be as slow.",
        )
    else:
        yield passed(name, f"shows what was just written ({listing.seconds:.1f} s)")


def protection_findings(host: Host) -> Iterator[Finding]:
    """`bucket-protection`: a thief with our key still can't destroy what the bucket holds.

    Asked again and again, because an attack may begin with switching it off.
    """
    name = "bucket-protection"
    if isinstance(host.protection, Unseen):
        yield unknown(name, host.protection.why)
        return
    missing = wrong(host.protection, ())
    if not missing:
        names = ", ".join(found.protection for found in host.protection)
        yield passed(name, names or "all of it is done without, by the settings")
        return
    told = "; ".join(f"{found.protection}: {found.state}, {found.evidence}" for found in missing)
    advice = " ".join(dict.fromkeys(found.remedy for found in missing if found.remedy))
    if all(found.state is State.UNKNOWN for found in missing):
        yield unknown(name, told, advice)
    else:
        yield failed(name, told, advice or "Run `lifeboat prepare s3` with an administrator's key.")


# --- space ----------------------------------------------------------------------------------


def free_space_findings(
    survey: Survey, host: Host, limits: Limits, now: datetime
) -> Iterator[Finding]:
    """`free-space`: the next base copy fits, and so do some days of growth without a prune."""
    name = "free-space"
    if isinstance(host.space, Unseen):
        yield unknown(name, host.space.why)
        return
    free = host.space.free_bytes
    store = survey.store(Asset.DATABASE, Tier.LOCAL)
    points = () if store is None or isinstance(store.points, Unseen) else store.points
    newest = next(iter(trusted(points, now)), None)
    # As much again as the repository may grow by, see tasks.database.copy_base.
    needed = host.space.reserve_bytes + (2 * newest.bytes if newest else 0)
    told = f"{free / 1e9:.1f} GB free"
    advice = "Free some space, shorten retention.local_days, or give the vault a larger disk."
    if free < needed:
        what = f"the next backup of the database needs {needed / 1e9:.1f} GB"
        yield failed(name, f"{told}; {what}", advice)
        return
    grown = growth_bytes_per_day(survey, now)
    if grown is None:
        yield passed(name, f"{told}; the vault is too young for a forecast")
        return
    days = (free - needed) / grown if grown > 0 else float("inf")
    told = f"{told}; the vault grows by {grown / 1e9:.2f} GB a day"
    if days < limits.free_space_days:
        yield failed(name, f"{told}: full in {days:.1f} days", advice)
    else:
        ends = f"full in {days:.0f} days" if days < 365 else "not full within a year"
        yield passed(name, f"{told}, without a prune {ends}")


def growth_bytes_per_day(survey: Survey, now: datetime) -> float | None:
    """By how much the local vault grew lately, what prunes gave back not counted.

    None if there is too little to go by. The first point of an asset fills an empty repository and
    says nothing of growth.
    """
    since = now - _GROWTH_WINDOW
    added, oldest = 0.0, now
    for store in survey.stores:
        if store.tier is not Tier.LOCAL or isinstance(store.points, Unseen):
            continue
        ordered: list[RecoveryPoint] = sorted(store.points, key=lambda point: point.taken_at)
        if ordered:
            oldest = min(oldest, max(ordered[0].taken_at, since))
        added += sum(p.added_bytes or 0 for p in ordered[1:] if since <= p.taken_at <= now)
    log = survey.logs.get(Tier.LOCAL)
    if log is not None and not isinstance(log.files, Unseen):
        added += sum(file.bytes for file in log.files if since <= file.modified_at <= now)
    span = (now - oldest).total_seconds()
    return added / span * _DAY_SECONDS if span >= _LEAST_SPAN_SECONDS else None


# --- the platform ---------------------------------------------------------------------------


def coverage_findings(host: Host, limits: Limits) -> Iterator[Finding]:
    """`coverage`: every place of the platform is backed up, or excused by name with a reason."""
    name = "coverage"
    if isinstance(host.places, Unseen):
        yield unknown(name, host.places.why)
        return
    found = coverage.compare(host.places, limits.protected)
    if found.uncovered:
        told = "; ".join(f"{place} ({why})" for place, why in sorted(found.uncovered.items()))
        first = min(found.uncovered)
        yield failed(
            name,
            f"not backed up: {told}",
            "Add it to `files`, `models` or `config.paths` in lifeboat.yaml, or excuse it: "
            f"`watch: {{excused: {{{first!r}: why}}}}`.",
        )
        return
    told = f"{found.covered} protected, {len(found.excused)} excused"
    if found.excused:
        told += f" ({', '.join(f'{place}: {why}' for place, why in found.excused.items())})"
    yield passed(name, told)


def interrupted_findings(host: Host, now: datetime) -> Iterator[Finding]:
    """`interrupted-runs`: no recovery was left half way."""
    name = "interrupted-runs"
    if isinstance(host.interrupted, Unseen):
        yield unknown(name, host.interrupted.why)
    elif host.interrupted:
        told = "; ".join(
            f"{run.id} began {age_in_words(now - run.began_at)} ago and did not end ({run.told})"
            for run in host.interrupted
        )
        yield failed(
            name, told, "Run it again: what it had done is kept. Then `lifeboat verify` settles it."
        )
    else:
        yield passed(name, "no recovery was left half way")


def verified_host_findings(host: Host) -> Iterator[Finding]:
    """`host-verified`: this host was not recovered without its checks having passed since.

    Until they have, it makes no backup.
    """
    name = "host-verified"
    if host.unproven:
        yield failed(
            name,
            f"this host was recovered ({host.unproven}) and its checks have not passed; no backup "
            "is made meanwhile",
            "Run `lifeboat verify`; when all checks pass, backups go on.",
        )
    else:
        yield passed(name, "nothing keeps this host from making backups")


# --- the host, from afar --------------------------------------------------------------------


def host_watch_findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    """`host-watch`, seen from another machine: the host looks at itself too, and what only it can
    see is good. Asked only of a host that has left a report.
    """
    name = "host-watch"
    report = survey.host_report
    if report is None:
        return
    if isinstance(report, Unseen):
        yield unknown(name, report.why)
        return
    assert isinstance(report, HostReport)
    limit = limits.late_seconds(limits.watch_seconds)
    age = (now - report.at).total_seconds()
    told = f"it last looked at itself {age_in_words(now - report.at)} ago"
    if age > limit:
        yield failed(
            name,
            f"{told}; late after {age_in_words(timedelta(seconds=limit))}",
            "Is the host there? Look at what runs `lifeboat watch` on it. A host that should not "
            "watch itself: remove records/objectives.json from the bucket.",
        )
    elif report.red:
        red = "; ".join(f"{finding}: {why}" for finding, why in report.red.items())
        yield failed(name, f"{told}, and found {red}", "Run `lifeboat watch` on the host.")
    else:
        yield passed(name, f"{told}, and found nothing")
