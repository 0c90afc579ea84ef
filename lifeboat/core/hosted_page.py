"""What a hosted status page is told: our incidents and services in the words of its API.

The words are Atlassian Statuspage's, which others imitate. What the page shows already is compared
with what it should show, so that nothing is told twice, and nothing is missing after it was away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from lifeboat.core.incident import EventKind, Severity
from lifeboat.core.status_page import IncidentView, ServiceState, Update

OURS = "lifeboat"
"""The key in an incident's `metadata` under which ours are found again."""

_COMPONENT = {
    ServiceState.OPERATIONAL: "operational",
    ServiceState.NOT_ANSWERING: "partial_outage",
    ServiceState.DOWN: "major_outage",
}
_STATUS = {
    EventKind.OPENED: "investigating",
    EventKind.JOINED: "investigating",
    EventKind.DECIDED: "identified",
    EventKind.FAILED: "identified",
    EventKind.RECOVERED: "monitoring",
    EventKind.CLOSED: "resolved",
}
_IMPACT = {Severity.MINOR: "minor", Severity.MAJOR: "major", Severity.CRITICAL: "critical"}


class _Reading(BaseModel):
    """A part of the API's answer; what else it says does not matter here."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class HostedUpdate(_Reading):
    body: str | None = None


class HostedIncident(_Reading):
    """An incident as the hosted page has it."""

    id: str
    incident_updates: tuple[HostedUpdate, ...] = ()
    metadata: dict[str, Any] | None = None

    @property
    def ours(self) -> str:
        """The id of the incident of ours that it tells of; empty: it is somebody else's."""
        told = (self.metadata or {}).get(OURS)
        return str(told.get("incident", "")) if isinstance(told, Mapping) else ""


class HostedComponent(_Reading):
    id: str
    status: str


class Step(BaseModel):
    """One request: to create an incident (no `incident_id`) or to add an update to it."""

    model_config = ConfigDict(frozen=True)

    incident_id: str = ""
    body: Mapping[str, Any]


def steps_for(incident: IncidentView, there: HostedIncident | None) -> tuple[Step, ...]:
    """Say what has to be sent so that the hosted page tells all that ours does, oldest first.

    A page that does not know the incident gets it with its first update; the rest follows once it
    has an id.
    """
    known = {update.body for update in there.incident_updates} if there else set()
    missing = [update for update in incident.updates if _body(update) not in known]
    if there is None:
        return (_create(incident, missing[0]),) if missing else ()
    return tuple(
        Step(incident_id=there.id, body={"status": _STATUS[u.kind], "body": _body(u)})
        for u in missing
    )


def _create(incident: IncidentView, first: Update) -> Step:
    return Step(
        body={
            "name": incident.title,
            "status": _STATUS[first.kind],
            "impact_override": _IMPACT[incident.severity],
            "body": _body(first),
            "metadata": {OURS: {"incident": incident.id}},
        }
    )


def _body(update: Update) -> str:
    # With its time, so that two updates of the same words are two.
    return f"{update.text} ({update.at:%Y-%m-%d %H:%M:%S} UTC)"


def components_to_change(
    services: Mapping[str, ServiceState],
    ids: Mapping[str, str],
    there: Iterable[HostedComponent],
) -> dict[str, str]:
    """Say which components get which status; what nobody could look at stays as it is.

    `ids` gives a service's component. Several services may be one component: the worst counts.
    """
    order = list(_COMPONENT.values())
    wanted: dict[str, str] = {}
    for service, component in ids.items():
        status = _COMPONENT.get(services.get(service, ServiceState.UNKNOWN))
        if status:
            wanted[component] = max(status, wanted.get(component, status), key=order.index)
    known = {component.id: component.status for component in there}
    return {id: status for id, status in wanted.items() if known.get(id) != status}
