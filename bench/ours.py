"""Lifeboat's own commands, and what their records say of the time inside."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import shell
from bench.world import World
from lifeboat.core.timeline import RunRecord, StepRecord

LIFEBOAT = Path(sys.executable).with_name("lifeboat")


@dataclass(frozen=True)
class Told:
    """A command as it was seen from outside, and its record."""

    sample: shell.Sample
    record: RunRecord | None
    began_at: float

    def until_end_of(self, step: str) -> shell.Sample:
        """From the command's start to the end of a step of it, the last of that name."""
        return self._until(max(found.ended_at for found in self._steps(step)))

    def until_begin_of(self, step: str) -> shell.Sample:
        return self._until(min(found.began_at for found in self._steps(step)))

    def _steps(self, name: str) -> list[StepRecord]:
        found = [s for s in self.record.steps if s.name == name] if self.record else []
        if not found:
            raise shell.Failed(f"its record tells of no step {name!r}")
        return found

    def _until(self, moment: float) -> shell.Sample:
        return shell.Sample(
            moment - self.began_at, self.sample.processor_seconds, self.sample.peak_mb
        )


def command(words: str) -> str:
    return f"{LIFEBOAT} {words} --without-prefect"


def run(
    world: World, words: str, *, environment: Mapping[str, str] | None = None, alone: bool = True
) -> Told:
    """Run one command and read the record that it left; None if it left none."""
    before = set(records(world))
    known = world.environment_of_commands() | dict(environment or {})
    log = world.peers / "Lifeboat.log"
    script = command(words) if alone else f"{LIFEBOAT} {words}"
    sample = shell.run(script, known, log=log)
    record = newest_record(world, before)
    return Told(sample, record, sample.began_at)


def records(world: World) -> list[Path]:
    return list((world.server / "backups" / "records" / "runs").glob("*/record.json"))


def newest_record(world: World, known: Collection[Path]) -> RunRecord | None:
    """The record that is there besides those that are known; None if there is none."""
    new = sorted(set(records(world)) - set(known), key=lambda path: path.stat().st_mtime)
    return RunRecord.model_validate(json.loads(new[-1].read_text())) if new else None
