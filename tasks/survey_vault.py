"""What is seen of the vault: its repositories, its log and its notes, in each tier by itself."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lifeboat.core.checks import Verdict
from lifeboat.core.drill import DrillOnRecord
from lifeboat.core.errors import PermanentError, RecoveryError
from lifeboat.core.forms import Scenario
from lifeboat.core.marks import Began, Kind, Sighting, TestResult, Verified
from lifeboat.core.objectives import Report, only_on_host
from lifeboat.core.points import FACTS_NAME, Asset, Facts, RecoveryPoint, Tier
from lifeboat.core.review_kinds import ReviewKind
from lifeboat.core.reviews import Shelf, SignedOff, review_kind_of
from lifeboat.core.survey import HostReport, Log, Parts, Rehearsal, Store, Unseen, WalFile
from lifeboat.core.timeline import Outcome, Phase, RunRecord, phase_seconds
from lifeboat.core.wal import PARTIAL, history_timeline, is_segment_name
from lifeboat.settings import Settings
from lifeboat.tools import filesystem
from tasks import catalogue, marks, places, vault
from tasks.looking import seen
from tasks.orchestration import side_by_side
from tasks.wal import wal_continuity

log = logging.getLogger("lifeboat")

REPORT_KEY = "records/objectives.json"

_SMALLEST_BYTES = 32  # nothing that restic encrypts is shorter
_NEWEST = 8  # how many of the newest notes of a kind are read
_RUNS = "records/runs/"
_EMPTY_SHA256 = hashlib.sha256().hexdigest()
_NEVER_EMPTY = frozenset(
    (
        *(".yaml", ".yml", ".json", ".conf", ".crt", ".env", ".ini", ".key", ".pem", ".toml"),
        *(".cfg", ".sql", ".sh"),
    )
)


# --- a tier ---------------------------------------------------------------------------------


def look_at_tier(settings: Settings, tier: Tier) -> tuple[tuple[Store, ...], Log]:
    """Every repository of a tier and its log; what can't be seen is told with its cause."""
    work: dict[str, Callable[[], Any]] = {
        str(asset): functools.partial(_store, settings, asset, tier)
        for asset in (Asset.FILES, Asset.MODELS, Asset.CONFIG)
    }
    # One after the other, so that the repository of the database is opened once for both.
    work["database"] = lambda: (_store(settings, Asset.DATABASE, tier), _log(settings, tier))
    found = side_by_side(work)
    database, wal = found.pop("database")
    return (database, *found.values()), wal


def unseen_tier(tier: Tier, why: Unseen) -> tuple[tuple[Store, ...], Log]:
    """A tier of which it is known that nothing can be seen."""
    stores = tuple(Store(asset, tier, why, why) for asset in Asset)
    return stores, Log(why, why, sealed=tier is Tier.S3, key=why)


def _store(settings: Settings, asset: Asset, tier: Tier) -> Store:
    return Store(
        asset=asset,
        tier=tier,
        points=seen(lambda: _points(settings, asset, tier)),
        parts=seen(lambda: _parts(settings, asset, tier)),
    )


def _points(settings: Settings, asset: Asset, tier: Tier) -> tuple[RecoveryPoint, ...]:
    return catalogue.list_points(settings, assets=(asset,), tiers=(tier,))


def _parts(settings: Settings, asset: Asset, tier: Tier) -> Parts:
    list_files = _in_bucket if tier is Tier.S3 else _in_directory
    sizes = {part: list_files(settings, asset, part) for part in ("keys", "index", "snapshots")}
    sizes["config"] = list_files(settings, asset, "config")
    if tier is Tier.LOCAL:
        # As a power failure or a full disk leaves them. In the bucket an object is whole, or not
        # there, and listing every pack of a large vault takes long.
        sizes["data"] = list_files(settings, asset, "data")
    stunted = sorted(
        name for of in sizes.values() for name, size in of.items() if size < _SMALLEST_BYTES
    )
    return Parts(
        config=bool(sizes["config"]),
        keys=len(sizes["keys"]),
        indexes=len(sizes["index"]),
        snapshots=len(sizes["snapshots"]),
        stunted=tuple(stunted),
    )


def _in_bucket(settings: Settings, asset: Asset, part: str) -> dict[str, int]:
    root = f"{places.repository_key(asset)}/"
    found = places.bucket(settings).list(f"{root}{part}")
    return {item.key.removeprefix(root): item.bytes for item in found}


