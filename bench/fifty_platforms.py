"""Fifty platforms on one Prefect server: how late their runs begin, and what the server needs.

Run it as `python -m bench.fifty_platforms --platforms 50 --minutes 6`.

All schedules of prefect.yaml are applied once for each platform. What runs every minute or every
five does so here too; of what runs less often one run is due within the measured minutes, in the
same minute for all platforms, as at midnight on the first of a month. Two workers for each platform
listen and ask as real ones do, and carry each run out by Prefect's own engine, in this process
instead of in one of its own for each run: the processes would be on fifty other hosts. The steps
are sleeps.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from lifeboat.settings.alarms import Alarms, Channel
from lifeboat.settings.model import Watch
from staging import processes
from staging.orchestrator import Orchestrator
from tasks.prefect_server.deployment import DECLARATION

POOLS = {"lifeboat-backups": 2.0, "lifeboat-recoveries": 0.5}
"""How many seconds a worker of each waits between two questions, while it hears nothing."""
PREFETCH_SECONDS = 10.0
HEARTBEAT_SECONDS = 30.0
APPLIED_AT_ONCE = 6
SECONDS = {
    "backup-database": 30.0,
    "backup-platform": 45.0,
    "backup-files": 10.0,
    "test-restore": 60.0,
    "prune-backups": 10.0,
    "drill": 90.0,
}
"""How long a run of a flow takes, in five steps; what is not named takes 2 s, in one."""


@dataclass
class Load:
    """What the server and its database needed, sampled every second."""

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    resident_bytes: dict[str, int] = field(default_factory=dict)


def is_rare(cron: str) -> bool:
    """Whether a schedule comes less often than every five minutes."""
    minute, hour, *_ = cron.split()
    return not (hour == "*" and (minute == "*" or minute.endswith("/5")))


def flow_of_sleeps() -> Any:
    """A flow of a few steps that take as long as it is told, with a line in the log for each."""
    from prefect import flow, get_run_logger, task

    @task
    async def step(number: int, seconds: float) -> None:
        get_run_logger().info("step %s begins", number)
        await asyncio.sleep(seconds)

    @flow(validate_parameters=False)
    async def sleeps(seconds: float, steps: int) -> None:
        for number in range(steps):
            await step(number, seconds / steps)

    return sleeps


def platform_settings(platform: str, address: str) -> Any:
    """What `lifeboat deploy` reads of a platform's lifeboat.yaml, with one channel for alarms."""
    return SimpleNamespace(
        platform=platform,
        file=Path(f"/srv/{platform}/lifeboat.yaml"),
        alarms=Alarms(channels=(Channel(name="hook", url=address),)),
        watch=Watch(),
        fill=str,
    )


def _with_channel(platform: str) -> Any:
    return platform_settings(platform, "json://127.0.0.1:9/hook")


@contextlib.contextmanager
def _told_of_trouble(platform: str) -> Iterator[None]:
    """A server that has no time for a question is no reason to stop asking."""
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        yield
    except (PrefectHTTPStatusError, httpx.TransportError) as error:
        logging.getLogger("bench").warning("%s: %r", platform, error)


class Worker:
    """One platform's worker at one pool, as a coroutine."""

    listens = True  # else it asks all the time

    def __init__(self, client: Any, pool: str, platform: str, names: dict[Any, str]) -> None:
        self._client, self._pool, self._platform = client, pool, platform
        self._names = names
        self._sleeps = self.make_flow()
        self._running: dict[Any, asyncio.Task] = {}

    def make_flow(self) -> Any:
        return flow_of_sleeps()

    def parameters(self, name: str) -> dict[str, Any]:
        """What the flow is given in place of the procedure of this name."""
        return {"seconds": SECONDS.get(name, 2.0), "steps": 5 if name in SECONDS else 1}

    async def work(self, until: float) -> None:
        from tasks.prefect_server.announcements import Announcements

        announcements = Announcements(self._pool, self._platform, self._ask)
        tasks = [asyncio.create_task(announcements.listen())] if self.listens else []
        told_at = 0.0
        while time.monotonic() < until:
            begun = time.monotonic()
            if begun - told_at > HEARTBEAT_SECONDS:
                await self._tell_that_it_lives()
                told_at = begun
            if announcements.is_time_to_ask:
                await announcements.ask()
            await asyncio.sleep(max(0.0, POOLS[self._pool] - (time.monotonic() - begun)))
        tasks += self._running.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell_that_it_lives(self) -> None:
        with _told_of_trouble(self._platform):
            await self._client.send_worker_heartbeat(
                self._pool, f"{self._platform}-{self._pool}", HEARTBEAT_SECONDS
            )

    async def _ask(self) -> list[Any]:
        due: list[Any] = []
        with _told_of_trouble(self._platform):
            due = await self._client.get_scheduled_flow_runs_for_work_pool(
                self._pool,
                work_queue_names=[self._platform],
                scheduled_before=datetime.now(timezone.utc) + timedelta(seconds=PREFETCH_SECONDS),
            )
        for answer in due:
            run = answer.flow_run
            if run.id not in self._running:
                self._running[run.id] = asyncio.create_task(self._carry_out(run))
        return due

    async def _carry_out(self, run: Any) -> None:
        """As a worker: claim it, look it up once more, then hand it to the engine."""
        from prefect.client.orchestration import get_client
        from prefect.flow_engine import run_flow
        from prefect.states import Pending

        await self._client.read_deployment(run.deployment_id)
        claimed = await self._client.set_flow_run_state(run.id, Pending())
        if claimed.status.value != "ACCEPT":
            return
        name = self._names[run.deployment_id].rpartition(".")[2]
        async with get_client() as own:
            run = await own.read_flow_run(run.id)
        await run_flow(
            self._sleeps,
            flow_run=run,
            parameters=self.parameters(name),
            return_type="state",
        )


