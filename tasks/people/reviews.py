"""Tests and reviews: what the machine knows about each, who signed it off, what is due."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from typing import get_args

from lifeboat.core import reviews
from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.forms import Review, Scenario
from lifeboat.core.marks import Began, Kind
from lifeboat.core.objectives import Report
from lifeboat.core.points import Asset
from lifeboat.core.review_evidence import DrillSeen, Known, MessageTest, TestSeen, evidence_for
from lifeboat.core.review_kinds import ABOUT, ReviewKind, Wanted
from lifeboat.core.reviews import Evidence, Shelf, SignedOff, Standing
from lifeboat.core.survey import Unseen
from lifeboat.core.timeline import Outcome, run_began_at
from lifeboat.settings import Settings
from tasks import clock, marks, places
from tasks.looking import seen
from tasks.orchestration import step
from tasks.people import contact_test, contacts, followups
from tasks.record import RECORD_NAME
from tasks.survey_vault import REPORT_KEY, Notes, parse_record

log = logging.getLogger("lifeboat")

PLAN_KEY = "records/plan/plan.md"
_PROCEDURES = "update-procedures"
_FINDING_DAYS = 28


def shelf(settings: Settings) -> Shelf:
    """All that is on record of reviews: in the bucket, or on this host where that is away."""
    found = seen(Notes(settings, in_bucket=True).reviews)
    if isinstance(found, Unseen):
        log.warning("The reviews in the bucket can't be read: %s", found.why)
        return Notes(settings, in_bucket=False).reviews()
    return found


def standings(settings: Settings) -> tuple[Standing, ...]:
    """Where every wanted test and review stands now."""
    return reviews.standings(settings.reviews.wanted, shelf(settings), clock.now())


def note_beginning(settings: Settings) -> None:
    """Remember, once, since when the platform is protected. Raises nothing."""
    name = settings.platform
    try:
        if marks.path_of(settings, Kind.BEGAN, name).exists():
            return
        if places.bucket(settings).exists(marks.key_of(Kind.BEGAN, name)):
            # A rebuilt server: it is the platform, and no new one.
            began = marks.read(settings, Kind.BEGAN, name, from_bucket=True)
        else:
            began = Began(since=_first_run_at(settings))
        marks.put(settings, Kind.BEGAN, name, began)
    except (RecoveryError, OSError) as error:
        log.warning("Since when the platform is protected is not on record yet: %s", error)


def _first_run_at(settings: Settings) -> datetime:
    began = []
    for path in places.runs_directory(settings).glob("*-*"):
        try:
            began.append(run_began_at(path.name))
        except (IndexError, ValueError):
            continue
    return min(began, default=clock.now())


# --- what the machine knows -----------------------------------------------------------------


def wanted_of(settings: Settings, kind: ReviewKind) -> Wanted:
    """How a platform wants a review. Raises PreconditionError if it does not hold it."""
    for wanted in settings.reviews.wanted:
        if wanted.kind is kind:
            return wanted
    raise PreconditionError(
        f"Holding the review {kind}: this platform does without it "
        f"({settings.reviews.without[kind]}).",
        hint="Nothing was signed. See `reviews.without` in lifeboat.yaml.",
    )


@step()
def gather_evidence(settings: Settings, kind: ReviewKind) -> tuple[Evidence, ...]:
    """What the records say about a review's subject. What can't be read is UNKNOWN."""
    wanted = wanted_of(settings, kind)
    return evidence_for(kind, what_is_known(settings), wanted, clock.now())


def what_is_known(settings: Settings) -> Known:
    """All that the machine can bring to reviews, from the bucket or else from this host."""
    away = isinstance(seen(lambda: places.bucket(settings).reachable()), Unseen)
    notes = Notes(settings, in_bucket=not away)
    unseen: dict[str, str] = {}
    tests, drills = seen(notes.tests), seen(notes.drills)
    report = seen(lambda: last_report(settings))
    plan_at = seen(lambda: _plan_written_at(settings))
    todo = followups.read_all(settings)
    for what, found in (
        ("restore tests", tests),
        ("drills", drills),
        ("objectives", report),
        ("plan", plan_at),
    ):
        if isinstance(found, Unseen):
            unseen[what] = found.why
    if report is None:
        unseen["objectives"] = "nobody has looked yet: `lifeboat watch`"
    looked = report if isinstance(report, Report) else None
    return Known(
        assets=tuple(Asset),
        scenarios=get_args(Scenario),
        tests=()
        if isinstance(tests, Unseen)
        else tuple(
            TestSeen(asset=asset, at=test.ended_at, passed=test.passed, error=test.error)
            for asset, test in tests.items()
        ),
        drills=()
        if isinstance(drills, Unseen)
        else tuple(
            DrillSeen(
                scenario=scenario.name,
                at=drill.ended_at,
                passed=scenario.passed,
                drill=drill.id,
                rto_seconds=scenario.rto_seconds,
            )
            for drill in drills
            for scenario in drill.scenarios
        ),
        contacts=contacts.contacts_of(settings),
        message_test=_message_test(settings),
        failed_recoveries=_failed_recoveries(settings),
        procedures_open=tuple(
            one.id for one in todo if one.name == _PROCEDURES and not one.is_done
        ),
        recovery_times={
            e.scenario: (e.seconds, e.objective_seconds)
            for e in (looked.estimates if looked else ())
            if not e.unmeasured
        },
        exposures={
            e.scenario: (e.seconds, e.objective_seconds)
            for e in (looked.exposures if looked else ())
            if e.seconds is not None
        },
        plan_written_at=None if isinstance(plan_at, Unseen) else plan_at,
        unseen=unseen,
    )


def last_report(settings: Settings) -> Report | None:
    """What the last look at the objectives came to; None if nobody has looked yet.

    The one of this host, or the bucket's where this host has none.
    """
    local = settings.vault.local / REPORT_KEY
    if local.exists():
        return Report.model_validate_json(local.read_bytes())
    store = places.bucket(settings)
    if not store.exists(REPORT_KEY):
        return None
    return Report.model_validate_json(store.get(REPORT_KEY))


def _plan_written_at(settings: Settings) -> datetime | None:
    found = places.bucket(settings).list(PLAN_KEY)
    return max((item.modified_at for item in found), default=None)


def _message_test(settings: Settings) -> MessageTest | None:
    """The newest test of the ways to people, or else `lifeboat alarms test`, by this host."""
    if found := contact_test.newest(settings):
        return found
    path = places.records_directory(settings) / "alarms.jsonl"
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    for line in reversed(lines):
        try:
            told = json.loads(line)
            if "a test of the alarms" in told["title"]:
                return MessageTest(at=told["at"], channels=told["channels"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _failed_recoveries(settings: Settings) -> tuple[str, ...]:
    """Recoveries of the last quarter, in earnest, that did not end well."""
    since = clock.now() - timedelta(days=ABOUT[ReviewKind.PROCEDURES].every_days)
    failed = []
    for path in sorted(places.runs_directory(settings).glob(f"recover-*/{RECORD_NAME}")):
        if run_began_at(path.parent.name) >= since:
            record = parse_record(path.read_bytes())
            if record and record.outcome is Outcome.FAILED:
                failed.append(record.id)
    return tuple(failed)


# --- signed off -----------------------------------------------------------------------------


@step()
def sign_off(settings: Settings, request: Review, evidence: tuple[Evidence, ...]) -> SignedOff:
    """Put a review on record in both tiers, and open a follow-up for each of its findings.

    Raises PreconditionError, with nothing signed, if it is to be `passed` and the machine saw
    something fail; and if the bucket does not answer: a review that this host alone knows of would
    be lost with it.
    """
    kind = request.kind
    wanted = wanted_of(settings, kind)
    against = reviews.contradicts(request.decision, evidence)
    if against:
        told = "; ".join(f"{found.what}: {found.found}" for found in against)
        raise PreconditionError(
            f"Signing off {kind} as passed: {told}.",
            hint="Nothing was signed. Cure it; or sign off as `passed with findings`, and say in a "
            "finding what will be done; or as `failed`.",
        )
    now = clock.now()
    signed = SignedOff(
        id=reviews.review_id(kind, now),
        kind=kind,
        at=now,
        by=request.by,
        decision=request.decision,
        findings=tuple(request.findings),
        evidence=evidence,
    )
    marks.put(settings, Kind.REVIEWS, signed.id, signed, bucket_first=True)
    log.info("%s: %s, signed off by %s.", ABOUT[kind].title, signed.decision, signed.by)
    for finding in signed.findings:
        followups.add(
            settings,
            finding,
            owner=wanted.owner,
            due_at=now + timedelta(days=_FINDING_DAYS),
            by=request.by,
            source=signed.id,
            how=f"Found by the review {kind} on {now:%Y-%m-%d}.",
        )
    return signed
