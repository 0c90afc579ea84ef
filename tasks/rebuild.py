"""A lost server on a new machine: settings out of the bucket, code, configuration, then the data.

Nothing of the old host is needed but the bucket, its key and the vault's password.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset, Facts, RecoveryPoint, Tier, choose_point
from lifeboat.core.requests import RecoverServer
from lifeboat.core.timeline import Phase
from lifeboat.settings import S3, Settings, load_settings, secret_of_environment
from lifeboat.tools import filesystem, git, postgres, restic, s3
from tasks import (
    backup,
    catalogue,
    climb,
    clock,
    integrity,
    places,
    programs,
    repair,
    services,
    vault,
)
from tasks.orchestration import side_by_side, step
from tasks.record import current_run
from tasks.repair import Source

log = logging.getLogger("lifeboat")

MARKER = ".lifeboat-recovering"
_SETTINGS_NAME = "lifeboat.yaml"


class Rebuild(BaseModel):
    """What was found in the bucket, and what of it will be restored."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    into: Path
    old_root: Path  # directory of lifeboat.yaml on the lost host
    sources: Mapping[Asset, Source]  # files, models and configuration
    database: RecoveryPoint

    def new_place(self, old: str) -> Path:
        """Where a path of the lost host lies on this one; outside of its directory it stays."""
        path = Path(old)
        if path.is_relative_to(self.old_root):
            return self.into / path.relative_to(self.old_root)
        return path


@step(Phase.DECIDE, retries=2)
def read_vault(request: RecoverServer) -> Rebuild:
    """Read the platform's settings and newest recovery points from the bucket alone.

    Raises PreconditionError, with nothing touched, if the bucket holds another platform, lacks an
    asset, or a program that the recovery needs is missing on this machine.
    """
    settings, configuration, old_root = _settings_in_vault(request)
    if request.platform and request.platform != settings.platform:
        raise PreconditionError(
            f"Reading bucket {request.bucket}: it holds the platform {settings.platform!r}, not "
            f"{request.platform!r}.",
            hint="Nothing was touched. Look at --bucket, --prefix and --approve.",
        )
    if settings.database.programs == "host":
        postgres.tools_version(settings.database.bin_directory)
    points = catalogue.list_points(
        settings, assets=(Asset.DATABASE, Asset.FILES, Asset.MODELS), tiers=(Tier.S3,)
    )
    newest = {
        asset: choose_point(points, asset=asset, tiers=(Tier.S3,))
        for asset in (Asset.DATABASE, Asset.FILES, Asset.MODELS)
    }
    facts = side_by_side(
        {
            str(asset): lambda point=newest[asset]: catalogue.read_facts(settings, point, Tier.S3)
            for asset in (Asset.FILES, Asset.MODELS)
        }
    )
    sources = {
        Asset(name): Source(point=newest[Asset(name)], tier=Tier.S3, facts=told)
        for name, told in facts.items()
    }
    return Rebuild(
        settings=settings,
        into=Path(request.into),
        old_root=old_root,
        sources={**sources, Asset.CONFIG: configuration},
        database=newest[Asset.DATABASE],
    )


def _settings_in_vault(request: RecoverServer) -> tuple[Settings, Source, Path]:
    """The settings as they will be on this machine, and where they come from."""
    bucket = s3.Bucket(
        endpoint=request.endpoint or None,
        name=request.bucket,
        region=request.region,
        access_key=secret_of_environment("AWS_ACCESS_KEY_ID"),
        secret_key=secret_of_environment("AWS_SECRET_ACCESS_KEY"),
        prefix=request.prefix,
    )
    bucket.reachable()
    store = places.configuration_repository(bucket, region=request.region)
    snapshots = [s for s in store.snapshots(tags={"asset": "config"}) if "point" in s.tags]
    if not snapshots:
        raise PreconditionError(
            f"Reading bucket {request.bucket}: it holds no backup of a configuration.",
            hint="Nothing was touched. Look at --bucket and --prefix; `lifeboat backup config` "
            "makes one.",
        )
    newest = max(snapshots, key=lambda snapshot: snapshot.taken_at)
    facts = catalogue.parse_facts(
        store.dump(newest.id, catalogue.facts_path(store, newest.id)), where=newest.tags["point"]
    )
    told = facts.directories.get(_SETTINGS_NAME)
    if told is None:
        raise PreconditionError(
            f"Reading {facts.point}: {_SETTINGS_NAME} is not in it.",
            hint="Add it to config.paths; until then write it by hand and use `recover database`.",
        )
    point = RecoveryPoint(
        asset=Asset.CONFIG,
        id=facts.point,
        taken_at=facts.taken_at,
        copies={Tier.S3: newest.id},
        bytes=newest.bytes,
    )
    settings = _parse(store, newest, told.path, Path(request.into))
    where = S3(
        endpoint=request.endpoint or None,
        bucket=request.bucket,
        region=request.region,
        prefix=request.prefix,
    )
    # The bucket that was named counts: it may be a copy of the one in the settings.
    told_vault = settings.vault.model_copy(update={"s3": where})
    settings = settings.model_copy(update={"vault": told_vault})
    return settings, Source(point=point, tier=Tier.S3, facts=facts), Path(told.path).parent


