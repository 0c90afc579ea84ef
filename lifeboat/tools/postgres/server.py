"""A running PostgreSQL server: who it is, what it holds, and its slot for the WAL receiver."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.core.errors import (
    PermanentError,
    PreconditionError,
    RecoveryError,
    TransientError,
    VerificationFailed,
)

_CONNECT_SECONDS = 5
_POLL_SECONDS = 0.05
# data_corrupted, index_corrupted; a damaged page may also show as an internal or I/O error.
_DAMAGE = {"XX001", "XX002", "XX000", "58030"}


@dataclass(frozen=True)
class Connection:
    """How to reach a server, and the programs of its major version (None: those on PATH)."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    bin_directory: Path | None = None

    def program(self, name: str) -> str:
        return str(self.bin_directory / name) if self.bin_directory else name

    @property
    def environment(self) -> dict[str, str]:
        """For PostgreSQL's programs: the password never stands in a command line."""
        return {"PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": str(_CONNECT_SECONDS)}

    @property
    def words(self) -> tuple[str, ...]:
        return ("--host", self.host, "--port", str(self.port), "--username", self.user)


@dataclass(frozen=True)
class Identity:
    """Which cluster answers, and where it is."""

    system_identifier: str
    timeline: int
    version: str  # e.g. "18.6"
    version_number: int  # e.g. 180006
    wal_segment_bytes: int
    in_recovery: bool

    @property
    def major(self) -> int:
        return self.version_number // 10000


def last_replayed_commit_at(server: Connection) -> datetime | None:
    """When the last commit was made that the recovery of this server replayed; None: there was
    none. It is known until the server is started again.
    """
    [(at,)] = query(server, "SELECT pg_last_xact_replay_timestamp()")
    return at


def query(
    server: Connection, text: str, params: Sequence[Any] = (), *, timeout_seconds: float = 10.0
) -> list[tuple[Any, ...]]:
    """Run one statement in a transaction of its own and give its rows (none: an empty list).

    Raises TransientError if the server does not answer in time, VerificationFailed if it meets a
    damaged page or index, and PermanentError for a statement that fails.
    """
    doing = f"Asking the database at {server.host}:{server.port}"
    try:
        with _connect(server, timeout_seconds) as connection:
            cursor = connection.execute(text, params or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []
    except psycopg.Error as error:
        raise error_of(error, doing) from error


def _connect(server: Connection, timeout_seconds: float = 10.0) -> psycopg.Connection:
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=server.database,
        connect_timeout=_CONNECT_SECONDS,
        autocommit=True,
        application_name="lifeboat-check",
        options=f"-c statement_timeout={int(timeout_seconds * 1000)}",
    )


def error_of(error: psycopg.Error, doing: str) -> RecoveryError:
    what = " ".join(str(error).split())
    if error.sqlstate in _DAMAGE:
        return VerificationFailed(f"{doing}: its data is damaged ({what}).")
    if error.sqlstate in ("28P01", "28000") or "authentication failed" in what:
        return PreconditionError(
            f"{doing}: it refuses the role ({what}).",
            hint="Look at database.user and LIFEBOAT_DATABASE_PASSWORD.",
        )
    if error.sqlstate == "3D000":
        return PreconditionError(f"{doing}: {what}.", hint="Look at database.name.")
    if isinstance(error, psycopg.OperationalError):
        return TransientError(f"{doing}: it does not answer ({what}).", hint="Is it running?")
    return PermanentError(f"{doing}: {what}.")


def answers(server: Connection) -> bool:
    """Whether a query is answered now."""
    try:
        query(server, "SELECT 1", timeout_seconds=5)
    except RecoveryError:
        return False
    return True


