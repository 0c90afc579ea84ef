"""What a program says is heard to its last byte, also on a machine that is too busy to listen."""

from __future__ import annotations

import selectors
import time

from lifeboat.tools import process


def test_the_last_words_of_a_silent_program_are_heard_however_late(monkeypatch) -> None:
    """It is silent, speaks and ends while we get no turn: that must not look like no output."""

    class Busy(selectors.DefaultSelector):
        def select(self, timeout=None):
            ready = super().select(timeout)
            if not ready:
                time.sleep(1.5 * process._STILL_OPEN_SECONDS)
            return ready

    monkeypatch.setattr(process.selectors, "DefaultSelector", Busy)
    done = process.run(["sh", "-c", "sleep 0.4; echo [1]; echo why >&2"], doing="Asking")
    assert done.stdout == b"[1]\n"
    assert done.stderr_tail == "why"


def test_a_program_that_leaves_another_one_with_its_output_keeps_nobody_waiting() -> None:
    began = time.monotonic()
    done = process.run(["sh", "-c", "sleep 4 & echo said"], doing="Asking")
    assert done.stdout == b"said\n"
    assert time.monotonic() - began < 3
