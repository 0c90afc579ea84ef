"""The plan before the deed: show what will happen, and wait for a person who names the platform."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

from lifeboat.core.errors import NobodyApproved, NotApproved, Rejected, Withdrawn
from lifeboat.core.forms import Approval
from lifeboat.core.plan import RecoveryPlan
from lifeboat.settings import Settings
from tasks import artifacts, production
from tasks.orchestration import in_flow_run
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_POLL_SECONDS = 2.0
_SERVER_WAITS_LONGER_SECONDS = 120
_TRIES = 3
_NOTHING_TOUCHED = "Nothing was touched. Run it again."

_typed = ""


class Asked(Protocol):
    """What a form says of the approval."""

    approval: Approval
    approval_seconds: int


def typed_beforehand(platform: str) -> None:
    """Note the name that the operator typed with the command: it answers when the plan is shown."""
    global _typed
    _typed = platform


def approve(
    plan: RecoveryPlan,
    asked: Asked,
    settings: Settings | None,
    *,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Return when the plan is approved; until then nothing was touched.

    A person types the platform's name: with the command, at a terminal, or into the paused run's
    form in the Prefect UI. Raises Rejected if they say no, NobodyApproved if nobody answers in
    time, and NotApproved if another name is typed or there is nobody to ask. Only staging goes
    without a person; anything else raises PreconditionError (see `production.refuse`). `waiting` is
    held for as long as a person is waited for, and only then.
    """
    run = current_run()
    if because := getattr(asked, "because", ""):
        run.fact(because=because)
        plan = plan.model_copy(update={"because": because})
    # Not as used: what is used and passes all checks is marked as verified.
    run.fact(planned_points=" ".join(point.id for point in plan.points))
    log.info("The plan:\n%s", plan.in_words())
    artifacts.show_plan(plan)
    run.tell(
        "planned",
        symptoms=plan.symptoms,
        target=plan.target,
        expected_loss=plan.expected_loss,
        expected_seconds=plan.forecast.seconds if plan.forecast else None,
    )
    if _typed:
        _require_name(_typed, plan)
        run.fact(approved_by="command line")
    elif asked.approval == "preapproved":
        production.refuse(settings, doing=f"Approving {plan.procedure}", platform=plan.platform)
        run.fact(approved_by="preapproved")
    elif sys.stdin is not None and sys.stdin.isatty():
        with waiting():
            answer = input(f"Type the platform's name ({plan.platform}) to go on, else it stops: ")
        _require_name(answer, plan)
        run.fact(approved_by="terminal")
    elif in_flow_run():
        with waiting():
            _ask_in_ui(plan, asked.approval_seconds)
    else:
        raise NotApproved(
            f"{plan.procedure} needs an approval, and there is no terminal to ask at.",
            hint=f"Nothing was touched. Run it again with --approve {plan.platform}.",
        )


def _require_name(typed: str, plan: RecoveryPlan) -> None:
    if typed.strip() != plan.platform:
        raise NotApproved(
            f"The plan was not approved: {typed.strip()!r} was typed, and the platform is "
            f"{plan.platform!r}.",
            hint=_NOTHING_TOUCHED,
        )


def _ask_in_ui(plan: RecoveryPlan, seconds: int) -> None:
    """Pause until the form is filled in; another platform's name is told and asked for again."""
    until = time.monotonic() + seconds
    told = ""
    for attempt in range(1, _TRIES + 1):
        answer = _pause(plan, told, until, attempt, seconds)
        who = answer.approver.strip()
        reason = answer.reason.strip()
        if answer.decision == "reject":
            current_run().fact(rejected_by=who, rejected_because=reason)
            raise Rejected(
                f"{plan.procedure} was rejected by {who}: {reason or 'no reason was given'}.",
                hint=_NOTHING_TOUCHED,
            )
        if answer.platform.strip() == plan.platform:
            current_run().fact(approved_by=who, approved_because=reason)
            return
        told = (
            f"**Not approved yet.** {who} typed `{answer.platform.strip()}`; this platform's name "
            f"is `{plan.platform}`.\n\n"
        )
        log.warning("%s typed another platform's name; asking again.", who)
    raise Rejected(
        f"{plan.procedure}: the platform's name was mistyped {_TRIES} times, which counts as no.",
        hint=_NOTHING_TOUCHED,
    )


def _pause(plan: RecoveryPlan, told: str, until: float, attempt: int, seconds: int) -> Any:
    """Pause the run with a form; give what was filled in. A server that is away is waited for.

    Prefect's own `pause_flow_run` leaves the time-out to the server, which ends the run as plainly
    failed; here the server waits a little longer than we do, so that the end is ours to name.
    """
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.input import keyset_from_paused_state
    from prefect.states import Paused
    from prefect.utilities.engine import propose_state_sync

    form = _approval_form().with_initial_data(description=told + plan.in_markdown())
    left = max(0.0, until - time.monotonic())
    # A run that is retried in the UI asks anew: what its first try has saved is there still.
    pause_key = f"{current_run().id}-{attempt}".lower()  # no other letters may stand in it
    pause = Paused(timeout_seconds=int(left) + _SERVER_WAITS_LONGER_SECONDS, pause_key=pause_key)
    pause.state_details.run_input_keyset = keyset_from_paused_state(pause)
    run_id = FlowRunContext.get().flow_run.id  # type: ignore[union-attr]
    log.info(
        "Waiting %.0f s for an approval: in the UI open this run, and choose Resume (in the menu "
        "of three dots). The form asks for the platform's name.",
        left,
    )
    try:
        with get_client(sync_client=True) as client:
            propose_state_sync(client, pause, flow_run_id=run_id)
            form.save(pause.state_details.run_input_keyset)
            while time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
                if _goes_on(client, run_id):
                    return form.load(pause.state_details.run_input_keyset)
    except Withdrawn:
        raise
    except Exception as error:
        # Whatever Prefect's client raises when its server is gone.
        raise NotApproved(
            f"{plan.procedure}: the server through which to ask has failed ({error}).",
            hint=f"Nothing was touched. From a shell: --approve {plan.platform}.",
        ) from error
    raise NobodyApproved(
        f"{plan.procedure}: nobody approved the plan within {seconds} s.", hint=_NOTHING_TOUCHED
    )


def _goes_on(client: Any, run_id: Any) -> bool:
    try:
        state = client.read_flow_run(run_id).state
    except Exception as error:
        log.warning("The server does not say whether the plan is approved: %s", error)
        return False
    if state is not None and (state.is_cancelled() or state.is_cancelling()):
        if state.name == Withdrawn.__name__:  # by the health watch, and not by a person
            current_run().fact(well_again=True)
        raise Withdrawn(f"It was taken back. {state.message or ''}".strip(), hint=_NOTHING_TOUCHED)
    return state is not None and state.is_running()


def _approval_form() -> Any:
    from prefect.input import RunInput
    from pydantic import Field

    class RecoveryApproval(RunInput):
        platform: str = Field(
            default="",
            title="Name of the platform",
            description="To approve, type the platform's name as the plan says it.",
        )
        approver: str = Field(
            min_length=2, max_length=80, title="Your name", description="It goes on record."
        )
        decision: Literal["approve", "reject"] = Field(
            default="reject", description="Approve the plan as it stands, or end the run."
        )
        reason: str = Field(
            default="", max_length=500, description="Why; for the record of the recovery."
        )

    return RecoveryApproval
