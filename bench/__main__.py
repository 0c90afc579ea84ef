"""`make bench`: Lifeboat beside what people would use instead, in one run, as ratios."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.database_work import DatabaseWork
from bench.peers.databases import rivals
from bench.world import Scale, World


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database-mb", type=int, default=500)
    parser.add_argument("--wal-mb", type=int, default=200)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--models-mb", type=int, default=200)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    scale = Scale(
        arguments.database_mb, arguments.wal_mb, arguments.files, arguments.models_mb
    )
    Path(".lifeboat").mkdir(exist_ok=True)
    directory = tempfile.mkdtemp(prefix="bench-", dir=".lifeboat")
    if True:
        world = World(Path(directory), scale)
        lifeboat = Path(sys.executable).with_name("lifeboat")
        try:
            world.make()
            known = {rival.name: rival for rival in rivals() if rival.version()}
            work = DatabaseWork(world, known, lifeboat=lifeboat)
            work.prepare()
            work.run(arguments.rounds)
            for comparison in work.comparisons:
                print("\n".join(comparison.in_markdown()))
        finally:
            world.destroy() if not arguments.keep else world.stop()


if __name__ == "__main__":
    main()
