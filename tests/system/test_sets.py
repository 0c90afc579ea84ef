"""One coherent set of everything, what it lacks, and a server rebuilt past damage in the bucket."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from lifeboat.core.points import FACTS_NAME, Asset, Facts, Tier, point_id
from lifeboat.core.wal import parse_lsn
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import postgres
from staging import faults
from staging.site import Site
from tasks import catalogue, marks, places, sets, vault
from tasks.database import SLOT, connection
from tests.system import settings_file
from tests.system.test_recoveries import PLATFORM, Shell, rows

pytestmark = [pytest.mark.system]


@pytest.fixture(scope="module")
def shell(staging_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A platform whose WAL is received, with a place of its own in the bucket."""
    own = {"vault.s3.prefix": "sets"} | settings_file.QUICK_CHECKS
    settings_file.change(staging_site.settings_path, own)
    staging_site.stack.start(["wal-receiver"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in staging_site.environment().items():
            patch.setenv(name, value)
        yield Shell(staging_site, tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def settings(shell: Shell) -> Settings:
    return load_settings(shell.site.settings_path)


def cross_checks(settings: Settings, run_id: str) -> dict[str, dict]:
    path = places.runs_directory(settings) / run_id / "cross-check.json"
    return {check["asset"]: check for check in json.loads(path.read_text())}


def newest_run(settings: Settings) -> str:
    return max(p.name for p in places.runs_directory(settings).glob("backup-platform-*"))


def test_a_set_holds_what_its_rows_refer_to(shell: Shell, settings: Settings) -> None:
    shell.write()
    (shell.site.files / "stray.tmp").write_text("nothing refers to it")
    told = json.loads(shell.run("backup", "platform", "--json").stdout)
    found = json.loads(shell.run("points", "--json").stdout)
    name = told["facts"]["set_id"]
    assert {p["asset"]: p["set"] for p in found} == {str(asset): name for asset in Asset}
    assert {tuple(p["tiers"]) for p in found} == {("local", "s3"), ("hot", "local", "s3")}
    assert told["facts"]["set_is_restore_point"] is True
    assert told["facts"]["set_wal_in_s3"] is True
    facts = catalogue.newest_facts(settings)
    assert {told.set_id for told in facts.values()} == {name}
    base = facts[Asset.DATABASE].database
    assert base and parse_lsn(base.stop_lsn) <= parse_lsn(told["facts"]["set_lsn"])
    checks = cross_checks(settings, told["id"])
    [(drawings,)] = rows(shell.site, "SELECT count(DISTINCT path) FROM drawings")
    assert checks["files"]["referred"] == drawings
    assert checks["files"]["missing"] == checks["models"]["missing"] == []
    assert checks["files"]["unreferenced_names"] == ["drawings/stray.tmp"]
    assert checks["models"]["referred"] > 0
    key = f"records/runs/{told['id']}/cross-check.json"
    assert places.bucket(settings).exists(key), "the record survives the host"
    (shell.site.files / "stray.tmp").unlink()
    # A role that may not name a moment still learns where it is.
    dsn = psycopg.conninfo.conninfo_to_dict(shell.site.dsn("cad"))
    server = dataclasses.replace(
        connection(settings), user=dsn["user"], password=dsn["password"], database=dsn["dbname"]
    )
    moment = postgres.name_moment(server, "x", ["SELECT 7"], timeout_seconds=9)
    assert (moment.is_named, moment.rows) == (False, ([(7,)],))
    assert parse_lsn(moment.lsn) > parse_lsn(told["facts"]["set_lsn"])


def test_the_moment_of_a_set_reaches_s3_although_the_receiver_syncs_whole_segments_only(
    shell: Shell, settings: Settings
) -> None:
    settings_file.change(shell.site.settings_path, {"database.wal": "asynchronous"})
    shell.site.stack.restart(["wal-receiver"])
    try:
        asynchronous = load_settings(shell.site.settings_path)
        server, deadline = connection(asynchronous), time.monotonic() + 20
        while (r := postgres.receiver_of(server, SLOT)) is None or r.synchronous:
            assert time.monotonic() < deadline, f"commits wait for whole segments: {r}"
            time.sleep(0.1)
        moment = sets.name_moment(asynchronous, sets.new_set_id())
        assert sets.ship_up_to(asynchronous, moment) == ""
    finally:
        settings_file.change(shell.site.settings_path, {"database.wal": "synchronous"})
        shell.site.stack.restart(["wal-receiver"])


def test_a_row_without_its_file_is_named_after_everything_was_stored(
    shell: Shell, settings: Settings
) -> None:
    [(path,)] = rows(shell.site, "SELECT path FROM drawings ORDER BY id LIMIT 1")
    aside = shell.outside / "aside"
    shutil.move(shell.site.files / path, aside)
    try:
        done = shell.run("backup", "platform", ok=4)
    finally:
        shutil.move(aside, shell.site.files / path)
    assert path in done.stderr
    checks = cross_checks(settings, newest_run(settings))
    assert [item["path"] for item in checks["files"]["missing"]] == [path]
    points = catalogue.list_points(settings)
    assert len({point.set_id for point in points}) == 2
    assert len(points) == 8, "a set that lacks a file is kept all the same"
    shell.run("backup", "files")


def a_damaged_base(settings: Settings) -> str:
    """The newest base of all, marked as verified, in which a block went bad afterwards."""
    [hot] = places.hot_directory(settings).iterdir()
    facts = Facts.model_validate_json((hot / FACTS_NAME).read_bytes())
    place = hot.with_name("damaged.partial")
    shutil.copytree(hot, place, symlinks=True)
    table = max((place / "base/base").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    taken_at = facts.taken_at + timedelta(seconds=1)
    told = facts.directories["base"].model_copy(update={"path": str(place / "base")})
    facts = facts.model_copy(
        update={
            "point": point_id(Asset.DATABASE, taken_at),
            "taken_at": taken_at,
            "directories": {"base": told},
            "set_id": "",
        }
    )
    (place / FACTS_NAME).write_text(facts.model_dump_json())
    vault.store_in_both_tiers(settings, facts, [place / FACTS_NAME, place / "base"])
    shutil.rmtree(place)
    marks.mark_verified(settings, [facts.point], by="a test", tier=Tier.S3)
    return facts.point


def files_whose_content_is_gone(shell: Shell, settings: Settings) -> str:
    """A newest point of the files of which S3 has lost what was new in it."""
    store = places.bucket(settings)

    def packs() -> set[str]:
        return {item.key for item in store.list("file-backups/data/")}

    before = packs()
    point = shell.run("backup", "files").stdout.strip()
    assert store.list("file-backups/data/")
    store.delete(packs() - before)
    return point


def test_a_lost_server_comes_back_past_what_is_damaged_in_the_bucket(
    shell: Shell, settings: Settings
) -> None:
    site = shell.site
    whole = {p["id"] for p in json.loads(shell.run("points", "--json").stdout)}
    record = shell.write(3.0)
    bad_base = a_damaged_base(settings)
    bad_files = files_whose_content_is_gone(shell, settings)
    shell.run("wal", "ship")
    points = catalogue.list_points(settings, tiers=(Tier.S3,))
    newest_set = max(point.set_id for point in points)
    members = {p.asset: p.id for p in points if p.set_id == newest_set}
    s3 = settings.vault.s3
    faults.break_site(site, "lose-server")
    where = ("--bucket", s3.bucket, "--endpoint", s3.endpoint, "--prefix", s3.prefix)
    words = ("recover", "server", *where, "--into", str(site.server))
    no_config = {"LIFEBOAT_CONFIG": "/nonexistent"}

    plan = json.loads(shell.run(*words, "--dry-run", "--json", **no_config).stdout)
    chosen = {point["asset"]: point["id"] for point in plan["points"]}
    assert (chosen["database"], chosen["files"]) == (bad_base, bad_files)
    told = "\n".join(plan["steps"])
    assert f"restore database from {bad_base} (the newest verified, the newest)" in told
    assert f"; if it is damaged, from {members[Asset.DATABASE]} (an older one)" in told
    assert not site.server.exists()

    done = shell.run(*words, "--approve", PLATFORM, "--json", **no_config)
    told = json.loads(done.stdout)
    outcomes = {rung["rung"]: rung["outcome"] for rung in told["rungs"]}
    assert outcomes[bad_base] == outcomes[bad_files] == "failed"
    assert outcomes[members[Asset.DATABASE]] == "done"
    [files] = [i for i, o in outcomes.items() if i.startswith("files-") and o == "done"]
    assert files in whole
    assert {c["status"] for c in told["verdict"]["checks"]} == {"PASS"}
    lost = shell.losses(record)
    assert lost.rows_lost == 0, "WAL has brought the older base to the newest row"
    # Each is named, and two drawings may share one file.
    assert 0 < told["facts"]["files_lost"] <= lost.files_lost
    assert not list(site.database_directory.parent.glob("*.incoming-*"))
    assert not {bad_base, bad_files} & set(told["points"]), "what failed is not marked as verified"
