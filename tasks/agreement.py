"""A plan agreed to, and then looked at again: a person may have read it for an hour."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol, TypeVar

from lifeboat.core.agreement import STILL_TRUE_SECONDS, differences
from lifeboat.core.errors import (
    LockBusy,
    NoLongerNeeded,
    NothingToDo,
    Overtaken,
    PlanChanged,
)
from lifeboat.core.plan import RecoveryPlan
from lifeboat.settings import Settings
from tasks import approval, clock, journals, locks, places
from tasks.record import current_run

log = logging.getLogger("lifeboat")

_NOTHING_TOUCHED = "Nothing was touched."


class Found(Protocol):
    """What was found, with the plan that was made of it."""

    @property
    def plan(self) -> RecoveryPlan: ...


F = TypeVar("F", bound=Found)


def agree(
    found: F,
    asked: approval.Asked,
    settings: Settings | None,
    *,
    again: Callable[[], F],
    holding: bool = False,
) -> F:
    """Have the plan approved, and give what is true then; the platform is not held meanwhile.

    With `holding` it is: for a plan that no backup may overtake. Without settings nothing is held,
    and no other recovery is known of.

    `again` looks anew. It is called if the approval took longer than a minute, or if somebody
    recovered meanwhile. Raises Overtaken if another recovery is at work or has done the same,
    NoLongerNeeded if `again` finds nothing to do, PlanChanged if it is another plan now, and what
    `approval.approve` and `again` raise besides. In all of these nothing was touched.
    """
    plan, began, asked_at = found.plan, time.monotonic(), clock.now()
    try:
        approval.approve(plan, asked, settings, waiting=nullcontext if holding else locks.let_go)
    except LockBusy as busy:
        raise Overtaken(
            f"{plan.procedure} was approved, but meanwhile another recovery has begun: "
            f"{busy.message}",
            hint=f"{_NOTHING_TOUCHED} When it has ended, look with `lifeboat diagnose`, and run "
            "this again if it is still needed.",
        ) from busy
    runs = places.runs_directory(settings) if settings else None
    done = journals.recoveries_done_since(runs, asked_at) if runs else ()
    for other in done:
        if _does_the_same(other.procedure, plan.procedure):
            raise Overtaken(
                f"{plan.procedure} was approved, but meanwhile {other.id} has done it.",
                hint=f"{_NOTHING_TOUCHED} `lifeboat verify` tells whether the platform is well.",
            )
    if not done and time.monotonic() - began < STILL_TRUE_SECONDS:
        return found
    log.info("The plan was agreed to; looking again whether it still holds.")
    current_run().fact(looked_again=True)
    try:
        now = again()
    except NothingToDo as refused:
        raise NoLongerNeeded(
            f"{plan.procedure} was approved, but is not needed any more: {refused.message}",
            hint=refused.hint or _NOTHING_TOUCHED,
        ) from refused
    if changed := differences(plan, now.plan):
        raise PlanChanged(
            f"{plan.procedure} was approved, but it is another plan now: {'; '.join(changed)}.",
            hint=f"{_NOTHING_TOUCHED} Run it again and read the new plan.",
        )
    return now


def _does_the_same(done: str, wanted: str) -> bool:
    """Whether one recovery does all that another would. A new server changes no bucket."""
    return done == wanted or (done == "recover-server" and wanted != "recover-bucket")
