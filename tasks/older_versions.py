"""Files that the recovery point holds damaged too: brought back from other points, by their digest.

A backup that was made between a damage and its discovery holds the damage. But the database knows
the SHA-256 of each file: whatever point's version of it has that digest is the right one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lifeboat.core.errors import RecoveryError, TransientError, VerificationFailed
from lifeboat.core.points import Asset, Tier
from lifeboat.core.references import Referred
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, restic
from tasks import places
from tasks.record import current_run

log = logging.getLogger("lifeboat")

FOUND_NAME = "from-other-points.json"
_AT_ONCE = 200  # names in one search


@dataclass(frozen=True)
class _Version:
    """One content that a file had, and a snapshot that holds it."""

    tier: Tier
    snapshot: str
    root: str  # the directory inside the snapshot to which the file's path is relative


def bring_back(
    settings: Settings, bad: Sequence[Referred], roots: Sequence[Path]
) -> tuple[Referred, ...]:
    """Look for a whole version of each file in every point; give those of which there is none.

    The version that is found takes the damaged one's place, which is kept aside. Raises
    VerificationFailed if files are left while a store did not answer.
    """
    left, silent = list(bad), []
    for tier in places.RESTIC_TIERS:
        store = places.repository(settings, Asset.FILES, tier)
        try:
            # A new host has no local one yet.
            versions = _versions(store, tier, left) if left and store.exists() else {}
            while left and (now := _next_versions(versions)):
                found = _try(settings, now, {item.path: item for item in left}, roots)
                left = [item for item in left if item.path not in found]
                versions = {path: of for path, of in versions.items() if path not in found}
        except RecoveryError as error:
            silent.append(f"{tier}: {error}")
    still = {item.path for item in left}
    if brought := [item.path for item in bad if item.path not in still]:
        log.warning(
            "%d files were damaged in the recovery point too; versions with the right SHA-256 "
            "came from other points.",
            len(brought),
        )
        current_run().keep(FOUND_NAME, json.dumps(brought, indent=1))
    current_run().fact(files_from_other_points=len(brought))
    if left and silent:
        raise VerificationFailed(
            f"Verifying the files: {len(left)} are still missing or damaged, first "
            f"{left[0].path!r}, and not every point could be searched for them: {silent[0]}",
            hint="Make that store answer, and run it again.",
        )
    return tuple(left)


def _versions(
    store: restic.Repository, tier: Tier, wanted: Sequence[Referred]
) -> dict[str, list[_Version]]:
    """For each path what it was in the points, newest first; nothing twice, nothing unfit."""
    found: dict[str, list[_Version]] = defaultdict(list)
    by_name = defaultdict(list)
    for item in wanted:
        by_name[os.path.basename(item.path)].append(item)
    seen = set()
    hits = [hit for names in _chunks(list(by_name)) for hit in store.find(names)]
    age = {snapshot.id: number for number, snapshot in enumerate(store.snapshots())}
    for hit in sorted(hits, key=lambda hit: age.get(hit.snapshot_id, -1), reverse=True):
        for item in by_name[os.path.basename(hit.path)]:
            key = (item.path, hit.bytes, hit.mtime, hit.ctime, hit.inode)
            if hit.bytes == item.bytes and hit.path.endswith(f"/{item.path}") and key not in seen:
                seen.add(key)
                root = hit.path[: -len(item.path) - 1]
                found[item.path].append(_Version(tier, hit.snapshot_id, root))
    return found


def _chunks(names: list[str]) -> Iterator[list[str]]:
    return (names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE))


def _next_versions(versions: dict[str, list[_Version]]) -> dict[_Version, list[str]]:
    """The next version of each file that has one, the files of one snapshot together."""
    now = defaultdict(list)
    for path, of_path in versions.items():
        if of_path:
            now[of_path.pop(0)].append(path)
    return now


def _try(
    settings: Settings,
    now: dict[_Version, list[str]],
    wanted: Mapping[str, Referred],
    roots: Sequence[Path],
) -> set[str]:
    """Restore versions beside the files, and let those that are whole take their places."""
    found = set()
    needed_bytes = sum(wanted[path].bytes for paths in now.values() for path in paths)
    with _scratch(settings, needed_bytes) as scratch:
        for number, (version, paths) in enumerate(now.items()):
            target = scratch / str(number)
            try:
                places.repository(settings, Asset.FILES, version.tier).restore(
                    version.snapshot,
                    subfolder=version.root,
                    target=target,
                    overwrite="always",
                    include=paths,
                )
            except TransientError:
                raise
            except RecoveryError as error:
                # Damage in the store ends neither this search nor the recovery; digests decide.
                log.warning("Restoring %d files to look at them: %s", len(paths), error)
            for path in paths:
                if _whole(target / path, wanted[path]):
                    _put_in_place(target / path, path, roots)
                    found.add(path)
    return found


@contextmanager
def _scratch(settings: Settings, needed_bytes: int) -> Iterator[Path]:
    """A directory of this run alone, removed however it ends; `tidy` knows those of dead runs."""
    place = places.repairs_directory(settings) / current_run().id
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        filesystem.require_free(place, needed_bytes, doing="Looking for whole versions of files")
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _whole(path: Path, item: Referred) -> bool:
    """What can't be read, as on a disk that fails, is not."""
    try:
        return (
            path.is_file()
            and path.stat().st_size == item.bytes
            and filesystem.digest(path) == item.sha256
        )
    except OSError as error:
        log.warning("%s can't be read: %s", path, error)
        return False


def is_whole(roots: Iterable[Path], item: Referred) -> bool:
    """Whether a file that the database refers to is there with its size and SHA-256."""
    at = next((root / item.path for root in roots if (root / item.path).is_file()), None)
    return at is not None and _whole(at, item)


def _put_in_place(found: Path, path: str, roots: Sequence[Path]) -> None:
    root = next((root for root in roots if (root / path).exists()), roots[0])
    target = root / path
    if target.exists():
        aside_root = root.with_name(f"{root.name}.damaged-{current_run().id}")
        aside = aside_root / path
        if not aside.exists():  # else the repair has kept the first one of them
            filesystem.put_file(target, aside)
            _tell_of(root, aside_root)
    filesystem.put_file(found, target)


def _tell_of(root: Path, aside: Path) -> None:
    run = current_run()
    if str(aside) not in (moved.where for moved in run.record.moved_aside):
        run.moved_aside(f"damaged files of {root}", aside)
