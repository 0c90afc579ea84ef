from __future__ import annotations

from lifeboat.core.requests import Request
from lifeboat.core.stability import Look
from lifeboat.settings import load_settings
from tasks import stability
from tasks.orchestration import procedure
from tasks.record import recorded


@procedure("watch-stability")
def watch_stability(request: Request = Request()) -> Look | None:
    """Post-recovery action: monitor the system's stability, and review its logs for anomalies.

    1. Look at services, logs and answers. In everyday life this goes into what is usual.
    2. For 24 hours after a recovery (`follow_ups.stability_hours`) run the checks too, those that
       read no data, and compare with what was usual before.
    3. Tell people what has drifted, and when it is good again.
    4. When the watch is over, close its follow-up with what it came to. Logs that tell of more
       errors than before are left for a person, with the count and the last of them.

    What it changes: its own records; after a recovery the checks leave and remove their probes.
    If it fails: it does not; what can't be looked at has drifted.
    Evidence: `records/stability/looks.jsonl`, and the note in the follow-up.
    """
    settings = load_settings(request.config or None)
    with recorded("watch-stability", platform=settings.platform, directory=None):
        return stability.look(settings)
