"""Alarms: what is not good is told to people, once, again after a while, and when it is good.

A message that reached nobody is not told: the next look sends it again. Nothing here ever raises:
telling must not stop what it tells of.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lifeboat.core.checklist import PLACEHOLDER
from lifeboat.core.errors import RecoveryError
from lifeboat.core.notices import Known, Notice, Severity, Trouble, make_notice
from lifeboat.core.objectives import Report
from lifeboat.core.timeline import Outcome
from lifeboat.settings import Channel, Settings
from lifeboat.tools import filesystem, notify
from tasks import clock, many, places
from tasks.orchestration import step
from tasks.record import Run

log = logging.getLogger("lifeboat")

_STATE = "alarms.json"
_HISTORY = "alarms.jsonl"
_LOCK_SECONDS = 60.0  # whoever holds it is sending
_RUN = "run-"  # subjects of runs
TO_DO = "todo-"  # of what people are to do
DRIFT = "drift-"  # of a recovered platform that does not behave as before
HEALTH = "health-"  # of a platform that does not answer as it should
_NO_FINDINGS = (_RUN, TO_DO, DRIFT, HEALTH)  # all others are findings
_INTERRUPTED = ("KeyboardInterrupt", "interrupted")
_KNOWN = TypeAdapter(dict[str, Known])


class Delivery(BaseModel):
    """What became of a message in one channel."""

    model_config = ConfigDict(frozen=True)

    channel: str
    error: str = ""  # empty: it was taken


@step()
def tell_of_objectives(settings: Settings, report: Report) -> None:
    """Tell people what a look at the objectives found that is news."""
    troubles = {
        finding.name: Trouble(
            subject=finding.name,
            status=finding.status,
            evidence=finding.evidence,
            advice=finding.advice,
        )
        for finding in report.red
    }
    # A finding that is not made any more (a disk that is gone) is no trouble any more either.
    _tell(settings, troubles, judges=lambda subject: not subject.startswith(_NO_FINDINGS))


def tell_of_run(settings: Settings, run: Run) -> None:
    """Tell people that a backup or an upkeep failed, or that it ends well again."""
    procedure = run.record.procedure
    if run.record.outcome is Outcome.FAILED:
        if run.record.error in _INTERRUPTED:
            return  # ended by whoever ends services; what is missing by then is told as late
        told = run.record.error or "it failed"
        tell_of_failure(settings, procedure, evidence=told, record=f"Its record: {run.id}. ")
    else:
        _tell(settings, {}, judges=lambda known: known == _RUN + procedure)


def tell_of_failure(settings: Settings, procedure: str, *, evidence: str, record: str = "") -> None:
    """Tell people that a backup or an upkeep failed, or could not even begin its record."""
    subject = _RUN + procedure
    advice = f"{record}`lifeboat watch` says what is protected now."
    trouble = Trouble(subject=subject, status="FAIL", evidence=evidence, advice=advice)
    _tell(settings, {subject: trouble}, judges=lambda known: known == subject)


def tell_people(
    settings: Settings,
    troubles: Mapping[str, Trouble],
    *,
    prefix: str,
    title: str,
    again_hours: float | None = None,
) -> None:
    """Tell people of something else than protection: what is to be done, what has drifted.

    All subjects begin with `prefix`, `TO_DO`, `DRIFT` or `HEALTH`; those that are not in `troubles`
    any more are told as good again.
    """
    _tell(
        settings,
        troubles,
        judges=lambda subject: subject.startswith(prefix),
        title=title,
        again_hours=again_hours,
    )


def _tell(
    settings: Settings,
    troubles: Mapping[str, Trouble],
    *,
    judges: Callable[[str], bool],
    title: str = "",
    again_hours: float | None = None,
) -> None:
    if not settings.alarms.channels:
        return
    try:
        with _state(settings) as known:
            notice = make_notice(
                settings.platform,
                troubles,
                known,
                judged=frozenset(filter(judges, known)),
                again_after=timedelta(hours=again_hours or settings.alarms.again_hours),
                now=clock.now(),
            )
            if notice and title:
                told = title if troubles else f"{title}: good again"
                notice = notice.model_copy(update={"title": f"{settings.platform}: {told}"})
            if notice and any(not d.error for d in deliver(settings, notice)):
                known.clear()
                known.update(notice.known)
    except (OSError, RecoveryError) as error:
        log.error("Telling people what is not good: %s", error)


@contextlib.contextmanager
def _state(settings: Settings) -> Iterator[dict[str, Known]]:
    """What people know, for one at a time; written back if it was changed.

    On a disk that is full or not there, nobody knows anything: people are told again, rather than
    not at all. Where the vault is not mounted, nothing is begun on the disk below it.
    """
    directory = places.records_directory(settings)
    path = directory / _STATE
    if not directory.is_dir():  # the lock would make it
        yield {}
        return
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(directory / f".{_STATE}.lock", timeout=_LOCK_SECONDS))
            known = _KNOWN.validate_json(path.read_bytes()) if path.exists() else {}
        except (OSError, Timeout, ValidationError) as error:
            log.warning("Reading what people were told: %s. They are told again.", error)
            known = {}
        before = dict(known)
        yield known
        if known != before:
            filesystem.atomic_write(path, _KNOWN.dump_json(known, indent=2))


def test_message(settings: Settings) -> tuple[Delivery, ...]:
    """Send a message by every channel that says that it is a test."""
    return deliver(
        settings,
        Notice(
            severity=Severity.GOOD,
            title=f"{settings.platform}: a test of the alarms",
            body="This is a test. By this way Lifeboat tells that the platform is not protected.",
            known={},
        ),
    )


def deliver(settings: Settings, notice: Notice) -> tuple[Delivery, ...]:
    """Send a message by every channel, side by side, and keep what became of it. Never raises."""

    def by(channel: Channel) -> Delivery:
        try:
            notify.send(
                settings.fill(channel.url),
                title=notice.title,
                body=notice.body,
                alarm=notice.is_alarm,
                doing=f"Sending a message by {channel.name}",
                timeout_seconds=settings.alarms.timeout_seconds,
                secrets=_secrets(settings, channel),
            )
        except RecoveryError as error:
            log.error("%s", error)
            return Delivery(channel=channel.name, error=str(error))
        except Exception as error:
            # A defect of a service's plugin is the failure of that channel, and of nothing else.
            log.error("Sending a message by %s: %s", channel.name, type(error).__name__)
            return Delivery(channel=channel.name, error=type(error).__name__)
        log.info("Told by %s: %s", channel.name, notice.title)
        return Delivery(channel=channel.name)

    done = tuple(many.act_on_all(settings.alarms.channels, by, doing="Telling people"))
    _keep(settings, notice, done)
    return done


def _secrets(settings: Settings, channel: Channel) -> list[str]:
    """All that must not be in an error: what is known as secret, and what the address holds."""
    held = (settings.optional_secret(name) for name in PLACEHOLDER.findall(channel.url))
    return [*filter(None, held), *(secret.value for secret in settings.known_secrets())]


def _keep(settings: Settings, notice: Notice, done: tuple[Delivery, ...]) -> None:
    """Write down who was told what, and who was not reached."""
    line = {
        "at": clock.now().isoformat(),
        "severity": notice.severity,
        "title": notice.title,
        "body": notice.body,
        "channels": {delivery.channel: delivery.error or "taken" for delivery in done},
    }
    try:
        filesystem.append_line_durably(
            places.records_directory(settings) / _HISTORY, json.dumps(line)
        )
    except OSError as error:
        log.warning("Writing down who was told: %s", os.strerror(error.errno or 0))
