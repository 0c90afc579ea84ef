"""Which recovery points depart so sharply from those before them that nobody should rely on them.

Such a point is kept, for it may be the only copy of what is left, but it is not offered as the
latest until someone accepts it. It is judged whenever points are listed, from what the snapshots
themselves tell: there is no index that could be lost.

Two things are looked for. *Shrunk*: bytes, files, the files of one directory or the rows of one
table are fewer by more than a share. *Rewritten*: most files were replaced by content that the
repository did not know, as ransomware does, whether it keeps the names or not. What is only moved,
restored elsewhere or given another owner holds known content and is no cause.

Besides, a point that says it is *from the future* holds what is old by then: a clock was wrong.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.errors import PreconditionError
from lifeboat.core.plan import size_in_words
from lifeboat.core.points import Asset, RecoveryPoint, taken_at_of

_PERCENT = 100
_NAMED = 3  # tables or directories that a reason names
_FEW_BYTES = 1_000_000  # less may well be one file that is replaced by another

# A program's argument may have 128 KiB, and every listing carries every tag.
_MOST_COUNTS = 1000
_MOST_CHARACTERS = 60_000
_OTHERS = "*"  # in packed counts: the most that any one that is left out may have


class Policy(BaseModel):
    """When a new point is kept but not offered as the latest until someone accepts it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shrunk_percent: float = Field(
        default=50,
        gt=0,
        le=100,
        description="Bytes, files or the rows of a table are fewer by more than this.",
    )
    rewritten_percent: float = Field(
        default=50,
        gt=0,
        le=100,
        description="More than this share of the files was rewritten or replaced since the point "
        "before, as ransomware does.",
    )
    at_least: int = Field(
        default=20,
        ge=1,
        description="So many files or rows there must have been; fewer may well change at once.",
    )
    except_tables: tuple[str, ...] = Field(
        default=(),
        description="Tables that empty themselves, as queues and sessions do, by `schema.table`; "
        "* stands for any text. How many rows they have, or that they are gone, is no fault either "
        "when a recovery is verified or a restore is tested.",
    )

    def lasting(self, tables: Mapping[str, int]) -> dict[str, int]:
        """Of rows by `schema.table`, those of the tables that do not empty themselves."""
        return {
            name: rows
            for name, rows in tables.items()
            if not any(fnmatch.fnmatchcase(name, form) for form in self.except_tables)
        }


def judge(
    points: Iterable[RecoveryPoint],
    *,
    policy: Policy,
    accepted: Collection[str] = (),
    now: datetime | None = None,
) -> tuple[RecoveryPoint, ...]:
    """Give the points, in their order, with `suspicion` filled in.

    Each is compared with the newest one before it that is trusted: not suspicious, or accepted. The
    first point of an asset is trusted, there being nothing to compare it with. What follows a
    rewritten point builds on it and stays suspicious until one of them is accepted; a shrunk one is
    over when the size has come back. What is from the future, as seen from `now`, is suspicious
    until it is accepted or its time has come, and no measure of others; if all of an asset is, it
    is this clock that is wrong, and nothing is held against them.
    """
    points = tuple(points)
    found: dict[str, str] = {
        point.id: _from_the_future(point)
        for point in points
        if now is not None and point.is_ahead_of(now) and point.id not in accepted
    }
    of_the_past = {point.asset for point in points if point.id not in found}
    found = {p.id: found[p.id] for p in points if p.id in found and p.asset in of_the_past}
    for asset in Asset:
        of_asset = sorted(
            (p for p in points if p.asset is asset and p.id not in found), key=lambda p: p.taken_at
        )
        found |= _judge_asset(of_asset, policy, accepted)
    return tuple(point.model_copy(update={"suspicion": found[point.id]}) for point in points)


def _from_the_future(point: RecoveryPoint) -> str:
    return (
        f"it says that it was taken at {point.taken_at:%Y-%m-%d %H:%M} UTC, which is still to come:"
        " the clock of the host that made it was ahead, or this one's is behind"
    )


