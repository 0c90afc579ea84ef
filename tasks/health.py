"""The health watch: services looked at each minute, and a recovery proposed when they stay bad."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from lifeboat.core import health as core
from lifeboat.core.diagnosis import Cure, Diagnosis
from lifeboat.core.errors import LockBusy, RecoveryError
from lifeboat.core.health import Act, Health, Look, Pause, Proposal, Streak
from lifeboat.core.notices import Trouble
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, postgres
from lifeboat.tools.stacks import ServiceState
from tasks import alarms, clock, diagnosis, events, locks, services
from tasks.checks.context import Context
from tasks.database import connection
from tasks.orchestration import step
from tasks.places import records_directory
from tasks.prefect_server import proposals
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_TITLE = "is not well"
_SUBJECT = f"{alarms.HEALTH}platform"
_LONGEST_EVIDENCE = 450


def _path(settings: Settings) -> Path:
    return records_directory(settings) / "health.json"


def read_streak(settings: Settings) -> Streak:
    """The bad looks up to now; none, if that can't be read."""
    try:
        return Streak.model_validate_json(_path(settings).read_bytes())
    except FileNotFoundError:
        return Streak()
    except (OSError, ValidationError) as error:
        log.warning("The earlier looks at the platform's health can't be read: %s", error)
        return Streak()


def _keep(settings: Settings, streak: Streak) -> None:
    if records_directory(settings).is_dir():  # where the vault is not mounted nothing is begun
        filesystem.atomic_write(_path(settings), streak.model_dump_json(indent=1).encode())


def _keep_judged(settings: Settings, streak: Streak) -> None:
    """Keep what a judgement came to, with the pause that a person may have asked for meanwhile."""
    _keep(settings, streak.model_copy(update={"pause": read_streak(settings).pause}))


def pause(settings: Settings, pause: Pause | None) -> None:
    """Judge nothing until then; None: judge again from now on."""
    _keep(settings, read_streak(settings).model_copy(update={"pause": pause}))


@step()
def look(settings: Settings) -> Look | None:
    """Look once: services, database, health endpoints. None while a recovery is at work.

    Never raises: what can't be looked at is wrong.
    """
    try:
        locks.stand_aside(settings, doing="Looking at the platform's health")
    except LockBusy as busy:
        log.info("%s", busy)
        return None
    return Look(at=clock.now(), wrong=tuple((*_services(settings), *_answers(settings))))


def _services(settings: Settings) -> list[str]:
    try:
        found = {s.name: s for s in services.stack_of(settings).status()}
    except (RecoveryError, OSError) as error:
        return [f"the services can't be looked at: {error}"]
    wrong = []
    for name in settings.stack.critical_services:
        seen = found.get(name)
        if seen is None:
            wrong.append(f"{name} does not run (unknown to the stack)")
        elif seen.state not in (ServiceState.RUNNING, ServiceState.STARTING):
            wrong.append(f"{name} does not run ({seen.state})")
        elif seen.failing:
            # One that is restarted for ever would be starting for ever.
            wrong.append(f"{name} does not stay up ({seen.detail})")
    return wrong


def _answers(settings: Settings) -> list[str]:
    wrong = []
    if not postgres.answers(connection(settings)):
        wrong.append("the database does not answer")
    told = settings.checks.health_endpoints
    if told is None:
        return wrong
    context = Context(settings=settings, stack=services.stack_of(settings), expected={})
    try:
        with context.client(told.session) as client:
            for request in told.requests:
                try:
                    client.send(request)
                except RecoveryError as error:
                    wrong.append(str(error.message))
    except Exception as error:
        # The login failed; whatever it may be wrong in, the platform does not do its work.
        wrong.append(f"logging in for the health endpoints: {error}")
    return wrong


