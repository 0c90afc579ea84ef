"""A prune of which a part fails: the rest is done all the same, and the failure is told."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from lifeboat.core.errors import VerificationFailed
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.retention import Decision
from tasks import retention
from tasks.record import recorded

TAKEN = datetime(2026, 1, 31, 3, 15, tzinfo=timezone.utc)


def let_go(asset: Asset) -> Decision:
    point = RecoveryPoint(
        asset=asset, id=f"{asset}-old", taken_at=TAKEN, copies={Tier.LOCAL: "a"}, bytes=9
    )
    return Decision(point=point, keep=False, reason="older than 30 days")


@pytest.fixture
def settings(tmp_path):
    return SimpleNamespace(
        vault=SimpleNamespace(local=tmp_path), retention=SimpleNamespace(local_days=30)
    )


@pytest.mark.parametrize("bad", list(Asset))
def test_a_damaged_repository_holds_up_no_other_asset(settings, monkeypatch, bad: Asset) -> None:
    removed, wal = [], []

    def remove_points(_, asset: Asset, pruning: retention.Pruning) -> None:
        if asset is bad:
            raise VerificationFailed("This repository is damaged.")
        removed.append(asset)

    monkeypatch.setattr(retention, "remove_points", remove_points)
    monkeypatch.setattr(retention, "remove_wal", lambda _, pruning: wal.append(pruning.tier))
    pruning = retention.Pruning(
        tier=Tier.LOCAL, decisions={asset: (let_go(asset),) for asset in Asset}, wal=("0001",)
    )
    runs = settings.vault.local / "records/runs"
    with (
        pytest.raises(VerificationFailed, match="damaged"),
        recorded("prune-backups", platform="cad", directory=runs) as run,
    ):
        retention.remove(settings, (pruning,))
    assert removed == [asset for asset in Asset if asset is not bad]
    # A base copy that could not be removed keeps the WAL that it needs.
    assert wal == ([] if bad is Asset.DATABASE else [Tier.LOCAL])
    assert f"{bad}_points_removed" not in run.record.facts
