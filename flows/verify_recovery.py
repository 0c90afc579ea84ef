from __future__ import annotations

from lifeboat.core.checks import Verdict
from lifeboat.core.forms import Verify
from lifeboat.settings import load_settings
from tasks import artifacts, backup, locks, places, recovery
from tasks.orchestration import procedure
from tasks.record import recorded


@procedure("verify-recovery")
def verify_recovery(request: Verify = Verify()) -> Verdict:
    """The plan's Recovery Verification Checklist, all eighteen checks, against the live platform.

    Before you start: nothing; it changes nothing but a probe file, a probe key and an uploaded
    probe drawing, which it removes.

    1. Read what a whole platform looks like from the newest recovery points.
    2. Run the checks side by side.
    3. If all pass, let a host that was recovered write to the vault again, and start what a
       recovery whose checks had not passed left stopped: backups, and what was deferred.

    If it fails: the evidence of each check that did not pass names what it saw.
    Evidence: the verdict, in the run's record.
    """
    settings = load_settings(request.config or None)
    with (
        recorded(
            "verify-recovery", platform=settings.platform, directory=places.runs_directory(settings)
        ) as run,
        artifacts.shown(run, settings),
    ):
        expected = recovery.expectations(settings)
        with locks.no_backups(settings, run="verify-recovery"):
            verdict = recovery.verify(settings, expected)
        if verdict.good:
            backup.allow_backups(settings)
            recovery.start_what_was_left_stopped(
                settings, holding=locks.recovery_lock(settings, run="verify-recovery")
            )
    return verdict
