"""The verdict of a verification: PASS, FAIL or UNKNOWN, and UNKNOWN never counts as PASS.

A check of something that the platform has not got says NONE, and counts neither way.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Status(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"  # the check could not be carried out
    NONE = "NONE"  # the platform has nothing to look at, by `checks.without` in lifeboat.yaml


NOT_PASSED = (Status.FAIL, Status.UNKNOWN)

CHECKLIST: dict[str, tuple[str, ...]] = {
    "System health": (
        "containers-running",
        "health-endpoints",
        "database-connections",
        "redis-reachable",
        "file-storage-reachable",
    ),
    "Application functionality": (
        "authentication",
        "file-round-trip",
        "search",
        "ai-inference",
        "admin-dashboard",
    ),
    "Data integrity": (
        "tables-complete",
        "file-counts",
        "models-loadable",
        "user-data-intact",
    ),
    "Performance": (
        "response-times",
        "memory-stable",
        "cpu-normal",
        "disk-space",
    ),
}
"""The plan's Recovery Verification Checklist, by section, in its order."""

CHECK_NAMES: tuple[str, ...] = tuple(name for names in CHECKLIST.values() for name in names)


class CheckResult(BaseModel):
    """What one check saw. `evidence` is what convinced it, in words and figures."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    evidence: str
    seconds: float


class Verdict(BaseModel):
    """All checks of one verification, in the order of the checklist."""

    model_config = ConfigDict(frozen=True)

    checks: tuple[CheckResult, ...]

    @classmethod
    def of(
        cls, results: Iterable[CheckResult], *, expected: Iterable[str] = CHECK_NAMES
    ) -> Verdict:
        """Order the results; a check that gave none is UNKNOWN."""
        by_name = {result.name: result for result in results}
        return cls(
            checks=tuple(
                by_name.get(name)
                or CheckResult(
                    name=name, status=Status.UNKNOWN, evidence="the check gave no result", seconds=0
                )
                for name in expected
            )
        )

    @property
    def passed(self) -> int:
        return sum(check.status is Status.PASS for check in self.checks)

    @property
    def total(self) -> int:
        """How many checks there are, without those of what the platform has not got."""
        return sum(check.status is not Status.NONE for check in self.checks)

    @property
    def good(self) -> bool:
        return self.total > 0 and self.passed == self.total

    @property
    def not_passed(self) -> tuple[CheckResult, ...]:
        return tuple(check for check in self.checks if check.status in NOT_PASSED)

    def in_words(self) -> str:
        """What did not pass, in one line."""
        told = "; ".join(f"{c.name} {c.status}: {c.evidence}" for c in self.not_passed)
        return f"{self.passed} of {self.total} checks passed. {told}".strip()
