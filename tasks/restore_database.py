"""The database on its way back: a base copy renamed into place, the WAL staged inside it, replayed.

Nothing is overwritten. The damaged data directory is moved aside; the base is verified block by
block and the WAL is known to be complete before the place is touched.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import PermanentError, PreconditionError, VerificationFailed
from lifeboat.core.ladder import DatabaseAssessment
from lifeboat.core.points import Facts, RecoveryPoint, Tier
from lifeboat.core.timeline import Phase
from lifeboat.core.wal import format_lsn
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, postgres
from tasks import catalogue, leftovers, places, progress, services
from tasks.database import connection
from tasks.orchestration import side_by_side, step
from tasks.record import current_run
from tasks.services import stack_of
from tasks.wal import wal_receiver, wal_replay

log = logging.getLogger("lifeboat")

INCOMING = places.INCOMING


class Incoming(BaseModel):
    """A base copy beside the data directory, verified, not yet in place."""

    model_config = ConfigDict(frozen=True)

    directory: Path
    facts: Facts
    tier: Tier
    hot_copy: str = ""  # where it was before, if it was the hot copy


class Staged(BaseModel):
    """What a base copy was to become: kept in it until the replay has proven it.

    So that a recovery that finds it, and whose cure is to start it again, knows what to ask of it.
    """

    model_config = ConfigDict(frozen=True)

    facts: Facts
    collected: wal_replay.CollectedWal


@step(Phase.DETECT)
def assess_database(settings: Settings, *, read_blocks: bool = True) -> DatabaseAssessment:
    """Step 1 of scenario 1: the state of the service, its log, and what lies in its directory."""
    stack = stack_of(settings)
    name = settings.database.service
    status = next((s for s in stack.status() if s.name == name), None)
    answers = postgres.answers(connection(settings))
    problems = postgres.cluster_problems(settings.database.data_directory)
    blocks = ""
    if answers and read_blocks:
        try:
            postgres.read_every_block(connection(settings))
        except VerificationFailed as error:
            blocks = str(error)
    found = DatabaseAssessment(
        service_state=status.state if status else "unknown to the stack",
        answers=answers,
        cluster_problems=problems,
        block_problems=blocks,
    )
    log.info("The database: %s.", found.in_words())
    if not answers and status:
        log.info("The end of its log:\n  %s", "\n  ".join(stack.logs(name, 10).splitlines()))
    return found


@step(Phase.DECIDE)
def regain_hot_copy(settings: Settings) -> None:
    """Put the hot copy back that an interrupted recovery had taken and not put in place."""
    leftovers.put_hot_copy_back(settings)


@step(Phase.START)
def restart_database(settings: Settings) -> Staged | None:
    """Step 2 of scenario 1: restart, wait, and prove that every block can be read.

    Give what an interrupted recovery had staged, if it is one's database that was started, and has
    been replayed as far as that one wanted. Raises VerificationFailed if not.
    """
    stack_of(settings).restart([settings.database.service])
    _wait_until_ready(settings, settings.recovery.restart_seconds)
    postgres.read_every_block(connection(settings))
    path = settings.database.data_directory / wal_replay.STAGED
    try:
        staged = Staged.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:  # of another version
        log.warning("What an earlier recovery wanted of the database can't be read: %s", error)
        return None
    if staged.collected.until is not None:
        raise VerificationFailed(
            f"Starting the database again: an interrupted recovery had set it back to "
            f"{staged.collected.until.isoformat()}, and the newest row is wanted.",
            hint="If that moment is right, recover with --to-time.",
        )
    _end_replay(settings, staged.collected)
    return staged


def _wait_until_ready(settings: Settings, seconds: float) -> None:
    postgres.wait_until_ready(
        connection(settings),
        timeout_seconds=seconds,
        why_not=lambda: services.why_not_running(settings, settings.database.service),
    )


@step(Phase.FETCH)
def prove_hot_copy(settings: Settings, point: RecoveryPoint) -> None:
    """Read the hot copy whole, against the checksums that were written with it."""
    base = Path(point.copies[Tier.HOT]) / "base"
    postgres.verify_backup(base, settings.database.bin_directory)


@step(Phase.FETCH)
def bring_base(
    settings: Settings,
    point: RecoveryPoint,
    tier: Tier,
    *,
    key: wal_replay.Key,
    all_wal: bool = False,
) -> Incoming:
    """Put a verified base copy beside the data directory. The hot copy is renamed, not copied; it
    has been proven (`prove_hot_copy`).

    With `all_wal` the WAL that only the bucket has is fetched while a base comes from there.
    What could not be brought to the end is removed: the next base must not find it there.
    """
    told = settings.database
    data = told.data_directory
    data.parent.mkdir(parents=True, exist_ok=True)
    incoming = data.with_name(f"{data.name}{INCOMING}{current_run().id}")
    facts = catalogue.read_facts(settings, point, tier)
    copy = point.copies[tier] if tier is Tier.HOT else ""
    # So that, if we die now, the next run knows whether it may be removed or has to go back.
    current_run().about_to(leftovers.BRINGING, incoming=str(incoming), hot_copy=copy)
    if tier is Tier.HOT:
        filesystem.bring(Path(copy) / "base", incoming)
    else:
        source = facts.directories["base"]
        filesystem.require_free(data.parent, source.bytes, doing=f"Restoring {point.id}")
        if os.path.lexists(incoming):  # what restic would write over may be a hot copy
            raise PermanentError(
                f"Restoring {point.id}: {incoming} is there already.",
                hint="Look at it, rename it, and run this again.",
            )

        def fetch_base() -> None:
            places.repository(settings, point.asset, tier).restore(
                point.copies[tier],
                subfolder=source.path,
                target=incoming,
                overwrite="always",
                timeout_seconds=_time_box(settings, tier),
                on_progress=progress.of_restic(f"database from {tier}"),
            )
            # The proof reads what is in memory, while the disk gets it.
            side_by_side(
                {
                    "proof": lambda: postgres.verify_backup(incoming, told.bin_directory),
                    "disk": lambda: filesystem.sync_tree(incoming),
                }
            )

        work = {"base": fetch_base}
        if all_wal and tier is Tier.S3:
            work["wal"] = lambda: wal_replay.fetch_ahead(settings, facts, base=incoming, key=key)
        try:
            side_by_side(work)
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            wal_replay.forget_ahead(incoming)
            raise
    # Where a cluster lies its owner is right; what the backup says holds where there is none.
    there = data if (data / "PG_VERSION").exists() else incoming / "PG_VERSION"
    filesystem.take_ownership_of(incoming, like=there)
    return Incoming(directory=incoming, facts=facts, tier=tier, hot_copy=copy)


def _time_box(settings: Settings, tier: Tier) -> float:
    return {
        Tier.HOT: settings.recovery.hot_seconds,
        Tier.LOCAL: settings.recovery.local_seconds,
        Tier.S3: settings.recovery.s3_seconds,
    }[tier]


@step(Phase.FETCH)
def collect_wal(
    settings: Settings,
    incoming: Incoming,
    *,
    to_time: datetime | None,
    prefer: Tier,
    key: wal_replay.Key,
) -> wal_replay.CollectedWal:
    """Bring together every WAL segment from the base to the target, and prove there is no hole.

    Raises PreconditionError, naming the first missing segment, before the target is touched.
    """
    return wal_replay.collect(
        settings,
        incoming.facts,
        base=incoming.directory,
        to_time=to_time,
        prefer=prefer,
        key=key,
    )


@step(Phase.RESTORE)
def stage_recovery(incoming: Incoming, collected: wal_replay.CollectedWal) -> None:
    """Put the WAL into the base copy and tell PostgreSQL how far to replay it."""
    postgres.stage_recovery(
        incoming.directory,
        segments=collected.segments,
        histories=collected.histories,
        target_time=collected.until,
        target_timeline=collected.timeline,
        scratch=collected.scratch,
    )
    # The directory is renamed into place next: a segment that a power cut had emptied would end the
    # replay early, and without its signal and settings it would end on the base's own timeline.
    wal = [f"pg_wal/{name}" for name in (*collected.segments, *collected.histories)]
    told = collected.model_copy(update={"segments": {}, "histories": {}})
    note = incoming.directory / wal_replay.STAGED
    note.write_text(Staged(facts=incoming.facts, collected=told).model_dump_json())
    filesystem.take_ownership_of(note.parent, like=incoming.directory)
    for name in (*wal, wal_replay.STAGED, "recovery.signal", "postgresql.auto.conf"):
        filesystem.sync_file(incoming.directory / name)
    for directory in (incoming.directory / "pg_wal", incoming.directory):
        filesystem.sync_directory(directory)
    current_run().fact(wal_segments_staged=len(collected.segments))


@step(Phase.RESTORE)
def move_into_place(settings: Settings, incoming: Incoming) -> None:
    """Rename the damaged directory aside and the base copy into its place."""
    run = current_run()
    data = settings.database.data_directory
    # Where an earlier rung had failed its name is taken.
    aside = filesystem.free_aside(data, label=f"damaged-{run.id}")
    run.about_to("rename the base copy into place", place=str(data), aside=str(aside))
    began = time.perf_counter()
    moved = filesystem.swap_in(incoming.directory, data, aside=aside)
    run.fact(rename_seconds=round(time.perf_counter() - began, 4))
    if moved:
        run.moved_aside(f"the damaged data directory {data}", aside)


@step(Phase.REPLAY)
def replay(settings: Settings, collected: wal_replay.CollectedWal, *, tier: Tier) -> None:
    """Start the database and wait until it has replayed all of the WAL and takes writes.

    Raises VerificationFailed if it stopped short of what was staged.
    """
    stack_of(settings).up([settings.database.service])
    _wait_until_ready(settings, _time_box(settings, tier))
    _end_replay(settings, collected)
    wal_replay.discard(collected)


def _end_replay(settings: Settings, collected: wal_replay.CollectedWal) -> None:
    """Raise VerificationFailed if the server stopped short; else leave it like any other."""
    reached = postgres.recovered_to(settings.database.data_directory)
    if collected.must_reach_lsn and reached.lsn < collected.must_reach_lsn:
        raise VerificationFailed(
            f"Replaying the WAL: it ended at {format_lsn(reached.lsn)}, but the WAL that was "
            f"staged goes to {format_lsn(collected.must_reach_lsn)}.",
            hint="A segment is damaged. A base from S3 takes its WAL from there.",
        )
    postgres.finish_recovery(settings.database.data_directory)
    (settings.database.data_directory / wal_replay.STAGED).unlink(missing_ok=True)
    current_run().fact(recovered_to_lsn=format_lsn(reached.lsn), timeline=reached.timeline)


@step(Phase.START, retries=1)
def rearm_wal(settings: Settings) -> None:
    """Make the slot again and start the receiver, so that the recovered database is protected.

    Before the application starts, and not beside it: with synchronous WAL its commits wait for the
    receiver; and of a recovery that dies in between, what was written meanwhile is in no vault, so
    that older bases lead to the newest row no more.
    """
    wal_receiver.rearm(settings)


def require_movable(settings: Settings) -> None:
    """Raise PreconditionError if nothing could be put in the data directory's place."""
    data = settings.database.data_directory
    filesystem.refuse_unmovable(data, doing=f"Looking whether {data} can be replaced")


