"""A readiness page with something of everything on it, by a survey on which all is good."""

from __future__ import annotations

from datetime import timedelta

from lifeboat.core import followups, objectives, readiness, reviews
from lifeboat.core.checks import CHECK_NAMES, CheckResult, Status, Verdict
from lifeboat.core.drill import DrillOnRecord, ScenarioOnRecord
from lifeboat.core.followups import Event
from lifeboat.core.readiness import SCENARIOS, Readiness
from lifeboat.core.review_evidence import ContactSeen
from lifeboat.core.review_kinds import ReviewKind
from lifeboat.core.reviews import Shelf, SignedOff
from lifeboat.core.survey import Survey
from lifeboat.core.timeline import Outcome, Phase, RunRecord, StepRecord
from lifeboat.settings.reviews import Reviews
from tests.unit.objectives_fixtures import LIMITS, NOW, ago, good_survey

RUN = "recover-database-20260529T120000Z-4f2a"


def a_drill(number: int, days: float, **failed: bool) -> DrillOnRecord:
    slow = {"database": 8.0, "server": 61.0, "files": 6.0, "models": 7.5}
    return DrillOnRecord(
        id=f"drill-{number:02}",
        drilled="cad-staging",
        stack="process",
        ended_at=ago(days=days),
        passed=not failed,
        scenarios=tuple(
            ScenarioOnRecord(
                name=name,
                passed=name not in failed,
                rto_seconds=slow[name] * (1 + number / 12),
                rpo_seconds=0,
                start_seconds=2,
                verify_seconds=3,
                phases={
                    Phase.DETECT: 1.0,
                    Phase.FETCH: slow[name] / 4,
                    Phase.RESTORE: slow[name] / 4,
                    Phase.START: 1.5,
                    Phase.VERIFY: slow[name] / 8,
                },
            )
            for name in SCENARIOS
        ),
    )


def a_recovery(*, good: bool = True, **more: object) -> RunRecord:
    at = ago(days=3).timestamp()
    status = Status.PASS if good else Status.FAIL
    checks = tuple(
        CheckResult(name=name, status=status, evidence="x", seconds=0.1) for name in CHECK_NAMES
    )
    told = {
        "id": RUN,
        "procedure": "recover-database",
        "platform": "cad",
        "began_at": at - 14,
        "ended_at": at,
        "outcome": Outcome.DONE if good else Outcome.FAILED,
        "verdict": Verdict(checks=checks),
        "steps": (
            StepRecord(
                name="restore",
                phase=Phase.RESTORE,
                began_at=at - 12,
                ended_at=at - 4,
                outcome=Outcome.DONE,
            ),
        ),
        **more,
    }
    return RunRecord(**told)


def the_follow_ups() -> tuple[followups.FollowUp, ...]:
    events = followups.opened(RUN, ago(days=3))
    done = Event(at=ago(days=2), follow_up="monitor-stability-4f2a", event="done")
    return followups.states((*events, done))


def the_page(survey: Survey | None = None, **more: object) -> Readiness:
    shelf = Shelf(
        began_at=ago(days=60),
        signed=(
            SignedOff(
                id="failover-test-1",
                kind=ReviewKind.FAILOVER_TEST,
                at=ago(days=10),
                by="Ann",
                decision="passed",
            ),
        ),
    )
    told = {
        "environment": "production",
        "drills": [*(a_drill(n, 300 - 30 * n) for n in range(9)), a_drill(9, 10)],
        "recoveries": [a_recovery()],
        "tests": (survey or good_survey()).tests,
        "restores": (survey or good_survey()).measured,
        "follow_ups": the_follow_ups(),
        "standings": reviews.standings(Reviews().wanted, shelf, NOW),
        "certificates": {
            "config/certs/cad.pem": NOW + timedelta(days=200),
            "config/certs/old.pem": NOW + timedelta(days=9),
        },
        "certificate_days": 21,
        "contacts": [
            ContactSeen(who="DevOps Lead Ann", phone="+1-555-0101", confirmed_at=ago(days=20)),
            ContactSeen(who="CTO", phone="+1-555-0201"),
        ],
        "unseen": {},
        "now": NOW,
        **more,
    }
    report = objectives.judge(survey or good_survey(), LIMITS, NOW)
    return readiness.put_together(report, **told)
