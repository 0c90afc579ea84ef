"""Follow-ups, tests and reviews of a host with a real vault: on record in both tiers, and told."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core import reviews as core
from lifeboat.core.checks import Status
from lifeboat.core.drill import DrillOnRecord, ScenarioOnRecord
from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.forms import Review
from lifeboat.core.marks import Began, Kind, TestResult
from lifeboat.core.points import Asset
from lifeboat.core.review_kinds import ReviewKind
from lifeboat.core.reviews import SignedOff
from lifeboat.core.timeline import Outcome
from tasks import clock, marks, places, recovery, survey
from tasks.people import followups, reminders, reviews
from tasks.record import recorded
from tests.system import receivers

pytestmark = [pytest.mark.system]

PRODUCTION = "environment: production"
PEOPLE = """\
card:
  contacts:
    - {role: DevOps Lead (primary), name: Ann, phone: +1-555-0101}
follow_ups:
  owners: {Technical Team: "Backend Lead"}
"""


@pytest.fixture
def platform(host):
    """A host whose recoveries are in earnest."""
    host.write_yaml(sections=PEOPLE)
    yaml = host.root / "lifeboat.yaml"
    yaml.write_text(yaml.read_text().replace("environment: staging", PRODUCTION))
    return host


def a_recovery(settings, *, fails: bool = False, dry_run: bool = False) -> str:
    """A recovery that does nothing, with all that a real one has around it."""
    try:
        with recovery.recovery(settings, "recover-files") as run:
            if dry_run:
                run.fact(dry_run=True)
            if fails:
                raise RecoveryError("It failed.")
    except RecoveryError:
        pass
    return run.id


def listed(host, *words: str) -> list[dict]:
    return json.loads(host.run("followups", *words, "--json").stdout)


def test_a_recovery_opens_the_plans_actions_in_both_tiers(platform) -> None:
    settings = platform.settings
    run = a_recovery(settings)
    path = followups.directory_of(settings) / f"{run}.jsonl"
    key = f"records/followups/{run}.jsonl"
    assert places.bucket(settings).get(key) == path.read_bytes()
    found = listed(platform)
    assert len(found) == 12
    assert {one["source"] for one in found} == {run}
    assert not any(one["rehearsal"] for one in found)
    assert {one["owner"] for one in found} == {
        "Backend Lead",
        "Incident Commander",
        "Management",
    }
    # A host that was lost with all that it had learns of them from the bucket.
    path.unlink()
    assert listed(platform) == found
    # The same recovery asks for them once.
    assert len(followups.open_for(settings, run)) == 12
    assert len(listed(platform)) == 12


def test_what_did_not_recover_or_was_only_shown_opens_none(platform) -> None:
    a_recovery(platform.settings, fails=True)
    a_recovery(platform.settings, dry_run=True)
    assert listed(platform) == []


def test_a_defect_in_opening_them_makes_no_recovery_look_failed(platform, monkeypatch) -> None:
    def defective(*_: object, **__: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(followups.followups, "opened", defective)
    run = a_recovery(platform.settings)
    record = places.runs_directory(platform.settings) / run / "record.json"
    assert json.loads(record.read_text())["outcome"] == "done"


def test_those_of_a_drill_are_marked_and_remind_nobody(host) -> None:
    host.write_yaml(sections=PEOPLE)
    settings = host.settings
    a_recovery(settings)
    found = followups.read_all(settings)
    assert found and all(one.rehearsal for one in found)
    with clock.set_to(datetime.now(timezone.utc) + timedelta(days=90)):
        assert reminders.tell(settings, found, ()) == ()


def test_people_get_the_reminder_by_mail_until_it_is_done(platform) -> None:
    with receivers.mail() as mail:
        channels = f"alarms: {{channels: [{{name: mail, url: '{mail.address}'}}]}}\n"
        yaml = platform.root / "lifeboat.yaml"
        yaml.write_text(yaml.read_text() + channels)
        settings = platform.settings
        a_recovery(settings)
        found = followups.read_all(settings)
        late = max(one.wanted_at for one in found) + timedelta(hours=1)
        with clock.set_to(late):
            told = reminders.tell(settings, found, ())
            reminders.tell(settings, found, ())
        assert len(told) == 12 and len(mail.got) == 1, "one mail, and not again at once"
        [(title, text)] = mail.got
        assert title == "cad-test: to be done"
        words = " ".join(text.split())
        for one in found:
            assert one.title in words and f"lifeboat followups done {one.id}" in words
        assert "Backend Lead" in words
        with clock.set_to(late + timedelta(hours=25)):
            reminders.tell(settings, found, ())
            reminders.tell(settings, [], ())
        assert len(mail.got) == 3
        assert mail.titles[-1] == "cad-test: to be done: good again"


def test_a_bucket_that_is_away_stops_no_recovery_and_gets_all_of_it_later(platform) -> None:
    bucket = places.bucket(platform.settings)
    platform.write_yaml(endpoint="http://127.0.0.1:9", sections=PEOPLE)
    run = a_recovery(platform.settings)
    assert platform.settings.vault.s3.endpoint == "http://127.0.0.1:9"
    assert not bucket.exists(f"records/followups/{run}.jsonl")
    assert len(followups.read_all(platform.settings)) == 12
    platform.write_yaml(sections=PEOPLE)
    platform.run("followups", "note", "hold-review", "Friday", "--by", "Ann")
    told = bucket.get(f"records/followups/{run}.jsonl")
    assert told == (followups.directory_of(platform.settings) / f"{run}.jsonl").read_bytes()
    assert len(told.splitlines()) == 13


def test_two_hosts_that_write_lose_nothing(platform) -> None:
    settings = platform.settings
    run = a_recovery(settings)
    path = followups.directory_of(settings) / f"{run}.jsonl"
    here = path.read_bytes()
    platform.run("followups", "done", "hold-review", "--by", "Ann")
    path.write_bytes(here)  # as another host has it, which knows nothing of that
    platform.run("followups", "done", "prevent-it", "--by", "Bea")
    done = {one["name"]: one["done_by"] for one in listed(platform, "--all") if one["done_at"]}
    assert done == {"hold-review": "Ann", "prevent-it": "Bea"}
    assert places.bucket(settings).get(f"records/followups/{run}.jsonl") == path.read_bytes()


def test_people_do_put_off_give_away_and_add(platform) -> None:
    a_recovery(platform.settings)
    platform.run("followups", "assign", "update-alerts", "Bea", "--by", "Ann")
    platform.run("followups", "snooze", "prevent-it", "--days", "60", "--by", "Ann")
    platform.run("followups", "done", "hold-review", "--by", "Ann", "--note", "we met")
    added = platform.run("followups", "add", "Buy a second disk!", "--by", "Ann", "--days", "3")
    again = platform.run("followups", "add", "Buy a second disk!", "--by", "Ann")
    found = {one["id"]: one for one in listed(platform, "--all")}
    by_name = {one["name"]: one for one in found.values()}
    assert by_name["update-alerts"]["owner"] == "Bea"
    assert by_name["prevent-it"]["snoozed_until"] > by_name["prevent-it"]["due_at"]
    assert by_name["hold-review"]["notes"] == ["we met"]
    assert added.stdout.startswith("buy-a-second-disk-hand: Incident Commander")
    assert again.stdout.startswith("buy-a-second-disk-2-hand")
    assert len(found) == 14
    text = platform.run("followups").stdout
    assert "Buy a second disk!" in text and "we met" not in text

    refused = platform.run("followups", "done", "hold-review-", "--by", "Ann", ok=3)
    assert "there is none of that name" in refused.stderr
    refused = platform.run("followups", "done", by_name["hold-review"]["id"], "--by", "B B", ok=3)
    assert "it was done on" in refused.stderr
    refused = platform.run("followups", "done", "review-", "--by", "Ann", ok=3)
    assert "it may be review-" in refused.stderr
    platform.run("followups", "done", "review-logs", "--by", "x", ok=2)
    assert len(listed(platform, "--all")) == 14


def test_a_damaged_line_hides_nothing_else(platform) -> None:
    run = a_recovery(platform.settings)
    path = followups.directory_of(platform.settings) / f"{run}.jsonl"
    with path.open("a") as file:
        file.write('{"at": "2026-')
    done = platform.run("followups")
    assert "1 lines can't be read" in done.stderr
    assert "Review logs for anomalies" in done.stdout


def were_tested(settings, at: datetime, *, failed: str = "") -> None:
    for asset in Asset:
        result = TestResult(
            asset=asset,
            point=f"{asset}-20260601T000000Z",
            ended_at=at,
            passed=asset != failed,
            error="digest" if asset == failed else "",
            by="test-restore-1",
        )
        marks.put(settings, Kind.TESTS, f"{asset}", result)


def drilled(settings, at: datetime, name: str, **passed: bool) -> None:
    outcome = {"database": True, "files": True, "models": True, "server": True, **passed}
    drill = DrillOnRecord(
        id=name,
        drilled="cad-staging",
        stack="process",
        ended_at=at,
        passed=all(outcome.values()),
        scenarios=tuple(
            ScenarioOnRecord(
                name=scenario,
                passed=good,
                rto_seconds=12,
                rpo_seconds=0,
                start_seconds=3,
                verify_seconds=4,
            )
            for scenario, good in outcome.items()
        ),
    )
    marks.put(settings, Kind.DRILLS, name, drill)


def test_the_machine_closes_what_the_records_show_to_be_done(platform) -> None:
    settings = platform.settings
    before = datetime.now(timezone.utc) - timedelta(minutes=5)
    were_tested(settings, before)
    drilled(settings, before, "drill-20260601T000000Z-aaaa")
    a_recovery(settings)
    later = datetime.now(timezone.utc) + timedelta(hours=1)

    def open_now() -> set[str]:
        return {one.name for one in reminders.close_what_is_done(settings) if not one.is_done}

    # What was proven before the recovery proves nothing of what came after it.
    assert {"test-backup-integrity", "hold-drill"} <= open_now()
    were_tested(settings, later, failed="models")
    drilled(settings, later, "drill-20260602T000000Z-bbbb", server=False)
    assert {"test-backup-integrity", "hold-drill"} <= open_now()
    were_tested(settings, later)
    drilled(settings, later, "drill-20260603T000000Z-cccc")
    assert not {"test-backup-integrity", "hold-drill"} & open_now()
    notes = {one.name: one.notes for one in followups.read_all(settings) if one.is_done}
    assert "drill-20260603T000000Z-cccc" in notes["hold-drill"][0]
    assert "models-20260601T000000Z" in notes["test-backup-integrity"][0]


# --- reviews --------------------------------------------------------------------------------


def test_a_review_is_signed_off_with_what_was_known_and_its_findings_are_followed_up(
    platform,
) -> None:
    settings = platform.settings
    refused = platform.run("review", "sign-off", "restore-test", "--by", "Ann", ok=3)
    assert "restore test of database: there was none" in refused.stderr
    were_tested(settings, datetime.now(timezone.utc))
    shown = platform.run("review", "show", "restore-test").stdout
    assert shown.count("PASS") == 4
    platform.run("review", "sign-off", "restore-test", "--by", "Ann")
    words = ("--decision", "passed with findings", "--finding", "Nobody at night")
    platform.run("review", "sign-off", "contacts", "--by", "Bea", *words)
    platform.run("review", "sign-off", "plan", "--by", "Bea", "--decision", "failed", ok=2)

    told = {
        one["wanted"]["kind"]: one for one in json.loads(platform.run("reviews", "--json").stdout)
    }
    assert told["restore-test"]["last"]["by"] == "Ann"
    assert len(told["restore-test"]["last"]["evidence"]) == 4
    assert told["contacts"]["last"]["findings"] == ["Nobody at night"]
    [todo] = listed(platform)
    assert (todo["title"], todo["owner"]) == ("Nobody at night", "Incident Commander")
    names = {path.stem for path in (settings.vault.local / "records/reviews").iterdir()}
    assert names == set(marks.names_in_bucket(places.bucket(settings), Kind.REVIEWS))
    assert {core.review_kind_of(name) for name in names} == {"restore-test", "contacts"}


def test_what_can_not_be_kept_in_the_bucket_is_not_signed(platform) -> None:
    platform.write_yaml(endpoint="http://127.0.0.1:9", sections=PEOPLE)
    request = Review(kind="training", by="Ann", decision="passed")
    with pytest.raises(RecoveryError, match=r"127\.0\.0\.1:9"):
        reviews.sign_off(platform.settings, request, ())
    assert not (platform.settings.vault.local / "records/reviews").exists()


def test_a_review_that_the_platform_does_without_is_refused(platform) -> None:
    platform.write_yaml(sections=PEOPLE + 'reviews: {without: {training: "one person"}}\n')
    refused = platform.run("review", "sign-off", "training", "--by", "Ann", ok=3)
    assert "one person" in refused.stderr


def red(settings) -> set[str]:
    found = survey.of_host(settings)
    limits = survey.limits_of(settings)
    from lifeboat.core import objectives

    report = objectives.judge(found, limits, clock.now())
    return {f.name for f in report.red if f.name.startswith("review")}


def test_an_overdue_review_is_red_and_a_new_installation_is_not(platform) -> None:
    settings = platform.settings
    reviews.note_beginning(settings)
    [mark] = marks.read_all(settings, Kind.BEGAN).values()
    assert isinstance(mark, Began)
    now = datetime.now(timezone.utc)
    with clock.set_to(now + timedelta(days=40)):
        assert red(settings) == set()
        told = reminders.tell(settings, (), reviews.standings(settings))
        assert {t.status for t in told} == {"DUE"} and len(told) == 3
    with clock.set_to(now + timedelta(days=46)):
        monthly = {"review-restore-test", "review-failover-test", "review-communication-test"}
        assert red(settings) == monthly
    at = now + timedelta(days=45)
    held = SignedOff(
        id=core.review_id(ReviewKind.RESTORE_TEST, at),
        kind=ReviewKind.RESTORE_TEST,
        at=at,
        by="Ann",
        decision="passed",
    )
    marks.put(settings, Kind.REVIEWS, held.id, held)
    with clock.set_to(now + timedelta(days=46)):
        assert red(settings) == monthly - {"review-restore-test"}
    # A rebuilt server is no new installation.
    local = marks.path_of(settings, Kind.BEGAN, settings.platform)
    local.unlink()
    with clock.set_to(now + timedelta(days=99)):
        reviews.note_beginning(settings)
    assert json.loads(local.read_text())["since"] == json.loads(mark.model_dump_json())["since"]


def test_the_records_of_everyday_life_tell_since_when(platform) -> None:
    settings = platform.settings
    with (
        clock.set_to(datetime(2026, 1, 1, tzinfo=timezone.utc)),
        recorded("backup-files", platform="x", directory=places.runs_directory(settings)) as run,
    ):
        pass
    assert run.record.outcome is Outcome.DONE
    reviews.note_beginning(settings)
    found = marks.read(settings, Kind.BEGAN, settings.platform)
    assert isinstance(found, Began) and found.since.year == 2026 and found.since.month == 1


def test_evidence_of_what_is_away_is_unknown_and_never_good(platform) -> None:
    platform.write_yaml(endpoint="http://127.0.0.1:9", sections=PEOPLE)
    found = reviews.gather_evidence(platform.settings, ReviewKind.PLAN)
    assert [e.status for e in found] == [Status.FAIL]
    assert "127.0.0.1:9" in found[0].found
    with pytest.raises(PreconditionError):
        followups.find(platform.settings, "nothing")
