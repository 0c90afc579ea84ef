"""What a run did and when: steps, the phases of a recovery, and the seconds between the steps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.checks import Verdict

_RUN_STAMP = "%Y%m%dT%H%M%SZ"


class Phase(StrEnum):
    """The phases of a recovery, in the order in which they are reported."""

    DETECT = "detect"
    DECIDE = "decide"
    FETCH = "fetch"
    RESTORE = "restore"
    REPLAY = "replay"
    START = "start"
    VERIFY = "verify"


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_APPROVED = "not approved"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class StepRecord(_Frozen):
    """One step's own work. Times are seconds since the epoch, so that records of hosts compare."""

    name: str
    phase: Phase | None = None
    began_at: float
    ended_at: float
    outcome: Outcome
    note: str = ""

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at


class RungAttempt(_Frozen):
    """One rung of the ladder: tried or passed over, and why."""

    rung: str
    outcome: Outcome
    reason: str
    seconds: float = 0.0


class MovedAside(_Frozen):
    """Damaged data that was kept."""

    what: str
    where: str


class RunRecord(_Frozen):
    """All that a recovery, backup or verification leaves behind, readable without Lifeboat."""

    id: str
    procedure: str
    platform: str
    began_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None
    error: str | None = None
    points: tuple[str, ...] = ()
    facts: dict[str, str | int | float | bool] = Field(default_factory=dict)
    rungs: tuple[RungAttempt, ...] = ()
    moved_aside: tuple[MovedAside, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    verdict: Verdict | None = None

    @property
    def seconds(self) -> float:
        return (self.ended_at or self.began_at) - self.began_at


def union_seconds(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the time covered by at least one span (spans may overlap and nest)."""
    total = 0.0
    reached = float("-inf")
    for began, ended in sorted(spans):
        if ended > reached:
            total += ended - max(began, reached)
            reached = ended
    return total


def phase_seconds(steps: Iterable[StepRecord]) -> dict[Phase, float]:
    """Wall seconds during which each phase was at work.

    Phases of side-by-side restores overlap, so the sum may exceed the whole.
    """
    steps = tuple(steps)
    return {
        phase: union_seconds((s.began_at, s.ended_at) for s in steps if s.phase is phase)
        for phase in Phase
    }


def outside_steps_seconds(began_at: float, ended_at: float, steps: Iterable[StepRecord]) -> float:
    """Seconds of a span in which no step was at work: what orchestration cost.

    Only what a step did within the span counts.
    """
    within = (
        (max(s.began_at, began_at), min(s.ended_at, ended_at))
        for s in steps
        if s.ended_at > began_at and s.began_at < ended_at
    )
    return max(0.0, ended_at - began_at - union_seconds(within))


def run_id(procedure: str, at: datetime, suffix: str) -> str:
    """Name a run so that names sort by time, e.g. `recover-database-20261123T184501Z-4f2a`."""
    return f"{procedure}-{at.astimezone(timezone.utc):{_RUN_STAMP}}-{suffix}"


def run_began_at(name: str) -> datetime:
    """When a run began, by its name as `run_id` gives it."""
    stamp = name.rsplit("-", 2)[1]
    return datetime.strptime(stamp, _RUN_STAMP).replace(tzinfo=timezone.utc)
