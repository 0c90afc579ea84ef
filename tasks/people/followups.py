"""Follow-ups on record: JSON lines below `records/followups/`, in the local vault and the bucket.

One file for each recovery, incident or review that asks for them. Both copies are only ever added
to; where they differ, what either has counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lifeboat.core import followups
from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError, TransientError
from lifeboat.core.followups import Event, FollowUp, Horizon
from lifeboat.core.timeline import Outcome
from lifeboat.settings import Settings
from lifeboat.tools import filesystem
from tasks import clock
from tasks.orchestration import step
from tasks.places import bucket, records_directory
from tasks.record import Run

log = logging.getLogger("lifeboat")

_PREFIX = "records/followups/"
_SUFFIX = ".jsonl"
_LOCK_SECONDS = 30.0
BY_HAND = "by-hand"  # the source of what people add themselves


def directory_of(settings: Settings) -> Path:
    return records_directory(settings) / "followups"


def read_all(settings: Settings, *, tolerate_failures: bool = True) -> tuple[FollowUp, ...]:
    """Every follow-up on record, by what this host and the bucket have of it.

    With `tolerate_failures` an unreachable bucket is told and left out; else it raises.
    """
    found: list[FollowUp] = []
    remote: frozenset[str] = frozenset()
    try:
        keys = (item.key for item in bucket(settings).list(_PREFIX))
        remote = frozenset(key.removeprefix(_PREFIX).removesuffix(_SUFFIX) for key in keys)
    except RecoveryError as error:
        if not tolerate_failures:
            raise
        log.warning("The follow-ups in the bucket can't be read: %s", error)
    here = {path.stem for path in directory_of(settings).glob(f"*{_SUFFIX}")}
    for source in sorted(here | remote):
        local = _local_lines(settings, source)
        # A file that is here holds all that the bucket's does, unless another host wrote to it:
        # that one adds to the bucket's, and this host learns of it when it writes next.
        events = local or _remote_lines(settings, source)
        found += followups.states(_events(source, events))
    return tuple(found)


def _events(source: str, lines: Iterable[str]) -> tuple[Event, ...]:
    events, damaged = followups.parse_lines(lines)
    if damaged:
        log.warning("The follow-ups of %s: %d lines can't be read.", source, damaged)
    return tuple(sorted(events, key=lambda event: event.at))


def _local_lines(settings: Settings, source: str) -> list[str]:
    try:
        return (directory_of(settings) / f"{source}{_SUFFIX}").read_text().splitlines()
    except FileNotFoundError:
        return []


def _remote_lines(settings: Settings, source: str) -> list[str]:
    try:
        return bucket(settings).get(f"{_PREFIX}{source}{_SUFFIX}").decode().splitlines()
    except PermanentError:  # it is not there
        return []


def record(settings: Settings, source: str, events: Iterable[Event]) -> None:
    """Add to what is on record of one source, in both tiers.

    On a machine without the platform's vault the bucket alone is written. An unreachable bucket is
    told, and gets all of it with the next event; it raises only where there is no vault either.
    """
    new = [event.model_dump_json(exclude_defaults=True) for event in events]
    # Defaults are left out, so that a line says what happened and no more.
    if not new:
        return
    if not settings.vault.local.is_dir():
        lines = [*_remote_lines(settings, source), *new]
        bucket(settings).put(f"{_PREFIX}{source}{_SUFFIX}", _text(lines))
        return
    path = directory_of(settings) / f"{source}{_SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.parent / ".lock", timeout=_LOCK_SECONDS):
            local, reached = _local_lines(settings, source), True
            try:
                missing = [line for line in _remote_lines(settings, source) if line not in local]
            except RecoveryError as error:
                log.warning("The follow-ups of %s are only on this host: %s", source, error)
                missing, reached = [], False
            for line in (*missing, *new):
                filesystem.append_line_durably(path, line)
            if reached:
                _publish(settings, source, [*local, *missing, *new])
    except Timeout as error:
        raise TransientError(
            f"Writing the follow-ups of {source}: another process has held them for "
            f"{_LOCK_SECONDS:g} s.",
            hint="Try again.",
        ) from error


def _publish(settings: Settings, source: str, lines: list[str]) -> None:
    try:
        bucket(settings).put(f"{_PREFIX}{source}{_SUFFIX}", _text(lines))
    except RecoveryError as error:
        log.warning("The follow-ups of %s are only on this host: %s", source, error)


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


# --- opened, done, put off ------------------------------------------------------------------


def open_after(settings: Settings, run: Run) -> None:
    """Open the plan's follow-ups when a recovery is done. Never raises: the recovery is done."""
    if run.record.outcome is not Outcome.DONE or run.record.facts.get("dry_run"):
        return
    try:
        open_for(settings, run.id)
    except Exception as error:
        # Not even a defect of ours may make a recovery that is done look failed.
        log.error("Opening the follow-ups of %s: %s: %s", run.id, type(error).__name__, error)