def _parse(store: restic.Repository, snapshot: restic.Snapshot, path: str, into: Path) -> Settings:
    with tempfile.TemporaryDirectory(prefix="lifeboat-") as directory:
        copy = Path(directory) / _SETTINGS_NAME
        copy.write_bytes(store.dump(snapshot.id, path))
        return load_settings(copy, directory=into)


def plan_rebuild(found: Rebuild, request: RecoverServer) -> RecoveryPlan:
    settings = found.settings
    points = (found.database, *(source.point for source in found.sources.values()))
    code = settings.code
    clone = f"clone {code.repository}, branch {code.branch}; " if code else ""
    return RecoveryPlan(
        procedure="recover-server",
        platform=settings.platform,
        symptoms="the server is lost; this machine takes its place",
        points=points,
        target="the newest that the bucket holds",
        expected_loss="what was written after the last WAL that reached the bucket, and files "
        "newer than the last backup of the files",
        touches=(str(found.into),),
        steps=(
            f"{clone}restore the configuration",
            "restore database, files and models side by side; replay the WAL",
            f"start {', '.join(settings.stack.critical_services)}",
            "verify the platform",
            f"start {', '.join(settings.stack.deferred_services) or 'nothing'} (deferred)",
        ),
        made_at=clock.now(),
    )


@step(Phase.DECIDE)
def take_place(found: Rebuild) -> None:
    """Make `into` ours: it must be empty, or hold what an interrupted recovery of ours left.

    Until the verification has passed, this host may not write to the vault.
    """
    into, run = found.into, current_run()
    marker = into / MARKER
    if into.exists() and any(into.iterdir()) and not marker.exists():
        raise PreconditionError(
            f"Recovering into {into}: it is not empty.",
            hint="Nothing was touched. Name an empty directory with --into, or move it aside.",
        )
    into.mkdir(parents=True, exist_ok=True)
    told = {"platform": found.settings.platform, "run": run.id}
    filesystem.atomic_write(marker, json.dumps(told).encode())
    local = found.settings.vault.local
    local.mkdir(parents=True, exist_ok=True, mode=0o700)
    filesystem.atomic_write(local / backup.UNPROVEN_NAME, f"by {run.id}".encode())
    run.keep_in(places.runs_directory(found.settings))


@step(Phase.FETCH, retries=2)
def restore_code(found: Rebuild) -> None:
    """Clone the branch that is deployed. What an interrupted recovery cloned is kept."""
    code = found.settings.code
    if code is None:
        log.warning("No `code` in lifeboat.yaml: the application's code must be there already.")
        return
    if git.head_commit(code.directory) is None:
        git.clone(code.repository, branch=code.branch, into=code.directory)
    current_run().fact(git_commit=git.head_commit(code.directory) or "?")


@step(Phase.FETCH, retries=2)
def restore_configuration(found: Rebuild) -> None:
    """Put settings, environment files, certificates and service configuration in their places."""
    source = found.sources[Asset.CONFIG]
    store = places.repository(found.settings, Asset.CONFIG, Tier.S3)
    for told in source.facts.directories.values():
        target = found.new_place(told.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        store.restore(source.snapshot, subfolder=told.path, target=target, overwrite="always")


def prepare_stack(found: Rebuild) -> None:
    """With code and configuration there: images, empty volumes, and the database's programs."""
    services.prepare_services(found.settings)
    programs.bring_programs(found.settings)


def restore_data(found: Rebuild) -> Facts:
    """Database, files and models at the same time; give the facts of the base that was restored."""
    settings = found.settings
    done = side_by_side(
        {
            "database": lambda: climb.restore_from(settings, found.database, Tier.S3, to_time=None),
            "files": lambda: repair.restore_directories(settings, found.sources[Asset.FILES]),
            "models": lambda: repair.restore_directories(settings, found.sources[Asset.MODELS]),
        }
    )
    return done["database"]


def prove_data(found: Rebuild) -> None:
    """Compare every restored file with its digest, and name those that are lost for good."""
    current_run().uses_points(*(source.point.id for source in found.sources.values()))
    side_by_side(
        {
            "files": lambda: integrity.verify_integrity(found.settings, found.sources[Asset.FILES]),
            "models": lambda: integrity.compare_digests(
                found.settings, found.sources[Asset.MODELS]
            ),
        }
    )


def expectations(found: Rebuild, base: Facts) -> dict[Asset, Facts]:
    """What the rebuilt platform must hold."""
    told = {asset: source.facts for asset, source in found.sources.items()}
    return {**told, Asset.DATABASE: base}


@step()
def release(found: Rebuild) -> None:
    """The verification has passed: this host is the platform now and may write to the vault."""
    backup.allow_backups(found.settings)
    (found.into / MARKER).unlink(missing_ok=True)
    try:
        vault.prepare_vault(found.settings)
    except RecoveryError as error:
        log.warning("The local vault is not prepared yet, the next backup will do it: %s", error)
