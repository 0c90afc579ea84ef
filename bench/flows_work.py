"""Lifeboat's own flows: what each costs outside its steps, and what each step holds in memory."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bench import ours, pressed, shell
from bench.parts import Asked, everything_backed_up
from bench.world import World
from lifeboat.core.timeline import RunRecord, outside_steps_seconds
from staging import faults
from staging.site import BUCKET, PLATFORM

_WANTED_SHARE, _WANTED_SECONDS = 0.05, 2.0


@dataclass(frozen=True)
class Flow:
    """One command, and what has to happen before it, which is not timed."""

    words: str
    deployment: str = ""  # by which it is run in the UI, and what is filled in
    request: Mapping[str, object] = field(default_factory=dict)
    before: Callable[[World, int], object] = lambda world, number: None

    @property
    def name(self) -> str:
        return " ".join(word for word in self.words.split("--")[0].split())

    @property
    def is_recovery(self) -> bool:
        return self.words.startswith("recover")


def flows(world: World) -> tuple[Flow, ...]:
    approved = f"--approve {PLATFORM}"
    server = f"--into {world.server} --bucket {BUCKET} --endpoint {world.s3.endpoint}"
    preapproved = {"approval": "preapproved"}
    return (
        Flow("backup database", "backup-database"),
        Flow("backup files", "backup-files"),
        Flow("backup models --always", "backup-models", {"only_if_changed": False}),
        Flow("backup config --always", "backup-config", {"only_if_changed": False}),
        Flow("backup platform", "backup-platform"),
        Flow(
            f"recover files {approved}",
            *("recover-files", preapproved),
            lambda world, number: faults.damage_files(world, seed=number, share=0.01),
        ),
        Flow(
            f"recover models {approved}",
            *("recover-models", preapproved),
            lambda world, _: faults.delete_models(world),
        ),
        Flow(
            f"recover database {approved}",
            *("recover-database", preapproved),
            lambda world, _: faults.destroy_data_directory(world),
        ),
        Flow(
            f"recover server {server} {approved}",
            *("recover-server", _where(world) | preapproved),
            _lose_server,
        ),
    )


def _where(world: World) -> dict[str, object]:
    return {"into": str(world.server), "bucket": BUCKET, "endpoint": world.s3.endpoint}


def _lose_server(world: World, number: int) -> None:
    ours.run(world, "wal ship", alone=False)
    world.lose_server()


def measure_overhead(world: World, asked: Asked) -> Iterator[str]:
    """Seconds in which no step was at work: of the command alone, and by the deployment."""
    everything_backed_up(world)
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    with pressed.prefect(world) as prefect:
        for number, flow in ((n, flow) for n in range(asked.rounds) for flow in flows(world)):
            flow.before(world, number)
            told = ours.run(world, flow.words)
            began, ended = told.began_at, told.began_at + told.sample.seconds
            _note(found[flow.name]["command"], began, ended, told.record)
            _rest(world, flow)
            if flow.deployment:
                flow.before(world, number + asked.rounds)
                shell.let_disk_rest(world.peers)
                # Schedules make backups, people press Run for a recovery.
                run = prefect.press if flow.is_recovery else prefect.be_due
                _note(found[flow.name]["deployment"], *run(flow.deployment, **flow.request))
                _rest(world, flow)
    yield "Seconds outside the steps' own work. Of the command alone: from its start to its end;"
    yield "Python's start, imports, settings. By the deployment, with `lifeboat work`: from the"
    yield "moment at which a backup was due, or Run pressed for a recovery, until the run has"
    yield "ended. Wanted: at most 5 % or 2 s of any flow."
    yield ""
    yield "| flow | command s | outside s | share | deployment s | outside s | share | as wanted |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for name, ways in found.items():
        cells, good = "", True
        for way in ("command", "deployment"):
            if not (samples := ways.get(way)):
                cells += " - | - | - |"
                continue
            whole, outside = (statistics.median(column) for column in zip(*samples, strict=True))
            share = outside / whole
            good &= share <= _WANTED_SHARE or outside <= _WANTED_SECONDS
            cells += f" {whole:.1f} | {outside:.2f} | {share:.0%} |"
        yield f"| {name} |{cells} {'yes' if good else 'NO'} |"


def _note(
    samples: list[tuple[float, float]], began: float, ended: float, record: RunRecord | None
) -> None:
    outside = outside_steps_seconds(began, ended, record.steps if record else ())
    samples.append((ended - began, outside))


def _rest(world: World, flow: Flow) -> None:
    """After a server's recovery: what it has started goes on backing up by itself."""
    if flow.name == "recover server":
        world.stack.stop(["keeper"])


def measure_memory(world: World, asked: Asked) -> Iterator[str]:
    """What all processes of a command held while each of its steps was at work."""
    peaks: dict[str, dict[str, float]] = defaultdict(dict)
    everything_backed_up(world)
    for number, flow in ((n, flow) for n in range(asked.rounds) for flow in flows(world)):
        flow.before(world, number)
        told = ours.run(world, flow.words)
        _rest(world, flow)
        held = peaks[flow.name]
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
