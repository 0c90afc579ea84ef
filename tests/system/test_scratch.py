"""A restored database on the side: it disturbs nobody, ends for sure, and is asked the truth."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest

from lifeboat.core.errors import PermanentError, VerificationFailed
from lifeboat.core.points import DatabaseFacts
from lifeboat.core.suspicion import Policy
from lifeboat.tools import postgres, process
from staging.ports import choose_ports
from staging.site import postgres_bin
from tasks.questions.database import compare_rows
from tests.system.test_postgres import Cluster

pytestmark = [pytest.mark.system]

EVIL = """
data_directory = '{elsewhere}'
external_pid_file = '{elsewhere}/production.pid'
shared_preload_libraries = 'no_such_library'
session_preload_libraries = 'no_such_library'
shared_buffers = '4TB'
huge_pages = on
logging_collector = on
log_directory = '{elsewhere}'
archive_mode = on
archive_command = 'touch {elsewhere}/archived'
archive_cleanup_command = 'touch {elsewhere}/cleaned'
recovery_end_command = 'touch {elsewhere}/ended'
recovery_target_lsn = '0/1'
primary_conninfo = 'host=production'
listen_addresses = '*'
unix_socket_directories = '{elsewhere}'
fsync = off
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Two tables with a foreign key between them, text, and an index of each kind."""
    cluster = Cluster(tmp_path_factory.mktemp("scratch") / "data", choose_ports().postgres)
    cluster.make()
    # Without checksums damage gets as far as the checks that look at what pages say.
    process.run(
        process.unprivileged(
            [postgres_bin() / "pg_checksums", "--disable", "-D", cluster.directory]
        ),
        doing="Switching checksums off",
    )
    with (cluster.directory / "postgresql.conf").open("a") as file:
        file.write("wal_level = logical\n")
    cluster.start()
    for text in (
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " parent int REFERENCES parent, numbers int[])",
        "INSERT INTO parent SELECT generate_series(1, 500)",
        "INSERT INTO child (parent, numbers) SELECT n, ARRAY[n, n + 100000]"
        " FROM generate_series(1, 500) n",
        "CREATE INDEX child_numbers ON child USING gin (numbers)",
        "CHECKPOINT",
    ):
        cluster.execute(text)
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
def copied(cluster: Cluster, tmp_path: Path) -> Path:
    base = tmp_path / "copied" / "base"
    base.parent.mkdir()
    postgres.base_backup(cluster.server, base, label="test")
    return base


@contextmanager
def started(base: Path, *, at_backup: bool = False) -> Iterator[postgres.Connection]:
    with postgres.scratch_server(
        base,
        database="postgres",
        user="admin",
        bin_directory=postgres_bin(),
        log_path=base.with_name("log"),
        timeout_seconds=60,
        at_backup=at_backup,
    ) as server:
        yield server


def servers_of(base: Path) -> list[psutil.Process]:
    found = []
    for running in psutil.process_iter(["name"]):
        try:
            if running.info["name"] == "postgres" and Path(running.cwd()) == base.resolve():
                found.append(running)
        except (psutil.Error, OSError):
            continue
    return found


# --- it disturbs nobody ---------------------------------------------------------------------


def test_the_platforms_own_settings_do_nothing_in_the_copy(copied: Path, tmp_path: Path) -> None:
    """Not its archive, its libraries, its memory, its files: those belong to the live server."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("postgresql.conf", "postgresql.auto.conf"):
        with (copied / name).open("a") as file:
            file.write(EVIL.format(elsewhere=elsewhere))
    postgres.prepare_scratch(copied, postgres_bin())
    for at_backup in (True, False):
        if not at_backup:
            postgres.stage_recovery(
                copied, segments={}, histories={}, target_time=None, target_timeline=1
            )
        with started(copied, at_backup=at_backup) as server:
            [running, *_] = servers_of(copied)
            listening = [c for p in servers_of(copied) for c in p.net_connections("inet")]
            assert listening == [], "no TCP port"
            sockets = Path(server.host)
            assert sockets.stat().st_mode & 0o077 == 0, "nobody else gets in"
            assert postgres.query(server, "SHOW max_logical_replication_workers") == [("0",)]
            assert postgres.row_counts(server) == {"public.child": 500, "public.parent": 500}
        assert not running.is_running()
        assert not sockets.exists()
    assert list(elsewhere.iterdir()) == []


