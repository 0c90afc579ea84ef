"""A hundred and twenty days of backups, tests and prunes, with days on which things fail.

Real: restic with both tiers (a directory, and SeaweedFS), the flows that back up, test and prune,
their locks, marks and records, the policy of the plan (30 days here, 90 in S3). Set: the clock.
Small: the data. Stand-ins: PostgreSQL (a base copy is a file with true facts, a segment of WAL some
bytes, and that a base was verified is only marked), and how often: a backup of each a day, a prune
every other day.

Troubles come by chance, but the same each time: S3 is away, restic is killed in a backup or in a
prune, a test fails, the clock is an hour off, a recovery holds the platform, the host is down.
After every single day it is looked what the stores hold; and on many of them `watch-objectives` is
asked, too, what it sees of that from the bucket alone.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import operator
import random
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.checks import Status
from lifeboat.core.errors import RecoveryError
from lifeboat.core.marks import Kind
from lifeboat.core.points import (
    Asset,
    DatabaseFacts,
    DirectoryFacts,
    Facts,
    RecoveryPoint,
    Tier,
    point_id,
)
from lifeboat.core.requests import Backup, Prune, RestoreTest, WatchObjectives
from lifeboat.core.wal import Segment, format_lsn
from lifeboat.settings import Settings, find_restic, load_settings
from staging.ports import choose_ports
from staging.s3 import S3Server
from tasks import (
    backup,
    catalogue,
    clock,
    locks,
    marks,
    objectives,
    orchestration,
    places,
    retention,
    vault,
)
from tests.system.quick_keys import make_quick, make_quick_in
from tests.system.vault_site import HOST_YAML

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

DAYS = 120
SEED = 20260120
START = datetime(2026, 1, 20, tzinfo=timezone.utc)
DAY = timedelta(days=1)
BUCKET = "lifeboat-days"
PASSWORD = "the vault's password"
SYSTEM = "7300000000000000077"
SEGMENT_BYTES = 16 << 20
TIERS = (Tier.LOCAL, Tier.S3)
TROUBLES = (
    *("S3 is away", "backup is killed", "test fails", "clock is ahead", "clock is behind"),
    *("recovery runs", "prune is killed", "host is down"),
)
VAULT_YAML = """\
objectives: {{rpo_seconds: 86400}}
vault:
  local: backups
  restic_program: {restic}
  s3: {{endpoint: "{endpoint}", bucket: {bucket}}}
"""
KILLER = """\
#!/bin/sh
# restic, killed in the middle of one thing
for word in "$@"; do
  if [ "$word" = {verb} ]; then
    {restic} "$@" & child=$!
    sleep {seconds}
    kill -9 $child; wait $child
    kill -9 $$
  fi
