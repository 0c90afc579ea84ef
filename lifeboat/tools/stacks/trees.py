"""A process with all that it started: how much it uses, and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import psutil

GRACE_SECONDS = 5.0


def usage(pid: int | None) -> tuple[int, float]:
    """Bytes of memory and seconds of CPU time of a process and all that it started."""
    memory_bytes, cpu_seconds = 0, 0.0
    for member in members(pid or 0):
        with contextlib.suppress(psutil.Error), member.oneshot():
            # Unique memory where it can be read: PostgreSQL's children share their buffers.
            try:
                memory_bytes += member.memory_full_info().uss
            except psutil.AccessDenied:
                memory_bytes += member.memory_info().rss
            times = member.cpu_times()
            cpu_seconds += times.user + times.system
    return memory_bytes, cpu_seconds


def members(pid: int) -> list[psutil.Process]:
    """The process and all it started, children first; empty when it is gone."""
    if not pid:
        return []
    try:
        root = psutil.Process(pid)
        return [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return []


def kill(processes: Sequence[psutil.Process]) -> list[int]:
    """Kill what is left of the processes and return the ids of those that stay."""
    # psutil compares start times, so that a recycled pid is not hit.
    left = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    _, alive = psutil.wait_procs(left, timeout=GRACE_SECONDS)
    return [p.pid for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
