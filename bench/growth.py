"""How time and memory grow with the size: exponents of a line through the logarithms."""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import ours, shell
from bench.parts import Asked
from bench.world import Scale, World
from staging import faults
from staging.site import PLATFORM

_DATABASE_MB = {False: (50, 200, 800), True: (200, 2000, 8000)}
_FILES = {False: (1_000, 4_000, 16_000), True: (1_000, 100_000, 1_000_000)}
_SMALL_BYTES = 1000  # of one file, where their number counts


def measure_growth_of_database(asked: Asked) -> Iterator[str]:
    small = _small(asked)
    yield from _grown(
        "database, MB",
        _DATABASE_MB[asked.full],
        lambda size: replace(small, database_mb=size),
        _database_commands,
    )


def measure_growth_of_files(asked: Asked) -> Iterator[str]:
    small = _small(asked)
    yield from _grown(
        f"files of {_SMALL_BYTES} bytes",
        _FILES[asked.full],
        lambda size: replace(small, files=size, file_bytes=_SMALL_BYTES),
        _file_commands,
    )


def _small(asked: Asked) -> Scale:
    """All but what grows."""
    return replace(asked.scale, database_mb=20, wal_mb=1, files=100, models_mb=5)


def _database_commands(world: World) -> Iterator[tuple[str, shell.Sample]]:
    yield "backup database, first", ours.run(world, "backup database").sample
    yield "backup database, again", ours.run(world, "backup database").sample
    for source in ("cheapest", "local", "s3"):
        faults.destroy_data_directory(world)
        told = ours.run(world, f"recover database --from {source} --approve {PLATFORM}")
        yield f"recover database --from {source}, to accepting", told.until_begin_of("rearm-wal")


def _file_commands(world: World) -> Iterator[tuple[str, shell.Sample]]:
    yield "backup files, first", ours.run(world, "backup files").sample
    yield "backup files, unchanged", ours.run(world, "backup files").sample
    faults.damage_files(world, seed=1, share=0.01)
    told = ours.run(world, f"recover files --approve {PLATFORM}")
    yield "recover files, 1 % damaged, until whole", told.until_end_of("verify-integrity")
    faults.damage_files(world, seed=2, share=1.0)
    told = ours.run(world, f"recover files --approve {PLATFORM}")
    yield "recover files, all damaged, until whole", told.until_end_of("verify-integrity")


def _grown(
    what: str,
    sizes: Sequence[int],
    scale_of: Callable[[int], Scale],
    commands: Callable[[World], Iterator[tuple[str, shell.Sample]]],
) -> Iterator[str]:
    found: dict[str, list[shell.Sample]] = {}
    for size in sizes:
        for name, sample in _measured(scale_of(size), commands):
            print(f"{what} {size} | {name}: {sample.seconds:.1f} s", file=sys.stderr, flush=True)
            found.setdefault(name, []).append(sample)
    told = " | ".join(f"{size}: s | MB" for size in sizes)
    yield f"By {what}: seconds and the most memory of each size."
    yield ""
    yield f"| work | {told} | exponent of time | of memory |"
    yield f"|---|{'---:|' * (2 * len(sizes) + 2)}"
    for name, samples in found.items():
        cells = " | ".join(f"{s.seconds:.1f} | {s.peak_mb:.0f}" for s in samples)
        time = exponent(sizes, [sample.seconds for sample in samples])
        memory = exponent(sizes, [sample.peak_mb for sample in samples])
        yield f"| {name} | {cells} | {time:.2f} | {memory:.2f} |"
    yield ""


def _measured(
    scale: Scale, commands: Callable[[World], Iterator[tuple[str, shell.Sample]]]
) -> list[tuple[str, shell.Sample]]:
    Path(".lifeboat").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".lifeboat") as directory:
        world = World(Path(directory), scale)
        try:
            world.make()
            ours.run(world, "backup models")
            ours.run(world, "backup config")
            other = "files" if commands is _database_commands else "database"
            ours.run(world, f"backup {other}")
            return list(commands(world))
        finally:
            world.destroy()


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the values over the sizes, both as logarithms: 1 is linear, 0 is constant."""
    x, y = [math.log(size) for size in sizes], [math.log(max(v, 1e-3)) for v in values]
    return statistics.linear_regression(x, y).slope