done
exec {restic} "$@"
"""


@functools.cache
def alone(flow: str) -> Callable:
    """A flow without Prefect, whatever else this process has imported."""
    spec = importlib.util.spec_from_file_location(f"alone_{flow}", f"flows/{flow}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, flow)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = S3Server(tmp_path_factory.mktemp("s3"), choose_ports(), "days", "days-secret")
    server.start()
    try:
        server.create_bucket(BUCKET)
        yield server.endpoint
    finally:
        server.stop()


@pytest.fixture
def platform(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> Iterator[Platform]:
    monkeypatch.setenv("LIFEBOAT_VAULT_PASSWORD", PASSWORD)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "days")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "days-secret")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(orchestration, "_alone", True)
    monkeypatch.setattr(orchestration, "RETRY_WAITS_SECONDS", (0.0,))
    monkeypatch.setattr(locks, "_BACKUP_WAIT_SECONDS", 0.5)
    caplog.set_level(logging.CRITICAL, logger="lifeboat")
    for name, data in (("data/files/1.dxf", b"1"), ("data/models/a.bin", b"model")):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data * 3000)
    found = Platform(tmp_path, endpoint, str(find_restic()))
    with clock.set_to(START):
        vault.prepare_vault(found.settings)
    for asset in Asset:
        make_quick(tmp_path / "backups" / asset / "repository", PASSWORD)
        place = places.repository(found.settings, asset, Tier.S3).location
        prefix = place.partition(f"{BUCKET}/")[2]
        make_quick_in(places.bucket(found.settings), prefix, PASSWORD)
    yield found


@functools.lru_cache
def _read(path: Path, text: str) -> Settings:
    return load_settings(path)


@dataclass
class Platform:
    """A host with a little data, and what it should know of its own vault."""

    root: Path
    endpoint: str
    restic: str
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    now: datetime = START
    clock_is_off: timedelta = timedelta()
    # All that was ever seen in a tier: what is not there any more was pruned.
    ever: dict[tuple[Asset, Tier], dict[str, datetime]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    content: dict[str, str] = field(default_factory=dict)  # SHA-256 of the drawing, by point
    starts: dict[str, int] = field(default_factory=dict)  # the first segment of each base
    segment: int = 5
    unshipped: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # troubles
    troubled_days: int = 0  # in a row
    pruned_today: bool = False
    test_failed: bool = False  # the last one that took place

    def __post_init__(self) -> None:
        self.config = self._write_settings("lifeboat.yaml")

    def _write_settings(self, name: str, **changes: str) -> Path:
        told = {"restic": self.restic, "endpoint": self.endpoint, "bucket": BUCKET, **changes}
        path = self.root / name
        path.write_text(HOST_YAML + VAULT_YAML.format(**told))
        return path

    @property
    def settings(self) -> Settings:
        return _read(self.config, self.config.read_text())

    # --- the day's work ---------------------------------------------------------------------

    @contextmanager
    def at(self, hour: int) -> Iterator[None]:
        """So late on this day, as this host's clock tells it."""
        moment = self.now + timedelta(
            hours=hour, seconds=self.chance.randrange(3600), microseconds=1
        )
        with clock.set_to(moment + self.clock_is_off):
            yield

    def tried(self, act: Callable[[], object]) -> bool:
        """Do it as the keeper does: a failure is told, and not fatal."""
        try:
            act()
        except RecoveryError:
            return False
        return True

    def back_up_files(self) -> None:
        drawing = self.root / "data/files/1.dxf"
        drawing.write_bytes(self.chance.randbytes(3000))
        digest = hashlib.sha256(drawing.read_bytes()).hexdigest()
        self.content[point_id(Asset.FILES, clock.now())] = digest
        self.tried(lambda: alone("backup_files")(Backup(config=str(self.config))))

    def back_up(self, asset: Asset) -> None:
        if asset is Asset.MODELS:
            (self.root / "data/models/a.bin").write_bytes(self.chance.randbytes(3000))
        self.tried(lambda: alone(f"backup_{asset}")(Backup(config=str(self.config))))

    def back_up_database(self) -> None:
        taken_at = clock.now().replace(microsecond=0)
        base = self.root / "base"
        base.mkdir(exist_ok=True)
        (base / "PG_VERSION").write_text(f"18\n{self.segment}")
        start = format_lsn(self.segment * SEGMENT_BYTES + 40)
        facts = Facts(
            point=point_id(Asset.DATABASE, taken_at),
            asset=Asset.DATABASE,
            platform="cad-test",
            host="x",
            taken_at=taken_at,
            database=DatabaseFacts(
                system_identifier=SYSTEM,
                timeline=1,
                start_lsn=start,
                stop_lsn=start,
                server_version="18",
                wal_segment_bytes=SEGMENT_BYTES,
                started_at=taken_at,
                stopped_at=taken_at,
                tables={},
            ),
            directories={"base": DirectoryFacts(path=str(base), files=1, bytes=4)},
        )
        self.starts[facts.point] = self.segment
        note = self.root / "lifeboat.json"
        note.write_text(facts.model_dump_json())

        def store() -> None:
            with backup.backup_run(self.settings, Asset.DATABASE):
                vault.store_in_both_tiers(self.settings, facts, [note, base])

        self.tried(store)

    def write_and_ship(self) -> None:
        """The database works; its WAL reaches S3 when S3 is there."""
        directory = places.wal_directory(self.settings) / SYSTEM / "00000001"
        directory.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            name = Segment(1, self.segment).name(SEGMENT_BYTES)
            (directory / name).write_bytes(name.encode())
            self.unshipped.append(name)
            self.segment += 1
        while self.unshipped and "127.0.0.1:9" not in str(self.settings.vault.s3.endpoint):
            name = self.unshipped.pop(0)
            key = f"database/wal/{SYSTEM}/00000001/{name}.zst.age"
            places.bucket(self.settings).put(key, name.encode())

    def test(self, *, damaged: bool) -> None:
        """Files for real, of which some can't be read; a base copy is taken at its word."""
        request = RestoreTest(config=str(self.config), assets=[Asset.FILES])
        with self.damaged_point() if damaged else nullcontext():
            passed = self.tried(lambda: alone("test_restore")(request))
        self.test_failed = damaged or (self.test_failed and not passed)

        def mark() -> None:
            locks.stand_aside(self.settings, doing="Testing database")
            [newest, *_] = catalogue.list_points(
                self.settings, assets=(Asset.DATABASE,), tiers=(Tier.S3,)
            )
            marks.mark_verified(self.settings, [newest.id], by="a stand-in", tier=Tier.S3)

        if passed:
            self.tried(mark)

    def prune(self) -> None:
        self.pruned_today = self.tried(
            lambda: alone("prune_backups")(Prune(config=str(self.config)))
        )

    # --- the day's trouble ------------------------------------------------------------------

    @contextmanager
    def trouble(self, what: str | None) -> Iterator[None]:
        before = self.config
        if what:
            self.seen.add(what)
        try:
            match what:
                case "S3 is away":
                    self.config = self._write_settings("away.yaml", endpoint="http://127.0.0.1:9")
                    yield
                case "backup is killed" | "prune is killed":
                    self.config = self._with_killer(what.split()[0])
                    yield
                case "clock is ahead" | "clock is behind":
                    hour = timedelta(hours=1)
                    self.clock_is_off = hour if what == "clock is ahead" else -hour
                    yield
                case "recovery runs":
                    with locks.recovery_lock(self.settings, run="recover-files"):
                        yield
                case _:
                    yield
        finally:
            self.config, self.clock_is_off = before, timedelta()

    def _with_killer(self, verb: str) -> Path:
        program = self.root / f"restic-{secrets.token_hex(4)}"
        seconds = f"{self.chance.uniform(0.02, 0.25):.3f}"
        program.write_text(KILLER.format(verb=verb, restic=self.restic, seconds=seconds))
        program.chmod(0o755)
        return self._write_settings("killing.yaml", restic=str(program))

    @contextmanager
    def damaged_point(self) -> Iterator[None]:
        """What the newest point of files added to the repository in S3 can't be read for a while.

        Packs that came after its snapshot are of a backup that was killed.
        """
        bucket = places.bucket(self.settings)
        came = operator.attrgetter("modified_at")
        newest = max(map(came, bucket.list("file-backups/snapshots/")))
        packs = [o for o in bucket.list("file-backups/data/") if o.modified_at <= newest]
        kept = {o.key: bucket.get(o.key) for o in sorted(packs, key=came)[-2:]}
        bucket.delete(list(kept))
        try:
            yield
        finally:
            for key, data in kept.items():
                bucket.put(key, data)

    def live(self, day: int, what: str | None) -> None:
        """One day, from the prune at three to the backup in the evening."""
        self.now, self.pruned_today = START + day * DAY, False
        with self.trouble(what):
            if what == "host is down":
                return
            if day % 2 == 0:  # or else most of the time would go into deciding that nothing goes
                with self.at(3):
                    self.prune()
            if day:  # on the first one there is nothing yet that could be tested
                with self.at(5):
                    self.test(damaged=what == "test fails")
            with self.at(9):
                self.write_and_ship()
                self.back_up_database()
            with self.at(12):
                if day % 7 == 0:
                    self.back_up(Asset.CONFIG)
                if day % 7 == 3:
                    self.back_up(Asset.MODELS)
            with self.at(20):
                self.back_up_files()
                self.write_and_ship()


