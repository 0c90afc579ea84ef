"""What users feel of a backup: pgbench's transactions per second, with and without one running."""

from __future__ import annotations

import re
import statistics
import sys
import threading
from collections.abc import Iterator

from bench import ours, shell
from bench.archiving import Archiving
from bench.comparison import OURS, turned
from bench.parts import Asked, present, run_as
from bench.peers.databases import rivals
from bench.world import World

_NOBODY = "no backup"
_SECONDS = 15


def measure_throughput(world: World, asked: Asked) -> Iterator[str]:
    found, lines = present(asked, rivals())
    yield from lines
    archiving = Archiving(world, [rival.archive() for rival in found.values()])
    run_as(world, OURS, 'createdb pgbench\n"$PG/pgbench" -q -i -s 10 pgbench')
    scripts = {_NOBODY: "", OURS: ours.command("backup database")}
    try:
        for name, rival in found.items():
            rival.prepare(world)
            scripts[name] = rival.back_up(first=False)
        archiving.on()
        for name, rival in found.items():
            run_as(world, name, rival.back_up(first=True))
        run_as(world, OURS, scripts[OURS])
        tps: dict[str, list[float]] = {name: [] for name in scripts}
        failed: dict[str, str] = {}
        for number in range(asked.rounds):
            for name in turned(list(scripts), number):
                if name in failed:
                    continue
                try:
                    tps[name].append(_transactions(world, name, scripts[name]))
                except shell.Failed as failure:
                    failed[name] = str(failure)
                    continue
                print(f"throughput | {name}: {tps[name][-1]:.0f} tps", file=sys.stderr, flush=True)
    finally:
        for rival in found.values():
            rival.end(world)
    yield (
        f"pgbench, 4 clients for {_SECONDS} s, with commits that wait for Lifeboat's receiver of "
        "the WAL in every row; meanwhile the backup runs again and again."
    )
    yield ""
    yield "| meanwhile | median tps | all | of those without |"
    yield "|---|---:|---|---:|"
    without = statistics.median(tps[_NOBODY])
    for name, why in failed.items():
        yield f"| {name} | failed | {' '.join(why.split())[-160:]} | |"
    for name, values in tps.items():
        if name in failed:
            continue
        middle = statistics.median(values)
        every = ", ".join(f"{value:.0f}" for value in values)
        yield f"| {name} | {middle:.0f} | {every} | {middle / without:.2f} |"


def _transactions(world: World, name: str, script: str) -> float:
    log = world.peers / "pgbench.log"
    log.unlink(missing_ok=True)
    over = threading.Event()
    failures: list[shell.Failed] = []

    def back_up() -> None:
        try:
            while script and not over.is_set():
                run_as(world, name, script)
        except shell.Failed as failure:
            failures.append(failure)

    thread = threading.Thread(target=back_up)
    thread.start()
    try:
        run_as(world, "pgbench", f'"$PG/pgbench" -n -c 4 -j 2 -T {_SECONDS} pgbench')
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]
    told = re.search(r"^tps = ([0-9.]+)", log.read_text(), re.MULTILINE)
    if not told:
        raise shell.Failed(f"pgbench told no tps: {log.read_text()[-300:]}")
    return float(told[1])
