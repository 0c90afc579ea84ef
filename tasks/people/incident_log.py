"""A recovery writes its incident as it acts, in a thread of its own that it never waits for.

The thread hears what the run's journal holds: it opens an incident or joins one, writes its lines,
copies them to the bucket, and tells people. After the recovery it has a moment to finish.
"""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from lifeboat.core import data_loss
from lifeboat.core import incident as core
from lifeboat.core.errors import NoLongerNeeded
from lifeboat.core.incident import Event, EventKind, Incident
from lifeboat.core.timeline import Outcome, Phase, RunRecord, phase_seconds
from lifeboat.settings import Settings
from tasks import clock
from tasks.people import incidents
from tasks.record import Run

log = logging.getLogger("lifeboat")

LAST_WORD_SECONDS = 30.0
"""So long the end of a recovery waits until its incident is written and people are told."""
_TITLES = {
    "database": "the database does not work",
    "server": "the server is lost",
    "files": "files are damaged or missing",
    "models": "AI models are damaged or missing",
    "bucket": "the bucket with the backups was damaged",
}

when_told: list[Callable[[Settings, Incident, Event], None]] = []
"""What tells people, after a line was written; called in the incident's thread."""


class Companion:
    """Hears one run, and writes the incident once it is known whose platform it is."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._settings: Settings | None = None
        self._heard: queue.Queue[tuple[float, str, Mapping[str, Any]] | None] = queue.Queue()
        self._incident: Incident | None = None
        self._opened = False  # by this run
        self._phases: set[str] = set()
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=lambda: context.run(self._write_all), name="incident", daemon=True
        )
        run.listen(lambda event, details: self._heard.put((time.time(), event, details)))

    def belongs_to(self, settings: Settings) -> None:
        self._settings = settings
        self._thread.start()

    def finish(self) -> None:
        """Give the thread a moment for what it has not written yet."""
        if self._settings is None:
            return
        self._heard.put(None)
        self._thread.join(LAST_WORD_SECONDS)
        if self._thread.is_alive():
            log.warning(
                "The incident was not told to the end within %g s; who was reached until then is "
                "in its record.",
                LAST_WORD_SECONDS,
            )

    # --- the thread ---------------------------------------------------------------------------

    def _write_all(self) -> None:
        ended = False
        while not ended:
            told = [self._heard.get()]
            while not self._heard.empty():
                told.append(self._heard.get())
            for item in told:
                if item is None:
                    ended = True
                    continue
                try:
                    self._hear(*item)
                except Exception as error:
                    log.warning("Writing down the incident: %s: %s", type(error).__name__, error)
            if self._incident and self._settings:
                incidents.mirror(self._settings, self._incident.id)

    def _hear(self, at: float, event: str, details: Mapping[str, Any]) -> None:
        moment = datetime.fromtimestamp(at, timezone.utc)
        if event == "planned":
            self._begin(moment)
            self._add(EventKind.DETECTED, moment, str(details["symptoms"]))
            told = f"Bring back to {details['target']}. {details['expected_loss']}"
            data = {k: details[k] for k in ("expected_loss", "expected_seconds")}
            self._add(EventKind.PLANNED, moment, told, **data)
        elif event == "run-ended":
            self._end(moment, details)
        if self._incident is None:
            return
        if event == "fact" and ("approved_by" in details or "rejected_by" in details):
            self._decided(moment, details)
        elif event == "step-began" and details.get("phase"):
            phase = Phase(details["phase"])
            if phase not in self._phases:
                self._phases.add(phase)
                told = core.PHASES_IN_WORDS[phase].capitalize()
                self._add(EventKind.PHASE, moment, told, phase=str(phase))
        elif event == "rung":
            told = f"{details['rung']}: {details['outcome']}. {details['reason']}"
            self._add(EventKind.RUNG, moment, told, **details)
        elif event == "moved-aside":
            told = f"{details['what']} was kept as {details['where']}"
            self._add(EventKind.MOVED_ASIDE, moment, told)
        elif event == "verdict":
            told = f"{details['passed']} of {details['total']} checks passed"
            if bad := [c["name"] for c in details["checks"] if c["status"] in ("FAIL", "UNKNOWN")]:
                told += f"; not: {', '.join(bad)}"
            figures = {"checks_passed": details["passed"], "checks_total": details["total"]}
            self._add(EventKind.CHECKS, moment, told, **figures, checks=details["checks"])

    def _begin(self, at: datetime) -> None:
        settings, record = self._settings, self._run.record
        if settings is None:
            return
        scenario = core.scenario_of(record.procedure)
        drill = settings.environment == "staging"
        known = incidents.list_incidents(settings, in_bucket=scenario == "server" or None)
        joins = core.fitting(known, scenario=scenario, drill=drill, at=at)
        if joins:
            self._incident = joins
            joining = core.joining(joins, scenario=scenario, at=at)
            told = f"{record.procedure} begins"
            if joining.anew:
                told = f"{_TITLES.get(scenario, scenario)}: {told}"
            self._add(EventKind.JOINED, at, told, **joining.model_dump(mode="json"))
            return
        self._opened = True
        title = f"{settings.platform}: {_TITLES.get(scenario, record.procedure)}"
        self._incident = incidents.open_incident(
            settings,
            title=title,
            scenario=scenario,
            drill=drill,
            by=self._run.id,
            run=self._run.id,
            at=datetime.fromtimestamp(record.began_at, timezone.utc),
        )
        self._tell(self._incident.events[-1])

    def _decided(self, at: datetime, details: Mapping[str, Any]) -> None:
        said = "approved" if "approved_by" in details else "rejected"
        who = str(details[f"{said}_by"])
        why = str(details.get(f"{said}_because", ""))
        told = f"The plan was {said} by {who}" + (f": {why}" if why else "")
        self._add(EventKind.DECIDED, at, told, by=who, approved=said == "approved", reason=why)

    def _end(self, at: datetime, details: Mapping[str, Any]) -> None:
        outcome, error = details["outcome"], details.get("error") or ""
        if self._incident is None:
            return  # nothing was about to be done: a dry run, or it was refused at the door
        record = self._run.record
        if outcome == Outcome.DONE:
            figures = figures_of(record, self._incident)
            told = f"{record.procedure} is done in {record.seconds:.0f} s"
            self._add(EventKind.RECOVERED, at, told, **figures)
        elif outcome == Outcome.FAILED:
            self._add(EventKind.FAILED, at, f"{record.procedure} failed: {error}", error=error)
        elif "rejected_by" not in record.facts:
            # Also one that was approved, and did not hold any more by then.
            told = f"The plan was not carried out: {error}"
            # A person who takes the plan back may want to act otherwise: that is not well yet.
            taken_back = bool(record.facts.get("well_again"))
            well = taken_back or record.facts.get("not_approved") == NoLongerNeeded.__name__
            more = {"well_again": True} if well and not self._opened else {}
            self._add(EventKind.DECIDED, at, told, approved=False, reason=error, **more)
            if well and self._nobody_took_it_up():
                # Open it would be escalated at night, and swallow the next real one.
                self._add(EventKind.CLOSED, at, "The platform is well, and nothing was done to it.")

    def _nobody_took_it_up(self) -> bool:
        return self._opened and self._incident is not None and not self._incident.acknowledged_at

    def _add(self, kind: EventKind, at: datetime, text: str, *, by: str = "", **data: Any) -> None:
        if self._incident is None or self._settings is None:
            return
        event = Event(
            at=at, kind=kind, text=text, by=by or self._run.id, run=self._run.id, data=data
        )
        self._incident = incidents.append(self._settings, self._incident.id, event)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        if self._settings is None or self._incident is None:
            return
        for act in list(when_told):
            act(self._settings, self._incident, event)
            self._incident = incidents.read(self._settings, self._incident.id) or self._incident


def figures_of(record: RunRecord, incident: Incident) -> dict[str, Any]:
    """What a recovery measured. Its RTO counts from the trouble to the last passed check."""
    verified = max((s.ended_at for s in record.steps if s.name == "verify"), default=None)
    began_at = incident.began_at or incident.opened_at
    began = began_at.timestamp()
    figures: dict[str, Any] = {
        **data_loss.figures(record.facts, began_at=began_at),
        "recovery_seconds": record.seconds,
        "phases": {str(p): s for p, s in phase_seconds(record.steps).items()},
        "points": list(record.points),
        "record": record.id,
        "objective_rto_seconds": record.facts.get("objective_rto_seconds"),
        "objective_rpo_seconds": record.facts.get("objective_rpo_seconds"),
    }
    if verified is not None:
        figures["rto_seconds"] = verified - began
    if record.verdict:
        figures["checks_passed"] = record.verdict.passed
        figures["checks_total"] = record.verdict.total
    return figures


_companion: contextvars.ContextVar[Companion | None] = contextvars.ContextVar(
    "companion", default=None
)


@contextmanager
def accompanied() -> Iterator[None]:
    """Let what is recovered within the block write an incident; wait a moment for it at the end.

    Goes around the lock: nobody waits for it.
    """
    token = _companion.set(None)
    try:
        yield
    finally:
        companion = _companion.get()
        _companion.reset(token)
        if companion:
            companion.finish()


def follow(run: Run, settings: Settings | None = None) -> None:
    """Write the incident of a run, from its first line on."""
    companion = Companion(run)
    _companion.set(companion)
    if settings:
        companion.belongs_to(settings)


def belongs_to(settings: Settings) -> None:
    """Tell whose platform it is, where the recovery began without its settings."""
    if companion := _companion.get():
        companion.belongs_to(settings)


def open_drill(
    settings: Settings, scenario: str, *, began_at: datetime, text: str, **found: Any
) -> None:
    """Open the incident of a drilled scenario, which its recovery then joins. Never raises."""
    try:
        title = f"{settings.platform}: {_TITLES.get(scenario, scenario)}"
        opened = incidents.open_incident(
            settings, title=title, scenario=scenario, drill=True, by="drill", began_at=began_at
        )
        event = Event(
            at=clock.now(), kind=EventKind.DETECTED, text=text, by="drill", data=dict(found)
        )
        detected = incidents.append(settings, opened.id, event)
        incidents.mirror(settings, opened.id)
        for act in list(when_told):
            act(settings, detected, opened.events[-1])
        incidents.mirror(settings, opened.id)
    except Exception as error:
        log.warning("Opening the incident of the drill: %s: %s", type(error).__name__, error)


def close_drill(settings: Settings, scenario: str, *, text: str, **figures: Any) -> None:
    """Close the incident of a drilled scenario with what was measured outside. Never raises."""
    try:
        known = incidents.list_incidents(settings, in_bucket=scenario == "server")
        found = core.fitting(known, scenario=scenario, drill=True, at=clock.now())
        if found is None:
            return
        event = Event(
            at=clock.now(), kind=EventKind.CLOSED, text=text, by="drill", data=dict(figures)
        )
        closed = incidents.append(settings, found.id, event)
        for act in list(when_told):
            act(settings, closed, event)
        incidents.mirror(settings, found.id)
    except Exception as error:
        log.warning("Closing the incident of the drill: %s: %s", type(error).__name__, error)
