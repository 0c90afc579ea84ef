from __future__ import annotations

import functools

from lifeboat.core.forms import RecoverFiles
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import load_settings
from tasks import agreement, integrity, recovery, repair, services
from tasks.orchestration import procedure, side_by_side


@procedure("recover-files")
def recover_files(request: RecoverFiles = RecoverFiles()) -> RunRecord | RecoveryPlan:
    """Scenario 3 of the plan: the file storage is corrupt.

    Before you start: know whether you want the latest point or the one of a certain day.

    1. Find what is missing or damaged, by content, against the recovery point, and what the point
       holds damaged too, by the SHA-256 that the database knows.
    2. Show the plan and wait for approval.
    3. Stop the services that use the files.
    4. Keep the damaged files aside; rewrite them, and only them.
    5. Verify the integrity of every file that the database refers to; look in all other points for
       a whole version of what is still damaged.
    6. Start the services.
    7. Verify the platform; start what a recovery of the database, whose checks had not passed, left
       stopped.

    What it changes: only files that differ from the recovery point, or from the SHA-256 that the
    database knows. Newer files stay.
    If it fails: run it again, or with `--from s3`; the damaged originals lie beside the directory.
    Evidence: `damage.json` in the record names every file, its damage, and where the original is;
    `from-other-points.json` what the chosen point could not bring back and another one could.
    """
    settings = load_settings(request.config or None)
    with recovery.recovery(settings, "recover-files") as run:
        source = repair.choose_source(
            settings,
            Asset.FILES,
            only_from=request.only_from,
            not_after=request.not_after,
            named=request.point,
        )
        look = functools.partial(integrity.look_at_files, settings, source)
        found = look()
        if request.dry_run:
            return recovery.end_dry_run(run, found.plan, settings)
        found = agreement.agree(found, request, settings, again=look)

        services.stop_services(settings, settings.files.services)
        repair.keep_damaged(found.damages)
        repair.rewrite_damaged(settings, source, found.damages)
        integrity.verify_integrity(settings, read_before=found.others)
        told = side_by_side(
            {
                "start": lambda: services.start_services(settings, settings.files.services),
                "expected": lambda: recovery.expectations(settings, source.facts),
            }
        )
        recovery.prove_recovered(settings, told["expected"])
        recovery.start_what_was_left_stopped(settings)
    return run.record
