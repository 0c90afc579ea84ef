"""No sequence of backups, failures, clocks and prunes leaves an asset without its last resort."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.core.points import Asset, RecoveryPoint, Tier, point_id
from lifeboat.core.retention import Policy, decide, wal_to_remove
from lifeboat.core.suspicion import Policy as Suspicion
from lifeboat.core.suspicion import judge
from lifeboat.core.wal import Segment, format_lsn

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
SIZE = 16 << 20


def point(days_old: float, *, verified: bool = False, suspicion: str = "") -> RecoveryPoint:
    taken_at = NOW - timedelta(days=days_old)
    return RecoveryPoint(
        asset=Asset.FILES,
        id=point_id(Asset.FILES, taken_at),
        taken_at=taken_at,
        copies={Tier.LOCAL: "x"},
        bytes=1,
        verified_at=NOW if verified else None,
        suspicion=suspicion,
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


def test_suspicious_points_push_out_no_trusted_one_and_stay_while_undecided() -> None:
    bad = "3 of 1200 files are left"
    points = [point(n, suspicion=bad) for n in (31, 32, 35, 50)]
    points += [point(n) for n in (33, 34, 36, 37)] + [point(60, verified=True)]
    decided = {
        (NOW - d.point.taken_at).days: (d.keep, d.reason)
        for d in decide(points, Policy(days=30), now=NOW)
    }
    undecided = (True, "suspicious, and nobody has said yet that it is right")
    among = (True, "one of the newest 3")
    assert decided == {
        **{31: undecided, 32: undecided},
        **{33: among, 34: among, 36: among},
        **dict.fromkeys((35, 37, 50), (False, "older than 30 days")),
        60: (True, "the newest verified one"),
    }


def test_what_a_hosts_copy_proved_takes_no_place_of_what_s3_proved() -> None:
    """The restore test of the newer one may have failed before it was recovered from here."""
    points = [point(n) for n in (1, 2, 3)] + [point(n, verified=True) for n in (40, 50, 60)]
    points[3] = points[3].model_copy(update={"verified_here_only": True})
    reasons = {d.point.id: d.reason for d in decide(points, Policy(days=30), now=NOW)}
    assert reasons[points[3].id] == "the newest verified one"
    assert reasons[points[4].id] == "the newest one that was verified from S3"
    assert reasons[points[5].id] == "older than 30 days"


def test_a_suspicious_point_that_was_verified_takes_no_trusted_ones_place() -> None:
    """That encrypted files can be restored proves nothing of what is in them."""
    points = [point(n) for n in (31, 32, 33)] + [point(50, verified=True)]
    points.append(point(40, verified=True, suspicion="rewritten"))
    assert [(NOW - p.taken_at).days for p in kept(points)] == [31, 32, 33, 40, 50]


def test_a_point_from_the_future_takes_no_good_ones_place_and_stays_itself() -> None:
    """Also where it is the clock of this host that is behind: then all good ones look so."""
    points = [point(n) for n in (-9, -8, 31, 32, 33, 34)]
    judged = judge(points, policy=Suspicion(), now=NOW)
    assert [(NOW - p.taken_at).days for p in kept(judged)] == [-9, -8, 31, 32, 33]
    long_ago = NOW - timedelta(days=400)
    assert len(kept(judge(points, policy=Suspicion(), now=long_ago), now=long_ago)) == 6
    accepted = judge(points, policy=Suspicion(), now=NOW, accepted={points[0].id})
    assert [(NOW - p.taken_at).days for p in kept(accepted)] == [-9, -8, 31, 32]


events = st.lists(
    st.tuples(
        st.sampled_from(["backup", "attack", "accept", "verify", "hold", "prune", "fail"]),
        st.floats(-40, 40),  # days that the clock moves meanwhile, also back
    ),
    max_size=60,
)


def backed_up(now: datetime, *, attacked: bool) -> RecoveryPoint:
    """A thousand files, of which an attack replaces nearly all."""
    return point((NOW - now) / timedelta(days=1)).model_copy(
        update={
            "id": point_id(Asset.FILES, now),
            "files": 1000,
            "unmodified_files": 1 if attacked else 999,
            "new_blobs": 999 if attacked else 1,
        }
    )


@given(events, st.integers(1, 4), st.floats(0.5, 60))
def test_nothing_that_happens_takes_the_last_resort(happened, minimum, days) -> None:
    now, store, held, accepted = NOW, {}, set(), set()
    for what, moved in happened:
        now += timedelta(days=moved)
        judged = judge(store.values(), policy=Suspicion(), accepted=accepted)
        store = {p.id: p for p in judged}
        newest = max(judged, key=lambda p: p.taken_at, default=None)
        if what in ("backup", "attack"):
            made = backed_up(now, attacked=what == "attack")
            store[made.id] = made
        elif what == "accept" and newest:
            accepted.add(newest.id)
        elif what == "verify" and newest:
            store[newest.id] = newest.model_copy(update={"verified_at": now})
        elif what == "hold" and newest:
            held.add(newest.id)
        elif what == "prune":
            stay = kept(judged, days=days, minimum=minimum, now=now, held=held)
            before, store = store, {p.id: p for p in stay}
            trusted = [p for p in judged if not p.suspicion]
            for some in (judged, trusted):
                proven = [p for p in some if p.verified_at]
                if some:
                    assert max(some, key=lambda p: p.taken_at).id in store
                if proven:
                    assert max(proven, key=lambda p: p.taken_at).id in store
            assert len(store.keys() & {p.id for p in trusted}) >= min(minimum, len(trusted))
            assert held & before.keys() <= store.keys()
            # What was taken away is no reason to trust what was suspicious.
            again = judge(stay, policy=Suspicion(), accepted=accepted)
            undecided = {p.id for p in judged if p.taken_at > newest_of(trusted)}
            assert undecided <= {p.id for p in again if p.suspicion}


def newest_of(points: list[RecoveryPoint]) -> datetime:
    return max((p.taken_at for p in points), default=datetime.min.replace(tzinfo=timezone.utc))


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
