"""Incidents open by themselves, are written as recoveries act, and stop none of them."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager

import pytest

from lifeboat.core.errors import NoLongerNeeded, PermanentError, Rejected, Withdrawn
from lifeboat.core.forms import CloseIncident
from lifeboat.core.incident import Event, EventKind, Severity, State, add_up, read_events
from lifeboat.core.timeline import Outcome, Phase, RungAttempt
from tasks import clock, places, recovery
from tasks.orchestration import step
from tasks.people import followups, incident_desk, incidents

pytestmark = [pytest.mark.system]


@step(Phase.RESTORE)
def put_back() -> None:
    pass


@step(Phase.VERIFY)
def verify() -> None:
    pass


@contextmanager
def a_recovery(settings, procedure: str = "recover-files"):
    """What every recovery flow does around its own work."""
    with recovery.recovery(settings, procedure) as run:
        run.tell(
            "planned",
            symptoms="2 of 9 files are damaged",
            target="newest",
            expected_loss="nothing is lost",
            expected_seconds=12.0,
        )
        run.fact(approved_by="Ada", approved_because="it is down")
        yield run
        put_back()
        run.rung(RungAttempt(rung="local-vault", outcome=Outcome.DONE, reason="it held"))
        verify()


def kinds(incident) -> list[str]:
    return [str(event.kind) for event in incident.events if event.kind is not EventKind.MESSAGE]


def test_a_recovery_opens_an_incident_and_writes_it(host) -> None:
    with a_recovery(host.settings):
        pass
    [found] = incidents.list_incidents(host.settings)
    assert kinds(found) == [
        *("opened", "detected", "planned", "decided"),
        *("phase", "rung", "phase", "recovered"),
    ]
    assert (found.state, found.scenario, found.drill) == (State.RECOVERED, "files", True)
    assert found.figures["rto_seconds"] >= 0
    decided = next(e for e in found.events if e.kind is EventKind.DECIDED)
    assert (decided.by, decided.data["reason"]) == ("Ada", "it is down")
    assert "2 of 9 files" in found.events[1].text

    # The bucket has the same lines, and they can be read without Lifeboat.
    there = places.bucket(host.settings).get(incidents.key(found.id)).decode()
    here = (incidents.directory(host.settings) / found.id / incidents.FILE_NAME).read_text()
    assert there == here
    assert [json.loads(line)["kind"] for line in here.splitlines()][:2] == ["opened", "detected"]


def test_a_second_recovery_of_the_same_trouble_joins(host) -> None:
    with pytest.raises(PermanentError), a_recovery(host.settings):
        raise PermanentError("the disk is gone")
    [found] = incidents.list_incidents(host.settings)
    assert found.state is State.OPEN
    assert "the disk is gone" in found.events[-1].text
    with a_recovery(host.settings):
        pass
    [found] = incidents.list_incidents(host.settings)
    assert found.state is State.RECOVERED
    assert len(found.runs) == 2
    with a_recovery(host.settings, "recover-models"):
        pass
    assert len(incidents.list_incidents(host.settings)) == 2, "other trouble"


@pytest.mark.parametrize("recovered", [False, True])
def test_what_people_mended_by_hand_leaves_as_much_to_do(host, recovered: bool) -> None:
    """A recovery opens its follow-ups when it is done; a failed one leaves that to the closing."""
    with pytest.raises(PermanentError), a_recovery(host.settings):
        raise PermanentError("the disk is gone")
    if recovered:
        with a_recovery(host.settings):
            pass
    assert len(followups.read_all(host.settings)) == (12 if recovered else 0)
    incident_desk.close(host.settings, CloseIncident(text="A new disk.", by="Ada"))
    assert len(followups.read_all(host.settings)) == 12


def test_what_is_only_planned_opens_nothing(host) -> None:
    with recovery.recovery(host.settings, "recover-files") as run:
        run.fact(dry_run=True)
    assert incidents.list_incidents(host.settings) == ()


def test_a_rejection_is_on_record_and_leaves_it_open(host) -> None:
    with pytest.raises(Rejected), recovery.recovery(host.settings, "recover-files") as run:
        run.tell(
            "planned", symptoms="x", target="newest", expected_loss="none", expected_seconds=None
        )
        run.fact(rejected_by="Ada", rejected_because="wrong platform")
        raise Rejected("no")
    [found] = incidents.list_incidents(host.settings)
    assert found.state is State.OPEN
    assert kinds(found) == ["opened", "detected", "planned", "decided"]
    assert found.events[-1].data == {"approved": False, "reason": "wrong platform"}


@pytest.mark.parametrize(
    ("reason", "by_the_watch", "is_well"),
    [(Withdrawn, True, True), (Withdrawn, False, False), (NoLongerNeeded, False, True)],
)
def test_what_became_well_before_anybody_approved_is_closed(
    host, reason, by_the_watch: bool, is_well: bool
) -> None:
    """A person who takes a plan back may want to act otherwise: that is no word of its health."""
    with pytest.raises(reason), recovery.recovery(host.settings, "recover-files") as run:
        run.tell(
            "planned", symptoms="x", target="newest", expected_loss="none", expected_seconds=None
        )
        if by_the_watch:
            run.fact(well_again=True)
        raise reason("it came back to health by itself")
    [found] = incidents.list_incidents(host.settings)
    assert found.state is (State.CLOSED if is_well else State.OPEN)
    closed = ["closed"] if is_well else []
    assert kinds(found) == ["opened", "detected", "planned", "decided", *closed]


def test_trouble_that_comes_back_and_was_none_leaves_the_incident_recovered(host) -> None:
    with a_recovery(host.settings):
        pass
    with pytest.raises(NoLongerNeeded), a_recovery(host.settings):
        raise NoLongerNeeded("it came back to health by itself")
    [found] = incidents.list_incidents(host.settings)
    assert found.state is State.RECOVERED
    joined = next(event for event in found.events if event.kind is EventKind.JOINED)
    assert joined.data == {"scenario": "files", "severity": "major", "anew": True}
    assert joined.text == "files are damaged or missing: recover-files begins"


def test_without_the_bucket_it_is_here(host) -> None:
    host.write_yaml(endpoint="http://127.0.0.1:9")
    with a_recovery(host.settings):
        pass
    [found] = incidents.list_incidents(host.settings)
    assert found.state is State.RECOVERED


def test_without_a_disk_it_is_in_the_bucket_and_no_vault_is_begun(host) -> None:
    opened = incidents.open_incident(host.settings, title="lost", severity=Severity.MINOR)
    assert incidents.mirror(host.settings, opened.id)
    shutil.rmtree(host.settings.vault.local)
    event = Event(at=clock.now(), kind=EventKind.NOTE, text="a look")
    incidents.append(host.settings, opened.id, event)
    assert incidents.mirror(host.settings, opened.id)
    assert not host.settings.vault.local.exists()
    lines = places.bucket(host.settings).get(incidents.key(opened.id)).decode().splitlines()
    there = add_up(read_events(lines), id=opened.id)
    assert there and kinds(there) == ["opened", "note"]


def test_what_follows_an_incident_may_fail(host, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(incidents, "when_changed", [broken])
    with a_recovery(host.settings):
        pass
    assert incidents.list_incidents(host.settings)[0].state is State.RECOVERED
