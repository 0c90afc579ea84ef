"""A cluster's files on this host: what lies in a data directory, and how recovery is told to it.

Source: PostgreSQL manual, "Continuous Archiving and Point-in-Time Recovery"; the page header of a
WAL segment is `XLogLongPageHeaderData` in `src/include/access/xlog_internal.h`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from lifeboat.core.errors import CommandFailed, PermanentError, PreconditionError
from lifeboat.core.wal import (
    PARTIAL,
    Segment,
    Switch,
    format_lsn,
    history_timeline,
    is_segment_name,
    parse_history,
    parse_lsn,
)
from lifeboat.tools import process

_LONG_HEADER = struct.Struct("<HHIQIxxxxQII")  # magic, info, timeline, address, rest, system, sizes
_IS_LONG = 0x0002
_IDENTIFIER = struct.Struct("=Q")
_NEEDED = ("PG_VERSION", "global/pg_control", "base", "pg_wal", "pg_xact")
# Set by us for the recovery, or a promise of the old server that the new one can't keep yet.
_OURS = frozenset(
    {
        *("restore_command", "recovery_target_time", "recovery_target_timeline"),
        *("recovery_target_action", "recovery_target_inclusive", "recovery_end_command"),
        # Of an earlier recovery by another tool: PostgreSQL refuses two targets.
        *("recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_xid"),
        "synchronous_standby_names",
    }
)
# What the new timeline writes before the slot is there is kept for the receiver, whatever dies in
# between. The whole line is ours: a wal_keep_size of the server's own stays.
_KEEP_WAL = "wal_keep_size = '1TB'"


@dataclass(frozen=True)
class Reached:
    """Where a recovery ended and the new timeline began."""

    lsn: int
    timeline: int
    ancestors: tuple[Switch, ...] = ()  # the oldest first; the last of them ended at `lsn`


def cluster_problems(data_directory: Path) -> tuple[str, ...]:
    """What is wrong with a data directory as it lies there, without starting it; empty: nothing."""
    if not data_directory.is_dir():
        return ("it is not there",)
    problems = [f"{name} is missing" for name in _NEEDED if not (data_directory / name).exists()]
    control = data_directory / "global/pg_control"
    if control.exists() and control.stat().st_size < 512:
        problems.append("global/pg_control is cut short")
    return tuple(problems)


def system_identifier_of(data_directory: Path) -> str | None:
    """Which cluster lies there, by the first eight bytes of pg_control; None if that can't be read.

    Source: `ControlFileData` in `src/include/catalog/pg_control.h`.
    """
    try:
        with (data_directory / "global/pg_control").open("rb") as file:
            return str(_IDENTIFIER.unpack(file.read(_IDENTIFIER.size))[0])
    except (OSError, struct.error):
        return None


# --- WAL files ------------------------------------------------------------------------------


def collect_segments(wal_directory: Path, system_identifier: str) -> dict[str, Path]:
    """WAL files that the receiver has written, by name: segments, `.partial` ones, histories."""
    found: dict[str, Path] = {}
    for path in sorted((wal_directory / system_identifier).glob("*/*")):
        name = path.name
        if is_segment_name(name.removesuffix(PARTIAL)) or history_timeline(name) is not None:
            # Of two the later: a receiver that began anew may have got further.
            known = found.get(name)
            with contextlib.suppress(FileNotFoundError):  # renamed: its segment is full
                if known is None or known.stat().st_mtime <= path.stat().st_mtime:
                    found[name] = path
    return found


def salvage_segments(
    data_directory: Path, system_identifier: str, segment_bytes: int
) -> dict[str, Path]:
    """Segments in a data directory's own pg_wal that really hold what their names say; histories.

    A segment that was recycled for later use has the address or the timeline of its old life
    inside, and is left out.
    """
    pg_wal = data_directory / "pg_wal"
    found = {path.name: path for path in sorted(pg_wal.glob("*.history")) if path.is_file()}
    # The first segment of a timeline begins with pages of the one before it.
    first: set[Segment] = set()
    for name, path in found.items():
        timeline, switches = history_timeline(name), _switches(path)
        if timeline is not None and switches:
            first.add(Segment(timeline, switches[-1].lsn // segment_bytes))
    for path in sorted(pg_wal.glob("*")):
        segment = Segment.parse(path.name, segment_bytes)
        if segment is None or path.name != segment.name(segment_bytes):
            continue
        try:
            head = _read_header(path)
            if head.fits(segment, system_identifier, segment_bytes, first=segment in first):
                found[path.name] = path
        except (OSError, struct.error):
            continue
    return found


def _switches(history: Path) -> tuple[Switch, ...]:
    """The ancestors in a history file; none if it is damaged, as all else here may be."""
    try:
        return parse_history(history.read_text(errors="replace"))
    except (OSError, PreconditionError):
        return ()


@dataclass(frozen=True)
class _Header:
    """What the first page of a segment says of itself."""

    is_long: bool
    timeline: int
    address: int
    system_identifier: str
    segment_bytes: int
    file_bytes: int

    def fits(
        self, segment: Segment, system_identifier: str, segment_bytes: int, *, first: bool
    ) -> bool:
        return (
            self.is_long
            and self.address == segment.number * segment_bytes
            and self.system_identifier == system_identifier
            and self.segment_bytes == self.file_bytes == segment_bytes
            and (self.timeline == segment.timeline or (first and self.timeline < segment.timeline))
        )


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        head = file.read(_LONG_HEADER.size)
    _, info, timeline, address, _, system, size, _ = _LONG_HEADER.unpack(head)
    return _Header(
        is_long=bool(info & _IS_LONG),
        timeline=timeline,
        address=address,
        system_identifier=str(system),
        segment_bytes=size,
        file_bytes=path.stat().st_size,
    )


def end_of_wal(
    path: Path, name: str, bin_directory: Path | None, *, segment_bytes: int
) -> int | None:
    """The end of the last whole record in a segment's file; None if it holds no whole record.

    A recovery that has this segment and ends before that position stopped short.
    """
    said = _dump(path, name, bin_directory, segment_bytes, "--stats")
    match = re.search(rb"between ([0-9A-F]+/[0-9A-F]+) and ([0-9A-F]+/[0-9A-F]+)", said)
    if not match:
        return None
    start, end = (parse_lsn(group.decode()) for group in match.groups())
    return end if end > start else None


def last_commit_at(
    path: Path, name: str, bin_directory: Path | None, *, segment_bytes: int
) -> datetime | None:
    """When the last commit in a segment's file was made; None if it holds none.

    A recovery to a moment needs a commit from after it, by which it knows that it is there.
    """
    said = _dump(path, name, bin_directory, segment_bytes, "--rmgr=Transaction")
    found = re.findall(rb"COMMIT(?:_PREPARED \d+:)? (\d{4}-\d\d-\d\d [\d:.]+) UTC", said)
    if not found:
        return None
    return datetime.fromisoformat(found[-1].decode()).replace(tzinfo=timezone.utc)


def _dump(
    path: Path, name: str, bin_directory: Path | None, segment_bytes: int, wanted: str
) -> bytes:
    """What pg_waldump says of a segment's file, up to its last whole record."""
    segment = Segment.parse(name, segment_bytes)
    if segment is None:
        raise PermanentError(f"Reading {path}: {name} is no name of a WAL segment.")
    program = str(bin_directory / "pg_waldump") if bin_directory else "pg_waldump"
    begin = segment.number * segment_bytes
    with tempfile.TemporaryDirectory(prefix="lifeboat-") as directory:
        # It wants the plain name, which a `.partial` does not have.
        (Path(directory) / segment.name(segment_bytes)).symlink_to(path.resolve())
        try:
            told = process.run(
                [
                    *(program, wanted, "--path", directory),
                    *("--timeline", str(segment.timeline)),
                    *("--start", format_lsn(begin), "--end", format_lsn(begin + segment_bytes)),
                ],
                doing=f"Reading the records of {name}",
                env={"TZ": "UTC"},
                ok_codes=(0, 1),
            )
        except CommandFailed:
            return b""
    return told.stdout


