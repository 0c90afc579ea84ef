"""Who is told what of an incident, and when: audiences, moments, quiet hours, limits, escalation.

Pure decisions; sending is `tasks/people/communication.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, time, timedelta
from enum import StrEnum

from lifeboat.core.incident import Event, EventKind, Incident, Severity, State


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


def messages_for(
    event: Event, incident: Incident, *, plan_announced: bool = False
) -> tuple[tuple[Moment, tuple[Audience, ...]], ...]:
    """Given a line that was added, say which moments it is, and for whom.

    Those outside hear of it once a recovery was approved, or a person opened the incident: a plan
    that is rejected is no news for a customer.
    """
    kind = event.kind
    by_run = bool(event.run)
    if kind is EventKind.OPENED:
        return ((Moment.OPENED, INTERNAL if by_run else tuple(Audience)),)
    if kind is EventKind.DECIDED:
        found: tuple[tuple[Moment, tuple[Audience, ...]], ...] = ()
        if event.data.get("approved") and not plan_announced:
            found = ((Moment.OPENED, EXTERNAL),)
        return (*found, (Moment.UPDATE, _HEAR_EACH_STEP))
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
    due = incident.opened_at + timedelta(minutes=after_minutes * (incident.escalated + 1))
    if now < due:
        return None
    return _LADDER[: incident.escalated + 1]


def announced(events: Iterable[Event]) -> bool:
    """Say whether those outside were told of the incident's opening."""
    return any(
        e.kind is EventKind.MESSAGE
        and e.data.get("moment") == Moment.OPENED
        and e.data.get("audience") in EXTERNAL
        for e in events
    )
