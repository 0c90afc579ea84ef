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
DEFAULT_SEGMENT_BYTES = 16 << 20
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


@dataclass(frozen=True)
class Position:
    """A place in the log of one cluster, as `<system identifier>/<timeline>/<LSN>`."""

    system_identifier: str
    timeline: int
    lsn: int

    def __str__(self) -> str:
        return f"{self.system_identifier}/{self.timeline}/{format_lsn(self.lsn)}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raise PreconditionError if the text is none."""
        system, _, rest = text.partition("/")
        timeline, _, lsn = rest.partition("/")
        if not system or not timeline.isdecimal():
            raise PreconditionError(f"Reading a place in the log: {text!r} is none.")
        return cls(system, int(timeline), parse_lsn(lsn))


def whole_segments(names: Iterable[str], segment_bytes: int) -> frozenset[Segment]:
    """The complete segments among file names."""
    there = (Segment.parse(name, segment_bytes) for name in names if is_segment_name(name))
    return frozenset(filter(None, there))


def partial_segments(names: Iterable[str], segment_bytes: int) -> frozenset[Segment]:
    """The segments among file names of which there is a `.partial`."""
    growing = (name.removesuffix(PARTIAL) for name in names if name.endswith(PARTIAL))
    return whole_segments(growing, segment_bytes)


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


def inherited_segments(
    segments: Iterable[Segment], ancestors: Iterable[Switch], segment_bytes: int
) -> frozenset[Segment]:
    """Of these the ones that an ancestor had filled before the next timeline went on."""
    ends = {switch.timeline: switch.lsn // segment_bytes for switch in ancestors}
    return frozenset(s for s in segments if s.number < ends.get(s.timeline, 0))


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
    missing: Segment | None = None  # where it ends because of a hole


def plan_replay(
    *,
    base_timeline: int,
    start_lsn: int,
    stop_lsn: int,
    target_timeline: int,
    ancestors: Sequence[Switch],
    available: Iterable[Segment],
    growing: Iterable[Segment] = (),
    segment_bytes: int,
    until_hole: bool = False,
) -> Replay:
    """Choose the segments from a base backup's start to the newest there is on a timeline.

    `ancestors` is the history of `target_timeline` (empty for the base's own timeline). Segments
    that are `growing` may end within; they count only where nothing comes after them. With
    `until_hole` the way may end at a hole behind the consistent base: a moment before it can be
    reached all the same, if it is proven to be before it.

    Raise PreconditionError, naming the first missing segment, if the log has a hole before its
    newest segment or ends before the base backup is consistent; and if the base backup is not an
    ancestor of the target timeline. A hole must fail a recovery and never shorten it silently.
    """
    path = timeline_path(base_timeline, stop_lsn, target_timeline, ancestors)
    there = segments_along(path, available, growing, segment_bytes=segment_bytes)
    newest = max(there, default=-1)
    consistent = (stop_lsn - 1) // segment_bytes
    chosen: list[Segment] = []
    for number in range(start_lsn // segment_bytes, max(newest, consistent) + 1):
        if number not in there:
            wanted = wanted_at(path, number, segment_bytes)
            if until_hole and number > consistent:
                return Replay(target_timeline, tuple(chosen), missing=wanted)
            newest_name = Segment(target_timeline, max(newest, 0)).name(segment_bytes)
            raise PreconditionError(
                f"Collecting the WAL: segment {wanted.name(segment_bytes)} is missing "
                f"(have WAL up to {newest_name}).",
                hint="Nothing was touched. Recover from a newer base backup, or to a time before "
                "the gap; `lifeboat points` shows the base backups.",
            )
        chosen.append(there[number])
    return Replay(timeline=target_timeline, segments=tuple(chosen))


# --- the way through the timelines ----------------------------------------------------------

TimelinePath = tuple[tuple[int, int | None], ...]
"""(timeline, the LSN at which the next one branches off, or None) in the order of replay."""


def timeline_path(
    base_timeline: int, stop_lsn: int, target: int, ancestors: Sequence[Switch]
) -> TimelinePath:
    """From the base's timeline to the target's.

    Raise PreconditionError if a base that ended at `stop_lsn` is not part of the target's history.
    """
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


def segments_along(
    path: TimelinePath,
    whole: Iterable[Segment],
    growing: Iterable[Segment] = (),
    *,
    segment_bytes: int,
) -> dict[int, Segment]:
    """What a recovery along a path can replay, by number; there may be holes.

    Where a timeline branches off within a segment, only the new timeline's copy holds all of it:
    PostgreSQL copies the part before the switch. An older timeline's copy, and one that is still
    growing, will do for the newest number alone, after which nothing comes.
    """
    whole = frozenset(whole)
    found = {s.number: s for s in whole if s == wanted_at(path, s.number, segment_bytes)}
    last = max(
        (s for s in {*whole, *growing} if is_on_path(path, s, segment_bytes)),
        key=lambda s: (s.number, s.timeline),
        default=None,
    )
    if last is not None:
        found.setdefault(last.number, last)
    return found


def wanted_at(path: TimelinePath, number: int, segment_bytes: int) -> Segment:
    """The one segment of a number that holds all that a recovery along the path replays of it."""
    end = (number + 1) * segment_bytes
    wanted, born = path[0][0], 0
    for timeline, switch in path:
        if born < end:
            wanted = timeline
        born = switch or 0
    return Segment(wanted, number)


def is_on_path(path: TimelinePath, segment: Segment, segment_bytes: int) -> bool:
    """Whether a segment holds anything that a recovery along the path replays."""
    begin, end = segment.number * segment_bytes, (segment.number + 1) * segment_bytes
    born = 0
    for timeline, switch in path:
        if timeline == segment.timeline:
            return born < end and (switch is None or begin < switch)
        born = switch or 0
    return False


def timeline_current_at(
    moment: datetime, *, first_timeline: int, began_at: Sequence[tuple[int, datetime]]
) -> int:
    """Which timeline was being written at `moment`, given when each later one began."""
    current = first_timeline
    for timeline, began in sorted(began_at, key=lambda item: item[1]):
        if began <= moment:
            current = timeline
    return current
