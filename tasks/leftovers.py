"""What dead runs leave behind: found at the next run, cleaned up where that is safe, and told.

Nothing goes unless its run is proven dead (tasks/journals), or it lies where only the holder of an
asset's lock may write. What a recovery has moved aside (`*.damaged-*`, `*.failed-*`) stays; a hot
copy goes back to its place. What is not understood is told and left alone.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import LockBusy, RecoveryError
from lifeboat.core.marks import Kind
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, lives, postgres
from tasks import clock, journals, locks, places, vault
from tasks.journals import Fate, Journal
from tasks.record import current_run, recorded

log = logging.getLogger("lifeboat")

BRINGING = "bring the base copy beside the data directory"
"""What a recovery writes into its journal before it does so, with `incoming` and `hot_copy`."""

_RECOVERY = "recover-"
_OLD = timedelta(days=1)  # no upload and no temporary directory of ours is in use for so long
_TEMPORARY = re.compile(r"^\..+\.(?P<pid>\d+)\.\d+$")  # see filesystem.atomic_write
_BESIDE_INCOMING = (".wal", ".part")  # downloaded WAL; a copy from another file system


class Leftover(BaseModel):
    """One thing that a dead run left, and what became of it."""

    model_config = ConfigDict(frozen=True)

    what: str
    where: str
    left_by: str
    done: str

    def in_words(self) -> str:
        by = f", left by {self.left_by}" if self.left_by else ""
        return f"{self.what} {self.where}{by}: {self.done}"


@dataclass(frozen=True)
class _Found:
    """Something that was left, and how to clean it up.

    `clean` says what it did; nothing, if there was nothing to do after all. Without it the thing
    stays, for the reason in `would`.
    """

    what: str
    where: str
    would: str
    clean: Callable[[], str] | None
    left_by: str = ""
    is_hot_copy: bool = False


_Finder = Callable[[], Iterable[_Found]]


def tidy_before(settings: Settings, asset: Asset) -> None:
    """At the beginning of a run that holds the lock of `asset`: clean up and tell; never fail.

    With nothing to find it takes two requests to S3 and some looks into directories.
    """

    def in_bucket() -> Iterator[_Found]:
        # One finder, so that a bucket that does not answer is waited for once.
        yield from _remote_locks(settings, asset)
        yield from _uploads(settings)

    with locks.tidying(settings) as ours:
        if ours:
            finders = (*_on_host_of_asset(settings, asset), *_on_host(settings), in_bucket)
            found = _cleaned(finders, dry_run=False, with_what_stays=False)
            _tell(found)
            _note(found)


def tidy(settings: Settings, *, dry_run: bool = False) -> tuple[Leftover, ...]:
    """Look for all that dead runs left, each asset while no backup of it runs, and clean up.

    With `dry_run` nothing is changed, and it is said what would be done. Raises LockBusy while a
    recovery runs. Interrupted recoveries are told as well, and after that no more.
    """
    locks.stand_aside(settings, doing="Tidying up")
    directory = None if dry_run else places.runs_directory(settings)
    with recorded("tidy", platform=settings.platform, directory=directory) as run:
        run.found_nothing_to_do()
        found = tuple(_everything(settings, dry_run=dry_run))
        _note(found)
    return found


def _everything(settings: Settings, *, dry_run: bool) -> Iterator[Leftover]:
    clean = functools.partial(_cleaned, dry_run=dry_run, with_what_stays=True)
    for asset in Asset:
        remote = functools.partial(_remote_locks, settings, asset)
        try:
            with locks.backup_lock(settings, asset, run="tidy"):
                yield from clean((*_on_host_of_asset(settings, asset), remote))
        except LockBusy as error:
            log.warning("%s: not looked at. %s", str(asset).capitalize(), error)
    with locks.tidying(settings) as ours:
        if ours:
            uploads = functools.partial(_uploads, settings)
            yield from clean((*_on_host(settings, recoveries=True), uploads))


def put_hot_copy_back(settings: Settings) -> None:
    """What a recovery before this one had taken, and died with, is the fastest cure there is."""
    taken = [one for one in _incoming(settings) if one.is_hot_copy]
    found = _cleaned([lambda: taken], dry_run=False, with_what_stays=False)
    _tell(found)
    _note(found)


def _on_host_of_asset(settings: Settings, asset: Asset) -> tuple[_Finder, ...]:
    """Only for who holds the asset's lock."""
    finders: list[_Finder] = [functools.partial(_local_locks, settings, asset)]
    if asset is Asset.DATABASE:
        finders.append(functools.partial(_half_written_copies, settings))
        finders.append(functools.partial(_incoming, settings))
    return tuple(finders)


def _on_host(settings: Settings, *, recoveries: bool = False) -> tuple[_Finder, ...]:
    return (
        functools.partial(_restore_tests, settings),
        functools.partial(_repairs, settings),
        functools.partial(_temporary_files, settings),
        _temporary_directories,
        functools.partial(_interrupted_runs, settings, recoveries=recoveries),
    )