def wait_until_ready(
    server: Connection,
    *,
    timeout_seconds: float,
    why_not: Callable[[], str | None] | None = None,
    read_only: bool = False,
) -> None:
    """Return once the server has ended its recovery and takes writes, or reads if that is enough.

    `why_not` is asked meanwhile; when it gives a reason (its process is gone) waiting is over.
    Raises PermanentError then, and when the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    said = "it was never asked"
    while True:
        try:
            [(replaying,)] = query(server, "SELECT pg_is_in_recovery()", timeout_seconds=5)
            if read_only or not replaying:
                return
            said = "it is still replaying the WAL"
        except TransientError as error:
            said = error.message
        gone = why_not() if why_not else None
        if gone:
            raise PermanentError(f"Starting the database: it ended. {gone}")
        if time.monotonic() > deadline:
            raise PermanentError(
                f"Starting the database: not ready after {timeout_seconds:g} s: {said}",
                hint="Look at its log; the time box is in `recovery` of lifeboat.yaml.",
            )
        time.sleep(_POLL_SECONDS)


def identify(server: Connection) -> Identity:
    [(system_identifier, timeline, version, number, segment_bytes, in_recovery)] = query(
        server,
        "SELECT (SELECT system_identifier::text FROM pg_control_system()),"
        " (SELECT timeline_id FROM pg_control_checkpoint()),"
        " current_setting('server_version'), current_setting('server_version_num')::int,"
        " (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),"
        " pg_is_in_recovery()",
    )
    if not in_recovery:
        # The control file may still name the timeline of the checkpoint before the promotion.
        [(name,)] = query(server, "SELECT pg_walfile_name(pg_current_wal_lsn())")
        timeline = int(name[:8], 16)
    return Identity(
        system_identifier=system_identifier,
        timeline=timeline,
        version=version.split()[0],
        version_number=number,
        wal_segment_bytes=segment_bytes,
        in_recovery=in_recovery,
    )


@dataclass(frozen=True)
class Moment:
    """A position in the WAL, and what some queries gave right before it."""

    lsn: str
    is_named: bool  # a restore point of that name lies in the WAL
    rows: tuple[list[tuple[Any, ...]], ...]  # one list for each query


def name_moment(
    server: Connection, name: str, queries: Sequence[str], *, timeout_seconds: float
) -> Moment:
    """Run queries in one snapshot, and note the position in the WAL that holds all they saw.

    Where the role may, the position gets a name, to which a recovery can be told to go
    (PostgreSQL manual, `recovery_target_name`).
    """
    doing = f"Naming a moment of {server.database}"
    try:
        with _connect(server, timeout_seconds) as connection:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                rows = tuple(connection.execute(text).fetchall() for text in queries)  # type: ignore[arg-type]
            [(may_name,)] = connection.execute(
                "SELECT has_function_privilege('pg_create_restore_point(text)', 'EXECUTE')"
            ).fetchall()
            with connection.transaction():
                # Its commit brings the position to the disk, which else waits for somebody's
                # write; it must not wait for a receiver, which may be dead.
                connection.execute("SET LOCAL synchronous_commit = local")
                function = "pg_create_restore_point(%s)" if may_name else "pg_current_wal_lsn()"
                words = [name] if may_name else None
                [(lsn,)] = connection.execute(f"SELECT {function}::text", words).fetchall()  # type: ignore[arg-type]
                connection.execute("SELECT pg_logical_emit_message(true, 'lifeboat', %s)", [name])
    except psycopg.Error as error:
        raise error_of(error, doing) from error
    return Moment(lsn=lsn, is_named=may_name, rows=rows)


def now(server: Connection) -> datetime:
    """The server's clock, which stamps the commits that a point in time is compared with."""
    return query(server, "SELECT clock_timestamp()")[0][0]


def database_bytes(server: Connection) -> int:
    """Size of all databases of the cluster."""
    return int(query(server, "SELECT sum(pg_database_size(oid)) FROM pg_database")[0][0])


def row_counts(server: Connection) -> dict[str, int]:
    """Rows of every table of the database by `schema.table`, counted in one snapshot.

    Partitions count with their parent.
    """
    doing = f"Counting the rows of {server.database}"
    try:
        with _connect(server, 3600) as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            _scan_tables_only(connection)
            tables = connection.execute(
                "SELECT n.nspname, c.relname FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition"
                " AND c.relpersistence = 'p'"
                " AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
                " ORDER BY 1, 2"
            ).fetchall()
            counts = {}
            for schema, table in tables:
                told = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))
                [(counts[f"{schema}.{table}"],)] = connection.execute(told).fetchall()
            return counts
    except psycopg.Error as error:
        raise error_of(error, doing) from error


