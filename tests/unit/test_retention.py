"""No sequence of backups, failures, clocks and prunes leaves an asset without its last resort."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.core.points import Asset, RecoveryPoint, Tier, point_id
from lifeboat.core.retention import Policy, decide, wal_to_remove
from lifeboat.core.wal import Segment, format_lsn

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
SIZE = 16 << 20


def point(days_old: float, *, verified: bool = False) -> RecoveryPoint:
    taken_at = NOW - timedelta(days=days_old)
    return RecoveryPoint(
        asset=Asset.FILES,
        id=point_id(Asset.FILES, taken_at),
        taken_at=taken_at,
        copies={Tier.LOCAL: "x"},
        bytes=1,
        verified_at=NOW if verified else None,
    )


def kept(points, *, days=30.0, minimum=3, now=NOW, held=()) -> list[RecoveryPoint]:
    policy = Policy(days=days, minimum=minimum)
    return [d.point for d in decide(points, policy, now=now, held=held) if d.keep]


@pytest.mark.parametrize(
    ("ages", "stay"),
    [
        ([1, 2, 29, 31], [1, 2, 29]),
        ([100, 200, 300, 400], [100, 200, 300]),  # backups have failed for months
        ([1], [1]),
        ([], []),
        ([-5, 31, 32, 33], [-5, 31, 32]),  # a clock was wrong
    ],
)
def test_age_counts_only_behind_the_newest_few(ages, stay) -> None:
    assert [(NOW - p.taken_at).days for p in kept(point(a) for a in ages)] == stay


def test_every_decision_has_its_reason() -> None:
    points = [point(n) for n in (1, 2, 3, 4, 50)] + [point(60, verified=True), point(70)]
    decided = decide(points, Policy(days=30), now=NOW, held=[point(70).id])
    assert [d.reason for d in decided] == [
        *(["one of the newest 3"] * 3),
        "not older than 30 days",
        "older than 30 days",
        "the newest verified one",
        "on hold",
    ]


def test_a_verified_point_behind_a_newer_verified_one_may_go() -> None:
    points = [point(n) for n in (1, 2, 3)] + [point(40, verified=True), point(50, verified=True)]
    assert [(NOW - p.taken_at).days for p in kept(points)] == [1, 2, 3, 40]


events = st.lists(
    st.tuples(
        st.sampled_from(["backup", "verify", "hold", "prune", "fail"]),
        st.floats(-40, 40),  # days that the clock moves meanwhile, also back
    ),
    max_size=60,
)


@given(events, st.integers(1, 4), st.floats(0.5, 60))
def test_nothing_that_happens_takes_the_last_resort(happened, minimum, days) -> None:
    now, store, held = NOW, {}, set()
    for what, moved in happened:
        now += timedelta(days=moved)
        newest = max(store.values(), key=lambda p: p.taken_at, default=None)
        if what == "backup":
            made = point_id(Asset.FILES, now)
            store[made] = point((NOW - now) / timedelta(days=1)).model_copy(update={"id": made})
        elif what == "verify" and newest:
            store[newest.id] = newest.model_copy(update={"verified_at": now})
        elif what == "hold" and newest:
            held.add(newest.id)
        elif what == "prune":
            before = dict(store)
            stay = kept(before.values(), days=days, minimum=minimum, now=now, held=held)
            store = {p.id: p for p in stay}
            assert len(store) >= min(minimum, len(before))
            assert held & before.keys() <= store.keys()
            proven = [p for p in before.values() if p.verified_at]
            if proven:
                assert max(proven, key=lambda p: p.taken_at).id in store
            if before:
                assert max(before.values(), key=lambda p: p.taken_at).id in store


@given(
    st.sets(st.integers(0, 50)), st.lists(st.integers(0, 50 * SIZE), max_size=4), st.integers(1, 3)
)
def test_no_kept_base_is_left_without_its_wal(numbers, starts, timeline) -> None:
    names = [Segment(timeline, n).name(SIZE) for n in numbers] + ["00000002.history"]
    gone = wal_to_remove(names, kept_start_lsns=[format_lsn(s) for s in starts], segment_bytes=SIZE)
    assert "00000002.history" not in gone
    for start in starts:
        needed = {Segment(timeline, n).name(SIZE) for n in numbers if n >= start // SIZE}
        assert not needed & set(gone)
    if not starts:
        assert gone == ()
    else:
        oldest = min(starts) // SIZE
        assert set(gone) == {Segment(timeline, n).name(SIZE) for n in numbers if n < oldest}
