"""What the lines of an incident add up to, and who hears of them."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta, timezone
from pathlib import Path

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


@pytest.mark.parametrize(("hours", "joins"), [(20, True), (43, True), (45, False)])
def test_an_incident_that_was_left_open_does_not_swallow_the_next(hours, joins) -> None:
    """Somebody wrote a note after 20 hours; that it was escalated again after 40 is nothing."""
    note, reminder = line(EventKind.NOTE, 20 * 60), line(EventKind.ESCALATED, 40 * 60)
    found = add_up([opened(scenario="files"), note, reminder], id="a")
    assert found
    at = NOW + timedelta(hours=hours)
    assert (fitting([found], scenario="files", drill=False, at=at) is found) is joins


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


RECOVERIES = sorted((Path(__file__).parents[2] / "flows").glob("recover_*.py"))


@pytest.mark.parametrize("flow", RECOVERIES, ids=lambda flow: flow.stem)
def test_a_dry_run_previews_the_messages_of_each_recovery_that_opens_an_incident(flow) -> None:
    text = flow.read_text()
    # Prefect's own database is no part of the platform, and its loss no incident of it.
    opens_one = flow.stem != "recover_orchestrator"
    shows_them = re.search(r"end_dry_run\(run, [\w.]+, [\w.]*settings\)", text)
    assert bool(shows_them) is opens_one


def test_what_was_held_back_is_due_once_and_is_told_with_what_is_sent_next() -> None:
    def message(minutes: float, moment: str, *, withheld: str = "", to: str = "Ada") -> Event:
        data = {"audience": "incident_commander", "moment": moment, "to": to, "body": moment}
        data |= {"withheld": withheld, "channel": "" if withheld else "mail"}
        return line(EventKind.MESSAGE, minutes, data=data)

    def due(events, minutes: float, *, quiet: bool = False) -> list[tuple[str, int]]:
        incident = add_up([opened(), *events], id="a")
        assert incident
        now = NOW + timedelta(minutes=minutes)
        found = communication.due_now(incident, now=now, quiet=quiet, at_most_per_hour=1)
        return [(held.newest.moment, len(held.messages)) for held in found]

    held = [message(m, k, withheld="quiet hours") for m, k in ((1, "opened"), (60, "closed"))]
    assert due(held, 300) == [("closed", 2)]
    assert due(held, 300, quiet=True) == []
    assert due([*held, message(301, "closed")], 302) == []
    assert due(held, 60 * 72) == [], "nobody wants to hear of that now"
    limited = [message(1, "update"), message(2, "update", withheld="more than 1")]
    assert due(limited, 3) == []
    assert due(limited, 90) == [("update", 1)]
    other = message(70, "closed", to="Grace")
    assert due([*held, other], 300) == [("closed", 2)], "another's message told Ada nothing"
