"""People are told by the first channel that takes it; who was not reached is on record."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core.checks import Status
from lifeboat.core.incident import Event, EventKind, Severity, State
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.review_kinds import ReviewKind
from tasks import clock, places, recovery
from tasks.people import communication, incidents, reviews
from tests.system import receivers
from tests.system.test_incidents import a_recovery

pytestmark = [pytest.mark.system]

DEAD = "json://ops:${HOOK_PASSWORD}@127.0.0.1:9/hook"
CANARY = "canary-of-the-hook"
TEST = ReviewKind.COMMUNICATION_TEST


@pytest.fixture(scope="module")
def _chat():
    with receivers.chat() as inbox:
        yield inbox


@pytest.fixture(scope="module")
def _mail():
    with receivers.mail() as inbox:
        yield inbox


@pytest.fixture
def chat(_chat):
    _chat.got.clear()
    _chat.refuses = False
    return _chat


@pytest.fixture
def mail(_mail):
    _mail.got.clear()
    return _mail


def with_people(host, first: str, second: str, more: str = "", *, to_people: bool = True) -> None:
    host.write_yaml(
        sections=f"""\
people:
  incident_commander:
    - name: Ada
      phone: "+1 555 010 1000"
      channels: [{{name: first, url: "{first}"}}, {{name: second, url: "{second}"}}]
  management:
    - {{name: Grace, channels: [{{name: mail, url: "{second}"}}]}}
