"""Which points a restore test, a ladder and the keeper choose of what is listed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core.errors import PermanentError, PreconditionError, TransientError
from lifeboat.core.forms import RecoverDatabase
from lifeboat.core.ladder import DatabaseAssessment
from lifeboat.core.points import Asset, RecoveryPoint, Tier, point_id
from lifeboat.core.requests import RestoreTest
from lifeboat.core.sets import Candidate
from lifeboat.core.timeline import Outcome
from tasks import catalogue, climb, clock, keeper, rebuild, restore_test
from tasks.record import recorded

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
EVERYWHERE = tuple(Tier)


def point(asset: Asset, hours: float, tiers=(Tier.LOCAL, Tier.S3), **told) -> RecoveryPoint:
    taken_at = NOON + timedelta(hours=hours)
    return RecoveryPoint(
        asset=asset,
        id=point_id(asset, taken_at),
        taken_at=taken_at,
        copies={tier: "x" for tier in tiers},
        bytes=1,
        **told,
    )


@pytest.fixture
def listed(monkeypatch):
    """Let the vault hold these points."""
    monkeypatch.setattr(restore_test.locks, "stand_aside", lambda settings, doing: None)
    monkeypatch.setattr(climb.wal_continuity, "bases_left_behind", lambda *_, **__: frozenset())

    def let(*points: RecoveryPoint) -> None:
        ordered = sorted(points, key=lambda p: p.taken_at, reverse=True)

        def list_points(settings, *, assets=tuple(Asset), tiers=EVERYWHERE, **_):
            return tuple(p for p in ordered if p.asset in assets and set(tiers) & set(p.copies))

        monkeypatch.setattr(catalogue, "list_points", list_points)

    return let


# --- restore tests --------------------------------------------------------------------------


def chosen_by(**asked) -> dict[str, float]:
    request = RestoreTest(**asked)
    to_prove = restore_test.find_set_to_prove(None) if not request.point else None
    chosen = (
        restore_test.choose(None, request, asset, to_prove)
        for asset in restore_test.assets_of(request)
    )
    return {str(p.asset): (p.taken_at - NOON) / timedelta(hours=1) for p in chosen}


def test_members_of_the_newest_set_are_tested_until_they_are_verified(listed) -> None:
    members = [point(asset, -2, set_id="set-1") for asset in Asset]
    newer = [point(asset, -1) for asset in Asset]
    listed(*members, *newer)
    assert set(chosen_by().values()) == {-2}
    members[1] = members[1].model_copy(update={"verified_at": NOON, "verified_here_only": True})
    listed(*members, *newer)
    assert set(chosen_by().values()) == {-2}, "its copy in S3 was never restored"
    members[1] = members[1].model_copy(update={"verified_here_only": False})
    listed(*members, *newer)
    assert chosen_by() == {"database": -2, "files": -1, "models": -2, "config": -2}
    listed(*members[:-1], *newer)
    assert set(chosen_by().values()) == {-1}, "a set that is not complete is none"
    listed(*newer)
    assert chosen_by(assets=[Asset.FILES]) == {"files": -1}


def test_a_set_may_be_named_and_a_suspicious_point_too(listed) -> None:
    bad = point(Asset.FILES, -1, suspicion="rewritten")
    listed(*(point(asset, -2, set_id="set-1") for asset in Asset), bad, point(Asset.FILES, -3))
    assert chosen_by(point="set-1") == dict.fromkeys(("database", "files", "models", "config"), -2)
    assert chosen_by(point=bad.id) == {"files": -1}
    with pytest.raises(PreconditionError, match="no such recovery point"):
        chosen_by(point="set-2")


# --- the ladder of the database -------------------------------------------------------------

DOWN = DatabaseAssessment(service_state="stopped", answers=False, cluster_problems=("gone",))


@pytest.fixture
def restores(monkeypatch):
    """Let the restore of some points fail, and see which ones were tried from where."""
    tried: list[tuple[str, Tier]] = []

    def let(*damaged: RecoveryPoint, error: Exception | None = None):
        def restore_from(settings, chosen, tier, *, to_time, stop):
            tried.append((chosen.id, tier))
            if chosen.id in {p.id for p in damaged}:
                raise error or PermanentError("it is damaged")
            return f"facts of {chosen.id}"

        monkeypatch.setattr(climb, "restore_from", restore_from)
        return tried

    monkeypatch.setattr(climb.services, "stop_services", lambda settings, services: None)
    monkeypatch.setattr(climb.services, "everything_that_writes", lambda settings: ())
    return let


def test_when_no_rung_holds_an_older_base_that_was_verified_is_tried(listed, restores) -> None:
    newest, other = point(Asset.DATABASE, -1, EVERYWHERE), point(Asset.DATABASE, -4)
    proven = point(Asset.DATABASE, -9, verified_at=NOON)
    bad = point(Asset.DATABASE, 0, EVERYWHERE, suspicion="rows are gone")
    listed(bad, newest, other, proven, point(Asset.DATABASE, -12, verified_at=NOON))
    request = RecoverDatabase()
    chosen = climb.choose_points(None, request)
    assert {p.id for p in chosen.of.values()} == {newest.id}
    assert chosen.passed_over == (bad,)
    rungs = climb.choose_rungs(DOWN, chosen, request)
    tried = restores(newest)
    with recorded("x", platform="cad", directory=None) as run:
        assert climb.climb(None, rungs, chosen, to_time=None) == f"facts of {proven.id}"
    assert tried == [
        (newest.id, Tier.HOT),
        (newest.id, Tier.LOCAL),
        (newest.id, Tier.S3),
        (proven.id, Tier.LOCAL),
    ]
    assert run.record.rungs[-1].reason == "an older base that was verified"
    restores(newest, proven)
    with pytest.raises(PermanentError, match="no rung of the ladder held"):
        climb.climb(None, rungs, chosen, to_time=None)


def test_a_base_that_only_a_hosts_copy_proved_is_no_reserve_in_s3(listed) -> None:
    here = point(Asset.DATABASE, -9, verified_at=NOON, verified_here_only=True)
    listed(point(Asset.DATABASE, -1), here)
    chosen = climb.choose_points(None, RecoverDatabase())
    assert chosen.reserve == {Tier.LOCAL: here}


def test_the_trusted_hot_copy_is_the_first_rung_though_a_newer_one_is_there(listed) -> None:
    good = point(Asset.DATABASE, -6, EVERYWHERE)
    listed(good, point(Asset.DATABASE, -1, EVERYWHERE, suspicion="rows are gone"))
    chosen = climb.choose_points(None, RecoverDatabase())
    assert {p.id for p in chosen.of.values()} == {good.id}
    assert chosen.reserve == {}


def test_a_base_on_a_branch_that_was_left_is_taken_only_where_there_is_no_other(
    listed, monkeypatch
) -> None:
    """As after a recovery to an earlier moment, until the next base copy is made."""
    older, left = point(Asset.DATABASE, -4), point(Asset.DATABASE, -1, EVERYWHERE)
    listed(older, left)
    asked = []

    def behind(settings, tiers=(), holes=True):
        asked.append(holes)
        return frozenset({left.id})

    monkeypatch.setattr(climb.wal_continuity, "bases_left_behind", behind)
    chosen = climb.choose_points(None, RecoverDatabase())
    assert {tier: p.id for tier, p in chosen.of.items()} == {
        **dict.fromkeys(older.copies, older.id),
        Tier.HOT: left.id,
    }
    climb.choose_points(None, RecoverDatabase(to_time=NOON.isoformat()))
    assert asked == [True, False], "a hole behind the target does not matter"


# --- a lost server --------------------------------------------------------------------------


def first(asset: Asset, errors: list[Exception | None]):
    tried = tuple(Candidate(point=point(asset, -n), reason=f"r{n}") for n in range(len(errors)))
    given = iter(errors)

    def restore(chosen: RecoveryPoint) -> str:
        if error := next(given):
            raise error
        return chosen.id

    with recorded("x", platform="cad", directory=None) as run:
        try:
            return rebuild._first_that_holds(asset, tried, restore), run.record.rungs
        except Exception as error:
            return error, run.record.rungs


@pytest.mark.parametrize("asset", [Asset.DATABASE, Asset.FILES])
def test_what_is_damaged_gives_way_to_the_next_candidate(asset) -> None:
    got, rungs = first(asset, [PermanentError("damaged"), None, None])
    assert got == point(asset, -1).id
    assert [r.outcome for r in rungs] == [Outcome.FAILED, Outcome.DONE]
    assert (rungs[0].reason, rungs[1].reason) == ("damaged", "r1")
    got, _ = first(asset, [PermanentError("a"), PermanentError("b")])
    assert isinstance(got, PermanentError)
    assert "none of 2 recovery points holds" in str(got)


def test_a_network_that_fails_never_costs_newer_files() -> None:
    got, _ = first(Asset.FILES, [TransientError("no route"), None])
    assert isinstance(got, TransientError)
    got, _ = first(Asset.FILES, [PreconditionError("no space"), None])
    assert isinstance(got, PreconditionError)
    got, _ = first(Asset.DATABASE, [PreconditionError("segment 7 is missing"), None])
    assert got == point(Asset.DATABASE, -1).id


# --- the keeper -----------------------------------------------------------------------------


def test_a_set_is_due_by_the_age_of_the_newest_one(listed) -> None:
    job = keeper.set_job(None, every_seconds=86400, act=lambda: None)
    with clock.set_to(NOON):
        listed(point(Asset.FILES, -1))
        assert job.due_in_seconds() == 3600, "after the first backups of each asset"
        listed(point(Asset.FILES, -1), point(Asset.FILES, -20, set_id="set-1"))
        assert job.due_in_seconds() == 4 * 3600
        listed(point(Asset.FILES, -99, set_id="set-1"))
        assert job.due_in_seconds() == 0
