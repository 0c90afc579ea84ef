"""What has become of a run that Prefect takes for running: judged by its process and its journal.

Prefect learns of an end only from the run itself, or from the worker beside it. When both died, it
says Running for ever; when only the server was away at the end, the run is done all the same.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from lifeboat.core.plan import age_in_words
from lifeboat.core.timeline import MovedAside, Outcome

SETTLE_SECONDS = 30.0
"""So long a state may be newer than what the process has written, and the other way round."""
PENDING_SECONDS = 180.0
"""So long a worker may take to start a run that it has accepted."""
SILENT_SECONDS = 600.0
"""So long a run on another host may give no sign of life: three heartbeats, and some."""


class Process(StrEnum):
    """What is known of a run's process."""

    ALIVE = "alive"
    GONE = "gone"
    NONE = "none"  # it was never told which process it is
    ELSEWHERE = "elsewhere"  # on another host


class Trace(BaseModel):
    """What a run's own journal on this host says."""

    model_config = ConfigDict(frozen=True)

    record: str  # id, the name of its directory in records/runs
    procedure: str
    where: str
    alive: bool
    outcome: str = ""  # empty: it never came to its end
    error: str = ""
    last_step: str = ""
    moved_aside: tuple[MovedAside, ...] = ()


class Seen(BaseModel):
    """A run in Prefect, and what is there of it."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: str  # RUNNING, PENDING, PAUSED or CANCELLING
    state_age_seconds: float
    process: Process
    trace: Trace | None = None
    silent_seconds: float | None = None  # since its last heartbeat; None: none is known


class End(BaseModel):
    """How a run has ended that Prefect knows nothing of."""

    model_config = ConfigDict(frozen=True)

    state: str  # the type of Prefect's state: CRASHED, COMPLETED, FAILED, CANCELLED
    message: str


_STATES = {
    Outcome.DONE: "COMPLETED",
    Outcome.FAILED: "FAILED",
    Outcome.NOT_APPROVED: "CANCELLED",
}


def judge(seen: Seen) -> End | None:
    """How it has ended; None while it lives, or may live."""
    trace = seen.trace
    if seen.process is Process.ALIVE or (trace and trace.alive):
        return None
    if seen.state_age_seconds < SETTLE_SECONDS:
        return None
    if trace and trace.outcome in _STATES:
        outcome = Outcome(trace.outcome)
        why = f": {trace.error}" if trace.error else ""
        return End(
            state=_STATES[outcome],
            message=f"It ended as '{outcome}'{why}. Its end could not be told to this server; its "
            f"record says so ({trace.where}).",
        )
    if seen.process is Process.GONE or (trace and not trace.alive):
        return End(state="CRASHED", message=_crashed("its process is gone", trace))
    if seen.state == "PAUSED":
        return None  # one that waits for a person is silent, and is nobody's to end while it lives
    if seen.state == "PENDING":
        if seen.process is Process.NONE and seen.state_age_seconds >= PENDING_SECONDS:
            return End(
                state="CRASHED",
                message="It never began: the worker that had taken it ended. Nothing was touched. "
                "Run it again.",
            )
        return None
    if seen.silent_seconds is not None and seen.silent_seconds >= SILENT_SECONDS:
        silent = timedelta(seconds=seen.silent_seconds)
        why = (
            f"it gave no sign of life for {age_in_words(silent)}, and it runs on "
            "another host: look there first, it may only be cut off"
        )
        return End(state="CRASHED", message=_crashed(why, trace))
    return None


def _crashed(why: str, trace: Trace | None) -> str:
    if trace is None:
        return (
            f"It was cut short: {why}. It left no record on this host. Run it again: what it left "
            "half done is cleaned up first."
        )
    step = f" Its last step was '{trace.last_step}'." if trace.last_step else ""
    moved = "".join(f" Moved aside: {m.what}, now {m.where}." for m in trace.moved_aside)
    again = trace.procedure.replace("-", " ", 1) if trace.procedure.startswith("recover") else ""
    next_step = (
        f"Run it again, here or by `lifeboat {again}`: it sees what was done, and goes on."
        if again
        else "Run it again: what it left half done is cleaned up first."
    )
    return f"It was cut short: {why}.{step}{moved} {next_step} Its record: {trace.where}"
