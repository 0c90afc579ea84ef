"""`make bench`: Lifeboat beside what people would use instead, in one run, as ratios."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.comparison import Comparison
from bench.database_work import DatabaseWork
from bench.peers.databases import Rival, rivals
from bench.world import Scale, World
from tasks import clock

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of everything; medians are told")
    parser.add_argument("--database-mb", type=int, default=300)
    parser.add_argument("--wal-mb", type=int, default=150)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--models-mb", type=int, default=50)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    scale = Scale(arguments.database_mb, arguments.wal_mb, arguments.files, arguments.models_mb)
    known = {rival.name: (rival, rival.version()) for rival in rivals()}
    Path(".lifeboat").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".lifeboat") as directory:
        world = World(Path(directory), scale)
        try:
            world.make()
            present = {name: rival for name, (rival, version) in known.items() if version}
            work = DatabaseWork(world, present, lifeboat=Path(sys.executable).with_name("lifeboat"))
            work.prepare()
            work.run(arguments.rounds)
        finally:
            for rival in (rival for rival, version in known.values() if version):
                rival.end(world)
            world.destroy()
    text = "\n".join(_in_markdown(scale, arguments.rounds, known, work.comparisons))
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


def _in_markdown(
    scale: Scale,
    rounds: int,
    known: dict[str, tuple[Rival, str | None]],
    comparisons: tuple[Comparison, ...],
) -> Iterator[str]:
    memory = psutil.virtual_memory().total / 1e9
    yield "# Lifeboat beside what people would use instead"
    yield ""
    yield (
        f"{clock.now():%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GB of memory, "
        f"{platform.platform()}. Database {scale.database_mb} MB, WAL {scale.wal_mb} MB, "
        f"{scale.files} files, models {scale.models_mb} MB; {rounds} rounds, alternating, medians."
    )
    yield ""
    for name, (_, version) in known.items():
        yield f"- {name}: {version or 'not present'}"
    yield ""
    for comparison in comparisons:
        yield from comparison.in_markdown()


if __name__ == "__main__":
    main()
