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


def run(script: str, environment: Mapping[str, str], *, log: Path) -> Sample:
    """Run a script by bash to its end and measure it. What it says goes into the log.

    Raises Failed with the log's end for an exit code other than 0, or after half an hour.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"\n$ {script.strip()}\n".encode())
        file.flush()
        began = time.monotonic()
        child = subprocess.Popen(
            ["bash", "-c", _PRELUDE + script],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**_inherited(), **environment},
            start_new_session=True,
        )
        with _memory_of(child.pid) as peak:
            status, usage = _wait(child, began + LIMIT_SECONDS)
            seconds = time.monotonic() - began
    if status:
        raise Failed(f"{script.strip()!r} ended with {status}: {log.read_text()[-800:]}")
    return Sample(
        seconds=seconds,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_mb=max(peak) / 1e6,
    )


@contextlib.contextmanager
def _memory_of(pid: int) -> Iterator[list[int]]:
    """Look ten times a second what the processes of a script hold, in bytes.

    The kernel's own high-water mark of a child counts what its parent held when it forked.
    """
    seen, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            with contextlib.suppress(psutil.NoSuchProcess):
                script = psutil.Process(pid)
                total = 0
                for process in (script, *script.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += process.memory_info().rss
                seen.append(total)

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


def median(samples: Iterable[Sample]) -> Sample:
    """Of each figure the median by itself."""
    samples = list(samples)
    return Sample(
        *(
            statistics.median(getattr(sample, name) for sample in samples)
            for name in ("seconds", "processor_seconds", "peak_mb")
        )
    )
