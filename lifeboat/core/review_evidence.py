"""What the machine brings to a test or review: findings of fact, before a person signs off.

Pure. What could not be looked at is UNKNOWN; what only a person can know is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.checks import Status
from lifeboat.core.review_kinds import ReviewKind, Wanted
from lifeboat.core.reviews import Evidence

CONTACT_DAYS = 90.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TestSeen(_Frozen):
    """The newest restore test of an asset."""

    __test__ = False

    asset: str
    at: datetime
    passed: bool
    error: str = ""


class DrillSeen(_Frozen):
    """One scenario of one drill."""

    scenario: str
    at: datetime
    passed: bool
    drill: str
    rto_seconds: float | None = None


class ContactSeen(_Frozen):
    """A person on the card, and when the number was last tried; None: not known."""

    who: str
    phone: str = ""
    confirmed_at: datetime | None = None


class MessageTest(_Frozen):
    """A test message, and the channels that took it or did not (with the reason)."""

    at: datetime
    channels: Mapping[str, str] = Field(default_factory=dict)  # name: "taken" or an error
    acknowledged: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


class Known(_Frozen):
    """All that the machine can bring to a review. What could not be looked at is in `unseen`."""

    assets: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    tests: tuple[TestSeen, ...] = ()
    drills: tuple[DrillSeen, ...] = ()
    contacts: tuple[ContactSeen, ...] = ()
    message_test: MessageTest | None = None
    failed_recoveries: tuple[str, ...] = ()  # since the last review of procedures
    procedures_open: tuple[str, ...] = ()  # follow-ups that ask for other procedures
    recovery_times: Mapping[str, tuple[float, float]] = Field(default_factory=dict)  # took, RTO
    exposures: Mapping[str, tuple[float, float]] = Field(default_factory=dict)  # lost, RPO
    plan_written_at: datetime | None = None
    unseen: Mapping[str, str] = Field(default_factory=dict)  # what: why


def evidence_for(
    kind: ReviewKind, known: Known, wanted: Wanted, now: datetime
) -> tuple[Evidence, ...]:
    """What the machine brings to a review of this kind; nothing where only a person knows."""
    makers = {
        ReviewKind.RESTORE_TEST: _of_tests,
        ReviewKind.FAILOVER_TEST: _of_drills,
        ReviewKind.COMMUNICATION_TEST: _of_messages,
        ReviewKind.CONTACTS: _of_contacts,
        ReviewKind.PROCEDURES: _of_procedures,
        ReviewKind.SCENARIOS: _of_drills,
        ReviewKind.OBJECTIVES: _of_objectives,
        ReviewKind.FULL_DRILL: _of_drills,
        ReviewKind.PLAN: _of_plan,
    }
    make = makers.get(kind)
    return tuple(make(known, timedelta(days=wanted.every_days), now)) if make else ()


def _unseen(known: Known, *what: str) -> Iterator[Evidence]:
    for name in what:
        if name in known.unseen:
            yield Evidence(what=name, status=Status.UNKNOWN, found=known.unseen[name])


def _of_tests(known: Known, period: timedelta, now: datetime) -> Iterator[Evidence]:
    yield from _unseen(known, "restore tests")
    if "restore tests" in known.unseen:
        return
    tests = {test.asset: test for test in known.tests}
    for asset in known.assets:
        test = tests.get(asset)
        what = f"restore test of {asset}"
        if test is None:
            yield Evidence(what=what, status=Status.FAIL, found="there was none")
        elif not test.passed:
            told = f"failed on {test.at:%Y-%m-%d}: {test.error}"
            yield Evidence(what=what, status=Status.FAIL, found=told)
        elif now - test.at > period:
            told = f"the last one that passed was on {test.at:%Y-%m-%d}"
            yield Evidence(what=what, status=Status.FAIL, found=told)
        else:
            yield Evidence(what=what, status=Status.PASS, found=f"passed on {test.at:%Y-%m-%d}")


def _of_drills(known: Known, period: timedelta, now: datetime) -> Iterator[Evidence]:
    yield from _unseen(known, "drills")
    if "drills" in known.unseen:
        return
    for scenario in known.scenarios:
        ours = sorted((d for d in known.drills if d.scenario == scenario), key=lambda d: d.at)
        what = f"drill of {scenario}"
        if not ours:
            yield Evidence(what=what, status=Status.FAIL, found="never drilled")
            continue
        last = ours[-1]
        took = f" in {last.rto_seconds:.0f} s" if last.rto_seconds is not None else ""
        how = f"recovered{took}" if last.passed else "NOT recovered"
        good = last.passed and now - last.at <= period
        yield Evidence(
            what=what,
            status=Status.PASS if good else Status.FAIL,
            found=f"{how} on {last.at:%Y-%m-%d} ({last.drill})",
        )


def _of_messages(known: Known, period: timedelta, now: datetime) -> Iterator[Evidence]:
    test = known.message_test
    if test is None:
        found = known.unseen.get(
            "messages", "no test message is on record: `lifeboat incident test`"
        )
        yield Evidence(what="test message", status=Status.FAIL, found=found)
        return
    age = "" if now - test.at <= period else ", too long ago"
    for channel, result in test.channels.items():
        good = result == "taken" and not age
        yield Evidence(
            what=f"channel {channel}",
            status=Status.PASS if good else Status.FAIL,
            found=f"{result} on {test.at:%Y-%m-%d}{age}",
        )
    for who in test.acknowledged:
        yield Evidence(what=who, status=Status.PASS, found="said that it came")
    for who in test.silent:
        yield Evidence(what=who, status=Status.FAIL, found="did not say that it came")
    if not test.acknowledged and not test.silent:
        yield Evidence(
            what="acknowledgements",
            status=Status.UNKNOWN,
            found="taken is not read: ask each person whether it came",
        )


def _of_contacts(known: Known, period: timedelta, now: datetime) -> Iterator[Evidence]:
    if not known.contacts:
        yield Evidence(
            what="contacts", status=Status.FAIL, found="lifeboat.yaml names nobody to call"
        )
    for contact in known.contacts:
        at = contact.confirmed_at
        if at is None:
            yield Evidence(
                what=contact.who, status=Status.UNKNOWN, found="not known when it was last tried"
            )
            continue
        good = now - at <= timedelta(days=CONTACT_DAYS)
        yield Evidence(
            what=contact.who,
            status=Status.PASS if good else Status.FAIL,
            found=f"confirmed on {at:%Y-%m-%d}",
        )


def _of_procedures(known: Known, period: timedelta, now: datetime) -> Iterator[Evidence]:
    yield from _unseen(known, "recoveries", "follow-ups")
    for run in known.failed_recoveries:
        yield Evidence(what="recovery", status=Status.FAIL, found=f"{run} did not end well")
    for name in known.procedures_open:
        yield Evidence(what="follow-up", status=Status.FAIL, found=f"{name} is still open")
    if not (known.failed_recoveries or known.procedures_open or known.unseen):
        yield Evidence(
            what="procedures",
            status=Status.PASS,
            found="no recovery failed, and no follow-up asks for another procedure",
        )


def _of_objectives(known: Known, period: timedelta, now: datetime) -> Iterator[Evidence]:
    yield from _unseen(known, "objectives")
    for what, measured in (("back in", known.recovery_times), ("would be lost", known.exposures)):
        for scenario, (seconds, objective) in measured.items():
            yield Evidence(
                what=f"{scenario}: {what}",
                status=Status.PASS if seconds <= objective else Status.FAIL,
                found=f"{seconds:.0f} s, objective {objective:.0f} s",
            )


def _of_plan(known: Known, period: timedelta, now: datetime) -> Iterator[Evidence]:
    at = known.plan_written_at
    if at is None:
        told = known.unseen.get(
            "plan", "the bucket holds no plan; `lifeboat backup config` writes it"
        )
        yield Evidence(what="plan in the bucket", status=Status.FAIL, found=told)
    else:
        yield Evidence(
            what="plan in the bucket", status=Status.PASS, found=f"written on {at:%Y-%m-%d}"
        )