# --- what must hold every day ---------------------------------------------------------------


def look(platform: Platform, day: int, what: str | None) -> None:
    """Read the stores as a stranger would, at the end of the day."""
    platform.now = START + (day + 1) * DAY
    platform.troubled_days = platform.troubled_days + 1 if what else 0
    settings = platform.settings
    # What is seldom backed up is looked at every fourth day; what went meanwhile is missed then.
    assets = tuple(Asset) if day % 4 == 0 else (Asset.FILES, Asset.DATABASE)
    points = catalogue.list_points(settings, assets=assets, tiers=TIERS)
    held = retention.held_points(settings)
    for asset in assets:
        for tier in TIERS:
            there = {p.id: p for p in points if p.asset is asset and tier in p.copies}
            ever = platform.ever[asset, tier]
            ever |= {point.id: point.taken_at for point in there.values()}
            days, minimum = _policy(settings, tier)
            told = f"day {day} ({what}), {asset} in {tier}"
            _only_what_may_go_is_gone(platform, ever, there, days, minimum, held, told)
            if platform.pruned_today:
                _nothing_is_kept_for_nothing(platform, ever, there, days, minimum, held, told)
    _proven_points_are_there(platform, points, day)
    _no_base_is_without_its_wal(platform, points, day)
    _no_more_could_be_lost_than_the_troubles_explain(platform, points, day)
    _the_watch_sees_what_happened(platform, points, day, what)


