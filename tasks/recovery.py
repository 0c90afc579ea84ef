"""What every recovery has around it: the lock, the journal, the verdict, the evidence."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from lifeboat.core.checks import Verdict
from lifeboat.core.errors import RecoveryError, VerificationFailed
from lifeboat.core.forms import RecoverServer
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset, Facts, Tier
from lifeboat.core.timeline import Outcome, Phase
from lifeboat.settings import Settings
from lifeboat.tools import restic
from tasks import (
    artifacts,
    backup,
    catalogue,
    journals,
    locks,
    marks,
    places,
    provision,
    services,
    vault,
    verification,
)
from tasks.journals import Fate, Journal
from tasks.orchestration import is_alone, step
from tasks.people import followups, incident_log, incident_report, previews, status_page
from tasks.record import Run, current_run, recorded

log = logging.getLogger("lifeboat")

incident_report.follow_incidents()
status_page.follow_incidents()


@contextmanager
def recovery(settings: Settings, procedure: str) -> Iterator[Run]:
    """Hold the platform for one recovery and leave a record of it, whatever happens.

    Raises LockBusy, with nothing touched, if another recovery is running.
    """
    directory = places.runs_directory(settings)
    with (
        restic.at_any_age(),
        incident_log.accompanied(),
        locks.recovery_lock(settings, run=procedure),
        recorded(procedure, platform=settings.platform, directory=directory) as run,
        artifacts.shown(run, settings),
    ):
        incident_log.follow(run, settings)
        _note_circumstances(settings, run)
        yield run


@contextmanager
def recovery_of_orchestrator(settings: Settings) -> Iterator[Run]:
    """Hold Prefect's database, which is no part of the platform, and leave a record.

    The platform's own recovery may run at the same time, so neither waits for the other.
    """
    name = "recover-orchestrator"
    directory = places.runs_directory(settings)
    with (
        restic.at_any_age(),
        locks.orchestrator_lock(settings, run=name),
        recorded(name, platform=settings.platform, directory=directory) as run,
        artifacts.shown(run, settings),
    ):
        run.when_finished(functools.partial(vault.publish_record, settings))
        run.fact(orchestrator="none" if is_alone() else "prefect")
        yield run


@contextmanager
def recovery_of_a_lost_server(request: RecoverServer) -> Iterator[Run]:
    """Record a recovery that begins with nothing: no settings, and no place to write to yet."""
    with (
        incident_log.accompanied(),
        recorded("recover-server", platform=request.platform, directory=None) as run,
        artifacts.shown(run),
    ):
        incident_log.follow(run)
        if request.report:
            provision.report_to_bucket(request, run)
        yield run


@contextmanager
def hold_platform(settings: Settings, run: Run, *, publish: bool = True) -> Iterator[None]:
    """Hold the new host for the recovery, once there is a place for the lock.

    Without `publish` the record stays on this host.
    """
    with locks.recovery_lock(settings, run="recover-server"):
        _note_circumstances(settings, run, publish=publish)
        if publish:  # a rehearsal is no incident
            incident_log.belongs_to(settings)
        yield


def _note_circumstances(settings: Settings, run: Run, *, publish: bool = True) -> None:
    if publish:
        run.when_finished(functools.partial(vault.publish_record, settings))
        run.when_finished(functools.partial(followups.open_after, settings))
    run.fact(
        wal=settings.database.wal,
        objective_rto_seconds=settings.objectives.rto_seconds,
        objective_rpo_seconds=settings.objectives.rpo_seconds,
        orchestrator="none" if is_alone() else "prefect",
    )
    _tell_of_interrupted_runs(settings)


def _tell_of_interrupted_runs(settings: Settings) -> None:
    runs = places.runs_directory(settings)
    if failed := journals.failed_before(runs, current_run().record.procedure):
        log.warning("An earlier %s (%s) failed: %s", failed.procedure, failed.id, failed.error)
        current_run().fact(continues_after=failed.id)
    for journal in journals.unfinished(runs):
        fate, earlier = journal.fate(), journal.record()
        if fate is Fate.ALIVE or not earlier.procedure.startswith("recover"):
            continue
        log.warning(
            "An earlier %s (%s) was interrupted; %s.", earlier.procedure, earlier.id, earlier.error
        )
        for moved in earlier.moved_aside:
            log.warning("  It had moved aside: %s, now %s", moved.what, moved.where)
        current_run().fact(continues_after=earlier.id)
        if fate is Fate.INTERRUPTED:
            current_run().when_finished(functools.partial(_told_enough, journal))


def _told_enough(journal: Journal, run: Run) -> None:
    """After a recovery that is done, an interrupted one before it is no news any more."""
    if run.record.outcome is Outcome.DONE and not run.record.facts.get("dry_run"):
        journal.close(by=run.id)


def end_dry_run(run: Run, plan: RecoveryPlan, settings: Settings | None = None) -> RecoveryPlan:
    """Show the plan, with what people would be told, and stop."""
    run.uses_points(*(point.id for point in plan.points))
    run.fact(dry_run=True)
    artifacts.show_plan(plan)
    log.info("The plan (a dry run: nothing is touched):\n%s", plan.in_words())
    if settings and (told := previews.preview_of_plan(settings, plan)):
        log.info("What people would be told:\n%s", told)
    return plan


@step(Phase.VERIFY, retries=1)
def expectations(settings: Settings, restored: Facts | None = None) -> dict[Asset, Facts]:
    """What a whole platform holds: the facts of the newest point of each asset.

    `restored` is the point that was restored: a newer one would ask for what came after the moment
    that was wanted, or for the damage that it holds. Read from this host where it can be, and else
    from S3.
    """
    here = catalogue.newest_facts(settings, tiers=(Tier.HOT, Tier.LOCAL))
    if any(asset not in here for asset in Asset):
        here = catalogue.newest_facts(settings, tiers=(Tier.S3,)) | here
    return here | ({restored.asset: restored} if restored else {})


@step(Phase.VERIFY)
def verify(settings: Settings, expected: Mapping[Asset, Facts]) -> Verdict:
    """Run the plan's verification checklist; every check gives its evidence."""
    verdict = verification.verify_platform(settings, services.stack_of(settings), expected)
    current_run().verdict(verdict)
    return verdict


