"""A small database as one file, counted in the same moment, and a database made of such a file.

For a database whose server is not ours to restart: a dump goes into any PostgreSQL of the same or a
newer version, beside what is there. For a large one see `copies`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql

from lifeboat.core.errors import VerificationFailed
from lifeboat.tools import process
from lifeboat.tools.postgres.server import Connection, error_of, query

_MAINTENANCE = "template1"  # always there; the database itself can't be renamed from within
_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Dumped:
    """What a dump holds, table by table, exactly."""

    rows: Mapping[str, int]
    server_version: str


def dump_database(server: Connection, file: Path) -> Dumped:
    """Write a database into `file` (custom format), and count its rows in the same snapshot.

    It is not compressed, so that restic finds what has not changed since the last one; restic
    compresses it. Reads every row, and raises VerificationFailed for a damaged one.
    """
    doing = f"Dumping the database {server.database} at {server.host}:{server.port}"
    try:
        with _session(server) as session:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            snapshot = session.execute("SELECT pg_export_snapshot()").fetchone()[0]
            rows = _count(session)
            version = session.execute("SHOW server_version").fetchone()[0]
            process.run(
                [
                    server.program("pg_dump"),
                    *server.words,
                    *("--dbname", server.database, "--file", file, "--snapshot", snapshot),
                    *("--format=custom", "--compress=0", "--no-owner", "--no-privileges"),
                    "--no-password",
                ],
                doing=doing,
                env=server.environment,
                secrets=[server.password] if server.password else [],
                timeout_seconds=_PATIENCE_SECONDS,
            )
    except psycopg.Error as error:
        raise error_of(error, doing) from error
    return Dumped(rows=rows, server_version=version)


def make_database(server: Connection, name: str, file: Path) -> Connection:
    """Make a new database of a dump, beside all others, and give a connection to it.

    Ended half way it leaves that database, for the next one to remove: see `drop_databases`.
    """
    run_outside(server, [sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(_name(name))])
    made = replace(server, database=name)
    process.run(
        [
            server.program("pg_restore"),
            *server.words,
            *("--dbname", name, "--exit-on-error", "--no-owner", "--no-privileges"),
            *("--no-password", file),
        ],
        doing=f"Restoring {file.name} into {name}",
        env=server.environment,
        secrets=[server.password] if server.password else [],
        timeout_seconds=_PATIENCE_SECONDS,
    )
    query(made, "ANALYZE", timeout_seconds=_PATIENCE_SECONDS)
    return made


def count_rows(server: Connection) -> dict[str, int]:
    """Rows of each table, read to the end."""
    try:
        with _session(server) as session:
            return _count(session)
    except psycopg.Error as error:
        raise error_of(error, f"Counting the rows of {server.database}") from error


def require_rows(server: Connection, expected: Mapping[str, int]) -> None:
    """Raise VerificationFailed, naming the tables, unless it holds exactly those rows."""
    found = count_rows(server)
    wrong = [
        f"{table} has {found.get(table, 'no table')} rows, not {expected.get(table, 'any')}"
        for table in sorted({*expected, *found})
        if found.get(table) != expected.get(table)
    ]
    if wrong:
        raise VerificationFailed(
            f"Comparing {server.database} with what was dumped: {'; '.join(wrong[:5])}.",
            hint="Nothing was replaced. Choose another point.",
        )


def swap_databases(server: Connection, *, incoming: str, aside: str) -> None:
    """Give `incoming` the name of the connection's database, and that one the name `aside`.

    Both or neither. Whoever is connected to either is cut off, and may connect again at once. One
    that is not there need not be moved.
    """
    name = server.database
    there = database_exists(server, name)
    renames = [
        *([(name, aside)] if there else []),
        (incoming, name),
    ]
    try:
        with _session(replace(server, database=_MAINTENANCE)) as session:
            for old, _ in renames:
                # Not in the transaction: what is refused must be refused before we cut off.
                session.execute(
                    sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(_name(old))
                )
            try:
                session.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                    " WHERE datname = ANY(%s) AND pid <> pg_backend_pid()",
                    ([old for old, _ in renames],),
                )
                with session.transaction():
                    for old, new in renames:
                        session.execute(
                            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(_name(old), _name(new))
                        )
            finally:
                for word in {name, incoming, aside}:
                    if _exists(session, word):
                        session.execute(
                            sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(
                                _name(word)
                            )
                        )
    except psycopg.Error as error:
        raise error_of(error, f"Putting {incoming} in the place of {name}") from error


def drop_databases(server: Connection, prefix: str) -> tuple[str, ...]:
    """Remove the databases whose name begins so, and say which there were."""
    names = [name for name in database_names(server) if name.startswith(prefix)]
    run_outside(
        server, [sql.SQL("DROP DATABASE {} WITH (FORCE)").format(_name(name)) for name in names]
    )
    return tuple(names)


def database_names(server: Connection) -> list[str]:
    """Every database of the server, whether or not the connection's own is among them."""
    told = query(replace(server, database=_MAINTENANCE), "SELECT datname FROM pg_database")
    return sorted(name for (name,) in told)


def database_exists(server: Connection, name: str) -> bool:
    return name in database_names(server)


def run_outside(server: Connection, statements: Sequence[sql.Composable]) -> None:
    """Run statements one by one, outside of the connection's own database."""
    try:
        with _session(replace(server, database=_MAINTENANCE)) as session:
            for statement in statements:
                session.execute(statement)
    except psycopg.Error as error:
        raise error_of(error, f"Asking the server at {server.host}:{server.port}") from error


def _session(server: Connection) -> psycopg.Connection:
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=server.database,
        connect_timeout=5,
        autocommit=True,
        application_name="lifeboat",
    )


def _count(session: psycopg.Connection) -> dict[str, int]:
    tables = session.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
    ).fetchall()
    return {
        f"{schema}.{table}": session.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))
        ).fetchone()[0]
        for schema, table in tables
    }


def _exists(session: psycopg.Connection, name: str) -> bool:
    told = session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
    return told.fetchone() is not None


def _name(name: str) -> sql.Identifier:
    return sql.Identifier(name)


def make_cluster(directory: Path, bin_directory: Path | None, *, user: str) -> None:
    """Make an empty cluster that is thrown away, with `user` as its superuser."""
    program = bin_directory / "initdb" if bin_directory else Path("initdb")
    words = process.unprivileged(
        [
            *(program, "--pgdata", directory, "--username", user, "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
        ]
    )
    if words[0] == "setpriv":
        # Without a user namespace the files must be nobody's own.
        directory.mkdir(parents=True)
        os.chown(directory, 65534, 65534)
    process.run(words, doing=f"Making a scratch cluster {directory}", timeout_seconds=120)
