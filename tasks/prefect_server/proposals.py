"""A recovery proposed to people: a run of its deployment, which waits for approval as any other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lifeboat.core.errors import PreconditionError, TransientError
from tasks.orchestration import is_alone

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

log = logging.getLogger("lifeboat")

TAG = "proposed"
WITHDRAWN = "Withdrawn"


def can_propose() -> bool:
    """Whether there is a server at which a person could approve."""
    if is_alone():
        return False
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def propose(
    platform: str, procedure: str, *, because: str, key: str, approval_seconds: int
) -> tuple[str, str]:
    """Start the recovery, which pauses at its plan; give the run's id and where a person finds it.

    With the same `key` it is started once. Raises TransientError if the server does not answer, and
    PreconditionError if it does not know the deployment.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Scheduled
    from prefect.utilities.urls import url_for

    doing = f"Proposing {procedure}"
    try:
        with _client() as client:
            found = client.read_deployment_by_name(f"{procedure}/{platform}.{procedure}")
            request = {
                **found.parameters.get("request", {}),
                "because": because,
                "approval_seconds": approval_seconds,
            }
            run = client.create_flow_run_from_deployment(
                found.id,
                parameters={"request": request},
                state=Scheduled(),
                tags=[TAG],
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


def end_of(run: str) -> str | None:
    """Name of the state in which a proposal has ended; None while it waits or is at work.

    Empty: the server does not know the run any more. Raises TransientError if the server does not
    answer.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        with _client() as client:
            state = client.read_flow_run(run).state  # type: ignore[arg-type]
    except ObjectNotFound:
        return ""
    except Exception as error:
        raise TransientError(f"Asking what became of {run}: {error}.") from error
    # By its type: on its way to a worker a run is in states of more names than one can know.
    return state.name or "" if state and state.is_final() else None


def withdraw(run: str, why: str) -> bool:
    """Take a proposal back that nobody has approved yet; say whether it was.

    One that was approved a moment ago goes on. Raises TransientError if the server does not answer.
    """
    from prefect.states import Cancelled

    try:
        with _client() as client:
            state = client.read_flow_run(run).state  # type: ignore[arg-type]
            if state is None or not (state.is_scheduled() or state.is_paused()):
                return False
            client.set_flow_run_state(
                run,  # type: ignore[arg-type]
                Cancelled(name=WITHDRAWN, message=why),
            )
    except Exception as error:
        raise TransientError(f"Taking {run} back: {error}.") from error
    return True


def _client() -> SyncPrefectClient:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)
