"""Tests and reviews: what is due when, what is red, and what the machine brings to each."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from lifeboat.core import reviews
from lifeboat.core.checks import Status
from lifeboat.core.forms import Review
from lifeboat.core.review_evidence import (
    ContactSeen,
    DrillSeen,
    Known,
    MessageTest,
    TestSeen,
    evidence_for,
)
from lifeboat.core.review_kinds import ABOUT, ReviewKind
from lifeboat.core.reviews import Evidence, Shelf, SignedOff
from lifeboat.settings.reviews import ReviewOf, Reviews

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
WANTED = {wanted.kind: wanted for wanted in Reviews().wanted}
KIND = ReviewKind.RESTORE_TEST


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def signed(kind: ReviewKind, days: float, decision: str = "passed") -> SignedOff:
    at = ago(days)
    return SignedOff(id=reviews.review_id(kind, at), kind=kind, at=at, by="Ann", decision=decision)


def status_of(shelf: Shelf, kind: ReviewKind = KIND) -> str:
    [found] = reviews.standings([WANTED[kind]], shelf, NOW)
    return found.status


def test_there_are_the_plans_eleven_monthly_quarterly_and_annual() -> None:
    often = [about.how_often for about in ABOUT.values()]
    assert often == ["monthly"] * 3 + ["quarterly"] * 4 + ["annual"] * 4
    assert tuple(WANTED) == tuple(ReviewKind)


@pytest.mark.parametrize(
    ("began", "last", "status"),
    [
        (None, None, "fresh"),  # a new installation, on day one
        (0, None, "fresh"),
        (30, None, "fresh"),
        (32, None, "due"),
        (44, None, "due"),
        (46, None, "overdue"),
        (400, 30, "fresh"),
        (400, 32, "due"),
        (400, 46, "overdue"),
    ],
)
def test_one_is_due_a_period_after_the_last_or_the_beginning(began, last, status) -> None:
    shelf = Shelf(
        began_at=None if began is None else ago(began),
        signed=() if last is None else (signed(KIND, last),),
    )
    assert status_of(shelf) == status


def test_one_that_failed_is_red_until_it_is_held_again() -> None:
    bad = Shelf(signed=(signed(KIND, 40), signed(KIND, 1, "failed")))
    assert status_of(bad) == "failed"
    cured = Shelf(signed=(*bad.signed, signed(KIND, 0.5, "passed with findings")))
    assert status_of(cured) == "fresh"


def test_each_has_a_finding_and_only_what_is_late_or_failed_is_red() -> None:
    shelf = Shelf(
        began_at=ago(100),
        signed=(signed(ReviewKind.FAILOVER_TEST, 2), signed(ReviewKind.CONTACTS, 2, "failed")),
    )
    found = list(reviews.review_findings(WANTED.values(), shelf, NOW))
    assert [f.name for f in found] == [f"review-{kind}" for kind in ReviewKind]
    red = {f.name for f in found if f.status is not Status.PASS}
    # Quarterly ones are due, and have their days of grace; annual ones are not due.
    assert red == {"review-restore-test", "review-communication-test", "review-contacts"}
    told = next(f for f in found if f.name == "review-restore-test")
    assert "never held" in told.evidence and "sign-off restore-test" in told.advice


def test_settings_say_how_often_by_whom_and_what_is_done_without() -> None:
    told = Reviews(
        kinds={ReviewKind.TRAINING: ReviewOf(every_days=180, owner="CTO")},
        without={ReviewKind.VENDORS: "none is under contract"},
    )
    found = {wanted.kind: wanted for wanted in told.wanted}
    assert ReviewKind.VENDORS not in found
    assert (found[ReviewKind.TRAINING].every_days, found[ReviewKind.TRAINING].owner) == (180, "CTO")
    assert found[ReviewKind.PLAN].every_days == 366
    with pytest.raises(ValidationError):
        Reviews(without={ReviewKind.VENDORS: ""})


# --- evidence -------------------------------------------------------------------------------


def told(kind: ReviewKind, **known: object) -> dict[str, Status]:
    return {e.what: e.status for e in evidence_for(kind, Known(**known), WANTED[kind], NOW)}


def a_drill(scenario: str, days: float, passed: bool = True) -> DrillSeen:
    return DrillSeen(scenario=scenario, at=ago(days), passed=passed, drill="d", rto_seconds=12)


def test_restore_tests_are_judged_by_what_was_restored_within_the_month() -> None:
    tests = (
        TestSeen(asset="database", at=ago(1), passed=True),
        TestSeen(asset="files", at=ago(40), passed=True),
        TestSeen(asset="models", at=ago(1), passed=False, error="digest"),
    )
    assets = ("database", "files", "models", "config")
    assert told(KIND, assets=assets, tests=tests) == {
        "restore test of database": Status.PASS,
        "restore test of files": Status.FAIL,
        "restore test of models": Status.FAIL,
        "restore test of config": Status.FAIL,
    }


def test_drills_count_for_as_long_as_the_review_asks() -> None:
    drills = (a_drill("database", 50), a_drill("files", 5), a_drill("files", 1, False))
    scenarios = ("database", "files", "server")
    known = {"scenarios": scenarios, "drills": drills}
    monthly = told(ReviewKind.FAILOVER_TEST, **known)
    quarterly = told(ReviewKind.SCENARIOS, **known)
    assert monthly["drill of database"] is Status.FAIL
    assert quarterly["drill of database"] is Status.PASS
    # The newest one counts, although an older one was good.
    assert monthly["drill of files"] is quarterly["drill of files"] is Status.FAIL
    assert monthly["drill of server"] is Status.FAIL


def test_a_message_that_was_taken_is_not_yet_one_that_was_read() -> None:
    test = MessageTest(at=ago(1), channels={"mail": "taken", "pager": "refused"})
    found = told(ReviewKind.COMMUNICATION_TEST, message_test=test)
    assert found == {
        "channel mail": Status.PASS,
        "channel pager": Status.FAIL,
        "acknowledgements": Status.UNKNOWN,
    }
    read = test.model_copy(update={"acknowledged": ("Ann",), "silent": ("Bea",)})
    found = told(ReviewKind.COMMUNICATION_TEST, message_test=read)
    assert (found["Ann"], found["Bea"]) == (Status.PASS, Status.FAIL)
    assert "acknowledgements" not in found
    old = test.model_copy(update={"at": ago(32)})
    assert told(ReviewKind.COMMUNICATION_TEST, message_test=old)["channel mail"] is Status.FAIL
    assert told(ReviewKind.COMMUNICATION_TEST) == {"test message": Status.FAIL}


def test_a_contact_is_fresh_for_ninety_days_and_unknown_is_not_fresh() -> None:
    people = (
        ContactSeen(who="a", confirmed_at=ago(89)),
        ContactSeen(who="b", confirmed_at=ago(91)),
        ContactSeen(who="c"),
    )
    assert told(ReviewKind.CONTACTS, contacts=people) == {
        "a": Status.PASS,
        "b": Status.FAIL,
        "c": Status.UNKNOWN,
    }
    assert told(ReviewKind.CONTACTS) == {"contacts": Status.FAIL}


def test_objectives_are_compared_with_what_was_measured() -> None:
    found = told(
        ReviewKind.OBJECTIVES,
        recovery_times={"database": (30.0, 14400.0), "server": (20000.0, 14400.0)},
        exposures={"files": (1800.0, 3600.0)},
    )
    assert found == {
        "database: back in": Status.PASS,
        "server: back in": Status.FAIL,
        "files: would be lost": Status.PASS,
    }


@pytest.mark.parametrize("kind", [KIND, ReviewKind.SCENARIOS, ReviewKind.OBJECTIVES])
def test_what_could_not_be_looked_at_is_unknown(kind: ReviewKind) -> None:
    away = dict.fromkeys(("restore tests", "drills", "objectives"), "the bucket is away")
    found = told(kind, assets=("database",), scenarios=("database",), unseen=away)
    assert found and set(found.values()) == {Status.UNKNOWN}


def test_of_people_and_contracts_the_machine_says_nothing() -> None:
    assert told(ReviewKind.TRAINING) == told(ReviewKind.VENDORS) == {}


def test_nobody_signs_off_as_passed_what_was_seen_to_fail() -> None:
    bad = Evidence(what="drill", status=Status.FAIL, found="never")
    unknown = Evidence(what="mail", status=Status.UNKNOWN, found="?")
    assert reviews.contradicts("passed", (bad, unknown)) == (bad,)
    assert reviews.contradicts("failed", (bad,)) == ()
    assert reviews.contradicts("passed with findings", (bad,)) == ()


@pytest.mark.parametrize(
    ("decision", "findings", "good"),
    [
        ("passed", [], True),
        ("passed", ["something"], False),
        ("failed", [], False),
        ("failed", ["something"], True),
        ("passed with findings", [], False),
    ],
)
def test_a_decision_and_its_findings_fit(decision: str, findings: list[str], good: bool) -> None:
    told = {"kind": "plan", "by": "Ann", "decision": decision, "findings": findings}
    if good:
        assert Review(**told)
    else:
        with pytest.raises(ValidationError):
            Review(**told)
