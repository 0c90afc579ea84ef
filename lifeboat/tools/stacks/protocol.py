"""What the platform's services look like from outside, whatever runs them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from lifeboat.core.errors import PermanentError


class ServiceState(StrEnum):
    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class ServiceStatus:
    """One service as it is now. Memory and CPU time are those of its whole process tree."""

    name: str
    state: ServiceState
    pid: int | None = None
    started_at: float | None = None
    """Seconds since the epoch."""
    memory_bytes: int = 0
    cpu_seconds: float = 0.0
    detail: str = ""
    failing: bool = False
    """While it starts: it ends again and again, or its own health check says it is not well."""


class Stack(Protocol):
    """The services of one platform. Every call blocks, and ends within a bounded time.

    Asking for what is already so is no error. A name that the stack does not know is a
    PreconditionError before anything was touched. Where several services are asked for, all are
    tried, and those that failed are named in one error at the end.
    """

    def status(self) -> tuple[ServiceStatus, ...]:
        """Every service of the stack, running or not, in the order of its definition."""
        ...

    def logs(self, service: str, lines: int = 50) -> str:
        """The last lines that a service wrote, also when it does not run."""
        ...

    def start(self, services: Collection[str]) -> None:
        """Start the services in the order given and return once all of them run.

        "Run" means that their processes stay up; whether they answer is for a health check.
        """
        ...

    def stop(self, services: Collection[str]) -> None:
        """Stop the services in the order given and return once none of their processes is left.

        One that does not end when it is asked to is killed.
        """
        ...

    def restart(self, services: Collection[str]) -> None:
        """Stop and start the services, so that each one runs in a new process."""
        ...

    def up(self, services: Collection[str] | None = None) -> None:
        """Like `start`, and start what manages the services first where it is down.

        None means every service of the stack.
        """
        ...

    def down(self) -> None:
        """Stop every service, and what manages them where that belongs to the stack."""
        ...

    def run_in(
        self,
        service: str,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_seconds: float = 60.0,
    ) -> str:
        """Run a command where the service runs and give what it printed. `input` is what it reads.

        Raises CommandFailed if it ends badly.
        """
        ...

    def strangers_at(self, path: Path) -> tuple[str, ...]:
        """Who could write below a directory now, besides this stack's own services."""
        ...

    def prepare(self, services: Collection[str] | None = None) -> None:
        """Bring what the services need before they can start: images, empty volumes.

        Nothing is started, and what is there is not touched. None means every service.
        """
        ...


def raise_for(failed: Mapping[str, str], doing: str) -> None:
    """Given services that failed and why, raise one PermanentError that names them all."""
    if failed:
        listed = "; ".join(f"{name}: {reason}" for name, reason in sorted(failed.items()))
        raise PermanentError(
            f"{doing} {len(failed)} service(s) failed: {listed}.",
            hint="`lifeboat health` shows all services.",
        )
