"""A restored cluster on the side: started behind a private socket, questioned, ended for sure."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil

from lifeboat.core.errors import (
    CommandFailed,
    PermanentError,
    PreconditionError,
    VerificationFailed,
)
from lifeboat.tools import process
from lifeboat.tools.postgres.server import Connection, query, wait_until_ready

_PORT = 5432  # names the socket's file only: no TCP port is opened
_GRACE_SECONDS = 20.0
_SOCKETS = "lifeboat-"  # beginning of the name of a socket's directory
_DAMAGED = 2  # exit code of pg_amcheck
# A standby refuses to open with less than its primary had; the control file knows how much.
_AT_LEAST_AS_ON_PRIMARY = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}
_OURS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "hot_standby": "off",
    # It shares the machine with the platform, and nothing in it is worth keeping.
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "maintenance_work_mem": "256MB",
    "fsync": "off",
    "autovacuum": "off",
    # A subscription would take from the publisher what the platform's own server is waiting for.
    "max_logical_replication_workers": "0",
    "dynamic_shared_memory_type": "mmap",
    "lc_messages": "C",
}
_OURS_SINCE = {17: {"event_triggers": "off"}}  # some run at each login, and write
_OPEN = re.compile(r"database system is ready to accept|recovery has paused")
_ANSWERS_SECONDS = 30.0  # after it has said so


def prepare_scratch(data_directory: Path, bin_directory: Path | None) -> None:
    """Prove that a restored copy's settings are valid, then take all of them away from it.

    What they say is right for the platform's server alone: where its data, its certificates and
    its process file lie, which archive it fills or cleans, which libraries start workers of their
    own, how much memory it takes. Call it after the copy was verified, and only on a copy that is
    thrown away. Raises VerificationFailed, with PostgreSQL's words, for settings with which the
    server would not start.
    """
    settings = data_directory / "postgresql.conf"
    if settings.exists():  # Debian keeps it elsewhere
        try:
            process.run(
                [_program(bin_directory, "postgres"), "-C", "port", "-D", data_directory],
                doing="Reading the restored database's settings",
            )
        except CommandFailed as error:
            raise VerificationFailed(
                f"Reading the restored database's settings: {_said(error.stderr_tail)}.",
                hint="A recovered server would not start. Correct postgresql.conf, then make a new "
                "base backup.",
            ) from error
    settings.write_text("")
    (data_directory / "postgresql.auto.conf").write_text("")


@contextmanager
def scratch_server(
    data_directory: Path,
    *,
    database: str,
    user: str,
    bin_directory: Path | None,
    log_path: Path,
    timeout_seconds: float,
    at_backup: bool = False,
) -> Iterator[Connection]:
    """Start a restored base copy by itself and give a superuser's connection to it.

    With `at_backup` it replays to where the backup ended and no further; without, all that was
    staged. It listens on no port, only on a socket in a directory that is ours alone, so that no
    password is needed and nobody else gets in. It knows nothing of archives, standbys,
    subscriptions and preloaded libraries; see `prepare_scratch`, which comes first. It is ended,
    and its socket removed, however the block ends. `user` may be any role that exists in it.

    Where the backup ended it stays read-only, so that a later start goes on from there. Only if a
    transaction with more than 64 subtransactions was running, over which PostgreSQL opens no
    standby, it has begun a timeline of its own, and can't go on: see `stayed`.
    """
    with tempfile.TemporaryDirectory(prefix=_SOCKETS) as sockets:
        access = Path(sockets) / "pg_hba.conf"
        access.write_text("local all all trust\n")
        told = {
            **_OURS,
            **_since(data_directory),
            **_as_on_primary(data_directory, bin_directory),
            "unix_socket_directories": sockets,
            "hba_file": str(access),
        }
        if at_backup:
            (data_directory / "recovery.signal").touch()
            told |= {"recovery_target": "immediate", "recovery_target_action": "pause"}
            told |= {"restore_command": "false", "hot_standby": "on"}
        began_at_byte = log_path.stat().st_size if log_path.exists() else 0
        with process.start(
            process.unprivileged(
                [
                    *(_program(bin_directory, "postgres"), "-D", data_directory),
                    *(word for key, value in told.items() for word in ("-c", f"{key}={value}")),
                ]
            ),
            doing="Starting the restored database",
            log_path=log_path,
        ) as daemon:
            server = Connection(
                host=sockets,
                port=_PORT,
                user=user,
                password="",
                database=database,
                bin_directory=bin_directory,
            )
            wait_until_ready(
                server,
                timeout_seconds=timeout_seconds,
                why_not=_why_not(daemon, log_path, began_at_byte),
                read_only=at_backup,
            )
            try:
                yield replace(server, user=_superuser(server))
            finally:
                daemon.stop(sig=signal.SIGINT, grace_seconds=_GRACE_SECONDS)


def stayed(server: Connection) -> bool:
    """Whether a server that was started `at_backup` can go on to replay from where it is."""
    return bool(query(server, "SELECT pg_is_in_recovery()")[0][0])


def _program(bin_directory: Path | None, name: str) -> str:
    return str(bin_directory / name) if bin_directory else name


def _since(data_directory: Path) -> dict[str, str]:
    version = int((data_directory / "PG_VERSION").read_text())
    return {
        name: value
        for since, settings in _OURS_SINCE.items()
        if version >= since
        for name, value in settings.items()
    }


def _why_not(
    daemon: process.Daemon, log_path: Path, began_at_byte: int
) -> Callable[[], str | None]:
    """What to ask while the server does not answer: why it never will, or None."""
    open_since: float | None = None

    def ask() -> str | None:
        nonlocal open_since
        log = log_path.read_bytes()[began_at_byte:].decode(errors="replace")
        if not daemon.alive:
            return _last_words(log)
        if open_since is None and _OPEN.search(log):
            open_since = time.monotonic()
        if open_since is not None and time.monotonic() - open_since > _ANSWERS_SECONDS:
            return f"It says that it is open, and lets nobody in: {_last_words(log)}"
        return None

    return ask


def _superuser(server: Connection) -> str:
    found = query(server, "SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin")
    if not found:
        raise PermanentError("Asking the restored database: no superuser may log in.")
    return found[0][0]


def _as_on_primary(data_directory: Path, bin_directory: Path | None) -> dict[str, str]:
    told = process.run(
        [_program(bin_directory, "pg_controldata"), data_directory],
        doing="Reading the control file",
        env={"LC_ALL": "C"},
    ).stdout.decode()
    found = {
        name: re.search(rf"^{label}: +(\d+)", told, re.MULTILINE)
        for name, label in _AT_LEAST_AS_ON_PRIMARY.items()
    }
    return {name: match[1] for name, match in found.items() if match}


def _last_words(log: str) -> str:
    lines = log.splitlines()
    fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
    if fatal and "contains errors" in fatal[-1]:
        return " ".join(lines[-3:])  # which errors stands before it
    return " ".join(fatal[-2:]) or " ".join(lines[-2:])


def _said(text: str) -> str:
    """The messages of a server that has no log yet, without time and process."""
    lines = (re.sub(r"^.*?\b(LOG|FATAL|DETAIL|HINT): +", "", line) for line in text.splitlines())
    return "; ".join(line for line in lines if line.strip())


def end_orphan(data_directory: Path) -> bool:
    """End the server of a data directory whose starter was killed; say whether there was one.

    Its sockets go too.
    """
    pid_file = data_directory / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        # Number, data directory, start, port, directory of the socket.
        lines = pid_file.read_text().splitlines()
        orphan = psutil.Process(int(lines[0]))
        if Path(orphan.cwd()) != data_directory.resolve():
            return False  # the number is another program's by now
        orphan.send_signal(signal.SIGQUIT)
        try:
            orphan.wait(timeout=_GRACE_SECONDS)
        except psutil.TimeoutExpired:
            orphan.kill()
        sockets = Path(lines[4])
        if sockets.name.startswith(_SOCKETS):
            shutil.rmtree(sockets, ignore_errors=True)
        return True
    return False


# --- questions ------------------------------------------------------------------------------


def databases(server: Connection) -> list[Connection]:
    """A connection to every database of the cluster that takes one."""
    names = query(server, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname")
    return [replace(server, database=name) for (name,) in names]


def check_everything(server: Connection, *, timeout_seconds: float) -> None:
    """Check every table, and every B-tree against its table, of every database; GIN since 18.

    The extension amcheck is made where it is missing, so the server must be a scratch one.

    Raises VerificationFailed, naming the first relations that are damaged, and PreconditionError
    if the files of the extension are not on this host.
    """
    version = query(server, "SELECT current_setting('server_version_num')::int / 10000")[0][0]
    try:
        told = process.run(
            [
                server.program("pg_amcheck"),
                *server.words,
                *("--all", "--install-missing", "--heapallindexed", "--parent-check"),
                *(("--checkunique",) if version >= 17 else ()),
                "--no-password",
            ],
            doing="Checking every table and index of the restored database",
            env=server.environment,
            ok_codes=(0, _DAMAGED),
        )
    except CommandFailed as error:
        if "amcheck" in error.stderr_tail and "not available" in error.stderr_tail:
            raise PreconditionError(
                "Checking every table and index: the extension amcheck is not on this host.",
                hint="Install PostgreSQL's contrib package of the server's major version.",
            ) from error
        raise
    if told.exit_code == _DAMAGED:
        said = " ".join(told.stdout.decode(errors="replace").split())
        raise VerificationFailed(
            f"Checking every table and index: {said[:600]}", hint=_collations(server)
        )
    for database in databases(server):
        _check_gin(database, timeout_seconds)


def _check_gin(server: Connection, timeout_seconds: float) -> None:
    functions = query(
        server,
        "SELECT p.oid::regproc::text FROM pg_proc p WHERE proname = 'gin_index_check'",
    )
    if not functions:
        return
    indexes = query(
        server,
        "SELECT c.oid, c.oid::regclass::text FROM pg_class c JOIN pg_am a ON a.oid = c.relam"
        " JOIN pg_index i ON i.indexrelid = c.oid"
        " WHERE a.amname = 'gin' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid",
    )
    for oid, name in indexes:
        try:
            query(
                server,
                f"SELECT {functions[0][0]}({oid}::regclass)",
                timeout_seconds=timeout_seconds,
            )
        except VerificationFailed as error:
            raise VerificationFailed(
                f"Checking every table and index: {name} in {server.database}: {error.message}"
            ) from error


def _collations(server: Connection) -> str:
    """Where an index is out of order: whether this host merely sorts otherwise."""
    differing = query(
        server,
        "SELECT datname, datcollversion, pg_database_collation_actual_version(oid)"
        " FROM pg_database"
        " WHERE datcollversion <> pg_database_collation_actual_version(oid)",
    )
    if not differing:
        return ""
    name, then, now = differing[0]
    return (
        f"This host sorts text otherwise than {name} was made with (collation version {now}, not "
        f"{then}): indexes over text look damaged here, and would be after a recovery, until "
        "REINDEX."
    )
