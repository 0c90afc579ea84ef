"""Which cures to try for a lost database, cheapest first (scenario 1 of the plan)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from lifeboat.core.kinds import Rung, Tier


class DatabaseAssessment(BaseModel):
    """What was seen of the database before anything was done."""

    model_config = ConfigDict(frozen=True)

    service_state: str
    answers: bool  # queries are answered
    cluster_problems: tuple[str, ...]  # what is wrong with the data directory as it lies there
    block_problems: str = ""  # damaged blocks, if the server could be asked

    @property
    def healthy(self) -> bool:
        return self.answers and not self.cluster_problems and not self.block_problems

    def in_words(self) -> str:
        """What is wrong; not the service's state, which changes while somebody reads it."""
        parts = ["answers queries" if self.answers else "does not answer"]
        if self.cluster_problems:
            parts.append("data directory: " + ", ".join(self.cluster_problems))
        if self.block_problems:
            parts.append(self.block_problems)
        return "; ".join(parts)


class RungChoice(BaseModel):
    model_config = ConfigDict(frozen=True)

    rung: Rung
    use: bool
    reason: str


def choose_rungs(
    assessment: DatabaseAssessment,
    *,
    tiers_with_a_point: Collection[Tier],
    only_from: Tier | None = None,
    to_time: datetime | None = None,
    allowed: Collection[Rung] = tuple(Rung),
) -> tuple[RungChoice, ...]:
    """Say of every rung whether to try it, and why.

    A restart can't cure a damaged directory and can't go back in time. `only_from` is the
    operator's word: local means the hot copy or the local vault.
    """
    return tuple(
        _choose(rung, assessment, tiers_with_a_point, only_from, to_time, allowed) for rung in Rung
    )


def _choose(
    rung: Rung,
    assessment: DatabaseAssessment,
    tiers: Collection[Tier],
    only_from: Tier | None,
    to_time: datetime | None,
    allowed: Collection[Rung],
) -> RungChoice:
    def no(reason: str) -> RungChoice:
        return RungChoice(rung=rung, use=False, reason=reason)

    if rung not in allowed:
        return no("not asked for")
    if rung is Rung.RESTART:
        if to_time is not None:
            return no("a restart can't go back in time")
        if only_from is not None:
            return no(f"the operator asked for a restore from {only_from}")
        if assessment.cluster_problems:
            return no("the data directory is damaged: " + ", ".join(assessment.cluster_problems))
        if assessment.block_problems:
            return no("blocks are damaged: " + assessment.block_problems)
        return RungChoice(rung=rung, use=True, reason="the data directory looks whole")
    tier = rung.tier
    assert tier is not None
    if only_from is Tier.S3 and rung is not Rung.S3:
        return no("the operator asked for S3")
    if only_from in (Tier.LOCAL, Tier.HOT) and rung is Rung.S3:
        return no("the operator asked for the local copy")
    if tier not in tiers:
        fits = f" from before {to_time.isoformat()}" if to_time else ""
        return no(f"no recovery point{fits} there")
    return RungChoice(rung=rung, use=True, reason="has a recovery point")
