from __future__ import annotations

from lifeboat.core.requests import EscalateIncidents
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.people import communication


@procedure("escalate-incidents")
def escalate_incidents(request: EscalateIncidents = EscalateIncidents()) -> int:
    """Tell the next people of each incident that nobody has acknowledged in time; say how many.

    1. Look at the incidents of this host.
    2. Send what quiet hours or the limit of updates held back, once they allow it.
    3. Tell the technical team first, then management too.

    What it changes: nothing on the platform.
    If it fails: run it again; whom it has told is in the incident.
    Evidence: `records/incidents/<id>/incident.jsonl`, in both tiers.
    """
    return len(communication.each_minute(load_settings(request.config or None)))
