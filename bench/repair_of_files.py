"""Repair of 3 % damaged files against a full restore of the same files, in one run.

python -m bench.repair_of_files --files 5000`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from lifeboat.settings import find_restic
from lifeboat.tools import restic
from staging.faults import choose_damage, harm

SHARE = 0.03
KILOBYTES = 200


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.repair_of_files", description=__doc__)
    parser.add_argument("--files", type=int, default=5000, help=f"of {KILOBYTES} kB each")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-", dir=".lifeboat") as directory:
        root, data = Path(directory), Path(directory) / "files"
        chance = random.Random(0)
        for number in range(arguments.files):
            path = data / f"{number % 100:02}" / f"{number}.step"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(chance.randbytes(KILOBYTES << 10))
        store = restic.Repository(
            location=str(root / "repository"), password="bench", program=find_restic()
        )
        store.initialise()
        taken = store.backup([data], tags={"asset": "files"})
        names = sorted(str(path.relative_to(data)) for path in data.rglob("*.step"))
        repairs, restores = [], []
        for number in range(arguments.rounds):
            rng = random.Random(number)
            damages = choose_damage(names, share=SHARE, rng=rng)
            for damage in damages:
                harm(data / damage.name, damage.harm, rng=rng)
            began = time.perf_counter()
            found = store.find_damage(taken.snapshot_id, subfolder=str(data), target=data)
            bad = {*found.missing, *found.truncated, *found.altered}
            assert bad == {damage.name for damage in damages}
            found_at = time.perf_counter()
            store.restore(
                taken.snapshot_id,
                subfolder=str(data),
                target=data,
                overwrite="always",
                include=sorted(bad),
            )
            repairs.append((found_at - began, time.perf_counter() - found_at))
            fresh = root / "fresh"
            began = time.perf_counter()
            store.restore(taken.snapshot_id, subfolder=str(data), target=fresh, overwrite="always")
            restores.append(time.perf_counter() - began)
            shutil.rmtree(fresh)
        middle = arguments.rounds // 2
        find, repair = (sorted(column)[middle] for column in zip(*repairs, strict=True))
        restore = sorted(restores)[middle]
        print(f"{arguments.files} files, {SHARE:.0%} damaged, median of {arguments.rounds}:")
        print(f"  find {find:.2f} s + repair {repair:.2f} s; full restore {restore:.2f} s")
        print(f"  repair / full restore   {repair / restore:.2f}")
        print(f"  find + repair / restore {(find + repair) / restore:.2f}")


if __name__ == "__main__":
    main()
