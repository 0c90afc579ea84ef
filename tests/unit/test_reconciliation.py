"""Runs that Prefect takes for running: which are dead, how they ended, and what is said of it."""

from __future__ import annotations

import pytest

from lifeboat.core.reconciliation import Process, Seen, Trace, judge
from lifeboat.core.timeline import MovedAside

TRACE = Trace(
    record="recover-models-1",
    procedure="recover-models",
    where="/backups/records/runs/recover-models-1",
    alive=False,
    last_step="rewrite damaged",
    moved_aside=(MovedAside(what="models", where="/srv/models.damaged"),),
)


def seen(process: Process, trace: Trace | None = None, **more) -> Seen:
    told = {"name": "x", "state": "RUNNING", "state_age_seconds": 400.0, **more}
    return Seen(process=process, trace=trace, **told)


@pytest.mark.parametrize(
    "run",
    [
        seen(Process.ALIVE),
        seen(Process.ALIVE, silent_seconds=90_000),
        seen(Process.ALIVE, TRACE.model_copy(update={"outcome": "done"})),
        seen(Process.NONE, TRACE.model_copy(update={"alive": True})),
        seen(Process.GONE, state_age_seconds=1),
        seen(Process.ELSEWHERE),
        seen(Process.ELSEWHERE, silent_seconds=200),
        seen(Process.NONE),
        seen(Process.NONE, state="PENDING", state_age_seconds=60),
        seen(Process.ELSEWHERE, state="PENDING", state_age_seconds=6000),
        # One that waits for a person is silent.
        seen(Process.ALIVE, state="PAUSED"),
        seen(Process.NONE, state="PAUSED", silent_seconds=90_000),
        seen(Process.ELSEWHERE, state="PAUSED", silent_seconds=90_000),
    ],
)
def test_what_lives_or_may_live_is_left_alone(run: Seen) -> None:
    assert judge(run) is None


@pytest.mark.parametrize("state", ["RUNNING", "CANCELLING", "PENDING", "PAUSED"])
def test_a_dead_one_says_what_its_record_knows(state: str) -> None:
    end = judge(seen(Process.GONE, TRACE, state=state))
    assert end and end.state == "CRASHED"
    for words in (
        "rewrite damaged",
        "models, now /srv/models.damaged",
        "`lifeboat recover models`",
        TRACE.where,
    ):
        assert words in end.message


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("done", "COMPLETED"), ("failed", "FAILED"), ("not approved", "CANCELLED")],
)
def test_one_that_ended_while_the_server_was_away_ends_as_its_record_says(
    outcome: str, state: str
) -> None:
    end = judge(seen(Process.GONE, TRACE.model_copy(update={"outcome": outcome})))
    assert end and end.state == state and TRACE.where in end.message


def test_without_a_record_or_a_process_it_is_judged_by_its_silence() -> None:
    gone = judge(seen(Process.GONE))
    assert gone and "left no record" in gone.message
    silent = judge(seen(Process.ELSEWHERE, silent_seconds=700))
    assert silent and silent.state == "CRASHED" and "cut off" in silent.message
    begun = judge(seen(Process.NONE, state="PENDING"))
    assert begun and "Nothing was touched" in begun.message
