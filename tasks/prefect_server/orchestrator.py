"""Prefect's own database in the vault: dumped, counted, stored in both tiers, proven, let go.

A dump and not a base copy with its WAL: the history is small, an hour of it may be lost, and a dump
needs neither replication nor the server's files, and goes into any PostgreSQL of the same or a
newer version, beside what is there. It has a restic repository of its own, so that it fails apart.
"""

from __future__ import annotations

import functools
import logging
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from lifeboat.core import orchestrator
from lifeboat.core.alarms import Finding, failed, passed, unknown
from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError
from lifeboat.core.orchestrator import (
    ASSET,
    DUMP_NAME,
    HISTORY,
    OrchestratorFacts,
    OrchestratorPoint,
)
from lifeboat.core.points import FACTS_NAME, Tier
from lifeboat.core.survey import Cause, Unseen
from lifeboat.settings import Settings
from lifeboat.tools import postgres, restic
from tasks import clock, marks, places
from tasks.looking import seen
from tasks.orchestration import side_by_side, step
from tasks.record import current_run

log = logging.getLogger("lifeboat")

PASSWORD = "LIFEBOAT_ORCHESTRATOR_PASSWORD"
_START_SECONDS = 60.0


def connection(settings: Settings) -> postgres.Connection:
    """How Prefect's database is reached. Raises SettingsError or PreconditionError if it is not
    known.
    """
    told = settings.orchestrator
    if told is None:
        raise PreconditionError(
            "Looking for Prefect's database: lifeboat.yaml has no section `orchestrator`.",
            hint="Add it (docs/orchestrator.md). Nothing was touched.",
        )
    return postgres.Connection(
        host=told.host,
        port=told.port,
        user=told.user,
        password=settings.secret(PASSWORD),
        database=told.name,
        bin_directory=told.bin_directory or settings.database.bin_directory,
    )


# --- the points -----------------------------------------------------------------------------


def list_points(
    settings: Settings, *, tiers: Collection[Tier] = places.RESTIC_TIERS
) -> tuple[OrchestratorPoint, ...]:
    """What the vault holds of Prefect's database, newest first; where no repository is, nothing.

    A tier that can't be read raises.
    """
    verified = marks.verified_points(settings, in_bucket=Tier.S3 in tiers)
    found = side_by_side({str(tier): functools.partial(_in_tier, settings, tier) for tier in tiers})
    points = orchestrator.merged(point for of_tier in found.values() for point in of_tier)
    when = {name: mark.verified_at for name, mark in verified.items()}
    return tuple(p.model_copy(update={"verified_at": when.get(p.id)}) for p in points)


def readable_points(
    settings: Settings, tiers: Collection[Tier]
) -> tuple[tuple[OrchestratorPoint, ...], dict[Tier, str]]:
    """Like `list_points`, and why which tier can't be read: the other one is enough."""
    found, unread = [], {}
    for tier in tiers:
        try:
            found += list_points(settings, tiers=(tier,))
        except RecoveryError as error:
            unread[tier] = error.message
            log.warning("Prefect's database in %s can't be listed: %s", tier, error)
    return orchestrator.merged(found), unread


def _in_tier(settings: Settings, tier: Tier) -> list[OrchestratorPoint]:
    try:
        snapshots = places.repository(settings, ASSET, tier).snapshots(tags={"asset": ASSET})
    except restic.NoRepository:
        return []
    return [
        OrchestratorPoint(
            id=snapshot.tags["point"],
            taken_at=snapshot.taken_at,
            copies={tier: snapshot.id},
            runs=int(snapshot.tags["runs"]),
            deployments=int(snapshot.tags["deployments"]),
        )
        for snapshot in snapshots
    ]


# --- into the vault -------------------------------------------------------------------------


@contextmanager
def _dump_directory(settings: Settings) -> Iterator[Path]:
    # Always the same, so that restic compares with the dump before.
    directory = settings.vault.local / ASSET / "dump"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@step(retries=1)
def back_up(settings: Settings) -> OrchestratorFacts:
    """Dump Prefect's database, with its rows counted in the same moment, into both tiers.

    If one tier fails this raises, and the other's copy counts. Raises PreconditionError if there is
    no flow run table: another database's dump must not become a point.
    """
    server = connection(settings)
    taken_at = clock.now().replace(microsecond=0)
    with _dump_directory(settings) as directory:
        dumped = postgres.dump_database(server, directory / DUMP_NAME)
        if HISTORY not in dumped.rows:
            raise PreconditionError(
                f"Backing up Prefect's database: {server.database} has no table {HISTORY}.",
                hint="Look at orchestrator.name in lifeboat.yaml; `prefect server start` makes its "
                "tables.",
            )
        facts = OrchestratorFacts(
            point=orchestrator.point_id(taken_at),
            platform=settings.platform,
            host=socket.gethostname(),
            taken_at=taken_at,
            database=server.database,
            server_version=dumped.server_version,
            rows=dumped.rows,
        )
        (directory / FACTS_NAME).write_text(facts.model_dump_json(indent=2))
        side_by_side(
            {
                str(tier): functools.partial(_store, settings, tier, facts, directory)
                for tier in places.RESTIC_TIERS
            }
        )
    current_run().uses_points(facts.point)
    log.info("Prefect's database is in the vault as %s: %s.", facts.point, facts.in_words())
    why = orchestrator.emptied(list_points(settings, tiers=(Tier.LOCAL,))).get(facts.point)
    if why:
        log.warning(
            "%s is not offered as the newest: it holds %s. A server that began anew has no "
            "history; `lifeboat recover orchestrator` brings it back.",
            *(facts.point, why),
        )
    return facts


