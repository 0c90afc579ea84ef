"""What a check may look at, and how it says that something is broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lifeboat.core.points import Asset, Facts
from lifeboat.settings import Settings
from lifeboat.tools import http, postgres
from lifeboat.tools.stacks import ServiceStatus, Stack
from tasks.database import connection


class Failed(Exception):
    """What the check looks at is broken; the text is the evidence."""


class Unknown(Exception):
    """The check could not be carried out; the text says why."""


@dataclass(frozen=True)
class Context:
    settings: Settings
    stack: Stack
    expected: Mapping[Asset, Facts]

    @property
    def database(self) -> postgres.Connection:
        return connection(self.settings)

    def facts(self, asset: Asset) -> Facts:
        """What the asset should hold. Raises Unknown if no recovery point tells."""
        found = self.expected.get(asset)
        if found is None:
            raise Unknown(f"there is no recovery point of {asset} to compare with")
        return found

    def statuses(self) -> dict[str, ServiceStatus]:
        return {status.name: status for status in self.stack.status()}

    def client(self, session: str = "", *, wrong_passwords: bool = False) -> http.Client:
        """An HTTP client, logged in to a session of `checks.sessions` where one is named."""
        checks = self.settings.checks
        client = http.Client(
            base_url=checks.base_url,
            timeout_seconds=checks.timeout_seconds,
            secret=(lambda name: f"not-{name}") if wrong_passwords else self.settings.secret,
        )
        if session and not wrong_passwords:
            client.log_in(checks.sessions[session])
        return client


def required(section, name: str):
    """A section of `checks` that has no default. Raises Unknown where it is not configured."""
    if section is None:
        raise Unknown(f"`checks.{name}` is not set in lifeboat.yaml")
    return section
