"""What people do with incidents by hand: open, update, acknowledge, close. Each tells people."""

from __future__ import annotations

from typing import Any

from lifeboat.core.communication import EXTERNAL, INTERNAL
from lifeboat.core.errors import PreconditionError
from lifeboat.core.forms import CloseIncident, OpenIncident, UpdateIncident
from lifeboat.core.incident import Event, EventKind, Incident, Severity, State
from lifeboat.settings import Settings
from tasks import clock
from tasks.orchestration import step
from tasks.people import communication, followups, incident_report, incidents, status_page

# Whoever changes an incident comes by here or by a recovery.
incident_report.follow_incidents()
status_page.follow_incidents()


@step()
def open_by_hand(settings: Settings, asked: OpenIncident) -> Incident:
    """Open an incident and tell people of it. Raises PreconditionError without a title."""
    _require(asked.title, "what is wrong", doing="Opening an incident")
    found = incidents.open_incident(
        settings,
        title=asked.title,
        scenario="" if asked.scenario == "unknown" else asked.scenario,
        severity=Severity(asked.severity),
        commander=asked.commander,
    )
    communication.tell(settings, found, found.events[-1])
    return _kept(settings, found)


@step()
def update(settings: Settings, asked: UpdateIncident) -> Incident:
    """Write down what is new of an incident, and tell people.

    Raises PreconditionError if there is no such incident, if it is closed, or if nothing is new.
    """
    _require(asked.by, "who you are", doing="Updating an incident")
    found = _open_one(settings, asked.incident)
    if asked.acknowledge:
        told = f"{asked.by} is on it"
        found = _add(settings, found, EventKind.ACKNOWLEDGED, told, asked.by)
    if asked.severity != "unchanged":
        told = f"The severity is {asked.severity} now"
        found = _add(
            settings, found, EventKind.SEVERITY, told, asked.by, severity=str(asked.severity)
        )
    if asked.commander:
        told = f"{asked.commander} leads from now on"
        found = _add(
            settings, found, EventKind.COMMANDER, told, asked.by, commander=asked.commander
        )
    if asked.text:
        audiences = [str(a) for a in (*INTERNAL, *(EXTERNAL if asked.customers_too else ()))]
        found = _add(settings, found, EventKind.NOTE, asked.text, asked.by, audiences=audiences)
    elif not (asked.acknowledge or asked.commander or asked.severity != "unchanged"):
        raise PreconditionError(
            f"Updating the incident {found.id}: there is nothing new.",
            hint="Give a text, a severity or a commander, or acknowledge it.",
        )
    return _kept(settings, found)


@step()
def close(settings: Settings, asked: CloseIncident) -> Incident:
    """Close an incident, open what is left to do, write the report and tell people.

    A recovery that was done has opened its own follow-ups; one that failed, and whose platform
    people have mended by hand, has not. Raises PreconditionError as `update`.
    """
    _require(asked.by, "who you are", doing="Closing an incident")
    _require(asked.text, "how it ended", doing="Closing an incident")
    found = _open_one(settings, asked.incident)
    if not any(item.source in found.runs for item in followups.read_all(settings)):
        followups.open_for(settings, found.id)
    return _kept(settings, _add(settings, found, EventKind.CLOSED, asked.text, asked.by))


def _require(value: str, what: str, *, doing: str) -> None:
    # Not in the form: a deployment fills in its part of it before a person fills in the rest.
    if len(value.strip()) < 2:
        raise PreconditionError(
            f"{doing}: it does not say {what}.", hint="Nothing was changed. Say it and run again."
        )


def _open_one(settings: Settings, id: str) -> Incident:
    found = incidents.find(settings, id)
    if found.state is State.CLOSED:
        raise PreconditionError(
            f"Changing the incident {found.id}: it is closed.",
            hint="Open a new one with `lifeboat incident open`.",
        )
    return found


def _add(
    settings: Settings, found: Incident, kind: EventKind, text: str, by: str, **data: Any
) -> Incident:
    event = Event(at=clock.now(), kind=kind, text=text, by=by, data=data)
    found = incidents.append(settings, found.id, event)
    communication.tell(settings, found, event)
    return found


def _kept(settings: Settings, found: Incident) -> Incident:
    status_page.tell_hosted(settings)
    incidents.mirror(settings, found.id)
    return incidents.read(settings, found.id) or found
