"""One bucket as Amazon would answer (moto): unfinished uploads, digests, temporary keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from moto import mock_aws

from lifeboat.core.errors import PermanentError
from lifeboat.tools.s3 import Bucket, Upload

NAME = "lifeboat-vault"


def bucket_named(name: str, *, prefix: str = "") -> Bucket:
    return Bucket(
        endpoint=None,
        name=name,
        region="us-east-1",
        access_key="key",
        secret_key="hidden",
        prefix=prefix,
    )


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with mock_aws():
        bucket = bucket_named(NAME, prefix="vault")
        bucket.client.create_bucket(Bucket=NAME)
        yield bucket


def begin_upload(bucket: Bucket, key: str) -> str:
    told = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=bucket.full_key(key))
    part = {"Bucket": bucket.name, "Key": bucket.full_key(key), "UploadId": told["UploadId"]}
    bucket.client.upload_part(**part, PartNumber=1, Body=b"half")
    return told["UploadId"]


def test_unfinished_uploads_below_the_prefix_are_told_and_aborted(bucket: Bucket) -> None:
    ids = {begin_upload(bucket, "file-backups/data/aa"), begin_upload(bucket, "configs/data/bb")}
    beside = bucket_named(NAME)
    somebody_elses = begin_upload(beside, "vaults-of-others/x")
    begun = bucket.unfinished_uploads()
    assert {upload.id for upload in begun} == ids
    assert {upload.key for upload in begun} == {"file-backups/data/aa", "configs/data/bb"}
    assert all(upload.begun_at <= datetime.now(timezone.utc) for upload in begun)
    assert [u.key for u in bucket.unfinished_uploads("configs/")] == ["configs/data/bb"]

    bucket.abort_uploads(begun[:1])
    assert bucket.unfinished_uploads() == begun[1:]
    bucket.abort_uploads(begun)  # the first is gone already
    assert bucket.unfinished_uploads() == ()
    assert [u.id for u in beside.unfinished_uploads()] == [somebody_elses]


def test_an_upload_that_stays_is_told_and_the_others_are_aborted(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    stuck = begin_upload(bucket, "stuck")
    for number in range(3):
        begin_upload(bucket, f"other-{number}")
    abort = bucket.client.abort_multipart_upload

    def refuse_one(**told):
        if told["UploadId"] == stuck:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "AbortMultipartUpload")
        return abort(**told)

    monkeypatch.setattr(bucket.client, "abort_multipart_upload", refuse_one)
    with pytest.raises(PermanentError, match="1 of 4 stayed, first: Aborting the upload of stuck"):
        bucket.abort_uploads(bucket.unfinished_uploads())
    assert [upload.id for upload in bucket.unfinished_uploads()] == [stuck]


def test_what_is_uploaded_carries_its_digest(bucket: Bucket, tmp_path: Path) -> None:
    """Without it a bucket with Object Lock refuses the object."""
    sent: list[tuple[str, str | None]] = []

    def note(request, **_) -> None:
        digest = request.headers.get("Content-MD5")
        sent.append((request.method, digest.decode() if isinstance(digest, bytes) else digest))

    bucket.client.meta.events.register("before-send.s3.PutObject", note)
    bucket.client.meta.events.register("before-send.s3.UploadPart", note)
    bucket.put("small", b"content")
    file = tmp_path / "large"
    file.write_bytes(b"x" * 9_000_000)
    bucket.put_file("large", file)
    assert bucket.get("large") == file.read_bytes()

    def md5(data: bytes) -> str:
        return base64.b64encode(hashlib.md5(data).digest()).decode()

    parts = [file.read_bytes()[: 8 << 20], file.read_bytes()[8 << 20 :]]
    assert sorted(sent) == sorted([("PUT", md5(data)) for data in (b"content", *parts)])


def test_an_empty_bucket_has_no_unfinished_upload(bucket: Bucket) -> None:
    assert bucket.unfinished_uploads() == ()
    gone = Upload(key="x", id="nobody-knows-it", begun_at=datetime.now(timezone.utc))
    bucket.abort_uploads([gone])


def test_keys_of_a_session_are_sent_with_their_token_and_never_shown(bucket: Bucket) -> None:
    import dataclasses

    temporary = dataclasses.replace(bucket, session_token="canary-token")
    assert temporary.client._request_signer._credentials.token == "canary-token"
    for secret in ("canary-token", "hidden"):
        assert secret not in repr(temporary)
