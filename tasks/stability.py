"""The stability watch: how the platform behaves, in everyday life and after a recovery.

Looks are kept in `records/stability/looks.jsonl` on the host; what is usual is a mark in both
tiers, so that a rebuilt server is compared with the lost one.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from lifeboat.core import stability
from lifeboat.core.checks import CHECK_NAMES, Status
from lifeboat.core.errors import LockBusy, PermanentError, RecoveryError
from lifeboat.core.followups import Event, FollowUp
from lifeboat.core.marks import Kind
from lifeboat.core.notices import Trouble
from lifeboat.core.stability import Baseline, LogCount, Look, Sample, ServiceSample
from lifeboat.settings import Settings
from lifeboat.tools import filesystem
from lifeboat.tools.stacks import ServiceState, ServiceStatus, Stack
from tasks import alarms, clock, locks, marks, services, verification
from tasks.checks.context import Context
from tasks.orchestration import step
from tasks.people import followups
from tasks.places import records_directory

log = logging.getLogger("lifeboat")

_BASELINE = "platform"
_KEPT = 700  # looks: a week of one each quarter of an hour
_LOG_LINES = 500
_ANSWERS = 3
_LEAST_SECONDS = 1.0  # for which CPU is watched
# What needs a recovery point to compare with was proven by the recovery, and reads everything.
_CHECKS = tuple(
    name
    for name in CHECK_NAMES
    if name not in ("tables-complete", "file-counts", "models-loadable", "user-data-intact")
)


def looks_path(settings: Settings) -> Path:
    return records_directory(settings) / "stability" / "looks.jsonl"


def read_looks(settings: Settings) -> tuple[Look, ...]:
    """The looks on record, oldest first; a line that a crash cut short is left out."""
    try:
        lines = looks_path(settings).read_text().splitlines()
    except FileNotFoundError:
        return ()
    found = []
    for line in lines:
        try:
            found.append(Look.model_validate_json(line))
        except ValidationError:
            continue
    return tuple(found)


def read_baseline(settings: Settings) -> Baseline | None:
    """What is usual on this platform; None if that was never worked out."""
    try:
        found = marks.read(settings, Kind.BASELINES, _BASELINE)
    except PermanentError:
        return None
    except RecoveryError as error:
        log.warning("What is usual can't be read: %s", error)
        return None
    return found if isinstance(found, Baseline) else None


def open_watches(settings: Settings) -> tuple[FollowUp, ...]:
    """The recoveries after which the platform is being watched."""
    return tuple(
        one
        for one in followups.read_all(settings)
        if one.name == "monitor-stability" and not one.is_done
    )


@step()
def look(settings: Settings) -> Look | None:
    """Look at the platform once; None while a recovery is at work, which is no time to judge.

    In everyday life the look goes into what is usual. After a recovery the checks are run too, and
    what has drifted is told to people, and what the logs tell of is kept for the end of the watch.
    Raises nothing for what it finds.
    """
    try:
        locks.stand_aside(settings, doing="Looking at the platform's stability")
    except LockBusy as busy:
        log.info("%s", busy)
        return None
    watches = open_watches(settings)
    sample = take_sample(settings, with_checks=bool(watches))
    earlier = read_looks(settings)
    if not watches:
        found = Look(sample=sample)
        _keep(settings, found, earlier)
        _work_out_usual(settings, (*earlier, found))
        return found
    baseline = read_baseline(settings)
    if baseline is None and (baseline := stability.baseline_of([sample])):
        log.info("Nothing is on record of the time before: this look is what later ones are for.")
        marks.put(settings, Kind.BASELINES, _BASELINE, baseline)
    source = watches[-1].source
    before = next((e.sample for e in reversed(earlier) if e.source == source), None)
    percent = settings.follow_ups.drift_percent
    found = Look(
        sample=sample,
        drifts=stability.drifts(sample, baseline, before, percent=percent),
        anomalies=stability.anomalies(sample, baseline),
        source=source,
    )
    _keep(settings, found, earlier)
    _tell(settings, found)
    for watch in watches:
        _conclude(settings, watch, (*earlier, found), baseline)
    return found


def take_sample(settings: Settings, *, with_checks: bool) -> Sample:
    """One look at services, logs and answers, and at the checks that read no data. Never raises.

    The checks come last: their own work must not be measured, for what is usual was without it.
    """
    now = clock.now()
    stack = services.stack_of(settings)
    try:
        began, before = time.monotonic(), {s.name: s for s in stack.status()}
        answer = _answer_seconds(settings, stack)
        time.sleep(max(0.0, _LEAST_SECONDS - (time.monotonic() - began)))
        after, seconds = stack.status(), time.monotonic() - began
        seen = {s.name: _service(stack, s, before.get(s.name), seconds) for s in after}
        failed = _failed_checks(settings, stack) if with_checks else {}
    except (RecoveryError, OSError) as error:
        return Sample(at=now, trouble=f"the services can't be looked at: {error}")
    return Sample(
        at=now,
        services=seen,
        failed_checks=failed,
        checks=len(_CHECKS) if with_checks else 0,
        answer_seconds=answer,
    )


def _service(
    stack: Stack, now: ServiceStatus, before: ServiceStatus | None, seconds: float
) -> ServiceSample:
    cpu = None
    if before and before.pid == now.pid and now.pid:
        cpu = 100 * max(0.0, now.cpu_seconds - before.cpu_seconds) / seconds
    return ServiceSample(
        running=now.state is ServiceState.RUNNING,
        memory_bytes=now.memory_bytes,
        cpu_percent=cpu,
        started_at=now.started_at,
        log=_log_of(stack, now.name),
    )


def _log_of(stack: Stack, service: str) -> LogCount | None:
    try:
        return stability.count_errors(stack.logs(service, lines=_LOG_LINES))
    except (RecoveryError, OSError) as error:
        log.debug("The log of %s can't be read: %s", service, error)
        return None


def _failed_checks(settings: Settings, stack: Stack) -> dict[str, str]:
    verdict = verification.verify_platform(settings, stack, {}, names=_CHECKS)
    return {
        check.name: f"{check.status} {check.evidence}"
        for check in verdict.checks
        if check.status in (Status.FAIL, Status.UNKNOWN)
    }


def _answer_seconds(settings: Settings, stack: Stack) -> float | None:
    told = settings.checks.response_times
    if told is None:
        return None
    context = Context(settings=settings, stack=stack, expected={})
    try:
        with context.client(told.session) as client:
            return median(client.send(told.requests[0]).seconds for _ in range(_ANSWERS))
    except Exception as error:
        # Whatever an answer may be wrong in; the checks say so in full.
        log.info("The platform gives no answer to be timed: %s: %s", type(error).__name__, error)
        return None


def _keep(settings: Settings, found: Look, earlier: tuple[Look, ...]) -> None:
    path = looks_path(settings)
    try:
        if not settings.vault.local.is_dir():
            return  # where the vault is not mounted, nothing is begun on the disk below it
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(earlier) >= 2 * _KEPT:
            kept = "".join(f"{one.model_dump_json()}\n" for one in earlier[-_KEPT:])
            filesystem.atomic_write(path, kept.encode())
        filesystem.append_line_durably(path, found.model_dump_json())
    except OSError as error:
        log.warning("The look is not on record: %s", error.strerror)


def _work_out_usual(settings: Settings, looks: tuple[Look, ...]) -> None:
    # What was seen during a watch is judged, and never what others are judged by.
    baseline = stability.baseline_of([one.sample for one in looks if not one.source])
    if baseline and settings.vault.local.is_dir():
        marks.put(settings, Kind.BASELINES, _BASELINE, baseline)


def _tell(settings: Settings, found: Look) -> None:
    troubles = {
        f"{alarms.DRIFT}{drift.what}": Trouble(
            subject=f"{alarms.DRIFT}{drift.what}",
            status="DRIFT",
            evidence=drift.told,
            advice="Look at this service before it fails again.",
        )
        for drift in found.drifts
    }
    for drift in found.drifts:
        log.warning("%s: %s", drift.what, drift.told)
    title = "does not behave as before the recovery"
    alarms.tell_people(settings, troubles, prefix=alarms.DRIFT, title=title)


def _conclude(
    settings: Settings, watch: FollowUp, looks: tuple[Look, ...], baseline: Baseline | None
) -> None:
    """Close a watch that is over, and the review of the logs with it."""
    hours = settings.follow_ups.stability_hours
    now = clock.now()
    if not stability.is_over(watch.opened_at, now, hours):
        return
    ours = [one for one in looks if one.source and one.sample.at >= watch.opened_at]
    lasted = (now - watch.opened_at).total_seconds() / 3600
    told = stability.conclusion(ours, baseline, lasted)
    events = [Event(at=now, follow_up=watch.id, event="done", note=told)]
    for one in followups.read_all(settings):
        if one.source == watch.source and one.name == "review-logs" and not one.is_done:
            note = stability.log_conclusion(ours, baseline)
            # More errors than before are for a person to read.
            deed = "noted" if any(look.anomalies for look in ours) else "done"
            events.append(Event(at=now, follow_up=one.id, event=deed, note=note))
    followups.record(settings, watch.source, events)
    log.info("The stability watch after %s is over: %s", watch.source, told)
