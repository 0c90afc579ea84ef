"""What departs from its predecessors is told with figures, and what merely moved is left alone."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.core.errors import PreconditionError
from lifeboat.core.plan import RecoveryPlan, size_in_words
from lifeboat.core.points import (
    Asset,
    RecoveryPoint,
    Tier,
    choose_point,
    merge_copies,
    passed_over,
    point_id,
)
from lifeboat.core.suspicion import Policy, judge, pack_counts, unpack_counts

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
POLICY = Policy()


def point(minutes: float, *, asset: Asset = Asset.FILES, tier: Tier = Tier.LOCAL, **told):
    """1200 files of 1.9 GB, of which 5 are new since the one before."""
    taken_at = NOON + timedelta(minutes=minutes)
    usual = {
        "bytes": 1_900_000_000,
        "files": 1200,
        "unmodified_files": 1195,
        "new_blobs": 9,
        "added_bytes": 8_000_000,
    }
    return RecoveryPoint(
        asset=asset,
        id=point_id(asset, taken_at),
        taken_at=taken_at,
        copies={tier: "x"},
        **{**usual, **told},
    )


REWRITTEN = {"unmodified_files": 3, "new_blobs": 1197, "added_bytes": 1_890_000_000}
CHOWNED = {"unmodified_files": 0, "new_blobs": 1, "added_bytes": 420_000}


def suspicions(*points: RecoveryPoint, accepted=(), policy: Policy = POLICY) -> list[str]:
    shuffled = random.Random(3).sample(points, len(points))
    judged = judge(shuffled, policy=policy, accepted=accepted)
    assert [p.id for p in judged] == [p.id for p in shuffled], "their order is kept"
    return [p.suspicion for p in sorted(judged, key=lambda p: (p.taken_at, p.asset))]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"files": 3, "unmodified_files": 3, "new_blobs": 0}, "3 of 1200 files are left"),
        ({"files": 599, "unmodified_files": 599}, "599 of 1200 files are left"),
        ({"files": 601, "unmodified_files": 601}, ""),
        ({"bytes": 200_000_000}, "200.0 MB of 1.9 GB are left"),
        (REWRITTEN, "1197 of 1200 files were rewritten or replaced (1.9 GB of 1.9 GB are new)"),
        # Renamed as well (`plan.dxf.locked`), and only the first kilobytes of each encrypted.
        (
            {"unmodified_files": 0, "new_blobs": 1200, "added_bytes": 9_000_000},
            "1200 of 1200 files were rewritten or replaced (9.0 MB of 1.9 GB are new)",
        ),
        ({"unmodified_files": 700, "new_blobs": 500}, ""),
        (CHOWNED, ""),
        # A directory of 800 files more: restic knows no snapshot of the same paths to compare with.
        ({"files": 2000, "unmodified_files": 0, "new_blobs": 800, "bytes": 3_000_000_000}, ""),
        ({"files": 5000, "unmodified_files": 1200, "new_blobs": 90_000}, ""),
        # Most are gone and one large one has come: shrunk, but not rewritten.
        ({"files": 500, "unmodified_files": 499, "new_blobs": 2000}, "500 of 1200 files are left"),
    ],
)
def test_files_that_are_lost_or_replaced_are_told_with_figures(changes, told) -> None:
    first = point(0)
    expected = f"{told}, since {first.id}" if told else ""
    assert suspicions(first, point(30, **changes)) == ["", expected]


def rows(minutes: float, **tables: int) -> RecoveryPoint:
    named = {f"public.{name}": count for name, count in tables.items()}
    return point(minutes, asset=Asset.DATABASE, rows=named, unmodified_files=0, new_blobs=900)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"users": 1000, "orders": 900, "notes": 7}, ""),
        ({"users": 400, "orders": 900, "notes": 7}, "public.users 400 of 1000"),
        ({"orders": 900}, "public.users 0 of 1000"),
        ({}, "public.orders 0 of 900; public.users 0 of 1000"),
        ({"users": 1000, "orders": 900}, ""),  # 7 notes may well go at once
        ({"users": 9999, "orders": 460, "new": 5}, ""),
    ],
)
def test_a_table_that_lost_its_rows_is_named(tables, told) -> None:
    first = rows(0, users=1000, orders=900, notes=7)
    expected = f"of the rows in tables are left: {told}, since {first.id}" if told else ""
    assert suspicions(first, rows(60, **tables)) == ["", expected]


def test_tables_that_empty_themselves_may_be_excepted() -> None:
    pair = rows(0, queue_mails=800, users=50), rows(60, queue_mails=0, users=50)
    assert suspicions(*pair)[1]
    assert not suspicions(*pair, policy=Policy(except_tables=("*.queue_*",)))[1]


def test_many_tables_are_counted_in_the_reason() -> None:
    many = {f"t{n}": 100 for n in range(10)}
    [_, told] = suspicions(rows(0, **many), rows(60))
    assert "public.t0 0 of 100; public.t1 0 of 100; public.t2 0 of 100 and 7 more" in told


def test_a_directory_that_was_not_mounted_is_noticed_among_others() -> None:
    first = point(0, directory_files={"drawings": 1100, "thumbnails": 99})
    later = point(30, files=1101, directory_files={"drawings": 1100, "thumbnails": 0})
    assert "thumbnails 0 of 99" in suspicions(first, later)[1]


def test_what_is_not_known_speaks_against_nothing() -> None:
    unknown = {"files": None, "unmodified_files": None, "new_blobs": None, "added_bytes": None}
    first = rows(0, users=1000)
    assert suspicions(point(0), point(30, **unknown), point(60)) == ["", "", ""]
    assert suspicions(first, point(60, asset=Asset.DATABASE)) == ["", ""]


def test_few_files_may_change_at_once() -> None:
    few = {"files": 19, "bytes": 900_000}
    gone = {"files": 2, "bytes": 90_000, "unmodified_files": 0, "new_blobs": 2}
    assert suspicions(point(0, **few), point(30, **gone)) == ["", ""]
    assert suspicions(point(0, **few), point(30, **gone), policy=Policy(at_least=19))[1]


def test_assets_are_judged_apart() -> None:
    other = point(10, asset=Asset.MODELS, files=3, bytes=10)
    assert suspicions(point(0), other, point(30)) == ["", "", ""]


def test_a_shrunk_store_is_trusted_again_when_its_size_comes_back() -> None:
    gone = {"files": 3, "unmodified_files": 3, "new_blobs": 0}
    back = {"unmodified_files": 3, "new_blobs": 1}
    first, *later = suspicions(
        point(0), point(30, **gone), point(60, **gone), point(90, **back), point(120)
    )
    assert [bool(told) for told in (first, *later)] == [False, True, True, False, False]


def test_what_builds_on_rewritten_files_is_not_trusted_until_one_is_accepted() -> None:
    points = point(0), point(30, **REWRITTEN), point(60), point(90, **CHOWNED), point(120)
    told = suspicions(*points)
    assert told[0] == ""
    for later in told[2:]:
        assert later.startswith(f"it builds on {points[1].id}, in which 1197 of 1200 files")
    assert suspicions(*points, accepted=[points[1].id]) == [""] * 5
    after = suspicions(*points, accepted=[points[3].id])
    assert [bool(told) for told in after] == [False, True, True, False, False]


def test_encryption_behind_a_deletion_is_seen_as_well() -> None:
    """First most is deleted, then as many files of another content appear."""
    gone = {"files": 3, "unmodified_files": 3, "new_blobs": 0}
    strange = {"unmodified_files": 3, "new_blobs": 1197}
    told = suspicions(point(0), point(30, **gone), point(60, **strange), point(90))
    assert "1197 of 1200 files were rewritten" in told[2]
    assert "it builds on" in told[3]


def test_an_accepted_point_is_what_later_ones_are_compared_with() -> None:
    small = {"files": 100, "unmodified_files": 100, "bytes": 100_000_000}
    points = point(0), point(30, **small), point(60, **small), point(90, files=3, bytes=10)
    assert [bool(s) for s in suspicions(*points)] == [False, True, True, True]
    told = suspicions(*points, accepted=[points[1].id])
    assert told[:3] == ["", "", ""]
    assert "3 of 100 files" in told[3]


def test_a_point_that_was_accepted_in_another_store_is_a_baseline_that_is_not_seen() -> None:
    """The bucket was away when the files were replaced on purpose; only this host has the point."""
    points = point(0), point(30, **REWRITTEN), point(60, **REWRITTEN), point(90)
    seen_in_s3 = (points[0], *points[2:])
    assert [bool(s) for s in suspicions(*seen_in_s3)] == [False, True, True]
    accepted = [points[1].id, "files-nonsense", "models-20260131T121500Z"]
    assert suspicions(*seen_in_s3, accepted=accepted) == ["", "", ""]
    assert suspicions(*seen_in_s3, accepted=accepted[1:])[1]


def test_the_tier_that_missed_no_backup_tells_what_has_changed() -> None:
    """The repository of a new host is empty, so that all in it seems new."""
    fresh = point(30, unmodified_files=0, new_blobs=5000, added_bytes=1_900_000_000)
    known = point(30, tier=Tier.S3, **CHOWNED)
    for order in ((fresh, known), (known, fresh)):
        [merged] = merge_copies(order)
        assert suspicions(point(0, tier=Tier.S3), merged) == ["", ""]
    [merged] = merge_copies([point(30, new_blobs=None), known])
    assert merged.new_blobs == 1


changes = st.fixed_dictionaries(
    {
        "files": st.integers(0, 3000),
        "bytes": st.integers(0, 3_000_000_000),
        "unmodified_files": st.integers(0, 3000),
        "new_blobs": st.none() | st.integers(0, 9000),
        "rows": st.none() | st.dictionaries(st.sampled_from("abc"), st.integers(0, 500)),
    }
)


@given(st.lists(changes, min_size=1, max_size=12), st.data())
def test_whatever_happens_the_first_and_the_accepted_are_trusted(told, data) -> None:
    points = [point(30 * n, **change) for n, change in enumerate(told)]
    accepted = data.draw(st.sets(st.sampled_from([p.id for p in points])))
    before = suspicions(*points, accepted=accepted)
    assert before[0] == ""
    assert not any(s for p, s in zip(points, before, strict=True) if p.id in accepted)
    # Nothing that comes later changes what was said of a point.
    assert suspicions(*points[:-1], accepted=accepted) == before[:-1]
    # Accepting the newest makes the store as it is now the measure: no more changes, no doubt.
    newest = points[-1].id
    same = point(9999, **{**told[-1], "unmodified_files": told[-1]["files"], "new_blobs": 0})
    assert suspicions(*points, same, accepted={*accepted, newest})[-2:] == ["", ""]


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 50)), max_size=10))
def test_a_store_that_only_grows_is_never_suspicious(growth) -> None:
    points, files, size = [point(0)], 1200, 1_900_000_000
    for number, (new, touched) in enumerate(growth, start=1):
        unmodified = max(0, files - touched)
        files, size = files + new, size + 1000 * new
        blobs = new + touched
        points.append(
            point(
                30 * number, files=files, bytes=size, unmodified_files=unmodified, new_blobs=blobs
            )
        )
    assert not any(suspicions(*points))


# --- counts in a tag ------------------------------------------------------------------------


@given(st.dictionaries(st.text(min_size=1, max_size=30), st.integers(0, 10**12), max_size=50))
def test_counts_survive_the_tag(counts) -> None:
    packed = pack_counts(counts)
    assert "," not in packed
    assert unpack_counts(packed) == counts


def test_of_very_many_tables_the_largest_are_kept_and_none_seems_dropped() -> None:
    before = {f"public.{'x' * 50}{n}": 10_000 + n for n in range(3000)}
    packed = pack_counts(before)
    assert len(packed) < 65_000
    # The ranks change, so that other tables are among the largest.
    after = {name: 10_000 + (n * 7919) % 3000 for n, name in enumerate(before)}
    told = [unpack_counts(packed), unpack_counts(pack_counts(after))]
    assert len(told[0]) < 1002
    points = [rows(60 * n).model_copy(update={"rows": counts}) for n, counts in enumerate(told)]
    assert suspicions(*points) == ["", ""]
    emptied = rows(60).model_copy(update={"rows": {}})
    assert "and" in suspicions(points[0], emptied)[1]


@pytest.mark.parametrize("text", ["", ";", "a", "a:", ":3", "a:x;;b:-1"])
def test_a_damaged_tag_tells_nothing(text) -> None:
    assert unpack_counts(text) == {}


# --- what is offered ------------------------------------------------------------------------


def test_a_suspicious_point_is_not_offered_as_the_latest() -> None:
    points = judge([point(0), point(30), point(60, **REWRITTEN), point(90)], policy=POLICY)
    chosen = choose_point(points, asset=Asset.FILES)
    assert chosen.taken_at == NOON + timedelta(minutes=30)
    over = passed_over(points, chosen)
    assert [p.taken_at for p in over] == [NOON + timedelta(minutes=m) for m in (90, 60)]
    assert passed_over(points, chosen, not_after=NOON + timedelta(minutes=70)) == over[1:]
    plan = RecoveryPlan(
        procedure="recover-files",
        platform="cad",
        symptoms="x",
        points=(chosen,),
        passed_over=over,
        target="x",
        expected_loss="x",
        touches=(),
        steps=(),
        made_at=NOON + timedelta(minutes=100),
    )
    assert f"Passed over:     {over[0].id}, 10 min old (and 1 before it): it b" in plan.in_words()
    assert f"lifeboat accept {over[0].id}" in plan.in_words()
    named = plan.model_copy(update={"points": over[1:], "passed_over": ()})
    for text in (named.in_words(), named.in_markdown()):
        assert "SUSPICIOUS: " in text, "who names it is told as well"
        assert "1197 of 1200 files were rewritten" in text


def test_when_all_that_fit_are_suspicious_it_says_how_to_accept_one() -> None:
    _, bad, worse = judge([point(0), point(30, **REWRITTEN), point(60)], policy=POLICY)
    with pytest.raises(PreconditionError, match=f"(?s)it builds on.*lifeboat accept {worse.id}"):
        choose_point([bad, worse], asset=Asset.FILES)
    with pytest.raises(PreconditionError, match=f"lifeboat accept {bad.id}"):
        choose_point([bad, worse], asset=Asset.FILES, not_after=NOON + timedelta(minutes=40))


def test_a_point_from_the_future_is_no_measure_of_others() -> None:
    """It was made while a clock was ahead: what was backed up after it is newer in truth."""
    small = {"files": 3, "unmodified_files": 3, "new_blobs": 0}
    points = point(0), point(30), point(600, **small), point(630)
    now = NOON + timedelta(minutes=31)
    judged = judge(points, policy=POLICY, now=now)
    assert [bool(p.suspicion) for p in judged] == [False, False, True, True]
    assert "at 2026-01-31 22:00 UTC, which is still to come" in judged[2].suspicion
    assert choose_point(judged, asset=Asset.FILES) == judged[1]
    assert passed_over(judged, judged[1]) == (judged[3], judged[2])
    accepted = judge(points, policy=POLICY, now=now, accepted={points[3].id})
    assert [bool(p.suspicion) for p in accepted] == [False, False, True, False]
    later = judge(points, policy=POLICY, now=NOON + timedelta(minutes=626))
    assert "of 1200 files are left" in later[2].suspicion, "its time has come"
    assert not later[3].suspicion, "hosts that are both right differ by some minutes"


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1.25e9, "1.2 GB"), (3e15, "3000.0 TB")],
)
def test_sizes_as_people_say_them(size, words) -> None:
    assert size_in_words(int(size)) == words


def test_where_all_is_from_the_future_it_is_this_clock_that_is_wrong() -> None:
    """A machine that boots months back must be able to recover its database from its own copy."""
    points = point(0), point(30, **REWRITTEN), point(0, asset=Asset.MODELS)
    judged = judge(points, policy=POLICY, now=NOON - timedelta(days=60))
    assert [bool(p.suspicion) for p in judged] == [False, True, False]
    assert "still to come" not in judged[1].suspicion
