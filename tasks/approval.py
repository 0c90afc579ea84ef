"""The plan before the deed: show what will happen, and wait for a person who names the platform."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from lifeboat.core.errors import NotApproved
from lifeboat.core.plan import RecoveryPlan
from tasks.orchestration import in_flow_run
from tasks.record import current_run

log = logging.getLogger("lifeboat")

Approval = Literal["ask", "preapproved"]
APPROVAL_TIMEOUT_SECONDS = 3600


def approve(plan: RecoveryPlan, approval: Approval) -> None:
    """Return when the plan is approved. Raise NotApproved if it is not; nothing was touched.

    On a terminal the operator types the platform's name; in the Prefect UI the run pauses for the
    same. A time-out means no.
    """
    run = current_run()
    # Not as used: what is used and passes all checks is marked as verified.
    run.fact(planned_points=" ".join(point.id for point in plan.points))
    log.info("The plan:\n%s", plan.in_words())
    if approval == "preapproved":
        run.fact(approved_by="preapproved")
        return
    if sys.stdin is not None and sys.stdin.isatty():
        answer = input(f"Type the platform's name ({plan.platform}) to go on, else it stops: ")
        _require(answer.strip() == plan.platform, "the name typed is not the platform's")
        run.fact(approved_by="terminal")
    elif in_flow_run():
        _approve_in_prefect(plan)
    else:
        raise NotApproved(
            f"{plan.procedure} needs an approval, and there is no terminal to ask at.",
            hint=f"Nothing was touched. Run it again with --approve {plan.platform}.",
        )


def _approve_in_prefect(plan: RecoveryPlan) -> None:
    from prefect.artifacts import create_markdown_artifact
    from prefect.exceptions import FlowPauseTimeout
    from prefect.flow_runs import pause_flow_run
    from prefect.input import RunInput
    from pydantic import Field

    class RecoveryApproval(RunInput):
        decision: Literal["approve", "reject"] = "reject"
        platform: str = Field(default="", description="Type the platform's name to approve")
        approver: str = Field(default="", description="Your name")

    text = f"```\n{plan.in_words()}\n```"
    create_markdown_artifact(text, key="recovery-plan", description=plan.procedure)
    try:
        answer = pause_flow_run(
            wait_for_input=RecoveryApproval.with_initial_data(description=text),
            timeout=APPROVAL_TIMEOUT_SECONDS,
            key="approve-plan",
        )
    except FlowPauseTimeout:
        raise NotApproved(
            f"{plan.procedure}: nobody approved the plan within {APPROVAL_TIMEOUT_SECONDS} s.",
            hint="Nothing was touched. Run it again.",
        ) from None
    _require(answer.decision == "approve", "it was rejected")
    _require(answer.platform.strip() == plan.platform, "the name typed is not the platform's")
    current_run().fact(approved_by=answer.approver or "Prefect UI")


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise NotApproved(f"The plan was not approved: {why}.", hint="Nothing was touched.")
