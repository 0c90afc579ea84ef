"""A bucket's protection: looked at and set, with the store's and our key's limits told apart."""

from __future__ import annotations

from typing import Literal

from lifeboat.core.errors import PermanentError, PreconditionError
from lifeboat.core.protection import Finding, Protection, State, Wanted
from lifeboat.tools.s3.asking import Absent, Denied, Refused, ask
from lifeboat.tools.s3.bucket import Bucket
from lifeboat.tools.s3.guards import GUARDS

_DO_WITHOUT = "Choose a store that has it, or say in vault.s3.without why you do without."


def look(bucket: Bucket, wanted: Wanted, protection: Protection) -> Finding:
    """Say whether one protection is in force. Raises as Bucket's methods do."""
    try:
        return GUARDS[protection].look(bucket, wanted)
    except Absent as told:
        state, evidence, remedy = State.ABSENT, str(told), _DO_WITHOUT
    except Denied as told:
        state, evidence = State.UNKNOWN, f"this key may not look ({told})"
        remedy = "Give it the policy of docs/s3.md."
    return Finding(protection=protection, state=state, evidence=evidence, remedy=remedy)


SETTABLE = tuple(protection for protection, guard in GUARDS.items() if guard.set)
"""What `protect` can do, in the order in which it has to be done."""


def protect(
    bucket: Bucket, wanted: Wanted, protection: Protection, *, dry_run: bool = False
) -> str:
    """Put one protection in force and say what was changed; empty if nothing had to be.

    With `dry_run` it says what would be. Raises PreconditionError if the store, or the policy of
    our key, does not allow it.
    """
    doing = f"Setting {protection} of bucket {bucket.name}"
    act = GUARDS[protection].set
    if act is None:
        raise PermanentError(f"{doing}: that is not a setting of the bucket.")
    try:
        return act(bucket, wanted, dry_run=dry_run)
    except Absent as told:
        raise PreconditionError(
            f"{doing}: the store does not have it ({told}).", hint=_DO_WITHOUT
        ) from told
    except Denied as told:
        raise PreconditionError(
            f"{doing}: access is denied ({told}).",
            hint="Use an administrator's key, not the one of the host; see docs/s3.md.",
        ) from told
    except Refused as told:
        raise PreconditionError(
            f"{doing}: the store refuses ({told}).",
            hint="Some stores allow it for new buckets only; see docs/s3.md.",
        ) from told


Versioning = Literal["enabled", "suspended", "never enabled", "unknown"]


def versioning_of(bucket: Bucket) -> Versioning:
    """Whether old versions are kept, as far as our key may know."""
    try:
        status = ask(bucket, "get_bucket_versioning").get("Status")
    except Absent:
        return "never enabled"
    except Denied:
        return "unknown"
    return {"Enabled": "enabled", "Suspended": "suspended"}.get(status, "never enabled")
