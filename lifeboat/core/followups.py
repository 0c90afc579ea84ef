"""Follow-ups: the plan's Post-Recovery Actions as dated tasks, each with an owner and its history.

A list of follow-ups is a file of JSON lines that is only ever added to; what they are now is worked
out of it. Pure: `now` is passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

COMMANDER, TECHNICAL, MANAGEMENT = "Incident Commander", "Technical Team", "Management"

MACHINE = "lifeboat"
_SOON = 0.2  # of the time that there was: from then on it is told that it is due


class Horizon(StrEnum):
    """The plan's three lists."""

    IMMEDIATE = "0-24 hours"
    SHORT = "1-7 days"
    LONG = "1-4 weeks"

    @property
    def span(self) -> timedelta:
        return {
            Horizon.IMMEDIATE: timedelta(hours=24),
            Horizon.SHORT: timedelta(days=7),
            Horizon.LONG: timedelta(days=28),
        }[self]


class _Frozen(BaseModel):
    # A newer Lifeboat may add keys.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Action(_Frozen):
    """One line of the plan's lists. `by_machine`: Lifeboat does it, and a person only reads."""

    name: str
    title: str
    how: str
    horizon: Horizon
    owner: str
    by_machine: bool = False


ACTIONS: tuple[Action, ...] = (
    Action(
        name="monitor-stability",
        title="Monitor system stability",
        how="Lifeboat looks every 15 minutes and compares with the time before; it tells what "
        "drifts, and closes this when the watch is over.",
        horizon=Horizon.IMMEDIATE,
        owner=TECHNICAL,
        by_machine=True,
    ),
    Action(
        name="review-logs",
        title="Review logs for anomalies",
        how="Lifeboat compares the errors in each service's log with those before. Where there "
        "are more, read that log: `docker compose logs SERVICE`.",
        horizon=Horizon.IMMEDIATE,
        owner=TECHNICAL,
        by_machine=True,
    ),
    Action(
        name="update-alerts",
        title="Update monitoring alerts",
        how="Would an alarm have told you of this disaster earlier? Add it, and see it fire once.",
        horizon=Horizon.IMMEDIATE,
        owner=TECHNICAL,
    ),
    Action(
        name="document-lessons",
        title="Document lessons learned",
        how="Fill in what the post-incident report could not know: why it happened, what helped, "
        "what was in the way.",
        horizon=Horizon.IMMEDIATE,
        owner=COMMANDER,
    ),
    Action(
        name="hold-review",
        title="Conduct the post-incident review",
        how="Everybody who took part, the report on the table, no blame. Each decision becomes a "
        "follow-up: `lifeboat followups add`.",
        horizon=Horizon.SHORT,
        owner=COMMANDER,
    ),
    Action(
        name="update-procedures",
        title="Update the disaster recovery procedures",
        how="What had to be done by hand, or was not as the plan says? Change lifeboat.yaml, or "
        "the card, or the code.",
        horizon=Horizon.SHORT,
        owner=TECHNICAL,
    ),
    Action(
        name="test-backup-integrity",
        title="Test backup integrity",
        how="Lifeboat closes this when a restore test of every asset has passed since the "
        "recovery: `lifeboat test-restore`.",
        horizon=Horizon.SHORT,
        owner=TECHNICAL,
        by_machine=True,
    ),
    Action(
        name="review-coverage",
        title="Review monitoring coverage",
        how="`lifeboat watch` names what is not covered; look too at what nothing watches.",
        horizon=Horizon.SHORT,
        owner=TECHNICAL,
    ),
    Action(
        name="prevent-it",
        title="Implement preventive measures",
        how="What keeps this from happening again? Name it, do it, and say here what was done.",
        horizon=Horizon.LONG,
        owner=TECHNICAL,
    ),
    Action(
        name="update-plan",
        title="Update the disaster recovery plan",
        how="`lifeboat plan` writes it anew from what is so; read it, print it, replace the one "
        "in the safe.",
        horizon=Horizon.LONG,
        owner=COMMANDER,
    ),
    Action(
        name="hold-drill",
        title="Conduct a disaster recovery drill",
        how="Lifeboat closes this when a drill of all scenarios has passed since the recovery: "
        "`lifeboat drill --record-in LIFEBOAT.YAML` on the staging machine.",
        horizon=Horizon.LONG,
        owner=TECHNICAL,
        by_machine=True,
    ),
    Action(
        name="review-objectives",
        title="Review and update RTO and RPO targets",
        how="Compare what it took and what was lost with `objectives` in lifeboat.yaml; the "
        "readiness page has both.",
        horizon=Horizon.LONG,
        owner=MANAGEMENT,
    ),
)
"""The plan's section "Post-Recovery Actions", in its order."""


