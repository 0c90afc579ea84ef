"""What the lines of an incident add up to, and who hears of them."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone

import pytest

from lifeboat.core import communication
from lifeboat.core.communication import EXTERNAL, INTERNAL, Moment
from lifeboat.core.incident import Event, EventKind, State, add_up, fitting, read_events

NOW = datetime(2026, 11, 26, 3, 15, tzinfo=timezone.utc)


def line(kind: EventKind, minutes: float = 0, **more) -> Event:
    return Event(at=NOW + timedelta(minutes=minutes), kind=kind, **more)


def opened(**data):
    return line(EventKind.OPENED, text="it is down", run="r1", data={"platform": "cad", **data})


def test_a_line_that_a_crash_cut_off_spoils_no_other() -> None:
    lines = [opened().line(), line(EventKind.CLOSED, 5).line(), '{"at": "2026-']
    found = add_up(read_events(lines), id="a")
    assert found and found.state is State.CLOSED
    assert add_up((), id="a") is None


@pytest.mark.parametrize(
    ("scenario", "drill", "hours", "joins"),
    [
        ("files", False, 1, True),
        ("models", False, 1, False),
        ("files", True, 1, False),
        ("files", False, 30, False),
    ],
)
def test_which_incident_a_recovery_joins(scenario, drill, hours, joins) -> None:
    found = add_up([opened(scenario="files"), line(EventKind.RECOVERED)], id="a")
    assert found
    at = NOW + timedelta(hours=hours)
    assert (fitting([found], scenario=scenario, drill=drill, at=at) is found) is joins


def test_customers_hear_of_what_was_approved() -> None:
    event = opened()
    incident = add_up([event], id="a")
    assert incident
    assert communication.messages_for(event, incident) == ((Moment.OPENED, INTERNAL),)
    yes = line(EventKind.DECIDED, data={"approved": True})
    no = line(EventKind.DECIDED, data={"approved": False})
    assert (Moment.OPENED, EXTERNAL) in communication.messages_for(yes, incident)
    assert all(m is Moment.UPDATE for m, _ in communication.messages_for(no, incident))


@pytest.mark.parametrize(("now", "quiet"), [(23, True), (3, True), (7, False), (12, False)])
def test_quiet_hours_go_over_midnight(now: int, quiet: bool) -> None:
    found = communication.in_quiet_hours(time(now), begin=time(22), end=time(7))
    assert found is quiet
