"""Finding and ending the processes of a directory, whoever started them and whatever died."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

_OURS = (
    "supervisord",
    "cad_platform",
    "postgres",
    "redis-server",
    "celery",
    "uvicorn",
    "weed",
    "lifeboat",
    "pg_receivewal",
    "pg_basebackup",
    "restic",
    "staging.load",
)


def processes_of(directory: Path) -> list[psutil.Process]:
    """The platform's processes that work in the directory or were started with a path in it.

    Never this process or one that it runs under; nor a shell or an editor that is just there.
    """
    here = str(directory.absolute())
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for candidate in psutil.process_iter():
        if candidate.pid in spared:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            words = candidate.cmdline()
            if not words or candidate.status() == psutil.STATUS_ZOMBIE:
                continue
            if not _is_ours(candidate, words):
                continue
            if any(_is_below(place, here) for place in (_cwd(candidate), *words)):
                found.append(candidate)
    return found


def _is_ours(candidate: psutil.Process, words: list[str]) -> bool:
    names = [candidate.name(), *(Path(word).name for word in words[:6])]
    return any(ours in name for name in names for ours in _OURS)


def _cwd(candidate: psutil.Process) -> str:
    try:
        return candidate.cwd()
    except psutil.Error:
        return ""


def _is_below(place: str, directory: str) -> bool:
    return place == directory or place.startswith(directory + os.sep)


def kill_all(directory: Path, *, patience_seconds: float = 10.0) -> tuple[int, ...]:
    """SIGKILL every process of the directory, again until none is left; return their ids."""
    killed: dict[int, None] = {}
    deadline = time.monotonic() + patience_seconds
    while left := processes_of(directory):
        kill(left)
        killed.update(dict.fromkeys(process.pid for process in left))
        if time.monotonic() > deadline:
            raise RuntimeError(f"Processes {[p.pid for p in left]} of {directory} cannot be ended.")
    return tuple(killed)


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL, and wait until they are gone."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def remember(process_file: Path, pid: int) -> None:
    """Write down which process it is: a number alone may be another one's tomorrow."""
    started_at = psutil.Process(pid).create_time()
    process_file.write_text(json.dumps({"pid": pid, "started_at": started_at}), encoding="utf-8")


def remembered(process_file: Path) -> psutil.Process | None:
    """The process that was written down, if it is still that one and running."""
    try:
        noted = json.loads(process_file.read_text(encoding="utf-8"))
        process = psutil.Process(noted["pid"])
        if abs(process.create_time() - noted["started_at"]) > 1:
            return None
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, KeyError, psutil.Error):
        return None


def free_shared_memory(data_directory: Path) -> None:
    """Give back the System V segment of a PostgreSQL that was killed (postmaster.pid, line 7)."""
    try:
        line = (data_directory / "postmaster.pid").read_text().splitlines()[6]
        segment = int(line.split()[1])
    except (OSError, IndexError, ValueError):
        return
    # Refused or gone is as good: the next start of the server clears up as well.
    subprocess.run(["ipcrm", "-m", str(segment)], capture_output=True, check=False)
