"""Damaged files and models: found by content, kept aside, rewritten in place, and proven."""

from __future__ import annotations

import errno
import functools
import json
import logging
import shutil
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import (
    NothingToDo,
    PermanentError,
    PreconditionError,
    RecoveryError,
    VerificationFailed,
)
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import (
    Asset,
    Facts,
    RecoveryPoint,
    Tier,
    choose_point,
    find_named,
    passed_over,
)
from lifeboat.core.timeline import Phase
from lifeboat.settings import Settings
from lifeboat.tools import filesystem
from tasks import catalogue, clock, data_loss, forecast, places, progress
from tasks.orchestration import side_by_side, step
from tasks.record import current_run
from tasks.trees import directories_of, refuse_links

log = logging.getLogger("lifeboat")

_NAMED = 3
# restic compares each name that it is given with each file of the snapshot: of 20,000 damaged among
# 20,000 it takes 28 s to find out what it is asked for. More than so many are made missing instead.
_BY_NAME = 300


class Source(BaseModel):
    """A recovery point, the tier from which it is read, and what it says of itself."""

    model_config = ConfigDict(frozen=True)

    point: RecoveryPoint
    tier: Tier
    facts: Facts
    passed_over: tuple[RecoveryPoint, ...] = ()  # suspicious ones that are newer
    older: tuple[RecoveryPoint, ...] = ()  # newest first
    asked_for: bool = False  # by its name or by a date

    @property
    def snapshot(self) -> str:
        return self.point.copies[self.tier]

    def path_of(self, directory: str) -> str:
        """Where a directory lies inside the snapshot."""
        try:
            return self.facts.directories[directory].path
        except KeyError:
            raise PreconditionError(
                f"Reading {self.point.id}: it holds no directory named {directory!r}, "
                f"only {', '.join(self.facts.directories)}.",
                hint="It was added or renamed after that point: choose a newer one.",
            ) from None


class Damage(BaseModel):
    """What is wrong with one directory. File names are relative to it."""

    model_config = ConfigDict(frozen=True)

    directory: str
    path: str
    missing: tuple[str, ...]
    truncated: tuple[str, ...]
    altered: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted((*self.missing, *self.truncated, *self.altered)))

    def in_words(self) -> str:
        return (
            f"{self.directory}: {len(self.missing)} missing, {len(self.truncated)} of another "
            f"size, {len(self.altered)} altered"
        )


@step(Phase.DECIDE, retries=1)
def choose_source(
    settings: Settings,
    asset: Asset,
    *,
    only_from: Tier | None = None,
    not_after: datetime | None = None,
    named: str = "",
) -> Source:
    """Choose the newest fitting point that is trusted, or the one that is named, suspicious or not.

    It is read from its cheapest tier. Raises PreconditionError if there is none.
    """
    tiers = (only_from,) if only_from else places.RESTIC_TIERS
    points = catalogue.list_points(
        settings, assets=(asset,), tiers=tiers, tolerate_failures=only_from is None
    )
    if named:
        point = find_named(points, named)
    else:
        point = choose_point(points, asset=asset, not_after=not_after, tiers=tiers)
    tier = point.tiers[0]
    return Source(
        point=point,
        tier=tier,
        facts=catalogue.read_facts(settings, point, tier),
        passed_over=() if named else passed_over(points, point, not_after=not_after),
        older=tuple(p for p in points if p.taken_at < point.taken_at),
        asked_for=bool(named or not_after),
    )


@step(Phase.DECIDE)
def find_damage(settings: Settings, source: Source) -> tuple[Damage, ...]:
    """Compare every file with the recovery point, by content. Nothing is changed.

    Files newer than the point are not damage. Raises PreconditionError if a directory is a link.
    """
    refuse_links(
        directories_of(settings, source.point.asset).values(),
        doing=f"Looking for damage against {source.point.id}",
    )
    store = places.repository(settings, source.point.asset, source.tier)
    damages = []
    for name, path in directories_of(settings, source.point.asset).items():
        found = store.find_damage(source.snapshot, subfolder=source.path_of(name), target=path)
        damages.append(
            Damage(
                directory=name,
                path=str(path),
                missing=found.missing,
                truncated=found.truncated,
                altered=found.altered,
            )
        )
    current_run().fact(files_damaged=sum(len(damage.names) for damage in damages))
    return tuple(damages)


class FoundDamage(BaseModel):
    """The damage of an asset's directories, and the plan made of it."""

    model_config = ConfigDict(frozen=True)

    damages: tuple[Damage, ...]
    plan: RecoveryPlan


