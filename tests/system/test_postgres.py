"""PostgreSQL's tools on a real server: copies proven, WAL salvaged, damage found, ends known."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from lifeboat.core.errors import (
    PermanentError,
    PreconditionError,
    TransientError,
    VerificationFailed,
)
from lifeboat.core.wal import Segment, parse_lsn
from lifeboat.tools import postgres, process
from staging.ports import choose_ports
from staging.site import postgres_bin

pytestmark = [pytest.mark.system]

PAGE = 8192


class Cluster:
    """A server of our own, with the superuser's rights."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        self.password = secrets.token_hex(8)
        self._daemon: process.Daemon | None = None

    def make(self) -> None:
        password = self.directory.with_name("password")
        password.write_text(self.password)
        process.run(
            process.unprivileged(
                [
                    *(postgres_bin() / "initdb", "--pgdata", self.directory, "--no-sync"),
                    *("--username", "admin", "--pwfile", password, "--auth", "scram-sha-256"),
                    *("--locale", "C", "--encoding", "UTF8"),
                ]
            ),
            doing="Making a cluster",
        )
        with (self.directory / "postgresql.conf").open("a") as file:
            file.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n"
                "unix_socket_directories = ''\nshared_buffers = 16MB\nmax_wal_size = 1GB\n"
                "dynamic_shared_memory_type = mmap\nautovacuum = off\n"
            )

    def start(self, *, wait: bool = True) -> None:
        self._daemon = process.start(
            process.unprivileged([postgres_bin() / "postgres", "-D", self.directory]),
            doing="Starting it",
            log_path=self.directory.with_name("log"),
        )
        if wait:
            postgres.wait_until_ready(
                self.server, timeout_seconds=30, why_not=lambda: None if self.alive else "gone"
            )

    @property
    def alive(self) -> bool:
        return self._daemon is not None and self._daemon.alive

    def stop(self, sig: int = signal.SIGINT) -> None:
        if self._daemon is not None:
            self._daemon.stop(sig=sig, grace_seconds=20)
            self._daemon = None

    @property
    def server(self) -> postgres.Connection:
        return postgres.Connection(
            host="127.0.0.1",
            port=self.port,
            user="admin",
            password=self.password,
            database="postgres",
            bin_directory=postgres_bin(),
        )

    def execute(self, text: str) -> list:
        return postgres.query(self.server, text)

    def path_of(self, relation: str) -> Path:
        self.execute("CHECKPOINT")
        return self.directory / self.execute(f"SELECT pg_relation_filepath('{relation}')")[0][0]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    cluster = Cluster(tmp_path_factory.mktemp("template") / "data", choose_ports().postgres)
    cluster.make()
    cluster.start()
    cluster.execute("CREATE TABLE t (id int PRIMARY KEY, filler text)")
    cluster.execute("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n")
    cluster.execute("CREATE EXTENSION amcheck")
    cluster.stop()
    return cluster


@pytest.fixture
def cluster(template: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    copy = Cluster(tmp_path / "data", template.port)
    copy.password = template.password
    shutil.copytree(template.directory, copy.directory)
    copy.start()
    yield copy
    copy.stop(signal.SIGQUIT)


@pytest.fixture
def base(cluster: Cluster, tmp_path: Path) -> tuple[Path, postgres.BaseBackup]:
    directory = tmp_path / "base"
    return directory, postgres.base_backup(cluster.server, directory, label="test")


def test_a_copy_says_what_it_is(cluster, base) -> None:
    directory, told = base
    identity = postgres.identify(cluster.server)
    assert told.timeline == identity.timeline == 1
    assert parse_lsn(told.start_lsn) < parse_lsn(told.stop_lsn)
    assert told.started_at < told.stopped_at
    assert postgres.row_counts(cluster.server) == {"public.t": 2000}
    postgres.verify_backup(directory, postgres_bin())


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "no manifest"])
def test_a_damaged_copy_is_refused(cluster, base, harm: str) -> None:
    directory, _ = base
    victim = directory / cluster.path_of("t").relative_to(cluster.directory)
    if harm == "flip":
        data = bytearray(victim.read_bytes())
        data[4321] ^= 1
        victim.write_bytes(data)
    elif harm == "truncate":
        os.truncate(victim, PAGE)
    elif harm == "delete":
        victim.unlink()
    else:
        (directory / "backup_manifest").unlink()
    with pytest.raises(VerificationFailed):
        postgres.verify_backup(directory, postgres_bin())


