"""When the objects of a bucket were destroyed, and what was the last moment before that.

Old packs that a prune removed look like those that a thief deleted. But nobody who is in the right
ever overwrites an object of restic, or deletes a repository's `config`: that is where to begin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.versions import Form, Version, first_content, form_of

_PAUSE = timedelta(minutes=5)
_BEFORE = timedelta(seconds=1)  # stores tell whole seconds
_HOURS_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Loss:
    """An object that never changes was deleted or overwritten, and still is."""

    key: str
    at: datetime
    deleted: bool
    never_right: bool  # no backup, prune or recovery does that


def find_losses(by_key: Mapping[str, tuple[Version, ...]]) -> tuple[Loss, ...]:
    """What is destroyed now, in the order in which it happened. Old prunes are among it."""
    found = []
    for key, history in by_key.items():
        form = form_of(key)
        if not form.never_changes:
            continue
        truth = first_content(history)
        if truth is None:
            continue
        whole = next((i for i, v in enumerate(history) if v.proven or v.same_content(truth)), 0)
        if whole == 0:
            continue
        event = history[whole - 1]  # what came after the last version that was whole
        found.append(
            Loss(
                key=key,
                at=event.at,
                deleted=event.marker,
                never_right=form is Form.RESTIC and (not event.marker or key.endswith("/config")),
            )
        )
    return tuple(sorted(found, key=lambda loss: (loss.at, loss.key)))


def last_moment_before(losses: Iterable[Loss]) -> datetime | None:
    """The last moment before the first attack began; None if nothing shows that there was one.

    An attack is taken to begin with what was destroyed before its first sure sign without a pause
    of five minutes. If a prune ran in that time the moment is earlier than need be, which is safe.
    """
    ordered = sorted(losses, key=lambda loss: loss.at)
    sign = next((i for i, loss in enumerate(ordered) if loss.never_right), None)
    if sign is None:
        return None
    while sign > 0 and ordered[sign].at - ordered[sign - 1].at <= _PAUSE:
        sign -= 1
    return ordered[sign].at - _BEFORE


class Hour(BaseModel):
    """What was destroyed within one hour, and is not brought back yet."""

    model_config = ConfigDict(frozen=True)

    begins_at: datetime
    first_at: datetime
    deleted: int
    overwritten: int
    never_right: int

    def in_words(self) -> str:
        counts = Counter(deleted=self.deleted, overwritten=self.overwritten)
        told = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
        sure = f"  <- {self.never_right} by no right" if self.never_right else ""
        return f"{self.begins_at:%Y-%m-%d %H}h UTC: {told}; first at {self.first_at:%H:%M:%S}{sure}"


def by_hour(losses: Iterable[Loss]) -> tuple[Hour, ...]:
    """The same by hours, oldest first; hours without a loss are left out."""
    hours: dict[datetime, list[Loss]] = {}
    for loss in losses:
        hours.setdefault(loss.at.replace(minute=0, second=0, microsecond=0), []).append(loss)
    return tuple(
        Hour(
            begins_at=begins_at,
            first_at=min(loss.at for loss in lost),
            deleted=sum(loss.deleted for loss in lost),
            overwritten=sum(not loss.deleted for loss in lost),
            never_right=sum(loss.never_right for loss in lost),
        )
        for begins_at, lost in sorted(hours.items())
    )


class BucketPlan(RecoveryPlan):
    """What a recovery of the bucket is about to do, and when what is missing went."""

    as_of: datetime
    bring_back: int
    bring_back_bytes: int
    hide: int
    hours: tuple[Hour, ...]
    warnings: tuple[str, ...] = ()

    def in_words(self) -> str:
        warned = (f"  WARNING:         {warning}" for warning in self.warnings)
        return "\n".join((super().in_words(), *warned, hours_in_words(self.hours)))

    def in_markdown(self) -> str:
        return f"# {self.procedure} on {self.platform}\n\n```\n{self.in_words()}\n```"


def hours_in_words(hours: Iterable[Hour]) -> str:
    """The newest hours in which something was destroyed, a line for each."""
    hours = tuple(hours)
    if not hours:
        return "  Nothing is known to be destroyed."
    lines = ["  What is destroyed, by the hour in which it was:"]
    shown = hours[-_HOURS_SHOWN:]
    if len(shown) < len(hours):
        lines.append(f"    ... and in {len(hours) - len(shown)} hours before these")
    return "\n".join([*lines, *(f"    {hour.in_words()}" for hour in shown)])
