"""One bucket, over boto3: bounded in time, with errors that tell the causes apart."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError, TransientError

_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_ATTEMPTS = 3
_CONNECTIONS = 32
_DELETE_AT_ONCE = 1000  # the limit of S3's DeleteObjects

_KEYS = "Look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
_REGION = "Look at vault.s3.region."
_REFUSALS = {
    "NoSuchBucket": ("there is no such bucket", "Look at vault.s3.bucket, or make the bucket."),
    "InvalidBucketName": ("that is no name of a bucket", "Look at vault.s3.bucket."),
    "InvalidAccessKeyId": ("the access key is not known", _KEYS),
    "SignatureDoesNotMatch": ("the secret key does not belong to the access key", _KEYS),
    "InvalidToken": ("the session token is not valid", _KEYS),
    "ExpiredToken": ("the session token has expired", _KEYS),
    "AccessDenied": ("access is denied", "Look at the policy of the access key."),
    "AllAccessDisabled": ("access is disabled", "Look at the account."),
    "403": ("access is denied", "Look at the policy of the access key."),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock (NTP)."),
    "AuthorizationHeaderMalformed": ("the bucket lies in another region", _REGION),
    "PermanentRedirect": ("the bucket lies in another region", _REGION),
    "IllegalLocationConstraintException": ("the bucket lies in another region", _REGION),
}
_MISSING = {"NoSuchKey", "404", "NotFound"}
_PASSING = {
    *("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling"),
    *("500", "502", "503", "504"),
}


@dataclass(frozen=True)
class Object:
    """One object of the bucket; `key` is below the bucket's prefix."""

    key: str
    bytes: int
    modified_at: datetime


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

    @cached_property
    def _client(self) -> Any:
        # boto3 costs 0.7 s to import, which a recovery from local copies need not pay.
        import boto3
        from botocore.config import Config

        try:
            return boto3.session.Session().client(
                "s3",
                endpoint_url=self.endpoint or None,
                region_name=self.region,
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
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

    def reachable(self) -> None:
        """Return if the bucket answers to our keys; raise PreconditionError with the cause if not.

        Takes at most 20 s where nothing answers.
        """
        try:
            with self._told(f"Reaching bucket {self.name}"):
                self._client.list_objects_v2(Bucket=self.name, MaxKeys=1, Prefix=self._key(""))
        except TransientError as error:
            raise PreconditionError(error.message, hint=error.hint) from error

    def put(self, key: str, data: bytes) -> None:
        with self._told(f"Writing {key} to bucket {self.name}"):
            self._client.put_object(Bucket=self.name, Key=self._key(key), Body=data)

    def get(self, key: str) -> bytes:
        with self._told(f"Reading {key} from bucket {self.name}"):
            return self._client.get_object(Bucket=self.name, Key=self._key(key))["Body"].read()

    def exists(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        with self._told(f"Looking for {key} in bucket {self.name}"):
            try:
                self._client.head_object(Bucket=self.name, Key=self._key(key))
            except ClientError as error:
                # The answer to HEAD has no body, so "no such bucket" looks the same.
                if _code(error) in _MISSING:
                    return False
                raise
        return True

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file of any size, in parts where it is large."""
        with self._told(f"Writing {key} to bucket {self.name}"), path.open("rb") as file:
            self._client.upload_fileobj(file, self.name, self._key(key))

    def get_file(self, key: str, path: Path) -> None:
        """Download an object; the file has its name only when it is whole."""
        part = path.with_name(f".{path.name}.part")
        try:
            with self._told(f"Reading {key} from bucket {self.name}"), part.open("wb") as file:
                self._client.download_fileobj(self.name, self._key(key), file)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def list(self, prefix: str = "", *, after: str = "") -> tuple[Object, ...]:
        """Every object below a prefix, in the order of their keys; those that come `after` one."""
        found = []
        begin = {"StartAfter": self._key(after)} if after else {}
        with self._told(f"Listing {prefix or 'everything'} in bucket {self.name}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=self._key(prefix), **begin
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    found.append(
                        Object(
                            key=item["Key"].removeprefix(self._key("")),
                            bytes=item["Size"],
                            modified_at=item["LastModified"],
                        )
                    )
        return tuple(found)

    def delete(self, keys: Collection[str]) -> None:
        """Delete objects; one that is not there counts as deleted."""
        ordered = [self._key(key) for key in keys]
        kept: list[dict[str, str]] = []
        for start in range(0, len(ordered), _DELETE_AT_ONCE):
            some = ordered[start : start + _DELETE_AT_ONCE]
            with self._told(f"Deleting {len(some)} objects from bucket {self.name}"):
                answer = self._client.delete_objects(
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

    def restic_location(self, path: str) -> str:
        """The same place as restic names it."""
        base = (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")
        return f"s3:{base}/{self.name}/{self._key(path)}"

    def _key(self, key: str) -> str:
        return f"{self.prefix.strip('/')}/{key}" if self.prefix.strip("/") else key

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Turn boto3's errors into ours."""
        from botocore import exceptions

        where = self.endpoint or "Amazon S3"
        try:
            yield
        except exceptions.ClientError as error:
            raise _error_of(error, f"{doing} at {where}") from error
        except exceptions.SSLError as error:
            raise PreconditionError(
                f"{doing}: {where} can't be reached by TLS ({error}).",
                hint="Look at vault.s3.endpoint: http or https? Is its certificate known here?",
            ) from error
        except (
            exceptions.ConnectionError,  # refused, no route, no such host
            exceptions.HTTPClientError,  # time-outs, closed in the middle
            exceptions.IncompleteReadError,
        ) as error:
            raise TransientError(
                f"{doing}: {where} does not answer ({_cause(error)}).",
                hint="Look at the network and at vault.s3.endpoint.",
            ) from error
        except exceptions.BotoCoreError as error:
            raise PreconditionError(f"{doing}: {error}.", hint="Look at vault.s3.") from error


def _code(error: Any) -> str:
    return error.response.get("Error", {}).get("Code", "?")


def _error_of(error: Any, doing: str) -> RecoveryError:
    code = _code(error)
    if code in _REFUSALS:
        what, hint = _REFUSALS[code]
        return PreconditionError(f"{doing}: {what}.", hint=hint)
    if code in _MISSING:
        return PermanentError(f"{doing}: it is not there.")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _PASSING or status >= 500:
        return TransientError(f"{doing}: the service can't answer now ({error}).")
    return PermanentError(f"{doing}: {error}.")


def _cause(error: Any) -> str:
    """The innermost reason, e.g. `[Errno 111] Connection refused`, without the chain around it."""
    inner = error.kwargs.get("error") or error
    inner = getattr(inner, "reason", None) or inner
    return str(inner).rpartition(": ")[2].strip()
