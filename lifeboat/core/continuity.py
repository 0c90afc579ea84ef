"""How far each base copy leads: whether the log behind it is whole, and from when on it is.

A recovery refuses a log with a hole, so a hole has to be known before one is needed: from the names
of what a store holds, without opening anything.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lifeboat.core.errors import PreconditionError
from lifeboat.core.wal import (
    Segment,
    Switch,
    TimelinePath,
    format_lsn,
    parse_lsn,
    segments_along,
    timeline_path,
    wanted_at,
)

Histories = Mapping[int, tuple[Switch, ...]]
"""The ancestors of each timeline whose history file is there."""


@dataclass(frozen=True)
class BaseCopy:
    """A base copy as its tag or its `lifeboat.json` tells it."""

    point: str
    system_identifier: str
    timeline: int
    start_lsn: int
    stop_lsn: int
    segment_bytes: int
    taken_at: datetime  # no earlier moment can be reached from it

    @property
    def tag(self) -> str:
        """All but name and time, as `<system identifier>/<timeline>/<start>/<stop>/<bytes>`."""
        lsns = f"{format_lsn(self.start_lsn)}/{format_lsn(self.stop_lsn)}"
        return f"{self.system_identifier}/{self.timeline}/{lsns}/{self.segment_bytes}"

    @classmethod
    def of_tag(cls, tag: str, *, point: str, taken_at: datetime) -> BaseCopy:
        """Raise PreconditionError if the tag can't be read."""
        try:
            system, timeline, a, b, c, d, segment_bytes = tag.split("/")
            numbers = int(timeline), int(segment_bytes)
        except ValueError:
            raise PreconditionError(f"Reading what {point} needs of the WAL: {tag!r}.") from None
        return cls(
            point=point,
            system_identifier=system,
            timeline=numbers[0],
            start_lsn=parse_lsn(f"{a}/{b}"),
            stop_lsn=parse_lsn(f"{c}/{d}"),
            segment_bytes=numbers[1],
            taken_at=taken_at,
        )

    @property
    def first_needed(self) -> int:
        """Number of the first segment that the log must give.

        The copy carries the ones before it, and of this one the part that makes it consistent.
        """
        return max(0, self.stop_lsn - 1) // self.segment_bytes


@dataclass(frozen=True)
class Reach:
    """How far the log takes one base copy."""

    base: BaseCopy
    timeline: int  # the newest one that goes on from this base
    leads_to_newest: bool  # whether that is the timeline that was written last
    missing: str  # the first missing segment on the way to the newest; empty: none is
    segments: int  # that a recovery from this base replays, up to the hole if there is one

    @property
    def unbroken(self) -> bool:
        return not self.missing

    @property
    def whole(self) -> bool:
        """Whether every moment from this base until the newest can be reached."""
        return self.leads_to_newest and self.unbroken


@dataclass(frozen=True)
class Foreign:
    """WAL that no base copy can use: of another cluster, or of a timeline of unknown descent."""

    system_identifier: str
    timeline: int | None = None  # None: all of that cluster

    def __str__(self) -> str:
        if self.timeline is None:
            return f"WAL of another database cluster, {self.system_identifier}"
        return f"WAL of timeline {self.timeline}, whose history file is not there"


@dataclass(frozen=True)
class Continuity:
    """What the log of one store is good for. `reaches`: newest base copy first."""

    reaches: tuple[Reach, ...]
    system_identifier: str  # of the newest base copy; empty: there is none
    timeline: int  # the one that was written last; 0: there is no base copy
    newest: Segment | None  # on that timeline's history
    segment_bytes: int
    foreign: tuple[Foreign, ...]

    @property
    def newest_name(self) -> str:
        return self.newest.name(self.segment_bytes) if self.newest else ""

    @property
    def newest_base(self) -> Reach | None:
        """The base copy that a recovery without further words takes."""
        return self.reaches[0] if self.reaches else None

    @property
    def whole_from(self) -> Reach | None:
        """The oldest base copy from which everything until the newest can be reached."""
        return next((reach for reach in reversed(self.reaches) if reach.whole), None)

    @property
    def earliest(self) -> datetime | None:
        """The earliest moment that can be reached, as can every one after it; None: there is no
        such moment.
        """
        reach = self.whole_from
        return reach.base.taken_at if reach else None

    @property
    def broken(self) -> tuple[Reach, ...]:
        """The base copies behind which the log has a hole, newest first."""
        return tuple(reach for reach in self.reaches if reach.missing)

    def holds(self, *, system_identifier: str, timeline: int, lsn: int) -> bool:
        """Whether a recovery from the newest base copy has the segments up to a position.

        Of the last one only that it is there: how full it is its name does not tell.
        """
        base = self.newest_base
        if base is None or not base.whole or system_identifier != self.system_identifier:
            return False
        until = max(0, lsn - 1) // self.segment_bytes
        reached = max(self.newest.number if self.newest else -1, base.base.first_needed)
        return timeline == self.timeline and until <= reached


