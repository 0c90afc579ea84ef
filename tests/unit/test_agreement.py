"""A plan that was approved after a while: carried out only if it is still what was agreed to."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from lifeboat.core import agreement as core
from lifeboat.core.errors import (
    LockBusy,
    NoLongerNeeded,
    NothingToDo,
    Overtaken,
    PlanChanged,
    PreconditionError,
    Rejected,
)
from lifeboat.core.plan import RecoveryPlan
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.timeline import Outcome
from tasks import agreement, approval, journals, locks
from tasks.record import recorded

NOW = datetime(2026, 1, 31, 3, 15, tzinfo=timezone.utc)


def point(hours: float, suspicion: str = "") -> RecoveryPoint:
    return RecoveryPoint(
        asset=Asset.FILES,
        id=f"files-{hours:g}h",
        taken_at=NOW - timedelta(hours=hours),
        copies={Tier.LOCAL: "a"},
        bytes=9,
        suspicion=suspicion,
    )


PLAN = RecoveryPlan(
    procedure="recover-files",
    platform="cad",
    symptoms="drawings: 2 missing",
    points=(point(2),),
    target="files-2h, from local",
    expected_loss="changes since then",
    touches=("/data/files",),
    steps=("rewrite", "verify"),
    made_at=NOW,
)


@dataclass(frozen=True)
class Found:
    plan: RecoveryPlan


def changed(**values) -> RecoveryPlan:
    return PLAN.model_copy(update=values)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"symptoms": "drawings: 5 missing"}, "5 missing"),
        ({"target": "files-9h"}, "files-9h"),
        ({"expected_loss": "all of it"}, "all of it"),
        ({"touches": ("/data/files", "/data/models")}, "/data/models"),
        ({"steps": ("rewrite",)}, "the steps"),
        ({"points": (point(3),)}, "an older one"),
        ({"points": ()}, "no recovery point of the files"),
        ({"passed_over": (point(1, "half of it is gone"),)}, "files-1h"),
    ],
)
def test_what_somebody_who_agreed_would_want_to_know_is_told(now, told: str) -> None:
    [difference] = core.differences(PLAN, changed(**now))
    assert told in difference


def test_a_newer_point_or_a_later_look_is_no_other_plan() -> None:
    assert core.differences(PLAN, changed(points=(point(1),), made_at=NOW)) == ()


def test_a_service_that_is_just_starting_again_makes_no_other_plan() -> None:
    """One in a restart loop is down now, and starting when the plan has been read."""
    then = changed(seen_beside="its service is stopped")
    assert "drawings: 2 missing (its service is stopped)" in then.in_words()
    assert "drawings: 2 missing (its service is stopped)" in then.in_markdown()
    assert core.differences(then, changed(seen_beside="its service is starting")) == ()


@pytest.fixture
def settings(tmp_path):
    return SimpleNamespace(vault=SimpleNamespace(local=tmp_path))


@pytest.fixture
def agree(settings, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Agree to PLAN while the lock is held; `meanwhile` is what happens until the approval."""

    def run(meanwhile=lambda: None, *, again=lambda: Found(PLAN), later: float = 0.0, **more):
        def approve(*_, waiting) -> None:
            with waiting():
                meanwhile()

        monkeypatch.setattr(approval, "approve", approve)
        monkeypatch.setattr(core, "STILL_TRUE_SECONDS", 60.0)
        monkeypatch.setattr(agreement, "STILL_TRUE_SECONDS", 60.0 - later)
        runs = tmp_path / "records/runs"
        with (
            locks.recovery_lock(settings, run="recover-files"),
            recorded("recover-files", platform="cad", directory=runs),
        ):
            return agreement.agree(Found(PLAN), None, settings, again=again, **more)

    return run


def refuse():
    raise NothingToDo("Every file is whole.", hint="Look elsewhere.")


def test_it_is_not_looked_at_again_when_hardly_any_time_has_passed(agree) -> None:
    assert agree(again=refuse).plan is PLAN


