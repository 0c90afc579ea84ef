"""What is seen of the platform's own host: the hot copy, the receiver, the disk, its places."""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from lifeboat.core import coverage
from lifeboat.core.coverage import Place, Protected
from lifeboat.core.errors import PreconditionError, TransientError, VerificationFailed
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.survey import Host, HotCopy, Interrupted, Listing, Problem, Receiver, Space
from lifeboat.settings import ComposeStackSettings, Settings
from lifeboat.tools import filesystem, postgres
from tasks import backup, catalogue, clock, journals, places, protection
from tasks.journals import Fate
from tasks.looking import seen
from tasks.orchestration import side_by_side
from tasks.record import RECORD_NAME
from tasks.survey_vault import is_proven, parse_record
from tasks.wal import wal_health
from tasks.wal.wal_health import ReceiverState

log = logging.getLogger("lifeboat")

_PROBE = "records/probe-"
_FORGOTTEN = timedelta(hours=1)  # a probe that old was left by a look that was killed


def look_at_host(settings: Settings) -> Host:
    """All that only this host can tell; what can't be seen is told with its cause."""
    found = side_by_side(
        {
            "hot_copy": lambda: seen(lambda: _hot_copy(settings)),
            "receiver": lambda: seen(lambda: _receiver(settings)),
            "listing": lambda: seen(lambda: _listing(settings)),
            "protection": lambda: seen(lambda: protection.look(settings)),
            "space": lambda: seen(lambda: _space(settings)),
            "places": lambda: seen(lambda: _places(settings)),
            "interrupted": lambda: seen(lambda: tuple(_interrupted(settings))),
        }
    )
    return Host(**found, unproven=_unproven(settings))


def _unproven(settings: Settings) -> str:
    try:
        return (settings.vault.local / backup.UNPROVEN_NAME).read_text().strip() or "?"
    except OSError:
        return ""


def _hot_copy(settings: Settings) -> HotCopy | None:
    """The hot copy, compared with its own manifest by the names and sizes of its files."""
    tried = None
    while (newest := _newest_hot(settings)) and newest.id != tried:
        tried = newest.id
        problem = ""
        try:
            base = Path(newest.copies[Tier.HOT]) / "base"
            postgres.verify_backup(base, settings.database.bin_directory, checksums=False)
        except VerificationFailed as error:
            problem = error.message
        # A backup may have put a newer one in its place meanwhile, and removed it.
        current = _newest_hot(settings)
        if not problem or (current and current.id == newest.id):
            return HotCopy(newest.id, newest.taken_at, problem)
    return None


def _newest_hot(settings: Settings) -> RecoveryPoint | None:
    found = catalogue.list_points(settings, assets=(Asset.DATABASE,), tiers=(Tier.HOT,))
    return next(iter(found), None)


def _receiver(settings: Settings) -> Receiver:
    """Raises TransientError if the database does not tell."""
    health = wal_health.look(settings)
    if health.receiver is ReceiverState.UNKNOWN:
        raise TransientError(" ".join(found.sentence for found in health.findings))
    return Receiver(
        streaming=health.receiver is ReceiverState.STREAMING,
        synchronous=health.synchronous,
        lag_bytes=health.lag_bytes,
        kept_percent=health.used_percent,
        problems=tuple(Problem(found.sentence, found.hint) for found in health.findings),
    )


def _listing(settings: Settings) -> Listing:
    """Write a probe, find it in the listing, read it back, and take it away again."""
    store = places.bucket(settings)
    key, data = f"{_PROBE}{secrets.token_hex(8)}", secrets.token_bytes(64)
    began = time.monotonic()
    store.put(key, data)
    gone = [key]
    try:
        probes = store.list(_PROBE)
        oldest = clock.now() - _FORGOTTEN
        gone += [probe.key for probe in probes if probe.modified_at < oldest and probe.key != key]
        return Listing(
            listed=any(probe.key == key for probe in probes),
            same_content=store.get(key) == data,
            seconds=time.monotonic() - began,
        )
    finally:
        store.delete(gone)


def _space(settings: Settings) -> Space:
    return Space(
        free_bytes=filesystem.free_bytes(settings.vault.local),
        reserve_bytes=filesystem.RESERVE_BYTES,
    )


def _interrupted(settings: Settings) -> Iterator[Interrupted]:
    """Recoveries that were left half way, and after which not all checks have passed yet."""
    runs = places.runs_directory(settings)
    dead = [
        journal.record()
        for journal in journals.unfinished(runs)
        if journal.procedure.startswith("recover") and journal.fate() is Fate.INTERRUPTED
    ]
    settled_at = _settled_at(runs) if dead else 0.0
    for run in dead:
        if run.began_at > settled_at:
            yield Interrupted(
                id=run.id,
                procedure=run.procedure,
                began_at=datetime.fromtimestamp(run.began_at, tz=timezone.utc),
                told=run.error or "?",
            )


def _settled_at(runs: Path) -> float:
    """When all checks passed for the last time, in a recovery or in a verification of its own."""
    ends = [0.0]
    for pattern in ("recover-*", "verify-recovery-*"):
        for path in runs.glob(f"{pattern}/{RECORD_NAME}"):
            record = parse_record(path.read_bytes())
            if record is not None and is_proven(record):
                ends.append(record.ended_at or 0.0)
    return max(ends)


# --- places ---------------------------------------------------------------------------------


def protected(settings: Settings) -> Protected:
    """What is backed up, comes from git, or is the vault itself."""
    data = settings.database.data_directory
    paths = [
        data,
        *settings.files.directories.values(),
        *settings.models.directories.values(),
        *settings.config.paths,
        settings.vault.local,
    ]
    if settings.code:
        paths.append(settings.code.directory)
    if "_data" in data.parts:
        # A volume in which the image keeps its data directory deeper down.
        paths.append(Path(*data.parts[: data.parts.index("_data") + 1]))
    return Protected(paths=tuple(paths), excused=settings.watch.excused)


def _places(settings: Settings) -> tuple[Place, ...]:
    if isinstance(settings.stack, ComposeStackSettings):
        return _places_of_compose(settings, settings.stack)
    data = (
        settings.database.data_directory,
        *settings.files.directories.values(),
        *settings.models.directories.values(),
    )
    children = (
        Path(entry.path)
        for parent in coverage.parents_to_look_in(data)
        for entry in _entries(Path(parent))
        if entry.is_dir()
    )
    return coverage.places_beside(children, protected=data, directory=settings.directory)


def _entries(directory: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return ()


def _places_of_compose(settings: Settings, stack: ComposeStackSettings) -> tuple[Place, ...]:
    path = stack.compose_file
    try:
        told = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise PreconditionError(f"Reading {path}: it is not valid YAML: {what}.") from error
    named = told.get("name") if isinstance(told, Mapping) else None
    found = coverage.places_of_compose(
        told,
        directory=path.parent,
        project=stack.project_name or named or _project_of(path.parent),
        variables=_variables(stack.env_file or path.parent / ".env"),
    )
    file = Place(coverage.name_below(path, settings.directory), path, "the compose file")
    return (file, *found)


def _project_of(directory: Path) -> str:
    """The name that Compose gives a project after its directory."""
    return re.sub(r"[^a-z0-9_-]", "", directory.name.lower()).lstrip("_-")


def _variables(path: Path) -> dict[str, str]:
    """The KEY=VALUE lines of an environment file; of one that is not there none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.strip().removeprefix("export ").partition("=") for line in lines)
    return {
        name.strip(): value.strip().strip("\"'")
        for name, equals, value in pairs
        if equals and not name.startswith("#")
    }
