"""What is backed up only when it has changed: which newest point that is compared with."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.points import Asset, Facts, RecoveryPoint, Tier, point_id
from lifeboat.settings import Settings, load_settings
from tasks import catalogue, clock, marks, trees
from tasks.record import recorded

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
BOTH = (Tier.LOCAL, Tier.S3)
YAML = """\
platform: cad-test
environment: staging
stack: {kind: process, supervisor_config: x.conf, critical_services: [postgres]}
database: {service: postgres, name: cad, data_directory: data/postgres}
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml]}
vault: {local: backups, s3: {endpoint: "http://127.0.0.1:9", bucket: lifeboat-vault}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(YAML)
    return load_settings(tmp_path / "lifeboat.yaml")


def point(hours: float, *tiers: Tier, fingerprint: str = "same", **told) -> RecoveryPoint:
    taken_at = NOON + timedelta(hours=hours)
    return RecoveryPoint(
        asset=Asset.CONFIG,
        id=point_id(Asset.CONFIG, taken_at),
        taken_at=taken_at,
        copies={tier: "x" for tier in tiers or BOTH},
        bytes=1,
        fingerprint=fingerprint,
        **told,
    )


@pytest.fixture
def unchanged_since(settings, monkeypatch: pytest.MonkeyPatch):
    """Which of these points holds what is there; None: none does, and a new one would be made."""

    def facts_of(settings: Settings, point: RecoveryPoint) -> Facts:
        return Facts(
            point=point.id, asset=point.asset, platform="x", host="x", taken_at=point.taken_at
        )

    monkeypatch.setattr(trees, "_fingerprint", lambda asset, there: "same")
    monkeypatch.setattr(trees, "_facts_of", facts_of)
    monkeypatch.setattr(marks, "put", lambda *_: None)

    def look(*points: RecoveryPoint) -> str | None:
        monkeypatch.setattr(catalogue, "list_points", lambda settings, **_: points)
        with clock.set_to(NOON), recorded("x", platform="cad", directory=None):
            found = trees.find_unchanged(settings, Asset.CONFIG)
        return found.point if found else None

    return look


def test_a_point_from_the_future_counts_for_nothing(unchanged_since) -> None:
    """It lies on this host alone, for S3 refused it: each look would make another full backup."""
    good, changed = point(-1), point(-1, fingerprint="other")
    assert unchanged_since(point(47, Tier.LOCAL), good) == good.id
    assert unchanged_since(point(47, Tier.LOCAL, fingerprint="other"), good) == good.id
    assert unchanged_since(point(47, *BOTH), changed) is None, "it was changed back since"
    assert unchanged_since(point(47, *BOTH)) is None
    assert unchanged_since() is None


def test_what_nobody_has_accepted_yet_is_not_stored_again(unchanged_since) -> None:
    bad = point(-1, suspicion="3 of 1200 files are left")
    assert unchanged_since(bad, point(-2, fingerprint="other")) == bad.id
