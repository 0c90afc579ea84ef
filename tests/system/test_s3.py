"""A real S3 store (SeaweedFS): unfinished uploads, protection, old versions, recovery from them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from lifeboat.tools.s3 import Bucket
from staging.ports import choose_ports
from staging.s3 import S3Server

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("s3")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"), choose_ports(), "test-access", "test-secret")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def bucket(server: S3Server) -> Bucket:
    """A bucket of its own for each test."""
    name = f"vault-{secrets.token_hex(4)}"
    server.create_bucket(name)
    return Bucket(
        endpoint=server.endpoint,
        name=name,
        region="us-east-1",
        access_key="test-access",
        secret_key="test-secret",
        prefix="platform",
    )


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
