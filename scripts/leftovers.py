"""Which programs run out of a directory; and `make clean`, which leaves none and nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_BY_TOOLS = (
    *(".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", ".coverage"),
    *("build", "dist", "lifeboat.egg-info"),
)
STOP_SECONDS = 120


@dataclass(frozen=True)
class Process:
    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid}: {self.command[:110]}"


def processes_using(*directories: Path) -> list[Process]:
    """Return the running programs that were started from, or told about, these directories."""
    beginnings = tuple(f"{directory}{os.sep}" for directory in directories)
    own = {os.getpid(), os.getppid()}
    return [
        process
        for process in running()
        if process.pid not in own
        and any(beginning in f"{process.command}{os.sep}" for beginning in beginnings)
    ]


def running() -> Iterator[Process]:
    if Path("/proc/self/cmdline").exists():  # Linux, with or without a ps
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                words = (directory / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile
            yield Process(int(directory.name), b" ".join(words).decode(errors="replace").strip())
        return
    listing = subprocess.run(["ps", "-axo", "pid=,args="], capture_output=True, text=True)
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield Process(int(pid), command)


def clean() -> int:
    """Stop the staging stack and remove whatever Lifeboat put into this checkout.

    Nothing is removed under a program that still runs: those are named instead.
    """
    state, venv = ROOT / ".lifeboat", ROOT / ".venv"
    lifeboat = venv / "bin" / "lifeboat"
    if lifeboat.exists() and processes_using(state):
        try:
            subprocess.run([lifeboat, "stack", "down"], cwd=ROOT, timeout=STOP_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"lifeboat stack down: {error}", file=sys.stderr)
    if users := processes_using(state, venv):
        print("Nothing was removed, for these still run from here:", file=sys.stderr)
        print(*(f"  {process}" for process in users), sep="\n", file=sys.stderr)
        print("Stop them, then run `make clean` again.", file=sys.stderr)
        return 1

    for name in (".venv", ".lifeboat", *LEFT_BY_TOOLS):
        remove(ROOT / name)
    for directory in ROOT.rglob("__pycache__"):
        remove(directory)
    return 0


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(clean())
