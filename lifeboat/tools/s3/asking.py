"""Questions and orders about a whole bucket, which many stores know only some of."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lifeboat.tools.s3 import answers
from lifeboat.tools.s3.bucket import Bucket

_NOT_THERE = {"NotImplemented", "XNotImplemented", "MethodNotAllowed", "UnsupportedOperation"}
_NOT_THERE_STATUS = {405, 501}


class Absent(Exception):
    """The store has no such thing."""


class Denied(Exception):
    """Our key may not do that."""


class Refused(Exception):
    """The store knows it, and does not do it for this bucket."""


def ask(
    bucket: Bucket, call: str, *, none_if: Collection[str] = (), **arguments: Any
) -> dict[str, Any]:
    """Call boto3's method of that name; give {} where the error's code is one of `none_if`.

    Raises Absent, Denied, or as Bucket's methods do.
    """
    from botocore.exceptions import ClientError

    with bucket.told(f"Asking bucket {bucket.name} ({call})"):
        try:
            return getattr(bucket.client, call)(Bucket=bucket.name, **arguments)
        except ClientError as error:
            code = answers.code_of(error)
            if code in none_if:
                return {}
            if code in _NOT_THERE or answers.status_of(error) in _NOT_THERE_STATUS:
                raise Absent(f"{call} is not implemented") from error
            if code in answers.DENIED:
                raise Denied(call) from error
            raise


def tell(bucket: Bucket, call: str, **arguments: Any) -> dict[str, Any]:
    """The same for an order, which may also be Refused."""
    from botocore.exceptions import ClientError

    with bucket.told(f"Telling bucket {bucket.name} ({call})"):
        try:
            return getattr(bucket.client, call)(Bucket=bucket.name, **arguments)
        except ClientError as error:
            code, status = answers.code_of(error), answers.status_of(error)
            if code in _NOT_THERE or status in _NOT_THERE_STATUS:
                raise Absent(f"{call} is not implemented") from error
            if code in answers.DENIED:
                raise Denied(call) from error
            if 400 <= status < 500 and not answers.is_known(code):
                message = error.response.get("Error", {}).get("Message", "")
                raise Refused(f"{call}: {message or code}") from error
            raise