class FollowUp(_Frozen):
    """One thing to do, and what has become of it."""

    id: str
    source: str  # the recovery, incident or review that asks for it
    name: str
    title: str
    how: str = ""
    horizon: Horizon
    owner: str
    by_machine: bool = False
    rehearsal: bool = False  # asked for by a drill
    opened_at: datetime
    due_at: datetime
    snoozed_until: datetime | None = None
    done_at: datetime | None = None
    done_by: str = ""
    notes: tuple[str, ...] = ()  # what was found and said, oldest first

    @property
    def is_done(self) -> bool:
        return self.done_at is not None

    @property
    def wanted_at(self) -> datetime:
        """When it is to be done, after all snoozing."""
        return max(self.due_at, self.snoozed_until or self.due_at)

    def status(self, now: datetime) -> Literal["done", "open", "due", "overdue"]:
        if self.is_done:
            return "done"
        if now >= self.wanted_at:
            return "overdue"
        if self.snoozed_until and now < self.snoozed_until:
            return "open"
        return "due" if now >= self.wanted_at - _SOON * (self.due_at - self.opened_at) else "open"


Deed = Literal["opened", "done", "reopened", "snoozed", "assigned", "noted"]


class Event(_Frozen):
    """One line of the file: what was done to one follow-up, when and by whom."""

    at: datetime
    follow_up: str
    event: Deed
    by: str = MACHINE
    opened: FollowUp | None = None
    until: datetime | None = None
    owner: str = ""
    note: str = ""


def opened(
    source: str,
    now: datetime,
    *,
    owners: dict[str, str] | None = None,
    rehearsal: bool = False,
    without: Iterable[str] = (),
) -> tuple[Event, ...]:
    """Open the plan's actions for one recovery or incident, dated from now.

    `owners` names another owner by the action's name, or by the role that the plan has for it.
    """
    left_out, owners = set(without), owners or {}
    return tuple(
        open_one(
            source,
            now,
            name=action.name,
            title=action.title,
            how=action.how,
            horizon=action.horizon,
            owner=owners.get(action.name) or owners.get(action.owner) or action.owner,
            by_machine=action.by_machine,
            rehearsal=rehearsal,
        )
        for action in ACTIONS
        if action.name not in left_out
    )


def open_one(
    source: str,
    now: datetime,
    *,
    name: str,
    title: str,
    horizon: Horizon,
    owner: str,
    due_at: datetime | None = None,
    by: str = MACHINE,
    **more: object,
) -> Event:
    """Open one follow-up. Its id is short enough to be typed, and the same for the same thing."""
    found = FollowUp(
        id=f"{name}-{source.rpartition('-')[2]}",
        source=source,
        name=name,
        title=title,
        horizon=horizon,
        owner=owner,
        opened_at=now,
        due_at=due_at or now + horizon.span,
        **more,  # type: ignore[arg-type]
    )
    return Event(at=now, follow_up=found.id, event="opened", by=by, opened=found)


def parse_lines(lines: Iterable[str]) -> tuple[tuple[Event, ...], int]:
    """The events of a file, and how many lines could not be read: a crash may cut the last one."""
    events, damaged = [], 0
    for line in filter(str.strip, lines):
        try:
            events.append(Event.model_validate_json(line))
        except ValidationError:
            damaged += 1
    return tuple(events), damaged


def states(events: Iterable[Event]) -> tuple[FollowUp, ...]:
    """What the follow-ups of a file are now, in the order in which they were opened."""
    found: dict[str, FollowUp] = {}
    for event in events:
        known = found.get(event.follow_up)
        if event.event == "opened":
            if event.opened and known is None:
                found[event.follow_up] = event.opened
        elif known:
            found[event.follow_up] = _after(known, event)
    return tuple(found.values())


def _after(known: FollowUp, event: Event) -> FollowUp:
    changes: dict[str, object] = {}
    if event.note:
        changes["notes"] = (*known.notes, event.note)
    if event.event == "done":
        changes |= {"done_at": event.at, "done_by": event.by}
    elif event.event == "reopened":
        changes |= {"done_at": None, "done_by": ""}
    elif event.event == "snoozed":
        changes["snoozed_until"] = event.until
    elif event.event == "assigned":
        changes["owner"] = event.owner
    return known.model_copy(update=changes)


def by_urgency(found: Iterable[FollowUp], now: datetime) -> tuple[FollowUp, ...]:
    """What is open, the most urgent first; then what is done, the newest first."""
    found = tuple(found)
    todo = sorted((f for f in found if not f.is_done), key=lambda f: (f.wanted_at, f.opened_at))
    done = sorted((f for f in found if f.done_at), key=lambda f: f.done_at or now, reverse=True)
    return (*todo, *done)


def matching(found: Sequence[FollowUp], wanted: str) -> tuple[FollowUp, ...]:
    """The follow-ups that are meant: by the id, or else by how it begins, those that are open."""
    exact = tuple(f for f in found if f.id == wanted)
    if exact:
        return exact
    return tuple(f for f in found if f.id.startswith(wanted) and not f.is_done)
