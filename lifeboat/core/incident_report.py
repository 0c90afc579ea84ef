"""The post-incident report, from an incident's lines; what only a person knows is a gap."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from lifeboat.core.checks import NOT_PASSED, CheckResult
from lifeboat.core.followups import FollowUp
from lifeboat.core.incident import Delivered, Event, EventKind, Incident

TO_FILL_IN = ("root cause", "who was affected, and how", "what went well", "what to change")


class Mark(BaseModel):
    """A point of the timeline chart."""

    model_config = ConfigDict(frozen=True)

    percent: float  # of the way from the first line to the last
    kind: EventKind
    text: str


class IncidentReport(BaseModel):
    """Everything the report shows."""

    model_config = ConfigDict(frozen=True)

    incident: Incident
    written_at: datetime
    objective_rto_seconds: float
    objective_rpo_seconds: float
    follow_ups: tuple[FollowUp, ...] = ()

    @property
    def gaps(self) -> tuple[str, ...]:
        return TO_FILL_IN

    @property
    def timeline(self) -> tuple[Event, ...]:
        return tuple(e for e in self.incident.events if e.kind is not EventKind.MESSAGE)

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        """All checks of the last verification, with what each saw."""
        return tuple(map(CheckResult.model_validate, self.incident.figures.get("checks", ())))

    @property
    def messages(self) -> tuple[Delivered, ...]:
        return self.incident.messages

    @property
    def rto_in_words(self) -> str:
        return rto_in_words(self.incident.figures, self.objective_rto_seconds)

    @property
    def rpo_in_words(self) -> str:
        return rpo_in_words(self.incident.figures, self.objective_rpo_seconds)

    @property
    def checks_in_words(self) -> str:
        """How many checks passed after the last recovery."""
        return checks_in_words(self.incident.figures) or "not on record"

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The timeline as places on a line."""
        events = self.timeline
        if not events:
            return ()
        first, last = events[0].at, events[-1].at
        whole = (last - first).total_seconds() or 1.0
        return tuple(
            Mark(
                percent=100 * (e.at - first).total_seconds() / whole,
                kind=e.kind,
                text=f"{e.kind}: {e.text}",
            )
            for e in events
        )


def rto_in_words(figures: Mapping[str, Any], objective: float) -> str:
    """Say how long it took, and whether that was in time."""
    return _against(figures.get("rto_seconds"), objective)


def rpo_in_words(figures: Mapping[str, Any], objective: float) -> str:
    """Say how much data time was lost: counted from outside, or else at most.

    A moment that somebody asked for is no failure of the backups, so it gets no verdict. Files that
    no backup holds are named first: with them nothing is kept, whatever the time says.
    """
    told = _rpo_in_time(figures, objective)
    gone = figures.get("files_gone")
    return f"gone for good: {gone} files; besides: {told}" if gone else told


def _rpo_in_time(figures: Mapping[str, Any], objective: float) -> str:
    if "rpo_seconds" in figures:
        return _against(figures["rpo_seconds"], objective)
    at_most, because = figures.get("lost_at_most_seconds"), figures.get("lost_because", "")
    if not isinstance(at_most, int | float):
        return _against(None, objective)
    if figures.get("lost_as_asked"):
        return f"{at_most:.1f} s, as was asked for ({because})"
    told = f"at most {at_most:.1f} s" if at_most else "nothing"
    verdict = "kept" if at_most <= objective else "NOT shown to be kept"
    return f"{told} (objective {objective:.0f} s: {verdict}); {because}"


def checks_in_words(figures: Mapping[str, Any]) -> str:
    """Say how many checks passed and name those that did not; empty if none is on record."""
    if "checks_total" not in figures:
        return ""
    told = f"{figures.get('checks_passed', 0)} of {figures['checks_total']} passed"
    checks = map(CheckResult.model_validate, figures.get("checks", ()))
    bad = [f"{c.name} {c.status} ({c.evidence})" for c in checks if c.status in NOT_PASSED]
    return f"{told}; not: {', '.join(bad)}" if bad else told


def _against(seconds: object, objective: float) -> str:
    """Say a figure beside its objective; one that was not measured is not called kept."""
    if not isinstance(seconds, int | float):
        return f"not measured (objective: {objective:.0f} s)"
    kept = "kept" if seconds <= objective else "NOT kept"
    return f"{seconds:.1f} s (objective {objective:.0f} s: {kept})"
