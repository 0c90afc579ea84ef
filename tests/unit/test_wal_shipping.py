"""Shipping the log: in order, sure of what arrived, and never saying more than the bucket holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.continuity import BaseCopy
from lifeboat.core.errors import PreconditionError, TransientError
from lifeboat.core.marks import Gap, Kind, Sighting
from lifeboat.core.points import Tier
from lifeboat.core.wal import Position, parse_lsn
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import postgres, s3, seal
from tasks import catalogue, clock, marks, places, vault
from tasks.wal import wal_continuity, wal_shipping, wal_witness
from tests.unit.smallest_settings import SMALLEST

SYSTEM = "7412345678901234567"
SIZE = 16 << 20
NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


@dataclass
class FakeBucket:
    """A bucket in memory, and what may go wrong with it."""

    objects: dict[str, bytes] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)
    listings: list[str] = field(default_factory=list)
    away: bool = False
    before_put: Callable[[str], object] = lambda key: None
    loses: Callable[[str], bool] = lambda key: False

    def _answer(self) -> None:
        if self.away:
            raise TransientError("The bucket does not answer.")

    def put(self, key: str, data: bytes) -> None:
        self._answer()
        self.before_put(key)
        self._answer()
        self.puts.append(key)
        if not self.loses(key):
            self.objects[key] = data

    def get(self, key: str) -> bytes:
        self._answer()
        return self.objects[key]

    def delete(self, keys) -> None:
        self._answer()
        for key in keys:
            self.objects.pop(key, None)

    def list(self, prefix: str = "", *, after: str = "") -> tuple[s3.Object, ...]:
        self._answer()
        self.listings.append(f"{prefix} after {after}" if after else prefix)
        found = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        return tuple(s3.Object(key, len(self.objects[key]), NOON) for key in found)

    def wal(self) -> list[str]:
        names = (key.rpartition("/")[2] for key in sorted(self.objects) if "/wal/" in key)
        return [name.removesuffix(places.SEALED) for name in names]

    def shipped(self) -> list[str]:
        names = (key.rpartition("/")[2] for key in self.puts if "/wal/" in key)
        return [name.removesuffix(places.SEALED) for name in names]


@dataclass
class FakeDatabase:
    """Where the server's log ends, and how far the receiver says it is."""

    flushed: str = "0/F000100"
    written: str | None = "0/F000100"
    system: str = SYSTEM
    timeline: int = 1
    answers: bool = True

    def flushed_to(self, server) -> postgres.Flushed:
        if not self.answers:
            raise TransientError("The database does not answer.")
        lsn = parse_lsn(self.flushed)
        name = segment((lsn - 1) // SIZE, self.timeline)
        return postgres.Flushed(Position(self.system, self.timeline, lsn), name)

    def receiver_of(self, server, name) -> postgres.Receiver | None:
        if self.written is None:
            return None
        written = parse_lsn(self.written)
        return postgres.Receiver("streaming", False, written, 0, 0.0, 0.0)


def segment(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}00000000{number:08X}"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LIFEBOAT_DATABASE_PASSWORD", "x")
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
    return load_settings(tmp_path / "lifeboat.yaml")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> FakeBucket:
    fake = FakeBucket()
    monkeypatch.setattr(places, "bucket", lambda settings: fake)
    monkeypatch.setattr(marks, "bucket", lambda settings: fake)
    _, recipient = seal.new_identity()
    monkeypatch.setattr(vault, "wal_recipient", lambda settings: recipient)
    monkeypatch.setattr(catalogue, "base_copies", lambda settings, tier: ())
    return fake


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> FakeDatabase:
    fake = FakeDatabase()
    monkeypatch.setattr(wal_witness, "connection", lambda settings: None)
    monkeypatch.setattr(wal_witness.postgres, "flushed_to", fake.flushed_to)
    monkeypatch.setattr(wal_witness.postgres, "receiver_of", fake.receiver_of)
    monkeypatch.setattr(wal_witness, "_REACH_SECONDS", 0.0)
    return fake


@pytest.fixture
def shipper(settings: Settings, bucket: FakeBucket, database: FakeDatabase) -> wal_shipping.Shipper:
    return wal_shipping.Shipper(settings)


def receive(settings: Settings, *names: str, content: str = "x", system: str = SYSTEM) -> None:
    """As the receiver does: a segment that is closed was partial before."""
    directory = places.wal_directory(settings) / system / names[0][:8]
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / f"{name}.partial").unlink(missing_ok=True)
        (directory / name).write_bytes(content.encode() + bytes(100))