def _judge_asset(
    points: list[RecoveryPoint], policy: Policy, accepted: Collection[str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    trusted: RecoveryPoint | None = None
    rewritten = ""  # since when, and how much
    elsewhere = _accepted_elsewhere(points, accepted)
    for point in points:
        if elsewhere and elsewhere[0] < point.taken_at:
            # What it was compared with lies in a store that is not seen from here.
            elsewhere = [moment for moment in elsewhere if moment >= point.taken_at]
            trusted, rewritten = None, ""
        reason = ""
        if trusted is not None and point.id not in accepted:
            share = _rewritten(point, trusted, policy)
            reasons = [*_shrunk(point, trusted, policy), *share]
            if reasons:
                reason = f"{', '.join(reasons)}, since {trusted.id}"
            if rewritten:
                reason = f"it builds on {rewritten}" + (f"; {reason}" if reason else "")
            elif share:
                rewritten = f"{point.id}, in which {share[0]}"
        if not reason:
            trusted, rewritten = point, ""
        found[point.id] = reason
    return found


def _accepted_elsewhere(points: list[RecoveryPoint], accepted: Collection[str]) -> list[datetime]:
    """When those accepted points were taken that are not among the points; oldest first."""
    if not points:
        return []
    known = {point.id for point in points}
    moments = []
    for name in accepted:
        if name in known or not name.startswith(f"{points[0].asset}-"):
            continue
        try:
            moments.append(taken_at_of(name))
        except PreconditionError:
            continue
    return sorted(moments)


def _shrunk(point: RecoveryPoint, before: RecoveryPoint, policy: Policy) -> Iterator[str]:
    left = 1 - policy.shrunk_percent / _PERCENT
    then, now = before.files or 0, point.files
    if now is not None and then >= policy.at_least and now < then * left:
        yield f"{now} of {then} files are left"
    if before.bytes >= _FEW_BYTES and point.bytes < before.bytes * left:
        yield f"{size_in_words(point.bytes)} of {size_in_words(before.bytes)} are left"
    if found := _fewer(point.directory_files, before.directory_files, policy):
        yield f"of the files in directories are left: {_some(found)}"
    if found := _fewer(point.rows, policy.lasting(before.rows or {}), policy):
        yield f"of the rows in tables are left: {_some(found)}"


def _fewer(
    now: Mapping[str, int] | None, then: Mapping[str, int] | None, policy: Policy
) -> list[str]:
    """What has shrunk of several counts, e.g. `public.users 3 of 1200`."""
    if now is None or then is None:
        return []
    left = 1 - policy.shrunk_percent / _PERCENT
    # What was dropped counts as empty; what may only be too small for the tag does not.
    have = {name: now.get(name, now.get(_OTHERS, 0)) for name in then if name != _OTHERS}
    return [
        f"{name} {count} of {then[name]}"
        for name, count in sorted(have.items())
        if then[name] >= policy.at_least and count < then[name] * left
    ]


def _rewritten(point: RecoveryPoint, before: RecoveryPoint, policy: Policy) -> list[str]:
    """What became of most files, if they were replaced by content that was not known.

    A file of new content brings at least one new blob into the repository, so that at most
    `new_blobs` files are new, and what restic calls modified may be fewer still in truth: another
    owner or another path is enough for that. A partly encrypted file brings one blob as well.
    """
    # A base copy lies at another path each time, and PostgreSQL may rewrite any of its files.
    if point.asset is Asset.DATABASE or point.new_blobs is None:
        return []
    if point.files is None or before.files is None or before.files < policy.at_least:
        return []
    unmodified = point.unmodified_files or 0
    known = max(unmodified, point.files - point.new_blobs)
    replaced = min(before.files - known, point.files - unmodified, point.new_blobs)
    if replaced <= before.files * policy.rewritten_percent / _PERCENT:
        return []
    told = f"{replaced} of {before.files} files were rewritten or replaced"
    if point.added_bytes:
        added = min(point.added_bytes, point.bytes)
        told += f" ({size_in_words(added)} of {size_in_words(point.bytes)} are new)"
    return [told]


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return "; ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


# --- counts in a snapshot's tag -------------------------------------------------------------


def pack_counts(counts: Mapping[str, int]) -> str:
    """Write counts as one word without commas, e.g. `public.users:12;public.orders:3`.

    Of very many the largest are kept, and how many the others may have at most.
    """
    words: list[str] = []
    length = 0
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        word = f"{quote(name, safe='')}:{count}"
        if len(words) == _MOST_COUNTS or length + len(word) > _MOST_CHARACTERS:
            words.append(f"{_OTHERS}:{count}")
            break
        words.append(word)
        length += len(word) + 1
    return ";".join(words)


def unpack_counts(text: str) -> dict[str, int]:
    """Read what `pack_counts` wrote; what is no count is left out."""
    pairs = (word.rpartition(":") for word in text.split(";"))
    return {unquote(name): int(count) for name, _, count in pairs if name and count.isdecimal()}
