"""Restore tests of a whole platform: what they try, what they leave, and what they do not trust."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest

from lifeboat.core.errors import PreconditionError
from lifeboat.core.marks import Kind, TestResult
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import filesystem
from staging.site import Site
from tasks import catalogue, clock, locks, marks, places, restore_test
from tests.system import settings_file

pytestmark = [pytest.mark.system]

ASSETS = ("config", "files", "models", "database")


@dataclass
class Platform:
    """A running platform with a recovery point of everything, under a prefix of its own."""

    site: Site
    settings: Settings
    lifeboat: Callable[..., subprocess.CompletedProcess[str]]

    @property
    def scratch(self) -> Path:
        return self.settings.vault.local / "restore-tests"

    def newest(self, asset: Asset) -> RecoveryPoint:
        return catalogue.list_points(self.settings, assets=(asset,), tiers=(Tier.S3,))[0]

    def results(self) -> dict[str, TestResult]:
        found = marks.read_all(self.settings, Kind.TESTS)
        return {name: mark for name, mark in found.items() if isinstance(mark, TestResult)}

    def forget_marks(self) -> None:
        for kind in (Kind.TESTS, Kind.VERIFIED):
            for name in marks.read_all(self.settings, kind):
                marks.remove(self.settings, kind, name)


@pytest.fixture(scope="module")
def _platform(staging_site: Site, lifeboat) -> Iterator[Platform]:
    site = staging_site
    yaml = site.settings_path
    prefix = f"proof-{secrets.token_hex(4)}x"
    settings_file.change(yaml, {"vault.s3.prefix": prefix})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.environment().items():
            patch.setenv(name, value)
        site.stack.start(["wal-receiver"])
        found = Platform(site, load_settings(yaml), partial(lifeboat, yaml))
        for asset in ASSETS:
            done = found.lifeboat("backup", asset)
            assert done.returncode == 0, done.stderr
        yield found


@pytest.fixture
def platform(_platform: Platform) -> Platform:
    """With nothing proven yet."""
    _platform.forget_marks()
    return _platform


def test_all_assets_are_tried_and_all_that_is_wrong_is_told(platform: Platform) -> None:
    """The index of the files' repository is lost; the host still has it in its cache."""
    bucket = places.bucket(platform.settings)
    [kept] = [(o.key, bucket.get(o.key)) for o in bucket.list("file-backups/index/")]
    bucket.delete([kept[0]])
    try:
        done = platform.lifeboat("test-restore", "--json")
    finally:
        bucket.put(*kept)
    assert done.returncode == 4, done.stderr
    assert "file-backups" in done.stderr and "model-backups" not in done.stderr
    assert {n: r.passed for n, r in platform.results().items()} == {
        "config": True,
        "database": True,
        "files": False,
        "models": True,
    }
    told = platform.results()["files"]
    assert told.point == platform.newest(Asset.FILES).id
    assert "repair index" in told.error
    verified = {a for a in Asset if platform.newest(a).verified_at}
    assert verified == {Asset.CONFIG, Asset.DATABASE, Asset.MODELS}
    assert list(platform.scratch.iterdir()) == []


def test_the_cache_of_this_host_hides_no_damage(platform: Platform) -> None:
    """A pack of directories alone: the host has it, a new host would not."""
    # A second snapshot, which adds directories alone: restic puts those into packs of their own.
    assert platform.lifeboat("backup", "models", "--always").returncode == 0
    bucket = places.bucket(platform.settings)
    cached = {path.name for path in (platform.settings.vault.local / "cache").rglob("*")}
    trees = [o.key for o in bucket.list("model-backups/data/") if o.key.split("/")[-1] in cached]
    assert trees
    kept = {key: bucket.get(key) for key in trees}
    bucket.delete(trees)
    try:
        done = platform.lifeboat("test-restore", "--asset", "models")
    finally:
        for key, data in kept.items():
            bucket.put(key, data)
    assert done.returncode == 4, done.stderr
    assert "2 of 3 failed: [point]" in done.stderr, "not restored either"
    assert "missing packs" in done.stderr


def test_the_key_of_the_wal_must_be_in_s3(platform: Platform) -> None:
    """The local vault has it too, where a new host could not look."""
    store = places.repository(platform.settings, Asset.DATABASE, Tier.S3)
    [key] = store.snapshots(tags={"kind": "wal-key"})
    bucket = places.bucket(platform.settings)
    name = f"database/repository/snapshots/{key.id}"
    kept = bucket.get(name)
    bucket.delete([name])
    try:
        done = platform.lifeboat("test-restore", "--asset", "database")
    finally:
        bucket.put(name, kept)
    assert done.returncode == 4, done.stderr
    assert "key of the WAL objects" in done.stderr


