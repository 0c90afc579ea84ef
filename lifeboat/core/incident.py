"""An incident: what happened, who decided what and who was told, as lines that are only added to.

The lines of `incident.jsonl` are the truth; the state of an incident is what they add up to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lifeboat.core.timeline import Phase


class Severity(StrEnum):
    """How bad it is. A critical incident wakes people."""

    CRITICAL = "critical"  # nobody can work: the database or the server
    MAJOR = "major"  # a part does not work, or data is wrong
    MINOR = "minor"


class State(StrEnum):
    OPEN = "open"
    RECOVERED = "recovered"  # the platform works, and people still have to look back
    CLOSED = "closed"


class EventKind(StrEnum):
    """What a line of an incident tells of."""

    OPENED = "opened"
    JOINED = "joined"  # another recovery of the same trouble
    DETECTED = "detected"  # what was found to be wrong
    PLANNED = "planned"  # a plan waits for approval
    DECIDED = "decided"  # approved or rejected, by whom and why
    PHASE = "phase"  # a phase of the recovery began
    RUNG = "rung"  # a rung of the ladder: tried, or passed over, and why
    MOVED_ASIDE = "moved-aside"
    CHECKS = "checks"  # the verdict of the verification
    RECOVERED = "recovered"
    FAILED = "failed"  # a recovery ended badly; the incident stays open
    SEVERITY = "severity"
    COMMANDER = "commander"
    NOTE = "note"  # what a person adds
    MESSAGE = "message"  # one message to one audience: taken, or not, and by which channel
    ACKNOWLEDGED = "acknowledged"
    ESCALATED = "escalated"
    CLOSED = "closed"


_ONLY_TOLD = (EventKind.MESSAGE, EventKind.ESCALATED)
_FITS_SECONDS = 86400.0
_QUIET_SECONDS = 3600.0
_SEVERITY_OF = {"database": Severity.CRITICAL, "server": Severity.CRITICAL}


class _Model(BaseModel):
    # A newer Lifeboat may add keys; an older one must still be able to read.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(_Model):
    """One line. `data` holds what another program wants to know; `text` is for people."""

    at: datetime
    kind: EventKind
    text: str = ""
    by: str = ""  # a person, or the id of the run that wrote it
    run: str = ""
    data: dict[str, Any] = Field(default_factory=dict)

    def line(self) -> str:
        return json.dumps(
            self.model_dump(mode="json", exclude_defaults=True) | {"kind": str(self.kind)}
        )


class Delivered(_Model):
    """What became of one message to one person, team or public place."""

    at: datetime
    audience: str
    moment: str
    to: str  # the person, or the external place
    title: str = ""
    body: str = ""
    channel: str = ""  # that took it; empty: none did
    not_taken: dict[str, str] = Field(default_factory=dict)  # channel to reason
    withheld: str = ""  # why it was not sent then: quiet hours, rate limit

    @property
    def reached(self) -> bool:
        return bool(self.channel)


class Incident(_Model):
    """What the lines of one incident add up to."""

    id: str
    platform: str
    title: str
    scenario: str = ""  # database, server, files, models; empty: not known yet
    drill: bool = False
    severity: Severity = Severity.MAJOR
    commander: str = ""
    state: State = State.OPEN
    opened_at: datetime
    began_at: datetime | None = None  # since when there is trouble; None: not known
    recovered_at: datetime | None = None
    closed_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    escalated: int = 0  # how often
    runs: tuple[str, ...] = ()
    figures: dict[str, Any] = Field(default_factory=dict)
    """Of the last recovery: rto_seconds, rpo_seconds, checks_passed, checks_total, phases, ..."""
    events: tuple[Event, ...] = ()

    @property
    def messages(self) -> tuple[Delivered, ...]:
        return tuple(
            Delivered(at=e.at, **{k: v for k, v in e.data.items() if k != "at"})
            for e in self.events
            if e.kind is EventKind.MESSAGE
        )

    @property
    def not_reached(self) -> tuple[Delivered, ...]:
        """To whom a message was meant and no channel took it."""
        return tuple(m for m in self.messages if not m.reached and not m.withheld)

    @property
    def rungs(self) -> tuple[Event, ...]:
        return tuple(e for e in self.events if e.kind is EventKind.RUNG)

    @property
    def acted_on_at(self) -> datetime:
        """When anything last happened in it; who was told of it, and how often, is nothing."""
        return max((e.at for e in self.events if e.kind not in _ONLY_TOLD), default=self.opened_at)

    @property
    def woke_people_at(self) -> datetime:
        """When it last woke people: as it was opened, or as a recovery joined it anew."""
        anew = (e.at for e in self.events if e.kind is EventKind.JOINED and e.data.get("anew"))
        return max(anew, default=self.opened_at)

    @property
    def duration_seconds(self) -> float | None:
        """From the opening to the recovery, if there was one."""
        if self.recovered_at is None:
            return None
        return (self.recovered_at - self.opened_at).total_seconds()

    def in_words(self) -> str:
        drill = " (a drill)" if self.drill else ""
        return f"{self.id}: {self.title}{drill}, {self.severity}, {self.state}"


def incident_id(scenario: str, at: datetime, suffix: str) -> str:
    """Name an incident so that names sort by time, e.g. `20261126T031500Z-database-4f2a`."""
    return f"{at.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}-{scenario or 'other'}-{suffix}"


def scenario_of(procedure: str) -> str:
    """Which scenario of the plan a procedure recovers from: `recover-files` gives `files`."""
    return procedure.removeprefix("recover-")


def severity_of(scenario: str) -> Severity:
    return _SEVERITY_OF.get(scenario, Severity.MAJOR)


def read_events(lines: Iterable[str]) -> tuple[Event, ...]:
    """Read the lines of an incident, oldest first. A line that a crash cut off is passed over."""
    found = []
    for line in lines:
        try:
            found.append(Event.model_validate_json(line))
        except ValidationError:
            continue
    return tuple(sorted(found, key=lambda event: event.at))


def add_up(events: Iterable[Event], *, id: str) -> Incident | None:
    """Give the incident that events make; None if none of them opens it."""
    events = tuple(events)
    opened = next((e for e in events if e.kind is EventKind.OPENED), None)
    if opened is None:
        return None
    told: dict[str, Any] = {
        "id": id,
        "opened_at": opened.at,
        "platform": "",
        "title": opened.text,
        **{k: v for k, v in opened.data.items() if k in _OF_THE_OPENING},
        "events": events,
    }
    runs: dict[str, None] = {}
    for event in events:
        if event.run:
            runs[event.run] = None
        _apply(told, event)
    told["runs"] = tuple(runs)
    return Incident(**told)


_OF_THE_OPENING = ("platform", "title", "scenario", "drill", "severity", "commander", "began_at")
_OF_THE_ALARM = (
    *("state", "scenario", "severity", "began_at", "recovered_at"),
    *("acknowledged_at", "acknowledged_by", "escalated"),
)


def _apply(told: dict[str, Any], event: Event) -> None:
    kind = event.kind
    if not event.run and kind not in _ONLY_TOLD:
        told.pop("before", None)  # a person took it up
    if kind is EventKind.JOINED:
        _join(told, event)
    elif kind is EventKind.DECIDED and event.data.get("well_again"):
        _take_back(told)
    elif kind is EventKind.RECOVERED:
        told["state"], told["recovered_at"] = State.RECOVERED, event.at
    elif kind is EventKind.CLOSED:
        told["state"], told["closed_at"] = State.CLOSED, event.at
    elif kind is EventKind.SEVERITY:
        told["severity"] = event.data["severity"]
    elif kind is EventKind.COMMANDER:
        told["commander"] = event.data["commander"]
    elif kind is EventKind.ACKNOWLEDGED and not told.get("acknowledged_at"):
        told["acknowledged_at"], told["acknowledged_by"] = event.at, event.by
    elif kind is EventKind.ESCALATED:
        told["escalated"] = told.get("escalated", 0) + 1
    if kind in (EventKind.RECOVERED, EventKind.FAILED, EventKind.CHECKS, EventKind.CLOSED):
        told["figures"] = {**told.get("figures", {}), **event.data}


def _join(told: dict[str, Any], event: Event) -> None:
    data = event.data
    if data.get("anew"):
        told["before"] = {key: told[key] for key in _OF_THE_ALARM if key in told}
        told |= {"acknowledged_at": None, "acknowledged_by": "", "escalated": 0}
        if told.get("recovered_at"):
            told["began_at"] = event.at  # it did work in between
    told["state"], told["recovered_at"] = State.OPEN, None
    # What was a trouble without a name has one now.
    told["scenario"] = told.get("scenario") or data.get("scenario", "")
    if "severity" in data:
        told["severity"] = data["severity"]


def _take_back(told: dict[str, Any]) -> None:
    """What joined was nothing: the incident is what it was before, and wakes nobody."""
    before = told.pop("before", None)
    if before is not None:
        for key in _OF_THE_ALARM:
            told.pop(key, None)
        told |= before


def fitting(
    incidents: Iterable[Incident], *, scenario: str, drill: bool, at: datetime
) -> Incident | None:
    """Which incident a recovery joins: the newest that is not closed and is of the same trouble.

    One that a person opened without saying what it is fits any. One that has recovered fits for a
    day: trouble that comes back so soon is the same trouble. So does one that was left open: if for
    a day nobody did anything about it, what happens now is something else.
    """
    for incident in sorted(incidents, key=lambda i: i.opened_at, reverse=True):
        if incident.state is State.CLOSED or incident.drill is not drill:
            continue
        if incident.scenario not in ("", scenario):
            continue
        if (at - (incident.recovered_at or incident.acted_on_at)).total_seconds() > _FITS_SECONDS:
            continue
        return incident
    return None


class Joining(_Model):
    """What a recovery makes of the incident that it joins."""

    scenario: str
    severity: Severity
    anew: bool  # people are woken as by an opening, and nobody has acknowledged it yet


def joining(incident: Incident, *, scenario: str, at: datetime) -> Joining:
    """Say what a recovery that joins an incident makes of it.

    It wakes people anew if the incident had recovered, if nobody had said before that it is of this
    scenario, or if nothing had happened in it for an hour: who acknowledged it meant something
    else. Another attempt in trouble that is running wakes nobody: somebody is at work on it.

    The severity is at least the scenario's, but what people have changed it to holds until it wakes
    them anew.
    """
    anew = (
        incident.state is State.RECOVERED
        or incident.scenario != scenario
        or (at - incident.acted_on_at).total_seconds() > _QUIET_SECONDS
    )
    severity = min(incident.severity, severity_of(scenario), key=list(Severity).index)
    if not anew and any(e.kind is EventKind.SEVERITY for e in incident.events):
        severity = incident.severity
    return Joining(scenario=scenario, severity=severity, anew=anew)


PHASES_IN_WORDS = {
    Phase.DETECT: "looking at what is wrong",
    Phase.DECIDE: "deciding what to do",
    Phase.FETCH: "fetching backups",
    Phase.RESTORE: "restoring",
    Phase.REPLAY: "replaying the last changes",
    Phase.START: "starting services",
    Phase.VERIFY: "verifying",
}