def held(settings: Settings) -> Sighting | None:
    return wal_witness.last_sighting(settings)


def a_base(start: int, stop: int | None = None, *, hour: int = 0) -> BaseCopy:
    return BaseCopy(
        point=f"database-{hour:02d}",
        system_identifier=SYSTEM,
        timeline=1,
        start_lsn=start * SIZE + 40,
        stop_lsn=(start if stop is None else stop) * SIZE + 4000,
        segment_bytes=SIZE,
        taken_at=NOON + timedelta(hours=hour),
    )


# --- what is shipped ------------------------------------------------------------------------


def test_everything_goes_in_the_order_of_replay_and_once(shipper, settings, bucket) -> None:
    receive(settings, segment(5, 2), segment(4, 2), "00000002.history")
    receive(settings, *(segment(n) for n in (3, 1, 2)), "junk", ".000000010000000000000009.part")
    receive(settings, f"{segment(6, 2)}.partial")
    done = shipper.ship()
    assert done.segments == (
        *(segment(n) for n in (1, 2, 3)),
        *("00000002.history", segment(4, 2), segment(5, 2)),
    )
    assert done.partial == f"{segment(6, 2)}.partial"
    assert bucket.shipped() == [*done.segments, done.partial]
    again = shipper.ship()
    assert (again.segments, again.partial) == ((), None)
    assert len(bucket.shipped()) == 7


def test_what_fails_leaves_no_hole_and_is_caught_up_with_from_the_oldest(
    shipper, settings, bucket
) -> None:
    receive(settings, *(segment(n) for n in range(1, 9)))

    def third(key: str) -> None:
        bucket.away = segment(3) in key

    bucket.before_put = third
    with pytest.raises(TransientError):
        shipper.ship()
    assert bucket.wal() == [segment(1), segment(2)]
    receive(settings, segment(9), f"{segment(10)}.partial")
    for _ in range(3):
        with pytest.raises(TransientError):
            shipper.ship()
    bucket.away, bucket.before_put = False, lambda key: None
    done = shipper.ship()
    assert done.segments == tuple(segment(n) for n in range(3, 10))
    assert bucket.wal() == [*(segment(n) for n in range(1, 10)), f"{segment(10)}.partial"]


def test_a_partial_is_shipped_when_it_has_grown_and_goes_when_its_segment_is_whole(
    shipper, settings, bucket
) -> None:
    partial = f"{segment(1)}.partial"
    receive(settings, partial)
    assert [shipper.ship().partial, shipper.ship().partial] == [partial, None]
    receive(settings, partial, content="xy")
    assert shipper.ship().partial == partial
    receive(settings, segment(1), f"{segment(2)}.partial")
    shipper.ship()
    assert bucket.wal() == [segment(1), f"{segment(2)}.partial"]


def test_a_partial_that_is_closed_while_it_is_read_goes_whole(shipper, settings, bucket) -> None:
    receive(settings, segment(1), f"{segment(2)}.partial")
    shipper.ship()
    receive(settings, segment(3), f"{segment(4)}.partial")
    bucket.before_put = lambda key: (
        receive(settings, segment(4), f"{segment(5)}.partial") if segment(3) in key else None
    )
    assert shipper.ship().partial == segment(4)
    bucket.before_put = lambda key: None
    shipper.ship()
    assert f"{segment(4)}.partial" not in bucket.wal()


def test_an_object_deleted_behind_our_back_is_shipped_again(
    shipper, settings, bucket, monkeypatch
) -> None:
    receive(settings, *(segment(n) for n in range(1, 5)))
    shipper.ship()
    del bucket.objects[places.wal_key(SYSTEM, segment(2))]
    assert shipper.ship().segments == (), "known by the last listing"
    monkeypatch.setattr(wal_shipping, "_AGAIN_SECONDS", 0.0)
    assert shipper.ship().segments == (segment(2),)


def test_after_a_failure_nothing_is_believed(shipper, settings, bucket) -> None:
    """A store that was away may have come back without its newest objects."""
    receive(settings, *(segment(n) for n in range(1, 5)))
    shipper.ship()
    bucket.away = True
    receive(settings, segment(5))
    with pytest.raises(TransientError):
        shipper.ship()
    bucket.away = False
    del bucket.objects[places.wal_key(SYSTEM, segment(4))]
    assert shipper.ship().segments == (segment(4), segment(5))


def test_what_is_lost_on_the_way_is_noticed_and_shipped_again(shipper, settings, bucket) -> None:
    receive(settings, *(segment(n) for n in (1, 2, 3)))
    bucket.loses = lambda key: segment(2) in key
    with pytest.raises(TransientError, match=f"1 of 3 objects.*{segment(2)}"):
        shipper.ship()
    assert held(settings) is None
    bucket.loses = lambda key: False
    assert shipper.ship().segments == (segment(2),)


