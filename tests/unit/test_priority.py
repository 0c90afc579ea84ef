"""What can wait stands back, with all that it starts, and nobody else does."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lifeboat.tools import priority, process
from tasks.orchestration import side_by_side


def niceness_of_a_program() -> int:
    script = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
    told = process.run([sys.executable, "-c", script], doing="Asking for its niceness")
    return int(told.stdout)


def test_programs_and_threads_stand_back_and_afterwards_no_longer() -> None:
    before = niceness_of_a_program()
    with priority.yielding(niceness=7):
        assert niceness_of_a_program() == max(before, 7)
        started = side_by_side({"one": niceness_of_a_program, "two": niceness_of_a_program})
        assert set(started.values()) == {max(before, 7)}
    if os.geteuid() == 0:
        assert niceness_of_a_program() == before


def test_threads_beside_keep_theirs() -> None:
    """A recovery, or the WAL's way to the bucket, must not wait for a backup in its process."""
    before = niceness_of_a_program()
    with ThreadPoolExecutor(max_workers=1) as other:
        other.submit(int).result()  # its thread is there before anybody stands back
        with priority.yielding(niceness=7):
            assert other.submit(niceness_of_a_program).result() == before


def test_who_stands_back_further_already_stays_there() -> None:
    with priority.yielding(niceness=9), priority.yielding(niceness=3):
        assert niceness_of_a_program() >= 9


def test_where_it_can_t_be_set_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    before = niceness_of_a_program()
    with priority.yielding(niceness=7):
        assert niceness_of_a_program() == before
