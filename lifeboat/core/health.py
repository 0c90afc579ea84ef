"""When failing health checks become the proposal of a recovery, and when that is taken back.

One bad look is no reason: a service may be restarting. So many in a row are, and then a person is
asked once.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from lifeboat.core.diagnosis import Cure, Diagnosis, Scenario

PROCEDURES = {
    Scenario.DATABASE: "recover-database",
    Scenario.FILES: "recover-files",
    Scenario.MODELS: "recover-models",
}
"""What can be proposed on the platform's own host. A lost server has no host to be asked on."""


class _Kept(BaseModel):
    # An older Lifeboat may read what a newer one has written.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Look(_Kept):
    """What one look found wrong; nothing: the platform is well."""

    at: datetime
    wrong: tuple[str, ...] = ()


class Proposal(_Kept):
    """A recovery that waits in Prefect for a person."""

    run: str
    procedure: str
    evidence: str
    at: datetime
    url: str = ""


class Pause(_Kept):
    """Somebody works on the platform: until then nothing is judged."""

    until: datetime
    why: str
    by: str


class Streak(_Kept):
    """The bad looks in a row up to now, and what was done about them."""

    failures: int = 0
    since: datetime | None = None
    wrong: tuple[str, ...] = ()
    cures: tuple[Cure, ...] = ()
    proposal: Proposal | None = None
    proposed: int = 0  # how often, in this streak
    rejected: bool = False  # a person said no: it is not asked again before the platform was well
    pause: Pause | None = None

    def is_paused(self, now: datetime) -> bool:
        return self.pause is not None and now < self.pause.until


class Act(StrEnum):
    """What follows from a look."""

    NOTHING = "nothing"
    DIAGNOSE = "diagnose"  # so many in a row: find out what fits, and propose it
    WITHDRAW = "withdraw"  # well again, and a proposal still waits


def after(streak: Streak, look: Look, *, needed: int) -> tuple[Streak, Act]:
    """Give the streak with one look more, and what follows from it.

    A streak is diagnosed when it is long enough, and again each time it has grown by as much and
    nothing has been proposed: what is wrong may show itself only later.
    """
    if not look.wrong:
        act = Act.WITHDRAW if streak.proposal else Act.NOTHING
        return Streak(proposal=streak.proposal, pause=streak.pause), act
    grown = streak.model_copy(
        update={
            "failures": streak.failures + 1,
            "since": streak.since or look.at,
            "wrong": look.wrong,
        }
    )
    due = grown.failures >= needed and grown.failures % needed == 0
    asked = grown.proposal is not None or grown.rejected
    return grown, Act.DIAGNOSE if due and not asked else Act.NOTHING


def let_go_of_proposal(streak: Streak, *, rejected: bool) -> Streak:
    """The proposal has ended. What was bad is as bad as before until a look says otherwise."""
    changed = {"proposal": None, "proposed": streak.proposed + 1, "rejected": rejected, "cures": ()}
    return streak.model_copy(update=changed)


def what_to_propose(diagnosis: Diagnosis) -> Cure | None:
    """The first cure, if it is one that can be proposed: the others come after it."""
    first = next(iter(diagnosis.cures), None)
    return first if first and first.scenario in PROCEDURES else None


class Health(_Kept):
    """What a look came to, for people."""

    platform: str
    look: Look | None  # None: it was not judged, see `note`
    streak: Streak = Streak()
    note: str = ""

    @property
    def good(self) -> bool:
        return self.look is None or not self.look.wrong

    def in_words(self) -> str:
        if self.look is None:
            return f"{self.platform}: not judged now. {self.note or 'A recovery is at work.'}"
        if not self.look.wrong:
            return f"{self.platform} is well."
        lines = [f"{self.platform} is not well (bad looks in a row: {self.streak.failures}):"]
        lines += [f"  {wrong}" for wrong in self.look.wrong]
        lines += [f"  fits: {cure.scenario}: {cure.evidence}" for cure in self.streak.cures]
        if self.streak.proposal:
            where = self.streak.proposal.url or self.streak.proposal.run
            lines.append(f"  {self.streak.proposal.procedure} waits for approval: {where}")
        elif self.streak.cures:
            lines.append(f"  -> {self.streak.cures[0].command}")
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])
