from __future__ import annotations

from lifeboat.core.requests import Request
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.prefect_server import reconciliation
from tasks.prefect_server.reconciliation import Reconciled
from tasks.record import recorded


@procedure("reconcile-runs")
def reconcile_runs(request: Request = Request()) -> Reconciled:
    """Bring Prefect's history and the truth together, for the runs of this host.

    1. Runs that Prefect takes for running, and whose process is gone, are ended: as their own
       record says, or as crashed, with what they had come to and what to do next.
    2. Recoveries and drills that ran without Prefect, or whose runs it has lost, are shown.

    What it changes: states in Prefect's history. Never a run that is alive or paused for approval.
    If it fails: run it again; it is safe at any time.
    Evidence: the states' messages.
    """
    with recorded("reconcile-runs", platform="", directory=None):
        return reconciliation.reconcile(load_settings(request.config or None))
