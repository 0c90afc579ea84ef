"""A run of one of our deployments, started on the server by one that is at work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lifeboat.core.errors import PreconditionError, TransientError
from tasks.orchestration import is_alone

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def there_is_a_server() -> bool:
    """Whether a run can be started, and a person could approve it."""
    if is_alone():
        return False
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def start(
    platform: str,
    procedure: str,
    told: Mapping[str, object] | None = None,
    *,
    key: str,
    tags: Sequence[str] = (),
    doing: str,
) -> tuple[str, str]:
    """Start a run of a deployment, with `told` in its form; give its id and where it is shown.

    With the same `key` it is started once. Raises TransientError if the server does not answer, and
    PreconditionError if it does not know the deployment.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Scheduled
    from prefect.utilities.urls import url_for

    try:
        with client_of_server() as client:
            found = client.read_deployment_by_name(f"{procedure}/{platform}.{procedure}")
            run = client.create_flow_run_from_deployment(
                found.id,
                parameters={"request": {**found.parameters.get("request", {}), **(told or {})}},
                state=Scheduled(),
                tags=tags,
                idempotency_key=key,
            )
    except ObjectNotFound as error:
        raise PreconditionError(
            f"{doing}: the server has no deployment {platform}.{procedure}.",
            hint="Run `lifeboat deploy`.",
        ) from error
    except Exception as error:
        raise TransientError(f"{doing}: the server does not take it ({error}).") from error
    return str(run.id), url_for("flow-run", run.id) or ""


def client_of_server() -> SyncPrefectClient:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)
