"""Ransomware, an emptied table and a lost mount, backed up for real: kept, told, not offered."""

from __future__ import annotations

import json
import random
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.points import (
    FACTS_NAME,
    Asset,
    DatabaseFacts,
    DirectoryFacts,
    Facts,
    RecoveryPoint,
    Tier,
    choose_point,
    point_id,
)
from lifeboat.core.requests import RecoverServer, RestoreTest
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, postgres
from tasks import (
    catalogue,
    clock,
    database,
    places,
    rebuild,
    repair,
    restore_test,
    retention,
    suspicion,
    vault,
)
from tests.system import test_vault
from tests.system.test_vault import back_up, lifeboat

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("vault")]

s3, settings = test_vault.s3, test_vault.settings  # the fixtures

NOON = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=10)
CHANCE = random.Random(11)


def backed_up(settings: Settings, asset: Asset, hours: float) -> str:
    with clock.set_to(NOON + timedelta(hours=hours)):
        return back_up(settings, asset)


def encrypt(root: Path) -> None:
    """As ransomware does: each file by others of the same size, under another name."""
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        path.write_bytes(CHANCE.randbytes(path.stat().st_size))
        path.rename(path.with_name(path.name + ".locked"))


def listed(settings: Settings, *tiers: Tier) -> dict[str, RecoveryPoint]:
    points = catalogue.list_points(settings, tiers=tiers or tuple(Tier))
    return {point.id: point for point in points}


def facts_of_runs(settings: Settings) -> list[dict]:
    records = sorted(places.runs_directory(settings).glob("backup-*/record.json"))
    return [json.loads(path.read_text())["facts"] for path in records]


def test_encrypted_files_are_kept_but_the_point_before_them_is_restored(settings: Settings) -> None:
    root = settings.files.directories["drawings"]
    whole = filesystem.digests(root)
    good = backed_up(settings, Asset.FILES, 0)
    for path in root.rglob("*"):
        path.touch()  # as chown -R: every file is changed, and none of its content
    moved = backed_up(settings, Asset.FILES, 1)
    encrypt(root)
    bad = backed_up(settings, Asset.FILES, 2)
    (root / "0" / "note.txt").write_text("pay")
    later = backed_up(settings, Asset.FILES, 3)

    *before, of_bad, of_later = facts_of_runs(settings)
    assert [facts.get("suspicious") for facts in before] == [None, None]
    assert "41 of 41 files were rewritten or replaced" in of_bad["suspicious"]
    assert f"it builds on {bad}" in of_later["suspicious"]
    for tiers in ((), (Tier.S3,), (Tier.LOCAL,)):
        points = listed(settings, *tiers)
        assert {i for i, p in points.items() if p.suspicion} == {bad, later}, tiers
        assert good in points

    source = repair.choose_source(settings, Asset.FILES)
    assert source.point.id == moved
    assert [point.id for point in source.passed_over] == [later, bad]
    damages = repair.find_damage(settings, source)
    assert f"{later}, " in repair.plan_repair(settings, source, damages, procedure="x").in_words()
    repair.rewrite_damaged(settings, source, damages)
    assert whole.items() <= filesystem.digests(root).items()
    assert catalogue.newest_facts(settings)[Asset.FILES].point == moved
    request = RestoreTest(assets=[Asset.FILES])
    assert [p.id for p in restore_test.choose_points(settings, request)] == [moved]
    by_name = RestoreTest(point=bad)
    assert [p.id for p in restore_test.choose_points(settings, by_name)] == [bad]

    for path in root.rglob("*.locked"):
        path.unlink()
    recovered = backed_up(settings, Asset.FILES, 4)
    assert listed(settings)[recovered].suspicion.startswith(f"it builds on {bad}")

    # Known only here, a lost server would be rebuilt from an older point than the accepted one.
    dead = settings.vault.s3.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    cut_off = settings.model_copy(update={"vault": settings.vault.model_copy(update={"s3": dead})})
    with pytest.raises(RecoveryError, match=r"127\.0\.0\.1:9"):
        suspicion.accept(cut_off, recovered, why="it is right")
    assert listed(settings)[recovered].suspicion
    done = lifeboat(settings, "accept", recovered, "--why", "repaired and looked at")
    assert done.returncode == 0, done.stderr
    points = listed(settings, Tier.S3)
    assert {i for i, p in points.items() if p.suspicion} == {bad, later}
    assert choose_point(points.values(), asset=Asset.FILES).id == recovered
    here = catalogue.list_points(cut_off, tolerate_failures=True)
    assert {p.id for p in here if p.suspicion} == {bad, later}, "known without the bucket as well"
    told = json.loads(lifeboat(settings, "points", "--json").stdout)
    assert {p["id"] for p in told if p["suspicion"]} == {bad, later}
    table = lifeboat(settings, "points").stdout
    assert "suspicious" in table
    assert f"{bad} is not restored from" in table
    with pytest.raises(PreconditionError, match="not suspicious"):
        suspicion.accept(settings, recovered, why="again")
    with pytest.raises(PreconditionError, match="no such recovery point"):
        suspicion.accept(settings, "files-20200101T000000Z", why="x")


