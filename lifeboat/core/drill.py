"""A drill's result: what was broken, whether it came back, how long it took and what was lost."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, computed_field

from lifeboat.core.checks import CheckResult
from lifeboat.core.timeline import Phase, RungAttempt


class Losses(BaseModel):
    """What the load generator had acknowledged and the recovered platform does not have."""

    model_config = ConfigDict(frozen=True)

    acknowledged_rows: int
    acknowledged_files: int
    rows_lost: int
    files_lost: int
    lost: tuple[str, ...] = ()  # by name, the first hundred
    oldest_lost_at: float | None = None  # seconds since the epoch


class ScenarioResult(BaseModel):
    """One scenario of the plan, broken and recovered. Seconds throughout."""

    model_config = ConfigDict(frozen=True)

    name: str
    broken: str  # what was done to the platform
    detected: bool  # verify-recovery said FAIL while it was broken
    detected_by: tuple[str, ...]  # names of the checks that failed
    recovered: bool
    rto_seconds: float  # from the fault to the last passed check
    rpo_seconds: float  # from the oldest lost acknowledged write to the fault; 0 if none was lost
    rows_lost: int
    files_lost: int
    acknowledged_rows: int
    acknowledged_files: int
    lost: tuple[str, ...] = ()
    checks_passed: int
    checks_total: int
    checks: tuple[CheckResult, ...] = ()
    phases: dict[Phase, float]
    outside_steps_seconds: float
    rungs: tuple[RungAttempt, ...] = ()
    record: str = ""  # id of the recovery's record in the vault
    facts: dict[str, str | int | float | bool] = Field(default_factory=dict)
    error: str = ""


class DrillReport(BaseModel):
    """What `report.json` holds."""

    model_config = ConfigDict(frozen=True)

    id: str
    platform: str
    stack: str
    began_at: datetime
    ended_at: datetime
    objective_rto_seconds: float
    objective_rpo_seconds: float
    wal: str  # synchronous | asynchronous
    orchestrator: str  # prefect | none
    scenarios: tuple[ScenarioResult, ...]

    @computed_field
    @property
    def passed(self) -> bool:
        """Every scenario recovered within both objectives, and its damage was noticed."""
        return bool(self.scenarios) and all(
            s.recovered
            and s.detected
            and s.rto_seconds <= self.objective_rto_seconds
            and s.rpo_seconds <= self.objective_rpo_seconds
            for s in self.scenarios
        )


def measured_rpo_seconds(*, broken_at: float, losses: Losses) -> float:
    if losses.oldest_lost_at is None:
        return 0.0
    return max(0.0, broken_at - losses.oldest_lost_at)
