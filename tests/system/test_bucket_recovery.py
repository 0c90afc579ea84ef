"""A thief with our key destroys a real bucket; its old versions bring all of it back."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from lifeboat.core.errors import PreconditionError, RecoveryError, TransientError
from lifeboat.core.forms import RecoverBucket
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import filesystem, s3
from lifeboat.tools.s3 import Bucket
from staging.s3 import S3Server
from tasks import bucket_recovery, catalogue, places, preflight, repair, vault
from tasks.record import recorded
from tests.docs.test_s3 import POLICIES, actions
from tests.system.conftest import S3_SECRETS, host_yaml
from tests.system.test_s3 import lifeboat

SIGHTING = "records/sightings/files.json"
pytestmark = [pytest.mark.system]

NOTE = "READ_ME_TO_RECOVER.txt"
SEGMENT = "database/wal/7576/00000001/000000010000000000000007.zst.age"
PARTIAL = "database/wal/7576/00000001/000000010000000000000008.partial.zst.age"
PASSWORD = {"LIFEBOAT_VAULT_PASSWORD": "test-password"}
SEALED = b"age-encryption.org/v1\n"


@dataclass(frozen=True)
class Original:
    """A host that was backed up: its directory, and what lies in its bucket."""

    directory: Path
    objects: dict[str, bytes]


@pytest.fixture(scope="module")
def original(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Original:
    host = tmp_path_factory.mktemp("host")
    chance = random.Random(11)
    for number in range(12):
        path = host / f"data/files/drawing {number}.dxf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(30_000))
    models = host / "data/models"
    models.mkdir(parents=True)
    (models / "default.bin").write_bytes(chance.randbytes(50_000))
    s3_server.create_bucket("original")
    (host / "lifeboat.yaml").write_text(host_yaml(s3_server.endpoint, "original"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**S3_SECRETS, **PASSWORD}.items():
            patch.setenv(name, value)
        patch.setenv("LIFEBOAT_CONFIG", str(host / "lifeboat.yaml"))
        for asset in ("files", "models", "config"):
            lifeboat("backup", asset)
        store = places.bucket(load_settings(host / "lifeboat.yaml"))
        return Original(host, {item.key: store.get(item.key) for item in store.list()})


@pytest.fixture
def backed_up(bucket_settings: Settings, bucket: Bucket, original: Original) -> Settings:
    """A copy of that host, with a bucket of its own that keeps old versions."""
    for name in ("data", "backups"):
        shutil.copytree(original.directory / name, bucket_settings.directory / name)
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    for key, data in original.objects.items():
        bucket.put(key, data)
    bucket.put(SEGMENT, SEALED + b"segment 7")
    bucket.put(PARTIAL, SEALED + b"some")
    bucket.put(PARTIAL, SEALED + b"more of segment 8")
    next_second()
    return bucket_settings


def next_second() -> None:
    """Stores tell whole seconds: let what follows be later than what was."""
    begun = int(time.time())
    while int(time.time()) <= begun + 1:
        time.sleep(0.02)


def objects(bucket: Bucket) -> dict[str, bytes]:
    """All but restic's locks and the records of runs."""
    return {
        item.key: bucket.get(item.key)
        for item in bucket.list()
        if "/locks/" not in item.key and not item.key.startswith("records/runs/")
    }


def attack(bucket: Bucket) -> None:
    """Overwrite every third object with garbage of the same size, and delete the others."""
    for number, item in enumerate(bucket.list()):
        if number % 3 == 0:
            bucket.put(item.key, secrets.token_bytes(item.bytes))
        else:
            bucket.delete([item.key])
    bucket.put(NOTE, b"Your backups are mine.")


def version_ids(bucket: Bucket) -> set[str]:
    return {f"{version.key} {version.id}" for version in s3.list_versions(bucket)}


