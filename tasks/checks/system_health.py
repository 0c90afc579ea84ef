"""System health: services, health endpoints, database, Redis, file storage."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Collection
from pathlib import Path

from lifeboat.core.points import Asset
from lifeboat.tools import postgres, redis
from lifeboat.tools.stacks import ServiceState, ServiceStatus
from tasks import backup, services
from tasks.checks.context import Context, Failed, required
from tasks.database import SLOT
from tasks.trees import directories_of

log = logging.getLogger("lifeboat")


def containers_running(context: Context) -> str:
    """All containers are running, and stay in the same process between two looks.

    Those that lifeboat.yaml does not list are told: it may be a job that ran once, so that they are
    no fault of a recovery. `lifeboat check` refuses them while there is time.
    """
    told, stack = context.settings.checks.containers_running, context.settings.stack
    needed = services.needed_services(context.settings)
    first = context.statuses()
    _require_running(first, needed)
    time.sleep(told.settle_seconds)
    second = context.statuses()
    _require_running(second, needed)
    restarted = [name for name in needed if second[name].pid != first[name].pid]
    if restarted:
        raise Failed(f"{', '.join(restarted)} restarted within {told.settle_seconds:g} s")
    unlisted = services.unlisted_services(context.settings, second.values())
    # A platform that runs was started by somebody; a recovered one only as lifeboat.yaml says.
    if backup.is_unproven(context.settings) and (down := _not_started(unlisted)):
        log.warning(
            "%s not running: not in lifeboat.yaml, so that the recovery did not start it. Start it "
            "yourself, or excuse it in `stack.without`.",
            ", ".join(down),
        )
    others = [name for name in stack.services if name not in needed]
    seen = [f"{n} {second[n].state if n in second else 'unknown'}" for n in others]
    seen += [f"{service.name} {service.state}, not in lifeboat.yaml" for service in unlisted]
    also = f"; besides: {', '.join(seen)}" if seen else ""
    return f"{len(needed)} of {len(needed)} run{also}"


def _require_running(statuses, needed: Collection[str]) -> None:
    down = [
        f"{name} is {statuses[name].state} {statuses[name].detail}".strip()
        if name in statuses
        else f"{name} is unknown to the stack"
        for name in needed
        if name not in statuses or statuses[name].state is not ServiceState.RUNNING
    ]
    if down:
        raise Failed("; ".join(down))


def _not_started(unlisted: Collection[ServiceStatus]) -> list[str]:
    return [s.name for s in unlisted if s.state is not ServiceState.RUNNING]


def health_endpoints(context: Context) -> str:
    """Health check endpoints return 200."""
    told = required(context.settings.checks.health_endpoints, "health_endpoints")
    with context.client(told.session) as client:
        return "; ".join(f"{r.url} {client.send(r).in_words()}" for r in told.requests)


def database_connections(context: Context) -> str:
    """Connections work, writes are taken, commits do not hang, and there is room for more."""
    server, limit = context.database, context.settings.checks.database_connections
    began = time.monotonic()
    [(in_recovery, read_only, used, most, waits_for)] = postgres.query(
        server,
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only'),"
        " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
        " current_setting('max_connections')::int, current_setting('synchronous_standby_names')",
    )
    seconds = time.monotonic() - began
    if in_recovery:
        raise Failed("the server is in recovery and takes no writes")
    if read_only == "on":
        raise Failed("default_transaction_read_only is on: it takes no writes")
    if waits_for and not _receiver_streams(server):
        raise Failed(
            f"commits hang: they wait for {waits_for}, which does not stream; "
            "`lifeboat wal asynchronous` lets them go on"
        )
    percent = 100 * used / most
    if percent > limit.max_used_percent:
        raise Failed(f"{used} of {most} connections are in use ({percent:.0f} %)")
    return f"answered in {seconds * 1000:.0f} ms; {used} of {most} connections in use"


def _receiver_streams(server: postgres.Connection) -> bool:
    """Whether the receiver is there; a moment without one is no outage."""
    for _ in range(10):
        found = postgres.receiver_of(server, SLOT)
        if found and found.state == "streaming":
            return True
        time.sleep(0.2)
    return False


def redis_reachable(context: Context) -> str:
    """Redis is accessible and keeps what it is given."""
    told = required(context.settings.checks.redis_reachable, "redis_reachable")
    seconds = redis.round_trip(
        host=told.host,
        port=told.port,
        database=told.database,
        user=context.settings.fill(told.user),
        password=context.settings.fill(told.password),
        tls=told.tls,
        timeout_seconds=context.settings.checks.timeout_seconds / 2,
    )
    return f"a key was written, read and removed in {seconds * 1000:.0f} ms"


def file_storage_reachable(context: Context) -> str:
    """Each directory can be listed, and a probe file written, read and removed."""
    seen = []
    for name, path in directories_of(context.settings, Asset.FILES).items():
        if not path.is_dir():
            raise Failed(f"{name}: {path} is not a directory")
        entries = sum(1 for _ in os.scandir(path))
        _probe(path)
        seen.append(f"{name}: {entries} entries, probe written and read")
    return "; ".join(seen)


def _probe(directory: Path) -> None:
    probe, data = directory / f".lifeboat-probe-{secrets.token_hex(6)}", secrets.token_bytes(4096)
    try:
        with probe.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if probe.read_bytes() != data:
            raise Failed(f"{directory} gave other bytes back than were written")
    except OSError as error:
        raise Failed(f"{directory}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
