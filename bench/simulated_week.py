"""A week of schedules on a real Prefect server that is away for two days in its middle.

Run it as `python -m bench.simulated_week` (needs a C compiler; about 20 minutes).

The clock of the server and of the workers leaps as far as leaves each deployment due once, as soon
as all that was due has been made and has ended: so no load of the machine makes a run late.
After the outage it goes as it does on the wall, for there it matters how fast runs are claimed. The
schedules are those of prefect.yaml, applied as `lifeboat deploy` does; what runs every half hour or
more often runs every hour, except around the outage: the runs that wait at the server's return are
those of an hour as it really is. The steps are sleeps. What the server tells goes to a real web
receiver.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import loads
from pathlib import Path
from threading import Thread
from typing import Any

from cronsim import CronSim
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from bench.fifty_platforms import POOLS, SECONDS, Worker, platform_settings
from bench.shifted_clock import ShiftedClock, begin_anew_with_it
from staging.orchestrator import Orchestrator
from tasks.events import FINISHED, OBJECTIVES, emit, tell_finished
from tasks.prefect_server import automations, deployment
from tasks.prefect_server.deployment import DECLARATION

PLATFORM = "week"
WATCHED_SECONDS = 150.0
"""How long after the outage the clock goes as on the wall: the longest step takes 90 s."""
PATIENCE_SECONDS = 180.0
AS_IT_IS = timedelta(minutes=10)
"""For so long before and after the outage nothing is thinned."""
_CRON = re.compile(r'cron: "(\S+) \* \* \* \*"')


@dataclass
class Told:
    """One message that the receiver got."""

    at: datetime
    title: str


@dataclass
class Seen:
    """What the week came to; counts by the names of deployments."""

    due: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    never_made: Counter[str] = field(default_factory=Counter)
    ends: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    waiting: Counter[str] = field(default_factory=Counter)
    after: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    told: list[Told] = field(default_factory=list)
    gone_at: datetime | None = None
    back_at: datetime | None = None


def thinned(text: str) -> str:
    """Give prefect.yaml with every hour for what runs each 15 minutes or more often."""

    def rarer(match: re.Match[str]) -> str:
        often = match[1] == "*" or match[1].endswith(("/5", "/15", "/30"))
        return 'cron: "0 * * * *"' if often else match[0]

    return _CRON.sub(rarer, text)


def only_silences(text: str) -> list[Any]:
    """Of the automations those that tell of what is missing: to the others a leap is a fault."""
    declared = YAML(typ="safe").load(text)["automations"]
    return [automation for automation in declared if automation["kind"] == "silence"]


class WeekWorker(Worker):
    """Carries runs out for as long as the clock is true, and else at once; survives an outage."""

    hurried = True
    listens = False  # as long as the clock leaps, runs are due that were never announced

    def make_flow(self) -> Any:
        from prefect import flow

        @flow(validate_parameters=False)
        async def sleeps(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            if name == "watch-objectives":
                emit(OBJECTIVES, platform=PLATFORM, subject="objectives", payload={"good": True})
            else:
                tell_finished(PLATFORM, name, "simulated")

        return sleeps

    def parameters(self, name: str) -> dict[str, Any]:
        seconds = 0.0 if WeekWorker.hurried else SECONDS.get(name, 2.0)
        return {"name": name, "seconds": seconds}

    async def work(self, until: float) -> None:
        import httpx

        while time.monotonic() < until:
            try:
                await super().work(until)
            except httpx.HTTPError:  # the server is away
                await asyncio.sleep(1)


class Week:
    """The walk through it. Every moment is one of the shifted clock."""

    def __init__(self, root: Orchestrator, clock: ShiftedClock, directory: Path) -> None:
        self._root, self._clock, self._directory = root, clock, directory
        self.seen = Seen()
        self._begun_at = clock.now()
        self._crons: dict[str, list[str]] = {}

    def apply(self, text: str, address: str) -> None:
        """As `lifeboat deploy`; the walk knows from here on what is due."""
        file, told = self._directory / "prefect.yaml", self._directory / "automations.yaml"
        file.write_text(text)
        YAML().dump(
            {"automations": only_silences(automations.DECLARATION.read_text())}, told.open("w")
        )
        settings = platform_settings(PLATFORM, address)
        deployment.apply(settings, file, told)
        self._crons = {
            declared.name: [schedule.cron for schedule in declared.schedules if schedule.active]
            for declared in deployment.read_declaration(settings, file).deployments
        }

    def due_between(self, after: datetime, until: datetime) -> Iterator[tuple[datetime, list[str]]]:
        """Each moment at which something is due, with the names of what is."""
        by_moment: dict[datetime, list[str]] = defaultdict(list)
        for name, lines in self._crons.items():
            for line in lines:
                for moment in CronSim(line, after):
                    if moment > until:
                        break
                    by_moment[moment].append(name)
        yield from sorted(by_moment.items())

    async def walk(self, client: Any, until: datetime) -> None:
        """Go to that moment, in leaps in which no deployment is due twice."""
        group: dict[str, datetime] = {}
        for moment, names in self.due_between(self._clock.now(), until):
            if group.keys() & set(names):
                await self._leap(client, group)
                group = {}
            group |= dict.fromkeys(names, moment)
        await self._leap(client, group)
        self._clock.put_to(until)

    async def _leap(self, client: Any, group: dict[str, datetime]) -> None:
        if not group:
            return
        last = max(group.values())
        made = await self._until_made(client, min(group.values()), last, group.keys())
        self.seen.due.update(group.keys())
        self.seen.never_made.update(group.keys() - made)
        self._clock.put_to(last + timedelta(seconds=1))
        await self._until_ended(client)

    async def _until_made(
        self, client: Any, first: datetime, last: datetime, names: Collection[str]
    ) -> set[str]:
        """Wait until the scheduler has made what is due then; give what there is after all."""
        deadline = time.monotonic() + 60
        while True:
            runs = await self.runs(client, first - timedelta(seconds=1), last)
            there = {self.names[run["deployment_id"]] for run in runs}
            if there >= set(names) or time.monotonic() > deadline:
                return there
            await asyncio.sleep(0.1)

    async def _until_ended(self, client: Any) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while open_ones := await self.runs(
            client, self._begun_at, self._clock.now(), "SCHEDULED", "PENDING", "RUNNING"
        ):
            if time.monotonic() > deadline:
                stuck = {(self.names[run["deployment_id"]], run["state_name"]) for run in open_ones}
                raise RuntimeError(f"Simulating a week: these do not end: {sorted(stuck)}.")
            await asyncio.sleep(0.1)

    async def runs(self, client: Any, after: datetime, until: datetime, *types: str) -> list[Any]:
        """The runs that were to begin then, of these types of state or of any."""
        when = {"after_": after.isoformat(), "before_": until.isoformat()}
        asked: dict[str, Any] = {"expected_start_time": when}
        if types:
            asked["state"] = {"type": {"any_": types}}
        found: list[Any] = []
        while True:
            body = {"flow_runs": asked, "offset": len(found), "sort": "ID_DESC"}
            answer = await client._client.post("/flow_runs/filter", json=body)
            page = answer.json()
            if not page:
                return [run for run in found if run["deployment_id"] in self.names]
            found += page

    async def read_names(self, client: Any) -> None:
        self.names = {str(d.id): d.name for d in await client.read_deployments(limit=200)}

    async def outage(self, client: Any, days: float) -> None:
        """The server is away, and what it told is counted from its return."""
        self.seen.gone_at = self._clock.now()
        self._root.stack.stop(["server"])
        back = self.seen.gone_at + timedelta(days=days)
        for _, names in self.due_between(self.seen.gone_at, back):
            self.seen.missed.update(names)
        self._clock.put_to(back)
        await asyncio.to_thread(self._root.start_server)
        self.seen.back_at = self._clock.now()

    async def watch_the_return(self, client: Any) -> None:
        """Let the clock go as on the wall, and see what becomes of what waited."""
        back = self.seen.back_at
        waiting = await self.runs(client, self._begun_at, back, "SCHEDULED")
        self.seen.waiting.update(self.names[run["deployment_id"]] for run in waiting)
        await asyncio.sleep(WATCHED_SECONDS)
        known = {run["id"] for run in waiting}
        for run in await self.runs(client, self._begun_at, self._clock.now()):
            if run["id"] in known or run["expected_start_time"] > back.isoformat():
                name = self.names[run["deployment_id"]]
                if run["id"] in known:
                    self.seen.after[name][run["state_type"]] += 1
                else:
                    self.seen.due[name] += 1

    async def heard(self, client: Any) -> int:
        """How many ends of runs the server has heard of, without which nothing can be missed."""
        body = {"filter": {"event": {"name": [FINISHED]}}}
        return (await client._client.post("/events/filter", json=body)).json()["total"]

    async def count(self, client: Any) -> None:
        for run in await self.runs(client, self._begun_at, self._clock.now()):
            self.seen.ends[self.names[run["deployment_id"]]][run["state_type"]] += 1


@contextmanager
def receiver(seen: Seen, clock: ShiftedClock) -> Iterator[str]:
    """A web server that takes what is told; gives its address as Apprise writes it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.told.append(Told(clock.now(), told["title"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}/hook"
        server.shutdown()


async def live_through(week: Week, clock: ShiftedClock, address: str, *, up_days: float) -> None:
    from prefect.client.orchestration import get_client

    real, thin = DECLARATION.read_text(), thinned(DECLARATION.read_text())
    half = timedelta(days=up_days / 2)
    async with get_client() as client:
        await asyncio.to_thread(week.apply, thin, address)
        await week.read_names(client)
        by_id = {d.id: d.name for d in await client.read_deployments(limit=200)}
        workers = [WeekWorker(client, pool, PLATFORM, by_id) for pool in POOLS]
        for_ever = time.monotonic() + 86400
        working = [asyncio.create_task(worker.work(for_ever)) for worker in workers]
        try:
            begun = clock.now()
            await week.walk(client, begun + half - AS_IT_IS)
            if not await week.heard(client):
                raise RuntimeError("Simulating a week: the server hears of no run that ended well.")
            print(f"as it really is from {clock.now():%a %H:%M}", flush=True)
            await asyncio.to_thread(week.apply, real, address)
            await week.walk(client, begun + half)
            WeekWorker.hurried = False
            await week.outage(client, 2)
            print(f"the server is back: {clock.now():%a %H:%M}", flush=True)
            await week.watch_the_return(client)
            WeekWorker.hurried = True
            await week.walk(client, week.seen.back_at + AS_IT_IS)
            print(f"thinned again from {clock.now():%a %H:%M}", flush=True)
            await asyncio.to_thread(week.apply, thin, address)
            await week.walk(client, week.seen.back_at + half)
            await week.count(client)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)


def report(seen: Seen) -> None:
    table = Table(
        *("deployment", "due while up", "ended as", "never made", "due in the outage"),
        *("waiting at the return", "of them"),
    )
    for name in sorted(seen.due | seen.missed):
        ends, after = (
            ", ".join(f"{count} {kind.lower()}" for kind, count in of[name].most_common())
            for of in (seen.ends, seen.after)
        )
        counts = (seen.never_made[name], seen.missed[name], seen.waiting[name])
        never, missed, waiting = map(str, counts)
        short = name.removeprefix(f"{PLATFORM}.")
        table.add_row(short, str(seen.due[name]), ends, never, missed, waiting, after)
    console = Console(width=150)
    console.print(table)
    console.print(
        f"due while up {sum(seen.due.values())}, never made {sum(seen.never_made.values())}, "
        f"due in the outage {sum(seen.missed.values())}, "
        f"waiting at the return {sum(seen.waiting.values())}"
    )
    console.print(f"server: gone {seen.gone_at:%a %H:%M:%S}, back {seen.back_at:%a %H:%M:%S}")
    for told in seen.told:
        after = (told.at - seen.back_at).total_seconds()
        console.print(f"told {told.at:%a %H:%M:%S} ({after:+.0f} s from the return): {told.title}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulated_week", description=__doc__)
    parser.add_argument("--up-days", type=float, default=5.0, help="days with a server; 5")
    arguments = parser.parse_args()
    directory = Path(os.environ.get("SHIFTED_CLOCK", tempfile.mkdtemp(prefix="lifeboat-week-")))
    directory = directory.parent if directory.is_file() else directory
    begin_anew_with_it(directory, PREFECT_LOGGING_LEVEL="ERROR")
    POOLS.update(dict.fromkeys(POOLS, 0.3))
    clock = ShiftedClock()
    # On the hour, so that what follows is the same at any time of the day.
    soon = datetime.now(timezone.utc) + timedelta(hours=1)
    clock.put_to(soon.replace(minute=0, second=30, microsecond=0))
    settings = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2", **clock.environment}
    made = Orchestrator(directory / "prefect", platform=PLATFORM, environment=settings)
    # Ended too early, it still tells what it saw.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made.create()
    try:
        made.start_server()
        run(made, clock, directory, up_days=arguments.up_days)
    finally:
        made.destroy()


def run(made: Orchestrator, clock: ShiftedClock, directory: Path, *, up_days: float) -> None:
    # Before Prefect is imported: a thread of its own sends the events.
    os.environ |= {**made.environment(), "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        week = Week(made, clock, directory)
        with receiver(week.seen, clock) as address:
            try:
                asyncio.run(live_through(week, clock, address, up_days=up_days))
            finally:
                if week.seen.back_at:
                    report(week.seen)


if __name__ == "__main__":
    main()
