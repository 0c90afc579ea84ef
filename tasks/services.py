"""Stopping and starting the platform's services, and waiting until they answer."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

from lifeboat.core.errors import PermanentError, RecoveryError
from lifeboat.core.timeline import Phase
from lifeboat.settings import ComposeRunner, ProcessRunner, Settings
from lifeboat.tools.stacks import (
    ComposeStack,
    JointStack,
    ProcessStack,
    ServiceState,
    ServiceStatus,
    Stack,
)
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_SECRETS_OF_BACKUPS = (
    *("LIFEBOAT_VAULT_PASSWORD", "AWS_ACCESS_KEY_ID"),
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)


def stack_of(settings: Settings) -> Stack:
    """The stack that lifeboat.yaml describes; it need not be running."""
    told = settings.stack
    platform = _stack_of(settings, told)
    if told.backup_stack is None:
        return platform
    beside = _beside(settings, told.backup_stack)
    return JointStack(platform, beside, beside_names=told.backup_services)


def _stack_of(settings: Settings, runner: ProcessRunner | ComposeRunner) -> Stack:
    if isinstance(runner, ProcessRunner):
        return ProcessStack(runner.supervisor_config)
    return compose_stack_of(settings, runner)


def _beside(settings: Settings, runner: ProcessRunner | ComposeRunner) -> Stack:
    """What makes the backups. Containers get our secrets, which must not lie beside them."""
    if isinstance(runner, ProcessRunner):
        return ProcessStack(runner.supervisor_config)
    told = {name: settings.optional_secret(name) for name in _SECRETS_OF_BACKUPS}
    secrets = {name: value for name, value in told.items() if value}
    return compose_stack_of(settings, runner, secrets=secrets)


def compose_stack_of(
    settings: Settings, runner: ComposeRunner, *, secrets: Mapping[str, str] | None = None
) -> ComposeStack:
    """The containers alone, without what runs beside them."""
    return ComposeStack(
        runner.compose_file,
        env_file=runner.env_file,
        project_name=runner.project_name,
        program=settings.compose_program(runner),
        secrets=secrets,
    )


@step(Phase.DETECT)
def look_at_services(settings: Settings) -> tuple[ServiceStatus, ...]:
    return stack_of(settings).status()


@step(Phase.RESTORE, retries=1)
def stop_services(settings: Settings, services: Collection[str]) -> None:
    """Stop what could write, so that nothing changes under the restore."""
    stack_of(settings).stop(services)


@step(Phase.START, retries=1)
def start_services(settings: Settings, services: Collection[str]) -> None:
    stack_of(settings).start(services)


def start_deferred(settings: Settings) -> None:
    """After a recovery is proven, start what the platform can do without.

    What does not start is told, and on the record; the recovery is as good without it.
    """
    try:
        start_services(settings, settings.stack.deferred_services)
    except RecoveryError as error:
        log.warning(
            "What was deferred does not run; the recovery is done without it. %s %s",
            error.message,
            error.hint or "",
        )
        current_run().fact(deferred_services_down=error.message)


@step(Phase.FETCH, retries=1)
def prepare_services(settings: Settings) -> None:
    """Bring what the services need before they can start: images, empty volumes.

    Of those that a recovery can't do without. The others bring theirs when they are started, when
    the data is back: no registry of a dashboard holds it up.
    """
    stack = stack_of(settings)
    try:
        stack.prepare((*needed_services(settings), *settings.stack.backup_services))
    except PermanentError as error:
        # One that is not needed may be the one that builds an image for others.
        log.warning("%s Trying with all services.", error.message)
        stack.prepare()


@step(Phase.START, retries=1)
def restart_services(settings: Settings, services: Collection[str]) -> None:
    stack_of(settings).restart(services)


def needed_services(settings: Settings) -> tuple[str, ...]:
    """The services without which the platform does not count as running."""
    stack = settings.stack
    if settings.checks.containers_running.deferred == "require":
        return (*stack.critical_services, *stack.deferred_services)
    return stack.critical_services


def services_to_prove(settings: Settings) -> tuple[str, ...]:
    """What is started before the checks, the database running: all that they want to see run."""
    return tuple(name for name in needed_services(settings) if name != settings.database.service)


def unlisted_services(
    settings: Settings, statuses: Iterable[ServiceStatus]
) -> tuple[ServiceStatus, ...]:
    """Those of the stack's that lifeboat.yaml neither lists nor excuses with a reason.

    No recovery stops or starts them: whoever added one to the stack has forgotten it there.
    """
    told = settings.stack
    return tuple(s for s in statuses if s.name not in told.services and s.name not in told.without)


def everything_that_writes(settings: Settings) -> tuple[str, ...]:
    """All that could write to the database or the vault while the database is replaced.

    The database last, so that the application ends in an orderly way; it may not run at all. The
    WAL receiver is among them: it would follow a timeline that a failed rung leaves behind.
    """
    stack = settings.stack
    application = [name for name in stack.critical_services if name != settings.database.service]
    return (
        *reversed(application),
        *stack.deferred_services,
        *stack.backup_services,
        settings.database.service,
    )


def why_not_running(settings: Settings, service: str) -> str | None:
    """Why a service does not run, with the end of its log; None while it runs."""
    stack = stack_of(settings)
    status = next((s for s in stack.status() if s.name == service), None)
    if status is not None and status.state in (ServiceState.RUNNING, ServiceState.STARTING):
        return None
    state = f"{status.state} {status.detail}".strip() if status else "unknown to the stack"
    lines = [line for line in stack.logs(service, 12).splitlines() if "FATAL" in line]
    return f"The service {service} is {state}. " + " ".join(lines[-2:])