@step()
def judge(settings: Settings, seen: Look | None) -> Health:
    """Keep what was seen; after so many bad looks in a row tell people, diagnose and propose.

    People are told before the diagnosis, and again of what it has found or proposed. Never raises
    for what it finds; a server that is away is tried again by the next look.
    """
    before = read_streak(settings)
    if seen is None:
        return Health(
            platform=settings.platform, look=None, streak=before, note="A recovery is at work."
        )
    if before.is_paused(seen.at):
        assert before.pause
        told = f"{before.pause.by} works on it until {before.pause.until:%H:%M} UTC."
        return Health(platform=settings.platform, look=None, streak=before, note=told)
    before = _follow_up(before)
    streak, act = core.after(before, seen, needed=settings.health.failures)
    note = ""
    if act is Act.WITHDRAW:
        streak, note = _withdraw(streak)
    elif act is Act.DIAGNOSE:
        # A diagnosis reads everything, which takes an hour with a terabyte, and may be cut short.
        _keep_judged(settings, streak)
        _tell(settings, streak)
        with events.signs_of_life(settings.platform, "watch-health", current_run().id):
            found = diagnosis.find_what_is_wrong(settings)
        log.info("%s", found.in_words())
        now = look(settings)
        if now is None or read_streak(settings).is_paused(now.at):
            note = "While it was looked into somebody began to work on it."
            return Health(platform=settings.platform, look=seen, streak=streak, note=note)
        if now.wrong:
            streak, note = _propose(settings, streak, found)
        else:
            seen = now
            streak, _ = core.after(streak, now, needed=settings.health.failures)
    _keep_judged(settings, streak)
    _tell(settings, streak)
    return Health(platform=settings.platform, look=seen, streak=streak, note=note)


def _follow_up(streak: Streak) -> Streak:
    """Let go of a proposal that waits no more; remember that a person said no to it."""
    if streak.proposal is None:
        return streak
    try:
        ended = proposals.end_of(streak.proposal.run)
    except RecoveryError as error:
        log.warning("%s", error)
        return streak
    if ended is None:
        return streak
    log.info("%s ended as %s.", streak.proposal.procedure, ended or "unknown")
    return core.let_go_of_proposal(streak, rejected=ended == "Rejected")


def _withdraw(streak: Streak) -> tuple[Streak, str]:
    assert streak.proposal
    why = "The platform came back to health by itself. Nothing was touched."
    try:
        taken_back = proposals.withdraw(streak.proposal.run, why)
    except RecoveryError as error:
        log.warning("%s The next look tries it again.", error)
        return streak, ""
    if not taken_back:
        return streak, ""  # it looks at the platform, or was approved: its end is its own
    note = f"{streak.proposal.procedure}, which was proposed, is taken back."
    return streak.model_copy(update={"proposal": None}), note


def _propose(settings: Settings, streak: Streak, found: Diagnosis) -> tuple[Streak, str]:
    streak = streak.model_copy(update={"cures": found.cures})
    cure = core.what_to_propose(found)
    if cure is None:
        return streak, "" if found.cures else "No recovery fits what can be seen."
    if not (settings.health.propose and proposals.can_propose()):
        return streak, ""
    procedure = core.PROCEDURES[cure.scenario]
    try:
        run, url = proposals.propose(
            settings.platform,
            procedure,
            because=_because(streak, cure),
            # Not by the looks: one that was cut short after this must not propose it twice.
            key=f"{settings.platform}-{procedure}-{streak.since}-{streak.proposed}",
            approval_seconds=settings.health.approval_seconds,
        )
    except RecoveryError as error:
        log.error("%s", error)
        return streak, f"It could not be proposed: {error}"
    made = Proposal(run=run, procedure=procedure, evidence=cure.evidence, at=clock.now(), url=url)
    return streak.model_copy(update={"proposal": made}), ""


def _because(streak: Streak, cure: Cure) -> str:
    told = f"{streak.failures} looks in a row were bad since {streak.since:%Y-%m-%d %H:%M} UTC"
    text = f"Proposed by the health watch: {told} ({'; '.join(streak.wrong)}). {cure.evidence}"
    return text[:_LONGEST_EVIDENCE]


def _tell(settings: Settings, streak: Streak) -> None:
    """Tell people once it is no passing weakness, and when it is over."""
    troubles = {}
    if streak.failures >= settings.health.failures or streak.proposal:
        cure = next(iter(streak.cures), None)
        if streak.proposal:
            where = streak.proposal.url or f"the run {streak.proposal.run}"
            advice = f"{streak.proposal.procedure} waits for your approval: {where}"
        elif cure:
            advice = cure.command
        else:
            advice = "lifeboat diagnose"
        evidence = "; ".join(streak.wrong) + (f". {cure.scenario}: {cure.evidence}" if cure else "")
        # Another status is news: what fits, or that there is something to approve, is told as well.
        status = "PROPOSED" if streak.proposal else "DIAGNOSED" if cure else "FAIL"
        troubles[_SUBJECT] = Trouble(
            subject=_SUBJECT, status=status, evidence=evidence, advice=advice
        )
    alarms.tell_people(settings, troubles, prefix=alarms.HEALTH, title=_TITLE)
