"""Whether the vault itself is whole, opens, and holds a log without holes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from lifeboat.core.alarms import Finding, Limits, failed, passed, unknown
from lifeboat.core.continuity import Continuity, Foreign
from lifeboat.core.exposure import usable_reach
from lifeboat.core.plan import age_in_words
from lifeboat.core.survey import Cause, Log, Parts, Store, Survey, Unseen
from lifeboat.core.wal import PARTIAL

SMALLEST_SEALED_BYTES = 200
"""No sealed file is smaller: the header of `age` alone has 168 bytes, and each part 16 more."""

_FROM_THE_OTHER = "Until it is cured recover from the other tier (`--from local`, `--from s3`)."


# --- the secret -----------------------------------------------------------------------------


def vault_opens_findings(survey: Survey) -> Iterator[Finding]:
    """`vault-opens-<tier>`: the vault's password still opens every repository there."""
    for tier in survey.tiers:
        name = f"vault-opens-{tier}"
        stores = [store for store in survey.stores if store.tier is tier]
        refused = [store for store in stores if _is_refused(store)]
        opened = [store for store in stores if not isinstance(store.points, Unseen)]
        if refused:
            told = ", ".join(str(store.asset) for store in refused)
            why = next(s.points.why for s in refused if isinstance(s.points, Unseen))
            yield failed(
                name,
                f"the password does not open {told} ({why})",
                "Find the password with which the vault was made, before it is needed: without it "
                "nothing in it can be read.",
            )
        elif opened:
            yield passed(name, f"the password opens {len(opened)} of {len(stores)} repositories")
        else:
            yield unknown(name, _first_reason(stores))


def _is_refused(store: Store) -> bool:
    if not isinstance(store.points, Unseen) or store.points.cause is not Cause.PASSWORD:
        return False
    # Without its key files restic says that the password is wrong.
    return isinstance(store.parts, Unseen) or store.parts.keys > 0


def _first_reason(stores: list[Store]) -> str:
    return next((s.points.why for s in stores if isinstance(s.points, Unseen)), "nothing was seen")


def wal_key_findings(survey: Survey) -> Iterator[Finding]:
    """`wal-key`: every tier that was looked at keeps the key that opens the sealed WAL."""
    name = "wal-key"
    missing, unseen, there = [], [], []
    for tier, log in survey.logs.items():
        if isinstance(log.key, Unseen):
            unseen.append(f"the database's repository in {tier} can't be read")
        else:
            (there if log.key else missing).append(str(tier))
    if missing:
        yield failed(
            name,
            f"the key of the WAL objects is not in {' and '.join(missing)}",
            "Run `lifeboat prepare` on the platform's host: it puts the key back from the other "
            "tier. Without a key WAL in S3 can't be opened.",
        )
    elif unseen:
        yield unknown(name, "; ".join(unseen))
    else:
        yield passed(name, f"in {' and '.join(there)}")


# --- repositories ---------------------------------------------------------------------------


def repository_findings(survey: Survey) -> Iterator[Finding]:
    """`repository-<asset>-<tier>`: the repository is there, answers and has all of its parts.

    Whether every pack that its index names is there and readable is for the restore test.
    """
    for store in survey.stores:
        name = f"repository-{store.asset}-{store.tier}"
        problems = _problems_of(store)
        if problems:
            yield failed(
                name,
                "; ".join(problems),
                f"{_FROM_THE_OTHER} `restic check` says more; a repository that can't be repaired "
                f"is moved aside, made anew by `lifeboat prepare`, and filled by "
                f"`lifeboat backup {store.asset}`.",
            )
        elif isinstance(store.points, Unseen):
            yield unknown(name, store.points.why)
        elif isinstance(store.parts, Unseen):
            yield unknown(name, store.parts.why)
        else:
            parts = store.parts
            yield passed(
                name,
                f"{len(store.points)} points; {parts.indexes} index files, {parts.snapshots} "
                f"snapshots, {parts.keys} keys",
            )


