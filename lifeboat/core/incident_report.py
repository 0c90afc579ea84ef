"""The post-incident report, from an incident's lines; what only a person knows is a gap."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

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
    def checks(self) -> tuple[Event, ...]:
        return tuple(e for e in self.incident.events if e.kind is EventKind.CHECKS)

    @property
    def messages(self) -> tuple[Delivered, ...]:
        return self.incident.messages

    @property
    def rto_in_words(self) -> str:
        return _against(self.incident.figures.get("rto_seconds"), self.objective_rto_seconds)

    @property
    def rpo_in_words(self) -> str:
        return _against(self.incident.figures.get("rpo_seconds"), self.objective_rpo_seconds)

    @property
    def checks_in_words(self) -> str:
        """How many checks passed after the last recovery."""
        figures = self.incident.figures
        if "checks_total" not in figures:
            return "not on record"
        return f"{figures.get('checks_passed', 0)} of {figures['checks_total']} passed"

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


def _against(seconds: object, objective: float) -> str:
    """Say a figure beside its objective; one that was not measured is not called kept."""
    if not isinstance(seconds, int | float):
        return f"not measured (objective: {objective:.0f} s)"
    kept = "kept" if seconds <= objective else "NOT kept"
    return f"{seconds:.1f} s (objective {objective:.0f} s: {kept})"
