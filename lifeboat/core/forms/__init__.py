"""The forms that an operator fills in: one flat model for each flow that a person starts.

The UI draws them, and its server checks them before a run begins; the command line fills in the
same ones. So every field has a sentence, a default where there can be one, and bounds that are told
in the schema and not only by a validator. A moment is a string with a pattern, for the UI's picker
has five-minute steps and its server takes anything for a moment.
"""

from __future__ import annotations

from lifeboat.core.forms.base import (
    DATE_PATTERN,
    INCIDENT_PATTERN,
    POINT_PATTERN,
    TIME_PATTERN,
    Approval,
    Form,
)
from lifeboat.core.forms.drills import (
    Diagnose,
    Drill,
    Scenario,
    Verify,
)
from lifeboat.core.forms.people import (
    CloseIncident,
    CommunicationTest,
    FollowUpDeed,
    IncidentSeverity,
    OpenIncident,
    Review,
    UpdateIncident,
)
from lifeboat.core.forms.recoveries import (
    ProvisionServer,
    RecoverBucket,
    RecoverDatabase,
    RecoverFiles,
    RecoverModels,
    RecoverOrchestrator,
    RecoverServer,
    Source,
)

__all__ = [
    "Approval",
    "CloseIncident",
    "CommunicationTest",
    "DATE_PATTERN",
    "Diagnose",
    "Drill",
    "FollowUpDeed",
    "Form",
    "INCIDENT_PATTERN",
    "IncidentSeverity",
    "OpenIncident",
    "POINT_PATTERN",
    "ProvisionServer",
    "RecoverBucket",
    "RecoverDatabase",
    "RecoverFiles",
    "RecoverModels",
    "RecoverOrchestrator",
    "RecoverServer",
    "Review",
    "Scenario",
    "Source",
    "TIME_PATTERN",
    "UpdateIncident",
    "Verify",
]
