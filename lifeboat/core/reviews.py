"""Tests and reviews: the plan's section "Testing and Maintenance" as dated, signed-off records.

Pure. What is due, what is overdue, and what the machine already knows about each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lifeboat.core.alarms import Finding, failed, passed
from lifeboat.core.checks import Status
from lifeboat.core.review_kinds import ABOUT, Decision, ReviewKind, Wanted


class _Frozen(BaseModel):
    # A newer Lifeboat may add keys.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Evidence(_Frozen):
    """What the machine knows of a review's subject."""

    what: str
    status: Status
    found: str


class SignedOff(_Frozen):
    """A review that was held: who says so, what was decided, and what the machine knew then."""

    id: str
    kind: ReviewKind
    at: datetime
    by: str
    decision: Decision
    findings: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it was good enough to be good until the next one."""
        return self.decision != "failed"


def review_id(kind: ReviewKind, at: datetime) -> str:
    """Name a record so that names of a kind sort by time: `full-drill-20260131T031500Z`."""
    return f"{kind}-{at.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}"


def review_kind_of(name: str) -> str:
    """The kind of a record, by its name as `review_id` gives it."""
    return name.rpartition("-")[0]


class Standing(_Frozen):
    """Where one review stands."""

    wanted: Wanted
    last: SignedOff | None
    due_at: datetime
    status: Literal["fresh", "due", "overdue", "failed"]

    @property
    def title(self) -> str:
        return ABOUT[self.wanted.kind].title

    def in_words(self, now: datetime) -> str:
        since = "never held"
        if self.last:
            since = f"{self.last.decision}, signed off by {self.last.by} on {self.last.at:%Y-%m-%d}"
        left = (self.due_at - now).total_seconds() / 86400
        when = f"due in {left:.0f} days" if left >= 1 else f"due since {self.due_at:%Y-%m-%d}"
        return f"{self.title}: {since}; {when} ({self.wanted.owner})"


class Shelf(_Frozen):
    """What is on record of reviews. `began_at`: since when this platform is protected at all."""

    began_at: datetime | None = None
    signed: tuple[SignedOff, ...] = ()


def standings(wanted: Iterable[Wanted], shelf: Shelf, now: datetime) -> tuple[Standing, ...]:
    """Where each wanted review stands.

    A new installation has one period before the first is due: on day one nothing is red without a
    reason.
    """
    firsts = [record.at for record in shelf.signed] + ([shelf.began_at] if shelf.began_at else [])
    began_at = min(firsts, default=now)
    found = []
    for want in wanted:
        ours = sorted((r for r in shelf.signed if r.kind is want.kind), key=lambda r: r.at)
        last = ours[-1] if ours else None
        good = next((r for r in reversed(ours) if r.counts), None)
        due_at = (good.at if good else began_at) + timedelta(days=want.every_days)
        if last and not last.counts:
            status: Literal["fresh", "due", "overdue", "failed"] = "failed"
        elif now >= due_at + timedelta(days=want.late_days):
            status = "overdue"
        else:
            status = "due" if now >= due_at else "fresh"
        found.append(Standing(wanted=want, last=last, due_at=due_at, status=status))
    return tuple(found)


def review_findings(wanted: Iterable[Wanted], shelf: Shelf, now: datetime) -> Iterator[Finding]:
    """`review-<kind>`: every wanted test and review was held in time, and its result was good."""
    for found in standings(wanted, shelf, now):
        kind = found.wanted.kind
        name = f"review-{kind}"
        advice = (
            f"{ABOUT[kind].how} Then `lifeboat review sign-off {kind}`; who answers for it: "
            f"{found.wanted.owner}."
        )
        told = found.in_words(now)
        if found.status == "failed":
            what = "; ".join(found.last.findings) if found.last else ""
            yield failed(name, f"{told}: {what}" if what else told, advice)
        elif found.status == "overdue":
            yield failed(name, f"{told}, {found.wanted.late_days:g} days of grace are over", advice)
        else:
            yield passed(name, told)


def contradicts(decision: Decision, evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """The evidence against a decision: nobody signs off as passed what the machine saw fail."""
    if decision != "passed":
        return ()
    return tuple(found for found in evidence if found.status is Status.FAIL)