@pytest.fixture
def without_config(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LIFEBOAT_CONFIG", "/nonexistent")
    yield


def coordinates(bucket: Bucket) -> tuple[str, ...]:
    return (
        *("recover", "bucket", "--bucket", bucket.name),
        *("--endpoint", bucket.endpoint or "", "--prefix", bucket.prefix),
    )


def test_a_destroyed_bucket_comes_back_on_a_machine_with_nothing_but_its_key(
    backed_up: Settings,
    bucket: Bucket,
    without_config: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = objects(bucket)
    attack(bucket)
    after_attack = version_ids(bucket)
    monkeypatch.delenv("LIFEBOAT_VAULT_PASSWORD")
    where = coordinates(bucket)

    plan = lifeboat(*where, "--dry-run").stdout
    assert "by no right" in plan
    assert "the last moment before the first sure sign of an attack" in plan
    assert f"not the vault's and left alone: {NOTE}" in plan
    assert version_ids(bucket) == after_attack, "a dry run touches nothing"
    lifeboat(*where, ok=7)
    lifeboat(*where, "--approve", "another-bucket", ok=7)
    assert {e for e in version_ids(bucket) if not e.startswith("records/runs/recover")} == {
        e for e in after_attack if not e.startswith("records/runs/recover")
    }

    record = json.loads(lifeboat(*where, "--approve", bucket.name, "--json").stdout)
    assert record["outcome"] == "done"
    found = objects(bucket)
    assert found.pop(NOTE) == b"Your backups are mine."
    assert found == whole
    assert record["facts"]["objects_brought_back"] >= len(whole)
    assert not any("/locks/" in item.key for item in bucket.list() if item.bytes == 0)
    assert after_attack < version_ids(bucket), "nothing was removed"
    kept = [item.key for item in bucket.list(f"records/runs/{record['id']}/")]
    assert {key.rpartition("/")[2] for key in kept} == {
        "journal.jsonl",
        "record.json",
        "brought-back.txt",
    }
    refused = lifeboat(*where, "--as-of", record["facts"]["as_of"], "--approve", bucket.name, ok=3)
    assert "are there and as they were" in refused.stderr

    monkeypatch.setenv("LIFEBOAT_VAULT_PASSWORD", "test-password")
    everything_can_be_restored(backed_up)


def everything_can_be_restored(settings: Settings) -> None:
    """From the bucket alone: the local vault is gone."""
    shutil.rmtree(settings.vault.local, ignore_errors=True)
    for asset in (Asset.FILES, Asset.MODELS, Asset.CONFIG):
        places.repository(settings, asset, Tier.S3).check()
    root = settings.files.directories["drawings"]
    before = filesystem.digests(root)
    for path in list(root.iterdir()):
        path.unlink()
    source = repair.choose_source(settings, Asset.FILES, only_from=Tier.S3)
    repair.rewrite_damaged(settings, source, repair.find_damage(settings, source))
    assert filesystem.digests(root) == before
    assert vault.wal_identity(settings).startswith("AGE-SECRET-KEY-")


def test_on_the_host_it_holds_the_platform_and_leaves_its_record_there(
    backed_up: Settings,
    bucket: Bucket,
) -> None:
    whole = objects(bucket)
    attack(bucket)
    record = json.loads(lifeboat("recover", "bucket", "--approve", "cad-test", "--json").stdout)
    found = objects(bucket)
    # What it says of itself is new there: its incident and what is to be done after it.
    told = {key for key in found.keys() - whole.keys() - {NOTE} if key.startswith("records/")}
    assert {key.split("/")[1] for key in told} == {"followups", "incidents"}
    assert {key: found[key] for key in found.keys() - told} == {
        **whole,
        NOTE: b"Your backups are mine.",
    }
    directory = places.runs_directory(backed_up) / record["id"]
    brought_back = (directory / "brought-back.txt").read_text().splitlines()
    assert len(brought_back) == record["facts"]["objects_brought_back"]


def test_an_undamaged_bucket_is_left_alone_and_a_bucket_without_versions_is_refused(
    backed_up: Settings,
    bucket: Bucket,
    s3_server: S3Server,
) -> None:
    before = version_ids(bucket)
    refused = lifeboat("recover", "bucket", "--dry-run", ok=3)
    assert "no object was overwritten" in refused.stderr
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    refused = lifeboat("recover", "bucket", "--as-of", now, "--approve", "cad-test", ok=3)
    assert "are there and as they were" in refused.stderr
    lifeboat("recover", "bucket", "--as-of", "yesterday", ok=2)
    assert {entry for entry in version_ids(bucket) if "records/runs/" not in entry} == {
        entry for entry in before if "records/runs/" not in entry
    }
    s3_server.create_bucket("no-versions-here")
    where = ("--bucket", "no-versions-here", "--endpoint", bucket.endpoint or "")
    refused = lifeboat("recover", "bucket", *where, "--dry-run", ok=3)
    assert "keeps none" in refused.stderr


def recover(settings: Settings, **asked) -> dict[str, str | int | float | bool]:
    """The steps of the flow, in this process."""
    request = RecoverBucket(config=str(settings.file), approval="preapproved", **asked)
    place = bucket_recovery.place_of(settings)
    with recorded("recover-bucket", platform="x", directory=None) as run:
        by_key = bucket_recovery.read_versions(place)
        choice = bucket_recovery.choose(place, by_key, request)
        bucket_recovery.plan_for(place, by_key, choice).in_words()
        bucket_recovery.bring_back(place, choice)
        bucket_recovery.hide(place, choice)
        bucket_recovery.prove(place, choice)
    return run.record.facts


def test_an_interrupted_recovery_goes_on_where_it_ended(
    backed_up: Settings,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = objects(bucket)
    attack(bucket)
    copy, copied = s3.make_current, []

    def fails_after_a_while(bucket: Bucket, version) -> None:
        if len(copied) >= 5:
            raise TransientError("the network is gone")
        copied.append(version.key)
        copy(bucket, version)

    monkeypatch.setattr(s3, "make_current", fails_after_a_while)
    with pytest.raises(RecoveryError, match=r"5 of \d+ are done.*the network is gone"):
        recover(backed_up)
    monkeypatch.setattr(s3, "make_current", copy)
    done = recover(backed_up)
    assert {**whole, NOTE: b"Your backups are mine."} == objects(bucket)
    for key in copied:
        copies = [v for v in s3.list_versions(bucket, key) if not v.marker]
        assert len(copies) <= 3, "what was right already was not copied again"
    assert done["objects_brought_back"] > 0


def test_what_came_later_and_is_whole_stays_and_a_too_early_moment_loses_nothing(
    backed_up: Settings,
    bucket: Bucket,
) -> None:
    pages = ("records/readiness.html", "status/index.html", "records/followups/files.jsonl")
    for key in pages:
        bucket.put(key, b"{}" if key.endswith("jsonl") else b"<p>old</p>")
    next_second()
    early = datetime.now(timezone.utc)
    next_second()
    later = backed_up.directory / "data/files/later.dxf"
    later.write_bytes(b"drawn after the moment")
    lifeboat("backup", "files")
    bucket.put(PARTIAL, SEALED + b"still more of segment 8")
    next_second()
    whole = objects(bucket)
    attack(bucket)
    bucket.put(PARTIAL, SEALED + b"shipped by the host after the attack")
    rewritten = {key: b'{"new": 1}' if key.endswith("jsonl") else b"<p>new</p>" for key in pages}
    for key, data in rewritten.items():
        bucket.put(key, data)
    recover(backed_up, as_of=early.isoformat(timespec="seconds"))
    found = objects(bucket)
    for key, data in rewritten.items():
        assert found[key] == data, "written rightly after the moment"
        del whole[key], found[key]
    assert found.pop(PARTIAL) == SEALED + b"shipped by the host after the attack"
    del whole[PARTIAL], found[NOTE]
    # A sighting is written over at each backup, so the one of that moment is current again.
    del whole[SIGHTING], found[SIGHTING]
    assert found == whole, "the newer snapshot is back, too"
    points = catalogue.list_points(backed_up, assets=(Asset.FILES,), tiers=(Tier.S3,))
    assert len(points) == 2


def test_a_repository_that_was_made_anew_gives_way_to_the_old_one(
    backed_up: Settings,
    bucket: Bucket,
) -> None:
    [old] = catalogue.list_points(backed_up, assets=(Asset.FILES,), tiers=(Tier.S3,))
    attack(bucket)
    # Somebody makes the repositories anew in the ruins, and backs up into them.
    bucket.delete([item.key for item in bucket.list("file-backups/")])
    shutil.rmtree(backed_up.vault.local / "cache", ignore_errors=True)
    places.repository(backed_up, Asset.FILES, Tier.S3).initialise()
    places.repository(backed_up, Asset.FILES, Tier.S3).backup(
        [backed_up.directory / "data/models"],
        tags={"asset": "files", "point": "files-20300101T000000Z"},
    )
    plan = lifeboat("recover", "bucket", "--dry-run").stdout
    assert "the config of file-backups was overwritten" in plan
    assert "--hide-newer" in plan
    done = lifeboat("recover", "bucket", "--hide-newer", "--approve", "cad-test", "--json")
    record = json.loads(done.stdout)
    assert record["facts"]["objects_hidden"] > 0
    shutil.rmtree(backed_up.vault.local / "cache", ignore_errors=True)
    found = catalogue.list_points(backed_up, assets=(Asset.FILES,), tiers=(Tier.S3,))
    assert [point.id for point in found] == [old.id]
    places.repository(backed_up, Asset.FILES, Tier.S3).check()


def test_a_thief_who_suspended_versioning_or_lets_versions_expire_is_found_out(
    backed_up: Settings, bucket: Bucket
) -> None:
    whole = objects(bucket)
    soon = {
        "ID": "tidy",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    bucket.client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration={"Rules": [soon]}
    )
    attack(bucket)
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"}
    )
    with pytest.raises(PreconditionError, match="versioning is suspended"):
        recover(backed_up)
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    plan = lifeboat("recover", "bucket", "--dry-run").stdout
    assert "WARNING:         rule tidy removes old versions after 1 of 30 days" in plan
    recover(backed_up)
    assert objects(bucket) == {**whole, NOTE: b"Your backups are mine."}


def test_garbage_in_a_mark_is_replaced_and_a_good_newer_one_is_not(
    backed_up: Settings,
    bucket: Bucket,
) -> None:
    bucket.put("records/holds/a.json", b'{"point": "a"}')
    bucket.put("records/holds/b.json", b'{"point": "b"}')
    next_second()
    moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
    next_second()
    bucket.put("records/holds/a.json", secrets.token_bytes(14))
    bucket.put("records/holds/b.json", b'{"point": "b", "why": "the audit"}')
    recover(backed_up, as_of=moment)
    assert bucket.get("records/holds/a.json") == b'{"point": "a"}'
    assert bucket.get("records/holds/b.json") == b'{"point": "b", "why": "the audit"}'


def test_an_object_of_several_parts_comes_back_and_is_known_again(
    backed_up: Settings,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its copy has another ETag; only what the copy says of itself tells that it is right."""
    from lifeboat.tools.s3 import versions

    monkeypatch.setattr(versions, "_COPY_WHOLE_BYTES", 6 << 20)
    monkeypatch.setattr(versions, "_COPY_PART_BYTES", 6 << 20)
    data = os.urandom(17 << 20)
    file = backed_up.directory / "large"
    file.write_bytes(data)
    key = f"model-backups/data/ab/{'ab' * 32}"
    bucket.put_file(key, file)
    next_second()
    bucket.put(key, os.urandom(len(data)))
    bucket.put("file-backups/config", b"garbage")
    assert recover(backed_up)["objects_brought_back"] == 2
    assert bucket.get(key) == data
    now, *_ = [version for version in s3.list_versions(bucket, key)]
    assert s3.origin_of(bucket, now)
    with pytest.raises(RecoveryError, match="no object was overwritten"):
        recover(backed_up)


def test_a_proof_that_does_not_hold_is_told(
    backed_up: Settings,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attack(bucket)
    copy = s3.make_current

    def forgets_one(bucket: Bucket, version) -> None:
        if not version.key.endswith("/config"):
            copy(bucket, version)

    monkeypatch.setattr(s3, "make_current", forgets_one)
    with pytest.raises(RecoveryError, match="objects are not as they were, e.g. .*/config"):
        recover(backed_up)


def test_a_key_that_can_not_delete_versions_is_enough(
    backed_up: Settings,
    bucket: Bucket,
) -> None:
    denied = ["s3:DeleteObjectVersion", "s3:PutBucketVersioning", "s3:BypassGovernanceRetention"]
    deny = {"Effect": "Deny", "Principal": "*", "Action": denied}
    where = [f"arn:aws:s3:::{bucket.name}", f"arn:aws:s3:::{bucket.name}/*"]
    bucket.client.put_bucket_policy(
        Bucket=bucket.name,
        Policy=json.dumps({"Version": "2012-10-17", "Statement": [{**deny, "Resource": where}]}),
    )
    [version, *_] = s3.list_versions(bucket, SEGMENT)
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError, match="AccessDenied"):
        bucket.client.delete_object(
            Bucket=bucket.name, Key=bucket.full_key(SEGMENT), VersionId=version.id
        )
    whole = objects(bucket)
    attack(bucket)
    recover(backed_up)
    assert objects(bucket) == {**whole, NOTE: b"Your backups are mine."}


def test_the_policies_of_the_manual_are_enough_to_back_up_and_recover(
    backed_up: Settings, bucket: Bucket
) -> None:
    """All that they do not allow is refused to everybody, and it works all the same."""
    lifeboat("prepare", "s3")
    refuse_all_but(bucket, actions(POLICIES["writer"], "Allow"))
    lifeboat("backup", "files")
    looks = {check.name: check for check in preflight.look(backed_up).checks}
    assert "can't delete a version for good" in looks["bucket-protection"].evidence
    assert str(looks["bucket-protection"].status) == "PASS", looks["bucket-protection"]
    assert str(looks["bucket"].status) == "PASS", looks["bucket"]
    with pytest.raises(PreconditionError, match="denied"):
        recover(backed_up)  # it may not list versions


def test_a_key_with_the_readers_and_the_writers_policy_recovers(
    backed_up: Settings, bucket: Bucket
) -> None:
    whole = objects(bucket)
    attack(bucket)
    both = actions(POLICIES["writer"], "Allow") | actions(POLICIES["reader"], "Allow")
    refuse_all_but(bucket, both)
    recover(backed_up)
    assert objects(bucket) == {**whole, NOTE: b"Your backups are mine."}


def refuse_all_but(bucket: Bucket, allowed: set[str]) -> None:
    """Refuse everybody every action of which the manual speaks, but for these."""
    known = {
        action
        for policy in POLICIES.values()
        for effect in ("Allow", "Deny")
        for action in actions(policy, effect)
    }
    refusal = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": sorted(known - allowed),
        "Resource": [f"arn:aws:s3:::{bucket.name}", f"arn:aws:s3:::{bucket.name}/*"],
    }
    bucket.client.put_bucket_policy(
        Bucket=bucket.name,
        Policy=json.dumps({"Version": "2012-10-17", "Statement": [refusal]}),
    )
