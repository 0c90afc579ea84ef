"""The sections `follow_ups` and `reviews`: what is done after a recovery, and in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from lifeboat.core.review_kinds import ABOUT, ReviewKind, Wanted
from lifeboat.settings.base import Section

Reason = Annotated[str, Field(min_length=1)]


class FollowUps(Section):
    """What is to be done after a recovery: the plan's Post-Recovery Actions."""

    owners: Mapping[str, str] = Field(
        default={},
        description="Who does it, by the action's name or by the plan's role: "
        '`{Technical Team: "Backend Lead", hold-drill: "Database Admin"}`.',
    )
    without: Mapping[str, Reason] = Field(
        default={}, description="Actions that are never opened, each with the reason."
    )
    stability_hours: float = Field(
        default=24, gt=0, description="How long a recovered platform is watched for drift."
    )
    look_seconds: float = Field(
        default=900, gt=0, description="Between two looks at the platform's stability."
    )
    drift_percent: float = Field(
        default=50,
        gt=0,
        description="How much more memory, CPU or time for an answer than before is drift.",
    )


class ReviewOf(Section):
    """One test or review, where it is not as the plan has it."""

    every_days: float | None = Field(default=None, gt=0, description="How often it is held.")
    owner: str = Field(default="", description="Who answers for it.")


class Reviews(Section):
    """The tests and reviews that are held again and again: monthly, quarterly, annual."""

    kinds: Mapping[ReviewKind, ReviewOf] = Field(
        default={},
        description="`{training: {every_days: 180, owner: CTO}}`; the rest is the plan's.",
    )
    without: Mapping[ReviewKind, Reason] = Field(
        default={}, description="What is not held, each with the reason."
    )
    late_days: float = Field(
        default=14, ge=0, description="Days after it was due until a review is an alarm."
    )
    remind_hours: float = Field(
        default=24, gt=0, description="After so long people are reminded again of what is due."
    )

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """Every test and review of this platform."""
        found = []
        for kind, about in ABOUT.items():
            if kind not in self.without:
                told = self.kinds.get(kind, ReviewOf())
                found.append(
                    Wanted(
                        kind=kind,
                        every_days=told.every_days or about.every_days,
                        owner=told.owner or about.owner,
                        late_days=self.late_days,
                    )
                )
        return tuple(found)
