"""Base copies by PostgreSQL's own programs: made, and proven block by block.

Source: PostgreSQL manual, pages of pg_basebackup and pg_verifybackup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lifeboat.core.errors import CommandFailed, PreconditionError, VerificationFailed
from lifeboat.tools import process
from lifeboat.tools.postgres import server as running
from lifeboat.tools.postgres.server import Connection

_MANIFEST = "backup_manifest"


@dataclass(frozen=True)
class BaseBackup:
    """What `pg_basebackup` made; it is consistent once the WAL from start to stop is replayed."""

    timeline: int
    start_lsn: str
    stop_lsn: str
    started_at: datetime
    stopped_at: datetime


def tools_version(bin_directory: Path | None, program: str = "pg_basebackup") -> int:
    """Major version of PostgreSQL's programs on this host. Raises PreconditionError if missing."""
    name = str(bin_directory / program) if bin_directory else program
    told = process.run([name, "--version"], doing="Asking for its version", timeout_seconds=30)
    match = re.search(r"\) (\d+)", told.stdout.decode())
    if not match:
        raise PreconditionError(f"Asking {name} for its version: it said {told.stdout[:80]!r}.")
    return int(match[1])


def require_same_major(server: Connection) -> None:
    """Raise PreconditionError if the programs and the server are of different major versions.

    A dump or copy by another version's program can fail in silence.
    """
    ours = tools_version(server.bin_directory)
    theirs = running.identify(server).major
    if ours != theirs:
        raise PreconditionError(
            f"Comparing versions: the server is PostgreSQL {theirs}, the programs in "
            f"{server.bin_directory or 'PATH'} are of PostgreSQL {ours}.",
            hint=f"Install the programs of PostgreSQL {theirs} and set database.bin_directory.",
        )


def base_backup(
    server: Connection,
    directory: Path,
    *,
    label: str,
    on_progress: Callable[[str], None] | None = None,
) -> BaseBackup:
    """Copy the running cluster into `directory`, with the WAL that makes it consistent.

    What is in the directory is durable when this returns. Raises PreconditionError for a cluster
    with tablespaces: their files lie elsewhere, and a rename would not bring them.
    """
    spaces = running.query(server, "SELECT count(*) FROM pg_tablespace WHERE spcname !~ '^pg_'")
    if spaces[0][0]:
        raise PreconditionError(
            f"Copying the database: it has {spaces[0][0]} tablespaces outside of its directory.",
            hint="Move their tables into the data directory; tablespaces are not supported.",
        )
    started_at = running.now(server)
    process.run(
        [
            server.program("pg_basebackup"),
            *server.words,
            *("--pgdata", directory, "--format=plain", "--wal-method=stream"),
            *("--checkpoint=fast", "--manifest-checksums=CRC32C", "--label", label),
            *("--no-password", "--progress"),
        ],
        doing=f"Copying the database at {server.host}:{server.port}",
        env=server.environment,
        secrets=[server.password],
        on_error_line=on_progress,
    )
    stopped_at = running.now(server)
    manifest = json.loads((directory / _MANIFEST).read_bytes())
    [wal] = manifest["WAL-Ranges"][-1:]
    return BaseBackup(
        timeline=wal["Timeline"],
        start_lsn=manifest["WAL-Ranges"][0]["Start-LSN"],
        stop_lsn=wal["End-LSN"],
        started_at=started_at,
        stopped_at=stopped_at,
    )


def verify_backup(directory: Path, bin_directory: Path | None, *, checksums: bool = True) -> None:
    """Read every file of a base copy and compare it with the manifest.

    Without `checksums` only which files there are and how long they are, which takes a moment.
    Raises VerificationFailed, naming the first files that differ.
    """
    program = str(bin_directory / "pg_verifybackup") if bin_directory else "pg_verifybackup"
    if not (directory / _MANIFEST).exists():
        raise VerificationFailed(f"Verifying the base copy {directory}: it has no {_MANIFEST}.")
    try:
        process.run(
            # The WAL is proven by itself, against what the vault has.
            [
                *(program, "--quiet", "--no-parse-wal"),
                *(() if checksums else ("--skip-checksums",)),
                directory,
            ],
            doing=f"Verifying the base copy {directory}",
        )
    except CommandFailed as error:
        raise VerificationFailed(
            f"Verifying the base copy {directory}: it is damaged. {_first(error.stderr_tail)}",
            hint="It is not used. The next copy is tried, or choose another recovery point.",
        ) from error


def read_every_block(server: Connection) -> None:
    """Read the whole running cluster and check the checksum of every block.

    Through the replication protocol, so that nothing is written and nothing is installed beside
    the server; it sees what lies on disk, also where the server has a good page in memory. It
    passes over pages that say they are newer than its own beginning, as garbage may: those are
    found by reading every row. Raises VerificationFailed, naming files, tables or indexes.
    """
    running.read_every_row(server)
    try:
        process.run(
            [
                server.program("pg_basebackup"),
                *server.words,
                *("--target=blackhole", "--wal-method=none", "--checkpoint=fast"),
                *("--no-password", "--no-manifest", "--label=lifeboat reads every block"),
            ],
            doing="Reading every block of the database",
            env=server.environment,
            secrets=[server.password],
        )
    except CommandFailed as error:
        if "checksum" in error.stderr_tail or "could not read" in error.stderr_tail:
            raise VerificationFailed(
                f"Reading every block of the database: {_first(error.stderr_tail)}"
            ) from error
        raise


def _first(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    more = f" (and {len(lines) - 3} more lines)" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more
