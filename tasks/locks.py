"""Locks that lie at the data: one recovery at a time, and backups stand aside while one runs.

They are `flock`s on files in the local vault, so they work with no server, and the kernel lets go
of them when their holder dies, however it dies. Prefect's limits are only the second lock.
"""

from __future__ import annotations

import contextvars
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lifeboat.core.errors import LockBusy
from lifeboat.core.points import Asset
from lifeboat.settings import Settings

_POLL_SECONDS = 0.1
# A verification, whose probes a backup must not see, holds backups up for some seconds.
_BACKUP_WAIT_SECONDS = 20.0
_QUIET_WAIT_SECONDS = 10.0
REMOVAL_WAIT_SECONDS = 60.0
"""So long a recovery waits for a prune that removes something at that moment."""

log = logging.getLogger("lifeboat")


@contextmanager
def recovery_lock(settings: Settings, *, run: str, wait_seconds: float = 5.0) -> Iterator[None]:
    """Hold the platform for one recovery. Raise LockBusy, naming the holder, if another has it.

    From then on nothing begins to be removed from the vault; what is being removed is waited for.
    """
    path = _recovery_path(settings)
    with _held(path, run, wait_seconds, f"Starting {run}") as file:
        _let_removal_end(settings, run)
        before = _holding.set(_Holding(settings, path, file, run))
        try:
            yield
        finally:
            _holding.reset(before)


@dataclass(frozen=True)
class _Holding:
    settings: Settings
    path: Path
    file: IO[str]
    run: str


_holding: contextvars.ContextVar[_Holding | None] = contextvars.ContextVar("holding", default=None)


@contextmanager
def let_go(*, wait_seconds: float = 5.0) -> Iterator[None]:
    """Let go of the recovery lock while nothing is done, and take it again at the end.

    A plan that waits for a person must not hold up backups, or somebody who recovers meanwhile.
    Does nothing in a run that does not hold it. Raise LockBusy if another one has it at the end.
    """
    held = _holding.get()
    if held is None:
        yield
        return
    fcntl.flock(held.file, fcntl.LOCK_UN)
    yield
    _take(held.path, held.file, held.run, wait_seconds, f"Going on with {held.run}")
    _let_removal_end(held.settings, held.run)


@contextmanager
def removal(settings: Settings, *, run: str) -> Iterator[None]:
    """Hold the vault while something is removed from it, so that no recovery begins meanwhile.

    Raise LockBusy, before anything is removed, if a recovery is running.
    """
    with _held(_removal_path(settings), run, _BACKUP_WAIT_SECONDS, f"Starting {run}"):
        # Once we have it: a recovery takes its own lock first, and then waits for ours.
        stand_aside(settings, doing=f"Removing by {run}")
        yield


def _let_removal_end(settings: Settings, run: str) -> None:
    path = _removal_path(settings)
    if not path.exists():
        return
    try:
        with _held(path, run, REMOVAL_WAIT_SECONDS, f"Starting {run}"):
            pass
    except LockBusy as busy:
        # One that hangs, on a store that is away say, must not keep the platform down. What it
        # removes is older than what a recovery would choose by itself.
        log.warning("%s Going on all the same after %g s.", busy.message, REMOVAL_WAIT_SECONDS)


def _removal_path(settings: Settings) -> Path:
    return settings.vault.local / "removal.lock"


@contextmanager
def backup_lock(
    settings: Settings,
    asset: Asset | str,
    *,
    run: str,
    wait_seconds: float = _BACKUP_WAIT_SECONDS,
) -> Iterator[None]:
    """Hold one asset for a backup.

    Raise LockBusy at once if the platform is being recovered, and after some seconds if the asset
    is still being backed up.
    """
    stand_aside(settings, doing=f"Starting {run}")
    path = _backup_path(settings, asset)
    with _held(path, run, wait_seconds, f"Starting {run}"):
        yield


@contextmanager
def orchestrator_lock(settings: Settings, *, run: str) -> Iterator[None]:
    """Hold Prefect's database for its recovery; the platform itself is not touched by it.

    Raise LockBusy if it is being backed up or recovered.
    """
    path = _backup_path(settings, "orchestrator")
    with _held(path, run, _BACKUP_WAIT_SECONDS, f"Starting {run}"):
        yield


@contextmanager
def no_backups(settings: Settings, *, run: str) -> Iterator[None]:
    """Keep backups from beginning, so that none counts a probe that is removed a moment later.

    A backup that is running is waited for, but not for long: to verify is worth more.
    """
    with ExitStack() as held:
        for asset in (Asset.DATABASE, Asset.FILES):
            path = _backup_path(settings, asset)
            with suppress(LockBusy, OSError):
                held.enter_context(_held(path, run, _QUIET_WAIT_SECONDS, f"Starting {run}"))
        yield


def _backup_path(settings: Settings, asset: Asset | str) -> Path:
    return settings.vault.local / f"backup-{asset}.lock"


@contextmanager
def tidying(settings: Settings) -> Iterator[bool]:
    """Whether it is us who clean up now. Another run that does is enough: nothing is waited for."""
    with _only_one(settings.vault.local / "tidy.lock", "tidy", "Tidying up") as it_is_us:
        yield it_is_us


@contextmanager
def making_keys(settings: Settings) -> Iterator[bool]:
    """Whether it is us who give this host its keys to the vault. Nothing is waited for either."""
    path = settings.vault.local / "host-keys.lock"
    with _only_one(path, "host keys", "Making this host's keys") as it_is_us:
        yield it_is_us


@contextmanager
def _only_one(path: Path, run: str, doing: str) -> Iterator[bool]:
    with ExitStack() as held:
        try:
            held.enter_context(_held(path, run, 0.0, doing))
        except LockBusy:
            yield False
        else:
            yield True


def stand_aside(settings: Settings, *, doing: str) -> None:
    """Raise LockBusy if a recovery is running: it must find the vault as it left it."""
    path = _recovery_path(settings)
    if not path.exists():
        return
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockBusy(
                f"{doing}: a recovery is running ({_holder(path)}).",
                hint="Backups go on by themselves when it has ended.",
            ) from None


def _recovery_path(settings: Settings) -> Path:
    return settings.vault.local / "recovery.lock"


@contextmanager
def _held(path: Path, run: str, wait_seconds: float, doing: str) -> Iterator[IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        _take(path, file, run, wait_seconds, doing)
        yield file


def _take(path: Path, file: IO[str], run: str, wait_seconds: float, doing: str) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockBusy(
                    f"{doing}: {_holder(path)} is still running.",
                    hint="Wait for it, or end that process, then run this again. "
                    "The lock goes with the process.",
                ) from None
            time.sleep(_POLL_SECONDS)
    # Who holds it is for people alone, and a full disk must not keep a recovery from its lock.
    told = json.dumps({"run": run, "pid": os.getpid(), "since": time.time()})
    with suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), told.encode())


def _holder(path: Path) -> str:
    try:
        told = json.loads(path.read_text())
        return f"{told['run']}, process {told['pid']}, for {time.time() - told['since']:.0f} s"
    except (OSError, ValueError, KeyError):
        return "an unnamed run"
