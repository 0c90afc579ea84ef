"""Tell people of an incident: made by template, sent by the first channel that takes it, recorded.

Nothing here ever raises: telling must not stop what it tells of. Of each message the incident keeps
who was reached by which channel, which did not take it, and who was not reached at all.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zoneinfo import ZoneInfo

from filelock import FileLock, Timeout

from lifeboat.core import communication as core
from lifeboat.core import incident_report
from lifeboat.core.checklist import PLACEHOLDER
from lifeboat.core.communication import Audience, Moment
from lifeboat.core.errors import RecoveryError
from lifeboat.core.incident import Event, EventKind, Incident
from lifeboat.settings import Channel, Settings
from lifeboat.tools import messages, notify
from tasks import clock, many
from tasks.people import incident_log, incidents

log = logging.getLogger("lifeboat")


@dataclass(frozen=True)
class Message:
    """One text for one person, or for one public place."""

    audience: Audience
    moment: Moment
    to: str
    channels: tuple[Channel, ...]
    text: messages.Text
    withheld: str = ""


@dataclass
class _Outcome:
    channel: str = ""
    not_taken: dict[str, str] = field(default_factory=dict)


# --- what would be told -----------------------------------------------------------------------


def messages_of(settings: Settings, incident: Incident, event: Event) -> tuple[Message, ...]:
    """Give each message that a line of an incident is the reason for, with those held back."""
    found: list[Message] = []
    told = core.announced(incident.events)
    for moment, audiences in core.messages_for(event, incident, plan_announced=told):
        found += at_moment(settings, incident, event, moment, audiences)
    return tuple(found)


def at_moment(
    settings: Settings,
    incident: Incident,
    event: Event,
    moment: Moment,
    audiences: Sequence[Audience],
) -> list[Message]:
    """Give what is told at a moment, to whom, with what is held back."""
    how = settings.communication
    told = _receivers_of(settings, incident, audiences)
    values = _values(settings, incident, event)
    waiting = {
        (one.audience, one.to): one.messages for one in core.held_back(incident, now=clock.now())
    }
    found = []
    for audience, to, channels in told:
        kinds = [str(audience), "internal" if audience.is_internal else "external"]
        text = messages.render(moment, kinds, values, own=how.templates)
        if text.problem:
            log.warning("A template of yours is passed over for ours: %s", text.problem)
        if incident.drill:
            text = replace(
                text, title=f"[DRILL] {text.title}", body=f"{core.DRILL_HEAD}{text.body}"
            )
        because = core.withheld_because(
            incident,
            audience,
            moment,
            now=clock.now(),
            quiet=_is_quiet(settings),
            at_most_per_hour=how.at_most_per_hour,
        )
        if not because:
            earlier = waiting.get((audience, to), ())
            text = replace(text, body=core.with_earlier(text.body, earlier, audience))
        found.append(Message(audience, moment, to, channels, text, because))
    return found


def _receivers_of(
    settings: Settings, incident: Incident, audiences: Sequence[Audience]
) -> list[tuple[Audience, str, tuple[Channel, ...]]]:
    """Who is told of an incident; of a drill its own channels, in place of people."""
    how = settings.communication
    if incident.drill and not how.drill_to_people:
        return [(a, str(a), how.drill_channels) for a in audiences if how.drill_channels]
    return [r for audience in audiences for r in receivers(settings, audience)]


def receivers(
    settings: Settings, audience: Audience
) -> list[tuple[Audience, str, tuple[Channel, ...]]]:
    """Who of an audience is told: persons, or a public place that has a way to it."""
    if audience.is_internal:
        persons = settings.people.by_role[audience]
        return [(audience, person.name, person.channels) for person in persons]
    channels = settings.communication.external.by_name[audience]
    return [(audience, audience.replace("_", " "), channels)] if channels else []


def _values(settings: Settings, incident: Incident, event: Event) -> dict[str, Any]:
    lately = [e for e in incident.events if e.at >= incident.woke_people_at]

    def last(kind: EventKind) -> Event | None:
        return next((e for e in reversed(lately) if e.kind is kind), None)

    planned, detected = last(EventKind.PLANNED), last(EventKind.DETECTED)
    joined = event.kind is EventKind.JOINED
    began = event.at if joined else incident.began_at or incident.opened_at
    people = [p for persons in settings.people.by_role.values() for p in persons if p.phone]
    return {
        "incident": incident,
        "event": event,
        "trouble": event.text if joined else incident.title,
        "since": f"{began:%Y-%m-%d %H:%M} UTC",
        "running": max(0.0, (event.at - began).total_seconds()),
        "symptoms": detected.text if detected else "",
        "expected_loss": planned.data.get("expected_loss") if planned else "",
        "expected_seconds": planned.data.get("expected_seconds") if planned else None,
        "figures": incident.figures,
        **_figures_in_words(settings, incident),
        "phones": ", ".join(dict.fromkeys(f"{p.name} {p.phone}" for p in people)),
    }


def _figures_in_words(settings: Settings, incident: Incident) -> dict[str, str]:
    """The verdict as the report says it; empty what was not measured."""
    figures, wanted = incident.figures, settings.objectives
    rpo = {"rpo_seconds", "lost_at_most_seconds", "files_gone"} & figures.keys()
    return {
        "rto": incident_report.rto_in_words(figures, wanted.rto_seconds)
        if "rto_seconds" in figures
        else "",
        "rpo": incident_report.rpo_in_words(figures, wanted.rpo_seconds) if rpo else "",
        "checks": incident_report.checks_in_words(figures),
    }


def _is_quiet(settings: Settings) -> bool:
    hours = settings.communication.quiet_hours
    if hours is None:
        return False
    now = clock.now().astimezone(ZoneInfo(hours.timezone)).time()
    return core.in_quiet_hours(now, begin=hours.begin, end=hours.end)


# --- telling ------------------------------------------------------------------------------------


def tell(settings: Settings, incident: Incident, event: Event) -> tuple[Message, ...]:
    """Tell all whom a line of an incident concerns; write down who was reached. Never raises."""
    try:
        wanted = messages_of(settings, incident, event)
        _send_and_record(settings, incident, wanted)
        return wanted
    except Exception as error:
        log.error("Telling people of %s: %s: %s", incident.id, type(error).__name__, error)
        return ()


def _send_and_record(settings: Settings, incident: Incident, wanted: Sequence[Message]) -> None:
    def deliver(message: Message) -> None:
        outcome = _Outcome() if message.withheld else _send(settings, message)
        _record(settings, incident, message, outcome)

    if wanted:
        many.act_on_all(wanted, deliver, doing="Telling people")


def _send(settings: Settings, message: Message) -> _Outcome:
    """Try a person's channels in their order until one takes the message."""
    outcome = _Outcome()
    alarm = message.moment not in (Moment.RECOVERED, Moment.CLOSED)
    for channel in message.channels:
        why = send_by(settings, channel, to=message.to, text=message.text, alarm=alarm)
        if not why:
            outcome.channel = channel.name
            return outcome
        outcome.not_taken[channel.name] = why
    log.error("NOT REACHED: %s (%s): %s", message.to, message.audience, message.text.title)
    return outcome


