"""What is to be done by people: closed where the records say that it is done, told until it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import get_args

from lifeboat.core.errors import RecoveryError
from lifeboat.core.followups import Event, FollowUp, by_urgency
from lifeboat.core.forms import Scenario
from lifeboat.core.notices import Trouble
from lifeboat.core.points import Asset
from lifeboat.core.reviews import Standing
from lifeboat.core.survey import Unseen
from lifeboat.settings import Settings
from tasks import alarms, clock
from tasks.looking import seen
from tasks.orchestration import in_flow_run, step
from tasks.people import followups, reviews
from tasks.survey_vault import Notes

log = logging.getLogger("lifeboat")

_DRILL_SPARE = timedelta(days=7)  # between a drill that is scheduled and the day it is due
_REVIEW = "review-"


@step()
def close_what_is_done(settings: Settings) -> tuple[FollowUp, ...]:
    """Close the follow-ups that the machine does itself, once the records show that they are done.

    Gives all follow-ups. What the stability watch does, it closes itself.
    """
    found = followups.read_all(settings)
    for one in found:
        evidence = ""
        if one.is_done:
            continue
        if one.name == "test-backup-integrity":
            evidence = _restored_since(settings, one.opened_at)
        elif one.name == "hold-drill":
            evidence = _drilled_since(settings, one.opened_at)
        if evidence:
            event = Event(at=clock.now(), follow_up=one.id, event="done", note=evidence)
            followups.record(settings, one.source, (event,))
            log.info("%s is done: %s", one.id, evidence)
    return followups.read_all(settings)


def _restored_since(settings: Settings, since: datetime) -> str:
    """That a restore test of every asset has passed since then; empty if not."""
    tests = seen(Notes(settings, in_bucket=True).tests)
    if isinstance(tests, Unseen):
        return ""
    good = {asset: t for asset, t in tests.items() if t.passed and t.ended_at > since}
    if set(good) != set(Asset):
        return ""
    told = ", ".join(f"{test.point} ({test.ended_at:%Y-%m-%d %H:%M})" for test in good.values())
    return f"Restored from S3, started and questioned: {told}."


def _drilled_since(settings: Settings, since: datetime) -> str:
    """That every scenario was drilled with success since then; empty if not."""
    drills = seen(Notes(settings, in_bucket=True).drills)
    if isinstance(drills, Unseen):
        return ""
    good: dict[str, str] = {}
    for drill in sorted(drills, key=lambda drill: drill.ended_at):
        if drill.ended_at > since:
            good |= {s.name: drill.id for s in drill.scenarios if s.passed}
    if not set(get_args(Scenario)) <= set(good):
        return ""
    return f"Every scenario was drilled and recovered: {', '.join(sorted(set(good.values())))}."


@step()
def schedule_drills(settings: Settings, found: Sequence[FollowUp]) -> None:
    """Schedule the drill that a follow-up asks for, where there is a Prefect server.

    Once for each: a run that was cancelled in the UI is not scheduled again. Never raises.
    """
    if not in_flow_run():
        return  # the due date stands, and is told
    for one in found:
        if one.name != "hold-drill" or one.is_done or one.rehearsal or _is_scheduled(one):
            continue
        at = max(one.wanted_at - _DRILL_SPARE, clock.now() + timedelta(hours=1))
        try:
            name = _schedule(f"{settings.platform}.drill", at, key=f"lifeboat-{one.id}")
        except Exception as error:
            # Whatever a server may answer: the due date stands, and people are told.
            log.warning("The drill could not be scheduled: %s: %s", type(error).__name__, error)
            continue
        note = f"Scheduled for {at:%Y-%m-%d %H:%M} UTC as the run {name}."
        event = Event(at=clock.now(), follow_up=one.id, event="noted", note=note)
        followups.record(settings, one.source, (event,))


def _is_scheduled(one: FollowUp) -> bool:
    return any(note.startswith("Scheduled for") for note in one.notes)


def _schedule(deployment: str, at: datetime, *, key: str) -> str:
    from prefect.client.orchestration import get_client
    from prefect.states import Scheduled

    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(f"drill/{deployment}")
        run = client.create_flow_run_from_deployment(
            found.id,
            parameters=dict(found.parameters),
            state=Scheduled(scheduled_time=at),
            idempotency_key=key,
        )
    return run.name


@step()
def tell(
    settings: Settings, found: Sequence[FollowUp], standings: Sequence[Standing]
) -> tuple[Trouble, ...]:
    """Tell people what is due and overdue: when it becomes so, and again until it is done.

    A review that is overdue is told by `watch-objectives` too, which it turns red. Never raises.
    """
    now = clock.now()
    troubles = [_of_follow_up(one, now) for one in by_urgency(found, now) if _is_told(one, now)]
    troubles += [_of_review(one, now) for one in standings if one.status != "fresh"]
    alarms.tell_people(
        settings,
        {trouble.subject: trouble for trouble in troubles},
        prefix=alarms.TO_DO,
        title="to be done",
        again_hours=settings.reviews.remind_hours,
    )
    return tuple(troubles)


def _is_told(one: FollowUp, now: datetime) -> bool:
    return not one.rehearsal and one.status(now) in ("due", "overdue")


def _of_follow_up(one: FollowUp, now: datetime) -> Trouble:
    return Trouble(
        subject=f"{alarms.TO_DO}{one.id}",
        status=one.status(now).upper(),
        evidence=f"{one.title} (after {one.source}), {one.owner}, until "
        f"{one.wanted_at:%Y-%m-%d %H:%M} UTC",
        advice=f"{one.how} Then `lifeboat followups done {one.id}`.".strip(),
    )


def _of_review(one: Standing, now: datetime) -> Trouble:
    kind = one.wanted.kind
    return Trouble(
        subject=f"{alarms.TO_DO}{_REVIEW}{kind}",
        status=one.status.upper(),
        evidence=one.in_words(now),
        advice=f"`lifeboat review show {kind}`, and then `lifeboat review sign-off {kind}`.",
    )


@step()
def show(found: Sequence[FollowUp], standings: Sequence[Standing], *, platform: str) -> None:
    """Show follow-ups and reviews as tables in the Prefect UI. Never raises."""
    if not in_flow_run():
        return
    now = clock.now()
    todo = [
        {
            "follow-up": one.id,
            "status": one.status(now),
            "what": one.title,
            "owner": one.owner,
            "until": f"{one.wanted_at:%Y-%m-%d %H:%M}",
            "after": one.source,
        }
        for one in by_urgency(found, now)
        if not one.is_done
    ]
    held = [
        {
            "review": str(one.wanted.kind),
            "status": one.status,
            "owner": one.wanted.owner,
            "last": f"{one.last.at:%Y-%m-%d} {one.last.decision}" if one.last else "never",
            "due": f"{one.due_at:%Y-%m-%d}",
        }
        for one in standings
    ]
    try:
        from prefect.artifacts import create_table_artifact

        create_table_artifact(todo, key=f"{platform}-follow-ups", description="What is to be done")
        create_table_artifact(held, key=f"{platform}-reviews", description="Tests and reviews")
    except Exception as error:
        log.warning("The UI does not show them: %s: %s", type(error).__name__, error)


def standings_of(settings: Settings) -> tuple[Standing, ...]:
    """Where every review stands; empty, and told, if that can't be read."""
    try:
        return reviews.standings(settings)
    except RecoveryError as error:
        log.warning("Which reviews were held can't be read: %s", error)
        return ()
