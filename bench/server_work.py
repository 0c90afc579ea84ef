"""The whole server lost: database, files and models out of S3, until 18 of 18 checks pass.

A round: everybody backs up into S3, the database writes on, the server is lost. Everybody brings
it back in turn, and it is lost again; Lifeboat is the last, because it goes on protecting it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench import ours, shell
from bench.archiving import Archiving
from bench.comparison import OURS, Comparison, turned
from bench.parts import Asked, everything_backed_up, present, run_as
from bench.peers.servers import Floor, ServerRival, server_rivals
from bench.world import World
from staging.site import BUCKET, PLATFORM

_CHECKS_BEGIN = "checks-begin"
# Nobody checks a platform before its database takes writes.
_UNTIL_REPLAYED = (
    'until [ "$(psql -qAt -d postgres -c "SELECT pg_is_in_recovery()" 2>/dev/null)" = f ]; do '
    "sleep 0.1; done\n"
)


def compare_servers(world: World, asked: Asked) -> Iterator[str]:
    rivals, lines = present(asked, server_rivals())
    yield from lines
    work = ServerWork(world, rivals)
    work.prepare()
    for number in range(asked.rounds):
        work.round(number)
    for comparison in (work.passed, work.started):
        yield from comparison.in_markdown()
    yield from work.in_words()


class ServerWork:
    """Compares recover-server with what is typed by hand, on one world."""

    def __init__(self, world: World, rivals: Mapping[str, ServerRival]) -> None:
        self.world, self.rivals = world, rivals
        self._archiving = Archiving(world, [rival.archive() for rival in rivals.values()])
        megabytes = world.scale.wal_mb
        lost = f"Server lost, from S3, with {megabytes} MB of WAL"
        self.passed = Comparison(f"{lost}: until 18 of 18 checks have passed")
        self.started = Comparison(f"{lost}: until the services run, before any check")
        self.passed.notes |= {rival.name: rival.note for rival in rivals.values() if rival.note}

    def prepare(self) -> None:
        for rival in self.rivals.values():
            rival.prepare(self.world)
        self._archiving.on()

    def round(self, number: int) -> None:
        for name, rival in self.rivals.items():
            self._peer(name, rival.back_up(first=number == 0))
        everything_backed_up(self.world)
        # As every night. Without it the last round's points are the newest verified ones, and with
        # them comes the WAL of another round.
        ours.run(self.world, "test-restore")
        self.world.write_wal(self.world.scale.wal_mb)
        self._archiving.wait()
        ours.run(self.world, "wal ship", alone=False)
        # What a rival recovers is lost again: its WAL must not get among that of the others.
        self._archiving.off()
        for name in turned(list(self.rivals), number):
            self.world.lose_server()
            self._recovered_by_hand(name)
        self.world.lose_server()
        self._recovered()
        self.world.stack.stop(["keeper"])
        self._archiving.on()

    def _peer(self, name: str, script: str) -> shell.Sample:
        return run_as(self.world, name, script)

    def _recovered_by_hand(self, name: str) -> None:
        mark = self.world.peers / _CHECKS_BEGIN
        script = (
            f"{self.rivals[name].restore()}\n"
            'cd "$PEERS"\n"$PYTHON" -m bench.start_services\n'
            f"{_UNTIL_REPLAYED}"
            f'date +%s.%N >"$PEERS/{_CHECKS_BEGIN}"\n' + ours.command("verify")
        )
        self.passed.measure(name, lambda: self._peer(name, script))
        if name in self.passed.samples:
            whole = self.passed.samples[name][-1]
            started = float(mark.read_text()) - whole.began_at
            self.started.measure(name, lambda: _as_long_as(whole, started))

    def _recovered(self) -> None:
        told = ours.run(
            self.world,
            f"recover server --into {self.world.server} --bucket {BUCKET} "
            f"--endpoint {self.world.s3.endpoint} --approve {PLATFORM}",
        )
        self.passed.measure(OURS, lambda: told.until_end_of("verify"))
        self.started.measure(OURS, lambda: told.until_begin_of("verify"))
        self.passed.notes[OURS] = (
            f"the whole command took {told.sample.seconds:.1f} s (the last round): after the "
            "checks it starts the deferred services and lets backups go on."
        )

    def in_words(self) -> Iterator[str]:
        medians = self.passed.medians()
        if OURS not in medians:
            return
        ours_seconds = medians[OURS].seconds
        by_hand = [medians[n].seconds for n in self.rivals if n in medians and n != Floor.name]
        if by_hand:
            yield f"- of the best sequence by hand: {ours_seconds / min(by_hand):.2f} (wanted: 0.6)"
        if Floor.name in medians:
            share = ours_seconds / medians[Floor.name].seconds
            yield f"- of the floor: {share:.2f} (wanted: at most 1.4)"


def _as_long_as(sample: shell.Sample, seconds: float) -> shell.Sample:
    return shell.Sample(seconds, sample.processor_seconds, sample.peak_mb)