def sequences(server: Connection) -> dict[str, int]:
    """The newest number of every sequence that has given one, by `schema.sequence`."""
    rows = query(
        server,
        "SELECT schemaname || '.' || sequencename, last_value FROM pg_sequences"
        " WHERE last_value IS NOT NULL AND increment_by > 0 AND NOT cycle",
    )
    return dict(rows)


def _scan_tables_only(connection: psycopg.Connection) -> None:
    """Let a count read the table itself: an index can be whole over a table that is damaged."""
    for kind in ("indexonlyscan", "indexscan", "bitmapscan"):
        connection.execute(f"SET LOCAL enable_{kind} = off")


def read_every_row(server: Connection) -> None:
    """Read every page of every table, TOAST and catalogue table, and check every B-tree.

    The server checks the checksum of each page that it reads from disk, whatever the page says of
    its own age. B-trees are checked where the extension amcheck is there and we may call it.
    Raises VerificationFailed, naming the table or index.
    """
    doing = f"Reading every row of {server.database}"
    try:
        with _connect(server, 3600) as connection:
            for name, text in _readings(connection):
                doing = f"Reading {name} of {server.database}"
                with connection.transaction():
                    _scan_tables_only(connection)
                    connection.execute(text)
    except psycopg.errors.UndefinedTable:
        raise TransientError(f"{doing}: it was dropped meanwhile.") from None
    except psycopg.Error as error:
        raise error_of(error, doing) from error


def _readings(connection: psycopg.Connection) -> Iterator[tuple[str, sql.Composable]]:
    tables = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'"
        " AND has_table_privilege(c.oid, 'SELECT') ORDER BY c.relpages"
    ).fetchall()
    for schema, table in tables:
        name = sql.Identifier(schema, table)
        yield f"{schema}.{table}", sql.SQL("SELECT count(*) FROM {}").format(name)
    may_check = connection.execute(
        "SELECT coalesce(bool_or(has_function_privilege(oid, 'EXECUTE')), false) FROM pg_proc"
        " WHERE proname = 'bt_index_check' AND pronargs = 1"
    ).fetchone()
    if not may_check or not may_check[0]:
        return
    indexes = connection.execute(
        "SELECT i.indexrelid, i.indexrelid::regclass::text FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
        " WHERE a.amname = 'btree' AND i.indisvalid AND c.relpersistence = 'p'"
        " AND c.relkind = 'i'"
    ).fetchall()
    for oid, name in indexes:
        yield f"index {name}", sql.SQL("SELECT bt_index_check({})").format(sql.Literal(oid))


_FOREIGN_KEYS = """
SELECT c.conname, c.conrelid::regclass::text, c.confrelid::regclass::text,
       array_agg(quote_ident(a.attname) ORDER BY k.place),
       array_agg(quote_ident(b.attname) ORDER BY k.place)
FROM pg_constraint c
CROSS JOIN unnest(c.conkey, c.confkey) WITH ORDINALITY AS k(own, other, place)
JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.own
JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = k.other
WHERE c.contype = 'f'
  -- Not yet validated ones promise nothing of old rows, partitions have their parent's, and a
  -- temporal key (18) is met by several rows together.
  AND c.convalidated AND c.conparentid = 0
  AND coalesce(to_jsonb(c) ->> 'conperiod', 'false') = 'false'
GROUP BY c.oid, c.conname, c.conrelid, c.confrelid
"""


@dataclass(frozen=True)
class References:
    """How many foreign keys there are, and what is wrong with those that do not hold."""

    keys: int
    dangling: tuple[str, ...]


def check_references(server: Connection, *, timeout_seconds: float) -> References:
    """Check every foreign key against the rows: a damaged table breaks them unnoticed."""
    keys = query(server, _FOREIGN_KEYS)
    dangling = []
    for name, child, parent, own, other in keys:
        given = " AND ".join(f"c.{column} IS NOT NULL" for column in own)
        same = " AND ".join(f"p.{b} = c.{a}" for a, b in zip(own, other, strict=True))
        [(rows,)] = query(
            server,
            f"SELECT count(*) FROM {child} c WHERE {given}"
            f" AND NOT EXISTS (SELECT 1 FROM {parent} p WHERE {same})",
            timeout_seconds=timeout_seconds,
        )
        if rows:
            dangling.append(f"foreign key {name}: {rows} rows of {child} refer to no {parent}")
    return References(keys=len(keys), dangling=tuple(dangling))
