"""Who is told what of an incident, and when: audiences, moments, quiet hours, limits, escalation.

Pure decisions; sending is `tasks/people/communication.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum

from lifeboat.core.incident import Delivered, Event, EventKind, Incident, Severity, State


class Moment(StrEnum):
    OPENED = "opened"
    UPDATE = "update"
    RECOVERED = "recovered"
    CLOSED = "closed"
    ESCALATED = "escalated"


class Audience(StrEnum):
    """The plan's internal roles, and its ways to those outside."""

    INCIDENT_COMMANDER = "incident_commander"
    TECHNICAL_TEAM = "technical_team"
    MANAGEMENT = "management"
    SUPPORT = "support"
    STATUS_PAGE = "status_page"
    CUSTOMER_EMAIL = "customer_email"
    CUSTOMER_SMS = "customer_sms"
    SOCIAL_MEDIA = "social_media"

    @property
    def is_internal(self) -> bool:
        return self in INTERNAL


INTERNAL = (
    Audience.INCIDENT_COMMANDER,
    Audience.TECHNICAL_TEAM,
    Audience.MANAGEMENT,
    Audience.SUPPORT,
)
EXTERNAL = tuple(audience for audience in Audience if audience not in INTERNAL)

# Those who act are told as it goes; the others when it begins, when it is over, and by hand.
_HEAR_EACH_STEP = (Audience.INCIDENT_COMMANDER, Audience.TECHNICAL_TEAM)
_LADDER = (Audience.TECHNICAL_TEAM, Audience.MANAGEMENT)
# Quiet hours are over by then; what is older is of an incident that nobody wants to hear of now.
_STALE = timedelta(days=2)
DRILL_HEAD = "This is a drill. Nothing real has happened.\n\n"


def messages_for(
    event: Event, incident: Incident, *, plan_announced: bool = False
) -> tuple[tuple[Moment, tuple[Audience, ...]], ...]:
    """Given a line that was added, say which moments it is, and for whom.

    Those outside hear of it once a recovery was approved, or a person opened the incident: a plan
    that is rejected is no news for a customer.
    """
    kind = event.kind
    by_run = bool(event.run)
    if kind is EventKind.JOINED and event.data.get("anew"):
        return ((Moment.OPENED, INTERNAL),)
    if kind is EventKind.OPENED:
        return ((Moment.OPENED, INTERNAL if by_run else tuple(Audience)),)
    if kind is EventKind.DECIDED:
        found: tuple[tuple[Moment, tuple[Audience, ...]], ...] = ()
        if event.data.get("approved") and not plan_announced:
            found = ((Moment.OPENED, EXTERNAL),)
        # Whom it has woken wants to know that it was for nothing.
        wide = event.data.get("well_again")
        return (*found, (Moment.UPDATE, INTERNAL if wide else _HEAR_EACH_STEP))
    if kind is EventKind.NOTE:
        named = [Audience(name) for name in event.data.get("audiences", ())]
        return ((Moment.UPDATE, tuple(named) or INTERNAL),)
    if kind in (EventKind.FAILED, EventKind.SEVERITY, EventKind.COMMANDER, EventKind.JOINED):
        wide = kind is EventKind.FAILED
        return ((Moment.UPDATE, INTERNAL if wide else _HEAR_EACH_STEP),)
    if kind is EventKind.RECOVERED:
        return ((Moment.RECOVERED, tuple(Audience)),)
    if kind is EventKind.CLOSED:
        return ((Moment.CLOSED, tuple(Audience)),)
    return ()


def in_quiet_hours(now: time, *, begin: time, end: time) -> bool:
    """Say whether a time of day is in a span that may go over midnight."""
    return begin <= now < end if begin <= end else now >= begin or now < end


def withheld_because(
    incident: Incident,
    audience: Audience,
    moment: Moment,
    *,
    now: datetime,
    quiet: bool,
    at_most_per_hour: int,
) -> str:
    """Say why a message is not sent now; empty if it is.

    Nothing about a critical incident is held back by quiet hours, and no limit holds back more
    than updates.
    """
    if quiet and incident.severity is not Severity.CRITICAL:
        return "quiet hours"
    if moment is Moment.UPDATE:
        hour_ago = now - timedelta(hours=1)
        # A message to three persons of a role is one message.
        sent = {
            (m.title, m.at)
            for m in incident.messages
            if m.audience == audience and m.reached and m.moment == moment and m.at > hour_ago
        }
        if len({at.replace(microsecond=0) for _, at in sent}) >= at_most_per_hour:
            return f"more than {at_most_per_hour} updates in an hour"
    return ""


@dataclass(frozen=True)
class Held:
    """What was held back from one receiver and nothing was sent since, the oldest first."""

    audience: Audience
    to: str
    messages: tuple[Delivered, ...]

    @property
    def newest(self) -> Delivered:
        return self.messages[-1]


def held_back(incident: Incident, *, now: datetime) -> tuple[Held, ...]:
    """Give what each receiver has still to hear: every message that is sent tells of those before.

    What was held back for more than two days is not sent any more.
    """
    held: dict[tuple[str, str], list[Delivered]] = {}
    for message in incident.messages:
        mine = held.setdefault((message.audience, message.to), [])
        if not message.withheld:
            mine.clear()
        elif now - message.at <= _STALE:
            mine.append(message)
    return tuple(
        Held(Audience(audience), to, tuple(messages))
        for (audience, to), messages in held.items()
        if messages
    )


def due_now(
    incident: Incident, *, now: datetime, quiet: bool, at_most_per_hour: int
) -> tuple[Held, ...]:
    """Give what was held back and is to be sent now, as one message for each receiver."""
    return tuple(
        held
        for held in held_back(incident, now=now)
        if not withheld_because(
            incident,
            held.audience,
            Moment(held.newest.moment),
            now=now,
            quiet=quiet,
            at_most_per_hour=at_most_per_hour,
        )
    )


def with_earlier(body: str, earlier: Iterable[Delivered], audience: Audience) -> str:
    """Add to a text what was held back before it, a line for each; a short message stays short."""
    earlier = tuple(earlier)
    if not earlier or audience is Audience.CUSTOMER_SMS:
        return body
    lines = [f"- {m.at:%Y-%m-%d %H:%M} UTC, {m.moment}: {_first_line(m)}" for m in earlier]
    return "\n".join([body, "", "Held back before this message:", *lines])


def _first_line(message: Delivered) -> str:
    body = message.body.removeprefix(DRILL_HEAD).strip()
    return body.splitlines()[0] if body else message.title


def escalates_to(
    incident: Incident, *, now: datetime, after_minutes: float
) -> tuple[Audience, ...] | None:
    """Say who is told next that nobody has acknowledged; None: it is not the time, or all were.

    First the technical team, then management too; after that it goes on with management, at most
    three times.
    """
    if incident.state is not State.OPEN or incident.acknowledged_at or incident.drill:
        return None
    if incident.escalated >= len(_LADDER) + 1:
        return None
    due = incident.woke_people_at + timedelta(minutes=after_minutes * (incident.escalated + 1))
    if now < due:
        return None
    return _LADDER[: incident.escalated + 1]


def announced(events: Iterable[Event]) -> bool:
    """Say whether those outside were told of the trouble, and not since that it is over."""
    told = False
    for event in events:
        if event.kind is EventKind.RECOVERED:
            told = False
        elif event.kind is EventKind.MESSAGE and event.data.get("moment") == Moment.OPENED:
            told = told or event.data.get("audience") in EXTERNAL
    return told
