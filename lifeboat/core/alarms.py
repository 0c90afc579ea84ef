"""What is found of a platform's protection, and the numbers by which it is judged."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from lifeboat.core.checks import Status
from lifeboat.core.coverage import Protected
from lifeboat.core.points import Asset
from lifeboat.core.review_kinds import Wanted


class Finding(BaseModel):
    """One thing that was looked at, by a name that stays. `advice`: what to do next, if anything
    is to be done.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    evidence: str
    advice: str = ""


class Limits(BaseModel):
    """The numbers of `objectives`, `keep` and `watch` in lifeboat.yaml."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    rto_seconds: float
    rpo_seconds: float
    every_seconds: Mapping[Asset, float]  # between backups
    on_change_seconds: float  # between looks at what is backed up when it has changed
    wal_seconds: float
    watch_seconds: float
    late_factor: float
    verified_days: float
    drill_days: float  # 0: none is asked
    certificate_days: float
    free_space_days: float
    synchronous: bool
    excused: Mapping[str, str] = Field(default_factory=dict)
    reviews: tuple[Wanted, ...] = ()
    protected: Protected = Protected(paths=(), excused={})

    def late_seconds(self, every_seconds: float) -> float:
        """The age from which on something that is due so often is late."""
        return every_seconds * self.late_factor


def passed(name: str, evidence: str) -> Finding:
    return Finding(name=name, status=Status.PASS, evidence=evidence)


def failed(name: str, evidence: str, advice: str) -> Finding:
    return Finding(name=name, status=Status.FAIL, evidence=evidence, advice=advice)


def unknown(name: str, evidence: str, advice: str = "") -> Finding:
    return Finding(name=name, status=Status.UNKNOWN, evidence=evidence, advice=advice)


def worst(statuses: list[Status]) -> Status:
    """FAIL before UNKNOWN before PASS; UNKNOWN if there is none."""
    order = (Status.FAIL, Status.UNKNOWN, Status.PASS)
    return next((status for status in order if status in statuses), Status.UNKNOWN)
