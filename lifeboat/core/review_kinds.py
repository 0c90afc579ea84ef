"""Which tests and reviews there are: the plan's section "Testing and Maintenance"."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from lifeboat.core.followups import COMMANDER, MANAGEMENT, TECHNICAL
from lifeboat.core.kinds import ReviewKind

MONTH_DAYS, QUARTER_DAYS, YEAR_DAYS = 31.0, 92.0, 366.0

Decision = Literal["passed", "passed with findings", "failed"]


class _Frozen(BaseModel):
    # A newer Lifeboat may add keys.
    model_config = ConfigDict(frozen=True, extra="ignore")


class About(_Frozen):
    """What a review is, as the plan has it."""

    title: str
    every_days: float
    owner: str
    how: str

    @property
    def how_often(self) -> str:
        names = {MONTH_DAYS: "monthly", QUARTER_DAYS: "quarterly", YEAR_DAYS: "annual"}
        return names.get(self.every_days, f"every {self.every_days:g} days")


ABOUT: dict[ReviewKind, About] = {
    ReviewKind.RESTORE_TEST: About(
        title="Backup restoration test",
        every_days=MONTH_DAYS,
        owner=TECHNICAL,
        how="Look at what the daily restore tests found, and restore one point by hand.",
    ),
    ReviewKind.FAILOVER_TEST: About(
        title="Failover procedures test",
        every_days=MONTH_DAYS,
        owner=TECHNICAL,
        how="Hold a drill on the staging machine: `lifeboat drill --record-in LIFEBOAT.YAML`.",
    ),
    ReviewKind.COMMUNICATION_TEST: About(
        title="Communication plan test",
        every_days=MONTH_DAYS,
        owner=COMMANDER,
        how="Send a test by every channel, `lifeboat alarms test`, and have each person say that "
        "it came.",
    ),
    ReviewKind.CONTACTS: About(
        title="Update contact information",
        every_days=QUARTER_DAYS,
        owner=COMMANDER,
        how="Call every number once; correct lifeboat.yaml; print the card anew.",
    ),
    ReviewKind.PROCEDURES: About(
        title="Review and update procedures",
        every_days=QUARTER_DAYS,
        owner=TECHNICAL,
        how="Read `lifeboat plan` with someone who has never done it; what do they ask?",
    ),
    ReviewKind.SCENARIOS: About(
        title="Test disaster recovery scenarios",
        every_days=QUARTER_DAYS,
        owner=TECHNICAL,
        how="Every scenario drilled within the quarter, and a word on those that no drill has.",
    ),
    ReviewKind.OBJECTIVES: About(
        title="Update RTO and RPO targets",
        every_days=QUARTER_DAYS,
        owner=MANAGEMENT,
        how="Compare what was measured with what the business needs.",
    ),
    ReviewKind.FULL_DRILL: About(
        title="Full disaster recovery drill",
        every_days=YEAR_DAYS,
        owner=COMMANDER,
        how="All scenarios, from the paper in the safe, by people who do not do it every day.",
    ),
    ReviewKind.PLAN: About(
        title="Comprehensive review of the plan",
        every_days=YEAR_DAYS,
        owner=MANAGEMENT,
        how="Read the whole of `lifeboat plan`; replace the one in the safe.",
    ),
    ReviewKind.TRAINING: About(
        title="Staff training updates",
        every_days=YEAR_DAYS,
        owner=COMMANDER,
        how="Everybody on the card has recovered the staging platform once, alone.",
    ),
    ReviewKind.VENDORS: About(
        title="Vendor contract reviews",
        every_days=YEAR_DAYS,
        owner=MANAGEMENT,
        how="Support numbers, response times and end dates of every contract.",
    ),
}
"""The plan's section "Testing and Maintenance", in its order."""


class Wanted(_Frozen):
    """How often a platform wants a review, and who answers for it."""

    kind: ReviewKind
    every_days: float
    owner: str
    late_days: float