def _store(settings: Settings, tier: Tier, facts: OrchestratorFacts, directory: Path) -> None:
    store = places.repository(settings, ASSET, tier)
    tags = {
        "asset": ASSET,
        "point": facts.point,
        "platform": facts.platform,
        "runs": str(facts.rows.get(HISTORY, 0)),
        "deployments": str(facts.rows.get(orchestrator.DEPLOYMENTS, 0)),
    }
    put = functools.partial(
        store.backup,
        [Path(directory.name)],
        tags=tags,
        cwd=directory.parent,
        taken_at=facts.taken_at,
    )
    try:
        put()
    except restic.NoRepository:
        store.initialise()
        put()


@step(retries=1)
def let_go(settings: Settings) -> int:
    """Remove the points that retention lets go, in each tier; say how many."""
    days = {Tier.LOCAL: settings.retention.local_days, Tier.S3: settings.retention.s3_days}
    removed = 0
    for tier in places.RESTIC_TIERS:
        points = list_points(settings, tiers=(tier,))
        gone = orchestrator.to_remove(
            points, days=days[tier], minimum=settings.retention.minimum, now=clock.now()
        )
        if gone:
            store = places.repository(settings, ASSET, tier)
            store.forget([point.copies[tier] for point in gone])
            store.prune()
        removed += len(gone)
    return removed


# --- out of the vault -----------------------------------------------------------------------


def fetch(
    settings: Settings, point: OrchestratorPoint, tiers: Collection[Tier], into: Path
) -> tuple[Path, OrchestratorFacts, Tier]:
    """Bring dump and facts out of the first of `tiers` that gives them whole."""
    reasons = []
    for tier in tiers:
        if tier not in point.copies:
            continue
        target = into / str(tier)
        try:
            places.repository(settings, ASSET, tier).restore(
                point.copies[tier], subfolder="/dump", target=target, overwrite="always"
            )
            facts = OrchestratorFacts.model_validate_json((target / FACTS_NAME).read_bytes())
            return target / DUMP_NAME, facts, tier
        except (RecoveryError, OSError, ValueError) as error:
            reasons.append(f"{tier}: {error}")
            log.warning("%s can't be read from %s: %s", point.id, tier, error)
    raise PermanentError(
        f"Reading {point.id}: no tier gives it ({'; '.join(reasons) or 'none has it'}).",
        hint="Choose another point with --point.",
    )


@step()
def prove(settings: Settings, place: Path) -> OrchestratorPoint | None:
    """Restore the newest point of S3 into a scratch PostgreSQL, question it, mark it verified.

    Gives None where lifeboat.yaml has no orchestrator. Raises VerificationFailed if a single row is
    missing, an index does not fit its table, or a run belongs to a deployment that is not there.
    """
    if settings.orchestrator is None:
        return None
    point = orchestrator.choose(list_points(settings, tiers=(Tier.S3,)), tiers=(Tier.S3,))
    began = time.monotonic()
    root = place / ASSET
    dump, facts, _ = fetch(settings, point, (Tier.S3,), root)
    told = settings.orchestrator
    programs = told.bin_directory or settings.database.bin_directory
    cluster = root / "cluster"
    postgres.make_cluster(cluster, programs, user="postgres")
    with postgres.scratch_server(
        cluster,
        database="postgres",
        user="postgres",
        bin_directory=programs,
        log_path=root / "scratch.log",
        timeout_seconds=_START_SECONDS,
    ) as server:
        made = postgres.make_database(server, "proof", dump)
        question(made, facts)
        postgres.check_everything(made, timeout_seconds=600)
    seconds = time.monotonic() - began
    run = current_run()
    marks.mark_verified(settings, [point.id], by=run.id, tier=Tier.S3, restore_seconds=seconds)
    run.uses_points(point.id)
    log.info("%s is proven: %s, in %.1f s.", point.id, facts.in_words(), seconds)
    return point


def question(server: postgres.Connection, facts: OrchestratorFacts) -> None:
    """Raise VerificationFailed unless a restored database is whole, and what was dumped."""
    postgres.require_rows(server, facts.rows)
    postgres.check_references(server, timeout_seconds=600)


# --- how fresh it is ------------------------------------------------------------------------


def findings(settings: Settings) -> tuple[Finding, ...]:
    """`orchestrator-<tier>`, `orchestrator-verified`: whether the history could be brought back."""
    if settings.orchestrator is None:
        return ()
    told = settings.orchestrator
    late = told.every_seconds * settings.watch.late_factor
    advice = "Run `lifeboat backup orchestrator`, and look at its last run's log."
    found = []
    verified: list[OrchestratorPoint] = []
    for tier in places.RESTIC_TIERS:
        name = f"orchestrator-{tier}"
        points = seen(lambda tier=tier: list_points(settings, tiers=(tier,)))
        if isinstance(points, Unseen):
            bad = points.cause is not Cause.UNREACHABLE
            found.append(failed(name, points.why, advice) if bad else unknown(name, points.why))
            continue
        verified += [point for point in points if point.verified_at]
        evidence, problem = orchestrator.age_problem(points, late_seconds=late, now=clock.now())
        found.append(failed(name, problem, advice) if problem else passed(name, evidence))
    name = "orchestrator-verified"
    newest = max((p.verified_at for p in verified if p.verified_at), default=None)
    if newest is None:
        found.append(failed(name, "no point was ever proven", "Run `lifeboat test-restore`."))
    elif clock.now() - newest > timedelta(days=settings.watch.verified_days):
        found.append(failed(name, f"last at {newest:%Y-%m-%d %H:%M} UTC", "Run it again."))
    else:
        found.append(passed(name, f"last at {newest:%Y-%m-%d %H:%M} UTC"))
    return tuple(found)
