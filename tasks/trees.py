"""Files, models and configuration on their way into the vault: directories and their facts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from pathlib import Path

from lifeboat.core.errors import PreconditionError
from lifeboat.core.points import FACTS_NAME, Asset, DirectoryFacts, Facts, Tier, point_id
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, git
from tasks import clock, suspicion, vault
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_WITH_DIGESTS = {Asset.MODELS, Asset.CONFIG}


def directories_of(settings: Settings, asset: Asset) -> Mapping[str, Path]:
    """The protected directories (for configuration: files too) of an asset, by name."""
    if asset is Asset.FILES:
        return settings.files.directories
    if asset is Asset.MODELS:
        return settings.models.directories
    if asset is Asset.CONFIG:
        return {path.name: path for path in settings.config.paths}
    raise ValueError(f"{asset} is not kept as directories")


@step()
def gather_facts(settings: Settings, asset: Asset) -> Facts:
    """Count and, where it is cheap, digest what is about to be backed up.

    Counted before the snapshot, so the snapshot holds at least this. Raises PreconditionError if
    a directory is missing: an empty place must not become a backup.
    """
    taken_at = clock.now().replace(microsecond=0)
    directories = {}
    for name, path in directories_of(settings, asset).items():
        if not path.exists():
            raise PreconditionError(
                f"Backing up {asset}: {path} does not exist.",
                hint=f"Look at `{asset}` in lifeboat.yaml; if the data is lost, recover it first.",
            )
        if path.is_dir():
            files, size = filesystem.tree_size(path)
        else:
            files, size = 1, path.stat().st_size
        digests = filesystem.digests(path) if asset in _WITH_DIGESTS else {}
        directories[name] = DirectoryFacts(path=str(path), files=files, bytes=size, digests=digests)
    if asset is not Asset.CONFIG and not any(d.files for d in directories.values()):
        raise PreconditionError(
            f"Backing up {asset}: there is not one file in {', '.join(directories)}.",
            hint="An empty store is not backed up: it would hide the last good point. "
            "If the files are lost, recover them.",
        )
    return Facts(
        point=point_id(asset, taken_at),
        asset=asset,
        platform=settings.platform,
        host=socket.gethostname(),
        taken_at=taken_at,
        git_commit=git.head_commit(settings.code.directory) if settings.code else None,
        directories=directories,
    )


def store_directories(settings: Settings, facts: Facts) -> dict[Tier, str]:
    """Snapshot the directories and their facts into both tiers, and look at the new point.

    Gives the snapshots' names.
    """
    note = settings.vault.local / str(facts.asset) / "facts" / FACTS_NAME
    note.parent.mkdir(parents=True, exist_ok=True)
    filesystem.atomic_write(note, facts.model_dump_json(indent=2).encode())
    paths = [Path(d.path) for d in facts.directories.values()]
    snapshots = vault.store_in_both_tiers(settings, facts, [note, *paths])
    current_run().uses_points(facts.point)
    suspicion.look_at_new_point(settings, facts)
    return snapshots