@pytest.mark.parametrize("relation", ["t", "t_pkey", "pg_toast.pg_toast_2618"])
@pytest.mark.parametrize("content", ["bit", "garbage"])
def test_a_damaged_page_is_found_in_table_index_and_toast(cluster, relation, content) -> None:
    """Garbage may look newer than the reading, which pg_basebackup then passes over."""
    postgres.read_every_block(cluster.server)
    path = cluster.path_of(relation)
    cluster.stop(signal.SIGQUIT)
    with path.open("r+b") as file:
        file.seek(PAGE + (100 if content == "bit" else 0))
        if content == "bit":
            (byte,) = file.read(1)
            file.seek(PAGE + 100)
            file.write(bytes([byte ^ 1]))
        else:
            # Its LSN, the first eight bytes, lies in the far future.
            file.write(b"\xff" * 8 + random.Random(1).randbytes(PAGE - 8))
    cluster.start()
    with pytest.raises(VerificationFailed):
        postgres.read_every_block(cluster.server)


def test_programs_of_another_major_version_are_refused(cluster, tmp_path) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "pg_basebackup"
    program.write_text("#!/bin/sh\necho 'pg_basebackup (PostgreSQL) 15.4'\n")
    program.chmod(0o755 | stat.S_IXUSR)
    other = postgres.Connection(**{**vars(cluster.server), "bin_directory": directory})
    with pytest.raises(PreconditionError, match=r"server is PostgreSQL 18.*of PostgreSQL 15"):
        postgres.require_same_major(other)


def test_errors_are_told_apart(cluster) -> None:
    with pytest.raises(PermanentError, match="does not exist"):
        cluster.execute("SELECT * FROM nothing")
    wrong = postgres.Connection(**{**vars(cluster.server), "password": "wrong"})
    with pytest.raises(PreconditionError, match="LIFEBOAT_DATABASE_PASSWORD"):
        postgres.query(wrong, "SELECT 1")
    dead = postgres.Connection(**{**vars(cluster.server), "port": 9})
    with pytest.raises(TransientError, match="does not answer"):
        postgres.query(dead, "SELECT 1")
    assert not postgres.answers(dead)
    with pytest.raises(PermanentError, match="it ended"):
        postgres.wait_until_ready(dead, timeout_seconds=5, why_not=lambda: "no such process")


def test_a_tablespace_is_refused_before_anything_is_copied(cluster, tmp_path) -> None:
    place = tmp_path / "space"
    place.mkdir()
    os.chown(place, *_owner(cluster.directory))
    cluster.execute(f"CREATE TABLESPACE far LOCATION '{place}'")
    with pytest.raises(PreconditionError, match="1 tablespaces"):
        postgres.base_backup(cluster.server, tmp_path / "copy", label="x")
    assert not (tmp_path / "copy").exists()


