from __future__ import annotations

from lifeboat.core.forms import RecoverOrchestrator
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import load_settings
from tasks import approval, recovery
from tasks.orchestration import procedure
from tasks.prefect_server import orchestrator_recovery


@procedure("recover-orchestrator")
def recover_orchestrator(
    request: RecoverOrchestrator = RecoverOrchestrator(),
) -> RunRecord | RecoveryPlan:
    """Prefect's own database is lost: bring run history, deployments and automations back.

    Needs a PostgreSQL that answers, empty or not, and no Prefect server.

    1. Look at what is there, and choose the newest point that holds a whole history.
    2. Show the plan and wait for approval.
    3. Restore the point into a new database beside the one that is there.
    4. Compare every table with what was counted when it was dumped.
    5. Swap the two by their names.

    What it changes: the name of Prefect's database; the old one is kept. Not the platform.
    If it fails: run it again, or with `--from s3` or `--point`; nothing was replaced before 5.
    Evidence: the run's record.
    """
    settings = load_settings(request.config or None)
    with recovery.recovery_of_orchestrator(settings) as run:
        found = orchestrator_recovery.look(settings)
        point = orchestrator_recovery.choose(settings, request)
        plan = orchestrator_recovery.plan(settings, point, found)
        if request.dry_run:
            return recovery.end_dry_run(run, plan)
        approval.approve(plan, request, settings)

        incoming, facts = orchestrator_recovery.restore_beside(settings, point, request)
        orchestrator_recovery.swap(settings, incoming, facts)
    return run.record
