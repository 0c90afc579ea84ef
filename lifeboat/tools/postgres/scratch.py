"""A restored cluster on the side: started behind a private socket, questioned, ended for sure."""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil

from lifeboat.core.errors import PermanentError, VerificationFailed
from lifeboat.tools import process
from lifeboat.tools.postgres.server import Connection, query, wait_until_ready

_PORT = 5432  # names the socket's file only: no TCP port is opened
_GRACE_SECONDS = 20.0
_DAMAGED = 2  # exit code of pg_amcheck
# A standby refuses to open with less than its primary had; the control file knows how much.
_AT_LEAST_AS_ON_PRIMARY = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}


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

    With `at_backup` it stays, read-only, where the backup ended; without, it replays what was
    staged and takes writes. It listens on no port, only on a socket in a directory that is ours
    alone, so that no password is needed and nobody else gets in. It knows nothing of archives and
    standbys. It is ended, and its socket removed, however the block ends. `user` may be any role
    that exists in it.
    """
    with tempfile.TemporaryDirectory(prefix="lifeboat-") as sockets:
        access = Path(sockets) / "pg_hba.conf"
        access.write_text("local all all trust\n")
        told = {
            "listen_addresses": "",
            "unix_socket_directories": sockets,
            "port": str(_PORT),
            "hba_file": str(access),
            "synchronous_standby_names": "",
            "archive_mode": "off",
            "fsync": "off",
            "ssl": "off",
            "shared_preload_libraries": "",
            "logging_collector": "off",
            "hot_standby": "on",
            **_as_on_primary(data_directory, bin_directory),
        }
        if at_backup:
            (data_directory / "recovery.signal").touch()
            told |= {"recovery_target": "immediate", "recovery_target_action": "pause"}
            told |= {"restore_command": "false"}
        # Debian keeps it elsewhere; then the defaults will do.
        (data_directory / "postgresql.conf").touch()
        with process.start(
            process.unprivileged(
                [
                    str(bin_directory / "postgres") if bin_directory else "postgres",
                    *("-D", data_directory),
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
                why_not=lambda: None if daemon.alive else _last_words(log_path),
                read_only=at_backup,
            )
            try:
                yield replace(server, user=_superuser(server))
            finally:
                daemon.stop(sig=signal.SIGINT, grace_seconds=_GRACE_SECONDS)


def _superuser(server: Connection) -> str:
    found = query(server, "SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin")
    if not found:
        raise PermanentError("Asking the restored database: no superuser may log in.")
    return found[0][0]


def _as_on_primary(data_directory: Path, bin_directory: Path | None) -> dict[str, str]:
    program = str(bin_directory / "pg_controldata") if bin_directory else "pg_controldata"
    told = process.run(
        [program, data_directory], doing="Reading the control file", env={"LC_ALL": "C"}
    ).stdout.decode()
    found = {
        name: re.search(rf"^{label}: +(\d+)", told, re.MULTILINE)
        for name, label in _AT_LEAST_AS_ON_PRIMARY.items()
    }
    return {name: match[1] for name, match in found.items() if match}


def _last_words(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines()
    fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
    return " ".join(fatal[-2:]) or " ".join(lines[-2:])


def end_orphan(data_directory: Path) -> bool:
    """End the server of a data directory whose starter was killed; say whether there was one."""
    pid_file = data_directory / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        orphan = psutil.Process(int(pid_file.read_text().split()[0]))
        if Path(orphan.cwd()) != data_directory.resolve():
            return False  # the number is another program's by now
        orphan.send_signal(signal.SIGQUIT)
        try:
            orphan.wait(timeout=_GRACE_SECONDS)
        except psutil.TimeoutExpired:
            orphan.kill()
        return True
    return False


def check_everything(server: Connection) -> None:
    """Check every heap and every B-tree of every database, each row against its index entries.

    Raises VerificationFailed, naming the first relations that are damaged.
    """
    told = process.run(
        [
            server.program("pg_amcheck"),
            *server.words,
            *("--all", "--install-missing", "--heapallindexed", "--no-password"),
        ],
        doing="Checking every table and index of the restored database",
        env=server.environment,
        ok_codes=(0, _DAMAGED),
    )
    if told.exit_code == _DAMAGED:
        said = " ".join(told.stdout.decode(errors="replace").split())
        raise VerificationFailed(f"Checking every table and index: {said[:600]}")