def test_what_was_pruned_in_s3_is_not_shipped_again(shipper, settings, bucket, monkeypatch) -> None:
    receive(settings, *(segment(n) for n in range(1, 7)))
    shipper.ship()
    monkeypatch.setattr(catalogue, "base_copies", lambda settings, tier: (a_base(4),))
    for number in (1, 2, 3, 5):
        del bucket.objects[places.wal_key(SYSTEM, segment(number))]
    monkeypatch.setattr(wal_shipping, "_AGAIN_SECONDS", 0.0)
    assert shipper.ship().segments == (segment(5),)

    def unknown(settings, tier):
        raise TransientError("The bases can't be listed.")

    monkeypatch.setattr(catalogue, "base_copies", unknown)
    assert shipper.ship().segments == (segment(1), segment(2), segment(3))


def test_a_segment_that_vanishes_or_can_not_be_read_stops_no_other(
    shipper, settings, bucket, monkeypatch, caplog
) -> None:
    receive(settings, *(segment(n) for n in range(1, 8)))
    directory = places.wal_directory(settings) / SYSTEM / "00000001"
    bucket.before_put = lambda key: (directory / segment(7)).unlink(missing_ok=True)
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == segment(2):
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert shipper.ship().segments == tuple(segment(n) for n in (1, 3, 4, 5, 6))
    assert "Input/output error" in caplog.text


def test_a_process_for_each_round_lists_only_what_is_new(settings, bucket, database) -> None:
    receive(settings, *(segment(n) for n in range(1, 5)), f"{segment(5)}.partial")
    receive(settings, segment(1), system="999999999")
    wal_shipping.Shipper(settings).ship()
    bucket.listings.clear()
    receive(settings, segment(5), f"{segment(6)}.partial")
    done = wal_shipping.Shipper(settings).ship()
    assert done.segments == (segment(5),)
    assert places.WAL_PREFIX not in bucket.listings
    assert bucket.wal().count(f"{segment(5)}.partial") == 0, "known from the listing, and removed"

    del bucket.objects[places.wal_key(SYSTEM, segment(2))]
    assert wal_shipping.Shipper(settings).ship().segments == ()
    bucket.away = True
    with pytest.raises(TransientError):
        wal_shipping.Shipper(settings).ship()
    bucket.away = False
    after = wal_shipping.Shipper(settings).ship()
    assert after.segments == (segment(2),), "after a failure it lists all"


def test_leftover_partials_are_removed(shipper, settings, bucket) -> None:
    bucket.objects = {
        places.wal_key(SYSTEM, segment(1)): b"whole",
        places.wal_key(SYSTEM, f"{segment(1)}.partial"): b"of a process that died",
        places.wal_key(SYSTEM, f"{segment(2)}.partial"): b"the newest",
    }
    shipper.ship()
    assert bucket.wal() == [segment(1), f"{segment(2)}.partial"]


def test_a_database_that_was_set_back_under_the_same_names_is_refused(
    shipper, settings, bucket, database
) -> None:
    receive(settings, segment(1), f"{segment(2)}.partial")
    database.flushed = database.written = "0/3000100"
    bucket.objects[places.wal_key(SYSTEM, segment(4))] = b"of another future"
    with pytest.raises(
        PreconditionError, match=f"S3 has segment {segment(4)}.*only in {segment(3)}"
    ):
        shipper.ship()
    assert bucket.shipped() == []
    database.flushed = database.written = "0/4000100"
    shipper.ship()


# --- what is said to be held ----------------------------------------------------------------


def test_the_sighting_says_from_when_the_database_was_asked(shipper, settings, database) -> None:
    database.flushed = database.written = "0/3000100"
    receive(settings, segment(1), segment(2), f"{segment(3)}.partial")
    with clock.set_to(NOON):
        assert shipper.ship().held_until == NOON
    found = held(settings)
    assert found and found.holds == f"{SYSTEM}/1/0/3000100"
    database.flushed = database.written = "0/3000200"
    receive(settings, f"{segment(3)}.partial", content="longer")
    with clock.set_to(NOON + timedelta(minutes=1)):
        shipper.ship()
    found = held(settings)
    assert found and found.as_of == NOON + timedelta(minutes=1)
    assert found.holds == f"{SYSTEM}/1/0/3000200"


