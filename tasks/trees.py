"""Files, models and configuration on their way into the vault: directories and their facts."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.marks import Kind, Sighting, TestResult
from lifeboat.core.points import (
    FACTS_NAME,
    Asset,
    DirectoryFacts,
    Facts,
    RecoveryPoint,
    Tier,
    point_id,
)
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, git
from tasks import catalogue, certificates, clock, marks, places, suspicion, vault
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_WITH_DIGESTS = {Asset.MODELS, Asset.CONFIG}
_ON_CHANGE = {Asset.MODELS, Asset.CONFIG}  # backed up when their fingerprint is another one
_NAME_IT = "Name in lifeboat.yaml what it points to, or a directory in which both lie."


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
    a directory is missing, or is only a symbolic link: no empty place must become a backup.
    """
    taken_at = clock.now().replace(microsecond=0)
    there = _present(settings, asset)
    # Taken first: what changes between it and the snapshot is found to be changed by the next look.
    fingerprint = _fingerprint(asset, there) if asset in _ON_CHANGE else ""
    directories = {}
    for name, path in there.items():
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
        fingerprint=fingerprint,
        certificates=certificates.gather(settings, there) if asset is Asset.CONFIG else {},
    )


def _present(settings: Settings, asset: Asset) -> Mapping[str, Path]:
    """What is to be backed up. Raises PreconditionError if any of it is missing or a link.

    A link among the configuration is only told: `lifeboat check` and the restore test fail for it.
    """
    found = directories_of(settings, asset)
    for path in found.values():
        if not path.exists():
            raise PreconditionError(
                f"Backing up {asset}: {path} does not exist.",
                hint=f"Look at `{asset}` in lifeboat.yaml; if the data is lost, recover it first.",
            )
    try:
        refuse_links(found.values(), doing=f"Backing up {asset}")
    except PreconditionError as error:
        if asset is not Asset.CONFIG:
            raise
        # All other files of the configuration are worth more than none.
        log.error("%s", error)
    return found


def refuse_links(paths: Iterable[Path], *, doing: str, hint: str = _NAME_IT) -> None:
    """Raise PreconditionError if a protected path is itself a symbolic link; its parents may be.

    restic keeps a link that is named to it as a link, with nothing of what it points to, and a
    restore to it puts a directory in the link's place.
    """
    links = [path for path in paths if path.is_symlink()]
    if links:
        told = ", ".join(f"{path} is a symbolic link to {os.path.realpath(path)}" for path in links)
        raise PreconditionError(
            f"{doing}: {told}. Backups and recoveries do not follow it.",
            hint=f"Nothing was touched. {hint}",
        )


def _fingerprint(asset: Asset, there: Mapping[str, Path]) -> str:
    # Models may be many GB: their content is read only when they are backed up.
    return filesystem.fingerprint(there, by_content=asset is not Asset.MODELS)


def store_directories(settings: Settings, facts: Facts) -> dict[Tier, str]:
    """Snapshot the directories and their facts into both tiers, and tell watchers of it.

    Looks whether the new point is suspicious, and gives the snapshots' names.
    """
    snapshots = vault.store_in_both_tiers(settings, facts, _note_and_paths(settings, facts))
    current_run().uses_points(facts.point)
    _remember_sighting(settings, facts.asset, as_of=facts.taken_at, holds=facts.point)
    suspicion.look_at_new_point(settings, facts)
    return snapshots


def _note_and_paths(settings: Settings, facts: Facts) -> list[Path]:
    """What a snapshot is made of; the note with the facts is written for it."""
    note = _note(settings, facts.asset)
    note.parent.mkdir(parents=True, exist_ok=True)
    filesystem.atomic_write(note, facts.model_dump_json(indent=2).encode())
    return [note, *(Path(told.path) for told in facts.directories.values())]


def _note(settings: Settings, asset: Asset) -> Path:
    """The facts of the last backup that this host began."""
    return settings.vault.local / str(asset) / "facts" / FACTS_NAME


# --- nothing has changed --------------------------------------------------------------------