def test_a_lost_mount_is_noticed_and_over_when_it_is_back(
    settings: Settings,
    tmp_path: Path,
) -> None:
    mount, small = tmp_path / "data/thumbnails", settings.files.directories["drawings"]
    shutil.copytree(small / "0", mount)
    for path in (mount / "more", mount / "again"):
        shutil.copytree(small / "1", path)
    both = {**settings.files.directories, "thumbnails": mount}
    settings = settings.model_copy(
        update={"files": settings.files.model_copy(update={"directories": both})}
    )
    backed_up(settings, Asset.FILES, 0)
    away = mount.rename(tmp_path / "away")
    mount.mkdir()
    gone = backed_up(settings, Asset.FILES, 1)
    assert "thumbnails 0 of 30" in listed(settings)[gone].suspicion
    mount.rmdir()
    away.rename(mount)
    back = backed_up(settings, Asset.FILES, 2)
    assert listed(settings)[back].suspicion == ""


def test_a_configuration_that_was_encrypted_does_not_rebuild_a_server(settings: Settings) -> None:
    folder = settings.directory / "config"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.conf").write_text(f"number {number}")
    paths = (*settings.config.paths, folder)
    told = settings.config.model_copy(update={"paths": paths})
    settings = settings.model_copy(update={"config": told})
    good = backed_up(settings, Asset.CONFIG, 0)
    encrypt(folder)
    bad = backed_up(settings, Asset.CONFIG, 1)
    s3 = settings.vault.s3
    request = RecoverServer(
        bucket=s3.bucket, endpoint=s3.endpoint or "", prefix=s3.prefix, into="/nonexistent"
    )
    _, source, _ = rebuild._settings_in_vault(request)
    assert (source.point.id, [p.id for p in source.passed_over]) == (good, [bad])
    suspicion.accept(settings, bad, why="a new layout")
    _, source, _ = rebuild._settings_in_vault(request)
    assert (source.point.id, source.passed_over) == (bad, ())


# --- the database ---------------------------------------------------------------------------


def copied(settings: Settings, hours: float, users: int) -> Facts:
    """What `backup-database` does with a base copy, but for the copying itself."""
    taken_at = NOON + timedelta(hours=hours)
    place = places.hot_directory(settings) / f"{hours}{database.UNFINISHED}"
    (place / "base").mkdir(parents=True)
    (place / "base" / "PG_VERSION").write_text("18")
    told = DatabaseFacts(
        system_identifier="77",
        timeline=1,
        start_lsn=f"0/{int(hours) + 2}000028",
        stop_lsn=f"0/{int(hours) + 2}000100",
        server_version="18.1",
        wal_segment_bytes=16 << 20,
        started_at=taken_at,
        stopped_at=taken_at,
        tables={"public.users": users, "odd schema.a,b=c": 5000},
    )
    facts = Facts(
        point=point_id(Asset.DATABASE, taken_at),
        asset=Asset.DATABASE,
        platform=settings.platform,
        host="x",
        taken_at=taken_at,
        database=told,
        directories={"base": DirectoryFacts(path=str(place / "base"), files=1, bytes=2)},
    )
    (place / FACTS_NAME).write_text(facts.model_dump_json())
    copy = database.BaseCopy(
        directory=place,
        identity=postgres.Identity("77", 1, "18.1", 180001, 16 << 20, False),
        tables=dict(told.tables),
        sequences={},
        backup=postgres.BaseBackup(1, told.start_lsn, told.stop_lsn, taken_at, taken_at),
    )
    found = database.store_copy(settings, copy, facts)
    database.publish_hot_copy(settings, copy, facts, suspicious=bool(found))
    return facts


def test_the_last_trusted_hot_copy_stays_beside_that_of_a_database_that_was_emptied(
    settings: Settings,
) -> None:
    def hot() -> set[str]:
        return {path.name for path in places.hot_directory(settings).iterdir()}

    vault.prepare_vault(settings)
    first, good = copied(settings, 0, 1000), copied(settings, 1, 1010)
    assert hot() == {good.point}
    bad, worse = copied(settings, 2, 12), copied(settings, 3, 0)
    assert hot() == {good.point, worse.point}
    for tiers in ((), (Tier.S3,), (Tier.HOT,)):
        points = listed(settings, *tiers)
        expected = {bad.point, worse.point} & points.keys()
        assert {i for i, p in points.items() if p.suspicion} == expected, tiers
        assert choose_point(points.values(), asset=Asset.DATABASE).id == good.point
    assert "public.users 12 of 1010" in listed(settings)[bad.point].suspicion
    by_tier = choose_point(listed(settings).values(), asset=Asset.DATABASE, tiers=(Tier.HOT,))
    assert by_tier.id == good.point, "the rung of the hot copy"
    suspicion.accept(settings, worse.point, why="the users moved to another system")
    after = copied(settings, 4, 0)
    assert hot() == {after.point}

    # What was decided on may go by its age; what was not yet may not.
    one = settings.retention.model_copy(update={"minimum": 1, "local_days": 0.001})
    hasty = settings.model_copy(update={"retention": one})
    [pruning, _] = retention.decide(hasty)
    removed = {point.id for point in pruning.removed(Asset.DATABASE)}
    assert removed == {first.point, good.point, bad.point, worse.point}
