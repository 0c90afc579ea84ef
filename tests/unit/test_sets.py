"""Sets: what belongs together, what a lost server gets back, and whether rows find their files."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.core.points import Asset, RecoveryPoint, Tier, point_id
from lifeboat.core.references import Missing, Referred, cross_check, still_missing
from lifeboat.core.sets import candidates, is_set_id, newest_complete, set_id, sets_of

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
BOTH = (Tier.LOCAL, Tier.S3)


def point(asset: Asset, hours: float, *tiers: Tier, **told) -> RecoveryPoint:
    taken_at = NOON + timedelta(hours=hours)
    return RecoveryPoint(
        asset=asset,
        id=point_id(asset, taken_at),
        taken_at=taken_at,
        copies={tier: "x" for tier in tiers or BOTH},
        bytes=1,
        **told,
    )


def a_set(hours: float, *, verified: bool = False, **of) -> list[RecoveryPoint]:
    told = {"set_id": set_id(NOON + timedelta(hours=hours))}
    if verified:
        told["verified_at"] = NOON
    return [point(asset, hours, **{**told, **of.get(asset, {})}) for asset in Asset]


def test_a_set_is_complete_where_all_its_members_are() -> None:
    whole = a_set(-2)
    half = a_set(-1)[:3]
    only_here = a_set(0)
    only_here[1] = only_here[1].model_copy(update={"copies": {Tier.LOCAL: "x"}})
    points = [*half, *only_here, *whole, point(Asset.FILES, 5)]
    newest, *others = sets_of(points)
    assert newest.id == set_id(NOON)
    assert is_set_id(newest.id)
    assert [s.complete_in(Tier.S3) for s in (newest, *others)] == [False, False, True]
    assert [s.complete_in(Tier.LOCAL) for s in (newest, *others)] == [True, False, True]
    assert newest_complete(points, Tier.S3) == others[1]


def test_a_set_is_verified_when_every_member_is_and_trusted_when_none_is_suspicious() -> None:
    [found] = sets_of(a_set(0, verified=True))
    assert (found.verified_in(Tier.S3), found.trusted) == (True, True)
    [found] = sets_of(a_set(0, verified=True, models={"verified_at": None}))
    assert not found.verified_in(Tier.S3)
    [found] = sets_of(a_set(0, verified=True)[1:])
    assert not found.verified_in(Tier.S3)
    [found] = sets_of(a_set(0, verified=True, models={"verified_here_only": True}))
    assert (found.verified_in(Tier.LOCAL), found.verified_in(Tier.S3)) == (True, False)
    bad = a_set(0, files={"suspicion": "3 of 1200 files are left"})
    assert newest_complete(bad, Tier.S3) is None


def order(points: list[RecoveryPoint], asset: Asset) -> list[tuple[float, str]]:
    return [
        ((c.point.taken_at - NOON) / timedelta(hours=1), c.reason)
        for c in candidates(points, asset, Tier.S3)
    ]


OF_SET = f"of {set_id(NOON - timedelta(hours=5))}, the newest complete verified set"


def test_of_the_database_what_is_proven_comes_first() -> None:
    points = [
        *a_set(-9, verified=True),
        *a_set(-5, verified=True),
        *a_set(-3),
        point(Asset.DATABASE, -2, verified_at=NOON),
        point(Asset.DATABASE, -1),
        point(Asset.DATABASE, 1, suspicion="rows are gone"),
        point(Asset.DATABASE, 2, Tier.LOCAL),
    ]
    assert order(points, Asset.DATABASE) == [
        (-5, OF_SET),
        (-2, "the newest verified"),
        (-1, "the newest"),
        (-3, "an older one"),
        (-9, "an older one"),
    ]
    without_sets = [p.model_copy(update={"set_id": ""}) for p in points]
    assert [hours for hours, _ in order(without_sets, Asset.DATABASE)] == [-2, -1, -3, -5, -9]
    never_tested = [p.model_copy(update={"verified_at": None}) for p in points]
    assert [hours for hours, _ in order(never_tested, Asset.DATABASE)] == [-1, -2, -3, -5, -9]


def test_what_a_hosts_copy_proved_is_not_proven_in_s3() -> None:
    here = {"verified_at": NOON, "verified_here_only": True}
    points = [
        point(Asset.DATABASE, -1),
        point(Asset.DATABASE, -2, **here),
        point(Asset.DATABASE, -3, verified_at=NOON),
    ]
    assert [hours for hours, _ in order(points, Asset.DATABASE)] == [-3, -1, -2]
    tried = candidates(points, Asset.DATABASE, Tier.LOCAL)
    assert tried[0].point == points[1]


@pytest.mark.parametrize("asset", [Asset.FILES, Asset.MODELS])
def test_of_files_the_newest_comes_first_for_rows_that_came_by_wal_refer_to_them(asset) -> None:
    points = [
        *a_set(-5, verified=True),
        point(asset, -4),
        point(asset, -1),
        point(asset, 1, suspicion="rewritten"),
    ]
    assert order(points, asset) == [
        (-1, "the newest"),
        (-5, f"{OF_SET}, the newest verified"),
        (-4, "an older one"),
    ]
    alone = a_set(-5, verified=True)
    assert order(alone, asset) == [(-5, f"the newest, {OF_SET}, the newest verified")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Asset)),
            st.integers(0, 30),
            st.sampled_from(["", "set-1", "set-2"]),
            st.booleans(),
            st.booleans(),
            st.sets(st.sampled_from(BOTH), min_size=1),
        ),
        max_size=25,
    )
)
def test_every_trusted_point_is_a_candidate_once_and_no_other_is(told) -> None:
    points = {
        (asset, hours): point(
            asset,
            hours,
            *tiers,
            set_id=name,
            verified_at=NOON if verified else None,
            suspicion="bad" if bad else "",
        )
        for asset, hours, name, verified, bad, tiers in told
    }.values()
    for asset in Asset:
        found = [c.point.id for c in candidates(points, asset, Tier.S3)]
        usable = {
            p.id for p in points if p.asset is asset and Tier.S3 in p.copies and not p.suspicion
        }
        assert set(found) == usable
        assert len(found) == len(usable)


def test_a_base_from_which_the_wal_does_not_lead_comes_last_though_it_is_verified() -> None:
    points = [point(Asset.DATABASE, -5), point(Asset.DATABASE, -1, verified_at=NOON)]
    left = [points[1].id]
    found = candidates(points, Asset.DATABASE, Tier.S3, left_behind=left)
    assert [c.point.id for c in found] == [points[0].id, points[1].id]
    assert found[1].reason == "its WAL does not lead to the newest row"


# --- rows and files -------------------------------------------------------------------------


def rows(*told: tuple[str, int | None]) -> list[Referred]:
    return [Referred(path=path, sha256="0" * 64, bytes=size) for path, size in told]


def check(referred, held, **more):
    return cross_check(Asset.FILES, "files-x", referred=referred, held=held, **more)


def test_a_row_without_its_file_is_missing_and_a_file_without_a_row_is_told() -> None:
    held = {"drawings": {"a/1.dxf": 10, "a/2.dxf": 20, "new.dxf": 5}, "old": {"3.dxf": 30}}
    referred = rows(("a/1.dxf", 10), ("./a/1.dxf", 10), ("3.dxf", 30), ("gone", 7), ("a/2.dxf", 21))
    found = check(referred, held)
    assert found.missing == (
        Missing(path="gone", bytes=7, found_bytes=None),
        Missing(path="a/2.dxf", bytes=21, found_bytes=20),
    )
    assert (found.referred, found.held) == (4, 4)
    assert (found.unreferenced, found.unreferenced_names) == (1, ("drawings/new.dxf",))
    assert "2 missing, first 'gone'" in found.in_words


def test_a_size_that_the_database_does_not_say_is_not_compared() -> None:
    assert check(rows(("m.bin", None)), {"models": {"m.bin": 10}}).missing == ()
    assert len(check(rows(("m.bin", None)), {"models": {}}).missing) == 1


def test_a_path_in_two_directories_needs_one_of_the_right_size() -> None:
    held = {"new": {"a": 11}, "old": {"a": 10}}
    assert check(rows(("a", 10)), held).missing == ()


def test_what_is_known_to_be_lost_is_counted_apart() -> None:
    found = check(rows(("a", 1), ("b", 2)), {"drawings": {}}, known_losses={"a"})
    assert [item.path for item in found.missing] == ["b"]
    assert found.known_lost == 1


def test_what_was_deleted_while_the_set_was_made_is_not_missing() -> None:
    found = check(rows(("a", 1), ("b", 2), ("c", 3)), {"drawings": {}})
    left = still_missing(found, rows(("b", 2), ("c", 4)))
    assert [item.path for item in left.missing] == ["b"]


def test_of_very_many_strangers_some_are_named() -> None:
    found = check([], {"drawings": {str(n): 1 for n in range(12_000)}})
    assert (found.unreferenced, len(found.unreferenced_names)) == (12_000, 10_000)
