from __future__ import annotations

from lifeboat.core.forms import CloseIncident
from lifeboat.core.incident import Incident
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.people import incident_desk


@procedure("close-incident")
def close_incident(request: CloseIncident) -> Incident:
    """It is over: close the incident and tell people so.

    1. Write down how it ended, and who says so.
    2. Tell all who were told that it began.

    What it changes: nothing on the platform.
    If it fails: the incident stays open; run it again.
    Evidence: `records/incidents/<id>/incident.jsonl`, in both tiers.
    """
    return incident_desk.close(load_settings(request.config or None), request)
