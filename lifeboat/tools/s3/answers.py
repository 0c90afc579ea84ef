"""What the store's answers mean: boto3's errors turned into ours, with the causes told apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError, TransientError

_KEYS = "Look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
_REGION = "Look at vault.s3.region."
_POLICY = "Look at the policy of the access key."
_REFUSALS = {
    "NoSuchBucket": ("there is no such bucket", "Look at vault.s3.bucket, or make the bucket."),
    "InvalidBucketName": ("that is no name of a bucket", "Look at vault.s3.bucket."),
    "InvalidAccessKeyId": ("the access key is not known", _KEYS),
    "SignatureDoesNotMatch": ("the secret key does not belong to the access key", _KEYS),
    "InvalidToken": ("the session token is not valid", "Look at AWS_SESSION_TOKEN."),
    "ExpiredToken": ("the session token has expired", "Get a new AWS_SESSION_TOKEN."),
    "AccessDenied": ("access is denied", _POLICY),
    "AllAccessDisabled": ("access is disabled", "Look at the account."),
    "403": ("access is denied", _POLICY),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock (NTP)."),
    "AuthorizationHeaderMalformed": ("the bucket lies in another region", _REGION),
    "PermanentRedirect": ("the bucket lies in another region", _REGION),
    "IllegalLocationConstraintException": ("the bucket lies in another region", _REGION),
}
MISSING = {"NoSuchKey", "404", "NotFound"}
DENIED = {"AccessDenied", "403"}
_PASSING = {
    *("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling"),
    *("500", "502", "503", "504"),
}


@contextmanager
def told(doing: str, where: str) -> Iterator[None]:
    """Turn what boto3 raises within the block into our errors.

    `doing` begins every message; `where` names the store.
    """
    from botocore import exceptions

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


def is_known(code: str) -> bool:
    """Whether it says something about keys, bucket, clock or load, and not about the request."""
    return code in _REFUSALS or code in _PASSING


def code_of(error: Any) -> str:
    return error.response.get("Error", {}).get("Code", "?")


def status_of(error: Any) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _error_of(error: Any, doing: str) -> RecoveryError:
    code = code_of(error)
    if code in _REFUSALS:
        what, hint = _REFUSALS[code]
        return PreconditionError(f"{doing}: {what}.", hint=hint)
    if code in MISSING:
        return PermanentError(f"{doing}: it is not there.")
    if code in _PASSING or status_of(error) >= 500:
        return TransientError(f"{doing}: the service can't answer now ({error}).")
    return PermanentError(f"{doing}: {error}.")


def _cause(error: Any) -> str:
    """The innermost reason, e.g. `[Errno 111] Connection refused`, without the chain around it."""
    inner = error.kwargs.get("error") or error
    inner = getattr(inner, "reason", None) or inner
    return str(inner).rpartition(": ")[2].strip()
