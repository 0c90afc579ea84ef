"""The four scenarios from a shell, on a platform under load: broken, brought back, counted."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import psutil
import psycopg
import pytest

from lifeboat.core.points import Tier
from lifeboat.core.versions import form_of
from lifeboat.settings import load_settings
from lifeboat.tools import postgres
from staging import faults, load
from staging.site import CRITICAL, Site
from tasks import database, locks
from tasks.wal import wal_continuity
from tests.system import settings_file
from tests.system.watching import wait_for

pytestmark = [pytest.mark.system]

PLATFORM = "cad-ai-staging"
PREFIX = "recoveries"


@dataclasses.dataclass
class Shell:
    """An operator's shell: the secrets in its environment, and nothing else of ours."""

    site: Site
    outside: Path
    patience_seconds: float = 150

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-c", "from lifeboat.cli import main; main()", *words],
            env={
                **kept,
                **self.site.environment(),
                "LIFEBOAT_CONFIG": str(self.site.settings_path),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, ok: int = 0, **environment: str) -> subprocess.CompletedProcess:
        child = self.start(*words, **environment)
        out, error = child.communicate(timeout=self.patience_seconds)
        assert child.returncode == ok, f"{words}: exit {child.returncode}\n{error}\n{out}"
        for secret in self.site.environment().values():
            assert secret not in out + error
        return subprocess.CompletedProcess(words, child.returncode, out, error)

    def cut_short(
        self, step: str, *words: str, sig: signal.Signals = signal.SIGKILL, **environment: str
    ) -> int:
        """Run a command, and end it when it begins that step; give its exit code."""
        child = self.start(*words, **environment)
        assert child.stderr
        for line in child.stderr:
            if f"{step} ..." in line:
                child.send_signal(sig)
                break
        child.communicate(timeout=60)
        return child.returncode

    def recover(self, *words: str) -> dict:
        done = self.run("recover", *words, "--approve", PLATFORM, "--json")
        record = json.loads(done.stdout)
        assert record["outcome"] == "done"
        assert [c["name"] for c in record["verdict"]["checks"] if c["status"] != "PASS"] == []
        assert len(record["verdict"]["checks"]) == 18
        return record

    def write(self, seconds: float = 2.0) -> Path:
        """Let users write; give what was acknowledged to them."""
        record = self.outside / f"{time.time_ns()}.jsonl"
        for longer in (1, 3, 9):  # on a busy disk a commit may take a second
            subprocess.run(
                [
                    *(sys.executable, "-m", "staging.load", "--site", self.site.root),
                    *("--record", record, "--rate", "20", "--seconds", str(longer * seconds)),
                ],
                check=True,
                capture_output=True,
                cwd=Path(__file__).parents[2],
            )
            if len(load.read_record(record)) > 3:
                return record
        raise AssertionError("hardly anything is acknowledged to users")

    def without_hot_copy(self) -> None:
        """As a recovery leaves it, until the keeper has made the next one."""
        self.site.stack.stop(["keeper"])
        shutil.rmtree(self.site.server / "backups/database/hot", ignore_errors=True)

    def losses(self, record: Path) -> load.Losses:
        return load.compare(record, dsn=self.site.dsn(), files=self.site.files)

    def nothing_lost(self, record: Path) -> None:
        found = self.losses(record)
        assert (found.rows_lost, found.files_lost) == (0, 0), found


