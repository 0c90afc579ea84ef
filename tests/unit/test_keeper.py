"""When a backup is due, and what the keeper does about what fails."""

from __future__ import annotations

import errno
import time
from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core.errors import LockBusy, TransientError
from lifeboat.core.points import Asset, RecoveryPoint, Tier, point_id
from lifeboat.core.timeline import run_id
from tasks import backup, catalogue, keeper, locks


def points_taken(*hours_ago: float):
    def list_points(settings, *, assets, tiers):
        [asset], [tier] = assets, tiers
        assert tier is (Tier.HOT if asset is Asset.DATABASE else Tier.LOCAL)
        taken = [datetime.now(timezone.utc) - timedelta(hours=hours) for hours in hours_ago]
        return [
            RecoveryPoint(
                asset=asset, id=point_id(asset, t), taken_at=t, copies={tier: "x"}, bytes=1
            )
            for t in taken
        ]

    return list_points


@pytest.mark.parametrize("asset", list(Asset))
@pytest.mark.parametrize(
    ("hours_ago", "due_in_hours"), [((), 0), ((1, 9), 5), ((6.5,), 0), ((100,), 0), ((-900,), 6)]
)
def test_a_backup_is_due_by_the_age_of_the_newest_copy(
    monkeypatch, asset, hours_ago, due_in_hours
) -> None:
    monkeypatch.setattr(catalogue, "list_points", points_taken(*hours_ago))
    job = keeper.backup_job(None, asset, every_seconds=6 * 3600, act=lambda: None)
    assert job.due_in_seconds() == pytest.approx(due_in_hours * 3600, abs=5)


class Stop(Exception):
    pass


def kept(monkeypatch, job: keeper.Job) -> list[float]:
    """Keep a job until it raises Stop; give the pauses between, in seconds."""
    pauses: list[float] = []
    monkeypatch.setattr(locks, "stand_aside", lambda settings, doing: None)
    monkeypatch.setattr(backup, "refuse_unproven", lambda settings, doing: None)
    monkeypatch.setattr(keeper, "_rest", lambda name, seconds, because: pauses.append(seconds))
    with pytest.raises(Stop):
        keeper._repeat(None, "files", job)
    return pauses


def acts(*outcomes):
    left = iter(outcomes)

    def act() -> None:
        if failure := next(left, Stop()):
            raise failure

    return act


@pytest.mark.parametrize(
    "error",
    [
        TransientError("S3 is away"),
        LockBusy("a recovery runs"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_what_fails_is_told_and_tried_again(monkeypatch, caplog, error) -> None:
    with caplog.at_level("INFO", logger="lifeboat"):
        kept(monkeypatch, keeper.Job(1.0, acts(error, None)))
    assert str(error) in caplog.text


def test_a_rare_job_that_fails_is_tried_again_soon_and_then_less_often(monkeypatch) -> None:
    away = TransientError("S3 is away")
    job = keeper.Job(21600.0, acts(None, away, away, away, None, away))
    pauses = kept(monkeypatch, job)
    assert [round(p) for p in pauses] == [0, 21600, 60, 120, 240, 21600, 60]


def test_a_job_that_stood_aside_is_tried_again_every_minute(monkeypatch) -> None:
    busy = LockBusy("a recovery runs")
    pauses = kept(monkeypatch, keeper.Job(86400.0, acts(busy, busy, busy, None)))
    assert [round(p) for p in pauses] == [0, 60, 60, 60, 86400]


def test_a_frequent_job_that_fails_keeps_its_pace(monkeypatch) -> None:
    away = TransientError("S3 is away")
    pauses = kept(monkeypatch, keeper.Job(10.0, acts(away, away, None)))
    assert [round(p) for p in pauses] == [0, 10, 10, 10]


def test_a_job_with_a_reason_does_not_wait(monkeypatch, caplog) -> None:
    monkeypatch.setattr(keeper, "_HURRY_SECONDS", 0.01)
    reasons = iter([None, None, "the log has a hole"])
    began = time.monotonic()
    keeper._rest("database", 30, lambda: next(reasons))
    assert time.monotonic() - began < 5
    assert "database is due at once: the log has a hole" in caplog.text


def test_a_reason_that_can_not_be_looked_for_ends_no_job(monkeypatch, caplog) -> None:
    monkeypatch.setattr(keeper, "_HURRY_SECONDS", 0.01)
    answers = iter([OSError("a bad sector"), TransientError("S3 is away"), "the log has a hole"])

    def look() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    keeper._rest("database", 30, look)
    assert "a bad sector" in caplog.text
    assert "S3 is away" in caplog.text


def test_a_reason_does_not_hurry_what_has_just_failed(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(locks, "stand_aside", lambda settings, doing: None)
    monkeypatch.setattr(backup, "refuse_unproven", lambda settings, doing: None)
    monkeypatch.setattr(keeper, "_rest", lambda name, seconds, because: asked.append(because()))
    away = TransientError("S3 is away")
    job = keeper.Job(9.0, acts(None, away, None), due_because=lambda: "a hole")
    with pytest.raises(Stop):
        keeper._repeat(None, "database", job)
    assert asked == ["a hole", "a hole", None, "a hole"]


@pytest.mark.parametrize(
    ("hours_ago", "due_in_seconds"),
    [(None, 600), (1, 23 * 3600), (23.9, 600), (80, 600), (-900, 86400)],
)
def test_upkeep_is_due_by_its_last_run_and_never_at_once(
    monkeypatch, tmp_path, hours_ago, due_in_seconds
) -> None:
    monkeypatch.setattr(keeper.places, "runs_directory", lambda settings: tmp_path)
    if hours_ago is not None:
        began = datetime.now(timezone.utc) - timedelta(hours=hours_ago)
        for when in (began, began - timedelta(days=9)):
            (tmp_path / run_id("prune-backups", when, "ab12")).mkdir()
    job = keeper.upkeep_job(None, "prune-backups", every_seconds=86400, act=lambda: None)
    assert job.due_in_seconds() == pytest.approx(due_in_seconds, abs=5)