def open_for(settings: Settings, source: str) -> tuple[FollowUp, ...]:
    """Open the plan's follow-ups for a recovery or an incident, once; give those of this source.

    On a staging platform they are marked as those of a rehearsal.
    """
    lines = _local_lines(settings, source)
    if not lines:
        try:
            lines = _remote_lines(settings, source)
        except RecoveryError as error:
            log.warning("Whether the bucket has follow-ups of %s: %s", source, error)
    if known := followups.states(_events(source, lines)):
        return known
    told = settings.follow_ups
    events = followups.opened(
        source,
        clock.now(),
        owners=dict(told.owners),
        rehearsal=settings.environment == "staging",
        without=told.without,
    )
    record(settings, source, events)
    log.info("%d follow-ups are open now: `lifeboat followups`.", len(events))
    return followups.states(events)


def find(settings: Settings, wanted: str) -> FollowUp:
    """The follow-up that is meant. Raises PreconditionError if it is none, or more than one."""
    found = followups.matching(read_all(settings), wanted)
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.id for one in found)
    raise PreconditionError(
        f"Looking for the follow-up {wanted!r}: "
        + (f"it may be {names}." if found else "there is none of that name."),
        hint="`lifeboat followups` lists them. Nothing was changed.",
    )


@step()
def act(
    settings: Settings,
    wanted: str,
    deed: followups.Deed,
    *,
    by: str,
    note: str = "",
    until: datetime | None = None,
    owner: str = "",
) -> FollowUp:
    """Write down what was done to a follow-up, and give what it is now.

    Raises PreconditionError if it is not there, is done already, or would be put off into the past.
    """
    found = find(settings, wanted)
    now = clock.now()
    if found.is_done and deed not in ("reopened", "noted"):
        raise PreconditionError(
            f"Changing {found.id}: it was done on {found.done_at:%Y-%m-%d} by {found.done_by}.",
            hint="Nothing was changed. `lifeboat followups reopen` opens it again.",
        )
    if until is not None and until <= now:
        raise PreconditionError(
            f"Putting off {found.id}: {until:%Y-%m-%d %H:%M} is past.", hint="Nothing was changed."
        )
    event = Event(
        at=now, follow_up=found.id, event=deed, by=by, note=note, until=until, owner=owner
    )
    record(settings, found.source, (event,))
    return followups.states(
        (Event(at=now, follow_up=found.id, event="opened", opened=found), event)
    )[0]


@step()
def add(
    settings: Settings,
    title: str,
    *,
    owner: str,
    due_at: datetime,
    by: str,
    source: str = BY_HAND,
    how: str = "",
) -> FollowUp:
    """Open a follow-up of one's own, e.g. what a post-incident review decided."""
    now = clock.now()
    name = _short(title)
    taken = {one.id for one in read_all(settings)}
    suffix = source.rpartition("-")[2]
    number, unique = 1, name
    while f"{unique}-{suffix}" in taken:
        number += 1
        unique = f"{name}-{number}"
    days = (due_at - now).total_seconds() / 86400
    horizon = Horizon.IMMEDIATE if days <= 1 else Horizon.SHORT if days <= 7 else Horizon.LONG
    event = followups.open_one(
        source,
        now,
        name=unique,
        title=title,
        how=how,
        horizon=horizon,
        owner=owner or followups.COMMANDER,
        due_at=due_at,
        by=by,
        rehearsal=settings.environment == "staging",
    )
    record(settings, source, (event,))
    return followups.states((event,))[0]


def _short(title: str) -> str:
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in title.lower()).split()
    return "-".join(words[:4])[:40] or "follow-up"