def discard(incoming: Incoming) -> None:
    """Before anything was replaced: give the hot copy back, or remove what was restored."""
    shutil.rmtree(incoming.directory.with_name(f"{incoming.directory.name}.wal"), True)
    if not incoming.directory.exists():
        return
    # Where the vault is on another disk it was copied, and is still there.
    if incoming.hot_copy and not (Path(incoming.hot_copy) / "base").exists():
        filesystem.bring(incoming.directory, Path(incoming.hot_copy) / "base")
    else:
        shutil.rmtree(incoming.directory)


@step(Phase.RESTORE)
def take_away(settings: Settings, incoming: Incoming) -> None:
    """After a rung failed in the end: stop the database and keep what it had put in place aside."""
    data = settings.database.data_directory
    stack_of(settings).stop([settings.database.service])
    if data.exists():
        run = current_run()
        aside = filesystem.free_aside(data, label=f"failed-{incoming.tier}-{run.id}")
        data.rename(aside)
        run.moved_aside(f"what the rung {incoming.tier} had put in place", aside)


def refuse_strangers(settings: Settings) -> None:
    """Raise PreconditionError if a container that is not ours could write to the data directory."""
    data = settings.database.data_directory
    strangers = stack_of(settings).strangers_at(data)
    if strangers:
        raise PreconditionError(
            f"Looking who else uses {data}: {', '.join(strangers)}.",
            hint="Nothing was touched. Stop it first: what it writes would be lost, or worse.",
        )


def refuse_running_stranger(settings: Settings) -> None:
    """Raise PreconditionError if something else than our service answers at the database's port."""
    if services.why_not_running(settings, settings.database.service) is None:
        return
    if postgres.answers(connection(settings)):
        raise PreconditionError(
            f"Checking port {settings.database.port}: a database answers there, but not our "
            f"service {settings.database.service}.",
            hint="Find out which server it is before you recover.",
        )
