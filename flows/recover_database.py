from __future__ import annotations

import functools

from lifeboat.core.forms import RecoverDatabase
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import load_settings
from tasks import agreement, climb, recovery, restore_database, services
from tasks.orchestration import procedure, side_by_side


@procedure("recover-database")
def recover_database(request: RecoverDatabase = RecoverDatabase()) -> RunRecord | RecoveryPlan:
    """Scenario 1 of the plan: the database server failed, or its data is wrong since a moment.

    Before you start: for a point in time, know the last moment at which the data was right.

    1. Assess: who else uses the data, the service, its log, its data directory, its blocks.
    2. Show the plan and wait for approval.
    3. Climb the ladder, cheapest cure first, until one holds: restart the service; rename the hot
       copy into place; restore from the local vault; restore from S3. Each replays the WAL to the
       newest row, or to the point in time. The application is stopped for the first restore.
    4. Protect the recovered database: slot and WAL receiver.
    5. Start the application.
    6. Verify the platform.
    7. Let backups go on, and start what was deferred.

    What it changes: the data directory; the damaged one lies beside it, as `*.damaged-<run>`.
    If it fails: the reasons of every rung are told; nothing was removed; run it again.
    Evidence: the record has every rung with its reason, the phases, the last LSN and the checks.
    """
    settings = load_settings(request.config or None)
    with recovery.recovery(settings, "recover-database") as run:
        look = functools.partial(climb.look, settings, request)
        found = look()
        if request.dry_run:
            return recovery.end_dry_run(run, found.plan, settings)
        found = agreement.agree(found, request, settings, again=look)

        facts = climb.climb(settings, found.rungs, found.points, to_time=request.target_time)

        restore_database.rearm_wal(settings)
        told = side_by_side(
            {
                "start": lambda: services.start_services(
                    settings, services.services_to_prove(settings)
                ),
                "expected": lambda: recovery.expectations(settings, facts),
            }
        )
        recovery.prove_recovered(settings, told["expected"])
        services.start_services(settings, settings.stack.backup_services)
        services.start_deferred(settings)
    return run.record
