"""What an operator reads before, while and after: plan, forecast, clock, checks, result."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core import account
from lifeboat.core.checks import CHECK_NAMES, CheckResult, Status, Verdict
from lifeboat.core.forecast import Forecast, forecast
from lifeboat.core.marks import Verified
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.survey import Rehearsal
from lifeboat.core.timeline import MovedAside, Outcome, Phase, RunRecord, StepRecord

NOW = datetime(2026, 1, 31, 3, 15, tzinfo=timezone.utc)
POINT = RecoveryPoint(
    asset=Asset.DATABASE,
    id="database-20260131T011500Z",
    taken_at=NOW - timedelta(hours=2),
    copies={Tier.LOCAL: "a", Tier.S3: "b"},
    bytes=2_000_000_000,
    verified_at=NOW - timedelta(days=1),
)
MEASURED = Verified(
    point="database-1",
    verified_at=NOW,
    by="test-restore-1",
    restored_bytes=1_000_000_000,
    restore_seconds=10,
    wal_replayed_bytes=50_000_000,
    wal_replay_seconds=3,
)
REHEARSED = Rehearsal(
    scenario="database", by="drill-1", ended_at=NOW, start_seconds=4, verify_seconds=5
)


def foretold(**known) -> Forecast:
    known = {"measured": {Asset.DATABASE: MEASURED}, "rehearsal": REHEARSED} | known
    return forecast([POINT], **known)


def test_the_duration_is_the_sum_of_what_was_measured_and_names_where() -> None:
    found = foretold()
    assert found.seconds == pytest.approx(20 + 3 + 9)
    told = " ".join(found.basis)
    assert "2000 MB as fast as test-restore-1: 20.0 s" in told
    assert "50 MB replayed as in test-restore-1" in told and "as in drill-1: 9.0 s" in told
    assert found.unmeasured == ()
    assert foretold(renamed=True).seconds == pytest.approx(12)
    assert "at most 2000 MB" in " ".join(foretold(repaired=True).basis)


def test_what_was_never_measured_is_not_taken_for_nothing() -> None:
    found = foretold(measured={}, rehearsal=None)
    assert (found.seconds, len(found.unmeasured)) == (0, 3)
    plan = plan_of(found)
    assert "not known: not all of it was ever measured (RTO 4 h)" in plan.in_words()
    assert "about" not in plan.in_markdown().split("## How long")[1].split("##")[0]


def plan_of(found: Forecast | None) -> RecoveryPlan:
    return RecoveryPlan(
        procedure="recover-database",
        platform="cad",
        symptoms="it does not answer",
        points=(POINT,),
        passed_over=(POINT.model_copy(update={"suspicion": "it shrank"}),),
        target="the newest row in the WAL",
        expected_loss="no acknowledged row",
        touches=("/srv/cad/data",),
        steps=("restart", "hot"),
        made_at=NOW,
        forecast=found,
        objective_rto_seconds=14400,
    )


def test_the_plan_says_all_that_is_to_be_approved() -> None:
    for text in (plan_of(foretold()).in_markdown(), plan_of(foretold()).in_words()):
        for part in (
            *("recover-database on cad", POINT.id, "2 h", "local, s3", "verified 24 h ago"),
            *("no acknowledged row", "about 32 s (RTO 4 h)", "drill-1", "/srv/cad/data"),
            *("restart", "hot", "it shrank", "lifeboat accept"),
        ):
            assert part in text, text
    assert "How long" not in plan_of(None).in_words()


def record(**more) -> RunRecord:
    began = NOW.timestamp()
    step = StepRecord(
        name="bring-base",
        phase=Phase.FETCH,
        began_at=began,
        ended_at=began + 60,
        outcome=Outcome.DONE,
    )
    made = {"id": "r-1", "procedure": "recover-database", "platform": "cad", "began_at": began}
    return RunRecord(**made, steps=(step,), **more)


def test_the_clock_counts_against_the_objective() -> None:
    now = NOW.timestamp() + 1440
    told = account.clock(record(), now=now, doing="replay", rto_seconds=14400)
    for part in ("running", "24 min of 4 h (RTO): 10.0 %", "Now: replay", "| fetch | 60.0 s |"):
        assert part in told, told
    done = record(ended_at=NOW.timestamp() + 90, outcome=Outcome.DONE)
    told = account.clock(done, now=now, doing="replay", rto_seconds=None)
    assert "recovered" in told and "90 s" in told and "Now" not in told


def test_every_check_is_shown_whole_and_what_did_not_pass_stands_out() -> None:
    seen = CheckResult(name="search", status=Status.FAIL, evidence="a|b\nc", seconds=1)
    told = account.checks(Verdict.of([seen]))
    assert "| search | **FAIL** | a\\|b c | 1.0 |" in told
    assert all(f"| {name} | **" in told for name in CHECK_NAMES)
    assert told.startswith("# 0 of 18 checks passed")


def test_the_result_leads_to_the_record_and_to_what_was_kept() -> None:
    aside = MovedAside(what="/data", where="/data.damaged-r-1")
    done = record(ended_at=NOW.timestamp() + 1, outcome=Outcome.NOT_APPROVED, moved_aside=(aside,))
    places = {"on the host": "/srv/r-1", "at the store": "http://s3/b/r-1"}
    told = account.result(done, places=places)
    for part in ("not approved", "`/data.damaged-r-1`", "`/srv/r-1`", "(http://s3/b/r-1)"):
        assert part in told, told
