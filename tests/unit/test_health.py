"""Bad looks in a row: when a recovery is proposed, when not again, and when it is taken back."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core.diagnosis import Cure, Diagnosis, Scenario
from lifeboat.core.health import (
    PROCEDURES,
    Act,
    Health,
    Look,
    Pause,
    Proposal,
    Streak,
    after,
    let_go_of_proposal,
    what_to_propose,
)

NOW = datetime(2026, 1, 31, 3, 15, tzinfo=timezone.utc)
PROPOSAL = Proposal(run="r", procedure="recover-database", evidence="gone", at=NOW)


def look(minutes: int = 0, *wrong: str) -> Look:
    return Look(at=NOW + timedelta(minutes=minutes), wrong=wrong)


def run(looks: str, streak: Streak | None = None, *, needed: int = 3) -> tuple[Streak, list[Act]]:
    """Looks as letters: `x` is bad, `.` is good."""
    streak, acts = streak or Streak(), []
    for minute, letter in enumerate(looks):
        streak, act = after(
            streak, look(minute, *(["it is down"] * (letter == "x"))), needed=needed
        )
        acts.append(act)
    return streak, acts


@pytest.mark.parametrize(
    ("looks", "diagnoses"),
    [
        ("xx.xx.xx", []),
        ("xxx", [2]),
        (".xxx", [3]),
        ("xxxxxxx", [2, 5]),
        ("xx.xxx", [5]),
    ],
)
def test_only_so_many_in_a_row_are_a_reason(looks: str, diagnoses: list[int]) -> None:
    _, acts = run(looks)
    assert [n for n, act in enumerate(acts) if act is Act.DIAGNOSE] == diagnoses


def test_it_is_proposed_once() -> None:
    streak, _ = run("xxx")
    assert streak.since == NOW
    streak = streak.model_copy(update={"proposal": PROPOSAL})
    streak, acts = run("xxxxxx", streak)
    assert set(acts) == {Act.NOTHING}
    assert streak.proposal == PROPOSAL


def test_who_said_no_is_not_asked_again_before_it_was_well() -> None:
    said_no = Streak(rejected=True)
    still, acts = run("xxxxxx", said_no)
    assert set(acts) == {Act.NOTHING}
    _, acts = run(".xxx", still)
    assert acts[-1] is Act.DIAGNOSE


@pytest.mark.parametrize("rejected", [True, False])
def test_a_proposal_that_ends_makes_nothing_good_again(rejected: bool) -> None:
    """Or people would be told that it is, while it is down."""
    streak, _ = run("xxx")
    ended = let_go_of_proposal(streak.model_copy(update={"proposal": PROPOSAL}), rejected=rejected)
    assert (ended.failures, ended.since, ended.proposed) == (3, NOW, 1)
    _, acts = run("xxx", ended)
    assert (Act.DIAGNOSE in acts) is not rejected


def test_a_proposal_is_taken_back_when_the_platform_is_well_until_that_worked() -> None:
    streak, acts = run("..", Streak(failures=5, proposal=PROPOSAL))
    assert acts == [Act.WITHDRAW, Act.WITHDRAW]
    assert streak.failures == 0


@pytest.mark.parametrize("scenario", list(Scenario))
def test_only_what_this_host_can_recover_is_proposed(scenario: Scenario) -> None:
    cure = Cure(scenario=scenario, evidence="e", command="c")
    found = what_to_propose(Diagnosis(platform="cad", cures=(cure,)))
    assert (found is not None) == (scenario in PROCEDURES)


def test_files_are_not_proposed_before_the_server_that_they_lie_on() -> None:
    cures = [Cure(scenario=s, evidence="e", command="c") for s in (Scenario.SERVER, Scenario.FILES)]
    assert what_to_propose(Diagnosis(platform="cad", cures=tuple(cures))) is None
    assert what_to_propose(Diagnosis(platform="cad", cures=())) is None


def test_a_pause_ends_by_itself() -> None:
    streak = Streak(pause=Pause(until=NOW, why="upgrade", by="Ada"))
    assert streak.is_paused(NOW - timedelta(minutes=1))
    assert not streak.is_paused(NOW)


def test_what_people_read_names_what_is_wrong_and_where_to_approve() -> None:
    found = Health(
        platform="cad",
        look=look(0, "postgres does not run"),
        streak=Streak(failures=3, proposal=PROPOSAL.model_copy(update={"url": "http://ui/r"})),
    )
    assert not found.good
    assert "postgres does not run" in found.in_words()
    assert "recover-database waits for approval: http://ui/r" in found.in_words()
    assert Health(platform="cad", look=None).good
