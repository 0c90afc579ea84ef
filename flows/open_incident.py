from __future__ import annotations

from lifeboat.core.forms import OpenIncident
from lifeboat.core.incident import Incident
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.people import incident_desk


@procedure("open-incident")
def open_incident(request: OpenIncident) -> Incident:
    """Something is wrong: begin its record and tell people, before anything is recovered.

    1. Open the incident, with its severity and commander.
    2. Tell the internal roles, the status page and the customers, as lifeboat.yaml says.

    What it changes: nothing on the platform. A recovery of the same trouble joins the incident.
    If it fails: who was not reached is in the incident; tell them by telephone.
    Evidence: `records/incidents/<id>/incident.jsonl`, in both tiers.
    """
    return incident_desk.open_by_hand(load_settings(request.config or None), request)
