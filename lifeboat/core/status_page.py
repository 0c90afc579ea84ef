"""What the public may see of a platform: each service's state, and the incidents of late."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from lifeboat.core.incident import EventKind, Incident, Severity, State

_MOST_INCIDENTS = 20
# Paths, names of people and causes are not for the public: of each event only its kind is told.
_PUBLIC = {
    EventKind.OPENED: "We are looking into a problem.",
    EventKind.JOINED: "The problem is back. We are working on it.",
    EventKind.DECIDED: "We know what to do and are doing it.",
    EventKind.RECOVERED: "The platform has recovered and was checked.",
    EventKind.FAILED: "A first attempt did not help. We go on working on it.",
    EventKind.CLOSED: "This incident is closed.",
}
_TITLES = {
    "database": "Database not available",
    "server": "Platform not available",
    "files": "Some files not available",
    "models": "AI functions not available",
}


class ServiceState(StrEnum):
    OPERATIONAL = "operational"
    NOT_ANSWERING = "not answering"  # it runs, and does not do its work
    DOWN = "down"
    UNKNOWN = "unknown"  # it could not be looked at, which is not the same as good


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ServiceView(_Frozen):
    name: str
    state: ServiceState


class Update(_Frozen):
    at: datetime
    kind: EventKind
    text: str


class IncidentView(_Frozen):
    """An incident as the public is told of it, its updates oldest first."""

    id: str
    title: str
    severity: Severity
    state: State
    opened_at: datetime
    closed_at: datetime | None = None
    drill: bool = False
    is_public: bool = True  # approved, or opened by a person: not merely planned
    updates: tuple[Update, ...]

    @property
    def changed_at(self) -> datetime:
        return self.updates[-1].at if self.updates else self.opened_at


class StatusPage(_Frozen):
    """All that the page and the feed show."""

    title: str
    url: str
    written_at: datetime
    services: tuple[ServiceView, ...]
    incidents: tuple[IncidentView, ...]  # newest first

    @property
    def open_incidents(self) -> tuple[IncidentView, ...]:
        return tuple(i for i in self.incidents if i.state is State.OPEN)

    @property
    def overall(self) -> str:
        """The page's first line. A service that nobody could look at is never called good."""
        if any(i.severity is Severity.CRITICAL for i in self.open_incidents):
            return "Major outage"
        bad = (ServiceState.DOWN, ServiceState.NOT_ANSWERING)
        down = any(s.state in bad for s in self.services)
        if self.open_incidents or down:
            return "Partial outage"
        if not self.services or any(s.state is ServiceState.UNKNOWN for s in self.services):
            return "State not known"
        return "All systems operational"


def make_page(
    *,
    title: str,
    url: str,
    services: Mapping[str, ServiceState],
    incidents: Iterable[Incident],
    now: datetime,
) -> StatusPage:
    """Give what the public sees: the newest incidents, drills marked as such."""
    newest = sorted(incidents, key=lambda i: i.opened_at, reverse=True)[:_MOST_INCIDENTS]
    return StatusPage(
        title=title,
        url=url,
        written_at=now,
        services=tuple(ServiceView(name=n, state=s) for n, s in services.items()),
        incidents=tuple(_public(i) for i in newest),
    )


def _public(incident: Incident) -> IncidentView:
    title = _TITLES.get(incident.scenario, "Problem with the platform")
    return IncidentView(
        id=incident.id,
        title=f"{title} (an exercise)" if incident.drill else title,
        severity=incident.severity,
        state=incident.state,
        opened_at=incident.opened_at,
        updates=tuple(
            Update(at=e.at, kind=e.kind, text=_PUBLIC[e.kind])
            for e in incident.events
            if e.kind in _PUBLIC and e.data.get("approved", True)
        ),
        closed_at=incident.closed_at,
        drill=incident.drill,
        is_public=any(
            (e.kind is EventKind.OPENED and not e.run) or e.data.get("approved")
            for e in incident.events
        ),
    )