communication:
  external: {{status_page: [{{name: page, url: "{second}"}}]}}
  drill_to_people: {str(to_people).lower()}
{more}"""
    )


def test_the_next_channel_is_tried_and_both_are_on_record(host, chat, mail, monkeypatch) -> None:
    monkeypatch.setenv("HOOK_PASSWORD", CANARY)
    with_people(host, DEAD, mail.address)
    with a_recovery(host.settings):
        pass
    [found] = incidents.list_incidents(host.settings)
    assert found.not_reached == ()
    ada = [m for m in found.messages if m.to == "Ada"]
    assert {m.moment for m in ada} == {"opened", "update", "recovered"}
    assert all((m.channel, list(m.not_taken)) == ("second", ["first"]) for m in ada)
    assert len(mail.got) == len(found.messages)
    text = (incidents.directory(host.settings) / found.id / incidents.FILE_NAME).read_text()
    assert CANARY not in text
    assert any("the service works again" in title for title in mail.titles), "customers"


def test_with_every_channel_dead_the_recovery_ends_well(host, chat, monkeypatch) -> None:
    monkeypatch.setenv("HOOK_PASSWORD", CANARY)
    chat.refuses = True
    with_people(host, DEAD, chat.address)
    with a_recovery(host.settings) as run:
        pass
    assert run.record.outcome == "done"
    [found] = incidents.list_incidents(host.settings)
    assert found.state is State.RECOVERED
    assert {m.to for m in found.not_reached} == {"Ada", "Grace", "status page"}
    assert all("503" in str(m.not_taken) for m in found.not_reached)
    shown = host.run("incident", "show", found.id).stdout
    assert "NOT REACHED: Grace" in shown


def test_a_missing_secret_stops_nothing(host, mail) -> None:
    with_people(host, DEAD, mail.address)
    with a_recovery(host.settings):
        pass
    [found] = incidents.list_incidents(host.settings)
    assert found.not_reached == ()
    assert any("HOOK_PASSWORD" in str(m.not_taken) for m in found.messages if m.to == "Ada")


def test_a_drill_tells_nobody_but_its_own_channels(host, chat, mail) -> None:
    with_people(host, mail.address, mail.address, to_people=False)
    with a_recovery(host.settings):
        pass
    assert mail.got == []
    more = f'  drill_channels: [{{name: own, url: "{chat.address}"}}]\n'
    with_people(host, mail.address, mail.address, more, to_people=False)
    with a_recovery(host.settings, "recover-models"):
        pass
    assert mail.got == []
    assert chat.titles
    assert all(title.startswith("[DRILL] ") for title in chat.titles)


def test_quiet_hours_hold_back_all_but_critical(host, mail) -> None:
    hours = '  quiet_hours: {begin: "22:00", end: "07:00", timezone: Europe/Berlin}\n'
    with_people(host, mail.address, mail.address, hours)
    with clock.set_to(datetime(2026, 1, 10, 23, 0, tzinfo=timezone.utc)):
        for severity, told in ((Severity.MAJOR, 0), (Severity.CRITICAL, 3)):
            opened = incidents.open_incident(host.settings, title="a test", severity=severity)
            communication.tell(host.settings, opened, opened.events[-1])
            assert len(mail.got) == told
            found = incidents.find(host.settings, opened.id)
            held = "" if told else "quiet hours"
            assert {m.withheld for m in found.messages} == {held}
            assert found.not_reached == ()


def test_who_slept_through_it_hears_once_that_it_is_over(host, mail) -> None:
    hours = '  quiet_hours: {begin: "22:00", end: "07:00", timezone: UTC}\n'
    with_people(host, mail.address, mail.address, hours)
    night = datetime(2026, 1, 10, 2, 0, tzinfo=timezone.utc)

    def at(hour: float):
        return clock.set_to(night.replace(hour=0) + timedelta(hours=hour))

    with at(2):
        opened = incidents.open_incident(host.settings, title="search is slow")
        communication.tell(host.settings, opened, opened.events[-1])
    with at(4):
        closed = Event(at=clock.now(), kind=EventKind.CLOSED, text="the index is new", by="Ada")
        communication.tell(
            host.settings, incidents.append(host.settings, opened.id, closed), closed
        )
    with at(6.9):
        assert communication.send_held_back(host.settings) == ()
    assert mail.got == []
    with at(7.1):
        told = communication.send_held_back(host.settings)
        # In any order, here and in what was sent: all were told, or held back, side by side.
        assert {m.moment for m in told} == {"closed"}
        assert sorted(m.to for m in told) == ["Ada", "Grace", "status page"]
        assert communication.send_held_back(host.settings) == (), "once"
    assert len(mail.got) == 3
    assert not any("critical" in title or "major" in title for title in mail.titles)
    # Management is told in other words.
    texts = [" ".join(text.split()) for _, text in mail.got if "the index is new" in text]
    assert any(
        "- 2026-01-10 02:00 UTC, opened: search is slow." in words
        and "held back since 2026-01-10 04:00 UTC: quiet hours" in words
        for words in texts
    )
    found = incidents.find(host.settings, opened.id)
    assert [m.withheld for m in found.messages if m.to == "Ada"] == ["quiet hours"] * 2 + [""]


def test_updates_are_limited_and_the_end_is_not(host, mail) -> None:
    with_people(host, mail.address, mail.address, "  at_most_per_hour: 2\n")
    host.run("incident", "open", "it is slow")
    for number in range(4):
        host.run("incident", "update", f"update {number}", "--by", "Ada")
    host.run("incident", "close", "it was a cable", "--by", "Ada")
    [found] = incidents.list_incidents(host.settings)
    ada = [m for m in found.messages if m.to == "Ada"]
    sent = [m.moment for m in ada if m.reached]
    assert sent == ["opened", "update", "update", "closed"]
    assert sum(bool(m.withheld) for m in ada) == 2
    assert found.state is State.CLOSED
    end = next(m.body for m in ada if m.moment == "closed")
    assert "update: update 2" in end and "update: update 3" in end, "nothing is lost"
    with clock.set_to(clock.now() + timedelta(hours=2)):
        assert communication.send_held_back(host.settings) == (), "the close has told of them"


def test_nobody_answers_so_the_next_are_told_until_one_does(host, mail) -> None:
    with_people(host, mail.address, mail.address, "  escalate_after_minutes: 5\n")
    real = incidents.open_incident(host.settings, title="it is down", drill=False)

    def look(minutes: float) -> int:
        with clock.set_to(real.opened_at + timedelta(minutes=minutes)):
            return len(communication.escalate(host.settings))

    assert [look(4), look(5), look(6), look(10), look(11)] == [0, 1, 0, 1, 0]
    assert [t for t in mail.titles if "NOBODY HAS ACKNOWLEDGED" in t], "Grace was told"
    host.run("incident", "acknowledge", "--by", "Ada")
    assert look(99) == 0
    found = incidents.find(host.settings, real.id)
    assert (found.acknowledged_by, found.escalated) == ("Ada", 2)


def test_a_template_of_your_own_comes_first_and_a_broken_one_is_passed_over(host, mail) -> None:
    with_people(host, mail.address, mail.address, "  templates: texts\n")
    (host.root / "texts").mkdir()
    own = host.root / "texts/opened.incident_commander.txt.j2"
    own.write_text("Ahoy {{ incident.commander }}\nman the boats")
    host.run("incident", "open", "a storm")
    assert any(title.endswith("Ahoy Ada") for title in mail.titles)
    own.write_text("{{ nonsense.of.mine }}")
    preview = host.run("incident", "preview").stdout
    assert "not used" in preview and "critical incident" in preview
    assert len(mail.got) == 3, "a preview sends nothing"


def test_who_closes_says_who_they_are(host) -> None:
    host.run("incident", "open", "a storm")
    assert "who you are" in host.run("incident", "close", "over", ok=3).stderr
    host.run("incident", "close", "over", "--by", "Ada")
    [closed] = incidents.list_incidents(host.settings)
    again = host.run("incident", "close", "over", "--by", "Ada", "--incident", closed.id, ok=3)
    assert "is closed" in again.stderr
    [told] = json.loads(host.run("incident", "list", "--json").stdout)
    assert told["state"] == "closed"
    [found] = incidents.list_incidents(host.settings)
    assert found.events[-1].kind is EventKind.CLOSED


def test_a_dry_run_shows_every_message_and_sends_none(host, mail, caplog) -> None:
    with_people(host, mail.address, mail.address)
    plan = RecoveryPlan(
        procedure="recover-files",
        platform="cad-test",
        symptoms="2 of 9 files are damaged",
        points=(),
        target="newest",
        expected_loss="changes since noon",
        touches=(),
        steps=(),
        made_at=clock.now(),
    )
    with caplog.at_level("INFO"), recovery.recovery(host.settings, "recover-files") as run:
        recovery.end_dry_run(run, plan, host.settings)
    told = caplog.text
    for moment in ("opened", "recovered", "closed"):
        for to in ("Ada (incident_commander)", "Grace (management)", "status page (status_page)"):
            assert f"{moment}, to {to} by " in told
    assert "update, to Ada" in told and "update, to status page" not in told
    for part in ("by first, then second", "2 of 9 files are damaged", "changes since noon"):
        assert part in told
    assert mail.got == [] and incidents.list_incidents(host.settings) == ()


def test_every_way_is_tried_and_each_says_that_it_came(host, chat, mail, monkeypatch) -> None:
    monkeypatch.setenv("HOOK_PASSWORD", CANARY)
    with_people(host, DEAD, mail.address)
    assert "none was sent" in host.run("incident", "received", "Ada", ok=3).stderr
    done = host.run("incident", "test", ok=4)
    assert "Ada by second: taken" in done.stdout and "Grace by mail: taken" in done.stdout
    assert CANARY not in done.stdout + done.stderr
    assert mail.titles == ["[TEST] cad-test: does this reach you?"] * 2, "and no customer"
    assert any(
        'lifeboat incident received "Grace"' in " ".join(text.split()) for _, text in mail.got
    )
    assert "not sent to 'Mallory'" in host.run("incident", "received", "Mallory", ok=3).stderr
    told = json.loads(host.run("incident", "received", "grace", "--json").stdout)
    assert (told["acknowledged"], told["silent"]) == (["Grace"], ["Ada"])
    bucket = places.bucket(host.settings)
    [kept] = bucket.list("records/communication-tests/")
    assert [json.loads(line)["event"] for line in bucket.get(kept.key).splitlines()] == [
        *("sent", "received")
    ]
    evidence = {e.what: e for e in reviews.gather_evidence(host.settings, TEST)}
    assert evidence["Grace"].status is Status.PASS
    assert evidence["Ada"].status is Status.FAIL
    assert evidence["channel Ada by first"].status is Status.FAIL
    host.run("incident", "test", "--customers-too", ok=4)
    assert len(mail.got) == 5


@pytest.mark.parametrize("phone", ["555-0101", "+0 12345678", "call me"])
def test_a_number_that_cannot_be_dialled_is_told(host, phone: str) -> None:
    host.write_yaml(sections=f'people: {{support: [{{name: Sam, phone: "{phone}"}}]}}\n')
    assert "people.support" in host.run("incident", "list", ok=3).stderr