def _in_directory(settings: Settings, asset: Asset, part: str) -> dict[str, int]:
    root = places.repository_directory(settings, asset)
    path = root / part
    if path.is_file():
        return {part: path.stat().st_size}
    found = {}
    for entry in filesystem.walk(path) if path.is_dir() else ():
        try:
            size = entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
        # restic writes under another name until a file is whole.
        if not entry.name.endswith("-tmp") and "-tmp-" not in entry.name:
            found[str(PurePath(entry.path).relative_to(root))] = size
    return found


# --- the log --------------------------------------------------------------------------------


def _log(settings: Settings, tier: Tier) -> Log:
    list_files = _sealed_files if tier is Tier.S3 else _plain_files
    return Log(
        continuity=seen(lambda: wal_continuity.look(settings, tier)),
        files=seen(lambda: tuple(list_files(settings))),
        sealed=tier is Tier.S3,
        key=seen(lambda: vault.has_wal_key(settings, tier)),
    )


def _sealed_files(settings: Settings) -> Iterator[WalFile]:
    for item in places.bucket(settings).list(places.WAL_PREFIX):
        name = item.key.rpartition("/")[2].removesuffix(places.SEALED)
        if is_segment_name(name.removesuffix(PARTIAL)) or history_timeline(name) is not None:
            yield WalFile(name, item.bytes, item.modified_at)


def _plain_files(settings: Settings) -> Iterator[WalFile]:
    for file in wal_continuity.local_files(settings):
        try:
            told = file.path.stat()
        except FileNotFoundError:
            continue  # renamed: its segment is full, and looked at in the next round
        modified_at = datetime.fromtimestamp(told.st_mtime, tz=timezone.utc)
        yield WalFile(file.name, told.st_size, modified_at)


# --- notes ----------------------------------------------------------------------------------


class Notes:
    """The notes below `records/`, as the bucket has them, or else as this host has them."""

    def __init__(self, settings: Settings, *, in_bucket: bool) -> None:
        self._settings, self._in_bucket = settings, in_bucket

    def sightings(self) -> Mapping[str, Sighting]:
        return {
            mark.subject: mark
            for mark in self._read(Kind.SIGHTINGS, self._names(Kind.SIGHTINGS))
            if isinstance(mark, Sighting)
        }

    def tests(self) -> Mapping[Asset, TestResult]:
        found: dict[Asset, TestResult] = {}
        for mark in self._read(Kind.TESTS, self._names(Kind.TESTS)):
            if isinstance(mark, TestResult) and mark.asset in set(Asset):
                known = found.get(Asset(mark.asset))
                if known is None or known.ended_at < mark.ended_at:
                    found[Asset(mark.asset)] = mark
        return found

    def drills(self) -> tuple[DrillOnRecord, ...]:
        names = self._names(Kind.DRILLS)[:_NEWEST]
        return tuple(m for m in self._read(Kind.DRILLS, names) if isinstance(m, DrillOnRecord))

    def measured(self) -> Mapping[Asset, Verified]:
        """Of each asset the newest restore whose time was taken."""
        names = self._names(Kind.VERIFIED)
        found: dict[Asset, Verified] = {}
        for asset in Asset:
            ours = [name for name in names if name.startswith(f"{asset}-")][:_NEWEST]
            for mark in self._read(Kind.VERIFIED, ours):
                if isinstance(mark, Verified) and mark.restored_bytes and mark.restore_seconds:
                    found[asset] = mark
                    break
        return found

    def reviews(self) -> Shelf:
        """Every test and review that was signed off, and since when the platform is protected."""
        began = [
            mark.since
            for mark in self._read(Kind.BEGAN, self._names(Kind.BEGAN))
            if isinstance(mark, Began)
        ]
        # Of each kind the newest few: years of them need not be opened at every look.
        names = self._names(Kind.REVIEWS)
        newest = [
            name
            for kind in ReviewKind
            for name in [n for n in names if review_kind_of(n) == kind][:_NEWEST]
        ]
        signed = tuple(m for m in self._read(Kind.REVIEWS, newest) if isinstance(m, SignedOff))
        return Shelf(began_at=min(began, default=None), signed=signed)

    def _names(self, kind: Kind) -> list[str]:
        """Names of the marks of a kind, the newest first where they tell a time."""
        if self._in_bucket:
            keys = (item.key for item in places.bucket(self._settings).list(f"records/{kind}/"))
        else:
            here = places.records_directory(self._settings) / kind
            keys = (str(path) for path in here.glob("*.json"))
        return sorted((PurePath(key).stem for key in keys), reverse=True)

    def _read(self, kind: Kind, names: Iterable[str]) -> Iterator[BaseModel]:
        for name in names:
            try:
                yield marks.read(self._settings, kind, name, from_bucket=self._in_bucket)
            except PermanentError as error:  # damaged, or taken away meanwhile
                log.warning("%s", error)


