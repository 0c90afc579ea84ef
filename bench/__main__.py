"""`make bench`: Lifeboat beside what people would use instead, in one run, as ratios.

Alone it measures a lost server, and from the trigger to the first step; all parts take hours on two
cores. Let nothing else run beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import results
from bench.database_work import compare_database
from bench.files_work import compare_files
from bench.flows_work import measure_memory, measure_overhead
from bench.growth import measure_growth_of_database, measure_growth_of_files
from bench.parts import Asked, Part
from bench.press_to_first_step import measure_trigger
from bench.server_work import compare_servers
from bench.throughput import measure_throughput
from bench.world import Scale, World

PARTS = (
    Part("database", "Database", compare_database),
    Part("files", "Files and models", compare_files),
    Part("server", "The whole server lost", compare_servers, by_default=True),
    Part("overhead", "Outside the steps' own work", measure_overhead),
    Part("trigger", "From the trigger to the first step", alone=measure_trigger, by_default=True),
    Part("throughput", "The database during a backup", measure_throughput),
    Part("memory", "Memory of every step", measure_memory),
    Part("database-growth", "Growth with the database", alone=measure_growth_of_database),
    Part("files-growth", "Growth with the files", alone=measure_growth_of_files),
)


def main() -> None:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    few = ",".join(part.name for part in PARTS if part.by_default)
    parser.add_argument("--only", default=few, help=f"of {','.join(names)} or all; else {few}")
    parser.add_argument("--rounds", type=int, default=3, help="of everything; medians are told")
    parser.add_argument("--database-mb", type=int, default=100)
    parser.add_argument("--wal-mb", type=int, default=50)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--file-kb", type=int, default=100, help="of one file, on average")
    parser.add_argument("--models-mb", type=int, default=30)
    parser.add_argument("--against", default="", help="rivals, by a word of each; else all")
    parser.add_argument("--full", action="store_true", help="growth up to 8 GB and 1e6 files")
    parser.add_argument("--output", type=Path, default=results.RESULTS)
    arguments = parser.parse_args()
    wanted = names if arguments.only == "all" else arguments.only.split(",")
    if unknown := set(wanted) - set(names):
        parser.error(f"there is no part {', '.join(sorted(unknown))}, only {', '.join(names)}")
    scale = Scale(
        arguments.database_mb,
        arguments.wal_mb,
        arguments.files,
        arguments.models_mb,
        arguments.file_kb * 1000,
    )
    against = tuple(filter(None, arguments.against.split(",")))
    asked = Asked(scale, arguments.rounds, arguments.full, against)
    for part in PARTS:
        if part.name in wanted:
            lines = list(_section(part, asked))
            print(results.replace_section(arguments.output, part.title, lines), flush=True)


def _section(part: Part, asked: Asked) -> Iterator[str]:
    if part.alone:  # which says itself how much there is of everything
        yield from (f"{results.machine()}.", "")
        yield from part.alone(asked)
        return
    rounds = f"{asked.rounds} rounds" if asked.rounds > 1 else "One round"
    yield from (f"{results.machine()}. {rounds}: {asked.scale.in_words()}.", "")
    Path(".lifeboat").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".lifeboat") as directory:
        world = World(Path(directory), asked.scale)
        try:
            world.make()
            yield from part.run(world, asked)
        finally:
            world.destroy()


if __name__ == "__main__":
    main()
