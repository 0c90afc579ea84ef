"""Proof after a repair: every file against its digest, and what can't come back, by name."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lifeboat.core.errors import PermanentError, RecoveryError, VerificationFailed
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset
from lifeboat.core.references import Referred
from lifeboat.core.timeline import Phase
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, postgres
from tasks import data_loss, older_versions, places
from tasks.database import connection
from tasks.orchestration import side_by_side, step
from tasks.record import current_run
from tasks.repair import Damage, Source, find_damage, plan_repair
from tasks.trees import directories_of

log = logging.getLogger("lifeboat")

LOSSES_NAME = "known-losses.jsonl"
_THREADS = 4


def referred_files(settings: Settings) -> tuple[Referred, ...]:
    """What `files.manifest_query` says there should be; empty where none is declared."""
    if not settings.files.manifest_query:
        return ()
    found = referred_by(postgres.query(connection(settings), settings.files.manifest_query))
    vague = next((item for item in found if item.sha256 is None or item.bytes is None), None)
    if vague:
        raise PermanentError(
            f"Reading files.manifest_query: it gives {vague.path!r} without SHA-256 or bytes.",
            hint="Without them no file can be proven: correct the query.",
        )
    return found


def referred_by(rows: Iterable[Sequence[Any]]) -> tuple[Referred, ...]:
    """What the rows of a manifest query say: path, SHA-256 and bytes."""
    return tuple(Referred(path=row[0], sha256=row[1], bytes=row[2]) for row in rows)


@dataclass(frozen=True)
class Reading:
    """What reading the files that the database refers to has told, by their paths."""

    whole: frozenset[str] = frozenset()
    bad: tuple[str, ...] = ()


@step(Phase.DECIDE)
def read_referred(settings: Settings) -> Reading:
    """Read every file that the database refers to and compare it with its SHA-256.

    A known loss is no news, but may have been uploaded again. Where the database can't be asked
    nothing is found, which is told.
    """
    try:
        referred = referred_files(settings)
    except RecoveryError as error:
        log.warning("Damage that the recovery point holds too can't be found: %s", error)
        return Reading()
    lost, found = known_losses(settings), _read(settings, referred)
    return Reading(whole=found.whole, bad=tuple(path for path in found.bad if path not in lost))


def without_changes(settings: Settings, damages: tuple[Damage, ...]) -> tuple[Damage, ...]:
    """Leave out the files that users have changed since the point: those with the SHA-256 that the
    database has of them.

    Where the database can't be asked all of them stay.
    """
    names = {name for damage in damages for name in (*damage.truncated, *damage.altered)}
    if not names:
        return damages
    try:
        referred = [item for item in referred_files(settings) if item.path in names]
    except RecoveryError as error:
        log.warning("Which files users have changed since can't be found: %s", error)
        return damages
    return _without(damages, _read(settings, referred).whole)


def _without(damages: tuple[Damage, ...], whole: Collection[str]) -> tuple[Damage, ...]:
    left = tuple(
        damage.model_copy(
            update={
                "truncated": tuple(name for name in damage.truncated if name not in whole),
                "altered": tuple(name for name in damage.altered if name not in whole),
            }
        )
        for damage in damages
    )
    damaged = sum(len(damage.names) for damage in left)
    if changed := sum(len(damage.names) for damage in damages) - damaged:
        log.info("%d files were changed on purpose since that point.", changed)
        current_run().fact(files_damaged=damaged)
    return left


@dataclass(frozen=True)
class FoundInFiles:
    """The damage that a point can undo, what else was read of the files, and the plan."""

    damages: tuple[Damage, ...]
    others: Reading
    plan: RecoveryPlan


def look_at_files(settings: Settings, source: Source) -> FoundInFiles:
    """Compare the files with a point and with the database, and plan; nothing is touched.

    What the database knows to be bad and the point can't mend is as bad in the point, or was never
    in it: the damage is older than the point. Raises NothingToDo if all files are whole.
    """
    looked = side_by_side(
        {
            "point": functools.partial(find_damage, settings, source),
            "database": functools.partial(read_referred, settings),
        }
    )
    damages, read = looked["point"], looked["database"]
    if not source.asked_for:
        damages = _without(damages, read.whole)
    damaged = {name for damage in damages for name in damage.names}
    others = Reading(
        whole=read.whole - damaged,
        bad=tuple(path for path in read.bad if path not in damaged),
    )
    plan = plan_repair(settings, source, damages, procedure="recover-files", others=others.bad)
    return FoundInFiles(damages=damages, others=others, plan=plan)


def _read(settings: Settings, referred: Iterable[Referred]) -> Reading:
    roots = list(directories_of(settings, Asset.FILES).values())
    items = {item.path: item for item in referred}
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        found = pool.map(functools.partial(older_versions.is_whole, roots), items.values())
        told = dict(zip(items, found, strict=True))
    return Reading(
        whole=frozenset(path for path, is_whole in told.items() if is_whole),
        bad=tuple(path for path, is_whole in told.items() if not is_whole),
    )


@step(Phase.VERIFY)
def verify_integrity(settings: Settings, *, read_before: Reading = Reading()) -> None:
    """Read every file that the database refers to and compare it with its SHA-256.

    What `read_before` found whole, and nobody has touched since, is not read twice. A bad file is
    looked for in every recovery point, and its right version takes its place. One that none holds
    can't come back from anywhere: it is recorded as a known loss, by name, so that it is told to
    people and not mistaken for new damage. Raises VerificationFailed if a store did not answer.
    """
    everything = referred_files(settings)
    referred = [i for i in everything if i.path not in read_before.whole]
    bad = set(_read(settings, referred).bad)
    if not bad:
        if everything:
            _note_whole()
        return
    roots = list(directories_of(settings, Asset.FILES).values())
    lost = older_versions.bring_back(settings, [i for i in referred if i.path in bad], roots)
    remember_losses(settings, (item.path for item in lost))
    if not lost:
        _note_whole()


def _note_whole() -> None:
    told = "every file that the database refers to has its SHA-256"
    data_loss.note(Asset.FILES, None, told)


@step(Phase.VERIFY)
def compare_digests(settings: Settings, source: Source) -> None:
    """Compare every file of the recovery point with its digest. Raises VerificationFailed."""
    wrong = []
    for name, path in directories_of(settings, source.point.asset).items():
        there = filesystem.digests(path)
        expected = source.facts.directories[name].digests
        wrong += [file for file, digest in expected.items() if there.get(file) != digest]
    if wrong:
        raise VerificationFailed(
            f"Comparing digests with {source.point.id}: {len(wrong)} differ, first {wrong[0]!r}.",
            hint="Run it again with --from s3.",
        )


def remember_losses(settings: Settings, names: Iterable[str]) -> None:
    """Add files to the platform's list of known losses."""
    run = current_run()
    path = places.records_directory(settings) / LOSSES_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    known = known_losses(settings)
    # Two drawings may share one file.
    new = [name for name in dict.fromkeys(names) if name not in known]
    for name in new:
        filesystem.append_line_durably(path, json.dumps({"path": name, "run": run.id}))
    if new:
        log.warning(
            "%d files are in no recovery point and gone for good, first %s. All names: %s",
            len(new),
            new[0],
            path,
        )
    run.fact(files_lost=len(new))


def known_losses(settings: Settings) -> frozenset[str]:
    """Files that an earlier recovery could not bring back and said so."""
    path = places.records_directory(settings) / LOSSES_NAME
    if not path.exists():
        return frozenset()
    found = set()
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # cut short by a power cut
            found.add(json.loads(line)["path"])
    return frozenset(found)