def _cleaned(finders: Iterable[_Finder], *, dry_run: bool, with_what_stays: bool) -> list[Leftover]:
    """Clean up what is found. What fails is told, and the rest goes on."""
    done: list[Leftover] = []
    for finder in finders:
        try:
            for found in finder():
                if found.clean or with_what_stays:
                    done += _clean(found, dry_run=dry_run)
        except (RecoveryError, OSError) as error:
            log.warning("Looking for what dead runs left: %s", error)
    return done


def _clean(found: _Found, *, dry_run: bool) -> list[Leftover]:
    try:
        did = found.would if dry_run or found.clean is None else found.clean()
    except (RecoveryError, OSError) as error:
        log.warning("Cleaning up. %s %s: %s", found.what, found.where, error)
        return []
    told = {"what": found.what, "where": found.where, "left_by": found.left_by}
    return [Leftover(**told, done=did)] if did else []


def _note(leftovers: Iterable[Leftover]) -> None:
    """Leave them in the run's record."""
    told = [leftover.in_words() for leftover in leftovers]
    if told:
        run = current_run()
        run.did_something_noteworthy()
        run.fact(leftovers=len(told))
        run.keep("leftovers.txt", "\n".join(told) + "\n")


def _tell(leftovers: Iterable[Leftover]) -> None:
    for leftover in leftovers:
        log.warning("%s", leftover.in_words())


def _removal(path: Path) -> Callable[[], str]:
    def remove() -> str:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return "removed"

    return remove


# --- locks of restic ------------------------------------------------------------------------


def _local_locks(settings: Settings, asset: Asset) -> Iterator[_Found]:
    # Looked for first, because opening a repository costs 0.6 s.
    directory = settings.vault.local / str(asset) / "repository" / "locks"
    try:
        count = sum(1 for _ in directory.iterdir())
    except FileNotFoundError:
        return
    yield from _locks(settings, asset, Tier.LOCAL, count)


def _remote_locks(settings: Settings, asset: Asset) -> Iterator[_Found]:
    found = places.bucket(settings).list(f"{places.repository_key(asset)}/locks/")
    yield from _locks(settings, asset, Tier.S3, len(found))


def _locks(settings: Settings, asset: Asset, tier: Tier, count: int) -> Iterator[_Found]:
    def unlock() -> str:
        # restic itself knows which of them are stale: the process is gone on this host, or was
        # silent for half an hour on another. The locks of the living stay.
        removed = places.repository(settings, asset, tier).unlock()
        return f"{removed} of {count} removed, whose owner is dead" if removed else ""

    if count:
        yield _Found(
            what="Locks of the repository",
            where=f"{asset} in {tier}",
            would=f"those of {count} whose owner is dead would be removed",
            clean=unlock,
        )


# --- the database ---------------------------------------------------------------------------


def _half_written_copies(settings: Settings) -> Iterator[_Found]:
    for path in sorted(places.hot_directory(settings).glob(f"*{places.UNFINISHED}")):
        yield _Found(
            what="The half-written hot copy",
            where=str(path),
            would="would be removed",
            clean=_removal(path),
            left_by="a backup that did not finish",
        )


def _incoming(settings: Settings) -> Iterator[_Found]:
    """Base copies beside the data directory that their recovery never put in place."""
    data = settings.database.data_directory
    begin = f"{data.name}{places.INCOMING}"
    for path in sorted(data.parent.glob(f"{begin}*")):
        run, _, kind = path.name.removeprefix(begin).partition(".")
        journal = journals.read(places.runs_directory(settings), run)
        fate = journal.fate() if journal else Fate.UNKNOWN
        if fate is Fate.ALIVE:
            continue
        told = functools.partial(
            _Found, what="The base copy", where=str(path), left_by=f"{run} ({fate})"
        )
        if journal is None or not fate.dead:
            yield told(would="left as it is: nothing proves that its recovery is dead", clean=None)
        elif f".{kind}" in _BESIDE_INCOMING:
            yield told(what="Scratch of", would="would be removed", clean=_removal(path))
        elif kind:
            yield told(would="left as it is: it is nothing that Lifeboat makes", clean=None)
        else:
            yield _base_copy(path, journal, told)


def _base_copy(path: Path, journal: Journal, told: Callable[..., _Found]) -> _Found:
    """Restored from the vault it may go; taken from the hot copies it goes back."""
    brought = [e for e in journal.acts(BRINGING) if e.get("incoming") == str(path)]
    if (path / "postmaster.pid").exists() or not brought:
        return told(would="left as it is: nothing tells where it came from", clean=None)
    hot = str(brought[-1].get("hot_copy") or "")
    if not hot:
        return told(would="would be removed", clean=_removal(path))
    place = Path(hot)

    def put_back() -> str:
        filesystem.bring(path, place / "base")
        return f"put back as the hot copy {place.name}"

    if (place / "base").is_dir():
        # It was copied, from another file system.
        return told(would="would be removed: the hot copy is in its place", clean=_removal(path))
    if not place.is_dir():
        newer = any(other.name > place.name for other in place.parent.glob("database-*Z"))
        if newer:
            return told(would="would be removed: a newer hot copy is there", clean=_removal(path))
        return told(would=f"left as it is: {place}, where it came from, is not there", clean=None)
    return told(would="would be put back as the hot copy", clean=put_back, is_hot_copy=True)


