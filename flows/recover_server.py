from __future__ import annotations

from lifeboat.core.forms import RecoverServer
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.timeline import RunRecord
from tasks import approval, rebuild, recovery, restore_database, services
from tasks.orchestration import procedure, side_by_side


@procedure("recover-server")
def recover_server(request: RecoverServer) -> RunRecord | RecoveryPlan:
    """Scenario 2 of the plan: the whole server is lost; this machine takes its place.

    Before you start: the bucket, its key and the vault's password; restic, git, what runs the
    services (Docker), and PostgreSQL's programs unless they come out of an image; an empty
    directory.

    1. Read the settings and the recovery points from the bucket; look whether this machine has what
       it takes: engine, disk, and nobody else's data in the places of ours.
    2. Show the plan and wait for approval.
    3. Clone the application's code, and restore the configuration.
    4. Prepare the critical services: images are built or pulled.
    5. Restore database, files and models side by side; replay the WAL that reached the bucket. The
       base copy is that of the newest complete verified set, for WAL brings any base to the newest
       row. Files and models are the newest, for what came by WAL refers to them. What turns out to
       be damaged is replaced by the next best, which the plan and the record name.
    6. Protect the recovered database: slot and WAL receiver.
    7. Compare files and models with their digests, and start the critical services.
    8. Verify the platform.
    9. Let backups go on, and start what was deferred. What of that does not start is told, and
       undoes nothing.

    A rehearsal is the same without backups: the bucket is read and never written to.

    What it changes: only the directory that was named; the vault is not written to before all
    checks have passed.
    If it fails: run it again with the same directory; what runs there is stopped, what was restored
    is compared, not fetched twice, and what differs by then is kept aside.
    Evidence: the record, in the new host's vault and in the bucket.
    """
    with recovery.recovery_of_a_lost_server(request) as run:
        found = rebuild.read_vault(request)
        settings = found.settings
        plan = rebuild.plan_rebuild(found, request)
        if request.dry_run:
            return recovery.end_dry_run(run, plan, settings)
        approval.approve(plan, request, settings)

        again = rebuild.take_place(found, rehearsal=request.rehearsal)
        with recovery.hold_platform(settings, run, publish=not request.rehearsal):
            rebuild.restore_code(found)
            # After the code: where both lie in one directory, the server's own files hold.
            rebuild.restore_configuration(found)
            if again:
                everything = services.everything_that_writes(settings)
                services.stop_services(settings, everything)
            rebuild.prepare_stack(found)
            restored = rebuild.restore_data(found, again=again)
            restore_database.rearm_wal(settings)
            side_by_side(
                {
                    "prove": lambda: rebuild.prove_data(found, restored),
                    "start": lambda: services.start_services(
                        settings, services.services_to_prove(settings)
                    ),
                }
            )
            recovery.prove_recovered(
                settings, rebuild.expectations(found, restored), mark=not request.rehearsal
            )
            if not request.rehearsal:
                rebuild.release(found)
                services.start_services(settings, settings.stack.backup_services)
            services.start_deferred(settings)
    return run.record
