"""The database: backed up for the first time and again, and restored, with and without WAL.

A round: everybody backs up; then the database writes; then it is lost, and everybody brings it
back, each from this host or from S3. Lifeboat comes last, because it really brings it back.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg

from bench import shell
from bench.archiving import Archiving
from bench.comparison import OURS, Comparison, turned
from bench.ours import LIFEBOAT
from bench.parts import Asked, present
from bench.peers.databases import Rival, rivals
from bench.world import World
from staging import faults, processes
from staging.site import PLATFORM


def compare_database(world: World, asked: Asked) -> Iterator[str]:
    found, lines = present(asked, rivals())
    yield from lines
    work = DatabaseWork(world, found, lifeboat=LIFEBOAT)
    try:
        work.prepare()
        work.run(asked.rounds)
    finally:
        for rival in found.values():
            rival.end(world)
    for comparison in work.comparisons:
        yield from comparison.in_markdown()


class DatabaseWork:
    """Compares Lifeboat with rivals on one world."""

    def __init__(self, world: World, rivals: Mapping[str, Rival], *, lifeboat: Path) -> None:
        self.world, self.rivals, self._lifeboat = world, rivals, lifeboat
        self._environment = world.environment_of_commands()
        self._archiving = Archiving(world, [rival.archive() for rival in rivals.values()])
        megabytes = world.scale.wal_mb
        self.first = Comparison("Database: first backup, into this host and S3")
        self.again = Comparison("Database: repeated backup, into this host and S3")
        self.restores = {
            (wal, from_s3): Comparison(
                "Database lost: until it accepts connections, "
                f"from {'S3' if from_s3 else 'this host'}, "
                f"{f'with {megabytes} MB of WAL' if wal else 'without WAL'}"
            )
            for wal in (False, True)
            for from_s3 in (False, True)
        }

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return (self.first, self.again, *self.restores.values())

    def prepare(self) -> None:
        """Set the rivals up, and let the server archive its WAL for those that want it."""
        for rival in self.rivals.values():
            rival.prepare(self.world)
        self._archiving.on()
        # The checks after a recovery compare files and models with what was backed up.
        self._shell(f"{self._lifeboat} backup platform --without-prefect", OURS)

    def run(self, rounds: int) -> None:
        """Everything so many times, and the first backup as often as it can be the first: once."""
        self._back_up(self.first, number=0, first=True)
        number = 0
        for _ in range(rounds):
            for (wal, from_s3), comparison in self.restores.items():
                number += 1
                self._back_up(self.again, number=number, first=False)
                if wal:
                    self.world.write_wal(self.world.scale.wal_mb)
                self._wait_until_archived()
                self._lose_and_restore(comparison, number=number, from_s3=from_s3)
                for rival in self.rivals.values():
                    rival.begin_round(self.world)

    def _back_up(self, comparison: Comparison, *, number: int, first: bool) -> None:
        commands = {name: rival.back_up(first=first) for name, rival in self.rivals.items()}
        commands[OURS] = f"{self._lifeboat} backup database --without-prefect"
        for name in turned(list(commands), number):
            comparison.measure(name, lambda name=name: self._shell(commands[name], name))

    def _shell(self, script: str, name: str, **more: str) -> shell.Sample:
        log = self.world.peers / f"{name.split()[0]}.log"
        return shell.run(script, {**self._environment, **more}, log=log)

    def _wait_until_archived(self) -> None:
        """Whoever archives has it all: what is timed is the restore."""
        self._archiving.wait()
        # Lifeboat's own copy in S3, as its keeper makes it every minute.
        self._shell(f"{self._lifeboat} wal ship", OURS)

    def _lose_and_restore(self, comparison: Comparison, *, number: int, from_s3: bool) -> None:
        faults.break_site(self.world, "destroy-data-directory")
        for name in turned(list(self.rivals), number):
            script = self.rivals[name].restore(from_s3=from_s3)
            comparison.measure(
                name, lambda name=name, script=script: self._in_scratch(script, name)
            )
        comparison.measure(OURS, lambda: self._recover(comparison, from_s3=from_s3))

    def _in_scratch(self, script: str, name: str) -> shell.Sample:
        target = self.world.root.parent / "scratch" / "data"
        shutil.rmtree(target.parent, ignore_errors=True)
        target.parent.mkdir(parents=True)
        target.mkdir(mode=0o700)
        try:
            return self._shell(script, name, TARGET=str(target))
        finally:
            processes.kill(processes.processes_of(target.parent))
            shutil.rmtree(target.parent)

    def _recover(self, comparison: Comparison, *, from_s3: bool) -> shell.Sample:
        """The real command; timed until the platform's own database accepts connections.

        What comes after (starting the application, 18 checks) is its own, and noted.
        """
        where = "s3" if from_s3 else "cheapest"
        command = (
            f"{self._lifeboat} recover database --from {where} --without-prefect "
            f"--approve {PLATFORM}"
        )
        began = time.monotonic()
        with _when_it_accepts(self.world) as accepted:
            whole = self._shell(command, OURS)
        seconds = accepted[0] - began
        comparison.notes[OURS] = (
            f"the application was started and 18 checks had passed after {whole.seconds:.1f} s "
            "(the last round)."
        )
        return shell.Sample(seconds, whole.processor_seconds, whole.peak_mb)


@contextlib.contextmanager
def _when_it_accepts(world: World) -> Iterator[list[float]]:
    """Ask the platform's port until it answers and is no longer in recovery; then note when."""
    noted: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not noted and not over.is_set():
            with (
                contextlib.suppress(psycopg.Error),
                psycopg.connect(world.dsn("postgres"), autocommit=True) as connection,
            ):
                if not connection.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
                    noted.append(time.monotonic())
            over.wait(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield noted
    finally:
        over.set()
        thread.join()
    if not noted:
        raise shell.Failed("the database never accepted a connection")
