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
        return bool(self.scenarios) and all(map(self.kept_its_objectives, self.scenarios))

    def kept_its_objectives(self, scenario: ScenarioResult) -> bool:
        return (
            scenario.recovered
            and scenario.detected
            and scenario.rto_seconds <= self.objective_rto_seconds
            and scenario.rpo_seconds <= self.objective_rpo_seconds
        )

    @property
    def good(self) -> bool:
        return self.passed

    def in_words(self) -> str:
        """What did not come back as it should, in one line."""
        bad = [s for s in self.scenarios if not (s.recovered and s.detected)]
        told = "; ".join(f"{s.name}: {s.error or 'not recovered, or not noticed'}" for s in bad)
        late = [s.name for s in self.scenarios if s not in bad and not self._in_time(s)]
        told += f"; outside of the objectives: {', '.join(late)}" if late else ""
        return (
            f"{len(self.scenarios) - len(bad)} of {len(self.scenarios)} recovered. {told}".strip()
        )


def measured_rpo_seconds(*, broken_at: float, losses: Losses) -> float:
    if losses.oldest_lost_at is None:
        return 0.0
    return max(0.0, broken_at - losses.oldest_lost_at)


class ScenarioOnRecord(BaseModel):
    """What of one drilled scenario is kept. Seconds throughout."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    passed: bool  # recovered within both objectives, and its damage was noticed
    rto_seconds: float
    rpo_seconds: float
    start_seconds: float
    verify_seconds: float
    phases: dict[Phase, float] = Field(default_factory=dict)  # empty: an older Lifeboat's


class DrillOnRecord(BaseModel):
    """A drill as it is kept in the vault of the platform that it was held for."""

    # A newer Lifeboat may add keys.
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    drilled: str  # name of the platform that was broken
    stack: str
    ended_at: datetime
    passed: bool
    scenarios: tuple[ScenarioOnRecord, ...]

    @classmethod
    def of(cls, report: DrillReport) -> DrillOnRecord:
        return cls(
            id=report.id,
            drilled=report.platform,
            stack=report.stack,
            ended_at=report.ended_at,
            passed=report.passed,
            scenarios=tuple(
                ScenarioOnRecord(
                    name=scenario.name,
                    passed=report.kept_its_objectives(scenario),
                    rto_seconds=scenario.rto_seconds,
                    rpo_seconds=scenario.rpo_seconds,
                    start_seconds=scenario.phases.get(Phase.START, 0.0),
                    verify_seconds=scenario.phases.get(Phase.VERIFY, 0.0),
                    phases=scenario.phases,
                )
                for scenario in report.scenarios
            ),
        )