def test_a_test_that_is_killed_leaves_a_server_which_the_next_one_ends(platform: Platform) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "from lifeboat.cli import main; main()", "test-restore"],
        env={**os.environ, "LIFEBOAT_CONFIG": str(platform.site.settings_path)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (pids := list(platform.scratch.glob("*/database/base/postmaster.pid"))):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    orphan = psutil.Process(int(pids[0].read_text().split()[0]))
    child.kill()
    child.wait()
    assert orphan.is_running()
    done = platform.lifeboat("test-restore", "--asset", "models")
    assert done.returncode == 0, done.stderr
    assert "left by a restore test that was interrupted" in done.stderr
    assert not orphan.is_running()
    assert list(platform.scratch.iterdir()) == []


def test_while_a_recovery_runs_nothing_is_tested_and_no_result_is_left(platform: Platform) -> None:
    with locks.recovery_lock(platform.settings, run="recover-files"):
        done = platform.lifeboat("test-restore")
    assert done.returncode == 6
    assert platform.results() == {}


def test_a_base_copy_made_over_many_subtransactions_is_proven_all_the_same(
    platform: Platform,
) -> None:
    with psycopg.connect(platform.site.dsn("postgres")) as connection:
        connection.execute("CREATE TABLE many (n int)")
        for number in range(70):
            connection.execute(f"SAVEPOINT s{number}")
            connection.execute("INSERT INTO many VALUES (%s)", [number])
        assert platform.lifeboat("backup", "database").returncode == 0
        connection.rollback()
    done = platform.lifeboat("test-restore", "--asset", "database")
    assert done.returncode == 0, done.stderr
    assert "once more" in done.stderr
    assert platform.newest(Asset.DATABASE).verified_at


# --- a sample, and a point by its name ------------------------------------------------------


def test_a_sample_reads_the_store_and_proves_no_point(platform: Platform) -> None:
    words = ("test-restore", "--asset", "files", "--asset", "models")
    done = platform.lifeboat(*words, "--sample", "100", "--json")
    assert done.returncode == 0, done.stderr
    assert len(marks.read_all(platform.settings, Kind.VERIFIED)) == 2, "all of it is no sample"
    platform.forget_marks()
    done = platform.lifeboat(*words, "--sample", "40", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["facts"]
    assert facts["files_s3_read"] == facts["models_s3_read"] == "40%"
    assert re.fullmatch(r"\d+/30", str(facts["files_local_read"]))
    assert "files_bytes" not in facts, "nothing was restored"
    assert marks.read_all(platform.settings, Kind.VERIFIED) == {}
    assert platform.results() == {}
    assert platform.lifeboat("test-restore", "--sample", "0").returncode == 2


def test_damage_in_a_sample_is_told(platform: Platform) -> None:
    bucket = places.bucket(platform.settings)
    marks.mark_verified(
        platform.settings, [platform.newest(Asset.FILES).id], by="a test", tier=Tier.S3
    )
    largest = max(bucket.list("file-backups/data/"), key=lambda item: item.bytes).key
    kept = bucket.get(largest)
    bucket.delete([largest])
    try:
        done = platform.lifeboat("test-restore", "--asset", "files", "--sample", "1")
    finally:
        bucket.put(largest, kept)
    assert done.returncode == 4, done.stderr
    assert f"missing packs: {largest.rpartition('/')[2]}" in done.stderr
    assert {n: r.passed for n, r in platform.results().items()} == {"files": False}
    assert marks.read_all(platform.settings, Kind.VERIFIED) == {}, "it lacks that pack"


def test_that_an_older_point_is_good_does_not_hide_that_a_newer_one_is_not(
    platform: Platform,
) -> None:
    older = platform.newest(Asset.MODELS).id
    assert platform.lifeboat("backup", "models", "--always").returncode == 0
    newer = platform.newest(Asset.MODELS).id
    failed = TestResult(
        asset="models",
        point=newer,
        ended_at=clock.now(),
        passed=False,
        error="its bits have rotted",
        by="a test of yesterday",
    )
    marks.put(platform.settings, Kind.TESTS, "models", failed)
    assert platform.lifeboat("test-restore", "--point", older).returncode == 0
    assert platform.results() == {"models": failed}
    assert set(marks.read_all(platform.settings, Kind.VERIFIED)) == {older}
    assert platform.lifeboat("test-restore", "--point", newer).returncode == 0
    assert platform.results()["models"].passed


@pytest.mark.parametrize("point", ["models-20200101T000000Z", "nonsense", "x-20200101T000000Z"])
def test_a_point_that_is_not_there_is_refused(platform: Platform, point: str) -> None:
    done = platform.lifeboat("test-restore", "--point", point)
    assert done.returncode == 3
    assert f"Testing {point}: there is no such recovery point in S3" in done.stderr


# --- before anything is fetched -------------------------------------------------------------


def test_without_enough_space_nothing_is_fetched_and_nothing_unproven(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database needs room for itself and for its WAL, as fetched and as staged."""
    point = platform.newest(Asset.DATABASE)
    marks.mark_verified(platform.settings, [point.id], by="a test", tier=Tier.S3)
    base = catalogue.read_facts(platform.settings, point, Tier.S3).directories["base"].bytes
    free = base + (80 << 20)
    monkeypatch.setattr(filesystem, "free_bytes", lambda path: free)
    with pytest.raises(PreconditionError, match="MB are free"):
        restore_test.prove(platform.settings, point, tmp_path)
    assert not (tmp_path / "database").exists()
    assert set(marks.read_all(platform.settings, Kind.VERIFIED)) == {point.id}
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
