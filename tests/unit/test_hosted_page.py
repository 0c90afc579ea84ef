"""What a hosted status page is told: each update once, and the worst that was seen of a service."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core.hosted_page import (
    HostedComponent,
    HostedIncident,
    HostedUpdate,
    components_to_change,
    steps_for,
)
from lifeboat.core.incident import Event, EventKind, add_up
from lifeboat.core.status_page import ServiceState, make_page

NOW = datetime(2026, 1, 31, 3, 15, tzinfo=timezone.utc)


def page_of(*kinds: EventKind, run: str = "r-1", **data):
    events = [
        Event(
            at=NOW + timedelta(minutes=n),
            kind=kind,
            run=run,
            data={"severity": "critical", "scenario": "database", **data},
        )
        for n, kind in enumerate(kinds)
    ]
    incident = add_up(events, id="i-1")
    [view] = make_page(title="", url="", services={}, incidents=[incident], now=NOW).incidents
    return view


def hosted(*bodies: str) -> HostedIncident:
    told = tuple(HostedUpdate(body=body) for body in bodies)
    return HostedIncident(id="h-1", incident_updates=told)


def test_an_incident_is_made_with_its_first_update_and_what_is_missing_follows() -> None:
    view = page_of(EventKind.OPENED, EventKind.DECIDED, EventKind.RECOVERED, approved=True)
    [first] = steps_for(view, None)
    assert first.incident_id == ""
    assert first.body["status"] == "investigating"
    assert first.body["impact_override"] == "critical"
    assert first.body["metadata"] == {"lifeboat": {"incident": "i-1"}}
    rest = steps_for(view, hosted(first.body["body"]))
    assert [(s.incident_id, s.body["status"]) for s in rest] == [
        ("h-1", "identified"),
        ("h-1", "monitoring"),
    ]
    bodies = [first.body["body"], *(step.body["body"] for step in rest)]
    assert steps_for(view, hosted(*bodies)) == ()


def test_the_same_words_at_another_time_are_another_update() -> None:
    view = page_of(EventKind.OPENED, EventKind.JOINED, EventKind.JOINED)
    [first] = steps_for(view, None)
    second, third = steps_for(view, hosted(first.body["body"]))
    assert second.body["body"] != third.body["body"]


@pytest.mark.parametrize(
    ("kinds", "run", "data", "public"),
    [
        ((EventKind.OPENED,), "r-1", {}, False),
        ((EventKind.OPENED, EventKind.DECIDED), "r-1", {"approved": False}, False),
        ((EventKind.OPENED, EventKind.DECIDED), "r-1", {"approved": True}, True),
        ((EventKind.OPENED,), "", {}, True),
    ],
)
def test_a_plan_that_nobody_approved_is_no_news_for_a_customer(kinds, run, data, public) -> None:
    view = page_of(*kinds, run=run, **data)
    assert view.is_public is public
    assert len(view.updates) == len([k for k in kinds if data.get("approved", True)]) or not public


def test_a_component_shows_the_worst_of_its_services_and_nothing_that_was_not_seen() -> None:
    services = {
        "backend": ServiceState.NOT_ANSWERING,
        "nginx": ServiceState.OPERATIONAL,
        "postgres": ServiceState.DOWN,
        "worker": ServiceState.UNKNOWN,
        "redis": ServiceState.OPERATIONAL,
    }
    ids = {
        "backend": "web",
        "nginx": "web",
        "postgres": "data",
        "worker": "jobs",
        "redis": "cache",
        "gone": "other",
    }
    there = [
        HostedComponent(id="web", status="operational"),
        HostedComponent(id="jobs", status="major_outage"),
        HostedComponent(id="cache", status="operational"),
    ]
    assert components_to_change(services, ids, there) == {
        "web": "partial_outage",
        "data": "major_outage",
    }


def test_another_incident_of_the_page_is_not_ours() -> None:
    assert HostedIncident(id="h", metadata=None).ours == ""
    assert HostedIncident(id="h", metadata={"lifeboat": "?"}).ours == ""
    assert HostedIncident(id="h", metadata={"lifeboat": {"incident": "i"}}).ours == "i"