def _policy(settings: Settings, tier: Tier) -> tuple[float, int]:
    told = settings.retention
    return (told.local_days if tier is Tier.LOCAL else told.s3_days), told.minimum


def _only_what_may_go_is_gone(platform, ever, there, days, minimum, held, told) -> None:
    an_hour_off = timedelta(hours=1)
    for name in ever.keys() - there.keys():
        age = platform.now - ever[name]
        assert age > timedelta(days=days) - an_hour_off, f"{told}: {name} went at {age}"
        assert name not in held, f"{told}: {name} is on hold"
        newer = [other for other in there if ever[other] > ever[name]]
        assert len(newer) >= minimum, f"{told}: {name} went with {len(newer)} after it"
    assert len(there) >= min(minimum, len(ever)), told


def _nothing_is_kept_for_nothing(platform, ever, there, days, minimum, held, told) -> None:
    newest = sorted(there, key=ever.__getitem__)[-minimum - 1 :]  # one came after the prune
    verified = max((p.id for p in there.values() if p.verified_at), default=None)
    for name in there.keys() - set(newest) - set(held) - {verified}:
        age = platform.now - ever[name]
        assert age < timedelta(days=days) + 1.1 * DAY, f"{told}: {name} stays at {age}"


def _proven_points_are_there(platform: Platform, points: tuple[RecoveryPoint, ...], day) -> None:
    """The newest verified point of each asset, as the marks in the bucket alone tell it."""
    there = {point.id: point.tiers for point in points}
    found = marks.read_all(platform.settings, Kind.VERIFIED)
    for asset in (Asset.FILES, Asset.DATABASE):
        proven = [name for name in found if name.startswith(f"{asset}-")]
        if proven:
            assert Tier.S3 in there.get(max(proven), ()), f"day {day}: {max(proven)}"
        if day > 5:
            assert proven, f"day {day}: no point of {asset} is verified"


def _no_base_is_without_its_wal(platform: Platform, points, day: int) -> None:
    bucket, root = places.bucket(platform.settings), places.wal_directory(platform.settings)
    here = {path.name for path in root.glob("*/*/*")}
    there = {
        item.key.rpartition("/")[2].removesuffix(".zst.age") for item in bucket.list("database/wal")
    }
    for point in points:
        if point.asset is not Asset.DATABASE:
            continue
        first = platform.starts[point.id]
        needed = {Segment(1, n).name(SEGMENT_BYTES) for n in range(first, platform.segment)}
        if Tier.LOCAL in point.copies:
            assert needed <= here, f"day {day}: {point.id} here lacks {min(needed - here)}"
        if Tier.S3 in point.copies:
            lacking = needed - there - set(platform.unshipped)
            assert not lacking, f"day {day}: {point.id} in S3 lacks {min(lacking)}"
            assert set(platform.unshipped) <= here


