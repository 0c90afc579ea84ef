"""When a backup is due, and what the keeper does about what fails."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lifeboat.core.errors import LockBusy, TransientError
from lifeboat.core.points import Asset, RecoveryPoint, Tier, point_id
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
    ("hours_ago", "due_in_hours"), [((), 0), ((1, 9), 5), ((6.5,), 0), ((100,), 0)]
)
def test_a_backup_is_due_by_the_age_of_the_newest_copy(
    monkeypatch, asset, hours_ago, due_in_hours
) -> None:
    monkeypatch.setattr(catalogue, "list_points", points_taken(*hours_ago))
    job = keeper.backup_job(None, asset, every_seconds=6 * 3600, act=lambda: None)
    assert job.due_in_seconds() == pytest.approx(due_in_hours * 3600, abs=5)


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [TransientError("S3 is away"), LockBusy("a recovery runs")])
def test_what_fails_is_told_and_tried_again(monkeypatch, caplog, error) -> None:
    outcomes = iter([error, None])

    def act() -> None:
        if failure := next(outcomes, Stop()):
            raise failure

    monkeypatch.setattr(locks, "stand_aside", lambda settings, doing: None)
    monkeypatch.setattr(backup, "refuse_unproven", lambda settings, doing: None)
    waits: list[float] = []
    monkeypatch.setattr(keeper.time, "sleep", waits.append)
    with caplog.at_level("INFO", logger="lifeboat"), pytest.raises(Stop):
        keeper._repeat(None, "files", keeper.Job(86400.0, act))
    assert str(error) in caplog.text
    soon = 60 if isinstance(error, LockBusy) else 86400
    assert waits == [0, pytest.approx(soon, abs=1), pytest.approx(86400, abs=1)]
