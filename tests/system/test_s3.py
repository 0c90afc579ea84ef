"""A real S3 store (SeaweedFS): unfinished uploads, protection, old versions, recovery from them."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.errors import PreconditionError
from lifeboat.core.protection import Protection, State
from lifeboat.settings import Settings
from lifeboat.tools import restic, s3
from lifeboat.tools.s3 import Bucket, guards
from tasks import clock, preflight, protection

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("s3")]


def test_unfinished_uploads_are_listed_over_several_pages_and_aborted(bucket: Bucket) -> None:
    client = bucket.client
    for number in range(5):
        key = bucket.full_key(f"file-backups/data/{number % 2}")
        client.create_multipart_upload(Bucket=bucket.name, Key=key)
    client.create_multipart_upload(Bucket=bucket.name, Key="beside")
    begun = bucket.unfinished_uploads()
    assert len({upload.id for upload in begun}) == 5
    assert {upload.key for upload in begun} == {"file-backups/data/0", "file-backups/data/1"}
    bucket.abort_uploads(begun)
    bucket.abort_uploads(begun)
    assert bucket.unfinished_uploads() == ()
    assert len(client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]) == 1


# --- protection -----------------------------------------------------------------------------


@pytest.fixture
def settings(bucket_settings: Settings) -> Settings:
    return bucket_settings


def lifeboat(*words: str, ok: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-c", "from lifeboat.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == ok, done.stdout + done.stderr
    return done


def without(settings: Settings, *names: Protection) -> Settings:
    """The same settings, with more that is done without."""
    more = {**settings.vault.s3.without, **dict.fromkeys(names, "a test")}
    told = settings.vault.s3.model_copy(update={"without": more})
    return settings.model_copy(update={"vault": settings.vault.model_copy(update={"s3": told})})


def test_a_bucket_is_prepared_from_the_shell_and_then_checked(settings: Settings) -> None:
    with pytest.raises(PreconditionError) as refused:
        protection.require_protection(settings)
    for name in ("versioning", "object-lock", "lifecycle", "writer-rights"):
        assert f"{name}: not protected" in str(refused.value)

    planned = lifeboat("prepare", "s3", "--dry-run").stdout
    assert "would be set: versioning enabled" in planned
    assert s3.versioning_of(places_bucket(settings)) == "never enabled"
    done = lifeboat("prepare", "s3").stdout
    assert "set: versioning enabled" in done
    assert "set: Object Lock: new versions in the whole bucket are locked for 30 days" in done
    assert "public-access-block: done without (SeaweedFS has none)" in done
    again = json.loads(lifeboat("prepare", "s3", "--json").stdout)
    assert (again["changes"], again["refusals"]) == ([], [])

    with pytest.raises(PreconditionError, match="writer-rights: .*around Object Lock"):
        protection.require_protection(settings)
    told = protection.require_protection(without(settings, Protection.WRITER_RIGHTS))
    assert "object-lock: new versions are locked for 30 days (governance)" in told
    assert "without writer-rights (a test)" in told


def places_bucket(settings: Settings) -> Bucket:
    from tasks import places

    return places.bucket(settings)


def test_the_check_says_fail_for_what_is_missing_and_unknown_for_what_it_may_not_see(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> str:
        looks = preflight.look(settings).checks
        return next(str(check.status) for check in looks if check.name == "bucket-protection")

    assert found() == "FAIL"
    told = s3.look(
        places_bucket(settings), protection.wanted_of(settings.vault.s3), Protection.VERSIONING
    )
    unseen = [told.model_copy(update={"state": State.UNKNOWN})]
    monkeypatch.setattr(protection, "look", lambda _: unseen)
    assert found() == "UNKNOWN"
    monkeypatch.setattr(protection, "look", lambda _: [*unseen, told])
    assert found() == "FAIL"
    monkeypatch.setattr(protection, "look", lambda _: ())
    assert found() == "PASS"


def test_what_the_store_has_not_is_refused_by_name(settings: Settings) -> None:
    yaml = settings.file
    yaml.write_text(
        yaml.read_text().replace('      public-access-block: "SeaweedFS has none"\n', "")
    )
    done = lifeboat("prepare", "s3", ok=4)
    assert "NOT set: Setting public-access-block" in done.stdout
    assert "vault.s3.without" in done.stdout
    assert "set: versioning enabled" in done.stdout, "the others are set all the same"


def test_a_demand_for_tls_that_would_lock_everybody_out_is_taken_back(bucket: Bucket) -> None:
    """The store is reached without TLS, as one is behind a proxy that ends it."""
    with pytest.raises(guards.Refused, match="would lock everybody out"):
        guards.try_tls_policy(bucket, None)
    bucket.put("x", b"still ours")
    assert bucket.list("records/") == ()
    theirs = {"Sid": "A", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject"}
    theirs["Resource"] = f"arn:aws:s3:::{bucket.name}/elsewhere/*"
    before = json.dumps({"Version": "2012-10-17", "Statement": [theirs]})
    with pytest.raises(guards.Refused):
        guards.try_tls_policy(bucket, before)
    after = json.loads(bucket.client.get_bucket_policy(Bucket=bucket.name)["Policy"])
    assert after == json.loads(before)


def repository_of(settings: Settings) -> restic.Repository:
    from lifeboat.core.points import Asset, Tier
    from tasks import places

    return places.repository(settings, Asset.FILES, Tier.S3)


def test_restic_works_in_a_locked_bucket_and_its_old_packs_are_locked_anew(
    settings: Settings, bucket: Bucket, tmp_path: Path
) -> None:
    lifeboat("prepare", "s3")
    data = tmp_path / "data"
    data.mkdir()
    store = repository_of(settings)
    store.initialise()
    for number in range(3):
        (data / f"{number}").write_bytes(secrets.token_bytes(200_000))
        last = store.backup([data], tags={"n": str(number)})
    store.forget([snapshot.id for snapshot in store.snapshots() if snapshot.id != last.snapshot_id])
    store.prune()
    store.check()

    packs = [item.key for item in bucket.list("file-backups/data/")]
    now = datetime.now(timezone.utc)
    [version, *_] = [v for v in s3.list_versions(bucket) if v.key == packs[0]]
    assert not settings.vault.s3.without.get(Protection.OBJECT_LOCK)
    for key in packs:
        until = s3.locked_until(bucket, key)
        assert until and timedelta(days=29) < until - now < timedelta(days=31)
    with pytest.raises(guards.Denied):
        guards.tell(bucket, "delete_object", Key=bucket.full_key(version.key), VersionId=version.id)

    told = without(settings, Protection.WRITER_RIGHTS)
    assert "0 are no longer locked" in protection.require_protection(told)
    lapsed = pytest.raises(PreconditionError, match="lock-renewal: not protected, of the oldest")
    with clock.set_to(now + timedelta(days=31)), lapsed:
        protection.require_protection(told)
    with clock.set_to(now + timedelta(days=5)):
        assert protection.renew_locks(settings) == 0, "they are young"
    renewed = 0
    for day in range(11, 21):
        with clock.set_to(now + timedelta(days=day)):
            renewed += protection.renew_locks(settings)
    kept = [item.key for item in bucket.list() if "/locks/" not in item.key]
    assert renewed == len(kept), "each had its day"
    with clock.set_to(now + timedelta(days=39)):
        assert "0 are no longer locked" in protection.require_protection(told)
    assert protection.renew_locks(without(settings, Protection.OBJECT_LOCK), everything=True) == 0
