"""Which process is meant by a number, although numbers are used again.

Source: proc_pid_stat(5). On Linux a process is named by the boot and the clock tick at which it
began, which no setting of the clock changes.
"""

from __future__ import annotations

import functools
from pathlib import Path

import psutil

_PROC = Path("/proc")
_STATE, _STARTED = 0, 19  # behind the program's name, which may hold anything
_ENDED = ("Z", "X")  # a zombie has only its parent's look to wait for


def life_of(pid: int) -> str | None:
    """Name the one life of the process that has this number now; None if there is no such process.

    A zombie does not count as alive.
    """
    boot = _boot()
    if boot is None:
        return _life_by_clock(pid)
    try:
        told = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    words = told.rpartition(")")[2].split()
    return None if words[_STATE] in _ENDED else f"{boot}/{words[_STARTED]}"


def began_at(pid: int) -> float | None:
    """When that process began, in seconds since the epoch as the clock is set now."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


@functools.cache
def _boot() -> str | None:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None  # not Linux


def _life_by_clock(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.2f}"
    except psutil.Error:
        return None
