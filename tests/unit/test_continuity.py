"""How far each base copy leads: it must agree with what a recovery would refuse."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.core.continuity import BaseCopy, Continuity, Foreign, judge
from lifeboat.core.errors import PreconditionError
from lifeboat.core.wal import Segment, Switch, plan_replay

SIZE = 16 << 20
NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


def base(hour: int, start: int, stop: int | None = None, *, timeline: int = 1, system: str = "77"):
    """A copy that began in the middle of segment `start` and ended in the middle of `stop`."""
    return BaseCopy(
        point=f"database-{hour:02d}",
        system_identifier=system,
        timeline=timeline,
        start_lsn=start * SIZE + 40,
        stop_lsn=(start if stop is None else stop) * SIZE + 4000,
        segment_bytes=SIZE,
        taken_at=NOON + timedelta(hours=hour),
    )


def segments(first: int, last: int, timeline: int = 1) -> set[Segment]:
    return {Segment(timeline, number) for number in range(first, last + 1)}


def missing(found: Continuity) -> dict[str, str]:
    return {reach.base.point: reach.missing for reach in found.reaches}


def test_an_unbroken_log_reaches_back_to_the_oldest_base() -> None:
    bases = [base(0, 2, 3), base(6, 10)]
    found = judge(bases, whole=segments(2, 11), partial={Segment(1, 12)}, histories={})
    assert missing(found) == {"database-06": "", "database-00": ""}
    assert found.newest_base and found.newest_base.base == bases[1]
    assert found.newest_name == "00000001000000000000000C"
    assert found.earliest == NOON
    assert [reach.segments for reach in found.reaches] == [3, 11]
    assert not found.broken
    assert found.foreign == ()


def test_a_hole_moves_the_earliest_moment_to_the_base_behind_it() -> None:
    there = segments(2, 12) - {Segment(1, 5), Segment(1, 7)}
    found = judge([base(0, 2), base(3, 6), base(6, 9)], whole=there, histories={})
    assert missing(found) == {
        "database-06": "",
        "database-03": "000000010000000000000007",
        "database-00": "000000010000000000000005",
    }
    assert found.earliest == NOON + timedelta(hours=6)


def test_behind_a_hole_after_the_newest_base_nothing_is_whole() -> None:
    found = judge([base(0, 2)], whole=segments(2, 3) | segments(5, 9), histories={})
    assert found.earliest is None
    assert found.newest_base and not found.newest_base.whole
    assert found.newest_base.segments == 2


def test_a_copy_carries_the_log_until_it_is_consistent() -> None:
    """The log may begin later than the copy, and may not even have got that far."""
    assert judge([base(0, 2, 4)], whole=segments(4, 5), histories={}).earliest == NOON
    assert judge([base(0, 2, 4)], whole=(), histories={}).earliest == NOON
    assert judge([base(0, 2, 4)], whole=segments(1, 2), histories={}).earliest == NOON
    assert judge([base(0, 2, 4)], whole=segments(5, 6), histories={}).earliest is None


def test_a_partial_in_the_middle_is_a_hole() -> None:
    partial = {Segment(1, 4), Segment(1, 7)}
    found = judge(
        [base(0, 2)], whole=segments(2, 3) | segments(5, 6), partial=partial, histories={}
    )
    assert missing(found) == {"database-00": "000000010000000000000004"}
    assert found.newest == Segment(1, 7)


SWITCHED = {2: (Switch(1, 5 * SIZE + 100),)}


def test_the_way_leads_through_a_timeline_switch() -> None:
    there = segments(2, 9) | segments(5, 6, timeline=2)
    found = judge([base(0, 2), base(6, 6, timeline=2)], whole=there, histories=SWITCHED)
    assert found.timeline == 2
    assert found.newest == Segment(2, 6), "what timeline 1 wrote later leads nowhere"
    assert found.earliest == NOON


def test_a_base_on_a_branch_that_was_left_leads_only_along_it() -> None:
    there = segments(2, 9) | segments(5, 6, timeline=2)
    found = judge([base(0, 2), base(6, 7)], whole=there, histories=SWITCHED)
    left = found.newest_base
    assert left and (left.timeline, left.unbroken, left.whole) == (1, True, False)
    assert found.earliest == NOON
    assert not found.holds(system_identifier="77", timeline=1, lsn=8 * SIZE)


def test_the_segment_of_the_switch_must_be_the_new_timelines() -> None:
    there = segments(2, 5) | segments(6, 7, timeline=2)
    found = judge([base(0, 2)], whole=there, histories=SWITCHED)
    assert missing(found) == {"database-00": "000000020000000000000005"}
    alone = judge([base(0, 2)], whole=segments(2, 5), histories=SWITCHED)
    assert alone.earliest == NOON, "until the new timeline's copy comes"


def test_what_no_base_can_use_is_named() -> None:
    there = segments(2, 4) | segments(4, 5, timeline=3)
    found = judge([base(0, 2)], whole=there, histories={}, other_systems=["78"])
    assert found.foreign == (Foreign("78"), Foreign("77", 3))
    assert "another database cluster, 78" in str(found.foreign[0])
    assert found.timeline == 1
    assert found.earliest == NOON


def test_a_base_of_another_cluster_leads_to_nothing() -> None:
    bases = [base(0, 2, system="66"), base(6, 1)]
    found = judge(bases, whole=segments(1, 2), histories={}, other_systems=["66"])
    assert [reach.whole for reach in found.reaches] == [True, False]
    assert found.earliest == NOON + timedelta(hours=6)


def test_without_a_base_there_is_nothing_to_reach() -> None:
    found = judge([], whole=segments(1, 3), histories={}, other_systems=["77"])
    assert (found.reaches, found.newest_base, found.earliest) == ((), None, None)
    assert found.foreign == (Foreign("77"),)


@pytest.mark.parametrize(
    ("lsn", "held"), [(1, True), (8 * SIZE, True), (8 * SIZE + 1, False)], ids=str
)
def test_what_is_held_ends_with_the_newest_segment(lsn: int, held: bool) -> None:
    found = judge([base(0, 2)], whole=segments(2, 7), histories={})
    assert found.holds(system_identifier="77", timeline=1, lsn=lsn) is held
    assert not found.holds(system_identifier="78", timeline=1, lsn=lsn)
    assert not found.holds(system_identifier="77", timeline=2, lsn=lsn)


def test_nothing_is_held_behind_a_hole_or_without_a_base() -> None:
    found = judge([base(0, 2)], whole=segments(2, 3) | segments(5, 7), histories={})
    assert not found.holds(system_identifier="77", timeline=1, lsn=3 * SIZE)
    empty = judge([], whole=(), histories={})
    assert not empty.holds(system_identifier="", timeline=0, lsn=0)


def test_a_tag_tells_all_of_a_base() -> None:
    told = base(0, 2, 3)
    assert told.tag == "77/1/0/2000028/0/3000FA0/16777216"
    assert BaseCopy.of_tag(told.tag, point=told.point, taken_at=told.taken_at) == told


@pytest.mark.parametrize("tag", ["", "77/1/0/2000028", "77/x/0/1/0/2/16", "77/1/0/X/0/2/16"])
def test_a_tag_that_tells_nothing_is_refused(tag: str) -> None:
    with pytest.raises(PreconditionError):
        BaseCopy.of_tag(tag, point="database-00", taken_at=NOON)


def test_a_name_far_from_all_others_costs_nothing() -> None:
    far = Segment(1, 0xFFFFFFFF * 256)
    found = judge([base(0, 2)], whole={*segments(2, 4), far}, histories={})
    assert missing(found) == {"database-00": "000000010000000000000005"}


# --- it agrees with the recovery ------------------------------------------------------------

numbers = st.integers(2, 14)
segment_sets = st.sets(st.builds(Segment, st.integers(1, 3), numbers), max_size=40)
switches = st.lists(st.integers(3 * SIZE, 13 * SIZE), min_size=2, max_size=2).map(sorted)


@given(
    whole=segment_sets,
    partial=st.sets(st.builds(Segment, st.integers(1, 3), numbers), max_size=3),
    switch=switches,
    bases=st.lists(st.tuples(st.integers(1, 3), numbers, st.integers(0, 2)), min_size=1),
)
def test_what_is_whole_is_what_a_recovery_accepts(whole, partial, switch, bases) -> None:
    histories = {2: (Switch(1, switch[0]),), 3: (Switch(1, switch[0]), Switch(2, switch[1]))}
    copies = [
        base(hour, first, first + more, timeline=timeline)
        for hour, (timeline, first, more) in enumerate(bases)
    ]
    found = judge(copies, whole=whole, partial=partial, histories=histories)
    for reach in found.reaches:
        copy = reach.base
        carried = segments(copy.start_lsn // SIZE, copy.first_needed, copy.timeline)

        def plan(timeline: int, copy=copy, carried=carried):
            return plan_replay(
                base_timeline=copy.timeline,
                start_lsn=copy.start_lsn,
                stop_lsn=copy.stop_lsn,
                target_timeline=timeline,
                ancestors=histories.get(timeline, ()),
                available=whole | {s for s in carried if s.number < copy.first_needed},
                growing=partial | carried,
                segment_bytes=SIZE,
            )

        if reach.unbroken:
            assert len(plan(reach.timeline).segments) == reach.segments
        else:
            with pytest.raises(PreconditionError, match=reach.missing):
                plan(reach.timeline)
        if not reach.leads_to_newest:
            with pytest.raises(PreconditionError, match="not part of its history"):
                plan(found.timeline)
    earliest = [reach.base.taken_at for reach in found.reaches if reach.whole]
    assert found.earliest == min(earliest, default=None)


@given(whole=segment_sets, more=segment_sets)
def test_more_segments_never_lead_less_far(whole, more) -> None:
    def segments_replayed(there) -> int:
        [reach] = judge([base(0, 2, 4)], whole=there, histories={}).reaches
        return reach.segments

    assert segments_replayed(whole) <= segments_replayed(whole | more)
