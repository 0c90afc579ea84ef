"""One bucket, over boto3: bounded in time, with errors that tell the causes apart."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError, TransientError
from lifeboat.tools.s3 import answers

_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_ATTEMPTS = 3
_CONNECTIONS = 32
_DELETE_AT_ONCE = 1000  # the limit of S3's DeleteObjects
_ABORT_AT_ONCE = 8


@dataclass(frozen=True)
class Object:
    """One object of the bucket; `key` is below the bucket's prefix."""

    key: str
    bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class Upload:
    """A large upload that was begun and not ended; its parts are invisible, and are paid for."""

    key: str  # below the bucket's prefix
    id: str
    begun_at: datetime


@dataclass(frozen=True)
class Bucket:
    """A bucket and the place in it that is ours. Safe to use from several threads.

    Every method raises TransientError if the service does not answer or asks to be spared,
    PreconditionError if it refuses us (no such bucket, wrong keys, denied, wrong clock), and
    PermanentError for anything else.
    """

    endpoint: str | None  # None: Amazon's own
    name: str
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    prefix: str = ""
    session_token: str | None = field(default=None, repr=False)  # of temporary keys

    @cached_property
    def client(self) -> Any:
        # boto3 costs 0.7 s to import, which a recovery from local copies need not pay.
        import boto3
        from botocore.config import Config

        try:
            client = boto3.session.Session().client(
                "s3",
                endpoint_url=self.endpoint or None,
                region_name=self.region,
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                aws_session_token=self.session_token,
                config=Config(
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                    max_pool_connections=_CONNECTIONS,
                    s3={"addressing_style": "path" if self.endpoint else "auto"},
                    # What others than Amazon understand.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except ValueError as error:
            raise PreconditionError(
                f"Reaching bucket {self.name}: {error}.", hint="Look at vault.s3.endpoint."
            ) from error
        for call in ("PutObject", "UploadPart"):
            client.meta.events.register(f"before-call.s3.{call}", _add_digest)
        return client

    def reachable(self) -> None:
        """Return if the bucket answers to our keys; raise PreconditionError with the cause if not.

        Takes at most 20 s where nothing answers.
        """
        try:
            with self.told(f"Reaching bucket {self.name}"):
                self.client.list_objects_v2(Bucket=self.name, MaxKeys=1, Prefix=self.full_key(""))
        except TransientError as error:
            raise PreconditionError(error.message, hint=error.hint) from error

    def put(self, key: str, data: bytes, *, content_type: str = "") -> None:
        more = {"ContentType": content_type} if content_type else {}
        with self.told(f"Writing {key} to bucket {self.name}"):
            self.client.put_object(Bucket=self.name, Key=self.full_key(key), Body=data, **more)

    def get(self, key: str) -> bytes:
        with self.told(f"Reading {key} from bucket {self.name}"):
            return self.client.get_object(Bucket=self.name, Key=self.full_key(key))["Body"].read()

    def exists(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        with self.told(f"Looking for {key} in bucket {self.name}"):
            try:
                self.client.head_object(Bucket=self.name, Key=self.full_key(key))
            except ClientError as error:
                # The answer to HEAD has no body, so "no such bucket" looks the same.
                if answers.code_of(error) in answers.MISSING:
                    return False
                raise
        return True

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file of any size, in parts where it is large."""
        with self.told(f"Writing {key} to bucket {self.name}"), path.open("rb") as file:
            self.client.upload_fileobj(file, self.name, self.full_key(key))

    def get_file(self, key: str, path: Path) -> None:
        """Download an object; the file has its name only when it is whole."""
        part = path.with_name(f".{path.name}.part")
        try:
            with self.told(f"Reading {key} from bucket {self.name}"), part.open("wb") as file:
                self.client.download_fileobj(self.name, self.full_key(key), file)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def list(
        self, prefix: str = "", *, after: str = "", at_most: int | None = None
    ) -> tuple[Object, ...]:
        """Every object below a prefix in the order of their keys.

        `after` leaves out those up to a key, `at_most` all but the first so many.
        """
        found = []
        begin = {"StartAfter": self.full_key(after)} if after else {}
        with self.told(f"Listing {prefix or 'everything'} in bucket {self.name}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name,
                Prefix=self.full_key(prefix),
                PaginationConfig={"MaxItems": at_most},
                **begin,
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    found.append(
                        Object(
                            key=self.below(item["Key"]),
                            bytes=item["Size"],
                            modified_at=item["LastModified"],
                        )
                    )
        return tuple(found)

    def delete(self, keys: Collection[str]) -> None:
        """Delete objects; one that is not there counts as deleted."""
        ordered = [self.full_key(key) for key in keys]
        kept: list[dict[str, str]] = []
        for start in range(0, len(ordered), _DELETE_AT_ONCE):
            some = ordered[start : start + _DELETE_AT_ONCE]
            with self.told(f"Deleting {len(some)} objects from bucket {self.name}"):
                answer = self.client.delete_objects(
                    Bucket=self.name,
                    Delete={"Objects": [{"Key": key} for key in some], "Quiet": True},
                )
            kept += answer.get("Errors", ())
        if kept:
            first = kept[0]
            raise PermanentError(
                f"Deleting from bucket {self.name}: {len(kept)} of {len(ordered)} objects stayed, "
                f"first {first.get('Key')}: {first.get('Message')}.",
                hint="Look at the policy of the access key and at the bucket's object lock.",
            )

    def unfinished_uploads(self, prefix: str = "") -> tuple[Upload, ...]:
        """Uploads below a prefix that were begun and neither ended nor aborted, oldest first.

        One that is still running is among them.
        """
        # By id, since some stores tell of one twice.
        found: dict[str, Upload] = {}
        with self.told(f"Listing unfinished uploads in bucket {self.name}"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.name, Prefix=self.full_key(prefix)
            )
            for page in pages:
                for item in page.get("Uploads", ()):
                    found[item["UploadId"]] = Upload(
                        key=self.below(item["Key"]),
                        id=item["UploadId"],
                        begun_at=item["Initiated"],
                    )
        return tuple(sorted(found.values(), key=lambda upload: (upload.begun_at, upload.key)))

    def abort_uploads(self, uploads: Iterable[Upload]) -> None:
        """Give up unfinished uploads, so that their parts go; one that is gone counts as aborted.

        All are tried; then PermanentError tells how many stayed. A part that is being sent at this
        moment may survive: look again some time later.
        """
        uploads = tuple(uploads)
        with ThreadPoolExecutor(max_workers=_ABORT_AT_ONCE) as pool:
            errors = [error for error in pool.map(self._abort, uploads) if error]
        if errors:
            raise PermanentError(
                f"Aborting uploads in bucket {self.name}: {len(errors)} of {len(uploads)} stayed, "
                f"first: {errors[0].message}",
                hint=errors[0].hint or "Run it again.",
            ) from errors[0]

    def _abort(self, upload: Upload) -> RecoveryError | None:
        from botocore.exceptions import ClientError

        try:
            with self.told(f"Aborting the upload of {upload.key} to bucket {self.name}"):
                try:
                    self.client.abort_multipart_upload(
                        Bucket=self.name, Key=self.full_key(upload.key), UploadId=upload.id
                    )
                except ClientError as error:
                    if answers.code_of(error) not in {"NoSuchUpload", *answers.MISSING}:
                        raise
        except RecoveryError as error:
            return error
        return None

    def restic_location(self, path: str) -> str:
        """The same place as restic names it."""
        base = (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")
        return f"s3:{base}/{self.name}/{self.full_key(path)}"

    def full_key(self, key: str) -> str:
        """A key below the prefix, as the store knows it."""
        return f"{self.prefix.strip('/')}/{key}" if self.prefix.strip("/") else key

    def below(self, full_key: str) -> str:
        """The same the other way round."""
        return full_key.removeprefix(self.full_key(""))

    def told(self, doing: str) -> AbstractContextManager[None]:
        """Turn boto3's errors into ours within a block."""
        return answers.told(doing, self.endpoint or "Amazon S3")


def _add_digest(params: dict[str, Any], **_: Any) -> None:
    """Send the content's MD5 along: a bucket with Object Lock refuses what comes without.

    Every store knows this header; boto3's newer checksums are known to few.
    """
    body = params["body"]
    if isinstance(body, (bytes, bytearray)):
        digest = hashlib.md5(body, usedforsecurity=False)
    elif hasattr(body, "seek"):
        begins = body.tell()
        digest = hashlib.md5(usedforsecurity=False)
        while some := body.read(1 << 20):
            digest.update(some)
        body.seek(begins)
    else:
        return
    params["headers"]["Content-MD5"] = base64.b64encode(digest.digest()).decode()