async def measure(root: Orchestrator, platforms: list[str], minutes: int) -> Any:
    """Give the runs that were due in the minutes, the names of deployments, and the load."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        found: list[Any] = []
        while page := await client.read_deployments(offset=len(found)):
            found += page
        names = {deployment.id: deployment.name for deployment in found}
        await drop_what_is_due_before(client, datetime.now(timezone.utc))
        ahead = timedelta(seconds=90 + 2 * len(platforms))
        first = (datetime.now(timezone.utc) + ahead).replace(second=0, microsecond=0)
        last = first + timedelta(minutes=minutes)
        await make_rare_runs(client, found, first, minutes)
        await asyncio.sleep((first - datetime.now(timezone.utc)).total_seconds() - 30)
        await drop_what_is_due_before(client, first - timedelta(seconds=1))
        print(f"measuring {minutes} minutes from {first:%H:%M:%S}", flush=True)
        if datetime.now(timezone.utc) > first:
            raise SystemExit("Making the runs took too long: try it with fewer platforms.")
        # The last runs get half a minute to begin in.
        until = time.monotonic() + (last - datetime.now(timezone.utc)).total_seconds() + 30
        load = Load()
        watching = asyncio.create_task(sample(root, first, last, load))
        async with contextlib.AsyncExitStack() as stack:
            # A client for each: a hundred workers at the few connections of one would wait for it.
            workers = [
                Worker(await stack.enter_async_context(get_client()), pool, name, names)
                for name in platforms
                for pool in POOLS
            ]
            await asyncio.gather(*(worker.work(until) for worker in workers))
        await watching
        return await due_runs(client, first, last), names, load


async def make_rare_runs(
    client: Any, deployments: list[Any], first: datetime, minutes: int
) -> None:
    """One run of each rare schedule, in the same minute for all platforms."""
    from prefect.states import Scheduled

    rare: dict[str, list[Any]] = defaultdict(list)
    for deployment in deployments:
        if any(is_rare(schedule.schedule.cron) for schedule in deployment.schedules):
            rare[deployment.name.rpartition(".")[2]].append(deployment)
    for number, same in enumerate(rare.values()):
        # Not in the last minute: what begins then is not over when the measuring ends.
        at = first + timedelta(minutes=number % (minutes - 1))
        await asyncio.gather(
            *(
                client.create_flow_run_from_deployment(one.id, state=Scheduled(scheduled_time=at))
                for one in same
            )
        )


async def drop_what_is_due_before(client: Any, moment: datetime) -> None:
    """Remove the runs of the minutes in which the platforms were applied: nobody was there yet."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterExpectedStartTime

    early = FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(before_=moment))
    while page := await client.read_flow_runs(flow_run_filter=early, limit=200):
        await asyncio.gather(*(client.delete_flow_run(run.id) for run in page))


async def sample(root: Orchestrator, first: datetime, last: datetime, load: Load) -> None:
    """Sum up the processor time between the two moments, and the most memory."""
    await asyncio.sleep(max(0.0, (first - datetime.now(timezone.utc)).total_seconds()))
    before = cpu_of(root)
    while datetime.now(timezone.utc) < last:
        for name, members in parts(root).items():
            resident = sum(_asked(member, "memory_info", 0).rss for member in members)
            load.resident_bytes[name] = max(load.resident_bytes.get(name, 0), resident)
        await asyncio.sleep(5)
    load.cpu_seconds = {name: spent - before[name] for name, spent in cpu_of(root).items()}