def judge(
    bases: Iterable[BaseCopy],
    *,
    whole: Iterable[Segment],
    partial: Iterable[Segment] = (),
    histories: Histories,
    other_systems: Iterable[str] = (),
) -> Continuity:
    """Say for each base copy how far the log takes it.

    `whole` and `partial` are the segments of the newest base's cluster that are there, complete or
    as `.partial`; a partial counts only where nothing comes after it. `other_systems` are further
    clusters of which there is WAL. The log of a base of another cluster than the newest one's is
    not judged: nothing of it leads to the newest.
    """
    ordered = sorted(bases, key=lambda base: base.taken_at, reverse=True)
    if not ordered:
        return Continuity((), "", 0, None, 0, tuple(map(Foreign, sorted(other_systems))))
    system, size = ordered[0].system_identifier, ordered[0].segment_bytes
    ours = [base for base in ordered if base.system_identifier == system]
    complete, growing = frozenset(whole), frozenset(partial)
    timeline = max([*(base.timeline for base in ours), *histories])
    log = _Log(complete, growing, histories, size)
    reaches = tuple(
        log.reach(base, timeline)
        if base.system_identifier == system
        else Reach(base, base.timeline, leads_to_newest=False, missing="", segments=0)
        for base in ordered
    )
    known = {1, *histories, *(base.timeline for base in ours)}
    unknown = sorted({segment.timeline for segment in complete | growing} - known)
    return Continuity(
        reaches=reaches,
        system_identifier=system,
        timeline=timeline,
        newest=log.newest(timeline),
        segment_bytes=size,
        foreign=(
            *map(Foreign, sorted(set(other_systems) - {system})),
            *(Foreign(system, number) for number in unknown),
        ),
    )


class _Log:
    """The segments of one cluster, asked along paths through its timelines."""

    def __init__(
        self,
        whole: Collection[Segment],
        partial: Collection[Segment],
        histories: Histories,
        segment_bytes: int,
    ) -> None:
        self._whole, self._partial = whole, partial
        self._histories, self._size = histories, segment_bytes
        self._numbers: dict[TimelinePath, Sequence[int]] = {}

    def newest(self, timeline: int) -> Segment | None:
        """The newest segment on the way to a timeline."""
        ancestors = self._histories.get(timeline, ())
        path = (*((switch.timeline, switch.lsn) for switch in ancestors), (timeline, None))
        there = segments_along(path, self._whole, self._partial, segment_bytes=self._size)
        return there[max(there)] if there else None

    def reach(self, base: BaseCopy, newest_timeline: int) -> Reach:
        path = self._path(base)
        timeline = path[-1][0]
        first = base.first_needed
        run, there = self._run_from(path, first)
        wanted = wanted_at(path, first + run, self._size)
        # The copy's own last segment will do where the log does not give it.
        until = first + max(run, 1)
        return Reach(
            base=base,
            timeline=timeline,
            leads_to_newest=timeline == newest_timeline,
            missing=wanted.name(self._size) if run < there else "",
            segments=until - base.start_lsn // self._size,
        )

    def _path(self, base: BaseCopy) -> TimelinePath:
        """The way to the newest timeline that goes on from a base copy."""
        for timeline in sorted(self._histories, reverse=True):
            try:
                return timeline_path(
                    base.timeline, base.stop_lsn, timeline, self._histories[timeline]
                )
            except PreconditionError:
                continue
        return ((base.timeline, None),)

    def _run_from(self, path: TimelinePath, first: int) -> tuple[int, int]:
        """How many segments from a number on are there without a hole, and how many in all."""
        numbers = self._numbers.get(path)
        if numbers is None:
            along = segments_along(path, self._whole, self._partial, segment_bytes=self._size)
            numbers = self._numbers[path] = sorted(along)
        begin = bisect.bisect_left(numbers, first)
        there = len(numbers) - begin
        # Behind the first hole every number is ahead of its place in the row.
        run = bisect.bisect_right(
            range(there), 0, key=lambda place: numbers[begin + place] - first - place
        )
        return run, there