def rehearsals_of(drills: tuple[DrillOnRecord, ...]) -> tuple[Rehearsal, ...]:
    """Recoveries that were carried out in drills."""
    return tuple(rehearsal for drill in drills for rehearsal in _of_drill(drill))


def rehearsals(
    settings: Settings,
    drills: tuple[DrillOnRecord, ...] | Unseen,
    *scenarios: Scenario,
) -> tuple[Rehearsal, ...]:
    """Recoveries of these scenarios, or of all, that the bucket tells of: in earnest, in drills."""
    found = [] if isinstance(drills, Unseen) else list(rehearsals_of(drills))
    keys = [item.key for item in places.bucket(settings).list(f"{_RUNS}recover-")]
    ids = sorted({key.removeprefix(_RUNS).split("/")[0] for key in keys}, reverse=True)
    for scenario in scenarios or get_args(Scenario):
        ours = [run for run in ids if run.startswith(f"recover-{scenario}-")][:_NEWEST]
        for run in ours:
            record = _record(settings, f"{_RUNS}{run}/record.json")
            if record is not None and is_proven(record):
                found.append(_of_record(scenario, record))
                break
    return tuple(found)


def _of_drill(drill: DrillOnRecord) -> Iterator[Rehearsal]:
    for drilled in drill.scenarios:
        if drilled.passed and drilled.name in get_args(Scenario):
            yield Rehearsal(
                scenario=drilled.name,  # type: ignore[arg-type]
                by=drill.id,
                ended_at=drill.ended_at,
                start_seconds=drilled.start_seconds,
                verify_seconds=drilled.verify_seconds,
            )


def _of_record(scenario: Scenario, record: RunRecord) -> Rehearsal:
    phases = phase_seconds(record.steps)
    return Rehearsal(
        scenario=scenario,
        by=record.id,
        ended_at=datetime.fromtimestamp(record.ended_at or record.began_at, tz=timezone.utc),
        start_seconds=phases[Phase.START],
        verify_seconds=phases[Phase.VERIFY],
    )


def _record(settings: Settings, key: str) -> RunRecord | None:
    try:
        return parse_record(places.bucket(settings).get(key))
    except PermanentError:
        return None  # it has a journal only: the run was interrupted


def parse_record(data: bytes) -> RunRecord | None:
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        log.warning("A record is damaged (%d errors).", error.error_count())
        return None


def is_proven(record: RunRecord) -> bool:
    """Whether a recovery was carried out and all of its checks passed."""
    verdict: Verdict | None = record.verdict
    return record.outcome is Outcome.DONE and verdict is not None and verdict.good


def host_report(settings: Settings) -> HostReport | None:
    """What the platform's host said of itself last; None: it never looked."""
    store = places.bucket(settings)
    if not store.exists(REPORT_KEY):
        return None
    try:
        report = Report.model_validate_json(store.get(REPORT_KEY))
    except ValidationError as error:
        raise PermanentError(
            f"Reading {REPORT_KEY}: it is damaged ({error.error_count()} errors)."
        ) from error
    red = {f.name: f.evidence for f in report.red if only_on_host(f.name)}
    return HostReport(at=report.at, red=red)


# --- the configuration ----------------------------------------------------------------------


def configuration_facts(settings: Settings, stores: Iterable[Store]) -> Facts:
    """The facts of the newest configuration. Those that its backup left on this host are the same.

    Raises PreconditionError or another RecoveryError if there are none that can be read.
    """
    points = sorted(
        (
            point
            for store in stores
            if store.asset is Asset.CONFIG and not isinstance(store.points, Unseen)
            for point in store.points
        ),
        key=lambda point: point.taken_at,
    )
    if not points:
        raise PermanentError("Reading the newest configuration: there is no point of it.")
    note = settings.vault.local / str(Asset.CONFIG) / "facts" / FACTS_NAME
    try:
        facts = catalogue.parse_facts(note.read_bytes(), where=str(note))
        if facts.point == points[-1].id:
            return facts
    except (RecoveryError, OSError):
        pass  # then the vault tells
    return catalogue.read_facts(settings, points[-1])


def emptied_files(facts: Facts) -> tuple[str, ...]:
    """Files of the configuration that are empty and of a kind that never is."""
    found = []
    for name, told in facts.directories.items():
        alone = Path(told.path).name
        for relative, digest in told.digests.items():
            kind = (
                ".env" if PurePath(relative).name.startswith(".env") else PurePath(relative).suffix
            )
            if digest == _EMPTY_SHA256 and kind in _NEVER_EMPTY:
                found.append(relative if relative == alone else f"{name}/{relative}")
    return tuple(sorted(found))