def look_at_models(settings: Settings, source: Source) -> FoundDamage:
    """Compare the models with a point and plan their repair; nothing is touched.

    Raises NothingToDo if all of them are whole.
    """
    damages = find_damage(settings, source)
    plan = plan_repair(settings, source, damages, procedure="recover-models")
    return FoundDamage(damages=damages, plan=plan)


def plan_repair(
    settings: Settings,
    source: Source,
    damages: tuple[Damage, ...],
    *,
    procedure: str,
    others: Sequence[str] = (),
) -> RecoveryPlan:
    """Say what a repair would do. Raises NothingToDo if there is nothing to repair.

    `others` are files that the point can't bring back, but perhaps another one. After a recovery
    that failed or was interrupted, files that are all whole are no reason to stop: the services may
    be down still, and nothing has verified the platform.
    """
    asset = source.point.asset
    services = settings.files.services if asset is Asset.FILES else settings.models.services
    whole = not any(damage.names for damage in damages) and not others
    if whole and "continues_after" not in current_run().record.facts:
        raise NothingToDo(
            f"Looking for damage against {source.point.id}: every file of it is there and whole.",
            hint="Nothing was touched. Files newer than that point are not in it; "
            "`lifeboat verify` tells whether the platform is healthy."
            f"{_if_they_hang(services)}{_if_it_is_older(settings, source)}",
        )
    symptoms = [damage.in_words() for damage in damages]
    steps = ["keep the damaged files aside, rewrite only those"]
    if whole:
        symptoms.append("an earlier recovery brought them back and was cut short after that")
        steps = []
    if others:
        symptoms.append(
            f"{len(others)} that {source.point.id} can't bring back, for it holds them damaged or "
            f"not at all, first {others[0]!r}"
        )
        steps.append("look in all other points for a version of those with the right SHA-256")
    return RecoveryPlan(
        procedure=procedure,
        platform=settings.platform,
        symptoms="; ".join(symptoms),
        points=(source.point,),
        passed_over=source.passed_over,
        target=f"{source.point.id}, from {source.tier}",
        expected_loss="changes since then to the damaged files; all other files stay as they are",
        touches=tuple(damage.path for damage in damages if damage.names or others),
        steps=(
            f"stop {', '.join(services)}",
            *steps,
            "verify the integrity of every file",
            f"start {', '.join(services)}",
            "verify the platform",
        ),
        made_at=clock.now(),
        forecast=forecast.of_recovery(
            settings,
            "files" if asset is Asset.FILES else "models",
            [source.point],
            repaired=True,
        ),
        objective_rto_seconds=settings.objectives.rto_seconds,
    )


def _if_they_hang(services: Collection[str]) -> str:
    if not services:
        return ""
    return f" If {', '.join(services)} do not work with them all the same, restart them."


def _if_it_is_older(settings: Settings, source: Source) -> str:
    """What to do if the newest backup was made after the damage; only models can be told apart."""
    if source.point.asset is not Asset.MODELS:
        return ""
    now = {name: told.digests for name, told in source.facts.directories.items()}
    for point in source.older:
        if point.suspicion or point.fingerprint == source.point.fingerprint:
            continue
        try:
            before = catalogue.read_facts(settings, point)
        except RecoveryError as error:
            log.warning("%s is passed over: %s", point.id, error)
            continue
        changed = sorted(
            file
            for name, directory in before.directories.items()
            for file, digest in directory.digests.items()
            if now.get(name, {}).get(file) != digest
        )
        if changed:
            return (
                f" If the damage is older than {source.point.id}: since {point.id} "
                f"{', '.join(changed[:_NAMED])} changed or went; `lifeboat recover models --point "
                f"{point.id}` brings that back."
            )
    return ""


@step(Phase.RESTORE)
def keep_damaged(damages: tuple[Damage, ...]) -> None:
    """Copy what is damaged aside, by name, before it is repaired in place.

    What the disk no longer gives is moved, so that the repair writes elsewhere on it; so is a file
    that lies where the point has a directory, and would have to go. Of a name that was missing
    users may have made a file since. What an earlier candidate of this run has kept stays.
    """
    run = current_run()
    for damage in damages:
        path = Path(damage.path)
        appeared = [name for name in damage.missing if (path / name).is_file()]
        names = [*damage.truncated, *damage.altered, *appeared]
        in_the_way = _in_the_way(path, damage.missing)
        if not names and not in_the_way:
            continue
        size = sum((path / name).stat().st_size for name in names)
        filesystem.require_free(path.parent, size, doing="Keeping the damaged files aside")
        aside = filesystem.free_aside(path, label=f"damaged-{run.id}")
        run.about_to("copy damaged files aside", where=str(aside))
        for name in names:
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_or_move(path / name, target)
        for name in in_the_way:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).rename(aside / name)
        names += in_the_way
        # Before the first of them is overwritten: a power cut must not take both.
        filesystem.sync_tree(aside)
        run.moved_aside(f"{len(names)} damaged files of {path}", aside)