def _problems_of(store: Store) -> list[str]:
    problems = []
    if isinstance(store.points, Unseen) and store.points.cause in (Cause.MISSING, Cause.DAMAGED):
        problems.append(store.points.why)
    if isinstance(store.parts, Parts):
        parts = store.parts
        problems += [
            what
            for is_wrong, what in (
                (not parts.config, "its file `config` is missing"),
                (not parts.keys, "it has no key file, so that no password opens it"),
                (not parts.indexes, "it has no index file, so that no data is found in it"),
                (not parts.snapshots, "it has no snapshot"),
            )
            if is_wrong
        ]
        if parts.stunted:
            problems.append(f"empty or cut short: {', '.join(parts.stunted[:5])}")
    return problems


# --- the log --------------------------------------------------------------------------------


def wal_continuity_findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    """`wal-continuity-<tier>`: a recovery from every base copy finds the log without a hole.

    A hole behind an older base copy can be excused by the name of the missing segment until that
    copy is gone; one behind the newest can't.
    """
    for tier, log in survey.logs.items():
        name = f"wal-continuity-{tier}"
        if isinstance(log.continuity, Unseen):
            yield unknown(name, log.continuity.why)
            continue
        continuity = log.continuity
        reach = usable_reach(survey, continuity)
        if reach is None:
            advice = "Run `lifeboat backup database`."
            yield failed(name, "there is no base copy that can be trusted", advice)
            continue
        advice = (
            "Run `lifeboat backup database` now: from the new base copy on, everything can be "
            "reached again."
        )
        if not reach.whole:
            what = (
                f"segment {reach.missing} is missing behind {reach.base.point}, the base copy that "
                "a recovery takes"
                if reach.missing
                else f"the timeline that is written, {continuity.timeline}, does not go on from "
                f"{reach.base.point}"
            )
            yield failed(name, what, advice)
            continue
        holes = {
            older.missing: older.base.point
            for older in continuity.broken
            if older.missing not in limits.excused
        }
        if holes:
            told = ", ".join(f"{segment} (behind {point})" for segment, point in holes.items())
            yield failed(
                name,
                f"missing segments: {told}; from {reach.base.point} on the log is whole",
                "Moments in the hole can't be reached any more. Once that is accepted, excuse it: "
                f"`watch: {{excused: {{{next(iter(holes))!r}: why}}}}` in lifeboat.yaml.",
            )
        else:
            yield passed(name, _whole_in_words(continuity, now))


def _whole_in_words(continuity: Continuity, now: datetime) -> str:
    earliest = continuity.earliest
    since = f"{age_in_words(now - earliest)} ago" if earliest else "?"
    newest = continuity.newest_name or "the base copy's end"
    return f"every moment since {since} can be reached; newest segment {newest}"