def _owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_the_wal_of_a_killed_server_is_salvaged_to_its_last_row(cluster, base, tmp_path) -> None:
    directory, told = base
    identity = postgres.identify(cluster.server)
    cluster.execute("INSERT INTO t VALUES (1000000, 'the last row')")
    cluster.stop(signal.SIGQUIT)
    size = identity.wal_segment_bytes
    salvaged = postgres.salvage_segments(cluster.directory, identity.system_identifier, size)
    newest = max(name for name in salvaged if "." not in name)
    end = postgres.end_of_wal(salvaged[newest], newest, postgres_bin(), segment_bytes=size)
    assert end and end > parse_lsn(told.stop_lsn)

    aside = cluster.directory.with_name("damaged")
    cluster.directory.rename(aside)
    segments = {name: aside / "pg_wal" / name for name in salvaged}
    postgres.stage_recovery(
        directory, segments=segments, histories={}, target_time=None, target_timeline=1
    )
    directory.rename(cluster.directory)
    cluster.start()
    assert cluster.execute("SELECT filler FROM t WHERE id = 1000000") == [("the last row",)]
    reached = postgres.recovered_to(cluster.directory)
    assert reached.timeline == 2
    assert reached.lsn >= end
    postgres.finish_recovery(cluster.directory)
    assert "restore_command" not in (cluster.directory / "postgresql.auto.conf").read_text()
    assert postgres.keeps_all_wal(cluster.directory), "until there is a slot"
    assert cluster.execute("SHOW wal_keep_size") == [("1TB",)]
    cluster.execute("ALTER SYSTEM SET work_mem = '5MB'")
    postgres.let_go_of_wal(cluster.directory)
    postgres.reload(cluster.server)
    _until(lambda: cluster.execute("SHOW wal_keep_size") == [("0",)])
    assert cluster.execute("SHOW work_mem") == [("5MB",)]

    # Its first segment begins with pages of timeline 1, and is its own all the same.
    cluster.stop(signal.SIGQUIT)
    again = postgres.salvage_segments(cluster.directory, identity.system_identifier, size)
    assert Segment(2, reached.lsn // size).name(size) in again


def test_recycled_and_foreign_segments_are_not_salvaged(cluster) -> None:
    identity = postgres.identify(cluster.server)
    size, system = identity.wal_segment_bytes, identity.system_identifier
    pg_wal = cluster.directory / "pg_wal"
    name = max(postgres.salvage_segments(cluster.directory, system, size))
    segment = Segment.parse(name, size)
    assert segment
    recycled = Segment(segment.timeline, segment.number + 5).name(size)
    other_timeline = Segment(segment.timeline + 1, segment.number).name(size)
    shutil.copy(pg_wal / name, pg_wal / recycled)
    shutil.copy(pg_wal / name, pg_wal / other_timeline)
    (pg_wal / Segment(1, segment.number + 6).name(size)).write_bytes(b"short")
    assert max(postgres.salvage_segments(cluster.directory, system, size)) == name
    assert postgres.salvage_segments(cluster.directory, "123", size) == {}


def test_a_segment_without_a_whole_record_has_no_end(cluster, tmp_path) -> None:
    size = postgres.identify(cluster.server).wal_segment_bytes
    empty = tmp_path / "000000010000000000000099"
    empty.write_bytes(b"\0" * size)
    assert postgres.end_of_wal(empty, empty.name, postgres_bin(), segment_bytes=size) is None


def test_cluster_problems_names_what_is_missing(cluster, tmp_path) -> None:
    assert postgres.cluster_problems(cluster.directory) == ()
    assert postgres.cluster_problems(tmp_path / "none") == ("it is not there",)
    cluster.stop()
    (cluster.directory / "global/pg_control").unlink()
    shutil.rmtree(cluster.directory / "pg_wal")
    problems = postgres.cluster_problems(cluster.directory)
    assert problems == ("global/pg_control is missing", "pg_wal is missing")


def test_received_wal_lies_beside_the_slot_and_commits_wait_for_it(cluster, tmp_path) -> None:
    server = cluster.server
    postgres.ensure_slot(server, "lifeboat")
    postgres.ensure_slot(server, "lifeboat")
    directory = tmp_path / "wal" / postgres.identify(server).system_identifier / "00000001"
    directory.mkdir(parents=True)
    words = [
        *(postgres_bin() / "pg_receivewal", "--directory", directory, "--slot", "lifeboat"),
        *("--dbname", f"host=127.0.0.1 port={server.port} user=admin application_name=lifeboat"),
        *("--synchronous", "--no-loop"),
    ]
    log = tmp_path / "receiver.log"
    with process.start(words, doing="x", log_path=log, env=server.environment):
        _until(lambda: (r := postgres.receiver_of(server, "lifeboat")) and r.state == "streaming")
        postgres.set_synchronous(server, "lifeboat")
        _until(lambda: postgres.receiver_of(server, "lifeboat").synchronous)
        cluster.execute("INSERT INTO t VALUES (2000000, 'x')")
        received = postgres.collect_segments(tmp_path / "wal", directory.parent.name)
        assert any(name.endswith(".partial") for name in received)
    # Without a receiver a commit waits, until it is told not to.
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(cluster.execute, "INSERT INTO t VALUES (2000001, 'x')")
        with suppress(TimeoutError):
            waiting.result(timeout=1)
        assert not waiting.done()
        postgres.set_synchronous(server, "")
        waiting.result(timeout=10)
    _until(lambda: cluster.execute("SHOW synchronous_standby_names") == [("",)])
    cluster.execute("INSERT INTO t VALUES (2000002, 'x')")


def _until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