def _in_the_way(path: Path, missing: Sequence[str]) -> list[str]:
    """Files that lie where directories of missing files were."""
    above = {parent for name in missing for parent in Path(name).parents if parent.name}
    return sorted(str(name) for name in above if (path / name).is_file())


def _copy_or_move(path: Path, target: Path) -> None:
    try:
        shutil.copy2(path, target)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        log.warning("%s can't be read any more: it is moved aside as it is.", path)
        target.unlink(missing_ok=True)
        path.rename(target)


@step(Phase.RESTORE)
def rewrite_damaged(settings: Settings, source: Source, damages: tuple[Damage, ...]) -> None:
    """Bring back only what is missing or damaged. Raises VerificationFailed if any is left out."""
    store = places.repository(settings, source.point.asset, source.tier)
    rewritten: list[str] = []
    for damage in damages:
        if not damage.names:
            continue
        by_name = len(damage.names) <= _BY_NAME
        appeared = {name for name in damage.missing if (Path(damage.path) / name).is_file()}
        if not by_name:
            _make_room(damage, appeared)
        summary = store.restore(
            source.snapshot,
            subfolder=source.path_of(damage.directory),
            target=Path(damage.path),
            overwrite="always" if by_name else "never",
            include=damage.names if by_name else (),
            on_progress=progress.of_restic(f"{damage.directory} from {source.tier}"),
        )
        # A file that users have brought back themselves meanwhile, as it was, needs no writing.
        done = {*summary.restored, *summary.updated, *appeared}
        left = [name for name in damage.names if name not in done]
        if left:
            raise VerificationFailed(
                f"Repairing {damage.path}: {len(left)} of {len(damage.names)} damaged files "
                f"were not rewritten, first {left[0]!r}.",
                hint="Their damaged originals are kept aside. Try --from s3.",
            )
        rewritten += done
    run = current_run()
    run.uses_points(source.point.id)  # some of its files are no proof of it
    run.fact(files_rewritten=len(rewritten))
    data_loss.note_tree(settings, source.point, chosen=source.asked_for)
    run.keep("damage.json", json.dumps([d.model_dump() for d in damages], indent=1))


def _make_room(damage: Damage, appeared: Collection[str]) -> None:
    """Remove what is damaged, of which a copy lies aside: then it is missing, and only it."""
    for name in (*damage.truncated, *damage.altered, *appeared):
        path = Path(damage.path) / name
        if path.is_symlink() or not path.is_dir():  # a directory in its place stays, and is told
            path.unlink(missing_ok=True)


@step(Phase.RESTORE, retries=2)
def restore_directories(settings: Settings, source: Source) -> None:
    """Restore a whole asset. What is there already and equal is not written again.

    Raises PreconditionError if one of the places is a symbolic link; PermanentError if the point
    holds only a link, which is removed again: an older point may hold the files.
    """
    refuse_links(
        directories_of(settings, source.point.asset).values(),
        doing=f"Restoring {source.point.id}",
    )
    store = places.repository(settings, source.point.asset, source.tier)

    def restore(name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = filesystem.tree_size(path)[1] if path.is_dir() else 0  # by an attempt before
        filesystem.require_free(
            path.parent,
            max(0, source.facts.directories[name].bytes - there),
            doing=f"Restoring {source.point.asset}",
        )
        store.restore(
            source.snapshot,
            subfolder=source.path_of(name),
            target=path,
            overwrite="always",
            on_progress=progress.of_restic(f"{name} from {source.tier}"),
        )
        if path.is_symlink():
            path.unlink()
            raise PermanentError(
                f"Restoring {source.point.id}: of {name} it holds a symbolic link, and nothing of "
                "what that pointed to.",
                hint="Choose a point from before it was a link, if there is one.",
            )
        filesystem.sync_tree(path if path.is_dir() else path.parent)

    side_by_side(
        {
            name: functools.partial(restore, name, path)
            for name, path in directories_of(settings, source.point.asset).items()
        }
    )
    data_loss.note_tree(settings, source.point, chosen=source.asked_for)