def test_a_subscription_in_the_copy_takes_nothing_from_its_publisher(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.execute("CREATE PUBLICATION all_of_it FOR TABLE parent")
    cluster.execute("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")
    cluster.execute(
        f"CREATE SUBSCRIPTION feed CONNECTION 'host=127.0.0.1 port={cluster.port} user=admin"
        f" password={cluster.password} dbname=postgres' PUBLICATION all_of_it"
        " WITH (create_slot = false, copy_data = false, enabled = false, slot_name = 'feed')"
    )
    cluster.execute("UPDATE pg_subscription SET subenabled = true")
    base = tmp_path / "copied" / "base"
    base.parent.mkdir()
    postgres.base_backup(cluster.server, base, label="test")
    cluster.execute("UPDATE pg_subscription SET subenabled = false")
    postgres.prepare_scratch(base, postgres_bin())
    with started(base) as server:
        assert postgres.query(server, "SELECT subenabled FROM pg_subscription") == [(True,)]
        workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'logical%'"
        assert postgres.query(server, workers) == [(0,)]
    assert cluster.execute("SELECT active FROM pg_replication_slots") == [(False,)]


def test_settings_with_which_no_server_would_start_are_told(copied: Path) -> None:
    with (copied / "postgresql.conf").open("a") as file:
        file.write("shared_bufers = 1GB\ninclude = '/no/such/file.conf'\n")
    with pytest.raises(VerificationFailed, match=r"/no/such/file\.conf"):
        postgres.prepare_scratch(copied, postgres_bin())


def test_a_copy_without_settings_starts(copied: Path) -> None:
    """Debian keeps them below /etc."""
    (copied / "postgresql.conf").unlink()
    (copied / "pg_hba.conf").unlink()
    (copied / "pg_ident.conf").unlink()
    postgres.prepare_scratch(copied, postgres_bin())
    with started(copied, at_backup=True) as server:
        assert postgres.row_counts(server)["public.child"] == 500


def test_a_server_whose_starter_was_killed_is_found_and_ended(copied: Path) -> None:
    postgres.prepare_scratch(copied, postgres_bin())
    code = (
        "import sys, time; from pathlib import Path; from lifeboat.tools import postgres\n"
        "base, programs = map(Path, sys.argv[1:])\n"
        "with postgres.scratch_server(base, database='postgres', user='admin',\n"
        "    bin_directory=programs, log_path=base.with_name('log'), timeout_seconds=60) as it:\n"
        "    print(it.host, flush=True); time.sleep(600)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, copied, postgres_bin()], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout
    sockets = Path(starter.stdout.readline().strip())
    starter.kill()
    starter.wait()
    assert servers_of(copied), "it outlives its starter"
    assert postgres.end_orphan(copied)
    assert servers_of(copied) == []
    assert not sockets.exists()
    assert not postgres.end_orphan(copied)


def test_a_server_of_another_directory_is_never_ended(cluster: Cluster, copied: Path) -> None:
    shutil.copy(cluster.directory / "postmaster.pid", copied)
    assert not postgres.end_orphan(copied)
    assert cluster.alive


@pytest.mark.parametrize("at_backup", [True, False])
@pytest.mark.parametrize("harm", ["no WAL", "pg_filenode.map"])
def test_a_copy_that_does_not_start_says_why_and_is_not_waited_for(
    copied: Path, monkeypatch: pytest.MonkeyPatch, harm: str, at_backup: bool
) -> None:
    """Without its map of files it starts, and lets nobody in."""
    monkeypatch.setattr("lifeboat.tools.postgres.scratch._ANSWERS_SECONDS", 1.0)
    postgres.prepare_scratch(copied, postgres_bin())
    if harm == "no WAL":
        (copied / "backup_label").unlink()
        shutil.rmtree(copied / "pg_wal")
    else:
        (copied / "global" / harm).write_bytes(b"")
    with pytest.raises(PermanentError, match="FATAL"), started(copied, at_backup=at_backup):
        pass
    assert servers_of(copied) == []


def test_a_copy_over_which_no_standby_opens_says_that_it_can_not_go_on(
    cluster: Cluster, copied: Path, tmp_path: Path
) -> None:
    """As PostgreSQL does not over a transaction with too many subtransactions."""
    base = tmp_path / "second" / "base"
    base.parent.mkdir()
    with psycopg.connect(
        host="127.0.0.1",
        port=cluster.port,
        user="admin",
        password=cluster.password,
        dbname="postgres",
    ) as connection:
        for number in range(70):
            connection.execute(f"SAVEPOINT s{number}")
            connection.execute(f"INSERT INTO parent VALUES ({1000 + number})")
        postgres.base_backup(cluster.server, base, label="test")
    for directory, stays in ((copied, True), (base, False)):
        postgres.prepare_scratch(directory, postgres_bin())
        with started(directory, at_backup=True) as server:
            assert postgres.row_counts(server)["public.parent"] == 500
            assert postgres.stayed(server) is stays


def test_where_a_recovery_ended_is_not_mistaken_for_another_servers_timeline(
    cluster: Cluster, copied: Path, tmp_path: Path
) -> None:
    """A history with a higher number is staged with the others, so that the new one is new."""
    foreign = tmp_path / "00000009.history"
    foreign.write_text("1\t0/1000028\tof another server\n")
    garbled = tmp_path / "00000007.history"
    garbled.write_bytes(b"\xff\x00 no history")
    postgres.prepare_scratch(copied, postgres_bin())
    postgres.stage_recovery(
        copied,
        segments={},
        histories={foreign.name: foreign, garbled.name: garbled},
        target_time=None,
        target_timeline=1,
    )
    with started(copied) as server:
        assert postgres.identify(server).timeline == 2
        reached = postgres.recovered_to(copied)
        assert reached.timeline == 2
        assert reached.lsn > 0x2000000
        system = postgres.identify(server).system_identifier
    found = postgres.salvage_segments(copied, system, 16 << 20)
    assert {garbled.name, foreign.name, "00000002.history"} <= set(found)
    assert any(name.startswith("00000002") and not name.endswith("y") for name in found)


# --- it is asked the truth ------------------------------------------------------------------


def index_lacks_a_row(cluster: Cluster) -> str:
    """As after a crash of a version with a bug: the index was not kept for a while."""
    live = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'parent_pkey'::regclass"
    cluster.execute(live.format("false"))
    cluster.execute("INSERT INTO parent VALUES (12345)")
    cluster.execute(live.format("true"))
    return r'index "parent_pkey"'


def _patch(cluster: Cluster, relation: str, change: Callable[[bytearray], None]) -> None:
    path = cluster.path_of(relation)
    cluster.stop()
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    cluster.start()


def heap_is_garbled(cluster: Cluster) -> str:
    def change(data: bytearray) -> None:
        # The number of the oldest transaction that a row of the first page belongs to.
        newest = int.from_bytes(data[14:16], "little")
        data[newest : newest + 4] = (0xEEEEEEE).to_bytes(4, "little")

    _patch(cluster, "parent", change)
    return r'heap table "postgres\.public\.parent"'


def gin_is_out_of_order(cluster: Cluster) -> str:
    def change(data: bytearray) -> None:
        for number in (7, 9):
            at = data.find(number.to_bytes(4, "little") + b"\0\0", 8192)
            assert at > 0
        key = (250).to_bytes(4, "little")
        places = [m.start() for m in re.finditer(re.escape(key), bytes(data)) if m.start() > 8192]
        assert places
        for at in places:
            data[at : at + 4] = (2_000_000_000).to_bytes(4, "little")

    _patch(cluster, "child_numbers", change)
    return "child_numbers"


@pytest.mark.parametrize("harm", [index_lacks_a_row, heap_is_garbled, gin_is_out_of_order])
def test_damage_in_tables_and_indexes_is_named(
    cluster: Cluster, harm: Callable[[Cluster], str]
) -> None:
    postgres.check_everything(cluster.server, timeout_seconds=60)
    said = harm(cluster)
    with pytest.raises(VerificationFailed, match=said):
        postgres.check_everything(cluster.server, timeout_seconds=60)


def test_other_databases_of_the_cluster_are_checked_too(cluster: Cluster) -> None:
    cluster.execute("CREATE DATABASE beside TEMPLATE postgres")
    [beside] = [d for d in postgres.databases(cluster.server) if d.database == "beside"]
    live = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'parent_pkey'::regclass"
    postgres.query(beside, live.format("false"))
    postgres.query(beside, "INSERT INTO parent VALUES (12345)")
    postgres.query(beside, live.format("true"))
    with pytest.raises(VerificationFailed, match="beside"):
        postgres.check_everything(cluster.server, timeout_seconds=60)


def test_rows_that_refer_to_nothing_are_named_unless_nobody_promised_it(cluster: Cluster) -> None:
    check = partial(postgres.check_references, cluster.server, timeout_seconds=60)
    assert check() == type(check())(keys=1, dangling=())
    cluster.execute("CREATE TABLE old (parent int)")
    cluster.execute("INSERT INTO old VALUES (-1)")
    cluster.execute("ALTER TABLE old ADD FOREIGN KEY (parent) REFERENCES parent NOT VALID")
    assert check().dangling == ()
    with psycopg.connect(
        host="127.0.0.1",
        port=cluster.port,
        user="admin",
        password=cluster.password,
        dbname="postgres",
    ) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM parent WHERE id IN (3, 4)")
    [told] = check().dangling
    assert told == "foreign key child_parent_fkey: 2 rows of child refer to no parent"


def facts_of(cluster: Cluster, **changes) -> DatabaseFacts:
    now = datetime.now(timezone.utc)
    told = {
        "system_identifier": postgres.identify(cluster.server).system_identifier,
        "timeline": 1,
        "start_lsn": "0/1",
        "stop_lsn": "0/2",
        "server_version": "18",
        "wal_segment_bytes": 16 << 20,
        "started_at": now,
        "stopped_at": now,
        "tables": postgres.row_counts(cluster.server),
        "sequences": postgres.sequences(cluster.server),
    }
    return DatabaseFacts(**{**told, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tables": {"public.child": 501}}, "public.child has 500 rows, not 501"),
        ({"tables": {"public.gone": 0}}, "public.gone has no rows, not 0"),
        ({"sequences": {"public.child_id_seq": 501}}, "child_id_seq is at 500, not at 501"),
        ({"sequences": {"public.gone": 1}}, "public.gone is at nothing, not at 1"),
        ({"system_identifier": "77"}, "it is another database"),
    ],
)
def test_what_is_fewer_than_its_facts_is_named(cluster: Cluster, changes, said: str) -> None:
    compare_rows(cluster.server, "a point", facts_of(cluster), 0, Policy())
    with pytest.raises(VerificationFailed, match=re.escape(said)):
        compare_rows(cluster.server, "a point", facts_of(cluster, **changes), 0, Policy())


def test_rows_that_were_deleted_meanwhile_are_tolerated_as_far_as_asked(cluster: Cluster) -> None:
    facts = facts_of(cluster, tables={"public.child": 505})
    compare_rows(cluster.server, "a point", facts, 1, Policy())
