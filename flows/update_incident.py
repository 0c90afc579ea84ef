from __future__ import annotations

from lifeboat.core.forms import UpdateIncident
from lifeboat.core.incident import Incident
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.people import incident_desk


@procedure("update-incident")
def update_incident(request: UpdateIncident) -> Incident:
    """Say how an incident stands: a text, the severity, who leads, or that you are on it.

    1. Write down what is new.
    2. Tell those whom it concerns.

    What it changes: nothing on the platform.
    If it fails: who was not reached is in the incident; tell them by telephone.
    Evidence: `records/incidents/<id>/incident.jsonl`, in both tiers.
    """
    return incident_desk.update(load_settings(request.config or None), request)
