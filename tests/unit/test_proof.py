"""What proves the vault: everything is read in time, and no good result hides a bad one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifeboat.core.marks import TestResult
from lifeboat.core.proof import Share, forecast_bytes, replaces, share_now

NOW = datetime(2026, 6, 1, 3, 15, tzinfo=timezone.utc)
DAY = 86400.0


def share(after_days: float = 0.0, *, every_days: float = 1, within_days: float = 30) -> Share:
    now = NOW + timedelta(days=after_days)
    return share_now(now, every_seconds=every_days * DAY, within_days=within_days)


@settings(deadline=None)
@given(st.floats(0, 5000), st.floats(0.01, 60), st.floats(0.2, 300))
def test_everything_is_read_within_the_time_that_was_asked_for(begin, every, times) -> None:
    """Whenever the tests begin and however often they run, at most one interval later."""
    within = every * times
    read, day = set(), 0.0
    while day <= max(within, every) + every * 1.001:
        found = share(begin + day, every_days=every, within_days=within)
        read.add(found.part)
        day += every
    assert read == set(range(1, found.of + 1))
    assert found.of <= 256, "restic knows no more"


def test_a_second_test_on_the_same_day_reads_the_same() -> None:
    assert share(0.0) == share(0.4)
    assert str(share()) == f"{share().part}/30"
    assert share(1.0).part == share().part % 30 + 1


@pytest.mark.parametrize(
    ("every", "within", "of"),
    [(1, 30, 30), (7, 30, 4), (0.25, 30, 120), (0.01, 30, 256), (30, 30, 1), (90, 30, 1)],
)
def test_the_rarer_the_tests_the_larger_the_shares(every, within, of) -> None:
    assert share(every_days=every, within_days=within).of == of


def result(point: str, *, passed: bool) -> TestResult:
    return TestResult(asset="files", point=point, ended_at=NOW, passed=passed, by="x")


OLD, NEW = "files-20260101T000000Z", "files-20260201T000000Z"


@pytest.mark.parametrize(
    ("new", "old", "replaced"),
    [
        (result(OLD, passed=True), None, True),
        (result(OLD, passed=True), result(NEW, passed=True), True),
        (result(OLD, passed=True), result(NEW, passed=False), False),
        (result(NEW, passed=True), result(NEW, passed=False), True),
        (result(NEW, passed=True), result(OLD, passed=False), True),
        (result(OLD, passed=False), result(NEW, passed=True), True),
        (result(OLD, passed=False), result(NEW, passed=False), True),
        (result(OLD, passed=True), result("", passed=False), True),  # none could be chosen
        (result("", passed=False), result(NEW, passed=True), True),
    ],
)
def test_a_pass_of_an_older_point_does_not_hide_a_newer_one_s_failure(new, old, replaced) -> None:
    assert replaces(new, old) is replaced


def test_a_test_needs_room_for_the_wal_as_well() -> None:
    assert forecast_bytes(1000, 0) == 1200
    assert forecast_bytes(1000, 100) == 1560
