"""Proof after a repair: every file against its digest, and what can't come back, by name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lifeboat.core.errors import PermanentError, VerificationFailed
from lifeboat.core.points import Asset
from lifeboat.core.references import Referred
from lifeboat.core.timeline import Phase
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, postgres
from tasks import places
from tasks.database import connection
from tasks.orchestration import step
from tasks.record import current_run
from tasks.repair import Source
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


@step(Phase.VERIFY)
def verify_integrity(settings: Settings, source: Source) -> None:
    """Read every file that the database refers to and compare it with its SHA-256.

    A bad file that the recovery point holds raises VerificationFailed. One that was written after
    the point and is gone can't come back from anywhere: it is recorded as a known loss, by name,
    so that it is told to people and not mistaken for new damage.
    """
    roots = list(directories_of(settings, Asset.FILES).values())
    bad = [item for item in referred_files(settings) if not _whole(roots, item)]
    if not bad:
        return
    store = places.repository(settings, Asset.FILES, source.tier)
    held = {
        entry.path
        for name in directories_of(settings, Asset.FILES)
        for entry in store.list_files(source.snapshot, subfolder=source.path_of(name))
    }
    repairable = [item.path for item in bad if item.path in held]
    if repairable:
        raise VerificationFailed(
            f"Verifying the files: {len(repairable)} are still missing or damaged although "
            f"{source.point.id} holds them, first {repairable[0]!r}.",
            hint="Run it again with --from s3.",
        )
    remember_losses(settings, (item.path for item in bad))


def _whole(roots: Iterable[Path], item: Referred) -> bool:
    for root in roots:
        path = root / item.path
        if path.is_file():
            return path.stat().st_size == item.bytes and filesystem.digest(path) == item.sha256
    return False


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
            "%d files were written after the recovery point and are gone, first %s. All names: %s",
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
    lines = path.read_text().splitlines()
    return frozenset(json.loads(line)["path"] for line in lines if line.strip())
