"""Stopping and starting the platform's services, and waiting until they answer."""

from __future__ import annotations

from collections.abc import Collection

from lifeboat.core.timeline import Phase
from lifeboat.settings import Settings
from lifeboat.tools.stacks import ProcessStack, ServiceStatus, Stack
from tasks.orchestration import step


def stack_of(settings: Settings) -> Stack:
    """The stack that lifeboat.yaml describes; it need not be running."""
    return ProcessStack(settings.stack.supervisor_config)


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


@step(Phase.START, retries=1)
def restart_services(settings: Settings, services: Collection[str]) -> None:
    stack_of(settings).restart(services)


def application_services(settings: Settings) -> tuple[str, ...]:
    """The critical services besides the database, in the order of lifeboat.yaml."""
    return tuple(
        name for name in settings.stack.critical_services if name != settings.database.service
    )
