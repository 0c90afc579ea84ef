"""Which programs run out of a directory; and `make clean`, which leaves none and nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker_engine

ROOT = Path(__file__).resolve().parent.parent
LEFT_BY_TOOLS = (
    *(".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", ".coverage"),
    *("build", "dist", "lifeboat.egg-info"),
)
STOP_SECONDS = 120


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    words: tuple[str, ...]  # its program and arguments, paths made absolute where that is known

    def __str__(self) -> str:
        return f"process {self.pid}: {' '.join(self.words)[:110]}"


def processes_using(*directories: Path) -> list[Process]:
    """Return the running programs that were started from, or told about, these directories.

    Those that led to this one (make, a shell) are not among them.
    """
    beginnings = tuple(f"{directory}{os.sep}" for directory in directories)
    processes = {process.pid: process for process in running()}
    own, pid = set(), os.getpid()
    while pid in processes and pid not in own:
        own.add(pid)
        pid = processes[pid].parent
    return [
        process
        for process in processes.values()
        if process.pid not in own
        and any(
            f"{word.rpartition('=')[2]}{os.sep}".startswith(beginnings) for word in process.words
        )
    ]


def running() -> Iterator[Process]:
    """Yield every process that may be looked at, from /proc or, where there is none, from ps."""
    if not Path("/proc/self/cmdline").exists():
        listing = subprocess.run(
            ["ps", "-axo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        )
        for line in listing.stdout.splitlines():
            pid, parent, *words = line.split()
            yield Process(int(pid), int(parent), tuple(words))
        return
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = os.fsdecode((directory / "cmdline").read_bytes()).split("\0")
            cwd = os.readlink(directory / "cwd")
            program = os.readlink(directory / "exe")
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile, or belongs to someone else
        paths = [
            os.path.normpath(os.path.join(cwd, word)) if "/" in word else word for word in words
        ]
        if paths[0] != program:
            paths.insert(0, program)
        yield Process(int(directory.name), parent, tuple(filter(None, paths)))


def clean() -> int:
    """Stop the staging stack, and what `make up` started, and remove what Lifeboat put in here.

    Nothing is removed under a program that still runs: those are named instead.
    """
    state, venv = ROOT / ".lifeboat", ROOT / ".venv"
    lifeboat = venv / "bin" / "lifeboat"
    engine = docker_engine.running_privately()
    if lifeboat.exists() and processes_using(state):
        environment = {**os.environ, "DOCKER_HOST": engine} if engine else None
        for words in (("stack", "down"), ("down",)):
            try:
                subprocess.run([lifeboat, *words], cwd=ROOT, env=environment, timeout=STOP_SECONDS)
            except (OSError, subprocess.TimeoutExpired) as error:
                print(f"lifeboat {' '.join(words)}: {error}", file=sys.stderr)
    docker_engine.stop()
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
