"""What a recovery of the bucket would do: looked at before a person reads it, and again then."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from lifeboat.core.forms import RecoverBucket
from lifeboat.core.losses import BucketPlan
from tasks import bucket_recovery
from tasks.bucket_recovery import Choice, Place


class Found(BaseModel):
    """What becomes of each object, and the plan that was made of it."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    choice: Choice
    plan: BucketPlan


def look(place: Place, request: RecoverBucket, *, agreed: Found | None = None) -> Found:
    """List all versions, choose among them, and plan; nothing is touched.

    With `agreed` as of the moment that was agreed to. The host goes on writing while a person
    reads, and what it has put right by then is left alone: less to do is no other plan. Raises
    NothingToDo if nothing is left to be done, and what `read_versions` and `choose` raise besides.
    """
    as_of = agreed.choice.as_of if agreed else None
    by_key = bucket_recovery.read_versions(place)
    choice = bucket_recovery.choose(place, by_key, request, as_of=as_of)
    if agreed and choice.is_within(agreed.choice):
        return Found(choice=choice, plan=agreed.plan)
    return Found(choice=choice, plan=bucket_recovery.plan_for(place, by_key, choice))
