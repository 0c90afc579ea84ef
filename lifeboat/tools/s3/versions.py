"""The old versions of a bucket's objects: listed, read, and made current again by a copy.

Nothing here removes a version, so no right to delete versions is needed. Sources: Amazon S3 API
Reference, "ListObjectVersions" and "CopyObject".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import timezone

from lifeboat.core.versions import Origin, Version
from lifeboat.tools.s3 import answers
from lifeboat.tools.s3.bucket import Bucket

# Metadata of a copy, which tells of which version it is one.
_COPY_OF = "lifeboat-copy-of"
# CopyObject takes at most 5 GB, and a client must wait for all of it.
_COPY_WHOLE_BYTES = 1 << 30
_COPY_PART_BYTES = 256 << 20
_BEGINNING_BYTES = 1 << 20


def list_versions(
    bucket: Bucket, prefix: str = "", *, on_page: Callable[[int], None] = lambda _: None
) -> Iterator[Version]:
    """Every version and delete marker below a prefix. `on_page` hears how many there are so far.

    The versions of a key come newest first, as the store lists them.
    """
    count = 0
    with bucket.told(f"Listing the versions in bucket {bucket.name}"):
        pages = bucket.client.get_paginator("list_object_versions").paginate(
            Bucket=bucket.name, Prefix=bucket.full_key(prefix)
        )
        for page in pages:
            for item in page.get("Versions", ()):
                yield Version(
                    key=bucket.below(item["Key"]),
                    id=item["VersionId"],
                    at=item["LastModified"].astimezone(timezone.utc),
                    current=item["IsLatest"],
                    bytes=item["Size"],
                    etag=item["ETag"],
                )
            for item in page.get("DeleteMarkers", ()):
                yield Version(
                    key=bucket.below(item["Key"]),
                    id=item["VersionId"],
                    at=item["LastModified"].astimezone(timezone.utc),
                    current=item["IsLatest"],
                    marker=True,
                )
            count += len(page.get("Versions", ())) + len(page.get("DeleteMarkers", ()))
            on_page(count)


def make_current(bucket: Bucket, version: Version) -> None:
    """Copy an old version over what is current now, which becomes an old version in its turn.

    Done by the store; no byte passes through this machine.
    """
    key = bucket.full_key(version.key)
    source = {"Bucket": bucket.name, "Key": key, "VersionId": version.id}
    marked = {"MetadataDirective": "REPLACE", "Metadata": {_COPY_OF: version.id}}
    with bucket.told(f"Bringing back {version.key} in bucket {bucket.name}"):
        if version.bytes <= _COPY_WHOLE_BYTES:
            bucket.client.copy_object(Bucket=bucket.name, Key=key, CopySource=source, **marked)
            return
        from boto3.s3.transfer import TransferConfig

        in_parts = TransferConfig(
            multipart_threshold=_COPY_WHOLE_BYTES, multipart_chunksize=_COPY_PART_BYTES
        )
        bucket.client.copy(source, bucket.name, key, ExtraArgs=marked, Config=in_parts)


def origin_of(bucket: Bucket, version: Version) -> Origin | None:
    """Of which version an object says that it is a copy; None if it does not."""
    with bucket.told(f"Looking at {version.key} in bucket {bucket.name}"):
        told = bucket.client.head_object(
            Bucket=bucket.name, Key=bucket.full_key(version.key), VersionId=version.id
        )
    source = told.get("Metadata", {}).get(_COPY_OF)
    encrypted_by = told.get("ServerSideEncryption", "")
    return Origin(source, by_key_service="kms" in encrypted_by) if source else None


def sha256_of(bucket: Bucket, key: str) -> str:
    """Read a current object to its end and give the SHA-256 of its content."""
    digest = hashlib.sha256()
    with bucket.told(f"Reading {key} from bucket {bucket.name}"):
        body = bucket.client.get_object(Bucket=bucket.name, Key=bucket.full_key(key))["Body"]
        for some in body.iter_chunks(1 << 20):
            digest.update(some)
    return digest.hexdigest()


def beginning_of(bucket: Bucket, key: str) -> bytes:
    """The first megabyte of a current object; all of a smaller one."""
    from botocore.exceptions import ClientError

    with bucket.told(f"Reading {key} from bucket {bucket.name}"):
        try:
            answer = bucket.client.get_object(
                Bucket=bucket.name,
                Key=bucket.full_key(key),
                Range=f"bytes=0-{_BEGINNING_BYTES - 1}",
            )
        except ClientError as error:
            if answers.code_of(error) == "InvalidRange":
                return b""  # it is empty
            raise
        return answer["Body"].read()