# --- telling recovery -----------------------------------------------------------------------


def stage_recovery(
    directory: Path,
    *,
    segments: Mapping[str, Path],
    histories: Mapping[str, Path],
    target_time: datetime | None,
    target_timeline: int,
    scratch: Path | None = None,
) -> None:
    """Put WAL into a base copy's own pg_wal and tell it to replay to the end, or to a moment.

    PostgreSQL then needs no mount, no tool and no archive: what is not in pg_wal does not exist.
    From then on the server keeps all WAL, until `let_go_of_wal`.
    Files that lie in `scratch` are moved. Others are copied, and never linked, because the server
    writes into its old segments again.
    """
    pg_wal = directory / "pg_wal"
    pg_wal.mkdir(exist_ok=True)
    owner = directory.stat()
    staged = []
    for name, source in (*segments.items(), *histories.items()):
        target = pg_wal / name
        if target.exists() and target.samefile(source):
            continue
        # With its time: the one of a history says when that timeline began.
        if source.parent == scratch:
            shutil.move(source, target)
        else:
            shutil.copy2(source, target)
        staged.append(target)
    settings = {
        "restore_command": "'false'",
        "recovery_target_timeline": f"'{target_timeline}'",
        "recovery_target_action": "'promote'",
    }
    if target_time is not None:
        moment = target_time.astimezone(timezone.utc)
        settings["recovery_target_time"] = f"'{moment:%Y-%m-%d %H:%M:%S.%f+00}'"
    (directory / "standby.signal").unlink(missing_ok=True)
    signal = directory / "recovery.signal"
    signal.touch()
    _rewrite(
        directory / "postgresql.auto.conf",
        [*(f"{key} = {value}" for key, value in settings.items()), _KEEP_WAL],
    )
    for path in (*staged, signal, directory / "postgresql.auto.conf"):
        os.chown(path, owner.st_uid, owner.st_gid)
        path.chmod(0o600)


