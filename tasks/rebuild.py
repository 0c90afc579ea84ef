"""A lost server on a new machine: settings out of the bucket, code, configuration, then the data.

Nothing of the old host is needed but the bucket, its key and the vault's password.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import (
    PermanentError,
    PreconditionError,
    RecoveryError,
    TransientError,
)
from lifeboat.core.forms import RecoverServer
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import (
    Asset,
    Facts,
    RecoveryPoint,
    Tier,
    choose_point,
    passed_over,
)
from lifeboat.core.secrecy import without_credentials
from lifeboat.core.sets import Candidate, candidates
from lifeboat.core.timeline import Outcome, Phase, RungAttempt
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, git
from tasks import (
    artifacts,
    backup,
    catalogue,
    climb,
    clock,
    forecast,
    integrity,
    locks,
    new_host,
    places,
    programs,
    repair,
    services,
    settings_in_vault,
    vault,
)
from tasks.orchestration import side_by_side, step
from tasks.record import current_run
from tasks.repair import Source
from tasks.wal import wal_continuity

log = logging.getLogger("lifeboat")


class Rebuild(BaseModel):
    """What was found in the bucket, and what of it will be restored."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    into: Path
    old_root: Path  # directory of lifeboat.yaml on the lost host
    configuration: Source
    candidates: Mapping[Asset, tuple[Candidate, ...]]  # of database, files and models, best first
    passed_over: tuple[RecoveryPoint, ...] = ()  # suspicious ones that are newer
    commit: str | None = None  # of the application's code, that the lost server ran last

    def new_place(self, old: str) -> Path:
        """Where a path of the lost host lies on this one; outside of its directory it stays."""
        path = Path(old)
        if path.is_relative_to(self.old_root):
            return self.into / path.relative_to(self.old_root)
        return path


class Restored(BaseModel):
    """What was restored in the end."""

    model_config = ConfigDict(frozen=True)

    base: Facts
    sources: Mapping[Asset, Source]  # of files and models


@step(Phase.DECIDE, retries=2)
def read_vault(request: RecoverServer) -> Rebuild:
    """Read the platform's settings and newest recovery points from the bucket alone.

    Raises PreconditionError, with nothing touched, if the bucket holds another platform, lacks an
    asset, or this machine is not one that can take the server's place (tasks.new_host).
    """
    where = settings_in_vault.place(
        bucket=request.bucket,
        endpoint=request.endpoint,
        region=request.region,
        prefix=request.prefix,
    )
    found = settings_in_vault.read(where, into=Path(request.into), trust=request.trust)
    settings = found.settings
    artifacts.belongs_to(settings)
    if request.platform and request.platform != settings.platform:
        raise PreconditionError(
            f"Reading bucket {request.bucket}: it holds the platform {settings.platform!r}, not "
            f"{request.platform!r}.",
            hint="Nothing was touched. Look at --bucket, --prefix and --approve.",
        )
    new_host.require_programs(settings)
    begun = (Path(request.into) / backup.RECOVERING_NAME).exists()
    if not begun:
        new_host.require_empty(settings)
    told = side_by_side(
        {
            "points": lambda: catalogue.list_points(
                settings, tiers=(Tier.S3,), also_accepted=request.trust
            ),
            "left behind": lambda: wal_continuity.bases_left_behind(settings, (Tier.S3,)),
        }
    )
    points, left_behind = told["points"], told["left behind"]
    newest = {
        asset: choose_point(points, asset=asset, tiers=(Tier.S3,))
        for asset in (Asset.DATABASE, Asset.FILES, Asset.MODELS)
    }
    new_host.require_room(settings, {asset: point.bytes for asset, point in newest.items()})
    return Rebuild(
        settings=settings,
        into=Path(request.into),
        old_root=found.old_root,
        configuration=found.source,
        candidates={
            asset: candidates(points, asset, Tier.S3, left_behind=left_behind) for asset in newest
        },
        passed_over=(
            *(over for point in newest.values() for over in passed_over(points, point)),
            *found.source.passed_over,
        ),
        commit=_commit_that_ran(settings, newest[Asset.FILES]) or found.source.facts.git_commit,
    )


def _commit_that_ran(settings: Settings, files: RecoveryPoint) -> str | None:
    """From the files' newest point: the configuration is backed up only when it changes."""
    try:
        return catalogue.read_facts(settings, files, Tier.S3).git_commit
    except RecoveryError:
        return None  # its damage is told when it is restored


