"""What a part of the benchmark is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bench import ours, shell
from bench.comparison import OURS
from bench.world import Scale, World


@dataclass(frozen=True)
class Asked:
    """How much of everything, and how often."""

    scale: Scale
    rounds: int
    full: bool = False  # growth with the sizes that take an hour
    against: tuple[str, ...] = ()  # rivals, by a word of their names; none: all of them


@dataclass(frozen=True)
class Part:
    """One section of the results. `run` is given a platform that was made for it alone."""

    name: str
    title: str
    run: Callable[[World, Asked], Iterator[str]] | None = None
    # Instead, of a part that makes what it works on by itself.
    alone: Callable[[Asked], Iterator[str]] | None = None
    by_default: bool = False  # what is measured if nothing is asked for


class _Known:
    name: str

    def version(self) -> str | None: ...


R = TypeVar("R", bound=_Known)


def present(asked: Asked, rivals: tuple[R, ...]) -> tuple[Mapping[str, R], Iterator[str]]:
    """Those that are wanted and that this machine has, by name; and lines that name them all."""
    words = [word.lower() for word in asked.against]
    rivals = tuple(r for r in rivals if not words or any(w in r.name.lower() for w in words))
    versions = {rival.name: rival.version() for rival in rivals}
    lines = [f"- {name}: {version or 'not present'}" for name, version in versions.items()]
    return {rival.name: rival for rival in rivals if versions[rival.name]}, iter([*lines, ""])


def everything_backed_up(world: World) -> None:
    """The checks after a recovery compare the platform with what was backed up."""
    ours.run(world, "backup platform")


def run_as(world: World, name: str, script: str, **more: object) -> shell.Sample:
    """Run a rival's script as its operator does; what it says goes into its log."""
    log = world.peers / f"{name.replace(' ', '-').replace('/', '-')}.log"
    environment = world.environment_of_commands() | {k: str(v) for k, v in more.items()}
    return shell.run(script, environment, log=log)


__all__ = ["OURS", "Asked", "Part", "everything_backed_up", "present", "run_as"]
