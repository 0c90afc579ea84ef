"""A real platform and its vault, watched: green when all is good, red by name when it is not."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from lifeboat.core.checks import Status
from lifeboat.core.objectives import Report
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import load_settings
from staging import faults
from staging.site import Site
from tasks import backup, catalogue, clock, locks, objectives, places
from tests.system.watching import (
    FOREIGN,
    PREFIX,
    SLOW,
    Watched,
    a_new_store,
    hot_file,
    interrupted_recovery,
    keys_below,
    no_receiver,
    nothing_red,
    red,
    stale_listings,
    told,
    wait_for,
    with_file,
    with_object,
    without_file,
    without_objects,
    wrong_password,
)

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("staging-vault")]


@pytest.fixture(scope="module")
def watched(staging_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A platform with a backup of everything, all of it tested by a restore."""
    yaml = staging_site.settings_path
    text = yaml.read_text().replace("keep: {wal_seconds: 10, files_seconds: 30}", f"keep: {SLOW}")
    yaml.write_text(text.replace("region: us-east-1", f"region: us-east-1\n    prefix: {PREFIX}"))
    staging_site.stack.start(["wal-receiver"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in staging_site.environment().items():
            patch.setenv(name, value)
        outside = tmp_path_factory.mktemp("outside")
        found = Watched(staging_site, load_settings(yaml), outside)
        for asset in ("config", "files", "models", "database"):
            found.run("backup", asset)
        found.fill_segments(4)
        found.run("wal", "ship")
        found.run("test-restore")
        yield found


# --- green ----------------------------------------------------------------------------------


def test_a_platform_that_is_backed_up_and_tested_is_green(watched: Watched) -> None:
    began = time.monotonic()
    nothing_red(watched.look())
    print(f"a look from the host took {time.monotonic() - began:.1f} s")
    report = Report.model_validate_json(watched.run("watch", "--json"))
    assert report.seen_from == "host"
    assert {lost.scenario: lost.seconds for lost in report.exposures}["database"] == 0
    assert all(estimate.seconds < 600 for estimate in report.estimates)
    for kept in (watched.vault / "records/objectives.json",):
        assert Report.model_validate_json(kept.read_bytes()) == report
    in_bucket = watched.bucket.get("records/objectives.json")
    assert Report.model_validate_json(in_bucket) == report
    assert watched.bucket.list("records/probe-") == ()


def test_from_anywhere_with_the_bucket_alone_it_is_green_too(watched: Watched) -> None:
    file = watched.outside / "lifeboat.prom"
    out = watched.run(
        *watched.from_s3(), "--json", "--prometheus", str(file), LIFEBOAT_CONFIG="/nonexistent"
    )
    report = Report.model_validate_json(out)
    assert (report.seen_from, report.platform) == ("s3", watched.settings.platform)
    assert report.good
    assert 'lifeboat_good{platform="cad-ai-staging"} 1.0' in file.read_text()
    assert not Path("/nonexistent").exists()


def test_looking_changes_nothing_and_waits_for_no_lock(watched: Watched) -> None:
    def tree() -> dict[str, int]:
        skipped = ("cache", "objectives.json", ".lock", "database/wal")
        return {
            str(path): path.stat().st_mtime_ns
            for path in watched.vault.rglob("*")
            if path.is_file() and not any(word in str(path) for word in skipped)
        }

    def keys() -> set[str]:
        return {item.key for item in watched.bucket.list()}

    before, keys_before = tree(), keys()
    with (
        locks.recovery_lock(watched.settings, run="recover-database"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(locks, "_held", None)  # asking for a lock would be an error
        nothing_red(watched.look())
        nothing_red(watched.look_from_s3())
    assert tree() == before
    assert keys() == keys_before


# --- backups that stop in silence -----------------------------------------------------------


def test_red_within_an_interval_of_the_backup_that_did_not_come(watched: Watched) -> None:
    [newest] = catalogue.list_points(watched.settings, assets=(Asset.DATABASE,), tiers=(Tier.S3,))
    due_at = newest.taken_at + timedelta(seconds=watched.settings.keep.database_seconds)
    with clock.set_to(due_at + timedelta(hours=2, minutes=59)):
        assert "database-backup-age" not in red(watched.look())
    with clock.set_to(due_at + timedelta(hours=3, seconds=5)):
        for report in (watched.look(), watched.look_from_s3()):
            assert red(report)["database-backup-age"] is Status.FAIL
            assert newest.id in told(report, "database-backup-age")


# --- damage, by name ------------------------------------------------------------------------


FILES_S3 = "file-backups/"
Damage = tuple[Callable[[Watched], AbstractContextManager], dict[str, Status], str]
FAIL, UNKNOWN = Status.FAIL, Status.UNKNOWN

# What is done, what is red then (among others that follow from it), and a word of its evidence.
DAMAGES: dict[str, Damage] = {
    "missing index": (
        lambda w: without_objects(w, *keys_below(w, f"{FILES_S3}index/")),
        {"repository-files-s3": FAIL},
        "no index",
    ),
    "index of no bytes": (
        lambda w: with_object(w, keys_below(w, f"{FILES_S3}index/")[0], b""),
        {"repository-files-s3": FAIL},
        "index/",
    ),
    "missing key": (
        lambda w: without_objects(w, *keys_below(w, "model-backups/keys/")),
        {"repository-models-s3": FAIL},
        "no key file",
    ),
    "missing snapshots": (
        lambda w: without_objects(w, *keys_below(w, "model-backups/snapshots/")),
        {"repository-models-s3": FAIL, "models-backup-age": FAIL, "server-loss-exposure": FAIL},
        "no snapshot",
    ),
    "local repository gone": (
        lambda w: without_file(places.repository_directory(w.settings, Asset.MODELS)),
        {"repository-models-local": FAIL},
        "",
    ),
    "local pack of no bytes": (
        lambda w: with_file(
            next(
                p
                for p in places.repository_directory(w.settings, Asset.FILES).glob("data/*/*")
                if p.is_file()
            ),
            b"",
        ),
        {"repository-files-local": FAIL},
        "data/",
    ),
    "truncated WAL object": (
        lambda w: with_object(w, w.key_of(w.shipped()[-2]), b"age-encryption.org/v1\n"),
        {"wal-files-s3": FAIL},
        "cut short",
    ),
    "truncated local segment": (
        lambda w: with_file(w.shipped()[-2], b"x" * 1000),
        {"wal-files-local": FAIL},
        "cut short",
    ),
    "missing segment in S3": (
        lambda w: without_objects(w, w.key_of(w.shipped()[-2])),
        {"wal-continuity-s3": FAIL},
        "is missing",
    ),
    "missing local segment": (
        lambda w: without_file(w.shipped()[-2]),
        {"wal-continuity-local": FAIL},
        "is missing",
    ),
    "foreign timeline": (
        lambda w: with_object(
            w,
            places.wal_key(w.segments()[0].parent.parent.name, "000000070000000000000005"),
            b"x" * 999,
        ),
        {"foreign-timeline": FAIL},
        "timeline 7",
    ),
    "WAL of another cluster": (
        lambda w: with_object(w, places.wal_key(FOREIGN, "000000010000000000000005"), b"x" * 999),
        {"foreign-timeline": FAIL},
        FOREIGN,
    ),
    "wrong password": (
        wrong_password,
        {"vault-opens-s3": FAIL, "vault-opens-local": FAIL},
        "password",
    ),
    "deleted file of the hot copy": (
        lambda w: without_file(hot_file(w)),
        {"hot-copy": FAIL},
        "1259",
    ),
    "truncated file of the hot copy": (
        lambda w: with_file(hot_file(w), b"x" * 100),
        {"hot-copy": FAIL},
        "1259",
    ),
    "stale listings": (stale_listings, {"bucket-listing": FAIL}, "stale"),
    "no receiver": (no_receiver, {"wal-receiver": FAIL}, "No receiver streams"),
    "interrupted recovery": (
        interrupted_recovery,
        {"interrupted-runs": FAIL},
        "recover-files-20260101T000000Z-dead",
    ),
    "recovered and not verified": (
        lambda w: with_file(w.vault / backup.UNPROVEN_NAME, b"by recover-server-x"),
        {"host-verified": FAIL},
        "recover-server-x",
    ),
    "a new store that nobody backs up": (a_new_store, {"coverage": FAIL}, "data/wiki"),
}
FOLLOWS = {
    "missing index": {"files-recovery-time", "server-recovery-time"},
    "missing key": {"models-backup-age", "server-loss-exposure", "server-recovery-time"},
    "missing snapshots": {"server-recovery-time"},
    "local repository gone": {"models-backup-age", "models-recovery-time"},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_detected_by_name(watched: Watched, damage: str) -> None:
    act, expected, word = DAMAGES[damage]
    with act(watched):
        report = watched.look()
    found = red(report)
    assert expected.items() <= found.items(), found
    assert word in told(report, next(iter(expected)))
    if damage != "wrong password":
        assert found.keys() <= expected.keys() | FOLLOWS.get(damage, set()), report.red
    nothing_red(watched.look())


def test_a_wrong_password_is_named_from_afar_too(watched: Watched) -> None:
    with wrong_password(watched):
        assert red(watched.look_from_s3()) == {"vault-opens-s3": FAIL}
    out = watched.run(*watched.from_s3(), "--json", ok=4, LIFEBOAT_VAULT_PASSWORD="not-this-one")
    assert not json.loads(out)["good"]


def test_an_emptied_configuration_file_is_named_once_it_is_backed_up(watched: Watched) -> None:
    nginx = watched.site.server / "config/nginx/nginx.prod.conf"
    with with_file(nginx, b""):
        watched.run("backup", "config")
        for report in (watched.look(), watched.look_from_s3()):
            assert red(report) == {"configuration": FAIL}
            assert "nginx.prod.conf is empty" in told(report, "configuration")
    watched.run("backup", "config")
    nothing_red(watched.look())


def test_an_emptied_lifeboat_yaml_is_named_and_an_older_one_used(watched: Watched) -> None:
    yaml = watched.site.settings_path
    whole = yaml.read_bytes()
    with with_file(yaml, b""):
        refused = watched.start("watch")
        _, error = refused.communicate(timeout=60)
        assert (refused.returncode, "there are no settings in it" in error) == (3, True)
        # Only a host that still had its settings could have backed it up.
        beside = yaml.with_name("whole.yaml")
        with with_file(beside, whole):
            point = watched.run("backup", "config", "--config", str(beside)).strip()
        report = watched.look_from_s3()
        assert red(report)["configuration"] is FAIL
        assert point in told(report, "configuration")
        assert report.platform == watched.settings.platform
    watched.run("backup", "config")
    nothing_red(watched.look_from_s3())


def test_an_unreachable_bucket_is_told_once_and_nothing_of_it_is_green(watched: Watched) -> None:
    dead = watched.settings.vault.s3.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    vault = watched.settings.vault.model_copy(update={"s3": dead})
    report = objectives.look_from_host(watched.settings.model_copy(update={"vault": vault}))
    found = red(report)
    assert found["bucket-listing"] is FAIL
    assert "127.0.0.1:9" in told(report, "bucket-listing")
    assert all(status is UNKNOWN for name, status in found.items() if name.endswith("-s3"))
    assert {f.name for f in report.findings if f.name.endswith("-s3")} <= found.keys()
    assert "hot-copy" not in found


# --- silence, in earnest ----------------------------------------------------------------------


def test_a_keeper_that_hangs_is_noticed_before_the_next_backup_after(watched: Watched) -> None:
    """It says nothing, and its process is there: only the store tells."""
    interval = 20.0
    quick = watched.site.server / "quick.yaml"
    text = watched.site.settings_path.read_text()
    quick.write_text(text.replace(SLOW, SLOW[:-1] + f", database_seconds: {interval:g}}}"))
    settings = load_settings(quick)

    def newest():
        found = catalogue.list_points(settings, assets=(Asset.DATABASE,), tiers=(Tier.S3,))
        return found[0]

    first = newest().id
    keeper = watched.start("keep", "--config", str(quick))
    try:
        wait_for(lambda: newest().id != first, "the keeper has made a base copy", 120)
        keeper.send_signal(signal.SIGSTOP)
        stopped = newest().taken_at

        def age() -> float:
            return (clock.now() - stopped).total_seconds()

        def is_red() -> bool:
            return red(objectives.look_from_host(settings)).get("database-backup-age") is not None

        wait_for(is_red, "the backup that did not come is noticed")
        assert age() < 2 * interval + 10, "10 s for a look on a busy machine"
    finally:
        keeper.kill()
        keeper.communicate(timeout=30)
        quick.unlink()


def test_a_hole_behind_an_older_base_copy_is_named_and_can_be_excused(watched: Watched) -> None:
    """After the base copy that the keeper made, no recovery to now needs the segments before it."""
    gone = watched.segments()[1]
    with without_file(gone):
        report = watched.look()
        assert red(report) == {"wal-continuity-local": FAIL}
        assert gone.name in told(report, "wal-continuity-local")
        watch = watched.settings.watch
        excused = watch.model_copy(update={"excused": {**watch.excused, gone.name: "a test"}})
        nothing_red(
            objectives.look_from_host(watched.settings.model_copy(update={"watch": excused}))
        )


# --- the dead host is not needed: this one comes last ---------------------------------------


def test_a_lost_server_is_watched_from_the_bucket(watched: Watched) -> None:
    faults.lose_server(watched.site)
    assert not watched.site.server.exists()
    out = watched.run(*watched.from_s3(), "--json", LIFEBOAT_CONFIG="/nonexistent")
    assert json.loads(out)["good"], "a moment ago all was well, and the bucket has it"
    with clock.set_to(clock.now() + timedelta(minutes=61)):
        report = watched.look_from_s3()
    assert red(report)["server-loss-exposure"] is FAIL
    assert "files" in told(report, "server-loss-exposure")
    with clock.set_to(clock.now() + timedelta(minutes=91)):
        assert red(watched.look_from_s3())["host-watch"] is FAIL
    with contextlib.suppress(FileNotFoundError):
        assert not any(watched.site.server.iterdir())