def foreign_findings(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """`foreign-timeline`: all WAL belongs to this database, on timelines of known descent."""
    name = "foreign-timeline"
    found, unseen = [], []
    for tier, log in survey.logs.items():
        if isinstance(log.continuity, Unseen):
            unseen.append(f"the log in {tier} can't be read")
            continue
        # Of a cluster before an upgrade there are base copies of its own.
        own = {reach.base.system_identifier for reach in log.continuity.reaches}
        found += [
            f"{foreign} in {tier}"
            for foreign in log.continuity.foreign
            if not (foreign.timeline is None and foreign.system_identifier in own)
            and _excuse_of(foreign) not in limits.excused
        ]
    if found:
        yield failed(
            name,
            "; ".join(found),
            "Does another host ship into this vault, or was the database made anew? Give each "
            "platform a prefix of its own; after a new cluster run `lifeboat backup database`. "
            "What is known and harmless is excused by its number in watch.excused.",
        )
    elif unseen:
        yield unknown(name, "; ".join(unseen))
    else:
        yield passed(name, "all WAL belongs to this database")


def _excuse_of(foreign: Foreign) -> str:
    if foreign.timeline is None:
        return foreign.system_identifier
    return f"{foreign.system_identifier}/{foreign.timeline}"


def wal_files_findings(survey: Survey) -> Iterator[Finding]:
    """`wal-files-<tier>`: no file of the log is smaller than it can be.

    Whether each can be opened is for the restore test, which reads them all.
    """
    for tier, log in survey.logs.items():
        name = f"wal-files-{tier}"
        if isinstance(log.files, Unseen):
            yield unknown(name, log.files.why)
            continue
        short = [file.name for file in log.files if file.bytes < _smallest_bytes(log, file.name)]
        if short:
            more = f" and {len(short) - 5} more" if len(short) > 5 else ""
            yield failed(
                name,
                f"cut short: {', '.join(short[:5])}{more}",
                "Run `lifeboat backup database` now, so that no recovery needs it. "
                + _FROM_THE_OTHER,
            )
        else:
            yield passed(name, f"{len(log.files)} files, none cut short")


def _smallest_bytes(log: Log, name: str) -> int:
    if log.sealed:
        return SMALLEST_SEALED_BYTES
    if name.endswith(PARTIAL):
        return 0  # it has just been begun
    if name.endswith(".history") or isinstance(log.continuity, Unseen):
        return 1
    return log.continuity.segment_bytes or 1


# --- the configuration in the vault ---------------------------------------------------------


def configuration_findings(survey: Survey) -> Iterator[Finding]:
    """`configuration`: what a blank machine is configured from is not empty and can be read."""
    name = "configuration"
    advice = (
        "Put the file back on the platform's host and run `lifeboat backup config`; "
        "`lifeboat points` names older points of the configuration."
    )
    problems = [f"{point}: {why}" for point, why in survey.unreadable_settings.items()]
    if not isinstance(survey.emptied, Unseen):
        problems += [f"{path} is empty" for path in survey.emptied]
    if problems:
        yield failed(name, "; ".join(problems), advice)
    elif isinstance(survey.emptied, Unseen):
        yield unknown(name, survey.emptied.why)
    else:
        yield passed(name, "no file of the newest configuration was emptied")


def certificate_findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    """`certificates`: none of the configuration's ends soon, and none is only a link.

    One that need not be renewed, or comes from elsewhere, is excused by its path.
    """
    name = "certificates"
    if isinstance(survey.certificates, Unseen):
        yield unknown(name, survey.certificates.why)
        return
    horizon = now + timedelta(days=limits.certificate_days)
    known = {p: end for p, end in survey.certificates.items() if p not in limits.excused}
    soon = sorted((end, path) for path, end in known.items() if end <= horizon)
    elsewhere = [path for path in survey.certificates_elsewhere if path in known]
    if soon:
        told = ", ".join(
            f"{path} ended {age_in_words(now - end)} ago"
            if end <= now
            else f"{path} ends in {age_in_words(end - now)}"
            for end, path in soon
        )
        yield failed(
            name,
            told,
            "Renew it; the next backup of the configuration takes it along. One that nobody uses "
            f"is removed, or excused: `watch: {{excused: {{{soon[0][1]!r}: why}}}}`.",
        )
    elif elsewhere:
        yield failed(
            name,
            f"not backed up, for only a link to it is: {', '.join(elsewhere)}",
            "Name in config.paths a directory that holds both the link and what it leads to, or "
            f"excuse it: `watch: {{excused: {{{elsewhere[0]!r}: why}}}}`.",
        )
    elif known:
        first = min(known.values())
        yield passed(name, f"{len(known)} known; the first ends in {age_in_words(first - now)}")
    elif survey.certificates:
        yield passed(name, f"{len(survey.certificates)} known, all excused")
    else:
        yield passed(name, "the configuration has none")
