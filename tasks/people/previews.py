"""Every message of an incident before there is one: for a dry run, and for a look at the texts."""

from __future__ import annotations

from lifeboat.core import incident as incident_core
from lifeboat.core.communication import INTERNAL, Audience, Moment
from lifeboat.core.incident import Event, EventKind, Incident
from lifeboat.core.plan import RecoveryPlan
from lifeboat.settings import Settings
from tasks import clock
from tasks.people import communication
from tasks.people.communication import Message


def preview(settings: Settings, incident: Incident) -> tuple[Message, ...]:
    """Give all that would be told of an incident, from its opening to its close; send nothing."""
    now = clock.now()
    found: list[Message] = []
    for moment in (Moment.OPENED, Moment.UPDATE, Moment.RECOVERED, Moment.CLOSED):
        audiences = INTERNAL if moment is Moment.UPDATE else tuple(Audience)
        event = Event(at=now, kind=EventKind.NOTE, text="(what is told then)")
        found += communication.at_moment(settings, incident, event, moment, audiences)
    return tuple(found)


def in_words(message: Message) -> str:
    """A message as it is previewed in a terminal."""
    by = ", then ".join(channel.name for channel in message.channels) or "NO CHANNEL"
    held = f" [held back: {message.withheld}]" if message.withheld else ""
    text = "\n".join(f"    {line}".rstrip() for line in message.text.body.splitlines())
    problem = f"\n    (not used: {message.text.problem})" if message.text.problem else ""
    head = f"{message.moment}, to {message.to} ({message.audience}) by {by}{held}"
    return f"{head}\n    {message.text.title}\n{text}{problem}"


def _of_plan(plan: RecoveryPlan) -> tuple[Event, ...]:
    """What the messages know of a plan before anybody has approved it."""
    data = {
        "expected_loss": plan.expected_loss,
        "expected_seconds": plan.forecast.seconds if plan.forecast else None,
    }
    return (
        Event(at=plan.made_at, kind=EventKind.DETECTED, text=plan.symptoms),
        Event(at=plan.made_at, kind=EventKind.PLANNED, data=data),
    )


def preview_of_plan(settings: Settings, plan: RecoveryPlan) -> str:
    """What people would be told of a recovery, for its dry run. Never raises."""
    try:
        scenario = incident_core.scenario_of(plan.procedure)
        incident = Incident(
            id="preview",
            platform=plan.platform,
            title=f"{plan.platform}: {plan.symptoms}",
            scenario=scenario,
            drill=settings.environment == "staging",
            severity=incident_core.severity_of(scenario),
            commander=next((p.name for p in settings.people.incident_commander), ""),
            opened_at=clock.now(),
            events=_of_plan(plan),
        )
        return "\n\n".join(map(in_words, preview(settings, incident)))
    except Exception as error:
        return f"What people would be told can't be shown: {error}"
