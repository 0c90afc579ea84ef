"""The verdict on a platform: all eighteen checks, each with its evidence and a time-out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping

from lifeboat.core.checks import CHECK_NAMES, CheckResult, Status, Verdict
from lifeboat.core.errors import RecoveryError, SettingsError, TransientError
from lifeboat.core.points import Asset, Facts
from lifeboat.settings import Settings
from lifeboat.tools.stacks import ServiceState, ServiceStatus, Stack
from tasks import services
from tasks.checks import application, data_integrity, performance, system_health
from tasks.checks.context import Context, Failed, Unknown

log = logging.getLogger("lifeboat")

Check = Callable[[Context], str]

CHECKS: dict[str, Check] = {
    "containers-running": system_health.containers_running,
    "health-endpoints": system_health.health_endpoints,
    "database-connections": system_health.database_connections,
    "redis-reachable": system_health.redis_reachable,
    "file-storage-reachable": system_health.file_storage_reachable,
    "authentication": application.authentication,
    "file-round-trip": application.file_round_trip,
    "search": application.search,
    "ai-inference": application.ai_inference,
    "admin-dashboard": application.admin_dashboard,
    "tables-complete": data_integrity.tables_complete,
    "file-counts": data_integrity.file_counts,
    "models-loadable": data_integrity.models_loadable,
    "user-data-intact": data_integrity.user_data_intact,
    "response-times": performance.response_times,
    "memory-stable": performance.memory_stable,
    "cpu-normal": performance.cpu_normal,
    "disk-space": performance.disk_space,
}
# These watch the platform at rest, so they come when the others have let go of it.
_AT_REST = ("response-times", "memory-stable", "cpu-normal")
_READS_IN_FULL = ("tables-complete", "file-counts", "user-data-intact")
# What is lost or damaged does not come back by waiting.
_ABOUT_DATA = (*_READS_IN_FULL, "disk-space")
_AGAIN_SECONDS = 0.3


def verify_platform(
    settings: Settings,
    stack: Stack,
    expected: Mapping[Asset, Facts],
    *,
    names: Collection[str] = CHECK_NAMES,
) -> Verdict:
    """Run all checks, or those that are named, side by side, and give their verdict; it never
    raises.

    A check that hangs is UNKNOWN after its time-out and keeps nobody waiting. While services are
    young (`checks.start_seconds`) a check that fails is tried again, and once more when services
    that were starting still have become healthy (`checks.healthy_seconds`).
    """
    context = Context(settings=settings, stack=stack, expected=expected)
    patient_until = time.monotonic() + _youth_left(context)
    first = [name for name in CHECKS if name in names and name not in _AT_REST]
    last = [name for name in _AT_REST if name in names]
    starting = _starting(context)
    results = _run(context, first, patient_until)
    # Only now, for what reads in full takes its time anyway.
    again = [name for name in first if _may_pass_later(results[name])]
    if again and (starting := starting or _starting(context)):
        patient_until = _wait_for_health(context, starting)
        results |= _run(context, again, patient_until)
    results |= _run(context, last, patient_until)
    return Verdict.of(results.values(), expected=[name for name in CHECK_NAMES if name in names])


def _youth_left(context: Context) -> float:
    """Seconds until the youngest service has had its time to start."""
    try:
        begun = [s.started_at for s in context.stack.status() if s.pid and s.started_at]
    except RecoveryError:
        return 0.0
    age = time.time() - max(begun, default=0.0)
    return max(0.0, context.settings.checks.start_seconds - age)


def _wait_for_health(context: Context, starting: Collection[ServiceStatus]) -> float:
    """Wait for needed services that are starting; say until when checks may fail (monotonic).

    The wait ends once one of them has ended or is unhealthy, and `checks.healthy_seconds` after
    the last of them was started.
    """
    now, checks = time.time(), context.settings.checks
    age = now - max(service.started_at or now for service in starting)
    until = time.monotonic() + checks.healthy_seconds - age
    log.info("Waiting for %s to be healthy.", ", ".join(service.name for service in starting))
    while (left := _starting(context)) and time.monotonic() < until:
        time.sleep(_AGAIN_SECONDS)
    # What has just become healthy answers soon; what has not is not waited for any longer.
    return time.monotonic() + (checks.start_seconds if left == () else 0.0)


def _starting(context: Context) -> tuple[ServiceStatus, ...] | None:
    """The needed services that are starting; None where one is down, or none can be looked at."""
    try:
        seen = context.statuses()
    except RecoveryError:
        return None
    needed = [seen.get(name) for name in services.needed_services(context.settings)]
    found = []
    for service in needed:
        if service is None or service.failing:
            return None
        if service.state is ServiceState.STARTING:
            found.append(service)
        elif service.state is not ServiceState.RUNNING:
            return None
    return tuple(found)


def _may_pass_later(result: CheckResult) -> bool:
    """Whether a check may pass once all services are up; one that hung or found nobody may too."""
    return result.status is Status.UNKNOWN or (
        result.status is Status.FAIL and result.name not in _ABOUT_DATA
    )


def _run(context: Context, names: Collection[str], patient_until: float) -> dict[str, CheckResult]:
    found: dict[str, CheckResult] = {}
    threads = {}
    began = time.monotonic()
    for name in names:
        # Daemons: one that hangs in the kernel must not keep the process either.
        threads[name] = threading.Thread(
            target=lambda n=name: found.__setitem__(n, try_check(context, n, patient_until)),
            name=f"check-{name}",
            daemon=True,
        )
        threads[name].start()
    for name, thread in threads.items():
        seconds = timeout_of(context.settings, name) + max(0.0, patient_until - began)
        thread.join(max(0.0, began + seconds - time.monotonic()))
        if thread.is_alive():
            found[name] = CheckResult(
                name=name,
                status=Status.UNKNOWN,
                evidence=f"it hangs: no result within {seconds:.0f} s",
                seconds=time.monotonic() - began,
            )
    return dict(found)


def timeout_of(settings: Settings, name: str) -> float:
    """How long a check may take, in seconds."""
    checks = settings.checks
    usual = checks.full_read_seconds if name in _READS_IN_FULL else checks.timeout_seconds
    if name in ("memory-stable", "cpu-normal"):
        usual += checks.window_seconds
    return checks.timeouts.get(name, usual)


def try_check(context: Context, name: str, patient_until: float = 0.0) -> CheckResult:
    """Carry one check out, and if it fails again until `patient_until` (monotonic seconds)."""
    began = time.monotonic()
    while True:
        status, evidence, may_pass = _judge(context, name)
        if status is not Status.FAIL or not may_pass or time.monotonic() >= patient_until:
            return CheckResult(
                name=name,
                status=status,
                evidence=evidence,
                seconds=time.monotonic() - began,
            )
        time.sleep(_AGAIN_SECONDS)


def _judge(context: Context, name: str) -> tuple[Status, str, bool]:
    """(status, evidence, whether waiting may help)."""
    about_data = name in _ABOUT_DATA
    if reason := context.settings.checks.without.get(name):
        return Status.NONE, reason, False
    try:
        return Status.PASS, CHECKS[name](context), False
    except Failed as error:
        return Status.FAIL, str(error), not about_data
    except (Unknown, SettingsError) as error:
        return Status.UNKNOWN, str(error), False
    except TransientError as error:
        return Status.FAIL, str(error), True
    except RecoveryError as error:
        return Status.FAIL, str(error), not about_data
    except OSError as error:
        return Status.FAIL, f"{type(error).__name__}: {error}", not about_data
    except Exception as error:
        log.exception("The check %s could not be carried out", name)
        return Status.UNKNOWN, f"defect of the check: {type(error).__name__}: {error}", False