def plan_rebuild(found: Rebuild, request: RecoverServer) -> RecoveryPlan:
    settings = found.settings
    first = {asset: tried[0] for asset, tried in found.candidates.items()}
    code = settings.code
    points = (*(choice.point for choice in first.values()), found.configuration.point)
    ran = f" (the lost server ran {found.commit[:12]})" if found.commit else ""
    address = without_credentials(code.repository) if code else ""
    clone = f"clone {address}, branch {code.branch}{ran}; " if code else ""
    return RecoveryPlan(
        procedure="recover-server",
        platform=settings.platform,
        symptoms="the server is lost; this machine takes its place",
        points=points,
        passed_over=found.passed_over,
        target="the newest that the bucket holds",
        expected_loss="what was written after the last WAL that reached the bucket, and files "
        "newer than the last backup of the files",
        touches=(str(found.into),),
        steps=(
            f"{clone}restore the configuration",
            *(_choice_in_words(asset, tried) for asset, tried in found.candidates.items()),
            f"start {', '.join(settings.stack.critical_services)}",
            "verify the platform",
            f"start {', '.join(settings.stack.deferred_services) or 'nothing'} (deferred)",
        ),
        made_at=clock.now(),
        forecast=forecast.of_recovery(settings, "server", points),
        objective_rto_seconds=settings.objectives.rto_seconds,
    )


def _choice_in_words(asset: Asset, tried: tuple[Candidate, ...]) -> str:
    first, *others = tried
    told = f"side by side: restore {asset} from {first.point.id} ({first.reason})"
    if others:
        told += f"; if it is damaged, from {others[0].point.id} ({others[0].reason})"
    return told + ("; replay the WAL" if asset is Asset.DATABASE else "")


@step(Phase.DECIDE)
def take_place(found: Rebuild, *, rehearsal: bool = False) -> bool:
    """Make `into` ours: it must be empty, or hold what an earlier recovery of ours left; say which.

    Until the verification has passed this host may not write to the vault, after a rehearsal never.
    """
    into, run = found.into, current_run()
    marker = into / backup.RECOVERING_NAME
    again = marker.exists()
    if into.exists() and any(into.iterdir()) and not again:
        raise PreconditionError(
            f"Recovering into {into}: it is not empty.",
            hint="Nothing was touched. Name an empty directory with --into, or move it aside.",
        )
    if again:
        # Before anything is written: what is marked here is believed by the one that is at work.
        with locks.recovery_lock(found.settings, run="recover-server"):
            pass
    into.mkdir(parents=True, exist_ok=True)
    told = {"platform": found.settings.platform, "run": run.id}
    filesystem.atomic_write(marker, json.dumps(told).encode())
    local = found.settings.vault.local
    local.mkdir(parents=True, exist_ok=True, mode=0o700)
    filesystem.atomic_write(local / backup.UNPROVEN_NAME, f"by {run.id}".encode())
    if rehearsal:
        filesystem.atomic_write(local / backup.REHEARSED_NAME, f"by {run.id}".encode())
        run.fact(rehearsal=True)
    else:
        (local / backup.REHEARSED_NAME).unlink(missing_ok=True)
    run.keep_in(places.runs_directory(found.settings))
    return again


@step(Phase.FETCH, retries=2)
def restore_code(found: Rebuild) -> None:
    """Clone the branch that is deployed. What an interrupted recovery cloned is kept."""
    code = found.settings.code
    if code is None:
        log.warning("No `code` in lifeboat.yaml: the application's code must be there already.")
        return
    if git.head_commit(code.directory) is None:
        git.clone(code.repository, branch=code.branch, into=code.directory)
    here, before = git.head_commit(code.directory) or "?", found.commit
    current_run().fact(git_commit=here)
    if before and before != here:
        current_run().fact(git_commit_of_lost_server=before)
        log.warning(
            "The code is %s, the head of %s; the lost server ran %s. If the platform does not "
            "come up: check that one out in %s, and run this again.",
            *(here[:12], code.branch, before[:12], code.directory),
        )


@step(Phase.FETCH, retries=2)
def restore_configuration(found: Rebuild) -> None:
    """Put settings, environment files, certificates and service configuration in their places.

    Where an earlier recovery has begun here, what people have corrected since is kept aside.
    """
    source = found.configuration
    store = places.repository(found.settings, Asset.CONFIG, Tier.S3)

    def restore(path: str) -> None:
        target = found.new_place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            damage = store.find_damage(source.snapshot, subfolder=path, target=target)
            for name in (*damage.truncated, *damage.altered):
                _keep_configuration(found, (target if target.is_dir() else target.parent) / name)
        store.restore(source.snapshot, subfolder=path, target=target, overwrite="always")

    # Side by side: most of each is opening the repository.
    paths = [told.path for told in source.facts.directories.values()]
    side_by_side({path: functools.partial(restore, path) for path in paths})


