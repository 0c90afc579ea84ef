"""Commands as an operator types them, timed from outside: seconds, processor, memory."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

LIMIT_SECONDS = 1800.0
_LOOK_SECONDS = 0.1

# What restores into a place of its own has in common: a server there, and to wait until it writes.
_PRELUDE = """\
set -euo pipefail
serve() {
  unshare --user --map-user=65534 --map-group=65534 -- "$PG/postgres" -D "$TARGET" \
    -c port="$SCRATCH_PORT" -c archive_mode=off -c unix_socket_directories= \
    -c synchronous_standby_names= >>"$TARGET.log" 2>&1 &
}
accepts() {
  until [ "$(psql -p "$SCRATCH_PORT" -d postgres -Atc 'SELECT pg_is_in_recovery()' \
    2>/dev/null)" = f ]; do
    kill -0 $! || { tail -5 "$TARGET.log" >&2; exit 1; }
    sleep 0.02
  done
}
initialise() {
  echo "$PGPASSWORD" >"$TARGET.password"
  unshare --user --map-user=65534 --map-group=65534 -- "$PG/initdb" --no-sync -D "$TARGET" \
    --username postgres --pwfile "$TARGET.password" --auth scram-sha-256 --locale C -E UTF8 \
    --data-checksums >/dev/null
}
"""


class Failed(Exception):
    """A command did not end well; what it said last is its text."""


@dataclass(frozen=True)
class Sample:
    """What one run of one contender's commands took."""

    seconds: float
    processor_seconds: float
    peak_mb: float  # resident memory of all its processes together
    began_at: float = 0.0  # seconds since the epoch
    memory: tuple[tuple[float, float], ...] = ()  # when, and how many MB


def run(script: str, environment: Mapping[str, str], *, log: Path) -> Sample:
    """Run a script by bash to its end and measure it. What it says goes into the log.

    The disk is at rest first: what others wrote and removed would hold up who makes sure of its
    own.
    Raises Failed with the log's end for an exit code other than 0, or after half an hour.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    let_disk_rest(log.parent)
    with log.open("ab") as file:
        file.write(f"\n$ {script.strip()}\n".encode())
        file.flush()
        began_at, began = time.time(), time.monotonic()
        child = subprocess.Popen(
            ["bash", "-c", _PRELUDE + script],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**_inherited(), **environment},
            start_new_session=True,
        )
        with _memory_of(child.pid) as seen:
            status, usage = _wait(child, began + LIMIT_SECONDS)
            seconds = time.monotonic() - began
    if status:
        raise Failed(f"{script.strip()!r} ended with {status}: {log.read_text()[-800:]}")
    return Sample(
        seconds=seconds,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_mb=max((megabytes for _, megabytes in seen), default=0.0),
        began_at=began_at,
        memory=tuple(seen),
    )


def let_disk_rest(directory: Path) -> None:
    """Wait for what is being written, and for the disk to be told what has been removed.

    A file system that is mounted with `discard` tells it after the removal, and all who make sure
    of a file meanwhile wait: five seconds for some gigabytes. A new machine has removed nothing.
    """
    mark = directory / "at-rest"
    for _ in range(2):
        os.sync()
        with mark.open("w") as file:
            file.write(str(time.time()))
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def _memory_of(pid: int) -> Iterator[list[tuple[float, float]]]:
    """Look ten times a second how many MB the processes of a script hold.

    The kernel's own high-water mark of a child counts what its parent held when it forked.
    """
    seen: list[tuple[float, float]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            with contextlib.suppress(psutil.NoSuchProcess):
                script = psutil.Process(pid)
                total = 0
                for process in (script, *script.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += process.memory_info().rss
                seen.append((time.time(), total / 1e6))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _wait(child: subprocess.Popen, deadline: float) -> tuple[int, os.struct_rusage]:
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode, usage
        if time.monotonic() > deadline:
            os.killpg(child.pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.005)


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def version(*words: str) -> str | None:
    """What a program says of its version; None if it is not present."""
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=30)
    except OSError:
        return None
    return (said.stdout or said.stderr).strip().splitlines()[0] if said.returncode == 0 else None


def quoted(*words: object) -> str:
    return shlex.join(map(str, words))


def total(samples: Iterable[Sample]) -> Sample:
    """Of commands that were run one after another."""
    samples = list(samples)
    return Sample(
        sum(sample.seconds for sample in samples),
        sum(sample.processor_seconds for sample in samples),
        max(sample.peak_mb for sample in samples),
    )


def median(samples: Iterable[Sample]) -> Sample:
    """Of each figure the median by itself."""
    samples = list(samples)
    return Sample(
        *(
            statistics.median(getattr(sample, name) for sample in samples)
            for name in ("seconds", "processor_seconds", "peak_mb")
        )
    )