def parts(root: Orchestrator) -> dict[str, list[psutil.Process]]:
    """Processes by what they are. Raises RuntimeError if there is no server: 0 would be a lie."""
    by_part: dict[str, list[psutil.Process]] = {"server": [], "database": [], "workers": []}
    for supervisor in processes.processes_of(root.directory):
        if any(word.endswith("supervisord.conf") for word in _command_of(supervisor)):
            for member in supervisor.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    is_database = "postgres" in member.name()
                    by_part["database" if is_database else "server"].append(member)
    if not by_part["server"] or not by_part["database"]:
        raise RuntimeError("Measuring the load: the server's processes are not there.")
    by_part["workers"].append(psutil.Process())
    return by_part


def cpu_of(root: Orchestrator) -> dict[str, float]:
    return {
        # With that of children which have ended, as the database's sessions do.
        name: sum(sum(_asked(member, "cpu_times", (0, 0, 0, 0))[:4]) for member in members)
        for name, members in parts(root).items()
    }


def _command_of(member: psutil.Process) -> list[str]:
    try:
        return member.cmdline()
    except psutil.Error:  # a session of the database that has ended since
        return []


def _asked(member: psutil.Process, what: str, otherwise: Any) -> Any:
    try:
        return getattr(member, what)()
    except psutil.Error:
        return SimpleNamespace(rss=otherwise) if what == "memory_info" else otherwise


async def due_runs(client: Any, first: datetime, last: datetime) -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterExpectedStartTime

    wanted = FlowRunFilter(
        expected_start_time=FlowRunFilterExpectedStartTime(
            after_=first, before_=last - timedelta(seconds=1)
        )
    )
    found: list[Any] = []
    while page := await client.read_flow_runs(flow_run_filter=wanted, offset=len(found)):
        found += page
    return found


def report(runs: list[Any], names: dict[Any, str], load: Load, minutes: int) -> None:
    late: dict[str, list[float]] = defaultdict(list)
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        name = names[run.deployment_id].rpartition(".")[2]
        ends[name][run.state_type.value] += 1
        if run.start_time is not None:
            # A run of a schedule keeps the time it was due; its `expected` one may have moved.
            due = run.expected_start_time
            late[name].append((run.start_time - due).total_seconds())
    table = Table("deployment", "runs", "median s late", "p99", "most", "ended as")
    all_late = sorted(second for seconds in late.values() for second in seconds)
    for name, seconds in (*sorted(late.items()), ("all", all_late)):
        kinds = ends[name] if name != "all" else sum(ends.values(), Counter())
        table.add_row(
            name,
            str(sum(kinds.values())),
            f"{statistics.median(seconds):.2f}",
            f"{sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * 0.99))]:.2f}",
            f"{max(seconds):.2f}",
            ", ".join(f"{count} {kind.lower()}" for kind, count in kinds.most_common()),
        )
    console = Console(width=120)
    console.print(table)
    for name in load.cpu_seconds:
        console.print(
            f"{name}: {load.cpu_seconds[name] / (minutes * 60):.2f} of one core, "
            f"{load.resident_bytes.get(name, 0) / 1e6:.0f} MB at most"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fifty_platforms", description=__doc__)
    parser.add_argument("--platforms", type=int, default=50)
    parser.add_argument("--minutes", type=int, default=6)
    arguments = parser.parse_args()
    platforms = [f"platform-{number:02d}" for number in range(1, arguments.platforms + 1)]
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as directory:
        made = Orchestrator(Path(directory) / "prefect", platform=platforms[0], environment={})
        made.create()
        try:
            made.start_server()
            run(made, platforms, arguments.minutes)
        finally:
            made.destroy()


def run(made: Orchestrator, platforms: list[str], minutes: int) -> None:
    # Before Prefect is imported: threads of their own apply, and send events.
    os.environ |= made.environment()

    from tasks.prefect_server import deployment

    begun = time.monotonic()
    deployment.apply(_with_channel(platforms[0]), DECLARATION)  # alone: it imports the flows
    with ThreadPoolExecutor(APPLIED_AT_ONCE) as several:
        list(
            several.map(
                lambda name: deployment.apply(_with_channel(name), DECLARATION), platforms[1:]
            )
        )
    print(f"applied {len(platforms)} platforms in {time.monotonic() - begun:.0f} s", flush=True)
    runs, names, load = asyncio.run(measure(made, platforms, minutes))
    report(runs, names, load, minutes)


if __name__ == "__main__":
    main()
