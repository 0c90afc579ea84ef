"""Two stacks as one: the platform's own, and what runs Lifeboat's services beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from lifeboat.core.errors import PreconditionError, RecoveryError, TransientError
from lifeboat.tools.stacks.protocol import ServiceStatus, Stack, raise_for


class JointStack:
    """The services of a platform, and `beside` it others that a stack of their own runs.

    A WAL receiver must not lie in the platform's Compose file, which is not ours to change. A name
    that both have belongs to the platform.
    """

    def __init__(self, platform: Stack, beside: Stack, *, beside_names: Collection[str]) -> None:
        self._platform = platform
        self._beside = beside
        self._beside_names = frozenset(beside_names)

    def status(self) -> tuple[ServiceStatus, ...]:
        ours = tuple(s for s in self._beside.status() if s.name in self._beside_names)
        return (*self._platform.status(), *ours)

    def logs(self, service: str, lines: int = 50) -> str:
        return self._of(service).logs(service, lines)

    def start(self, services: Collection[str]) -> None:
        # What manages the services beside may be down: after a reboot nobody started it yet.
        self._each(services, "Starting", self._platform.start, self._beside.up)

    def stop(self, services: Collection[str]) -> None:
        self._each(services, "Stopping", self._platform.stop, self._beside.stop)

    def restart(self, services: Collection[str]) -> None:
        self.stop(services)
        self.start(services)

    def up(self, services: Collection[str] | None = None) -> None:
        if services is None:
            self._platform.up()
            self._beside.up(sorted(self._beside_names))
            return
        self._each(services, "Starting", self._platform.up, self._beside.up)

    def down(self) -> None:
        self._beside.down()
        self._platform.down()

    def run_in(
        self,
        service: str,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_seconds: float = 60.0,
    ) -> str:
        return self._of(service).run_in(service, argv, input=input, timeout_seconds=timeout_seconds)

    def strangers_at(self, path: Path) -> tuple[str, ...]:
        return self._platform.strangers_at(path)

    def prepare(self, services: Collection[str] | None = None) -> None:
        if services is None:
            self._platform.prepare()
            self._beside.prepare(sorted(self._beside_names))
            return
        self._each(services, "Preparing", self._platform.prepare, self._beside.prepare)

    def _of(self, service: str) -> Stack:
        return self._beside if service in self._beside_names else self._platform

    def _each(
        self,
        services: Collection[str],
        doing: str,
        platform: Callable[[Collection[str]], None],
        beside: Callable[[Collection[str]], None],
    ) -> None:
        """Do it in the platform, then beside it. A name that nobody knows is refused first."""
        theirs = [name for name in services if name not in self._beside_names]
        ours = [name for name in services if name in self._beside_names]
        if theirs and ours:
            self._require_known(theirs, self._platform)
            self._require_known(ours, self._beside)
        failed: dict[str, str] = {}
        for names, act in ((theirs, platform), (ours, beside)):
            if not names:
                continue
            try:
                act(names)
            except TransientError:
                raise
            except RecoveryError as error:
                if not (theirs and ours):
                    raise
                failed[", ".join(names)] = error.message
        raise_for(failed, doing)

    def _require_known(self, names: Collection[str], stack: Stack) -> None:
        known = [status.name for status in stack.status()]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise PreconditionError(
                f"The stack has no service {', '.join(unknown)}.", hint=f"It has: {known}."
            )
