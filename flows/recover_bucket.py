from __future__ import annotations

import functools

from lifeboat.core.forms import RecoverBucket
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.timeline import RunRecord
from tasks import agreement, bucket_agreement, bucket_recovery, recovery
from tasks.orchestration import procedure


@procedure("recover-bucket")
def recover_bucket(request: RecoverBucket = RecoverBucket()) -> RunRecord | RecoveryPlan:
    """Somebody deleted or overwrote what lies in the bucket; its old versions remain.

    Before you start: take the thief's access key away, or what comes back is destroyed again. A key
    that may list, read and write is enough; none that deletes versions is needed.

    1. List all versions, and find what is destroyed and when that began.
    2. Show the plan and wait for approval; backups go on meanwhile, unless newer objects are to be
       hidden.
    3. Copy the right old versions over what is current, within the store.
    4. If asked: hide restic's objects that came later.
    5. List the bucket again and compare.

    What it changes: adds versions; removes none. What is whole is not touched, and what came later
    stays. restic's locks do not come back.
    If it fails: run it again with `--as-of` and the moment of its plan, for by what is back already
    the versions may tell another one; what is right already is left alone.
    Evidence: the record, with `brought-back.txt`, here and in the bucket.
    """
    with bucket_recovery.recovery_of_bucket(request) as (place, run):
        look = functools.partial(bucket_agreement.look, place, request)
        found = look()
        if request.dry_run:
            return recovery.end_dry_run(run, found.plan, place.settings)
        again = functools.partial(look, agreed=found)
        # What a backup adds meanwhile would have to be hidden too, unread.
        found = agreement.agree(
            found, request, place.settings, again=again, holding=request.hide_newer
        )

        bucket_recovery.bring_back(place, found.choice)
        if request.hide_newer:
            bucket_recovery.hide(place, found.choice)
        bucket_recovery.prove(place, found.choice)
    return run.record
