"""The bucket's policy: one statement of ours that refuses what comes without TLS.

Pure: a policy is JSON as S3 keeps it. Source: Amazon S3 User Guide, "Security best practices".
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SID = "LifeboatTlsOnly"
_TRIAL_SID = "LifeboatTlsTrial"


def with_statement(policy: str | None, bucket: str, region: str, prefix: str) -> str:
    """The policy with our statement in it; the statements of others stay as they are."""
    arn = _arn(bucket, region)
    # What lies beside our prefix is for others to decide.
    resources = [f"{arn}/{prefix}*"] if prefix else [arn, f"{arn}/*"]
    return _with(policy, _deny(_SID, resources))


def with_trial(policy: str | None, bucket: str, region: str, key: str) -> str:
    """The policy with the same for one key only, to see whether the store knows TLS."""
    return _with(policy, _deny(_TRIAL_SID, [f"{_arn(bucket, region)}/{key}"]))


def demands_tls(policy: str | None, bucket: str, region: str, prefix: str) -> bool:
    """Whether some statement, whoever made it, refuses all that comes to our keys without TLS."""
    key = f"{_arn(bucket, region)}/{prefix}any/key"
    return any(
        statement.get("Effect") == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and {"s3:*", "*"} & set(_many(statement.get("Action")))
        and any(fnmatch.fnmatchcase(key, told) for told in _many(statement.get("Resource")))
        and _is_only_about_tls(statement.get("Condition", {}))
        for statement in _statements(policy)
    )


def _is_only_about_tls(condition: Mapping[str, Any]) -> bool:
    return list(condition) == ["Bool"] and {
        name.lower(): [str(value).lower() for value in _many(told)]
        for name, told in condition["Bool"].items()
    } == {"aws:securetransport": ["false"]}


def _deny(sid: str, resources: Sequence[str]) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": list(resources),
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def _with(policy: str | None, statement: Mapping[str, Any]) -> str:
    told = json.loads(policy) if policy else {"Version": "2012-10-17"}
    others = [s for s in _statements(policy) if s.get("Sid") not in (_SID, _TRIAL_SID)]
    return json.dumps({**told, "Statement": [*others, statement]})


def _statements(policy: str | None) -> Iterator[Mapping[str, Any]]:
    yield from _many(json.loads(policy).get("Statement") if policy else None)


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _arn(bucket: str, region: str) -> str:
    partition = "aws-cn" if region.startswith("cn-") else "aws"
    return f"arn:{'aws-us-gov' if region.startswith('us-gov-') else partition}:s3:::{bucket}"