def test_a_switch_of_the_timeline_is_told_and_held_when_it_is_shipped(
    shipper, settings, database, caplog
) -> None:
    database.flushed = database.written = "0/3000100"
    receive(settings, segment(1), segment(2), f"{segment(3)}.partial")
    with clock.set_to(NOON):
        shipper.ship()
    database.timeline = 2
    with clock.set_to(NOON + timedelta(minutes=1)):
        assert shipper.ship().held_until == NOON, "nothing of the new timeline is here yet"
    receive(settings, "00000002.history", f"{segment(3, 2)}.partial")
    with clock.set_to(NOON + timedelta(minutes=2)):
        assert shipper.ship().held_until == NOON + timedelta(minutes=2)
    assert "went on on timeline 2" in caplog.text
    found = held(settings)
    assert found and found.holds == f"{SYSTEM}/2/0/3000100"


@pytest.mark.parametrize("harm", ["dead receiver", "dead database", "dead store", "lost object"])
def test_what_does_not_work_leaves_the_sighting_old(
    shipper, settings, bucket, database, caplog, harm: str
) -> None:
    database.flushed = database.written = "0/3000100"
    receive(settings, segment(1), segment(2), f"{segment(3)}.partial")
    with clock.set_to(NOON):
        shipper.ship()
    receive(settings, segment(3), f"{segment(4)}.partial")
    database.flushed = database.written = "0/4000100"
    if harm == "dead receiver":
        database.written = None
    elif harm == "dead database":
        database.answers = False
    elif harm == "dead store":
        bucket.away = True
    else:
        bucket.loses = lambda key: segment(3) in key
    with clock.set_to(NOON + timedelta(minutes=3)):
        try:
            assert shipper.ship().held_until == NOON
        except TransientError:
            assert harm in ("dead store", "lost object")
    found = held(settings)
    assert found and found.as_of == NOON
    assert "S3 is 180 s behind the database" in caplog.text


def test_a_receiver_that_is_behind_is_believed_as_far_as_it_is(shipper, settings, database) -> None:
    receive(settings, segment(1), segment(2), f"{segment(3)}.partial")
    for minute, (flushed, written, until) in enumerate(
        [
            ("0/3000100", "0/2000000", None),
            ("0/3000200", "0/3000100", 0),
            ("0/3000300", "0/3000100", 0),
            ("0/3000400", "0/3000300", 2),
            ("0/3000400", "0/3000400", 4),
        ]
    ):
        database.flushed, database.written = flushed, written
        receive(settings, f"{segment(3)}.partial", content="x" * (minute + 1))
        with clock.set_to(NOON + timedelta(minutes=minute)):
            told = shipper.ship().held_until
        assert told == (None if until is None else NOON + timedelta(minutes=until))


def test_a_receiver_that_writes_elsewhere_is_not_believed(shipper, settings, bucket) -> None:
    """It says it has segment 15, but what is shipped ends with segment 2."""
    receive(settings, segment(1), segment(2))
    assert shipper.ship().held_until is None


def test_during_a_long_catch_up_it_is_said_what_is_held_already(
    shipper, settings, bucket, database, monkeypatch
) -> None:
    monkeypatch.setattr(wal_shipping, "_AT_ONCE", 2)
    bucket.away = True
    for minute in range(1, 7):
        receive(settings, segment(minute))
        database.flushed = database.written = f"0/{minute + 1:X}000000"
        with clock.set_to(NOON + timedelta(minutes=minute)), pytest.raises(TransientError):
            shipper.ship()
    bucket.away = False

    def fifth(key: str) -> None:
        bucket.away = segment(5) in key

    bucket.before_put = fifth
    with clock.set_to(NOON + timedelta(minutes=7)), pytest.raises(TransientError):
        shipper.ship()
    found = held(settings)
    assert found and found.as_of == NOON + timedelta(minutes=4)


# --- gaps -----------------------------------------------------------------------------------


def gaps(settings: Settings) -> dict[str, Gap]:
    return marks.read_all(settings, Kind.GAPS, in_bucket=False)  # type: ignore[return-value]


@pytest.fixture
def bases(monkeypatch: pytest.MonkeyPatch) -> dict[Tier, tuple[BaseCopy, ...]]:
    """The base copies of each tier, newest first; to be changed by a test."""
    there: dict[Tier, tuple[BaseCopy, ...]] = {Tier.LOCAL: (), Tier.S3: ()}
    monkeypatch.setattr(catalogue, "base_copies", lambda settings, tier: there[tier])
    return there


