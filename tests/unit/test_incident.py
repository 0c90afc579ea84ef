"""What the lines of an incident add up to, and who hears of them."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core import communication
from lifeboat.core.communication import EXTERNAL, INTERNAL, Audience, Moment
from lifeboat.core.incident import (
    Event,
    EventKind,
    Incident,
    Severity,
    State,
    add_up,
    fitting,
    joining,
    read_events,
)
from lifeboat.settings import load_settings
from tasks.people.communication import messages_of

ACT = (Audience.INCIDENT_COMMANDER, Audience.TECHNICAL_TEAM)
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


def joined(incident: Incident, minutes: float, *, scenario: str = "database") -> Event:
    """The line of a recovery that joins an incident then."""
    at = NOW + timedelta(minutes=minutes)
    assert fitting([incident], scenario=scenario, drill=False, at=at) is incident
    found = joining(incident, scenario=scenario, at=at)
    return line(EventKind.JOINED, minutes, run="r2", data=found.model_dump(mode="json"))


def with_lines(*events: Event) -> Incident:
    found = add_up(events, id="a")
    assert found
    return found


SEEN = line(EventKind.ACKNOWLEDGED, 5, by="Ada")
BY_HAND = line(EventKind.OPENED, text="it is slow", by="Ada", data={"severity": "major"})
OF_DATABASE = opened(scenario="database", severity="critical")
FAILED = line(EventKind.FAILED, 30, run="r1")


@pytest.mark.parametrize(
    ("before", "minutes"),
    [
        ((BY_HAND, SEEN), 13 * 60),
        ((BY_HAND, SEEN), 10),
        ((OF_DATABASE, SEEN, line(EventKind.RECOVERED, 30)), 40),
        ((OF_DATABASE, SEEN, FAILED), 30 + 61),
    ],
    ids=["it was something else", "it has a name now", "it had recovered", "nothing for an hour"],
)
def test_trouble_that_joins_an_older_incident_wakes_people_anew(before, minutes) -> None:
    reminders = [line(EventKind.ESCALATED, 6)] * 3
    incident = with_lines(*before, *reminders)
    event = joined(incident, minutes)
    now = with_lines(*before, *reminders, event)
    assert communication.messages_for(event, now) == ((Moment.OPENED, INTERNAL),)
    assert (now.severity, now.acknowledged_at, now.escalated) == (Severity.CRITICAL, None, 0)

    def told(later: float):
        at = event.at + timedelta(minutes=later)
        return communication.escalates_to(now, now=at, after_minutes=15)

    assert told(14) is None
    assert told(15) == (Audience.TECHNICAL_TEAM,)
    seen = with_lines(*now.events, line(EventKind.ACKNOWLEDGED, minutes + 1, by="Grace"))
    assert seen.acknowledged_by == "Grace"


def test_another_attempt_in_running_trouble_wakes_nobody() -> None:
    before = (OF_DATABASE, SEEN, FAILED)
    event = joined(with_lines(*before), 45)
    now = with_lines(*before, event)
    [(moment, audiences)] = communication.messages_for(event, now)
    assert (moment, audiences) == (Moment.UPDATE, ACT)
    assert now.acknowledged_by == "Ada"
    assert now.woke_people_at == now.opened_at


def test_the_severity_that_a_person_gave_holds_until_people_are_woken_anew() -> None:
    lower = line(EventKind.SEVERITY, 6, by="Ada", data={"severity": "minor"})
    before = (OF_DATABASE, SEEN, lower, FAILED)
    assert with_lines(*before, joined(with_lines(*before), 45)).severity is Severity.MINOR
    assert with_lines(*before, joined(with_lines(*before), 240)).severity is Severity.CRITICAL
    of_form = line(EventKind.OPENED, data={"scenario": "database", "severity": "major"})
    assert with_lines(of_form, joined(with_lines(of_form), 5)).severity is Severity.CRITICAL


def well_again(minutes: float) -> Event:
    return line(EventKind.DECIDED, minutes, run="r2", data={"approved": False, "well_again": True})


def test_what_woke_people_for_nothing_leaves_the_incident_as_it_was() -> None:
    before = with_lines(OF_DATABASE, SEEN, line(EventKind.RECOVERED, 30))
    woken = with_lines(*before.events, joined(before, 300))
    assert (woken.state, woken.began_at) == (State.OPEN, woken.woke_people_at)
    event = well_again(310)
    after = with_lines(*woken.events, event)
    alike = {"state", "severity", "recovered_at", "began_at", "acknowledged_by", "escalated"}
    assert after.model_dump(include=alike) == before.model_dump(include=alike)
    assert communication.messages_for(event, after) == ((Moment.UPDATE, INTERNAL),)


def test_what_a_person_took_up_stays_open_though_it_is_well_again() -> None:
    before = with_lines(OF_DATABASE, SEEN, line(EventKind.RECOVERED, 30))
    taken_up = line(EventKind.ACKNOWLEDGED, 305, by="Grace")
    after = with_lines(*before.events, joined(before, 300), taken_up, well_again(310))
    assert (after.state, after.acknowledged_by) == (State.OPEN, "Grace")


def test_customers_who_were_told_that_it_works_again_hear_of_the_next_trouble() -> None:
    told = line(EventKind.MESSAGE, 1, data={"moment": "opened", "audience": "status_page"})
    assert communication.announced([OF_DATABASE, told])
    assert not communication.announced([OF_DATABASE, told, line(EventKind.RECOVERED, 30)])


YAML = """\
platform: cad-test
environment: production
stack: {kind: process, supervisor_config: supervisord.conf, critical_services: [postgres]}
database: {service: postgres, name: cad, data_directory: data/postgres, bin_directory: /usr}
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml]}
vault: {local: backups, s3: {bucket: vault}}
people:
  incident_commander:
    - {name: Ada, phone: "+1 555 010 1000", channels: [{name: mail, url: "mailto://x"}]}
"""


def test_who_is_woken_anew_reads_what_it_is_now_and_not_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "lifeboat.yaml").write_text(YAML)
    settings = load_settings(tmp_path / "lifeboat.yaml")
    stale = line(EventKind.DETECTED, 1, text="the search is slow")
    event = joined(with_lines(BY_HAND, stale), 780)
    event = event.model_copy(update={"text": "the database does not work"})
    incident = with_lines(BY_HAND, stale, event)
    [message] = [m for m in messages_of(settings, incident, event) if m.to == "Ada"]
    assert message.text.title.endswith("critical incident: the database does not work")
    assert "Since:      2026-11-26 16:15 UTC" in message.text.body
    assert "of 2026-11-26 03:15 UTC, which is not closed: it is slow" in message.text.body
    assert "the search is slow" not in message.text.body
