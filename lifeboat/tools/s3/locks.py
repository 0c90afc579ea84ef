"""Object Lock on single objects: how long one is locked, and locking it for longer.

A bucket's default retention counts from when an object was written, and restic's old packs are as
needed as the new ones; so their locks have to be renewed. To lengthen a lock needs
s3:PutObjectRetention; to shorten it, the right to bypass.
"""

from __future__ import annotations

from datetime import datetime

from lifeboat.tools.s3.asking import ask
from lifeboat.tools.s3.bucket import Bucket


def locked_until(bucket: Bucket, key: str) -> datetime | None:
    """Until when the current version can't be deleted; None if it is not locked."""
    told = ask(
        bucket,
        "get_object_retention",
        none_if={"NoSuchObjectLockConfiguration", "InvalidRequest"},
        Key=bucket.full_key(key),
    )
    return told.get("Retention", {}).get("RetainUntilDate")


def lock(bucket: Bucket, key: str, *, mode: str, until: datetime) -> None:
    """Lock the current version until then, if it is not locked for longer already."""
    with bucket.told(f"Locking {key} in bucket {bucket.name}"):
        bucket.client.put_object_retention(
            Bucket=bucket.name,
            Key=bucket.full_key(key),
            Retention={"Mode": mode.upper(), "RetainUntilDate": until},
        )