def _no_more_could_be_lost_than_the_troubles_explain(platform, points, day: int) -> None:
    """From S3 alone."""
    longest = (platform.troubled_days + 1) * DAY
    for asset in (Asset.FILES, Asset.DATABASE):
        newest = max(
            (p.taken_at for p in points if p.asset is asset and Tier.S3 in p.copies),
            default=START,
        )
        exposure = platform.now - newest
        assert exposure < longest, f"day {day}: {exposure} of {asset}"


def _the_watch_sees_what_happened(platform: Platform, points, day: int, what: str | None) -> None:
    """From the bucket alone, on each bad day and some good ones, it comes to the same."""
    if what is None and day % 5:
        return
    report = objectives.look_from_bucket(
        WatchObjectives(source="s3", bucket=BUCKET, endpoint=platform.endpoint)
    )
    [files] = [exposure for exposure in report.exposures if exposure.scenario == "files"]
    newest = max(p.taken_at for p in points if p.asset is Asset.FILES and Tier.S3 in p.copies)
    exposure = platform.now - newest
    assert files.seconds == pytest.approx(exposure.total_seconds()), f"day {day}"
    assert (files.status is Status.PASS) is (exposure <= DAY), f"day {day}: {exposure}"
    [tests] = [finding for finding in report.findings if finding.name == "restore-test"]
    assert (tests.status is Status.FAIL) is platform.test_failed, f"day {day}: {tests.evidence}"


def test_objectives_and_retention_hold_on_every_day(platform: Platform, tmp_path: Path) -> None:
    plan = random.Random(SEED)
    troubles = [
        plan.choice(TROUBLES) if day and plan.random() < 0.3 else None for day in range(DAYS)
    ]
    troubles[60:63] = ["host is down"] * 3
    for day, what in enumerate(troubles):
        platform.live(day, what)
        with clock.set_to(platform.now + DAY):
            look(platform, day, what)
            if day == 10:
                [*_, first] = catalogue.list_points(
                    platform.settings, assets=(Asset.FILES,), tiers=TIERS
                )
                retention.hold(platform.settings, first.id, why="the first of all")
    assert platform.seen == set(TROUBLES), "each of them happened"
    _it_was_worth_looking(platform, first)
    _what_is_left_is_whole(platform, tmp_path)


def _it_was_worth_looking(platform: Platform, held: RecoveryPoint) -> None:
    """Points and WAL have gone in both tiers, and what was held has not."""
    left = catalogue.list_points(platform.settings, tiers=TIERS)
    assert next(p for p in left if p.id == held.id).tiers == TIERS
    for asset in (Asset.FILES, Asset.DATABASE):
        for tier in TIERS:
            there = {p.id for p in left if p.asset is asset and tier in p.copies}
            assert len(platform.ever[asset, tier]) - len(there) > 15
    bucket = places.bucket(platform.settings)
    oldest = min(platform.starts[p.id] for p in left if p.asset is Asset.DATABASE)
    assert len(bucket.list("database/wal")) == platform.segment - oldest


def _what_is_left_is_whole(platform: Platform, tmp_path: Path) -> None:
    """Every byte of every repository; and some points, the oldest among them, are as they were."""
    settings = platform.settings
    for asset in Asset:
        for tier in TIERS:
            found = places.repository(settings, asset, tier).check(read="1/1")
            assert not found.problems
    files = [p for p in catalogue.list_points(settings, assets=(Asset.FILES,), tiers=TIERS)]
    for point in (files[0], files[-1], *platform.chance.sample(files, 6)):
        for tier in point.tiers:
            target = tmp_path / "restored" / tier / point.id
            places.repository(settings, Asset.FILES, tier).restore(
                point.copies[tier],
                subfolder=str(platform.root / "data/files"),
                target=target,
                overwrite="always",
            )
            digest = hashlib.sha256((target / "1.dxf").read_bytes()).hexdigest()
            assert digest == platform.content[point.id], point.id
