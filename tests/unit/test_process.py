"""The door to other programs: nothing that a program said is lost, however late it is read."""

from __future__ import annotations

import sys
import time

from lifeboat.tools import process


def test_what_an_ended_program_said_is_read_to_its_end_also_when_we_are_late() -> None:
    """On a machine that has no time for us the pipe still holds what nobody has read."""
    heard: list[str] = []

    def slowly(line: str) -> None:
        if not heard:
            time.sleep(process._STILL_OPEN_SECONDS + 0.3)  # meanwhile the program ends
        heard.append(line)

    # Little enough for the program to write all of it into the pipe and end.
    script = "for number in range(5_000): print(f'{number:09d}')"
    process.run([sys.executable, "-c", script], doing="Counting", on_line=slowly)
    assert len(heard) == 5_000
