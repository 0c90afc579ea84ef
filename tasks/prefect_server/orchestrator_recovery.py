"""Prefect's database brought back: made beside the one that is there, proven, then swapped."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from lifeboat.core import orchestrator
from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.forms import RecoverOrchestrator
from lifeboat.core.orchestrator import OrchestratorFacts, OrchestratorPoint
from lifeboat.core.plan import RecoveryPlan, age_in_words
from lifeboat.core.points import Tier
from lifeboat.core.timeline import Phase
from lifeboat.settings import Settings
from lifeboat.tools import postgres
from tasks import clock, places
from tasks.orchestration import step
from tasks.prefect_server import orchestrator as vault
from tasks.record import current_run

log = logging.getLogger("lifeboat")


@step(Phase.DECIDE)
def choose(settings: Settings, request: RecoverOrchestrator) -> OrchestratorPoint:
    """The newest whole point, or the one that is named. Raises PreconditionError if none fits."""
    points, unread = vault.readable_points(settings, _tiers(request))
    try:
        return orchestrator.choose(points, named=request.point, tiers=_tiers(request))
    except PreconditionError as error:
        for tier, why in unread.items():
            raise PreconditionError(f"{error.message} {tier} can't be read: {why}") from error
        raise


def _tiers(request: RecoverOrchestrator) -> tuple[Tier, ...]:
    return (request.only_from,) if request.only_from else places.RESTIC_TIERS


@step(Phase.DETECT)
def look(settings: Settings) -> str:
    """What is there now, in words. Raises TransientError if no PostgreSQL answers at all."""
    server = vault.connection(settings)
    try:
        if not postgres.database_exists(server, server.database):
            return f"there is no database {server.database}"
        return f"{server.database} holds {orchestrator.rows_in_words(postgres.count_rows(server))}"
    except RecoveryError as error:
        # Damaged, perhaps: what matters is whether another database can be made beside it.
        postgres.database_names(server)
        return f"{server.database} can't be read ({error.message})"


def plan(settings: Settings, point: OrchestratorPoint, found: str) -> RecoveryPlan:
    """What will be done, for the person who approves."""
    server, now = vault.connection(settings), clock.now()
    age = age_in_words(now - point.taken_at)
    return RecoveryPlan(
        procedure="recover-orchestrator",
        platform=settings.platform,
        symptoms=found,
        points=(),
        target=f"{point.id}, {age} old, in {', '.join(sorted(point.copies))}: {point.runs} flow "
        f"runs, {point.deployments} deployments",
        expected_loss=f"what Prefect was told in the last {age}; the platform's data and the "
        "records of runs in the vault are not touched",
        touches=(f"the database {server.database} at {server.host}:{server.port}",),
        steps=(
            "restore the dump into a new database beside the one that is there",
            "compare every table with what was counted when it was dumped",
            "swap the two by their names; the old one is kept under another name",
        ),
        made_at=now,
    )


@step(Phase.RESTORE)
def restore_beside(
    settings: Settings, point: OrchestratorPoint, request: RecoverOrchestrator
) -> tuple[str, OrchestratorFacts]:
    """Make a new database of the point and prove it; give its name. Nothing is replaced.

    What an interrupted recovery has left half made is removed first.
    """
    server = vault.connection(settings)
    prefix = f"{server.database}_incoming_"
    for left in postgres.drop_databases(server, prefix):
        log.warning("Removed %s, which an interrupted recovery had left half made.", left)
    name = f"{prefix}{clock.now():%Y%m%dt%H%M%S}"
    current_run().about_to("restore beside", database=name, point=point.id)
    with tempfile.TemporaryDirectory(prefix="lifeboat-") as place:
        dump, facts, tier = vault.fetch(settings, point, _tiers(request), Path(place))
        made = postgres.make_database(server, name, dump)
        vault.question(made, facts)
    current_run().uses_points(point.id)
    current_run().fact(restored_from=str(tier), holds=facts.in_words())
    return name, facts


@step(Phase.START)
def swap(settings: Settings, incoming: str, facts: OrchestratorFacts) -> None:
    """Put the proven database in its place; what was there is kept under another name."""
    server = vault.connection(settings)
    aside = f"{server.database}_before_{clock.now():%Y%m%dt%H%M%S}"
    was_there = postgres.database_exists(server, server.database)
    current_run().about_to("swap databases", incoming=incoming, aside=aside)
    postgres.swap_databases(server, incoming=incoming, aside=aside)
    if was_there:
        where = f"{server.host}:{server.port}/{aside}"
        current_run().moved_aside("Prefect's database", Path(where))
    now = postgres.count_rows(server)
    missing = [t for t in orchestrator.TOLD if now.get(t, 0) < facts.rows.get(t, 0)]
    if missing:
        raise RecoveryError(
            f"Looking at {server.database} after the swap: {', '.join(missing)} lack rows.",
            hint=f"The database that was there before is {aside}.",
        )
