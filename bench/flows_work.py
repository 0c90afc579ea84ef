"""Lifeboat's own flows: what each costs outside its steps, and what each step holds in memory."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bench import ours
from bench.ours import Told
from bench.parts import Asked, everything_backed_up
from bench.world import World
from lifeboat.core.timeline import outside_steps_seconds
from staging import faults
from staging.orchestrator import Orchestrator
from staging.site import BUCKET, PLATFORM

_WANTED_SHARE, _WANTED_SECONDS = 0.05, 2.0


@dataclass(frozen=True)
class Flow:
    """One command, and what has to happen before it, which is not timed."""

    words: str
    before: Callable[[World, int], object] = lambda world, number: None

    @property
    def name(self) -> str:
        return " ".join(word for word in self.words.split("--")[0].split())


def flows(world: World) -> tuple[Flow, ...]:
    approved = f"--approve {PLATFORM}"
    server = f"--into {world.server} --bucket {BUCKET} --endpoint {world.s3.endpoint}"
    return (
        Flow("backup database"),
        Flow("backup files"),
        Flow("backup models --always"),
        Flow("backup config --always"),
        Flow("backup platform"),
        Flow(
            f"recover files {approved}",
            lambda world, number: faults.damage_files(world, seed=number, share=0.01),
        ),
        Flow(f"recover models {approved}", lambda world, _: faults.delete_models(world)),
        Flow(
            f"recover database {approved}",
            lambda world, _: faults.destroy_data_directory(world),
        ),
        Flow(f"recover server {server} {approved}", _lose_server),
    )


def _lose_server(world: World, number: int) -> None:
    ours.run(world, "wal ship", alone=False)
    world.lose_server()


def _runs(
    world: World, rounds: int, environments: Mapping[str, Mapping[str, str] | None]
) -> Iterator[tuple[str, str, Told]]:
    """(how, flow, what was told) of every flow, so many times, each way in turn."""
    everything_backed_up(world)
    for number in range(rounds):
        for flow in flows(world):
            for how, environment in environments.items():
                flow.before(world, number)
                told = ours.run(
                    world, flow.words, environment=environment, alone=environment is None
                )
                if flow.name == "recover server":
                    world.stack.stop(["keeper"])
                yield how, flow.name, told


def measure_overhead(world: World, asked: Asked) -> Iterator[str]:
    """Seconds in which no step was at work: alone, and under a Prefect server on PostgreSQL."""
    server = Orchestrator(world.peers / "prefect", platform="bench", environment={})
    server.create()
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    try:
        server.start_server()
        ways = {"alone": None, "Prefect": server.environment()}
        for how, name, told in _runs(world, asked.rounds, ways):
            whole = told.sample.seconds
            steps = told.record.steps if told.record else ()
            outside = outside_steps_seconds(told.began_at, told.began_at + whole, steps)
            found[name][how].append((whole, outside))
    finally:
        server.destroy()
    yield "Seconds outside the steps' own work, from the start of the command to its end: Python's"
    yield "start, imports, settings, journal, Prefect. Wanted: at most 5 % or 2 s of any flow."
    yield ""
    yield "| flow | alone s | outside s | share | under Prefect s | outside s | share | as wanted |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for name, ways_of in found.items():
        cells, good = "", True
        for samples in ways_of.values():
            whole, outside = (statistics.median(column) for column in zip(*samples, strict=True))
            share = outside / whole
            good &= share <= _WANTED_SHARE or outside <= _WANTED_SECONDS
            cells += f" {whole:.1f} | {outside:.2f} | {share:.0%} |"
        yield f"| {name} |{cells} {'yes' if good else 'NO'} |"


def measure_memory(world: World, asked: Asked) -> Iterator[str]:
    """What all processes of a command held while each of its steps was at work."""
    peaks: dict[str, dict[str, float]] = defaultdict(dict)
    for _, name, told in _runs(world, asked.rounds, {"alone": None}):
        held = peaks[name]
        held["(the whole)"] = max(held.get("(the whole)", 0.0), told.sample.peak_mb)
        for step in told.record.steps if told.record else ():
            at_work = [
                megabytes
                for at, megabytes in told.sample.memory
                if step.began_at <= at <= step.ended_at
            ]
            if at_work:
                held[step.name] = max(held.get(step.name, 0.0), *at_work)
    yield "Highest of all rounds, looked at ten times a second: Python, restic and PostgreSQL's"
    yield "programs of the command together. Steps shorter than a look are not shown."
    yield ""
    yield "| flow | step | peak MB |"
    yield "|---|---|---:|"
    for name, held in peaks.items():
        for step, megabytes in held.items():
            yield f"| {name} | {step} | {megabytes:.0f} |"


__all__ = ["Flow", "flows", "measure_memory", "measure_overhead"]
