"""What a machine must be like to take a lost server's place: looked at before anything is touched.

A data directory that already holds something is somebody's; a volume in another place is one that
no container will ever see; a disk that is too small is found out now, and not after two hours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lifeboat.core.errors import PreconditionError
from lifeboat.core.points import Asset
from lifeboat.settings import ComposeStackSettings, Settings
from lifeboat.tools import filesystem, postgres
from tasks.services import compose_stack_of, stack_of
from tasks.trees import directories_of, refuse_links

# A base copy is brought beside the data directory and renamed; its WAL comes on top.
_MORE_FOR_WAL = 1.1


def require_programs(settings: Settings) -> None:
    """Raise PreconditionError unless what runs the services, and PostgreSQL's programs, are here.

    TransientError where the engine is here and does not answer.
    """
    stack = settings.stack
    if isinstance(stack, ComposeStackSettings):
        compose_stack_of(settings, stack).require_engine(stack.volumes_directory)
    if settings.database.programs == "host":
        postgres.tools_version(settings.database.bin_directory)


def require_empty(settings: Settings) -> None:
    """Raise PreconditionError if a place that will be restored to holds a file, or is a link."""
    refuse_links(
        (path for _, path in _places(settings)),
        doing="Looking at the places of the data",
        hint="Remove the link; a disk of its own is mounted at that place, or above it.",
    )
    held = [f"{path} ({name})" for name, path in _places(settings) if _holds_a_file(path)]
    if held:
        raise PreconditionError(
            f"Looking at the places of the data: {', '.join(held)} is not empty.",
            hint="Nothing was touched. This machine has a platform already: to repair it, use "
            "`recover database`, `recover files` or `recover models`. If what is there is not "
            "needed, move it away (a volume: `docker volume rm`), then run this again.",
        )


def require_room(settings: Settings, needed_bytes: Mapping[Asset, int]) -> None:
    """Raise PreconditionError unless each disk has room for all that will be restored to it.

    `needed_bytes` is the size of each asset's recovery point. What lies there already, from a
    recovery that was interrupted, is counted as room.
    """
    wanted: dict[int, tuple[Path, list[str], float]] = {}
    for asset, paths in _data(settings).items():
        parent = filesystem.nearest(paths[0])
        device = os.stat(parent).st_dev
        _, names, size = wanted.get(device, (parent, [], 0.0))
        there = sum(filesystem.tree_size(path)[1] for path in paths if path.is_dir())
        more = needed_bytes[asset] * (_MORE_FOR_WAL if asset is Asset.DATABASE else 1.0)
        # The database is brought anew beside what is there.
        more -= 0 if asset is Asset.DATABASE else there
        wanted[device] = (parent, [*names, str(asset)], size + max(0.0, more))
    for parent, names, size in wanted.values():
        filesystem.require_free(parent, int(size), doing=f"Restoring {', '.join(names)}")


def require_services(settings: Settings) -> None:
    """Raise PreconditionError for a service of lifeboat.yaml that the Compose file lacks.

    Once the code is there, and before hours are spent on data that nothing would then serve.
    """
    stack = settings.stack
    if isinstance(stack, ComposeStackSettings):
        ours = () if stack.backup_stack else stack.backup_services
        compose_stack_of(settings, stack).require_services(
            (*stack.critical_services, *stack.deferred_services, *ours)
        )


def refuse_strangers(settings: Settings) -> None:
    """Raise PreconditionError if another project's container could write to where data will be."""
    stack = stack_of(settings)
    found = {path: stack.strangers_at(path) for _, path in _places(settings)}
    told = [f"{', '.join(names)} ({path})" for path, names in found.items() if names]
    if told:
        raise PreconditionError(
            f"Looking who else uses the places of the data: {'; '.join(told)}.",
            hint="No data was touched. Stop it first: what it writes would be lost, or worse.",
        )


def _data(settings: Settings) -> dict[Asset, list[Path]]:
    return {
        Asset.DATABASE: [settings.database.data_directory],
        Asset.FILES: list(directories_of(settings, Asset.FILES).values()),
        Asset.MODELS: list(directories_of(settings, Asset.MODELS).values()),
    }


def _places(settings: Settings) -> Iterator[tuple[Asset, Path]]:
    return ((asset, path) for asset, paths in _data(settings).items() for path in paths)


def _holds_a_file(path: Path) -> bool:
    try:
        return next(iter(filesystem.walk(path)), None) is not None
    except FileNotFoundError:
        return False
