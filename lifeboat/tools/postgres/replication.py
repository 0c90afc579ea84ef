"""The WAL on its way out of a running server: the slot that keeps it, and its receiver.

Source: PostgreSQL manual, pages of pg_receivewal, pg_replication_slots and pg_stat_replication.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from lifeboat.core.errors import PreconditionError
from lifeboat.core.wal import Position, Segment, parse_lsn
from lifeboat.tools import process
from lifeboat.tools.postgres.server import Connection, identify, query

LOST = "lost"
_STATUS_SECONDS = 2  # how often the receiver tells the server how far it is


@dataclass(frozen=True)
class Receiver:
    """A WAL receiver as the server sees it."""

    state: str  # startup, catchup, streaming, ...
    synchronous: bool
    written_lsn: int | None  # what it has told to have written; told every 2 s, if not synchronous
    lag_bytes: int  # how much more the server has flushed than it has told to have written
    lag_seconds: float  # between the server's flushing something and hearing that it is written
    replied_at: float | None  # by the receiver's clock, seconds since the epoch

    @property
    def silent_seconds(self) -> float | None:
        """Since when it has not replied, as seen from the receiver's own host."""
        return None if self.replied_at is None else max(0.0, time.time() - self.replied_at)


@dataclass(frozen=True)
class Slot:
    """The slot that keeps WAL until the receiver has it."""

    wal_status: str  # reserved, extended, unreserved, lost
    in_use: bool
    restart_lsn: int | None
    kept_bytes: int  # WAL from there to the newest

    @property
    def lost(self) -> bool:
        return self.wal_status == LOST


@dataclass(frozen=True)
class Flushed:
    """How far a server has made its WAL durable."""

    position: Position
    segment: str  # the file that its last byte is in


def flushed_to(server: Connection) -> Flushed:
    """How far the WAL goes that would survive a crash.

    Raises PreconditionError while the server is replaying WAL itself.
    """
    identity = identify(server)
    if identity.in_recovery:
        raise PreconditionError("Asking how far the WAL goes: the database is in recovery.")
    [(text,)] = query(server, "SELECT pg_current_wal_flush_lsn()::text")
    lsn, size = parse_lsn(text), identity.wal_segment_bytes
    return Flushed(
        position=Position(identity.system_identifier, identity.timeline, lsn),
        segment=Segment(identity.timeline, max(0, lsn - 1) // size).name(size),
    )


# --- the slot -------------------------------------------------------------------------------


def slot_of(server: Connection, name: str) -> Slot | None:
    """The slot as it is; None if there is no such slot."""
    found = query(
        server,
        "SELECT coalesce(wal_status, 'reserved'), active, restart_lsn::text,"
        " CASE WHEN pg_is_in_recovery() THEN 0"
        " ELSE coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0) END::bigint"
        " FROM pg_replication_slots WHERE slot_name = %s",
        [name],
    )
    if not found:
        return None
    status, active, restart, kept = found[0]
    return Slot(
        wal_status=status,
        in_use=active,
        restart_lsn=parse_lsn(restart) if restart else None,
        kept_bytes=max(0, kept),
    )


def slot_cap_bytes(server: Connection) -> int | None:
    """How much WAL a slot may keep before it is lost (max_slot_wal_keep_size); None: no limit."""
    [(megabytes,)] = query(
        server, "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'"
    )
    return None if megabytes < 0 else megabytes << 20


def ensure_slot(server: Connection, name: str) -> bool:
    """Make the physical slot that keeps WAL for the receiver; one that lost WAL is made anew.

    Says whether one was lost: then there may be a hole before what it keeps from now on.
    """
    slot = slot_of(server, name)
    lost = slot is not None and slot.lost and not slot.in_use
    if lost:
        drop_slot(server, name)
    if slot is None or lost:
        query(server, "SELECT pg_create_physical_replication_slot(%s, true)", [name])
    return lost


def drop_slot(server: Connection, name: str) -> None:
    query(
        server,
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
        [name],
    )


def slot_restart_lsn(server: Connection, name: str) -> int | None:
    """Where the receiver of a slot begins; None if there is no such slot."""
    slot = slot_of(server, name)
    return slot.restart_lsn if slot else None


def free_slot(server: Connection, name: str) -> None:
    """End the server's side of whoever uses the slot: its own side may be gone, or hang."""
    query(
        server,
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
        " WHERE slot_name = %s AND active_pid IS NOT NULL",
        [name],
    )


# --- the receiver ---------------------------------------------------------------------------


def receiver_of(server: Connection, name: str) -> Receiver | None:
    """The receiver that is connected under an application name; None if none is."""
    found = query(
        server,
        "SELECT state, sync_state IN ('sync', 'quorum'), write_lsn::text,"
        " CASE WHEN pg_is_in_recovery() THEN 0"
        " ELSE coalesce(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), write_lsn), 0) END::bigint,"
        " coalesce(extract(epoch FROM write_lag), 0)::float, extract(epoch FROM reply_time)::float"
        " FROM pg_stat_replication WHERE application_name = %s"
        " ORDER BY reply_time DESC NULLS LAST",
        [name],
    )
    if not found:
        return None
    state, synchronous, written, lag, lag_seconds, replied_at = found[0]
    return Receiver(
        state=state or "startup",
        synchronous=bool(synchronous),
        written_lsn=parse_lsn(written) if written else None,
        lag_bytes=max(0, lag),
        lag_seconds=lag_seconds,
        replied_at=replied_at,
    )


def set_asynchronous(server: Connection, name: str) -> None:
    """Let no commit wait for the receiver of that name any more; who waits for others goes on."""
    [(now_set,)] = query(server, "SELECT current_setting('synchronous_standby_names')")
    if now_set == name:
        set_synchronous(server, "")


def set_synchronous(server: Connection, name: str) -> None:
    """Let commits wait for the receiver of that name; empty: let them wait for none."""
    [(now_set,)] = query(server, "SELECT current_setting('synchronous_standby_names')")
    if now_set == name:
        return
    value = sql.Literal(name).as_string(None)
    query(server, f"ALTER SYSTEM SET synchronous_standby_names = {value}")
    reload(server)


def reload(server: Connection) -> None:
    """Let the server read its settings anew."""
    query(server, "SELECT pg_reload_conf()")


def receive_wal(
    server: Connection,
    directory: Path,
    *,
    slot: str,
    name: str,
    synchronous: bool,
    on_line: Callable[[str], None],
    on_look: Callable[[], None] | None = None,
) -> None:
    """Receive WAL into a directory until the server goes away; then return.

    `on_look` is called several times a second and may raise, which ends the receiver. Raises
    CommandFailed if it could not begin, or was killed.
    """
    conninfo = (
        f"host={server.host} port={server.port} user={server.user} application_name={name} "
        "connect_timeout=5 keepalives_idle=5 keepalives_interval=5 keepalives_count=3"
    )
    process.run(
        [
            server.program("pg_receivewal"),
            *("--directory", directory, "--slot", slot, "--dbname", conninfo),
            *("--no-loop", "--no-password", f"--status-interval={_STATUS_SECONDS}"),
            *(("--synchronous",) if synchronous else ()),
        ],
        doing="Receiving WAL",
        env=server.environment,
        secrets=[server.password],
        on_error_line=on_line,
        on_look=on_look,
        ok_codes=(0, 1),
    )
