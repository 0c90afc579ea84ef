"""Points of Prefect's own database: an emptied history never stands in for a whole one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core import orchestrator
from lifeboat.core.errors import PreconditionError
from lifeboat.core.orchestrator import OrchestratorPoint
from lifeboat.core.points import Tier

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def point(hours: float, runs: int, deployments: int = 5, **more) -> OrchestratorPoint:
    at = NOW - timedelta(hours=hours)
    copies = more.pop("copies", {Tier.LOCAL: "a", Tier.S3: "b"})
    return OrchestratorPoint(
        id=orchestrator.point_id(at),
        taken_at=at,
        copies=copies,
        runs=runs,
        deployments=deployments,
        **more,
    )


def test_the_newest_whole_history_is_chosen() -> None:
    whole, vacuumed, emptied, regrowing = (
        point(4, 1000),
        point(3, 900),
        point(2, 3, deployments=0),
        point(1, 300),
    )
    points = (whole, vacuumed, emptied, regrowing)
    assert orchestrator.choose(points) == vacuumed
    assert set(orchestrator.emptied(points)) == {emptied.id, regrowing.id}
    assert orchestrator.choose(points, named=emptied.id) == emptied, "a person may want it"


def test_a_server_without_deployments_is_emptied_whatever_its_runs() -> None:
    points = (point(2, 10), point(1, 10, deployments=0))
    assert orchestrator.choose(points) == points[0]
    new = point(1, 0, deployments=0)
    assert orchestrator.choose((new,)) == new, "a new server's first point is a point"


@pytest.mark.parametrize("named", ["", "orchestrator-20200101T000000Z"])
def test_without_a_fitting_point_it_says_so(named: str) -> None:
    here = point(1, 10, copies={Tier.LOCAL: "a"})
    with pytest.raises(PreconditionError, match="there is n"):
        orchestrator.choose((here,), named=named, tiers=(Tier.S3,))


def test_a_tier_that_lacks_the_newest_gives_an_older_one() -> None:
    older, newer = point(2, 10), point(1, 12, copies={Tier.LOCAL: "a"})
    assert orchestrator.choose((older, newer), tiers=(Tier.S3,)) == older


def test_all_of_two_days_stay_then_one_a_day_then_none() -> None:
    points = [point(hours, 100) for hours in range(0, 24 * 60, 6)]
    gone = {p.id for p in orchestrator.to_remove(points, days=30, minimum=3, now=NOW)}
    kept = [p for p in points if p.id not in gone]
    assert [p for p in kept if NOW - p.taken_at <= timedelta(days=2)] == points[:9]
    days = [p.taken_at.date() for p in kept if NOW - p.taken_at > timedelta(days=2)]
    assert len(days) == len(set(days)) and 27 <= len(days) <= 30


def test_the_last_whole_and_verified_ones_never_go() -> None:
    verified = point(24 * 300, 900, verified_at=NOW)
    whole = point(24 * 200, 1000)
    emptied = [point(hours, 2) for hours in (1, 2, 3, 4)]
    gone = orchestrator.to_remove((verified, whole, *emptied), days=30, minimum=3, now=NOW)
    assert gone == ()
    assert whole in orchestrator.to_remove(
        (whole, *(point(h, 1000) for h in (1, 2, 3))), days=30, minimum=3, now=NOW
    )


def test_it_is_late_emptied_or_fresh() -> None:
    def problem(*points: OrchestratorPoint) -> str:
        return orchestrator.age_problem(points, late_seconds=5400, now=NOW)[1]

    assert problem(point(1, 10)) == ""
    assert "2 h old" in problem(point(2.1, 10)) or "min old" in problem(point(2.1, 10))
    assert "no backup" in problem()
    assert "2 flow runs" in problem(point(1, 10), point(0.5, 2))
