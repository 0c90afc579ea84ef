from __future__ import annotations

from lifeboat.core.diagnosis import Diagnosis
from lifeboat.core.requests import Diagnose
from lifeboat.settings import load_settings
from tasks import diagnosis
from tasks.orchestration import procedure
from tasks.record import recorded


@procedure("diagnose")
def diagnose(request: Diagnose = Diagnose()) -> Diagnosis:
    """Say which of the plan's four scenarios fits what is seen, with the evidence and the command.

    Before you start: nothing; it can be run at any time, also while nothing answers.

    1. Look at the services, the database, the files and the models, side by side.
    2. Say which recoveries fit, in the order in which they have to be done.

    What it changes: nothing. It takes no lock.
    If it fails: it does not; what can't be looked at is told, and is never taken for good.
    Evidence: what it prints.
    """
    settings = load_settings(request.config or None)
    with recorded("diagnose", platform=settings.platform, directory=None):
        return diagnosis.find_what_is_wrong(settings)
