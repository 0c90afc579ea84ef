"""WAL arithmetic: a hole must fail a recovery, and never shorten it silently."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.core.errors import PreconditionError
from lifeboat.core.wal import (
    History,
    Position,
    Segment,
    Switch,
    choose_timeline,
    format_lsn,
    inherited_segments,
    is_segment_name,
    parse_history,
    parse_lsn,
    partial_segments,
    plan_replay,
    timeline_current_at,
    whole_segments,
)

MB = 1 << 20
SIZE = 16 * MB


@given(st.integers(0, (1 << 64) - 1))
def test_an_lsn_survives_being_written(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "x", "1/Z", "12"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(PreconditionError):
        parse_lsn(text)


@given(
    st.integers(1, 0xFFFFFFFF),
    st.integers(0, 1 << 30),
    st.sampled_from([1 << n for n in range(20, 31)]),
)
def test_a_segment_survives_its_name(timeline: int, number: int, size: int) -> None:
    name = Segment(timeline, number).name(size)
    assert is_segment_name(name)
    assert Segment.parse(name, size) == Segment.parse(name + ".partial", size)
    assert Segment.parse(name, size) == Segment(timeline, number)


def test_names_that_are_none() -> None:
    names = ["00000002.history", "x", "000000010000000000000001.gz", "archive_status"]
    assert whole_segments(names, SIZE) == partial_segments(names, SIZE) == frozenset()


def test_whole_segments_and_partial_ones_are_told_apart() -> None:
    names = ["000000010000000000000001", "000000010000000000000002.partial"]
    assert whole_segments(names, SIZE) == {Segment(1, 1)}
    assert partial_segments(names, SIZE) == {Segment(1, 2)}


def test_a_position_survives_being_written() -> None:
    told = Position("7412345678901234567", 3, 0x16B374D848)
    assert str(told) == "7412345678901234567/3/16/B374D848"
    assert Position.parse(str(told)) == told


@pytest.mark.parametrize("text", ["", "77", "77/x/0/1", "77/1", "77/1/0", "/1/0/1"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(PreconditionError):
        Position.parse(text)


def plan(
    available,
    growing=(),
    *,
    target=1,
    ancestors=(),
    base=1,
    start=0x2000028,
    stop=0x2000100,
    until_hole=False,
):
    return plan_replay(
        base_timeline=base,
        start_lsn=start,
        stop_lsn=stop,
        target_timeline=target,
        ancestors=ancestors,
        available=available,
        growing=growing,
        segment_bytes=SIZE,
        until_hole=until_hole,
    )


@given(st.integers(2, 40), st.sets(st.integers(2, 40)))
def test_a_hole_is_named_and_without_one_nothing_is_left_out(newest: int, missing) -> None:
    there = {Segment(1, n) for n in range(2, newest + 1)} - {Segment(1, n) for n in missing}
    last = max((s.number for s in there), default=2)
    holes = [n for n in range(2, last + 1) if Segment(1, n) not in there]
    if holes:
        with pytest.raises(PreconditionError, match=Segment(1, holes[0]).name(SIZE)):
            plan(there)
    else:
        assert plan(there).segments == tuple(Segment(1, n) for n in range(2, last + 1))


def test_wal_that_ends_before_the_base_is_consistent_is_a_hole() -> None:
    with pytest.raises(PreconditionError, match="000000010000000000000003"):
        plan({Segment(1, 2)}, stop=3 * SIZE + 100)


def test_the_way_to_an_earlier_moment_may_end_at_a_hole_behind_the_base() -> None:
    there = {Segment(1, n) for n in (2, 3, 4, 6, 7)}
    found = plan(there, stop=3 * SIZE + 100, until_hole=True)
    assert found.segments == (Segment(1, 2), Segment(1, 3), Segment(1, 4))
    assert found.missing == Segment(1, 5)
    assert plan(there | {Segment(1, 5)}, until_hole=True).missing is None
    with pytest.raises(PreconditionError, match=Segment(1, 5).name(SIZE)):
        plan(there, stop=5 * SIZE + 100, until_hole=True)


SWITCH = 4 * SIZE + 1000  # timeline 2 began in the middle of segment 4


def test_a_switch_in_the_middle_of_a_segment_takes_the_new_timelines_copy() -> None:
    there = {Segment(1, 2), Segment(1, 3), Segment(1, 4), Segment(2, 4), Segment(2, 5)}
    found = plan(there, target=2, ancestors=(Switch(1, SWITCH),))
    assert found.segments == (Segment(1, 2), Segment(1, 3), Segment(2, 4), Segment(2, 5))


def test_what_an_ancestor_wrote_after_the_switch_is_not_asked_for() -> None:
    """After a recovery to a point in time the old timeline lies further than the new one."""
    there = {Segment(1, n) for n in range(2, 9)} | {Segment(2, 4)}
    found = plan(there, target=2, ancestors=(Switch(1, SWITCH),))
    assert found.segments[-1] == Segment(2, 4)


def test_the_old_timelines_rest_fills_the_switch_segment_until_the_new_one_has_it() -> None:
    there = {Segment(1, 2), Segment(1, 3), Segment(1, 4)}
    assert plan(there, target=2, ancestors=(Switch(1, SWITCH),)).segments[-1] == Segment(1, 4)


def test_the_old_timelines_rest_does_not_do_when_the_new_one_went_further() -> None:
    """What the new timeline wrote into the rest of that segment would be passed over."""
    there = {Segment(1, 2), Segment(1, 3), Segment(1, 4), Segment(2, 5)}
    with pytest.raises(PreconditionError, match=Segment(2, 4).name(SIZE)):
        plan(there, target=2, ancestors=(Switch(1, SWITCH),))


def test_a_partial_counts_only_where_nothing_comes_after_it() -> None:
    there = {Segment(1, 2), Segment(1, 3)}
    assert plan(there, {Segment(1, 4)}).segments[-1] == Segment(1, 4)
    with pytest.raises(PreconditionError, match=Segment(1, 4).name(SIZE)):
        plan({*there, Segment(1, 5)}, {Segment(1, 4)})


@pytest.mark.parametrize(
    "ancestors",
    [(), (Switch(3, SWITCH),), (Switch(1, 0x2000050),)],
    ids=["none", "other", "before"],
)
def test_a_base_that_is_no_ancestor_is_refused(ancestors) -> None:
    with pytest.raises(PreconditionError, match="not part of its history"):
        plan({Segment(2, n) for n in range(2, 6)}, target=2, ancestors=ancestors)


def test_a_history_is_read_with_its_comments() -> None:
    text = "1\t0/3000000\tbefore 2026\n\n2\t0/5000060\tno recovery target # x\n"
    assert parse_history(text) == (Switch(1, 0x3000000), Switch(2, 0x5000060))


def test_what_an_ancestor_had_filled_is_inherited_and_what_it_wrote_later_is_not() -> None:
    ancestors = (Switch(1, 3 * SIZE + 5), Switch(2, 5 * SIZE))
    inherited = {Segment(1, 1), Segment(1, 2), Segment(2, 3), Segment(2, 4)}
    others = {Segment(1, 3), Segment(1, 4), Segment(2, 5), Segment(3, 5), Segment(4, 1)}
    assert inherited_segments(inherited | others, ancestors, SIZE) == inherited


def test_the_timeline_of_a_moment() -> None:
    def at(hour):
        return datetime(2026, 1, 1, hour, tzinfo=timezone.utc)

    began = [(3, at(12)), (2, at(6))]
    found = [timeline_current_at(at(h), first_timeline=1, began_at=began) for h in (5, 6, 11, 23)]
    assert found == [1, 2, 2, 3]


# --- which timeline is ours -----------------------------------------------------------------

TAKEN_AT = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
STOP = 5 * SIZE


def history(timeline: int, *ancestors: Switch, hours: float) -> History:
    """One that appeared so many hours after the base backup was taken."""
    return History(timeline, TAKEN_AT + timedelta(hours=hours), ancestors)


def chosen(*histories: History, base: int = 1, hours: float | None = None) -> int:
    return choose_timeline(
        histories,
        base_timeline=base,
        stop_lsn=STOP,
        taken_at=TAKEN_AT,
        moment=None if hours is None else TAKEN_AT + timedelta(hours=hours),
    )


AFTER, BEFORE = Switch(1, 6 * SIZE), Switch(1, 4 * SIZE)


@pytest.mark.parametrize(
    ("histories", "timeline"),
    [
        ([], 1),
        ([history(2, AFTER, hours=1)], 2),
        ([history(2, AFTER, hours=1), history(3, AFTER, Switch(2, 9 * SIZE), hours=2)], 3),
        # Set back twice: 3 went on from 1 and gave 2 up.
        ([history(2, AFTER, hours=1), history(3, AFTER, hours=2)], 3),
        # Of another server, and of an experiment with an old backup: the base came after them.
        ([history(9, Switch(8, 7 * SIZE), hours=-1)], 1),
        ([history(9, BEFORE, hours=-1), history(2, AFTER, hours=1)], 2),
        ([history(9, hours=-1)], 1),  # can't be read
        # Given up before, and younger only because the bucket is a copy.
        ([history(2, BEFORE, hours=1), history(3, AFTER, hours=1)], 3),
    ],
)
def test_the_newest_timeline_that_contains_the_base_is_followed(histories, timeline) -> None:
    assert chosen(*histories) == timeline
    assert chosen(*reversed(histories)) == timeline


@pytest.mark.parametrize("ancestors", [(BEFORE,), (Switch(7, 9 * SIZE),), ()])
@pytest.mark.parametrize("hours", [-0.1, 0, 3])
def test_a_later_timeline_that_may_be_ours_is_never_passed_over(ancestors, hours) -> None:
    """A set-back to before the base must not be undone in silence; clocks differ a little."""
    with pytest.raises(PreconditionError, match="2 appeared at") as refused:
        chosen(history(2, *ancestors, hours=hours))
    assert "00000002.history" in refused.value.hint


def test_a_base_of_a_later_timeline_needs_no_history() -> None:
    assert chosen(history(2, Switch(1, SIZE), hours=-5), base=2) == 2
    assert chosen(base=3) == 3


@pytest.mark.parametrize(("hours", "timeline"), [(0.5, 1), (1.5, 2), (2.5, 3)])
def test_a_moment_is_looked_for_on_the_timeline_of_that_moment(hours, timeline) -> None:
    written = [
        history(2, AFTER, hours=1),
        history(3, AFTER, hours=2),
        history(9, BEFORE, hours=-1),  # of another server
        history(10, BEFORE, hours=30),  # nothing of it existed then
    ]
    assert chosen(*written, hours=hours) == timeline


@pytest.mark.parametrize("text", ["<html>", "x\t0/1\tno", "1\tzero\tx"])
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(PreconditionError):
        parse_history(text + " a b")