def send_by(
    settings: Settings, channel: Channel, *, to: str, text: messages.Text, alarm: bool
) -> str:
    """Send by one channel; say why it was not taken, empty if it was. Never raises."""
    try:
        notify.send(
            settings.fill(channel.url),
            title=text.title,
            body=text.body,
            alarm=alarm,
            doing=f"Telling {to} by {channel.name}",
            timeout_seconds=settings.communication.timeout_seconds,
            secrets=_secrets(settings),
        )
    except RecoveryError as error:
        log.warning("%s", error)
        return str(error.message)
    except Exception as error:
        # A defect of a service's plugin is the failure of that channel, and of nothing else.
        log.warning("Telling %s by %s: %s", to, channel.name, type(error).__name__)
        return type(error).__name__
    return ""


def _secrets(settings: Settings) -> list[str]:
    """All that must not be in an error: what is known as secret, and what any address holds.

    Of any, because Apprise's log does not tell messages apart that are sent side by side.
    """
    how = settings.communication
    lists = [p.channels for persons in settings.people.by_role.values() for p in persons]
    lists += [*how.external.by_name.values(), how.drill_channels]
    names = {name for one in lists for c in one for name in PLACEHOLDER.findall(c.url)}
    held = [settings.optional_secret(name) for name in names]
    return [*filter(None, held), *(secret.value for secret in settings.known_secrets())]


