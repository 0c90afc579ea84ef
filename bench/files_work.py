"""Files and models: backed up first, unchanged and with 1 % changed; lost, and damaged by 1 %.

A round is one of everything, each contender in its turn on the same data. After each restore every
byte is compared with what was there: who restores something else is out.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import ours, shell
from bench.comparison import OURS, Comparison, turned
from bench.parts import Asked, everything_backed_up, present, run_as
from bench.peers.files import FileRival, file_rivals
from bench.world import World
from staging import faults
from staging.site import BUCKET, PLATFORM

SHARE = 0.01
UNTIL_WHOLE = "Lifeboat until whole"
# The step of each recovery after which every byte is known to be right.
_PROVEN_BY = {"files": "verify-integrity", "models": "compare-digests"}


def compare_files(world: World, asked: Asked) -> Iterator[str]:
    rivals, lines = present(asked, file_rivals())
    yield from lines
    work = FilesWork(world, rivals)
    everything_backed_up(world)
    for number in range(asked.rounds):
        work.round(number)
    for comparison in work.comparisons:
        yield from comparison.in_markdown()
    yield from _share_of_full_restore(work)


def _share_of_full_restore(work: FilesWork) -> Iterator[str]:
    full = work.restored[False].medians()
    best = min((full[name].seconds for name in work.rivals if name in full), default=None)
    repaired = work.repaired.medians()
    if best and OURS in repaired and UNTIL_WHOLE in repaired:
        yield (
            f"{SHARE:.0%} damaged against a full restore by the fastest peer ({best:.2f} s): "
            f"{repaired[OURS].seconds / best:.2f} for the whole command, "
            f"{repaired[UNTIL_WHOLE].seconds / best:.2f} until the files are whole (wanted: 0.15)."
        )


class FilesWork:
    """Compares Lifeboat with rivals on the files and models of one world."""

    def __init__(self, world: World, rivals: Mapping[str, FileRival]) -> None:
        self.world, self.rivals = world, rivals
        self.first = Comparison("Files + models: first backup, into this host and S3")
        self.unchanged = Comparison("Files + models: repeated backup, nothing changed")
        self.changed = Comparison(f"Files + models: repeated backup, {SHARE:.0%} changed")
        self.restored = {
            from_s3: Comparison(
                f"Files + models lost: all restored from {'S3' if from_s3 else 'this host'}"
            )
            for from_s3 in (False, True)
        }
        self.repaired = Comparison(f"{SHARE:.0%} of the files damaged: repaired from this host")
        for comparison in (self.first, self.restored[False]):
            comparison.notes |= {r.name: r.note for r in rivals.values() if r.note}
        self.restored[False].notes[OURS] = (
            "`recover files`, and where models are lost too `recover models` after it; each "
            "command finds the damage, stops and starts its services, and ends with 18 checks, "
            f"which the others do not do. {UNTIL_WHOLE}: from the command's start until every "
            "file is there and was compared with its SHA-256, by the command's own record."
        )

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        backups = (self.first, self.unchanged, self.changed)
        return (*backups, *self.restored.values(), self.repaired)

    def round(self, number: int) -> None:
        self._number = number
        self._forget_our_backups()
        for name, rival in self.rivals.items():
            self._peer(rival.prepare(), name)
        self._back_up(self.first)
        self._back_up(self.unchanged)
        self._change()
        self._back_up(self.changed)
        there = digests(self.world)
        for from_s3, comparison in self.restored.items():
            for name in self._turned():
                self._restore(comparison, name, there, from_s3=from_s3)
        for name in self._turned():
            self._repair(name, there)

    def _turned(self) -> list[str]:
        return turned([*self.rivals, OURS], self._number)

    def _peer(self, script: str, name: str) -> shell.Sample:
        return run_as(self.world, name, script, ROUND=self._number)

    def _forget_our_backups(self) -> None:
        """Empty repositories, so that Lifeboat's first backup is one in each round."""
        for asset, place in (("files", "file-backups"), ("models", "model-backups")):
            shutil.rmtree(self.world.server / "backups" / asset)
            script = f'rclone purge "peers:{BUCKET}/{place}"'
            with contextlib.suppress(shell.Failed):
                run_as(self.world, OURS, script)
        ours.run(self.world, "prepare vault", alone=False)

    def _back_up(self, comparison: Comparison) -> None:
        for name in self._turned():
            comparison.measure(name, lambda name=name: self._backed_up(name))

    def _backed_up(self, name: str) -> shell.Sample:
        if name != OURS:
            return self._peer(self.rivals[name].back_up(), name)
        both = "\n".join(ours.command(f"backup {what}") for what in ("files", "models"))
        return run_as(self.world, OURS, both)

    def _change(self) -> None:
        """A hundredth of the files is written anew, as people do who work on them."""
        chance = random.Random(self._number)
        for path in chosen(self.world, chance):
            path.write_bytes(path.read_bytes() + chance.randbytes(1000))

    def _restore(
        self, comparison: Comparison, name: str, there: Mapping[str, str], *, from_s3: bool
    ) -> None:
        if name == OURS:
            self._recovered(comparison, from_s3=from_s3)
        else:
            script = self.rivals[name].restore(from_s3=from_s3)
            if script is None:
                return
            self._empty("files", "models")
            comparison.measure(name, lambda: self._exactly(there, script, name))
        self._as_it_was(there)

    def _recovered(self, comparison: Comparison, *, from_s3: bool) -> None:
        told = []
        for what in _PROVEN_BY:
            self._empty(what)
            words = f"recover {what} --from {'s3' if from_s3 else 'local'} --approve {PLATFORM}"
            told.append(ours.run(self.world, words))
        comparison.measure(OURS, lambda: shell.total(one.sample for one in told))
        whole = zip(told, _PROVEN_BY.values(), strict=True)
        comparison.measure(
            UNTIL_WHOLE, lambda: shell.total(one.until_end_of(step) for one, step in whole)
        )

    def _empty(self, *names: str) -> None:
        for name in names:
            for child in (self.world.server / "data" / name).iterdir():
                shutil.rmtree(child) if child.is_dir() else child.unlink()

    def _exactly(self, there: Mapping[str, str], script: str, name: str) -> shell.Sample:
        sample = self._peer(script, name)
        found = digests(self.world)
        if found != there:
            wrong = [path for path in there if found.get(path) != there[path]]
            raise shell.Failed(f"it did not restore what was there: {len(wrong)}, {wrong[:1]}")
        return sample

    def _repair(self, name: str, there: Mapping[str, str]) -> None:
        rng = random.Random(self._number)
        names = [str(path.relative_to(self.world.files)) for path in all_files(self.world.files)]
        for damage in faults.choose_damage(names, share=SHARE, rng=rng):
            faults.harm(self.world.files / damage.name, damage.harm, rng=rng)
        if name == OURS:
            words = f"recover files --approve {PLATFORM}"
            told = ours.run(self.world, words)
            self.repaired.measure(name, lambda: told.sample)
            self.repaired.measure(UNTIL_WHOLE, lambda: told.until_end_of(_PROVEN_BY["files"]))
        else:
            script = self.rivals[name].restore(from_s3=False) or self.rivals[name].restore(
                from_s3=True
            )
            self.repaired.measure(name, lambda: self._exactly(there, script, name))
        self._as_it_was(there)

    def _as_it_was(self, there: Mapping[str, str]) -> None:
        """Whoever failed leaves no damage to the next: Lifeboat's own copy brings it back."""
        if digests(self.world) == there:
            return
        script = (
            'export RESTIC_PASSWORD="$LIFEBOAT_VAULT_PASSWORD"\n'
            'for what in files models; do "$RESTIC" -r "$SERVER/backups/$what/repository" '
            'restore -q "latest:$SERVER/data/$what" --target "$SERVER/data/$what" '
            "--overwrite always --delete; done"
        )
        run_as(self.world, OURS, script)
        if digests(self.world) != there:
            raise shell.Failed("the files can't be put back as they were")


def all_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def chosen(world: World, chance: random.Random) -> list[Path]:
    """Every hundredth of the added files: what the database knows by its SHA-256 stays."""
    there = all_files(world.files / "more")
    return chance.sample(there, max(1, round(len(there) * SHARE)))


def digests(world: World) -> dict[str, str]:
    """Of every file and model, by its path."""
    data = world.server / "data"
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("files", "models")
        for path in all_files(data / name)
    }