def finish_recovery(data_directory: Path) -> None:
    """Take the settings of the recovery away again, so that no later start meets them.

    That it keeps all WAL stays: `let_go_of_wal` ends it once a slot does that.
    """
    kept = [_KEEP_WAL] if keeps_all_wal(data_directory) else []
    _rewrite(data_directory / "postgresql.auto.conf", kept)


def keeps_all_wal(data_directory: Path) -> bool:
    """Whether a recovery told the server to keep all WAL, and no slot keeps it yet."""
    path = data_directory / "postgresql.auto.conf"
    return path.exists() and _KEEP_WAL in path.read_text().splitlines()


def let_go_of_wal(data_directory: Path) -> None:
    """Let the server remove old WAL again. It has to be told to read its settings anew."""
    _rewrite(data_directory / "postgresql.auto.conf", [])


def _rewrite(path: Path, added: Iterable[str]) -> None:
    kept = list(_without_ours(path.read_text().splitlines() if path.exists() else ()))
    # A recovery and a receiver may write at once.
    part = path.with_name(f".{path.name}.lifeboat-{os.getpid()}")
    with part.open("w") as file:
        file.write("\n".join([*kept, *added]) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a power cut must not leave it empty, with all that people set
    if path.exists():
        seen = path.stat()
        os.chown(part, seen.st_uid, seen.st_gid)
        part.chmod(seen.st_mode & 0o777)
    part.replace(path)


def _without_ours(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line.split("=", 1)[0].strip() not in _OURS and line != _KEEP_WAL:
            yield line


def recovered_to(data_directory: Path) -> Reached:
    """Where the timeline branched off that a recovery of this cluster began.

    By the history that the server wrote last: a higher number may be another server's, staged with
    all the others so that the new one is new.
    """
    pg_wal = data_directory / "pg_wal"
    written = {
        (path.stat().st_mtime_ns, timeline): switches
        for path in pg_wal.glob("*.history")
        if (timeline := history_timeline(path.name)) and (switches := _switches(path))
    }
    if not written:
        raise PermanentError(
            f"Looking where the recovery ended: {pg_wal} holds no history of a timeline.",
            hint="The server was started without recovery: look at its log.",
        )
    newest = max(written)
    switches = written[newest]
    return Reached(lsn=switches[-1].lsn, timeline=newest[1], ancestors=switches)
