"""Files and models into a real vault (restic, S3) and back: found by name, repaired in place."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest

from lifeboat.core.errors import LockBusy, PermanentError, PreconditionError, RecoveryError
from lifeboat.core.points import Asset, DatabaseFacts, DirectoryFacts, Facts, Tier, point_id
from lifeboat.core.references import Referred
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, restic
from lifeboat.tools.restic import restoring
from staging.s3 import S3Server
from tasks import (
    backup,
    catalogue,
    locks,
    marks,
    older_versions,
    places,
    repair,
    retention,
    trees,
    vault,
)
from tasks.orchestration import side_by_side
from tests.system import vault_site
from tests.system.vault_site import BUCKET, CANARY, back_up

pytestmark = [pytest.mark.system]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with vault_site.store(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def settings(
    s3: S3Server, quick_restic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    return vault_site.make(s3, quick_restic, tmp_path, monkeypatch)


def damage_some(root: Path) -> dict[str, list[str]]:
    """Delete one file, cut one short, and flip a bit in one without touching its size or time."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    gone, cut, flipped = paths[0], paths[7], paths[21]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:100])
    before = flipped.stat()
    data = bytearray(flipped.read_bytes())
    data[1234] ^= 1
    flipped.write_bytes(data)
    os.utime(flipped, ns=(before.st_atime_ns, before.st_mtime_ns))

    def names(*paths: Path) -> list[str]:
        return [str(path.relative_to(root)) for path in paths]

    return {"missing": names(gone), "truncated": names(cut), "altered": names(flipped)}


def repair_files(settings: Settings) -> None:
    source = repair.choose_source(settings, Asset.FILES)
    damages = repair.find_damage(settings, source)
    repair.keep_damaged(damages)
    repair.rewrite_damaged(settings, source, damages)


# With more damage than restic is told by name the same has to come out.
@pytest.mark.parametrize(("tier", "by_name"), [(Tier.LOCAL, 300), (Tier.S3, 300), (Tier.LOCAL, 2)])
def test_damage_is_found_by_name_and_only_that_is_rewritten(
    settings: Settings, tier: Tier, by_name: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "_BY_NAME", by_name)
    root = settings.files.directories["drawings"]
    whole = filesystem.digests(root)
    back_up(settings, Asset.FILES)
    untouched = {str(path.relative_to(root)): path.stat().st_ino for path in root.rglob("*.dxf")}
    broken = damage_some(root)
    newer = root / "uploaded later.dxf"
    newer.write_bytes(b"newer than the point")

    source = repair.choose_source(settings, Asset.FILES, only_from=tier)
    damages = repair.find_damage(settings, source)
    (found,) = damages
    assert {
        "missing": list(found.missing),
        "truncated": list(found.truncated),
        "altered": list(found.altered),
    } == broken

    flipped = (root / found.altered[0]).read_bytes()
    repair.keep_damaged(damages)
    repair.rewrite_damaged(settings, source, damages)

    assert newer.read_bytes() == b"newer than the point"
    newer.unlink()
    assert filesystem.digests(root) == whole
    (aside,) = root.parent.glob("files.damaged-*")
    assert (aside / found.altered[0]).read_bytes() == flipped, "the damaged original is kept"
    same = {name: inode for name, inode in untouched.items() if name not in found.names}
    assert {name: (root / name).stat().st_ino for name in same} == same


