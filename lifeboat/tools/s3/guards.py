"""The protections of a bucket, one by one: how each is looked at, and how it is set.

Setting is idempotent: what is stronger already stays, and the rules and statements of others are
read and written back as they are.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lifeboat.core.protection import Finding, Protection, State, Wanted
from lifeboat.tools.s3 import lifecycle, policy
from lifeboat.tools.s3.asking import Absent, Denied, Refused, ask, tell
from lifeboat.tools.s3.bucket import Bucket

_PUBLIC_BLOCKS = (
    "BlockPublicAcls",
    "IgnorePublicAcls",
    "BlockPublicPolicy",
    "RestrictPublicBuckets",
)
_TRIAL_SECONDS = 3.0
_PREPARE = "`lifeboat prepare s3` sets it."


def _look_at_versioning(bucket: Bucket, wanted: Wanted) -> Finding:
    status = ask(bucket, "get_bucket_versioning").get("Status", "never enabled")
    return _finding(
        Protection.VERSIONING,
        status == "Enabled",
        f"versioning is {status.lower()}",
        f"What is deleted or overwritten now is gone. {_PREPARE}",
    )


def _set_versioning(bucket: Bucket, wanted: Wanted, *, dry_run: bool) -> str:
    if ask(bucket, "get_bucket_versioning").get("Status") == "Enabled":
        return ""
    on = {"Status": "Enabled"}
    if not dry_run:
        tell(bucket, "put_bucket_versioning", VersioningConfiguration=on)
    return "versioning enabled, for the whole bucket"


def default_retention(bucket: Bucket) -> tuple[str, int] | None:
    """Mode and days of the default retention; None if there is none."""
    told = ask(
        bucket,
        "get_object_lock_configuration",
        none_if={"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"},
    )
    default = told.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
    if not default.get("Mode"):
        return None
    return default["Mode"].lower(), default.get("Days", 0) + 365 * default.get("Years", 0)


def _is_locked_enough(found: tuple[str, int] | None, wanted: Wanted) -> bool:
    if found is None:
        return False
    mode, days = found
    return days >= wanted.lock_days and mode in (wanted.lock_mode, "compliance")


def _look_at_object_lock(bucket: Bucket, wanted: Wanted) -> Finding:
    found = default_retention(bucket)
    told = f"new versions are locked for {found[1]} days ({found[0]})" if found else ""
    return _finding(
        Protection.OBJECT_LOCK,
        _is_locked_enough(found, wanted),
        told or "new versions are not locked",
        f"Wanted: {wanted.lock_days} days ({wanted.lock_mode}). {_PREPARE}",
    )


def _set_object_lock(bucket: Bucket, wanted: Wanted, *, dry_run: bool) -> str:
    found = default_retention(bucket)
    if _is_locked_enough(found, wanted):
        return ""
    mode, days = found or (wanted.lock_mode, wanted.lock_days)
    if wanted.lock_mode == "compliance":
        mode = "compliance"
    days = max(days, wanted.lock_days)
    rule = {"DefaultRetention": {"Mode": mode.upper(), "Days": days}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    if not dry_run:
        tell(bucket, "put_object_lock_configuration", ObjectLockConfiguration=configuration)
    return (
        f"Object Lock: new versions in the whole bucket are locked for {days} days ({mode}); "
        "from now on versioning can't be suspended"
    )


def dangerous_rules(bucket: Bucket, wanted: Wanted) -> tuple[str, ...]:
    """What is about to remove backups, or their old versions, too soon; as far as we may see."""
    try:
        rules = _rules(bucket).get("Rules", ())
    except (Absent, Denied):
        return ()
    return tuple(lifecycle.dangers(rules, bucket.full_key(""), wanted))


def _rules(bucket: Bucket) -> dict[str, Any]:
    return ask(
        bucket,
        "get_bucket_lifecycle_configuration",
        none_if={"NoSuchLifecycleConfiguration"},
    )


def _look_at_lifecycle(bucket: Bucket, wanted: Wanted) -> Finding:
    rules = _rules(bucket).get("Rules", ())
    wrong = list(lifecycle.problems(rules, bucket.full_key(""), wanted))
    return _finding(
        Protection.LIFECYCLE,
        not wrong,
        "; ".join(wrong)
        or f"old versions are kept for {wanted.undo_days} days, unfinished uploads given up",
        f"{_PREPARE} A rule of somebody else has to be corrected by hand.",
    )


def _set_lifecycle(bucket: Bucket, wanted: Wanted, *, dry_run: bool) -> str:
    told = _rules(bucket)
    ours = lifecycle.our_rules(bucket.full_key(""), wanted)
    existing = told.get("Rules", ())
    if lifecycle.is_as_wanted(existing, ours):
        return ""
    rules = lifecycle.merged(existing, ours)
    kept = "TransitionDefaultMinimumObjectSize"  # it goes back to its default if it is not sent
    also = {kept: told[kept]} if kept in told and existing else {}
    configuration = {"Rules": list(rules)}
    if not dry_run:
        tell(
            bucket,
            "put_bucket_lifecycle_configuration",
            LifecycleConfiguration=configuration,
            **also,
        )
    others = len(rules) - len(ours)
    beside = f"; {others} rules of others stay as they are" if others else ""
    return f"lifecycle: {len(ours)} rules for {bucket.full_key('') or 'the whole bucket'}{beside}"


def _look_at_public_access(bucket: Bucket, wanted: Wanted) -> Finding:
    open_doors = [name for name in _PUBLIC_BLOCKS if not _public_blocks(bucket).get(name)]
    return _finding(
        Protection.PUBLIC_ACCESS_BLOCK,
        not open_doors,
        f"not set: {', '.join(open_doors)}" if open_doors else "all four blocks are set",
        _PREPARE,
    )


def _public_blocks(bucket: Bucket) -> dict[str, Any]:
    told = ask(bucket, "get_public_access_block", none_if={"NoSuchPublicAccessBlockConfiguration"})
    return told.get("PublicAccessBlockConfiguration", {})


def _set_public_access(bucket: Bucket, wanted: Wanted, *, dry_run: bool) -> str:
    if all(_public_blocks(bucket).get(name) for name in _PUBLIC_BLOCKS):
        return ""
    blocks = {name: True for name in _PUBLIC_BLOCKS}
    if not dry_run:
        tell(bucket, "put_public_access_block", PublicAccessBlockConfiguration=blocks)
    return "public access blocked, for the whole bucket"


def _policy(bucket: Bucket) -> str | None:
    return ask(bucket, "get_bucket_policy", none_if={"NoSuchBucketPolicy"}).get("Policy")


def _require_tls(bucket: Bucket) -> None:
    if (bucket.endpoint or "").startswith("http://"):
        raise Absent(f"it is reached without TLS, at {bucket.endpoint}")


def _look_at_tls(bucket: Bucket, wanted: Wanted) -> Finding:
    _require_tls(bucket)
    demanded = policy.demands_tls(_policy(bucket), bucket.name, bucket.region, bucket.full_key(""))
    return _finding(
        Protection.TLS_ONLY,
        demanded,
        "the bucket's policy refuses what comes without TLS"
        if demanded
        else "the bucket's policy lets requests without TLS in",
        _PREPARE,
    )


def _set_tls(bucket: Bucket, wanted: Wanted, *, dry_run: bool) -> str:
    _require_tls(bucket)
    before = _policy(bucket)
    where = (bucket.name, bucket.region)
    if policy.demands_tls(before, *where, bucket.full_key("")):
        return ""
    if not dry_run:
        if bucket.endpoint:
            try_tls_policy(bucket, before)
        demand = policy.with_statement(before, *where, bucket.full_key(""))
        tell(bucket, "put_bucket_policy", Policy=demand)
    return f"policy: requests without TLS to {bucket.full_key('') or 'the bucket'} are refused"


def try_tls_policy(bucket: Bucket, before: str | None) -> None:
    """Try the demand for TLS on one object; raise if the store would lock us out.

    Behind a proxy that ends TLS a store takes every request for one without it. With the policy in
    force nobody could reach the bucket any more, not even to remove the policy.
    """
    key = f"records/probe-{secrets.token_hex(8)}"
    bucket.put(key, b"a trial of the bucket's policy")
    trial = policy.with_trial(before, bucket.name, bucket.region, bucket.full_key(key))
    try:
        tell(bucket, "put_bucket_policy", Policy=trial)
        deadline = time.monotonic() + _TRIAL_SECONDS
        while time.monotonic() < deadline:
            ask(bucket, "get_object", Key=bucket.full_key(key))
            time.sleep(_TRIAL_SECONDS / 10)
    except Denied:
        raise Refused(
            "it takes our requests for such without TLS, probably behind a proxy that ends TLS; "
            "the policy would lock everybody out, and was not set"
        ) from None
    finally:
        if before is None:
            tell(bucket, "delete_bucket_policy")
        else:
            tell(bucket, "put_bucket_policy", Policy=before)
        bucket.delete([key])


def _look_at_rights(bucket: Bucket, wanted: Wanted) -> Finding:
    """Try to delete the version of a probe for good, which the key of a host must not be able to.

    Lists of rights lie; the deed does not.
    """
    key = f"records/probe-{secrets.token_hex(8)}"
    with bucket.told(f"Writing {key} to bucket {bucket.name}"):
        written = bucket.client.put_object(
            Bucket=bucket.name, Key=bucket.full_key(key), Body=b"may this be deleted for good?"
        )
    where = {"Key": bucket.full_key(key), "VersionId": written.get("VersionId", "null")}
    how = ""
    try:
        tell(bucket, "delete_object", **where)
    except (Denied, Refused):
        try:
            tell(bucket, "delete_object", **where, BypassGovernanceRetention=True)
            how = " by going around Object Lock"
        except (Denied, Refused):
            bucket.delete([key])
            return _finding(
                Protection.WRITER_RIGHTS, True, "this key can't delete a version for good"
            )
    return _finding(
        Protection.WRITER_RIGHTS,
        False,
        f"this key can delete versions for good{how}, and so could a thief who finds it",
        "Give this host the writer's policy of docs/s3.md.",
    )


def _finding(protection: Protection, good: bool, evidence: str, remedy: str = "") -> Finding:
    state = State.PROTECTED if good else State.EXPOSED
    return Finding(
        protection=protection, state=state, evidence=evidence, remedy="" if good else remedy
    )


@dataclass(frozen=True)
class Guard:
    look: Callable[[Bucket, Wanted], Finding]
    set: Callable[..., str] | None  # (bucket, wanted, dry_run=), gives what was changed


GUARDS: dict[Protection, Guard] = {
    Protection.VERSIONING: Guard(_look_at_versioning, _set_versioning),
    Protection.OBJECT_LOCK: Guard(_look_at_object_lock, _set_object_lock),
    Protection.LIFECYCLE: Guard(_look_at_lifecycle, _set_lifecycle),
    Protection.PUBLIC_ACCESS_BLOCK: Guard(_look_at_public_access, _set_public_access),
    Protection.TLS_ONLY: Guard(_look_at_tls, _set_tls),
    Protection.WRITER_RIGHTS: Guard(_look_at_rights, None),  # set where keys are made
}