def prove_recovered(
    settings: Settings, expected: Mapping[Asset, Facts], *, mark: bool = True
) -> Verdict:
    """Verify, and raise VerificationFailed unless all checks passed: green means recovered.

    The points that were restored count as verified from then on, in S3 only those that came from
    there; not without `mark`.
    """
    verdict = verify(settings, expected)
    if not verdict.good:
        raise VerificationFailed(
            f"Verifying the recovery: {verdict.in_words()}",
            hint="The platform is up as far as it came; damaged data was kept aside (see above). "
            "Backups and what was deferred stay stopped until `lifeboat verify` has passed.",
        )
    if mark:
        run = current_run()
        for point, tier in run.restored.items():
            marks.mark_verified(settings, [point], by=run.id, tier=tier)
    return verdict


def start_what_was_left_stopped(
    settings: Settings, *, holding: AbstractContextManager[None] | None = None
) -> None:
    """All checks have passed: start what a recovery that failed or died has left stopped.

    `holding` keeps other recoveries away meanwhile; not while an image is pulled. Nothing is done
    where a recovery was only rehearsed. Never raises: what has passed has passed.
    """
    runs = places.runs_directory(settings)
    by = journals.left_stopped_by(runs)
    if not by or backup.has_only_rehearsed(settings):
        return
    log.info("%s did not end well; what it had left stopped is started.", ", ".join(by))
    try:
        with holding or nullcontext():
            services.start_services(settings, settings.stack.backup_services)
    except RecoveryError as error:
        log.error("Backups do not go on: %s", error)
        current_run().fact(backups_down=error.message)
        return
    services.start_deferred(settings)
    for journal in journals.unfinished(runs):
        if journal.run in by:
            journal.close(by=current_run().id)


def outcome_in_words(run: Run) -> str:
    record = run.record
    if record.outcome is Outcome.DONE:
        return f"{record.procedure} done in {record.seconds:.1f} s"
    return f"{record.procedure} failed after {record.seconds:.1f} s: {record.error}"
