"""The log of a platform under load while S3, receiver or slot is gone: told, and made good."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import psutil
import psycopg
import pytest

from lifeboat.core.errors import PreconditionError
from lifeboat.core.marks import Kind, Sighting
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings, load_settings
from staging import faults, load, processes
from staging.site import Site
from tasks import catalogue, marks, places
from tasks.wal import wal_continuity, wal_health, wal_replay, wal_witness
from tasks.wal.wal_health import ReceiverState
from tests.system import settings_file
from tests.system.test_recoveries import Shell

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
]

KEEP = {"wal_seconds": 2, "files_seconds": 3600, "on_change_seconds": 3600}


@pytest.fixture(scope="module")
def shell(staging_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A platform with a vault of its own in S3, whose WAL is received and shipped every 2 s."""
    own = {"keep": KEEP, "vault.s3.prefix": f"w{secrets.token_hex(4)}", "checks.start_seconds": 60}
    settings_file.change(staging_site.settings_path, own | settings_file.QUICK_CHECKS)
    shell = Shell(staging_site, tmp_path_factory.mktemp("outside"))
    staging_site.stack.start(["wal-receiver"])
    for asset in ("config", "files", "models", "database"):
        shell.run("backup", asset)
    staging_site.stack.start(["keeper"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in staging_site.environment().items():
            patch.setenv(name, value)
        yield shell


@pytest.fixture
def settings(shell: Shell) -> Iterator[Settings]:
    """Each test begins with everything running."""
    shell.site.s3.start()
    shell.site.stack.start(["wal-receiver", "keeper"])
    settings = load_settings(shell.site.settings_path)
    until(lambda: wal_health.look(settings).receiver is ReceiverState.STREAMING)
    yield settings
    # Shown where the test failed: what happened is told by the two that work unseen.
    print(wal_health.look(settings))
    for service in ("wal-receiver", "keeper"):
        print(f"--- {service}\n{log_of(shell, service)[-6000:]}")


def until(condition: Callable[[], object], seconds: float = 90.0) -> object:
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return met


@contextmanager
def users_writing(shell: Shell) -> Iterator[Path]:
    """Users write all the while; gives what was acknowledged to them."""
    record = shell.outside / f"{time.time_ns()}.jsonl"
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "staging.load", "--site", shell.site.root),
            *("--record", record, "--rate", "20"),
        ],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: record.exists() and len(load.read_record(record)) > 10)
        yield record
    finally:
        child.terminate()
        child.wait(30)


def held_in_bucket(settings: Settings) -> datetime:
    found = marks.read(settings, Kind.SIGHTINGS, wal_witness.SUBJECT, from_bucket=True)
    assert isinstance(found, Sighting)
    return found.as_of


def wait_until_held(settings: Settings, moment: datetime) -> None:
    until(lambda: held_in_bucket(settings) > moment)


def wait_until_whole(settings: Settings) -> None:
    """After a recovery to an earlier moment the next base copy has to come first."""
    until(
        lambda: (newest := wal_continuity.look(settings, Tier.S3).newest_base) and newest.whole,
        seconds=150,
    )


def now() -> datetime:
    return datetime.now(timezone.utc)


def log_of(shell: Shell, service: str) -> str:
    return (shell.site.server / "logs" / f"{service}.log").read_text(errors="replace")


