"""Very many small acts: in order, to the end, and with one error for all that failed."""

from __future__ import annotations

import threading

import pytest

from lifeboat.core.errors import PreconditionError, RecoveryError, TransientError
from tasks.many import act_on_all


def test_results_come_in_the_order_of_the_things() -> None:
    assert act_on_all(range(500), lambda n: n * n, doing="Squaring") == [n * n for n in range(500)]
    assert act_on_all([], lambda n: n, doing="Nothing") == []


def test_no_more_than_some_are_at_work_at_once() -> None:
    at_work, most, guard = 0, 0, threading.Lock()
    together = threading.Barrier(3, timeout=10)

    def act(_: int) -> None:
        nonlocal at_work, most
        with guard:
            at_work += 1
            most = max(most, at_work)
        together.wait()
        with guard:
            at_work -= 1

    act_on_all(range(9), act, doing="Meeting", at_once=3)
    assert most == 3


def test_all_are_tried_and_the_failures_are_told_together() -> None:
    tried = []

    def act(number: int) -> None:
        tried.append(number)
        if number % 10 == 3:
            raise TransientError(f"{number} did not answer.", hint="Look at the network.")

    with pytest.raises(TransientError, match=r"90 of 100 are done, 10 failed.*did not answer") as e:
        act_on_all(range(100), act, doing="Trying")
    assert "Look at the network. Run it again" in e.value.hint
    assert sorted(tried) == list(range(100))


def test_after_a_refusal_nothing_more_is_begun() -> None:
    tried = []

    def act(number: int) -> None:
        tried.append(number)
        raise PreconditionError("access is denied.")

    with pytest.raises(RecoveryError, match="0 of 10000 are done.*access is denied") as e:
        act_on_all(range(10000), act, doing="Trying")
    assert not isinstance(e.value, TransientError)
    assert len(tried) < 100


def test_a_defect_is_not_taken_for_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        act_on_all(range(10), lambda n: 1 // n, doing="Dividing")
