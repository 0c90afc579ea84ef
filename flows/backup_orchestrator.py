from __future__ import annotations

from lifeboat.core.orchestrator import OrchestratorFacts
from lifeboat.core.requests import Backup
from lifeboat.settings import load_settings
from tasks import backup
from tasks.orchestration import procedure
from tasks.prefect_server import orchestrator
from tasks.record import current_run


@procedure("backup-orchestrator")
def backup_orchestrator(request: Backup = Backup()) -> OrchestratorFacts:
    """Back up Prefect's own database: run history, deployments, automations, blocks.

    1. Stand aside if a recovery is running, or another backup of it.
    2. Dump it, with every table's rows counted in the same snapshot.
    3. Store the dump in the local vault and in S3.
    4. Let go of the points that retention does not keep.

    What it changes: the vault gains one recovery point, and loses those that are too old.
    If it fails: run it again; a backup that fails half way leaves no recovery point in that tier.
    Evidence: the run's record, and `orchestrator-*` in `lifeboat watch`.
    """
    settings = load_settings(request.config or None)
    orchestrator.connection(settings)  # before a record begins: nothing is asked for without it
    with backup.backup_run(settings, "orchestrator"):
        facts = orchestrator.back_up(settings)
        current_run().fact(points_removed=orchestrator.let_go(settings))
    return facts
