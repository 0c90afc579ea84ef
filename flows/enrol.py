from __future__ import annotations

from lifeboat.core.requests import Enrol
from lifeboat.settings import load_settings
from tasks import enrol as enrolment
from tasks.orchestration import procedure


@procedure("enrol")
def enrol(request: Enrol = Enrol()) -> enrolment.Enrolment:
    """Let Lifeboat into the platform's running database.

    Before you start: lifeboat.yaml, and LIFEBOAT_DATABASE_PASSWORD, which the role will get.

    1. Make the role, its rights, its lines in pg_hba.conf and its replication slot, where missing.
    2. Take PostgreSQL's programs out of the database's image, if lifeboat.yaml says so.

    What it changes: the database's roles, pg_hba.conf (lines are added at its end) and one slot.
    If it fails: it says what was changed so far; run it again.
    Evidence: what it returns.
    """
    settings = load_settings(request.config or None)
    done = enrolment.enrol_role(settings, request.superuser, dry_run=request.dry_run)
    if not request.dry_run:
        enrolment.bring_programs(settings)
    return done
