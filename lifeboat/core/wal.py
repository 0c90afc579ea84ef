"""Write-ahead log arithmetic: LSNs, segment names, timelines, and whether the log is complete.

Source: PostgreSQL manual, "Write-Ahead Logging" internals, and `src/include/access/xlog_internal.h`
for the form of segment names and history files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lifeboat.core.errors import PreconditionError

_SEGMENT = re.compile(r"^(?P<timeline>[0-9A-F]{8})(?P<log>[0-9A-F]{8})(?P<segment>[0-9A-F]{8})$")
_HISTORY = re.compile(r"^(?P<timeline>[0-9A-F]{8})\.history$")
PARTIAL = ".partial"
# S3 refuses clients whose clocks differ by more, so its times can be compared with ours to this.
_CLOCKS_DIFFER = timedelta(minutes=15)


def parse_lsn(text: str) -> int:
    """Turn `16/B374D848` into bytes since the beginning of the log."""
    high, _, low = text.strip().partition("/")
    try:
        return (int(high, 16) << 32) | int(low, 16)
    except ValueError:
        raise PreconditionError(f"Reading a WAL position: {text!r} is not an LSN.") from None


def format_lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True, order=True)
class Segment:
    """One WAL segment: `number` counts segments from the beginning of the log."""

    timeline: int
    number: int

    def name(self, segment_bytes: int) -> str:
        per_log = 0x100000000 // segment_bytes
        return f"{self.timeline:08X}{self.number // per_log:08X}{self.number % per_log:08X}"

    @classmethod
    def parse(cls, name: str, segment_bytes: int) -> Segment | None:
        """Given a file name, with or without `.partial`, give its segment; None if it is none."""
        match = _SEGMENT.match(name.removesuffix(PARTIAL))
        if not match:
            return None
        per_log = 0x100000000 // segment_bytes
        number = int(match["log"], 16) * per_log + int(match["segment"], 16)
        return cls(timeline=int(match["timeline"], 16), number=number)


def is_segment_name(name: str) -> bool:
    """Whether it names a complete segment, e.g. `000000010000000000000007`."""
    return bool(_SEGMENT.match(name))


def usable_segments(names: Iterable[str], segment_bytes: int) -> frozenset[Segment]:
    """The segments among file names; a `.partial` file counts, other files do not."""
    return frozenset(filter(None, (Segment.parse(name, segment_bytes) for name in names)))


def history_timeline(name: str) -> int | None:
    """Given `00000002.history`, give 2; None for any other name."""
    match = _HISTORY.match(name)
    return int(match["timeline"], 16) if match else None


@dataclass(frozen=True)
class Switch:
    """A timeline ended at `lsn`, and a later one went on from there."""

    timeline: int
    lsn: int


def parse_history(text: str) -> tuple[Switch, ...]:
    """Read a `.history` file: the ancestors of its timeline, oldest first.

    Raise PreconditionError if it is none.
    """
    switches = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) >= 2:
            try:
                timeline = int(words[0])
            except ValueError:
                raise PreconditionError(
                    f"Reading the history of a timeline: {line[:60]!r} is no line of one."
                ) from None
            switches.append(Switch(timeline=timeline, lsn=parse_lsn(words[1])))
    return tuple(switches)


@dataclass(frozen=True)
class History:
    """A timeline, when its history appeared, and its ancestors (none: it can't be read)."""

    timeline: int
    began_at: datetime
    ancestors: tuple[Switch, ...]

    def goes_on_from(self, base_timeline: int, stop_lsn: int) -> bool:
        """Whether a base copy that ended there is a part of it."""
        return self.timeline == base_timeline or any(
            switch.timeline == base_timeline and switch.lsn >= stop_lsn for switch in self.ancestors
        )


def choose_timeline(
    histories: Iterable[History],
    *,
    base_timeline: int,
    stop_lsn: int,
    taken_at: datetime,
    moment: datetime | None = None,
) -> int:
    """The timeline on which a recovery from a base copy goes on: the newest that contains it.

    For a point in time: the one that was being written then. Our own timelines are numbered
    upwards, so one with a higher number that does not contain the base is either of another server
    that wrote into the vault, or ours after it was set back to before the base. Which of the two
    the base itself tells: taken after that timeline appeared, it shows that we never were on it.

    Raise PreconditionError, naming the timeline, if it may be ours: the base then lies on what was
    given up, and to recover from it would silently undo the recovery to a point in time.
    """
    known = [h for h in histories if moment is None or h.began_at <= moment]
    leading_on = [h for h in known if h.goes_on_from(base_timeline, stop_lsn)]
    if moment is None:
        chosen = max((h.timeline for h in leading_on), default=base_timeline)
    else:
        began = [(h.timeline, h.began_at) for h in leading_on]
        chosen = timeline_current_at(moment, first_timeline=base_timeline, began_at=began)
    chosen = max(chosen, base_timeline)
    for other in known:
        appeared_before_the_base = other.began_at <= taken_at - _CLOCKS_DIFFER
        if other.timeline > chosen and other not in leading_on and not appeared_before_the_base:
            raise PreconditionError(
                f"Following the timelines: {other.timeline} appeared at "
                f"{other.began_at:%Y-%m-%d %H:%M:%S %Z}, but a base backup on timeline "
                f"{base_timeline} that ended at {format_lsn(stop_lsn)} is not part of its history.",
                hint="If the database was set back since that backup, recover from an older base "
                f"backup. If {other.timeline:08X}.history is of another server, move it out of "
                "the vault.",
            )
    return chosen


@dataclass(frozen=True)
class Replay:
    """The segments that a recovery will read, in order, without a hole."""

    timeline: int  # the timeline that the recovery follows
    segments: tuple[Segment, ...]


def plan_replay(
    *,
    base_timeline: int,
    start_lsn: int,
    stop_lsn: int,
    target_timeline: int,
    ancestors: Sequence[Switch],
    available: Iterable[Segment],
    segment_bytes: int,
) -> Replay:
    """Choose the segments from a base backup's start to the newest there is on a timeline.

    `ancestors` is the history of `target_timeline` (empty for the base's own timeline).

    Raise PreconditionError, naming the first missing segment, if the log has a hole before its
    newest segment or ends before the base backup is consistent; and if the base backup is not an
    ancestor of the target timeline. A hole must fail a recovery and never shorten it silently.
    """
    path = _timeline_path(base_timeline, stop_lsn, target_timeline, ancestors)
    have = set(available)
    first = start_lsn // segment_bytes
    # What an ancestor wrote after the switch is not part of this history.
    ends = dict(path)
    newest = max(
        (
            s.number
            for s in have
            if s.timeline in ends
            and ((end := ends[s.timeline]) is None or s.number * segment_bytes < end)
        ),
        default=-1,
    )
    needed_until = max(newest, (stop_lsn - 1) // segment_bytes)
    chosen: list[Segment] = []
    for number in range(first, needed_until + 1):
        segment = _segment_on_path(path, number, segment_bytes, have)
        if segment is None:
            wanted = Segment(_timeline_at(path, number * segment_bytes), number)
            newest_name = Segment(target_timeline, max(newest, 0)).name(segment_bytes)
            raise PreconditionError(
                f"Collecting the WAL: segment {wanted.name(segment_bytes)} is missing "
                f"(have WAL up to {newest_name}).",
                hint="Nothing was touched. Recover from a newer base backup, or to a time before "
                "the gap; `lifeboat points` shows the base backups.",
            )
        chosen.append(segment)
    return Replay(timeline=target_timeline, segments=tuple(chosen))


def _timeline_path(
    base_timeline: int, stop_lsn: int, target: int, ancestors: Sequence[Switch]
) -> tuple[tuple[int, int | None], ...]:
    """(timeline, end LSN or None) from the base's timeline to the target's."""
    if base_timeline == target:
        return ((target, None),)
    path: list[tuple[int, int | None]] = [(s.timeline, s.lsn) for s in ancestors]
    on_path = next((i for i, (timeline, _) in enumerate(path) if timeline == base_timeline), None)
    if on_path is None or (path[on_path][1] or 0) < stop_lsn:
        raise PreconditionError(
            f"Following timeline {target}: a base backup on timeline {base_timeline} that ended "
            f"at {format_lsn(stop_lsn)} is not part of its history.",
            hint="Choose a base backup from before that timeline began, or another timeline.",
        )
    return (*path[on_path:], (target, None))


def _timeline_at(path: Sequence[tuple[int, int | None]], lsn: int) -> int:
    return next(timeline for timeline, end in path if end is None or lsn < end)


def _segment_on_path(
    path: Sequence[tuple[int, int | None]], number: int, segment_bytes: int, have: set[Segment]
) -> Segment | None:
    """The newest timeline's copy of a segment: it holds all that its ancestors' copies hold.

    PostgreSQL copies the part before the switch into the new timeline's first segment.
    """
    begin, end = number * segment_bytes, (number + 1) * segment_bytes
    for index in range(len(path) - 1, -1, -1):
        timeline, switch = path[index]
        born = path[index - 1][1] if index else 0
        alive = born < end and (switch is None or begin < switch)
        if alive and Segment(timeline, number) in have:
            return Segment(timeline, number)
    return None


def timeline_current_at(
    moment: datetime, *, first_timeline: int, began_at: Sequence[tuple[int, datetime]]
) -> int:
    """Which timeline was being written at `moment`, given when each later one began."""
    current = first_timeline
    for timeline, began in sorted(began_at, key=lambda item: item[1]):
        if began <= moment:
            current = timeline
    return current
