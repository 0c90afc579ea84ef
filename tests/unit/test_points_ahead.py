"""A point that says it is from the future is kept, and no recovery takes it unasked."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.points import Asset, RecoveryPoint, Tier, choose_point, point_id
from lifeboat.core.sets import candidates
from lifeboat.settings import Settings, load_settings
from tasks import catalogue, clock, database, marks, repair, settings_in_vault
from tests.unit.smallest_settings import SMALLEST

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def point(asset: Asset, hours: float, *tiers: Tier, place: str = "x") -> RecoveryPoint:
    taken_at = NOON + timedelta(hours=hours)
    return RecoveryPoint(
        asset=asset,
        id=point_id(asset, taken_at),
        taken_at=taken_at,
        copies=dict.fromkeys(tiers or (Tier.LOCAL,), place),
        bytes=1,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
    return load_settings(tmp_path / "lifeboat.yaml")


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The local vault holds a point of an hour ago, and one made while the clock was ahead."""
    names: set[str] = set()

    def points_in(settings, asset, tier):
        return [point(asset, hours) for hours in (-1, 47)] if tier is Tier.LOCAL else []

    monkeypatch.setattr(catalogue, "_points_in", points_in)
    monkeypatch.setattr(catalogue, "_hot_points", lambda settings: [])
    monkeypatch.setattr(catalogue, "read_facts", lambda settings, point, tier: None)
    monkeypatch.setattr(marks, "verified_points", lambda settings, in_bucket: {})
    monkeypatch.setattr(marks, "accepted_points", lambda settings, in_bucket: names)
    monkeypatch.setattr(repair, "Source", lambda **told: told)
    return names


def test_a_recovery_takes_the_point_before_it_and_says_why(settings, accepted) -> None:
    good, ahead = point(Asset.FILES, -1), point(Asset.FILES, 47)
    with clock.set_to(NOON):
        source = repair.choose_source(settings, Asset.FILES)
        assert source["point"].id == good.id
        [over] = source["passed_over"]
        assert (over.id, "still to come" in over.suspicion) == (ahead.id, True)
        points = catalogue.list_points(settings)
        tried = candidates(points, Asset.FILES, Tier.LOCAL)
        assert [candidate.point.id for candidate in tried] == [good.id]
        named = repair.choose_source(settings, Asset.FILES, named=ahead.id)
        assert "still to come" in named["point"].suspicion
        accepted.add(ahead.id)
        assert repair.choose_source(settings, Asset.FILES)["point"].id == ahead.id


def test_its_hot_copy_is_not_the_one_that_is_kept(settings, accepted, monkeypatch) -> None:
    hot = [point(Asset.DATABASE, hours, Tier.HOT, place=f"/hot/{hours}") for hours in (47, -2)]
    monkeypatch.setattr(catalogue, "_hot_points", lambda settings: hot)
    with clock.set_to(NOON):
        assert database._newest_trusted(settings) == {Path("/hot/-2")}


def test_a_blank_machine_passes_over_a_configuration_from_the_future(monkeypatch) -> None:
    listed = [point(Asset.CONFIG, hours, Tier.S3) for hours in (-1, 47)]
    monkeypatch.setattr(catalogue, "points_of", lambda store, asset, tier: listed)
    monkeypatch.setattr(marks, "names_in_bucket", lambda bucket, kind: {})
    with clock.set_to(NOON):
        points = settings_in_vault._configurations(None, None, ())
        assert choose_point(points, asset=Asset.CONFIG).id == listed[0].id
        points = settings_in_vault._configurations(None, None, (listed[1].id,))
        assert choose_point(points, asset=Asset.CONFIG).id == listed[1].id
