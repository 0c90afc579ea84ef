"""The flow that bench/press_to_first_step.py presses: it imports what a recovery imports."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, task

import flows.recover_database  # noqa: F401


@task
def say_when(file: str) -> None:
    Path(file).write_text(str(time.time()))


@flow
def press(file: str) -> None:
    """Its first step writes down when it ran."""
    say_when(file)
