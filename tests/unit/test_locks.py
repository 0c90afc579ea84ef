"""The locks at the data: between processes, whoever dies, and with no server anywhere."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from lifeboat.core.errors import LockBusy
from tasks import locks

ROOT = Path(__file__).resolve().parents[2]
# Holds a lock with a child of its own, as a recovery has one that restores.
_HOLDER = """
import subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
from tasks import locks
settings = SimpleNamespace(vault=SimpleNamespace(local=Path(sys.argv[1])))
take = getattr(locks, sys.argv[2])
with take(settings, run="held-by-another"):
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(vault=SimpleNamespace(local=tmp_path))


@contextmanager
def held_elsewhere(settings: SimpleNamespace, lock: str) -> Iterator[subprocess.Popen]:
    words = [sys.executable, "-c", _HOLDER, str(settings.vault.local), lock]
    holder = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        yield holder
    finally:
        holder.kill()
        holder.wait()
        subprocess.run(["kill", "-9", str(child)], check=False)
        holder.stdout.close()


def test_a_recovery_keeps_others_out_until_it_is_killed(settings) -> None:
    """By kill -9, and though what it had started lives on."""
    with held_elsewhere(settings, "recovery_lock") as holder:
        busy = f"held-by-another, process {holder.pid}"
        with (
            pytest.raises(LockBusy, match=busy),
            locks.recovery_lock(settings, run="recover-files", wait_seconds=0.1),
        ):
            pass
        with pytest.raises(LockBusy, match=busy), locks.backup_lock(settings, "files", run="b"):
            pass
        with pytest.raises(LockBusy, match=busy), locks.removal(settings, run="prune"):
            pass
        holder.kill()
        holder.wait()
        with locks.recovery_lock(settings, run="recover-files", wait_seconds=30):
            pass


def test_a_recovery_waits_for_what_is_being_removed(settings) -> None:
    """And from the moment it waits, nothing more begins to be removed."""
    began = threading.Event()

    def recover() -> None:
        with locks.recovery_lock(settings, run="recover-files"):
            began.set()

    with held_elsewhere(settings, "removal") as holder:
        recovery = threading.Thread(target=recover)
        recovery.start()
        deadline = time.monotonic() + 30
        while not refused(settings):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not began.is_set()
        holder.kill()
        assert began.wait(30)
        recovery.join()


def refused(settings) -> bool:
    try:
        locks.stand_aside(settings, doing="Removing")
    except LockBusy:
        return True
    return False


def test_a_prune_that_hangs_does_not_keep_the_platform_down(settings, monkeypatch, caplog) -> None:
    monkeypatch.setattr(locks, "REMOVAL_WAIT_SECONDS", 0.1)
    with (
        held_elsewhere(settings, "removal"),
        locks.recovery_lock(settings, run="recover-database"),
    ):
        pass
    assert "held-by-another" in caplog.text and "Going on all the same" in caplog.text