@pytest.mark.parametrize("by_name", [300, 2])
@pytest.mark.parametrize("content", [b"what a user has drawn meanwhile", None])
def test_what_users_make_between_look_and_repair_is_kept_aside(
    settings: Settings, by_name: int, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the name of a missing file; None: the very file, uploaded again."""
    monkeypatch.setattr(repair, "_BY_NAME", by_name)
    root = settings.files.directories["drawings"]
    whole = filesystem.digests(root)
    first = sorted(path for path in root.rglob("*") if path.is_file())[0].read_bytes()
    back_up(settings, Asset.FILES)
    broken = damage_some(root)
    source = repair.choose_source(settings, Asset.FILES)
    damages = repair.find_damage(settings, source)
    appeared = broken["missing"][0]
    (root / appeared).write_bytes(first if content is None else content)
    repair.keep_damaged(damages)
    repair.rewrite_damaged(settings, source, damages)
    assert filesystem.digests(root) == whole
    (aside,) = root.parent.glob("files.damaged-*")
    assert (aside / appeared).read_bytes() == (first if content is None else content)

    # A second attempt of the same run, as from another point, keeps its own.
    (root / appeared).write_bytes(b"as the first attempt had it")
    repair.keep_damaged(repair.find_damage(settings, source))
    (second,) = set(root.parent.glob("files.damaged-*")) - {aside}
    assert (second / appeared).read_bytes() == b"as the first attempt had it"
    assert (aside / appeared).read_bytes() == (first if content is None else content)


def test_a_file_that_the_disk_no_longer_gives_is_moved_aside_and_written_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = settings.files.directories["drawings"]
    whole = filesystem.digests(root)
    back_up(settings, Asset.FILES)
    broken = root / damage_some(root)["altered"][0]
    lost, inode = broken.read_bytes(), broken.stat().st_ino
    real = shutil.copy2

    def copy(source: Path, target: Path) -> None:
        target.write_bytes(b"the beginning of it")
        if source == broken:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(shutil, "copy2", copy)
    repair_files(settings)
    assert filesystem.digests(root) == whole
    [aside] = root.parent.glob("files.damaged-*")
    kept = aside / broken.relative_to(root)
    assert (kept.read_bytes(), kept.stat().st_ino) == (lost, inode), "the same blocks of the disk"
    assert broken.stat().st_ino != inode


def test_a_file_in_the_place_of_a_directory_is_kept_aside(settings: Settings) -> None:
    root = settings.files.directories["drawings"]
    whole = filesystem.digests(root)
    back_up(settings, Asset.FILES)
    shutil.rmtree(root / "1")
    (root / "1").write_text("somebody's notes")
    repair_files(settings)
    assert filesystem.digests(root) == whole
    [aside] = root.parent.glob("files.damaged-*")
    assert (aside / "1").read_text() == "somebody's notes"


def test_a_file_that_can_t_be_read_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawing.dxf").write_text("on a bad sector")

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(filesystem, "digest", fail)
    item = Referred(path="drawing.dxf", sha256="0" * 64, bytes=15)
    assert not older_versions.is_whole([tmp_path], item)


def test_a_file_that_goes_while_it_is_compared_is_missing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As users delete them."""
    root = settings.files.directories["drawings"]
    back_up(settings, Asset.FILES)
    broken = damage_some(root)
    gone = broken["altered"][0]
    real = restoring._size_of

    def size_of(path: Path) -> int | None:
        if path == root / gone:
            path.unlink()
        return real(path)

    monkeypatch.setattr(restoring, "_size_of", size_of)
    [found] = repair.find_damage(settings, repair.choose_source(settings, Asset.FILES))
    assert set(found.missing) == {*broken["missing"], gone} and not found.altered


def test_restores_side_by_side_take_one_lock_between_them(
    settings: Settings, tmp_path: Path
) -> None:
    """Restic waits 5 s where a lock that it has listed has gone, as that of a neighbour does."""
    point = back_up(settings, Asset.FILES)
    [snapshot] = places.repository(settings, Asset.FILES, Tier.S3).snapshots()
    assert snapshot.tags["point"] == point
    told, recorder = tmp_path / "told", tmp_path / "restic-that-tells"
    # Each waits until all three have begun.
    recorder.write_text(
        f'#!/bin/sh\necho "$*" >>{told}\n'
        f'while [ "$(wc -l <{told})" -lt 3 ]; do sleep 0.05; done\n'
        f'exec {settings.vault.restic_program} "$@"\n'
    )
    recorder.chmod(0o755)
    store = replace(places.repository(settings, Asset.FILES, Tier.S3), program=recorder)

    def restore(name: str) -> None:
        place = tmp_path / "out" / name
        root = str(tmp_path / "data/files")
        store.restore(snapshot.id, subfolder=root, target=place, overwrite="always")
        assert len([path for path in place.rglob("*") if path.is_file()]) == 40

    side_by_side({name: partial(restore, name) for name in ("one", "two", "three")})
    assert sum("--no-lock" not in line for line in told.read_text().splitlines()) == 1
    restore("alone")
    assert "--no-lock" not in told.read_text().splitlines()[-1]


def test_every_asset_is_listed_with_its_tiers(settings: Settings) -> None:
    made = {back_up(settings, asset) for asset in (Asset.FILES, Asset.MODELS, Asset.CONFIG)}
    points = catalogue.list_points(settings)
    assert {point.id for point in points} == made
    assert {point.tiers for point in points} == {(Tier.LOCAL, Tier.S3)}
    assert all(point.verified_at is None for point in points)
    marks.mark_verified(settings, [points[0].id], by="a test", tier=Tier.S3)
    again = catalogue.list_points(settings, tiers=(Tier.S3,))
    assert [p.id for p in again if p.verified_at] == [points[0].id], "known from S3 alone"


def test_the_key_of_the_wal_is_the_same_from_both_tiers(settings: Settings) -> None:
    vault.prepare_vault(settings)
    identity = vault.wal_identity(settings)
    vault.prepare_vault(settings)
    assert vault.wal_identity(settings) == identity


def test_an_empty_store_does_not_become_the_latest_point(settings: Settings) -> None:
    back_up(settings, Asset.MODELS)
    for path in settings.models.directories["models"].iterdir():
        path.unlink()
    with pytest.raises(PreconditionError, match="not one file"):
        back_up(settings, Asset.MODELS)
    assert len(catalogue.list_points(settings, assets=(Asset.MODELS,))) == 1


def test_backups_stand_aside_while_a_recovery_runs(settings: Settings) -> None:
    with (
        locks.recovery_lock(settings, run="recover-files"),
        pytest.raises(LockBusy, match="recover-files"),
    ):
        back_up(settings, Asset.FILES)
    back_up(settings, Asset.FILES)


def test_a_second_recovery_is_refused_by_name(settings: Settings) -> None:
    with (
        locks.recovery_lock(settings, run="recover-files"),
        pytest.raises(LockBusy, match=r"recover-files, process \d+"),
        locks.recovery_lock(settings, run="recover-models", wait_seconds=0.2),
    ):
        pass


def test_a_host_that_was_not_verified_may_not_write_to_the_vault(settings: Settings) -> None:
    settings.vault.local.mkdir(parents=True)
    (settings.vault.local / backup.UNPROVEN_NAME).write_text("recover-server-x")
    with pytest.raises(PreconditionError, match="lifeboat verify"):
        back_up(settings, Asset.FILES)


def lifeboat(settings: Settings, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "from lifeboat.cli import main; main()", *words],
        env={
            **os.environ,
            **environment,
            "LIFEBOAT_CONFIG": str(settings.directory / "lifeboat.yaml"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_line_backs_up_and_lists_without_prefect(settings: Settings) -> None:
    done = lifeboat(settings, "backup", "files", "--without-prefect")
    assert done.returncode == 0, done.stderr
    listed = lifeboat(settings, "points", "--json")
    (point,) = json.loads(listed.stdout)
    assert point["id"] == done.stdout.strip()
    assert point["tiers"] == ["local", "s3"]
    told = {"asset", "id", "taken_at", "tiers", "bytes", "verified_at", "suspicion", "set"}
    assert set(point) == told
    for text in (done.stdout, done.stderr, listed.stdout, listed.stderr):
        assert CANARY not in text
    for path in settings.vault.local.glob("records/**/*.json*"):
        assert CANARY not in path.read_text()


def test_a_wrong_password_is_refused_before_anything_is_touched(settings: Settings) -> None:
    back_up(settings, Asset.FILES)
    done = lifeboat(settings, "points", LIFEBOAT_VAULT_PASSWORD="not-this-one")
    assert done.returncode == 3
    assert "password" in done.stderr


def test_a_missing_bucket_and_a_dead_endpoint_are_told_apart(settings: Settings) -> None:
    yaml = settings.directory / "lifeboat.yaml"
    good = yaml.read_text()
    yaml.write_text(good.replace(f"bucket: {BUCKET}", "bucket: nowhere-at-all"))
    missing = lifeboat(settings, "prepare")
    assert missing.returncode == 3
    assert "nowhere-at-all" in missing.stderr
    endpoint = settings.vault.s3.endpoint or ""
    yaml.write_text(good.replace(endpoint, "http://127.0.0.1:9"))
    dead = lifeboat(settings, "prepare")
    assert dead.returncode == 3
    assert "127.0.0.1:9" in dead.stderr


# --- what goes wrong in the middle ----------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_leaves_no_point_and_the_original_data(
    settings: Settings, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 has its copy all the same: the tiers fail apart."""
    # Now and then restic waits for itself on a full disk.
    monkeypatch.setattr("lifeboat.tools.restic.output.STALL_SECONDS", 40.0)
    big = settings.models.directories["models"] / "big.bin"
    big.write_bytes(random.Random(1).randbytes(40 << 20))
    told = settings.vault.model_copy(update={"local": small_disk})
    full = settings.model_copy(update={"vault": told})
    with pytest.raises(RecoveryError, match="(?i)space|full"):
        back_up(full, Asset.MODELS)
    assert big.stat().st_size == 40 << 20
    points = catalogue.list_points(full, assets=(Asset.MODELS,))
    assert [point.tiers for point in points] == [(Tier.S3,)]


def test_an_unreadable_source_leaves_no_point_and_names_the_file(settings: Settings) -> None:
    """Root may read everything, so what can't be read here is a file that fails in the reading."""
    root = settings.files.directories["drawings"]
    bad = root / "0" / "unreadable.dxf"
    bad.write_bytes(b"x" * 1000)
    if os.geteuid():
        bad.chmod(0)
    elif subprocess.run(["mount", "--bind", "/proc/self/mem", bad], capture_output=True).returncode:
        pytest.skip("root can read everything, and may not mount here")
    try:
        with pytest.raises(RecoveryError, match=r"unreadable\.dxf"):
            back_up(settings, Asset.FILES)
        assert catalogue.list_points(settings, assets=(Asset.FILES,)) == ()
    finally:
        if not os.geteuid():
            subprocess.run(["umount", "--lazy", bad], check=True)


def test_a_backup_that_is_killed_leaves_no_point(settings: Settings) -> None:
    big = settings.models.directories["models"] / "big.bin"
    big.write_bytes(random.Random(2).randbytes(200 << 20))
    vault.prepare_vault(settings)
    child = subprocess.Popen(
        [sys.executable, "-c", "from lifeboat.cli import main; main()", "backup", "models"],
        env={**os.environ, "LIFEBOAT_CONFIG": str(settings.file)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr
    for line in child.stderr:
        if "store snapshot" in line:
            break
    child.kill()
    child.communicate(timeout=30)
    assert catalogue.list_points(settings, assets=(Asset.MODELS,)) == ()
    big.unlink()
    back_up(settings, Asset.MODELS)
    [point] = catalogue.list_points(settings, assets=(Asset.MODELS,))
    assert point.tiers == (Tier.LOCAL, Tier.S3)


def test_s3_that_goes_away_is_told_and_the_local_copy_counts(settings: Settings) -> None:
    vault.prepare_vault(settings)
    dead = settings.vault.s3.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    cut_off = settings.model_copy(update={"vault": settings.vault.model_copy(update={"s3": dead})})
    with pytest.raises(RecoveryError, match=r"127\.0\.0\.1:9"):
        back_up(cut_off, Asset.MODELS)
    [point] = catalogue.list_points(cut_off, assets=(Asset.MODELS,), tolerate_failures=True)
    assert point.tiers == (Tier.LOCAL,)


# --- retention ------------------------------------------------------------------------------


def a_point_of(settings: Settings, asset: Asset, *, days_old: float) -> str:
    """A real snapshot in both tiers that says it is older than it is."""
    vault.ensure_prepared(settings)
    taken_at = datetime.now(timezone.utc) - timedelta(days=days_old)
    facts = trees.gather_facts(settings, asset)
    named = {"taken_at": taken_at, "point": point_id(asset, taken_at)}
    trees.store_directories(settings, facts.model_copy(update=named))
    return named["point"]


def points_in(settings: Settings, tier: Tier) -> set[str]:
    return {point.id for point in catalogue.list_points(settings, tiers=(tier,))}


def test_prune_keeps_what_the_policy_holds_and_the_rest_can_still_be_restored(
    settings: Settings,
) -> None:
    told = settings.retention.model_copy(update={"minimum": 2})
    settings = settings.model_copy(update={"retention": told})
    ages = (100, 95, 50, 40, 35, 2, 1)
    by_age = {age: a_point_of(settings, Asset.MODELS, days_old=age) for age in ages}
    marks.mark_verified(settings, [by_age[50]], by="a test", tier=Tier.S3)
    retention.hold(settings, by_age[100], why="the audit of 2026")
    assert retention.held_points(settings) == {by_age[100]: "the audit of 2026"}
    everything = set(by_age.values())

    prunings = retention.decide(settings)
    assert points_in(settings, Tier.LOCAL) == points_in(settings, Tier.S3) == everything
    text = "\n".join(pruning.in_words() for pruning in prunings)
    assert f"keep   {by_age[100]}: on hold" in text
    assert f"keep   {by_age[50]}: the newest verified one" in text
    assert f"REMOVE {by_age[40]}: older than 30 days" in text

    retention.remove(settings, prunings)
    assert points_in(settings, Tier.LOCAL) == {by_age[age] for age in (100, 50, 2, 1)}
    assert points_in(settings, Tier.S3) == everything - {by_age[95]}
    for tier in (Tier.LOCAL, Tier.S3):
        places.repository(settings, Asset.MODELS, tier).check()
    source = repair.choose_source(settings, Asset.MODELS, only_from=Tier.LOCAL)
    assert repair.find_damage(settings, source)[0].names == ()

    retention.release(settings, by_age[100])
    retention.remove(settings, retention.decide(settings))
    assert by_age[100] not in points_in(settings, Tier.S3)


def a_base_of(
    settings: Settings,
    *,
    days_old: float,
    start: str,
    system: str = "77",
    segment_bytes: int = 16 << 20,
) -> None:
    """A base copy in both tiers, of which only the facts are real."""
    base = settings.directory / "base"
    base.mkdir(exist_ok=True)
    (base / "PG_VERSION").write_text("18")
    taken_at = datetime.now(timezone.utc) - timedelta(days=days_old)
    facts = Facts(
        point=point_id(Asset.DATABASE, taken_at),
        asset=Asset.DATABASE,
        platform=settings.platform,
        host="x",
        taken_at=taken_at,
        database=DatabaseFacts(
            system_identifier=system,
            timeline=1,
            start_lsn=start,
            stop_lsn=start,
            server_version="18",
            wal_segment_bytes=segment_bytes,
            started_at=taken_at,
            stopped_at=taken_at,
            tables={},
        ),
        directories={"base": DirectoryFacts(path=str(base), files=1, bytes=2)},
    )
    note = settings.directory / "lifeboat.json"
    note.write_text(facts.model_dump_json())
    vault.ensure_prepared(settings)
    vault.store_in_both_tiers(settings, facts, [note, base])


def wal_of(settings: Settings, names: list[str], *, here: bool, system: str = "77") -> Path:
    """WAL in the bucket, and on this host as well."""
    local = places.wal_directory(settings) / system / "00000001"
    local.mkdir(parents=True, exist_ok=True)
    for name in names:
        if here:
            (local / name).write_bytes(b"wal")
        places.bucket(settings).put(f"database/wal/{system}/00000001/{name}.zst.age", b"sealed")
    return local


def wal_in_s3(settings: Settings, system: str = "77") -> set[str]:
    items = places.bucket(settings).list(f"database/wal/{system}/")
    return {item.key.rpartition("/")[2].removesuffix(".zst.age") for item in items}


def with_a_minimum_of_one(settings: Settings) -> Settings:
    one = settings.retention.model_copy(update={"minimum": 1})
    return settings.model_copy(update={"retention": one})


def test_wal_goes_only_from_before_the_oldest_kept_base(settings: Settings) -> None:
    settings = with_a_minimum_of_one(settings)
    a_base_of(settings, days_old=200, start="0/2000028")
    a_base_of(settings, days_old=1, start="0/5000028")
    names = [f"00000001000000000000000{n}" for n in range(3, 8)]
    local = wal_of(settings, names, here=True)
    (local / "00000002.history").write_text("1\t0/7000000\tx\n")
    retention.remove(settings, retention.decide(settings))
    assert {path.name for path in local.iterdir()} == {*names[2:], "00000002.history"}
    assert wal_in_s3(settings) == set(names[2:])


def test_how_long_segments_are_is_not_guessed(settings: Settings) -> None:
    """In segments of 64 MB the tenth one begins at 0/28000000; in those of 16 MB the fortieth."""
    settings = with_a_minimum_of_one(settings)
    a_base_of(settings, days_old=1, start="0/28000028", segment_bytes=64 << 20)
    names = [f"0000000100000000000000{n:02X}" for n in range(8, 13)]
    local = wal_of(settings, names, here=True)
    retention.remove(settings, retention.decide(settings))
    assert {path.name for path in local.iterdir()} == wal_in_s3(settings) == set(names[2:])
    a_base_of(settings, days_old=0, start="0/F0000028", segment_bytes=16 << 20)
    assert all(pruning.wal == () for pruning in retention.decide(settings))


def test_a_segment_that_s3_has_of_another_cluster_is_not_ours(settings: Settings) -> None:
    """It has not been shipped yet, and a base in S3 needs it."""
    settings = with_a_minimum_of_one(settings)
    a_base_of(settings, days_old=45, start="0/2000028")
    a_base_of(settings, days_old=1, start="0/5000028")
    name = "000000010000000000000003"
    wal_of(settings, [name], here=False, system="66")
    local = places.wal_directory(settings) / "77" / "00000001"
    local.mkdir(parents=True)
    (local / name).write_bytes(b"wal")
    retention.remove(settings, retention.decide(settings))
    assert (local / name).exists()
    wal_of(settings, [name], here=True)
    retention.remove(settings, retention.decide(settings))
    assert not (local / name).exists()
    assert wal_in_s3(settings) == {name}


def test_nothing_goes_while_a_recovery_runs_or_a_tier_is_unknown(settings: Settings) -> None:
    a_point_of(settings, Asset.MODELS, days_old=400)
    for days_old in (3, 2, 1):
        a_point_of(settings, Asset.MODELS, days_old=days_old)
    before = points_in(settings, Tier.LOCAL)
    prunings = retention.decide(settings)
    with locks.recovery_lock(settings, run="recover-models"), pytest.raises(LockBusy):
        retention.remove(settings, prunings)
    dead = settings.vault.s3.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    cut_off = settings.model_copy(update={"vault": settings.vault.model_copy(update={"s3": dead})})
    with pytest.raises(RecoveryError):
        retention.decide(cut_off)
    assert points_in(settings, Tier.LOCAL) == before
    with pytest.raises(PreconditionError, match="no such recovery point"):
        retention.hold(settings, "models-20200101T000000Z", why="x")


# --- a source that a recovery takes away ----------------------------------------------------


@pytest.mark.parametrize("harm", ["a directory was away for a moment", "all of it is gone"])
def test_a_copy_that_is_taken_while_it_is_stored_makes_no_point(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """Restic passes over what vanishes below a directory, and calls the rest a backup."""
    root = settings.models.directories["models"]
    (root / "inner").mkdir()
    (root / "inner/weights.bin").write_bytes(b"x" * 1000)
    vault.prepare_vault(settings)
    facts = trees.gather_facts(settings, Asset.MODELS)
    files, size = filesystem.tree_size(root)
    whole = vault.Extent(files=files, bytes=size)
    real = restic.Repository.backup

    def backup_of_what_goes_away(self, paths, **more):
        if harm == "all of it is gone":
            done = real(self, paths, **more)
            root.rename(root.with_name("taken"))
            return done
        away = (root / "inner").rename(root.with_name("away"))
        try:
            return real(self, paths, **more)
        finally:
            away.rename(root / "inner")

    def store() -> None:
        vault.store_snapshot(settings, Tier.LOCAL, facts, [root], whole)

    monkeypatch.setattr(restic.Repository, "backup", backup_of_what_goes_away)
    with pytest.raises(PermanentError, match="went away meanwhile"):
        store()
    assert catalogue.list_points(settings, assets=(Asset.MODELS,)) == ()
    if harm == "all of it is gone":
        return
    with (
        locks.recovery_lock(settings, run="recover-database"),
        pytest.raises(LockBusy, match="recover-database"),
    ):
        store()
    monkeypatch.setattr(restic.Repository, "backup", real)
    store()
    assert len(catalogue.list_points(settings, assets=(Asset.MODELS,))) == 1
