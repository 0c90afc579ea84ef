"""The forms of people's part: incidents, messages, follow-ups, tests and reviews."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lifeboat.core.forms.base import INCIDENT_PATTERN, OfPlatform
from lifeboat.core.review_kinds import Decision, ReviewKind

IncidentSeverity = Literal["critical", "major", "minor"]


class OpenIncident(OfPlatform):
    """Something is wrong: tell people, and begin its record."""

    title: str = Field(
        default="", max_length=200, title="What is wrong", description="In one sentence; needed."
    )
    scenario: Literal["unknown", "database", "server", "files", "models"] = Field(
        default="unknown",
        description="What is hit, as far as known; a recovery of it joins this incident.",
    )
    severity: IncidentSeverity = Field(
        default="major", description="Critical: nobody can work. It wakes people."
    )
    commander: str = Field(
        default="", max_length=80, description="Who leads; empty: the first of lifeboat.yaml."
    )


class _OfIncident(OfPlatform):
    incident: str = Field(
        default="",
        pattern=INCIDENT_PATTERN,
        title="Incident",
        description="Its id; empty means the newest that is not closed.",
    )
    by: str = Field(
        default="", max_length=80, title="Your name", description="It goes on record; needed."
    )


class UpdateIncident(_OfIncident):
    """Tell people how it stands, change the severity or the commander, or say you are on it."""

    text: str = Field(
        default="",
        max_length=2000,
        title="What to tell",
        description="It goes to all internal roles; empty tells nobody.",
    )
    customers_too: bool = Field(
        default=False,
        title="Customers too",
        description="Tell the same to the status page and the customers.",
    )
    severity: Literal["unchanged", "critical", "major", "minor"] = Field(
        default="unchanged", description="How bad it is now."
    )
    commander: str = Field(
        default="", max_length=80, description="Who leads from now on; empty: as before."
    )
    acknowledge: bool = Field(
        default=False, title="I am on it", description="I am on it: nobody else needs to be woken."
    )


class CloseIncident(_OfIncident):
    """It is over, and people may be told so."""

    text: str = Field(
        default="", max_length=2000, title="How it ended", description="For the record; needed."
    )


class CommunicationTest(OfPlatform):
    """Try every way to people, or say that the test message came."""

    received: str = Field(
        default="",
        max_length=80,
        title="It has reached me",
        description="Your name, if a test message has reached you; empty sends one to everybody.",
    )
    customers_too: bool = Field(
        default=False,
        title="Customers too",
        description="Send it by the ways to customers and the public as well.",
    )


class FollowUpDeed(OfPlatform):
    """What has become of a follow-up, or a new one."""

    deed: Literal["done", "note", "put off", "assign", "add", "reopen"] = Field(
        title="What has happened",
        description="done: it was done. note: say how far it is. put off: remind later. assign: "
        "another owner. add: a new one. reopen: it was not done after all.",
    )
    follow_up: str = Field(
        default="",
        pattern=r"^(|[a-z0-9][a-z0-9-]*)$",
        title="Follow-up",
        description="Its name as the table shows it, or how that begins; empty for a new one.",
    )
    by: str = Field(
        min_length=2, max_length=80, title="Who", description="Your name, as it goes on record."
    )
    note: str = Field(
        default="",
        max_length=2000,
        description="What was done or found; for a new one, how it is to be done.",
    )
    days: float = Field(
        default=7, gt=0, le=366, description="Put off, add: in how many days it is to be done."
    )
    owner: str = Field(
        default="", max_length=80, description="Assign, add: who is to do it; a person or a role."
    )
    title: str = Field(
        default="", max_length=200, description="Add: what is to be done, in one line."
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> FollowUpDeed:
        if self.deed == "add":
            if not self.title:
                raise ValueError("a new follow-up needs a title")
        elif not self.follow_up:
            raise ValueError(f"{self.deed}: which follow-up?")
        if self.deed == "assign" and not self.owner:
            raise ValueError("assign: to whom?")
        if self.deed == "note" and not self.note:
            raise ValueError("note: what is to be noted?")
        return self


class Review(OfPlatform):
    """Sign off a test or review of the plan: what was looked at, found and decided."""

    kind: ReviewKind = Field(title="Which", description="The test or review that was held.")
    by: str = Field(
        min_length=2, max_length=80, title="Who signs off", description="As it goes on record."
    )
    decision: Decision = Field(
        description="passed: all is as it should be. passed with findings: good enough until the "
        "next one, and each finding becomes a follow-up. failed: it stays an alarm until it is "
        "held again."
    )
    findings: list[Annotated[str, Field(min_length=3, max_length=500)]] = Field(
        default=[],
        max_length=20,
        description="What was found that is to be changed, one each; a follow-up is opened for "
        "each.",
    )
    dry_run: bool = Field(
        default=False,
        title="Only show",
        description="Show what the machine knows about it; sign nothing, end as DryRun.",
    )

    @model_validator(mode="after")
    def _fits_its_findings(self) -> Review:
        if self.decision == "passed" and self.findings:
            raise ValueError("with findings the decision is `passed with findings` or `failed`")
        if self.decision != "passed" and not self.findings:
            raise ValueError(f"{self.decision}: what was found?")
        return self