@pytest.fixture(scope="module")
def shell(staging_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A platform whose WAL is received, with one recovery point of everything."""
    # What a test has damaged must not be in the newest point before it is looked at.
    own = {"keep.files_seconds": 3600, "keep.on_change_seconds": 3600, "vault.s3.prefix": PREFIX}
    settings_file.change(staging_site.settings_path, own | settings_file.QUICK_CHECKS)
    shell = Shell(staging_site, tmp_path_factory.mktemp("outside"))
    staging_site.stack.start(["wal-receiver"])
    for asset in ("config", "files", "models", "database"):
        shell.run("backup", asset)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in staging_site.environment().items():
            patch.setenv(name, value)
        yield shell


def rungs(record: dict) -> dict[str, str]:
    return {rung["rung"]: rung["outcome"] for rung in record["rungs"]}


def rows(site: Site, text: str) -> list[tuple]:
    with psycopg.connect(site.dsn()) as connection:
        return connection.execute(text).fetchall()


def inodes(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_ino
        for path in root.rglob("*")
        if path.is_file()
    }


# --- which scenario it is -------------------------------------------------------------------


def test_what_is_wrong_is_told_with_the_command_that_cures_it(shell: Shell) -> None:
    assert "nothing is wrong" in shell.run("diagnose").stdout
    shell.site.stack.stop(["backend"])
    [stopped] = json.loads(shell.run("diagnose", "--json", ok=4).stdout)["cures"]
    assert stopped["scenario"] == "services stopped"
    assert "backend" in stopped["evidence"]
    shell.site.stack.start(["backend"])

    faults.break_site(shell.site, "kill-database")
    faults.break_site(shell.site, "corrupt-models")
    told = json.loads(shell.run("diagnose", "--json", ok=4).stdout)
    assert [cure["command"] for cure in told["cures"]] == [
        "lifeboat recover database",
        "lifeboat recover models",
    ]
    assert "does not answer" in told["cures"][0]["evidence"]
    assert "missing or damaged, first" in told["cures"][1]["evidence"]
    # In this order; that the models are still bad is no reason to call it recovered.
    shell.run("recover", "database", "--approve", PLATFORM, ok=4)
    shell.recover("models")
    assert json.loads(shell.run("diagnose", "--json").stdout)["good"]


# --- scenario 1: the database ---------------------------------------------------------------


def test_what_is_configured_can_be_reached(shell: Shell) -> None:
    told = json.loads(shell.run("check", "--json").stdout)
    assert told["good"], told
    before = {path.name for path in shell.site.server.glob("*/*")}
    wrong = shell.run("check", "--json", ok=3, LIFEBOAT_VAULT_PASSWORD="wrong")
    failed = [c["name"] for c in json.loads(wrong.stdout)["checks"] if c["status"] != "PASS"]
    assert failed == ["vault-password"]
    assert {path.name for path in shell.site.server.glob("*/*")} == before


def test_a_healthy_database_is_left_alone(shell: Shell) -> None:
    done = shell.run("recover", "database", "--approve", PLATFORM, ok=3)
    assert "Nothing was touched" in done.stderr


@pytest.mark.parametrize("approve", [(), ("--approve", "another-platform")])
def test_without_approval_nothing_is_touched(shell: Shell, approve: tuple[str, ...]) -> None:
    done = shell.run("recover", "database", "--from", "local", *approve, ok=7)
    assert "Nothing was touched" in done.stderr
    assert rows(shell.site, "SELECT 1") == [(1,)]


def test_a_dry_run_shows_the_plan_and_touches_nothing(shell: Shell) -> None:
    before = sorted(path.name for path in (shell.site.server / "data").iterdir())
    plan = json.loads(
        shell.run("recover", "database", "--from", "s3", "--dry-run", "--json").stdout
    )
    assert plan["platform"] == PLATFORM
    assert [point["asset"] for point in plan["points"]] == ["database"]
    assert plan["expected_loss"]
    assert sorted(path.name for path in (shell.site.server / "data").iterdir()) == before
    assert rows(shell.site, "SELECT 1") == [(1,)]


def test_a_killed_database_is_started_again(shell: Shell) -> None:
    record = shell.write()
    faults.break_site(shell.site, "kill-database")
    assert shell.run("verify", "--json", ok=4)
    told = shell.recover("database")
    assert rungs(told) == {"restart": "done"}
    shell.nothing_lost(record)


def test_garbage_in_a_table_is_found_after_the_restart_and_the_hot_copy_takes_its_place(
    shell: Shell,
) -> None:
    record = shell.write()
    faults.break_site(shell.site, "overwrite-pages", seed=3)
    told = shell.recover("database")
    assert rungs(told) == {"restart": "failed", "hot": "done"}
    assert {service.state for service in shell.site.status()} == {"running"}, "all of them again"
    [aside] = [moved["where"] for moved in told["moved_aside"]]
    assert (Path(aside) / "PG_VERSION").exists(), "the damaged directory is kept"
    shell.nothing_lost(record)


@pytest.mark.parametrize("source", ["local", "s3"])
def test_no_acknowledged_row_is_lost_with_the_data_directory(shell: Shell, source: str) -> None:
    record = shell.write()
    shell.without_hot_copy()
    faults.break_site(shell.site, "destroy-data-directory")
    told = shell.recover("database", "--from", source)
    assert rungs(told).get(source) == "done", told["rungs"]
    assert told["facts"]["wal"] == "synchronous"
    shell.nothing_lost(record)
    found = json.loads(shell.run("points", "--json").stdout)
    [verified] = [p for p in found if p["id"] in told["points"]]
    assert verified["verified_at"]


def test_a_dropped_table_comes_back_from_before_it_was_dropped(shell: Shell) -> None:
    shell.run("backup", "database")
    kept = shell.write()
    before = rows(shell.site, "SELECT count(*) FROM drawing_index")
    moment = datetime.now(timezone.utc).isoformat()
    time.sleep(0.2)
    faults.break_site(shell.site, "drop-table")
    told = shell.recover("database", "--to-time", moment)
    assert rungs(told)["restart"] == "skipped"
    assert rows(shell.site, "SELECT count(*) FROM drawing_index") >= before
    shell.nothing_lost(kept)


def test_a_moment_after_the_last_commit_is_the_end_of_the_log(shell: Shell) -> None:
    """PostgreSQL itself refuses it: it saw no commit by which it would know that it is there."""
    kept = shell.write(0.5)
    shell.site.stack.stop(["celery-worker", "ai-service", "backend"])
    time.sleep(1.0)
    moment = datetime.now(timezone.utc).isoformat()
    done = shell.run(
        *("recover", "database", "--from", "local", "--to-time", moment),
        *("--approve", PLATFORM, "--json"),
    )
    assert "Nothing was committed after" in done.stderr
    assert "done" in rungs(json.loads(done.stdout)).values()
    shell.nothing_lost(kept)


def test_after_a_set_back_the_next_recovery_follows_the_new_history(shell: Shell) -> None:
    record = shell.write()
    faults.break_site(shell.site, "destroy-data-directory")
    shell.recover("database")
    shell.nothing_lost(record)


def test_a_moment_before_the_first_base_is_refused(shell: Shell) -> None:
    words = ("recover", "database", "--to-time", "2020-01-01T00:00:00Z", "--approve", PLATFORM)
    done = shell.run(*words, ok=3)
    assert "first one was taken at" in done.stderr
    shell.run("recover", "database", "--to-time", "yesterday", ok=2)


def test_a_second_recovery_is_refused_while_one_runs(shell: Shell) -> None:
    settings = load_settings(shell.site.settings_path)
    with locks.recovery_lock(settings, run="recover-files-of-somebody"):
        done = shell.run("recover", "models", "--approve", PLATFORM, ok=6)
        assert "recover-files-of-somebody" in done.stderr
        assert shell.run("backup", "files", ok=6)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(
    "step", ["bring base", "stage recovery", "move into place", "replay", "start services"]
)
def test_an_interrupted_recovery_loses_nothing_and_the_next_one_ends_it(
    shell: Shell, sig: signal.Signals, step: str
) -> None:
    record = shell.write(1.0)
    faults.break_site(shell.site, "destroy-data-directory")
    words = ("recover", "database", "--from", "local", "--approve", PLATFORM)
    assert shell.cut_short(step, *words, sig=sig) == (130 if sig == signal.SIGINT else -9)
    if not postgres_runs(shell):
        done = shell.run("recover", "database", "--from", "local", "--approve", PLATFORM)
        if sig == signal.SIGKILL:
            assert "was interrupted" in done.stderr
    else:
        # The database is well by now, and the application is not: the same words end it.
        shell.recover("database")
        assert not [s.name for s in shell.site.status() if s.name in CRITICAL and not s.pid]
    shell.nothing_lost(record)


@pytest.mark.parametrize("rung", ["restart", "local"])
def test_after_a_recovery_that_died_before_its_slot_the_wal_has_no_hole(
    shell: Shell, rung: str
) -> None:
    """What the recovered server writes until the next recovery is kept for it.

    That one starts the server again, or finds it damaged too, and what it wrote in its own log.
    """
    shell.run("backup", "database")
    shell.site.stack.stop(["wal-receiver", "keeper"])
    faults.break_site(shell.site, "destroy-data-directory")
    manager = psutil.Process(int((shell.site.server / "run/supervisord.pid").read_text()))
    child = shell.start("recover", "database", "--from", "local", "--approve", PLATFORM)
    assert child.stderr
    try:
        for line in child.stderr:
            if "bring-base ..." in line:
                manager.suspend()  # or the recovery might be over before it is killed
            if "replay ..." in line:
                child.kill()
                break
        child.communicate(timeout=60)
    finally:
        manager.resume()
    shell.site.stack.start(["postgres"])  # as the host does when it comes up again
    settings = load_settings(shell.site.settings_path)
    postgres.wait_until_ready(database.connection(settings), timeout_seconds=60)
    assert rows(shell.site, "SELECT count(*) FROM pg_replication_slots") == [(0,)]
    fill = "CREATE TABLE x AS SELECT repeat('x', 1000) FROM generate_series(1, 40000)"
    with psycopg.connect(shell.site.dsn("postgres"), autocommit=True) as connection:
        for _ in range(3):
            for statement in (fill, "DROP TABLE x", "SELECT pg_switch_wal()", "CHECKPOINT"):
                connection.execute(statement)
        connection.execute("CREATE TABLE written_meanwhile AS SELECT 1")
    if rung == "restart":
        # The database is well by now, and the application is not: the same command ends it.
        resumed = shell.recover("database")
    else:
        shell.site.stack.stop(["postgres"])
        (shell.site.database_directory / "global/pg_control").unlink()
        resumed = shell.recover("database", "--from", "local")
    assert rungs(resumed)[rung] == "done"
    with psycopg.connect(shell.site.dsn("postgres"), autocommit=True) as connection:
        connection.execute("DROP TABLE written_meanwhile")
    assert rows(shell.site, "SHOW wal_keep_size") == [("0",)], "the slot keeps it now"
    reaches = wal_continuity.look(settings, Tier.LOCAL).reaches
    assert len(reaches) > 1, "with bases from before the recovery"
    assert all(reach.whole for reach in reaches if reach.leads_to_newest), reaches
    assert not wal_continuity.look(settings, Tier.LOCAL).foreign, "its history is there too"
    record = shell.write(1.0)
    faults.break_site(shell.site, "destroy-data-directory")
    shell.recover("database", "--from", "local")
    shell.nothing_lost(record)


def test_the_hot_copy_that_a_dead_recovery_had_taken_serves_the_next_one(shell: Shell) -> None:
    shell.run("backup", "database")
    record = shell.write()
    faults.break_site(shell.site, "destroy-data-directory")
    shell.cut_short("collect wal", "recover", "database", "--approve", PLATFORM)
    beside = shell.site.database_directory.parent
    assert list(beside.glob("postgres.incoming-*"))
    assert not list((shell.site.server / "backups/database/hot").glob("database-*/base"))
    plan = json.loads(shell.run("recover", "database", "--dry-run", "--json").stdout)
    assert any("hot: no recovery point" in step for step in plan["steps"]), "nothing is touched"

    done = shell.run("recover", "database", "--approve", PLATFORM, "--json")
    assert "put back as the hot copy" in done.stderr
    assert rungs(json.loads(done.stdout))["hot"] == "done"
    shell.nothing_lost(record)
    shell.run("backup", "database")
    assert not list(beside.glob("postgres.incoming-*")), "its scratch goes with the next backup"
    assert "was interrupted" not in shell.run("backup", "database").stderr


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_while_services_stop_the_hot_copy_is_where_it_was(
    shell: Shell, sig: signal.Signals
) -> None:
    shell.run("backup", "database")
    record = shell.write(1.0)
    faults.break_site(shell.site, "destroy-data-directory")
    manager = psutil.Process(int((shell.site.server / "run/supervisord.pid").read_text()))
    child = shell.start("recover", "database", "--approve", PLATFORM)
    assert child.stderr
    try:
        for line in child.stderr:
            if "stop services ..." in line:
                manager.suspend()  # or they might have stopped before it is killed
            if "prove hot copy ..." in line:
                child.send_signal(sig)
                break
    finally:
        manager.resume()
    child.communicate(timeout=60)
    assert child.returncode == (130 if sig == signal.SIGINT else -9)
    assert list((shell.site.server / "backups/database/hot").glob("database-*/base"))
    assert not list(shell.site.database_directory.parent.glob("postgres.incoming-*"))
    assert rungs(shell.recover("database"))["hot"] == "done"
    shell.nothing_lost(record)


def postgres_runs(shell: Shell) -> bool:
    return any(s.name == "postgres" and s.pid for s in shell.site.status())


def test_a_hole_in_the_wal_is_named_and_nothing_is_replaced(shell: Shell) -> None:
    shell.run("backup", "database")
    for _ in range(2):
        with psycopg.connect(shell.site.dsn("postgres"), autocommit=True) as connection:
            connection.execute("CREATE TABLE x AS SELECT 1; DROP TABLE x")
            [(name,)] = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchall()
    shell.run("wal", "ship")
    local = shell.site.server / "backups/database/wal"
    hole = sorted(path for path in local.glob("*/*/*") if path.name == name)
    assert len(hole) == 1
    system, timeline = hole[0].parent.parent.name, name[:8]
    hole[0].unlink()
    settings = load_settings(shell.site.settings_path)
    from tasks import places

    key = f"database/wal/{system}/{timeline}/{name}.zst.age"
    sealed = places.bucket(settings).get(key)
    places.bucket(settings).delete([key])
    with psycopg.connect(shell.site.dsn("postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE x AS SELECT 1; DROP TABLE x")
        connection.execute("SELECT pg_switch_wal()")
    faults.break_site(shell.site, "destroy-data-directory")
    for aside in shell.site.database_directory.parent.glob("postgres.*"):
        shutil.rmtree(aside)
    done = shell.run("recover", "database", "--approve", PLATFORM, ok=5)
    assert name in done.stderr
    assert not shell.site.database_directory.exists(), "nothing half recovered is in place"
    places.bucket(settings).put(key, sealed)
    shell.recover("database")


@pytest.mark.parametrize("killed", [False, True])
def test_a_segment_that_is_damaged_here_ends_two_rungs_and_the_bucket_has_it_whole(
    shell: Shell, killed: bool
) -> None:
    """Each rung puts its base in place, stops short, and leaves the place to the next one.

    Killed after the first, a database that answers has lost what the damage hides: to start it
    again is no cure.
    """
    shell.site.stack.stop(["keeper"])  # which would make a base from after the damage
    shell.run("backup", "database")
    local = shell.site.server / "backups/database/wal"
    with psycopg.connect(shell.site.dsn("postgres"), autocommit=True) as connection:
        for _ in range(3):
            connection.execute("CREATE TABLE x AS SELECT 1; DROP TABLE x")
            [(name,)] = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchall()
            wait_for(lambda name=name: any(local.glob(f"*/*/{name}")), f"{name} is received")
    record = shell.write()
    shell.run("wal", "ship")
    damaged = sorted(path for path in local.glob("*/*/*") if path.name < name)[-1]
    # All but the header of its first page: a segment that was switched has little more.
    damaged.write_bytes(damaged.read_bytes()[:40].ljust(16 << 20, b"\0"))
    faults.break_site(shell.site, "destroy-data-directory")

    if killed:
        shell.cut_short("take away", "recover", "database", "--approve", PLATFORM)
    found = shell.recover("database")
    first = {"restart": "failed", "hot": "skipped"} if killed else {"restart": "skipped"}
    assert rungs(found) == {"hot": "failed", "local": "failed", "s3": "done"} | first
    reasons = [rung["reason"] for rung in found["rungs"] if rung["outcome"] == "failed"]
    assert len(reasons) == 2
    assert all("it ended at" in reason for reason in reasons)
    shell.nothing_lost(record)
    beside = shell.site.database_directory.parent
    assert list(beside.glob(f"postgres.failed-local-{found['id']}"))
    assert not list(beside.glob(f"postgres.incoming-{found['id']}*"))
    shell.run("backup", "database")


def test_killed_on_its_way_to_a_moment_it_does_not_end_there_when_the_newest_is_wanted(
    shell: Shell,
) -> None:
    shell.site.stack.stop(["keeper"])
    shell.run("backup", "database")
    before = shell.write(1.0)
    moment = datetime.now(timezone.utc).isoformat()
    after = shell.write(1.0)
    words = ("recover", "database", "--to-time", moment, "--approve", PLATFORM)
    shell.cut_short("replay", *words)
    found = shell.recover("database")
    assert rungs(found)["restart"] == "failed"
    assert any("had set it back to" in rung["reason"] for rung in found["rungs"])
    shell.nothing_lost(before)
    shell.nothing_lost(after)


def test_a_data_directory_that_can_not_be_replaced_keeps_services_and_hot_copy(
    shell: Shell,
) -> None:
    shell.run("backup", "database")
    data = shell.site.database_directory
    elsewhere = data.with_name("elsewhere")
    shell.site.stack.stop(["postgres"])
    data.rename(elsewhere)
    data.symlink_to(elsewhere)
    shell.site.stack.start(["postgres"])
    try:
        done = shell.run("recover", "database", *("--from", "local"), "--approve", PLATFORM, ok=5)
        assert "is a symbolic link" in done.stderr
        assert "stop services ..." not in done.stderr
        assert all(status.pid for status in shell.site.status() if status.name in CRITICAL)
        assert list((shell.site.server / "backups/database/hot").glob("database-*/base"))
        assert not list(data.parent.glob("postgres.incoming-*"))
        assert "is a symbolic link" in shell.run("check", "--json", ok=3).stdout
    finally:
        shell.site.stack.stop(["postgres"])
        data.unlink()
        elsewhere.rename(data)
        shell.site.stack.start(["postgres"])


def test_what_was_deferred_and_does_not_start_undoes_no_recovery(shell: Shell) -> None:
    shell.run("backup", "database")
    shell.site.stack.stop(["metrics"])
    with socket.create_server(("127.0.0.1", shell.site.ports.metrics)):  # so that it can't
        found = shell.recover("database", "--from", "local")
        running = {status.name for status in shell.site.status() if status.pid}
    assert "metrics" in found["facts"]["deferred_services_down"]
    assert {*CRITICAL, "wal-receiver", "keeper"} <= running, "backups go on"
    shell.site.stack.start(["metrics"])


@pytest.mark.parametrize("by", ["verify", "recover files"])
def test_after_a_red_recovery_a_green_verification_starts_what_was_left_stopped(
    shell: Shell, by: str
) -> None:
    for asset in ("files", "database"):
        shell.run("backup", asset)
    file = next(path for path in sorted(shell.site.files.rglob("*")) if path.is_file())
    away = shell.outside / f"{by}-{file.name}"
    shutil.move(file, away)

    def stopped() -> set[str]:
        return {status.name for status in shell.site.status() if not status.pid}

    try:
        red = shell.run("recover", "database", "--from", "local", "--approve", PLATFORM, ok=4)
        assert "stay stopped until `lifeboat verify` has passed" in red.stderr
        assert {"keeper", "metrics"} <= stopped()
        shell.run("verify", ok=4)
        assert {"keeper", "metrics"} <= stopped(), "nothing is proven yet"
        if by == "verify":
            shutil.move(away, file)
            green = shell.run("verify")
        else:
            green = shell.run("recover", "files", "--approve", PLATFORM)
    finally:
        if away.exists() and not file.exists():
            shutil.move(away, file)
    assert "did not end well; what it had left stopped is started" in green.stderr
    assert not stopped()
    shell.site.stack.stop(["metrics"])
    shell.run("verify")
    assert stopped() == {"metrics"}, "what people stop stays so"
    shell.site.stack.start(["metrics"])


# --- scenario 3: files ----------------------------------------------------------------------


@pytest.mark.parametrize("source", ["local", "s3"])
def test_only_damaged_files_are_rewritten_and_each_is_named(shell: Shell, source: str) -> None:
    shell.run("backup", "files")
    before = inodes(shell.site.files)
    whole = {name: (shell.site.files / name).read_bytes() for name in before}
    done = faults.break_site(shell.site, "damage-files", seed=5)
    told = shell.recover("files", "--from", source)
    assert {name: (shell.site.files / name).read_bytes() for name in before} == whole
    document = shell.site.server / "backups/records/runs" / told["id"] / "damage.json"
    [damage] = json.loads(document.read_text())
    found = {*damage["missing"], *damage["truncated"], *damage["altered"]}
    assert found == set(done.names)
    after = inodes(shell.site.files)
    untouched = set(before) - found
    assert {n: after[n] for n in untouched} == {n: before[n] for n in untouched}
    [aside] = [Path(moved["where"]) for moved in told["moved_aside"]]
    assert {*damage["truncated"], *damage["altered"]} == set(inodes(aside))


def test_what_was_backed_up_damaged_comes_from_the_point_that_has_it_whole(shell: Shell) -> None:
    """As when the hourly backup runs between the damage and its discovery."""
    shell.run("backup", "files")
    whole = {name: (shell.site.files / name).read_bytes() for name in inodes(shell.site.files)}
    older = faults.break_site(shell.site, "damage-files", seed=6)
    there = [name for name in older.names if (shell.site.files / name).exists()]
    as_damaged = {name: (shell.site.files / name).read_bytes() for name in there}
    shell.run("backup", "files")
    newer = faults.break_site(shell.site, "damage-files", seed=7)
    only_older = sorted(set(older.names) - set(newer.names))
    assert only_older and newer.names

    plan = json.loads(shell.run("recover", "files", "--dry-run", "--json").stdout)
    assert f"{len(only_older)} that files-" in plan["symptoms"]
    told = shell.recover("files")
    record = shell.site.server / "backups/records/runs" / told["id"]
    found = set(json.loads((record / "from-other-points.json").read_text()))
    assert set(only_older) <= found <= set(older.names)
    assert {n: (shell.site.files / n).read_bytes() for n in whole} == whole
    [aside] = {Path(moved["where"]) for moved in told["moved_aside"]}
    for name in set(there) & set(only_older):
        assert (aside / name).read_bytes() == as_damaged[name]
    assert not list(shell.site.files.parent.glob("*.found-*")), "no scratch is left"


def test_a_file_that_no_point_has_whole_is_a_loss_that_is_told(shell: Shell) -> None:
    shell.run("backup", "files")
    [(path,)] = rows(shell.site, "SELECT path FROM drawings ORDER BY id DESC LIMIT 1")
    shell.run("recover", "files", "--approve", PLATFORM, ok=3)
    with psycopg.connect(shell.site.dsn(), autocommit=True) as connection:
        old = connection.execute(
            "SELECT sha256 FROM drawings WHERE path = %s LIMIT 1", [path]
        ).fetchone()[0]
        connection.execute("UPDATE drawings SET sha256 = %s WHERE path = %s", ["0" * 64, path])
        try:
            told = shell.recover("files")
            assert told["facts"]["files_lost"] == 1
            assert told["facts"]["files_from_other_points"] == 0
        finally:
            connection.execute("UPDATE drawings SET sha256 = %s WHERE path = %s", [old, path])
            (shell.site.server / "backups/records/known-losses.jsonl").unlink()


def test_a_day_before_the_first_point_is_refused(shell: Shell) -> None:
    words = ("recover", "files", "--date", "2020-01-01", "--approve", PLATFORM)
    assert "first one was taken at" in shell.run(*words, ok=3).stderr
    assert "there and whole" in shell.run("recover", "files", "--approve", PLATFORM, ok=3).stderr


# --- scenario 4: models ---------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["delete-models", "corrupt-models"])
def test_models_come_back_and_answer(shell: Shell, fault: str) -> None:
    whole = {p.name: p.read_bytes() for p in shell.site.models.iterdir()}
    faults.break_site(shell.site, fault)
    shell.recover("models", "--from", "s3" if fault == "delete-models" else "local")
    assert {p.name: p.read_bytes() for p in shell.site.models.iterdir()} == whole


def test_models_that_were_backed_up_corrupt_come_from_the_point_that_is_named(shell: Shell) -> None:
    shell.run("backup", "models")
    whole = {p.name: p.read_bytes() for p in shell.site.models.iterdir()}
    broken = faults.break_site(shell.site, "corrupt-models")
    shell.run("backup", "models")
    done = shell.run("recover", "models", "--approve", PLATFORM, ok=3)
    named = re.search(r"since (models-\S+) (.+) changed or went; .*--point \1", done.stderr)
    assert named and set(named[2].split(", ")) == set(broken.names), done.stderr
    shell.recover("models", "--point", named[1])
    assert {p.name: p.read_bytes() for p in shell.site.models.iterdir()} == whole
    absent = ("--point", "models-20200101T000000Z")
    assert "no such point" in shell.run("recover", "models", *absent, ok=3).stderr
    shell.run("recover", "models", "--point", named[1], "--date", "2026-01-01", ok=2)
    shell.run("backup", "models")


def test_the_same_recovery_runs_under_prefect(shell: Shell, tmp_path: Path) -> None:
    """With a server of its own, on a home that never saw one."""
    home = {"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    faults.break_site(shell.site, "delete-models")
    plain = shell.run("recover", "models", "--dry-run", "--json", **home)
    assert "going on without it" in plain.stderr, "a dead server stops nothing"
    del home["PREFECT_API_URL"]
    words = ("recover", "models", "--with-prefect", "--json")
    plan = json.loads(shell.run(*words, "--dry-run", **home).stdout)
    assert plan["procedure"] == "recover-models"
    told = json.loads(shell.run(*words, "--approve", PLATFORM, **home).stdout)
    assert told["facts"]["orchestrator"] == "prefect"
    with sqlite3.connect(tmp_path / "prefect.db") as database:
        states = database.execute(
            "SELECT f.name, r.state_name FROM flow_run r JOIN flow f ON f.id = r.flow_id"
            " ORDER BY r.created"
        ).fetchall()
    assert states == [("recover-models", "DryRun"), ("recover-models", "Completed")]


# --- scenario 2: the server; last, because it takes everything away --------------------------


def test_the_server_comes_back_from_the_bucket_and_one_secret(shell: Shell, tmp_path: Path) -> None:
    site = shell.site
    record = shell.write()
    for asset in ("files", "database", "config"):
        shell.run("backup", asset)
    shell.run("wal", "ship")
    after = shell.write(1.0)
    s3 = load_settings(site.settings_path).vault.s3
    faults.break_site(site, "lose-server")
    assert not site.server.exists()
    place = ("--bucket", s3.bucket, "--endpoint", s3.endpoint, "--prefix", PREFIX)
    where = (*place, "--into", str(site.server))
    no_config = {"LIFEBOAT_CONFIG": "/nonexistent"}

    wrong = {"LIFEBOAT_VAULT_PASSWORD": "wrong"}
    assert "password" in shell.run("recover", "server", *where, ok=3, **no_config, **wrong).stderr
    elsewhere = ("--bucket", "no-such-bucket", *where[2:])
    assert "no-such-bucket" in shell.run("recover", "server", *elsewhere, ok=3, **no_config).stderr
    assert shell.run("recover", "server", *where, "--approve", "other", ok=3, **no_config)
    assert not site.server.exists(), "a refusal leaves nothing behind"
    full = ("--into", str(tmp_path))
    (tmp_path / "somebody's").write_text("file")
    refused = shell.run(
        "recover", "server", *place, *full, "--approve", PLATFORM, ok=3, **no_config
    )
    assert "not empty" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["somebody's"]

    # Cut short when everything runs already: the next one does not replace it under its feet.
    approved = ("recover", "server", *where, "--approve", PLATFORM)
    shell.cut_short("verify", *approved, **no_config)
    assert postgres_runs(shell)
    drawing = next(path for path in sorted(site.files.rglob("*")) if path.is_file())
    drawing.write_text("what a user made of it meanwhile")
    nginx = site.server / "config/nginx/nginx.prod.conf"
    corrected = f"{nginx.read_text()}# corrected by hand\n"
    nginx.write_text(corrected)
    with locks.recovery_lock(load_settings(site.settings_path), run="of-somebody"):
        shell.run(*approved, "--rehearsal", ok=6, **no_config)
    assert not (site.server / "backups/rehearsal-only").exists(), "it would stop all backups"
    done = shell.run(*approved, "--json", **no_config)
    told = json.loads(done.stdout)
    [copy] = site.server.glob("configuration.damaged-*/config/nginx/nginx.prod.conf")
    assert copy.read_text() == corrected
    assert str(copy) in [moved["where"] for moved in told["moved_aside"]]
    assert "corrected by hand" not in nginx.read_text()
    [aside] = site.files.parent.glob(f"{site.files.name}.damaged-*")
    kept = aside / drawing.relative_to(site.files)
    assert kept.read_text() == "what a user made of it meanwhile", "it is nobody's to overwrite"
    assert str(aside) in [moved["where"] for moved in told["moved_aside"]]
    assert {rung["outcome"] for rung in told["rungs"]} == {"done"}, told["rungs"]
    assert told["verdict"]["checks"]
    assert {c["status"] for c in told["verdict"]["checks"]} == {"PASS"}
    shell.nothing_lost(record)
    found = shell.losses(after)
    assert found.newest_acknowledged_at is not None
    assert not (site.server / "backups/recovered-but-not-verified").exists()
    assert (site.server / "app" / "cad_platform").is_dir()
    shell.run("verify")
    shell.run("backup", "files")


def test_the_server_comes_back_though_a_thief_destroyed_the_bucket_too(shell: Shell) -> None:
    site = shell.site
    record = shell.write()
    for asset in ("files", "database", "config"):
        shell.run("backup", asset)
    shell.run("wal", "ship")
    s3 = load_settings(site.settings_path).vault.s3
    from tasks import places

    bucket = places.bucket(load_settings(site.settings_path))
    faults.break_site(site, "lose-server")
    before = {item.key for item in bucket.list() if "/locks/" not in item.key}
    poll_next_second()
    bucket.delete([item.key for item in bucket.list()])
    where = ("--bucket", s3.bucket, "--endpoint", s3.endpoint, "--prefix", PREFIX)
    no_config = {"LIFEBOAT_CONFIG": "/nonexistent"}
    nothing = ("recover", "server", *where, "--into", str(site.server))
    assert "no repository" in shell.run(*nothing, ok=3, **no_config).stderr
    done = shell.run("recover", "bucket", *where, "--approve", s3.bucket, **no_config)
    gone = before - {item.key for item in bucket.list()}
    # A mark that is younger than the first loss may be the thief's: it is left out, and told.
    assert not {key for key in gone if form_of(key).never_changes}, done.stderr
    assert "are set back to that moment" in done.stderr or not gone
    done = shell.run(*nothing, "--approve", PLATFORM, "--json", **no_config)
    checks = json.loads(done.stdout)["verdict"]["checks"]
    assert {check["status"] for check in checks} == {"PASS"}
    shell.nothing_lost(record)


def poll_next_second() -> None:
    """Stores tell the time of a version in whole seconds."""
    begun = int(time.time())
    while int(time.time()) <= begun + 1:
        time.sleep(0.02)