def _record(settings: Settings, incident: Incident, message: Message, outcome: _Outcome) -> None:
    if message.withheld:
        told = f"{message.moment} to {message.to} was held back: {message.withheld}"
    elif outcome.channel:
        told = f"{message.moment} to {message.to} by {outcome.channel}"
    else:
        told = f"{message.moment}: {message.to} WAS NOT REACHED"
    data = {
        "audience": str(message.audience),
        "moment": str(message.moment),
        "to": message.to,
        "title": message.text.title,
        "body": message.text.body,
        "channel": outcome.channel,
        "not_taken": outcome.not_taken,
        "withheld": message.withheld,
    }
    event = Event(at=clock.now(), kind=EventKind.MESSAGE, text=told, by="lifeboat", data=data)
    incidents.append(settings, incident.id, event)


incident_log.when_told.append(tell)


# --- each minute ---------------------------------------------------------------------------------


def each_minute(settings: Settings) -> tuple[Incident, ...]:
    """Send what was held back and is due; then escalate. Give the incidents that were escalated."""
    send_held_back(settings)
    return escalate(settings)


def send_held_back(settings: Settings) -> tuple[Message, ...]:
    """Send what was held back and may be sent now: one message for each receiver, the newest, which
    tells of those before it. Give them.
    """
    told: list[Message] = []
    with _one_at_a_time(settings) as mine:
        for incident in incidents.list_incidents(settings) if mine else ():
            due = core.due_now(
                incident,
                now=clock.now(),
                quiet=_is_quiet(settings),
                at_most_per_hour=settings.communication.at_most_per_hour,
            )
            if not due:
                continue
            try:
                wanted = [m for held in due for m in _late(settings, incident, held)]
                _send_and_record(settings, incident, wanted)
                told += wanted
            except Exception as error:
                log.error("Telling late of %s: %s: %s", incident.id, type(error).__name__, error)
            incidents.mirror(settings, incident.id)
    return tuple(told)


def _late(settings: Settings, incident: Incident, held: core.Held) -> list[Message]:
    newest, earlier = held.newest, held.messages[:-1]
    about = f"This was held back since {newest.at:%Y-%m-%d %H:%M} UTC: {newest.withheld}."
    body = f"{newest.body}\n\n{about}" if held.audience.is_internal else newest.body
    text = messages.Text(
        title=newest.title, body=core.with_earlier(body, earlier, held.audience), template=""
    )
    moment = Moment(newest.moment)
    return [
        Message(audience, moment, to, channels, text)
        for audience, to, channels in _receivers_of(settings, incident, (held.audience,))
        if to == held.to
    ]


def escalate(settings: Settings) -> tuple[Incident, ...]:
    """Tell the next people of each incident that nobody has acknowledged in time.

    Give those that were told of. What was told is in the incident, so that whoever looks next
    knows, also after a restart.
    """
    told = []
    with _one_at_a_time(settings) as mine:
        for incident in incidents.list_incidents(settings) if mine else ():
            now = clock.now()
            after = settings.communication.escalate_after_minutes
            audiences = core.escalates_to(incident, now=now, after_minutes=after)
            if audiences is None:
                continue
            whom = ", ".join(audience.replace("_", " ") for audience in audiences)
            event = Event(
                at=now,
                kind=EventKind.ESCALATED,
                text=f"Nobody has acknowledged; told: {whom}",
                by="lifeboat",
            )
            changed = incidents.append(settings, incident.id, event)
            try:
                wanted = at_moment(settings, changed, event, Moment.ESCALATED, audiences)
                _send_and_record(settings, changed, wanted)
            except Exception as error:
                log.error("Escalating %s: %s: %s", incident.id, type(error).__name__, error)
            incidents.mirror(settings, incident.id)
            told.append(changed)
    return tuple(told)


@contextlib.contextmanager
def _one_at_a_time(settings: Settings) -> Iterator[bool]:
    place = incidents.directory(settings)
    if not place.is_dir():  # no incident here, and the lock would begin a vault
        yield False
        return
    try:
        with FileLock(place / ".escalate.lock", timeout=0):
            yield True
    except (OSError, Timeout):
        yield False
