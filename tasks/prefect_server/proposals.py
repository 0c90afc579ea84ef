"""A recovery proposed to people: a run of its deployment, which waits for approval as any other."""

from __future__ import annotations

import logging

from lifeboat.core.errors import TransientError
from tasks.prefect_server import runs

log = logging.getLogger("lifeboat")

TAG = "proposed"
WITHDRAWN = "Withdrawn"


def can_propose() -> bool:
    """Whether there is a server at which a person could approve."""
    return runs.there_is_a_server()


def propose(
    platform: str, procedure: str, *, because: str, key: str, approval_seconds: int
) -> tuple[str, str]:
    """Start the recovery, which pauses at its plan; give the run's id and where a person finds it.

    With the same `key` it is started once. Raises TransientError if the server does not answer, and
    PreconditionError if it does not know the deployment.
    """
    told: dict[str, object] = {"because": because, "approval_seconds": approval_seconds}
    return runs.start(
        platform, procedure, told, key=key, tags=[TAG], doing=f"Proposing {procedure}"
    )


def end_of(run: str) -> str | None:
    """Name of the state in which a proposal has ended; None while it waits or is at work.

    Empty: the server does not know the run any more. Raises TransientError if the server does not
    answer.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        with runs.client_of_server() as client:
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
        with runs.client_of_server() as client:
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