def _keep_configuration(found: Rebuild, path: Path) -> None:
    """In a directory of its own: a copy beside it might be read, as all of `sites-enabled` is."""
    run = current_run()
    top = found.into / f"configuration.damaged-{run.id}"
    inside = path.is_relative_to(found.into)
    kept = top / (path.relative_to(found.into) if inside else path.relative_to("/"))
    if not kept.exists():  # else an attempt before has kept what was there first
        top.mkdir(exist_ok=True, mode=0o700)
        filesystem.put_file(path, kept)
        run.moved_aside(f"the configuration {path}", kept)


def prepare_stack(found: Rebuild) -> None:
    """With code and configuration there: images, empty volumes, and the database's programs.

    Raises PreconditionError, with no data touched, if the Compose file can't be read or lacks a
    service of lifeboat.yaml, or a stranger uses one of the volumes; PermanentError if an image can
    be had neither by building nor by pulling.
    """
    new_host.require_services(found.settings)
    new_host.refuse_strangers(found.settings)
    services.prepare_services(found.settings)
    programs.bring_programs(found.settings)


def restore_data(found: Rebuild, *, again: bool = False) -> Restored:
    """Database, files and models at the same time, each from the first candidate that holds.

    `again`: an earlier recovery has begun here. What differs from the point is kept aside first,
    for users may have worked on what that one had started.
    """
    settings = found.settings

    def restore_base(point: RecoveryPoint) -> Facts:
        return climb.restore_from(settings, point, Tier.S3, to_time=None)

    def restore_tree(point: RecoveryPoint) -> Source:
        facts = catalogue.read_facts(settings, point, Tier.S3)
        source = Source(point=point, tier=Tier.S3, facts=facts)
        if again:
            repair.keep_damaged(repair.find_damage(settings, source))
        repair.restore_directories(settings, source)
        return source

    done = side_by_side(
        {
            asset: functools.partial(
                _first_that_holds,
                asset,
                tried,
                restore_base if asset is Asset.DATABASE else restore_tree,
            )
            for asset, tried in found.candidates.items()
        }
    )
    return Restored(base=done.pop(Asset.DATABASE), sources=done)


_Result = TypeVar("_Result")


def _first_that_holds(
    asset: Asset, tried: tuple[Candidate, ...], restore: Callable[[RecoveryPoint], _Result]
) -> _Result:
    """Restore from one candidate after the other; each attempt is recorded with its reason.

    A network that fails is no damage: an older point would lose what the newer one still holds. The
    same goes for a refusal, as for want of space, but not of a base copy, where it may be a hole in
    the WAL that another base has no need of.
    """
    reasons = []
    for candidate in tried:
        point, began = candidate.point, time.time()
        try:
            result = restore(point)
        except (RecoveryError, OSError) as error:
            _note_attempt(point, Outcome.FAILED, str(error), began)
            refusal = isinstance(error, (PreconditionError, OSError))  # as of a full disk
            refused = refusal and asset is not Asset.DATABASE
            if refused or isinstance(error, TransientError):
                raise
            log.warning("Restoring %s did not work: %s", point.id, error)
            reasons.append(f"{point.id}: {error}")
        else:
            _note_attempt(point, Outcome.DONE, candidate.reason, began)
            return result
    raise PermanentError(
        f"Restoring {asset}: none of {len(tried)} recovery points holds. {' '.join(reasons)}",
        hint="Nothing in the bucket was touched.",
    )


def _note_attempt(point: RecoveryPoint, outcome: Outcome, reason: str, began: float) -> None:
    seconds = time.time() - began
    attempt = RungAttempt(rung=point.id, outcome=outcome, reason=reason, seconds=seconds)
    current_run().rung(attempt)


def prove_data(found: Rebuild, restored: Restored) -> None:
    """Compare every restored file with its digest, and name those that are lost for good."""
    sources = restored.sources
    used = (found.configuration, *sources.values())
    current_run().uses_points(*(source.point.id for source in used), restored_from=Tier.S3)
    side_by_side(
        {
            "files": lambda: integrity.verify_integrity(found.settings),
            "models": lambda: integrity.compare_digests(found.settings, sources[Asset.MODELS]),
        }
    )


def expectations(found: Rebuild, restored: Restored) -> dict[Asset, Facts]:
    """What the rebuilt platform must hold."""
    told = {asset: source.facts for asset, source in restored.sources.items()}
    return {
        **told,
        Asset.CONFIG: found.configuration.facts,
        Asset.DATABASE: restored.base,
    }


@step()
def release(found: Rebuild) -> None:
    """The verification has passed: this host is the platform now and may write to the vault."""
    backup.allow_backups(found.settings)
    (found.into / backup.RECOVERING_NAME).unlink(missing_ok=True)
    try:
        vault.prepare_vault(found.settings)
    except RecoveryError as error:
        log.warning("The local vault is not prepared yet, run `lifeboat prepare`: %s", error)