def as_superuser(shell: Shell, *statements: str) -> list:
    with psycopg.connect(shell.site.dsn("postgres"), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def database_points(settings: Settings, *tiers: Tier) -> list:
    return list(catalogue.list_points(settings, assets=(Asset.DATABASE,), tiers=tiers))


def test_s3_is_away_under_load_and_nothing_is_lost(shell: Shell, settings: Settings) -> None:
    known = {point.id for point in database_points(settings, Tier.HOT)}
    with users_writing(shell) as record:
        wait_until_held(settings, now())
        shell.site.s3.stop()
        until(lambda: "behind the database" in log_of(shell, "keeper"))
        last = wal_witness.last_sighting(settings)
        assert last and (now() - last.as_of).total_seconds() > settings.keep.wal_seconds

        # Backups go on where they can, and say what they could not do.
        began = time.monotonic()
        failed = shell.start("backup", "database")
        _, error = failed.communicate(timeout=300)
        assert failed.returncode != 0
        assert "does not answer" in error
        print(f"a base copy without S3: {time.monotonic() - began:.1f} s")
        [hot] = database_points(settings, Tier.HOT)
        assert hot.id not in known
        assert hot.id in {point.id for point in database_points(settings, Tier.LOCAL)}
        assert wal_continuity.look(settings, Tier.LOCAL).earliest

        shell.site.s3.start()
        back = now()
        wait_until_held(settings, back)
    wait_until_held(settings, now())
    wait_until_whole(settings)

    # All of it is really in S3: nothing else is left.
    shell.site.stack.stop(["keeper"])
    shutil.rmtree(shell.site.server / "backups/database")
    faults.break_site(shell.site, "destroy-data-directory")
    told = shell.recover("database", "--from", "s3")
    assert told["facts"]["wal"] == "synchronous"
    shell.nothing_lost(record)


def test_a_hole_is_told_and_closed_by_a_new_base_copy(
    shell: Shell, settings: Settings, tmp_path: Path
) -> None:
    shell.site.stack.stop(["keeper"])
    shell.run("backup", "database")
    shell.site.stack.start(["keeper"])
    as_superuser(shell, "CREATE TABLE before_the_hole AS SELECT 1")
    moment = now()
    time.sleep(0.1)
    as_superuser(shell, "DROP TABLE before_the_hole", "SELECT pg_switch_wal()")
    as_superuser(shell, "CREATE TABLE x AS SELECT 1", "DROP TABLE x")
    [(name,)] = as_superuser(shell, "SELECT pg_walfile_name(pg_switch_wal())")
    as_superuser(shell, "CREATE TABLE x AS SELECT 1", "DROP TABLE x", "SELECT pg_switch_wal()")
    before = wal_continuity.look(settings, Tier.LOCAL)
    assert before.newest_base and before.newest_base.whole
    wait_until_held(settings, now())
    in_the_hole = now()
    [path] = places.wal_directory(settings).glob(f"*/*/{name}")
    path.unlink()
    places.bucket(settings).delete([places.wal_key(before.system_identifier, name)])

    broken = wal_continuity.look(settings, Tier.S3)
    assert broken.newest_base and broken.newest_base.missing == name
    assert broken.earliest is None
    until(lambda: f"segment {name} is missing" in log_of(shell, "keeper"))
    assert "earliest recoverable point moved to the next base copy" in log_of(shell, "keeper")

    newer = until(
        lambda: (found := wal_continuity.look(settings, Tier.S3)).earliest and found, seconds=150
    )
    assert newer.newest_base.base.point != before.newest_base.base.point
    until(lambda: wal_continuity.look(settings, Tier.LOCAL).earliest)
    assert wal_continuity.base_is_due_because(settings) is None
    gap = marks.read(settings, Kind.GAPS, f"local-{name}", from_bucket=True)
    assert name in gap.why

    # What lies before the hole is not lost with it, and what lies in it is refused beforehand.
    as_superuser(shell, "CHECKPOINT")
    assert not (shell.site.database_directory / "pg_wal" / name).exists()
    old = catalogue.read_facts(
        settings, next(p for p in database_points(settings, Tier.S3) if p.taken_at < moment)
    )
    with pytest.raises(PreconditionError, match=f"{name} is missing.*only moments before"):
        wal_replay.collect(
            *(settings, old),
            base=tmp_path / "base",
            to_time=in_the_hole,
            prefer=Tier.S3,
            key=wal_replay.Key(settings),
        )
    shell.recover("database", "--to-time", moment.isoformat())
    assert as_superuser(shell, "SELECT count(*) FROM before_the_hole") == [(1,)]
    wait_until_whole(settings)


def receivers(shell: Shell) -> list[psutil.Process]:
    found = []
    for process in processes.processes_of(shell.site.server):
        with suppress(psutil.NoSuchProcess):
            if process.name() == "pg_receivewal":
                found.append(process)
    return found


@pytest.mark.parametrize("harm", ["killed", "stopped", "orphaned and stopped"])
def test_a_receiver_that_is_gone_or_hangs_is_told_and_replaced(
    shell: Shell, settings: Settings, harm: str
) -> None:
    [victim] = until(lambda: receivers(shell))
    with users_writing(shell) as record:
        parent = victim.parent()
        began = time.monotonic()
        victim.send_signal(signal.SIGKILL if harm == "killed" else signal.SIGSTOP)
        if harm == "orphaned and stopped":
            while parent and "lifeboat" in " ".join(parent.cmdline()):
                above = parent.parent()
                parent.kill()
                parent = above
        if harm == "stopped":
            until(lambda: wal_health.look(settings).receiver is ReceiverState.HANGS)
            print(f"{harm}: health knew after {time.monotonic() - began:.1f} s")
            [finding] = wal_health.look(settings).findings
            assert finding.name == "receiver-hangs"
        until(lambda: any(process != victim for process in receivers(shell)))
        until(lambda: wal_health.look(settings).receiver is ReceiverState.STREAMING)
        print(f"{harm}: replaced after {time.monotonic() - began:.1f} s")
        expected = "hangs" if harm == "stopped" else "signal 9" if harm == "killed" else "freed"
        assert expected in log_of(shell, "wal-receiver")[-4000:]
        count = len(load.read_record(record))
        until(lambda: len(load.read_record(record)) > count + 10)
    wait_until_held(settings, now())
    if victim.is_running():
        victim.kill()
    wait_until_whole(settings)


def test_a_lost_slot_is_told_and_the_receiver_begins_anew(shell: Shell, settings: Settings) -> None:
    shell.run("backup", "database")
    shell.site.stack.stop(["wal-receiver"])
    shell.run("wal", "asynchronous")
    assert [f.name for f in wal_health.look(settings).findings] == ["receiver-dead"]
    as_superuser(
        shell, "ALTER SYSTEM SET max_slot_wal_keep_size = '64MB'", "SELECT pg_reload_conf()"
    )
    try:
        fill = "CREATE TABLE x AS SELECT repeat('x', 1000) FROM generate_series(1, 40000)"
        as_superuser(shell, fill, "DROP TABLE x", "SELECT pg_switch_wal()")
        found = wal_health.look(settings)
        assert found.findings[0].name == "slot-filling", found
        print(f"before it is lost: {found.findings[0].sentence}")
        for _ in range(4):
            as_superuser(shell, fill, "DROP TABLE x", "SELECT pg_switch_wal()", "CHECKPOINT")
        found = wal_health.look(settings)
        assert [f.name for f in found.findings][0] == "slot-lost", found
    finally:
        as_superuser(shell, "ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")
    shell.site.stack.start(["wal-receiver"])
    until(lambda: wal_health.look(settings).receiver is ReceiverState.STREAMING)
    assert "The slot lifeboat was lost" in log_of(shell, "wal-receiver")
    assert "begins anew in" in log_of(shell, "wal-receiver")
    until(lambda: "earliest recoverable point moved" in log_of(shell, "keeper")[-20000:])
    until(lambda: wal_continuity.look(settings, Tier.S3).earliest, seconds=150)
    until(lambda: wal_continuity.look(settings, Tier.LOCAL).earliest)
    with users_writing(shell) as record:
        pass
    wait_until_held(settings, now())
    shell.site.stack.stop(["keeper"])
    faults.break_site(shell.site, "destroy-data-directory")
    shell.recover("database", "--from", "s3")
    shell.nothing_lost(record)
