"""A hosted status page by its API: incidents with their updates, and the state of components.

Source: the REST API of Atlassian Statuspage, version 1, pages "Incidents" and "Components".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from lifeboat.core.errors import PermanentError, PreconditionError, TransientError
from lifeboat.core.hosted_page import HostedComponent, HostedIncident, Step

_NEWEST = 100  # as many as one answer holds
_INCIDENTS = TypeAdapter(tuple[HostedIncident, ...])
_COMPONENTS = TypeAdapter(tuple[HostedComponent, ...])
_INCIDENT = TypeAdapter(HostedIncident)


class HostedPage:
    """One page of a provider. For one thread.

    Every method raises TransientError if nobody answers or the provider wants a pause,
    PreconditionError if it refuses the token or knows no such page, and PermanentError for any
    other refusal. The token is in none of them.
    """

    def __init__(self, *, api: str, page: str, token: str, timeout_seconds: float) -> None:
        self._where = f"{api.rstrip('/')}/pages/{page}"
        self._http = httpx.Client(
            headers={"Authorization": f"OAuth {token}"}, timeout=timeout_seconds
        )

    def __enter__(self) -> HostedPage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def incidents(self) -> tuple[HostedIncident, ...]:
        """Give the newest incidents, resolved ones too."""
        return self._ask(_INCIDENTS, "GET", "/incidents", params={"limit": _NEWEST})

    def components(self) -> tuple[HostedComponent, ...]:
        return self._ask(_COMPONENTS, "GET", "/components", params={"per_page": _NEWEST})

    def carry_out(self, step: Step) -> HostedIncident:
        """Create an incident, or add an update to one; give what it has become."""
        told = {"incident": dict(step.body)}
        if step.incident_id:
            return self._ask(_INCIDENT, "PATCH", f"/incidents/{step.incident_id}", json=told)
        return self._ask(_INCIDENT, "POST", "/incidents", json=told)

    def set_component(self, id: str, status: str) -> None:
        told = {"component": {"status": status}}
        self._ask(TypeAdapter(Mapping[str, Any]), "PATCH", f"/components/{id}", json=told)

    def _ask(self, kind: TypeAdapter, method: str, path: str, **how: Any) -> Any:
        doing = f"Telling the hosted status page {self._where}{path}"
        try:
            answer = self._http.request(method, f"{self._where}{path}", **how)
        except httpx.TimeoutException as error:
            raise TransientError(f"{doing}: no answer in time.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransientError(f"{doing}: it does not answer ({error}).") from error
        status = answer.status_code
        if status in (420, 429) or status >= 500:
            raise TransientError(f"{doing}: it answers {status}.", hint="The next look tells it.")
        if status in (401, 403):
            raise PreconditionError(
                f"{doing}: the token is refused ({status}).",
                hint="Look at status_page.hosted.token and at the variable that it names.",
            )
        if status == 404:
            raise PreconditionError(
                f"{doing}: there is no such page or component.",
                hint="Look at status_page.hosted.page and .components.",
            )
        if not answer.is_success:
            raise PermanentError(f"{doing}: it refuses with {status} ({answer.text[:200]}).")
        try:
            return kind.validate_json(answer.content)
        except ValidationError as error:
            raise PermanentError(
                f"{doing}: its answer is of another form than the API's.",
                hint="Is status_page.hosted.api the address of the API, and not of the page?",
            ) from error