def find_unchanged(
    settings: Settings, asset: Asset, *, at_most_seconds: float | None = None
) -> Facts | None:
    """The facts of the newest point, if it holds what is there now; None if that has changed.

    A sighting tells watchers that it was looked at, and the run leaves no record: there are
    hundreds of such looks a day. A tier that has not got the point, for it was away or full, is
    given it, under the same name; the other one gains nothing by that, however often it fails.
    Raises what `compare_with_newest` and `vault.store_snapshot` raise.
    """
    as_of = clock.now()
    found = compare_with_newest(settings, asset, as_of=as_of, at_most_seconds=at_most_seconds)
    if found is None:
        return None
    newest, facts = found
    # Before a tier is filled up, which may fail: it is believed only of those that hold the point.
    _remember_sighting(settings, asset, as_of=as_of, holds=newest.id)
    run = current_run()
    run.fact(unchanged_since=newest.id)
    if lacking := _lacking(newest):
        _store_where_it_lacks(settings, facts, lacking)
    else:
        log.info("%s: unchanged since %s, nothing to do.", str(asset).capitalize(), newest.id)
        run.found_nothing_to_do()
    return facts


def _store_where_it_lacks(settings: Settings, facts: Facts, tiers: Iterable[Tier]) -> None:
    for tier in tiers:
        log.warning("%s has not got %s, and is given it now.", tier, facts.point)
        vault.store_snapshot(settings, tier, facts, _note_and_paths(settings, facts))
        current_run().fact(stored_later_in=str(tier))
    current_run().uses_points(facts.point)
    suspicion.look_at_new_point(settings, facts)


@step(retries=1)
def compare_with_newest(
    settings: Settings, asset: Asset, *, as_of: datetime, at_most_seconds: float | None
) -> tuple[RecoveryPoint, Facts] | None:
    """The newest point and its facts, if it holds what is there now; None if it does not.

    A point older than `at_most_seconds`, or that a restore test found to be bad, counts as
    changed; one from the future counts for nothing, for what was backed up since may be another.
    Where S3 can't be asked, what this host holds already is not backed up once more: the error is
    raised.
    """
    there = _present(settings, asset)
    fingerprint = _fingerprint(asset, there)
    try:
        points = catalogue.list_points(settings, assets=(asset,))
    except RecoveryError:
        here = catalogue.list_points(settings, assets=(asset,), tiers=(Tier.LOCAL,))
        newest = _newest(here, as_of)
        if newest and newest.fingerprint == fingerprint:
            raise
        return None
    newest = _newest(points, as_of)
    if newest is None or newest.fingerprint != fingerprint or _was_found_bad(settings, newest):
        return None
    age_seconds = (as_of - newest.taken_at).total_seconds()
    if at_most_seconds is not None and age_seconds >= at_most_seconds:
        return None
    facts = _facts_of(settings, newest)
    lay = {name: Path(told.path) for name, told in facts.directories.items()}
    if _lacking(newest) and lay != dict(there):
        return None  # a snapshot of it is read by its paths, so that it can't be made from these
    return newest, facts


def _lacking(point: RecoveryPoint) -> list[Tier]:
    return [tier for tier in places.RESTIC_TIERS if tier not in point.copies]


def _newest(points: Iterable[RecoveryPoint], now: datetime) -> RecoveryPoint | None:
    """Suspicious or not: what nobody has accepted yet need not be stored every five minutes."""
    return next((point for point in points if not point.is_ahead_of(now)), None)


def _was_found_bad(settings: Settings, point: RecoveryPoint) -> bool:
    """Whether the newest test of the asset failed on this very point: it may hold nothing."""
    result = marks.read_all(settings, Kind.TESTS, in_bucket=False).get(str(point.asset))
    return isinstance(result, TestResult) and not result.passed and result.point == point.id


def _facts_of(settings: Settings, point: RecoveryPoint) -> Facts:
    """From the note of the last backup where it is that one, which costs nothing."""
    note = _note(settings, point.asset)
    try:
        facts = catalogue.parse_facts(note.read_bytes(), where=str(note))
    except (OSError, RecoveryError):
        return catalogue.read_facts(settings, point)
    return facts if facts.point == point.id else catalogue.read_facts(settings, point)


def _remember_sighting(settings: Settings, asset: Asset, *, as_of: datetime, holds: str) -> None:
    sighting = Sighting(subject=str(asset), as_of=as_of, holds=holds)
    marks.put(settings, Kind.SIGHTINGS, str(asset), sighting)
