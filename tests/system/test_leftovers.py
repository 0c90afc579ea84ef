"""Runs that are killed with -9, and what the next one finds: real restic, real S3."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from lifeboat.core.points import Asset, Tier
from tasks import catalogue, clock, leftovers, places

pytestmark = [pytest.mark.system]


def locks_of(host, asset: Asset, tier: Tier) -> int:
    if tier is Tier.LOCAL:
        return len(list((host.root / f"backups/{asset}/repository/locks").iterdir()))
    return len(places.bucket(host.settings).list(f"{places.repository_key(asset)}/locks/"))


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def a_lock(host, tier: Tier, *, hostname: str = "") -> Iterator[psutil.Process]:
    """A restic that works on the configuration's repository, as long as its input stays open."""
    store = places.repository(host.settings, Asset.CONFIG, tier)
    words = [store.program, "-r", store.location, "backup", "--stdin", "--no-cache", "--quiet"]
    if hostname:
        words = ["unshare", "--uts", "sh", "-c", f'hostname {hostname}; exec "$@"', "-", *words]
    secret = {"RESTIC_PASSWORD": store.password, **store.environment}
    before = locks_of(host, Asset.CONFIG, tier)
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **secret}
    ) as child:
        try:
            wait_for(lambda: locks_of(host, Asset.CONFIG, tier) > before or child.poll())
            assert child.poll() is None, child.communicate()
            yield psutil.Process(child.pid)
        finally:
            child.kill()


def kill_in_the_middle(host, *words: str, at: str) -> None:
    """SIGKILL a run and all that it started, so that nobody can clean up."""
    child = host.start(*words)
    assert child.stderr
    for line in child.stderr:
        if at in line:
            break
    family = psutil.Process(child.pid)
    wait_for(lambda: [p for p in family.children(recursive=True) if p.name() == "restic"])
    wait_for(
        lambda: locks_of(host, Asset.MODELS, Tier.LOCAL) and locks_of(host, Asset.MODELS, Tier.S3)
    )
    family.suspend()
    children = family.children(recursive=True)
    for process in (*children, family):
        process.kill()
    child.communicate(timeout=30)
    assert child.returncode == -9
    # One that waits for the disk dies only when that has answered, and holds its lock until then.
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_a_backup_that_was_killed_is_reported_and_cleaned_up_by_the_next(host) -> None:
    big = host.root / "data/models/big.bin"
    big.write_bytes(random.Random(2).randbytes(200 << 20))
    kill_in_the_middle(host, "backup", "models", at="store snapshot")
    [killed] = host.records()
    big.unlink()

    seen = json.loads(host.run("tidy", "--dry-run", "--json").stdout)
    told = [f"{one['what']} {one['where']}" for one in seen]
    assert told[:2] == [
        "Locks of the repository models in local",
        "Locks of the repository models in s3",
    ]
    assert killed in told[2]
    assert locks_of(host, Asset.MODELS, Tier.LOCAL) == locks_of(host, Asset.MODELS, Tier.S3) == 1

    done = host.run("backup", "models")
    for tier in places.RESTIC_TIERS:
        line = f"Locks of the repository models in {tier}: 1 of 1 removed, whose owner is dead"
        assert line in done.stderr
        assert locks_of(host, Asset.MODELS, tier) == 0
    assert f"The run {killed} was interrupted (last: store-snapshot): noted" in done.stderr
    [newest] = catalogue.list_points(host.settings, assets=(Asset.MODELS,))
    assert newest.tiers == places.RESTIC_TIERS
    directory = host.root / "backups/records/runs" / host.records()[-1]
    assert json.loads((directory / "record.json").read_text())["facts"]["leftovers"] == 3
    assert killed in (directory / "leftovers.txt").read_text()

    again = host.run("backup", "models", "--always")
    assert "interrupted" not in again.stderr
    assert host.run("tidy").stdout == "Dead runs have left nothing behind.\n"


@pytest.mark.parametrize("tier", places.RESTIC_TIERS)
def test_the_lock_of_the_living_stays_and_that_of_the_dead_goes(host, tier: Tier) -> None:
    with a_lock(host, tier) as owner:
        assert leftovers.tidy(host.settings) == ()
        assert locks_of(host, Asset.CONFIG, tier) == 1
        host.run("backup", "config")
        assert locks_of(host, Asset.CONFIG, tier) == 1
        owner.kill()
    [found] = leftovers.tidy(host.settings)
    assert found.in_words() == (
        f"Locks of the repository config in {tier}: 1 of 1 removed, whose owner is dead"
    )
    assert locks_of(host, Asset.CONFIG, tier) == 0


def test_the_lock_of_another_host_stays_for_it_may_be_alive(host) -> None:
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode:
        pytest.skip("another host's name can't be had here")
    with a_lock(host, Tier.LOCAL, hostname="elsewhere") as owner:
        owner.kill()
    assert leftovers.tidy(host.settings) == ()
    assert locks_of(host, Asset.CONFIG, Tier.LOCAL) == 1
    host.run("backup", "config")


def test_uploads_are_given_up_after_a_day_and_not_before(
    host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A day later what other tests have in the system's place for such things looks forgotten.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bucket = places.bucket(host.settings)
    key = bucket.full_key("database/wal/7/00000001/x")
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="of-another-platform")
    assert leftovers.tidy(host.settings) == ()
    assert len(bucket.unfinished_uploads()) == 1
    with clock.set_to(clock.now() + timedelta(days=1, minutes=1)):
        [found] = leftovers.tidy(host.settings)
    assert found.what == "1 interrupted uploads to"
    assert bucket.unfinished_uploads() == ()
    assert bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]


def test_without_s3_a_backup_tells_it_once_and_a_lost_vault_is_nothing_to_tidy(host) -> None:
    host.write_yaml(endpoint="http://127.0.0.1:9")
    began = time.monotonic()
    leftovers.tidy_before(host.settings, Asset.CONFIG)
    assert time.monotonic() - began < 10
    shutil.rmtree(host.root / "backups")
    assert leftovers.tidy(host.settings) == ()


def test_with_nothing_to_find_it_costs_next_to_nothing(host) -> None:
    settings = host.settings
    leftovers.tidy_before(settings, Asset.CONFIG)  # boto3 is imported
    began = time.process_time()
    for _ in range(10):
        leftovers.tidy_before(settings, Asset.CONFIG)
    assert (time.process_time() - began) / 10 < 0.2