def _restore_tests(settings: Settings) -> Iterator[_Found]:
    """What was restored to be questioned; the next restore test would remove it as well."""
    places_of_tests = sorted((settings.vault.local / "restore-tests").glob("*"))
    if not places_of_tests:
        return
    try:
        with locks.backup_lock(settings, "restore-test", run="tidy", wait_seconds=0):
            for place in places_of_tests:
                fate = journals.fate_of(places.runs_directory(settings), place.name)
                if fate.dead and place.exists():
                    yield _Found(
                        what="What was restored for a test,",
                        where=str(place),
                        would="would be removed",
                        clean=functools.partial(_remove_restore_test, place),
                        left_by=f"{place.name} ({fate})",
                    )
    except LockBusy:
        return


def _repairs(settings: Settings) -> Iterator[_Found]:
    """Versions of files that a recovery was looking at when it died."""
    for place in sorted(places.repairs_directory(settings).glob("*")):
        fate = journals.fate_of(places.runs_directory(settings), place.name)
        if fate.dead:
            yield _Found(
                what="What a repair was looking at,",
                where=str(place),
                would="would be removed",
                clean=_removal(place),
                left_by=f"{place.name} ({fate})",
            )


def _remove_restore_test(place: Path) -> str:
    # Its server outlives a starter that was killed, and would go on writing.
    postgres.end_orphan(place / str(Asset.DATABASE) / "base")
    return _removal(place)()


# --- small things ---------------------------------------------------------------------------


def _temporary_files(settings: Settings) -> Iterator[_Found]:
    """Files that were to be renamed into place when they are whole."""
    records, local = places.records_directory(settings), settings.vault.local
    directories = [
        records,
        *(records / kind for kind in Kind),
        places.wal_directory(settings),
        *(local / str(asset) / "facts" for asset in Asset),
    ]
    for directory in directories:
        for path in sorted(directory.glob(".*")):
            named = _TEMPORARY.match(path.name)
            if named and lives.life_of(int(named["pid"])) is None and _age_seconds(path) > 60:
                yield _Found(
                    what="The unfinished file",
                    where=str(path),
                    would="would be removed",
                    clean=_removal(path),
                    left_by=f"process {named['pid']}, which is gone",
                )


def _temporary_directories() -> Iterator[_Found]:
    """Ours in the system's place for them, where the key of the WAL lies for some seconds."""
    for path in sorted(Path(tempfile.gettempdir()).glob("lifeboat-????????")):
        try:
            ours = path.lstat().st_uid == os.getuid()
            inside = {entry.name for entry in path.iterdir()}
        except OSError:
            continue
        if ours and inside <= {vault.WAL_KEY_NAME} and _age_seconds(path) > _OLD.total_seconds():
            yield _Found(
                what="The temporary directory",
                where=str(path),
                would="would be removed",
                clean=_removal(path),
            )


def _age_seconds(path: Path) -> float:
    try:
        return clock.now().timestamp() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _uploads(settings: Settings) -> Iterator[_Found]:
    """Large uploads that nobody will end: their parts are invisible, and are paid for."""
    bucket = places.bucket(settings)
    oldest = clock.now() - _OLD
    old = tuple(upload for upload in bucket.unfinished_uploads() if upload.begun_at < oldest)
    if old:

        def abort() -> str:
            bucket.abort_uploads(old)
            return "given up"

        yield _Found(
            what=f"{len(old)} interrupted uploads to",
            where=f"bucket {bucket.name}, the oldest of {old[0].begun_at:%Y-%m-%d %H:%M} UTC",
            would="would be given up",
            clean=abort,
        )


def _interrupted_runs(settings: Settings, *, recoveries: bool) -> Iterator[_Found]:
    """Runs without an end, told once. An interrupted recovery is told by the next one."""
    for journal in journals.unfinished(places.runs_directory(settings)):
        if journal.procedure.startswith(_RECOVERY) and not recoveries:
            continue
        if journal.fate() is not Fate.INTERRUPTED:
            continue
        moved = [f"{m.what} is now {m.where}" for m in journal.record().moved_aside]

        def close(journal: Journal = journal) -> str:
            journal.close(by=current_run().id)
            return "noted"

        yield _Found(
            what="The run",
            where=f"{journal.run} was interrupted ({'; '.join([journal.last_words, *moved])})",
            would="would be noted",
            clean=close,
        )
