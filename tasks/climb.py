"""The ladder of scenario 1: one cure after another, cheapest first, until one holds."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from lifeboat.core import ladder
from lifeboat.core.errors import NothingToDo, PermanentError, PreconditionError, RecoveryError
from lifeboat.core.forms import RecoverDatabase
from lifeboat.core.ladder import DatabaseAssessment, Rung, RungChoice
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset, Facts, RecoveryPoint, Tier, choose_point, passed_over
from lifeboat.core.timeline import Outcome, Phase, RungAttempt
from lifeboat.settings import Settings
from lifeboat.tools import restic
from tasks import catalogue, clock, data_loss, forecast, restore_database, services
from tasks.orchestration import side_by_side, step
from tasks.record import current_run
from tasks.wal import wal_continuity, wal_replay

log = logging.getLogger("lifeboat")


class Chosen(BaseModel):
    """The point of each tier that a rung would restore, and the newer ones that are suspicious."""

    model_config = ConfigDict(frozen=True)

    of: Mapping[Tier, RecoveryPoint]
    reserve: Mapping[Tier, RecoveryPoint] = {}  # older and verified: for when no rung holds
    passed_over: tuple[RecoveryPoint, ...] = ()


class Found(BaseModel):
    """What is wrong with the database, what could cure it, and the plan made of both."""

    model_config = ConfigDict(frozen=True)

    rungs: tuple[RungChoice, ...]
    points: Chosen
    plan: RecoveryPlan


def look(settings: Settings, request: RecoverDatabase) -> Found:
    """Assess the database and plan its recovery; nothing of it is touched.

    Raises PreconditionError if somebody else uses the data, if it is well, or if nothing can help.
    """
    restore_database.refuse_strangers(settings)
    # Where a restore is wanted the blocks change nothing, and to read all of them takes long.
    wanted = request.target_time is not None or request.only_from is not None
    assessment = restore_database.assess_database(settings, read_blocks=not wanted)
    if not request.dry_run:
        restore_database.regain_hot_copy(settings)
    points = choose_points(settings, request)
    rungs = choose_rungs(assessment, points, request)
    plan = plan_climb(settings, assessment, points, rungs, request)
    return Found(rungs=rungs, points=points, plan=plan)


@step(Phase.DECIDE, retries=1)
def choose_points(settings: Settings, request: RecoverDatabase) -> Chosen:
    """The newest fitting trusted point in each tier. Raises PreconditionError if no tier has one.

    The newest, and not the newest that was verified: WAL brings each to the same row, the newer
    one sooner, and a rung that fails leaves the next one to be tried. One from which the WAL does
    not lead there is taken only where there is no other.
    """
    wanted = (request.only_from,) if request.only_from is Tier.S3 else tuple(Tier)
    target = request.target_time
    with restic.listing_once():
        points = catalogue.list_points(
            settings, assets=(Asset.DATABASE,), tiers=wanted, tolerate_failures=True
        )
        # A hole behind the target does not matter.
        left_behind = wal_continuity.bases_left_behind(settings, holes=target is None)
    leading = [point for point in points if point.id not in left_behind]
    chosen: dict[Tier, RecoveryPoint] = {}
    for tier in wanted:
        try:
            chosen[tier] = _choose(leading, points, target, tier)
        except PreconditionError as error:
            log.info("%s", error)
    if not chosen and target:
        choose_point(points, asset=Asset.DATABASE, not_after=target, tiers=wanted)
    reserve = {}
    for tier, point in chosen.items():
        proven = (
            p
            for p in leading
            if tier in p.copies
            and p.verified_in(tier)
            and not p.suspicion
            and p.taken_at < point.taken_at
        )
        if tier is not Tier.HOT and (older := next(proven, None)):
            reserve[tier] = older
    newest = max(chosen.values(), key=lambda point: point.taken_at, default=None)
    over = passed_over(points, newest, not_after=target) if newest else ()
    return Chosen(of=chosen, reserve=reserve, passed_over=over)


def _choose(
    leading: Collection[RecoveryPoint],
    points: Collection[RecoveryPoint],
    target: datetime | None,
    tier: Tier,
) -> RecoveryPoint:
    try:
        return choose_point(leading, asset=Asset.DATABASE, not_after=target, tiers=(tier,))
    except PreconditionError:
        return choose_point(points, asset=Asset.DATABASE, not_after=target, tiers=(tier,))


def choose_rungs(
    assessment: DatabaseAssessment,
    points: Chosen,
    request: RecoverDatabase,
) -> tuple[RungChoice, ...]:
    """Which rungs to try. Raises PreconditionError if the database is well or nothing can help.

    After a recovery that failed or was interrupted a database that is well is no reason to stop:
    the application may be down still, and nothing protects what is written from now on.
    """
    continues = "continues_after" in current_run().record.facts
    wanted = request.target_time is not None or request.only_from is not None
    if assessment.healthy and not wanted and not continues:
        raise NothingToDo(
            "Assessing the database: it runs, answers, and every block of it can be read.",
            hint="Nothing was touched. For a point in time use --to-time; to restore a backup all "
            "the same use --from local or --from s3.",
        )
    rungs = ladder.choose_rungs(
        assessment,
        tiers_with_a_point=points.of.keys(),
        only_from=request.only_from,
        to_time=request.target_time,
        allowed=request.rungs,
    )
    if not any(choice.use for choice in rungs):
        raise PreconditionError(
            "Choosing a cure for the database: there is none. "
            + "; ".join(f"{choice.rung}: {choice.reason}" for choice in rungs),
            hint="Nothing was touched. `lifeboat points` shows what there is.",
        )
    return rungs


def plan_climb(
    settings: Settings,
    assessment: DatabaseAssessment,
    points: Chosen,
    rungs: tuple[RungChoice, ...],
    request: RecoverDatabase,
) -> RecoveryPlan:
    target = request.target_time
    loss = (
        f"everything written after {target.isoformat()}"
        if target
        else "no acknowledged row, if the WAL receiver was running; at most what it lagged"
    )
    used = {c.rung.tier for c in rungs if c.use and c.rung.tier}
    first = next((c.rung.tier for c in rungs if c.use and c.rung.tier), None)
    cheapest = [points.of[first]] if first else []
    return RecoveryPlan(
        procedure="recover-database",
        platform=settings.platform,
        symptoms=assessment.in_words(),
        seen_beside=f"its service is {assessment.service_state}",
        points=tuple({p.id: p for tier, p in points.of.items() if tier in used}.values()),
        passed_over=points.passed_over,
        target=target.isoformat() if target else "the newest row in the WAL",
        expected_loss=loss,
        touches=(f"{settings.database.data_directory} (the damaged one is kept beside it)",),
        steps=tuple(
            f"{choice.rung}: {choice.reason}" + ("" if choice.use else " (passed over)")
            for choice in rungs
        )
        + tuple(
            f"{tier} again, if none of these holds: {points.reserve[tier].id}, the newest verified"
            for tier in points.reserve
            if tier in used
        ),
        made_at=clock.now(),
        # Of the first cure that restores: a restart that holds is quicker still.
        forecast=forecast.of_recovery(settings, "database", cheapest, renamed=first is Tier.HOT),
        objective_rto_seconds=settings.objectives.rto_seconds,
    )


def climb(
    settings: Settings,
    rungs: tuple[RungChoice, ...],
    points: Chosen,
    *,
    to_time: datetime | None,
) -> Facts | None:
    """Try the rungs in order; give the facts of the base that was restored (None for a restart).

    When none holds, the reserve is tried: an older base, known to be good, with more WAL to replay.
    Each attempt is recorded with its reason and seconds. Raises PermanentError with all the
    reasons if none holds.
    """
    run = current_run()
    stop = functools.cache(
        lambda: services.stop_services(settings, services.everything_that_writes(settings))
    )
    tries = [(choice, points.of.get(choice.rung.tier)) for choice in rungs]
    tries += [
        (choice.model_copy(update={"reason": "an older base that was verified"}), reserve)
        for choice in rungs
        if choice.use and (reserve := points.reserve.get(choice.rung.tier))
    ]
    for choice, point in tries:
        if not choice.use:
            run.rung(RungAttempt(rung=choice.rung, outcome=Outcome.SKIPPED, reason=choice.reason))
            continue
        began = time.time()
        try:
            facts = None
            if choice.rung is Rung.RESTART:
                if staged := restore_database.restart_database(settings):
                    facts = staged.facts
                    data_loss.note_database(settings, facts, staged.collected, to_time=None)
                else:
                    data_loss.note(Asset.DATABASE, None, "it was started again with its own data")
            else:
                tier = choice.rung.tier
                assert tier is not None and point is not None
                facts = restore_from(settings, point, tier, to_time=to_time, stop=stop)
        except (RecoveryError, OSError) as error:  # a full or failing disk ends one rung, not all
            log.warning("The rung %s did not hold: %s", choice.rung, error)
            run.rung(
                RungAttempt(
                    rung=choice.rung,
                    outcome=Outcome.FAILED,
                    reason=str(error),
                    seconds=time.time() - began,
                )
            )
            continue
        run.rung(
            RungAttempt(
                rung=choice.rung,
                outcome=Outcome.DONE,
                reason=choice.reason,
                seconds=time.time() - began,
            )
        )
        return facts
    told = "; ".join(f"{r.rung}: {r.reason}" for r in run.record.rungs)
    raise PermanentError(
        f"Recovering the database: no rung of the ladder held. {told}",
        hint="Nothing was removed: the damaged data lies beside the data directory.",
    )


def restore_from(
    settings: Settings,
    point: RecoveryPoint,
    tier: Tier,
    *,
    to_time: datetime | None,
    stop: Callable[[], object] = lambda: None,
) -> Facts:
    """Restore one base copy and replay the WAL; `stop` whatever writes before it takes its place.

    To lose no row, it is stopped before the newest WAL is collected; for a moment in the past, when
    all is there. If it fails before anything was replaced, no data has changed. After that, what
    was put in place is kept aside, as the damaged directory is, so that the next rung can work.
    """
    restore_database.require_movable(settings)
    of_host = (Tier.LOCAL, Tier.S3)
    key = wal_replay.Key(settings, tiers=of_host[::-1] if tier is Tier.S3 else of_host)
    first: dict[str, Callable[[], object]] = {}
    if to_time is None:
        first["stop"] = stop
    if tier is Tier.HOT:
        first["proof"] = lambda: restore_database.prove_hot_copy(settings, point)
    if first and tier is not Tier.S3:  # from where it is read beside the base
        first["key"] = key.ask_ahead
    side_by_side(first)
    incoming = restore_database.bring_base(settings, point, tier, key=key, all_wal=to_time is None)
    try:
        collected = restore_database.collect_wal(
            settings, incoming, to_time=to_time, prefer=tier, key=key
        )
        restore_database.stage_recovery(incoming, collected)
        stop()
        restore_database.move_into_place(settings, incoming)
    except BaseException:
        # Once it is in place there is nothing left to discard.
        restore_database.discard(incoming)
        raise
    try:
        restore_database.replay(settings, collected, tier=tier)
    except (RecoveryError, OSError):
        restore_database.take_away(settings, incoming)
        raise
    current_run().uses_points(point.id, restored_from=tier)
    data_loss.note_database(settings, incoming.facts, collected, to_time=to_time)
    return incoming.facts