def test_after_a_while_what_is_true_then_is_carried_out(agree) -> None:
    newer = Found(changed(points=(point(1),)))
    assert agree(again=lambda: newer, later=60) is newer


def test_what_is_well_again_is_not_recovered(agree) -> None:
    with pytest.raises(NoLongerNeeded, match=r"Every file is whole\. Look elsewhere"):
        agree(again=refuse, later=60)


def test_what_can_not_be_recovered_any_more_is_not_called_well(agree) -> None:
    def no_point_is_left():
        raise PreconditionError("There is no recovery point.")

    with pytest.raises(PreconditionError, match="no recovery point") as refused:
        agree(again=no_point_is_left, later=60)
    assert not isinstance(refused.value, NoLongerNeeded)


def test_another_plan_needs_another_approval(agree) -> None:
    with pytest.raises(PlanChanged, match="5 missing"):
        agree(again=lambda: Found(changed(symptoms="5 missing")), later=60)


@contextmanager
def another_recovery(settings, procedure: str = "recover-files"):
    runs = settings.vault.local / "records/runs"
    with (
        locks.recovery_lock(settings, run=procedure, wait_seconds=0.1),
        recorded(procedure, platform="cad", directory=runs) as run,
    ):
        yield run


def test_who_recovers_meanwhile_is_not_held_up_and_what_he_did_is_not_done_twice(
    agree, settings
) -> None:
    def recover() -> None:
        with another_recovery(settings):
            pass

    with pytest.raises(Overtaken, match="recover-files-.* has done it"):
        agree(recover)


def test_after_another_recovery_it_is_looked_at_again_at_once(agree, settings) -> None:
    def recover() -> None:
        with another_recovery(settings, "recover-database"):
            pass

    with pytest.raises(NoLongerNeeded):
        agree(recover, again=refuse)


def test_what_somebody_else_rejected_is_no_recovery(agree, settings) -> None:
    def reject() -> None:
        with pytest.raises(Rejected), another_recovery(settings) as run:
            assert run.record.outcome is not Outcome.DONE
            raise Rejected("no")

    assert agree(reject, again=refuse).plan is PLAN


def test_a_recovery_that_is_at_work_when_it_is_approved_wins(agree, settings, monkeypatch) -> None:
    held, elsewhere = another_recovery(settings), copy_context()
    monkeypatch.setattr(locks, "let_go", _impatient(locks.let_go))
    try:
        with pytest.raises(Overtaken, match=r"another recovery has begun.*recover-files, process"):
            agree(lambda: elsewhere.run(held.__enter__))
    finally:
        elsewhere.run(held.__exit__, None, None, None)


def _impatient(let_go):
    return lambda: let_go(wait_seconds=0.1)


def test_no_backup_begins_while_a_plan_waits_that_none_may_overtake(agree, settings) -> None:
    def back_up() -> None:
        with (
            pytest.raises(LockBusy),
            locks.backup_lock(settings, Asset.FILES, run="backup-files"),
        ):
            pytest.fail("it began")

    elsewhere = copy_context()
    agree(lambda: elsewhere.run(back_up), holding=True)


def test_backups_go_on_while_a_plan_waits_and_stand_aside_again_after_that(agree, settings) -> None:
    def back_up() -> None:
        with locks.backup_lock(settings, Asset.FILES, run="backup-files"):
            pass

    def look() -> Found:
        with pytest.raises(LockBusy):
            back_up()
        return Found(PLAN)

    assert agree(back_up, again=look, later=60).plan is PLAN


def test_only_what_was_done_after_that_moment_counts(settings) -> None:
    runs = settings.vault.local / "records/runs"
    with another_recovery(settings):
        pass
    assert len(journals.recoveries_done_since(runs, NOW)) == 1
    assert journals.recoveries_done_since(runs, datetime.now(timezone.utc)) == ()