def test_a_hole_behind_the_newest_base_makes_another_one_due(
    shipper, settings, bucket, bases, caplog
) -> None:
    bases[Tier.LOCAL] = bases[Tier.S3] = (a_base(2),)
    receive(settings, *(segment(n) for n in (2, 3, 5)), f"{segment(6)}.partial")
    assert wal_continuity.base_is_due_because(settings) is None
    shipper.ship()
    assert set(gaps(settings)) == {f"local-{segment(4)}", f"s3-{segment(4)}"}
    assert f"records/gaps/s3-{segment(4)}.json" in bucket.objects
    assert f"segment {segment(4)} is missing. The earliest recoverable point moved" in caplog.text
    why = wal_continuity.base_is_due_because(settings)
    assert why and segment(4) in why

    told = caplog.text.count("is missing")
    shipper.ship()
    assert caplog.text.count("is missing") == told, "it is said once"

    bases[Tier.LOCAL] = (a_base(5, hour=6), a_base(2))
    assert wal_continuity.base_is_due_because(settings) is not None, "S3 has none yet"
    bases[Tier.S3] = bases[Tier.LOCAL]
    assert wal_continuity.base_is_due_because(settings) is None, "even before the next look"
    wal_continuity.notice(settings, Tier.S3)
    found = gaps(settings)[f"s3-{segment(4)}"]
    assert (found.base_is_behind, found.closed_at) == (False, None)
    bases[Tier.S3] = bases[Tier.S3][:1]
    wal_continuity.notice(settings, Tier.S3)
    assert gaps(settings)[f"s3-{segment(4)}"].closed_at, "no base is before it any more"


def test_a_hole_before_the_newest_base_moves_the_earliest_point(
    shipper, settings, bases, caplog
) -> None:
    bases[Tier.LOCAL] = bases[Tier.S3] = (a_base(5, hour=6), a_base(2))
    receive(settings, *(segment(n) for n in (2, 3, 5, 6)))
    shipper.ship()
    assert "moved to 2026-11-24 18:00:00 UTC (database-06)" in caplog.text
    assert wal_continuity.base_is_due_because(settings) is None
    receive(settings, segment(4))
    shipper.ship()
    wal_continuity.notice(settings, Tier.S3)
    assert all(gap.closed_at for gap in gaps(settings).values())


def test_another_cluster_than_that_of_the_bases_makes_one_due(
    shipper, settings, bases, database, caplog
) -> None:
    bases[Tier.LOCAL] = bases[Tier.S3] = (a_base(2),)
    receive(settings, segment(2))
    database.system = "9999999999999999999"
    receive(settings, segment(1), system=database.system)
    shipper.ship()
    why = wal_continuity.base_is_due_because(settings)
    assert why and "another cluster (9999999999999999999)" in why


def test_a_branch_without_a_base_makes_one_due(shipper, settings, bases) -> None:
    bases[Tier.LOCAL] = (a_base(5),)
    receive(settings, *(segment(n) for n in range(3, 7)))
    receive(settings, segment(4, 2))
    history = places.wal_directory(settings) / SYSTEM / "00000002" / "00000002.history"
    history.write_text("1\t0/4000100\tbefore the base\n")
    shipper.ship()
    why = wal_continuity.base_is_due_because(settings)
    assert why and "went on on timeline 2" in why


def test_what_s3_lacks_does_not_make_one_copy_after_another(
    shipper, settings, bucket, bases
) -> None:
    """The copy that was just made may not have got to S3."""
    bases[Tier.LOCAL], bases[Tier.S3] = (), (a_base(2),)
    receive(settings, segment(2), segment(4))
    shipper.ship()
    with clock.set_to(NOON + timedelta(hours=1)):
        assert wal_continuity.base_is_due_because(settings)
        bases[Tier.LOCAL] = (a_base(4, hour=1),)
        assert wal_continuity.base_is_due_because(settings) is None
    with clock.set_to(NOON + timedelta(hours=1, minutes=16)):
        assert wal_continuity.base_is_due_because(settings)


def test_a_store_that_is_away_hides_no_local_gap(shipper, settings, bucket, bases) -> None:
    bases[Tier.LOCAL] = (a_base(2),)
    receive(settings, segment(2), segment(4))
    shipper.ship()
    bucket.away = True
    wal_continuity.notice(settings, Tier.LOCAL)
    assert wal_continuity.base_is_due_because(settings)


def test_a_database_in_recovery_is_no_failure(shipper, settings, monkeypatch) -> None:
    def replaying(server):
        raise PreconditionError("The database is in recovery.")

    monkeypatch.setattr(wal_witness.postgres, "flushed_to", replaying)
    receive(settings, segment(1))
    assert shipper.ship().segments == (segment(1),)
