"""What is backed up only when it has changed: compared with which point, and stored where."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.errors import PermanentError
from lifeboat.core.points import Asset, DirectoryFacts, Facts, RecoveryPoint, Tier, point_id
from lifeboat.settings import Settings, load_settings
from tasks import catalogue, clock, marks, trees
from tasks.record import Run, recorded
from tests.unit.smallest_settings import SMALLEST

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
BOTH = (Tier.LOCAL, Tier.S3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
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
        lay = settings.directory / "lifeboat.yaml"
        return Facts(
            point=point.id,
            asset=point.asset,
            platform="x",
            host="x",
            taken_at=point.taken_at,
            directories={lay.name: DirectoryFacts(path=str(lay), files=1, bytes=1)},
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


# --- a tier that has not got it -------------------------------------------------------------


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch):
    """What is put into which tier; S3 refuses it, if that is said."""
    puts: list[tuple[Tier, str]] = []

    def let(*, refused: bool = False) -> list[tuple[Tier, str]]:
        def store_snapshot(settings, tier, facts, paths, exactly=None) -> None:
            puts.append((tier, facts.point))
            assert [path.name for path in paths] == ["lifeboat.json", "lifeboat.yaml"]
            assert Facts.model_validate_json(paths[0].read_bytes()) == facts
            if refused:
                raise PermanentError("the quota is used up")

        monkeypatch.setattr(trees.vault, "store_snapshot", store_snapshot)
        return puts

    monkeypatch.setattr(trees.suspicion, "look_at_new_point", lambda settings, facts: "")
    return let


@pytest.mark.parametrize(("there", "lacks"), [BOTH, BOTH[::-1]])
def test_a_tier_that_has_not_got_it_is_given_it_under_its_name(
    unchanged_since, stored, monkeypatch, there, lacks
) -> None:
    puts, idle, told = stored(), [], []
    monkeypatch.setattr(Run, "found_nothing_to_do", lambda run: idle.append(run.id))
    monkeypatch.setattr(marks, "put", lambda settings, kind, name, mark: told.append(mark.holds))
    half = point(-1, there)
    assert unchanged_since(half, point(-2)) == half.id
    assert puts == [(lacks, half.id)]
    assert told == [half.id]
    assert not idle, "what was stored is on record"
    assert unchanged_since(point(-1)) == half.id
    assert (len(puts), len(idle)) == (1, 1)


def test_a_tier_that_refuses_it_fails_the_run_and_the_other_gains_nothing(
    unchanged_since, stored, monkeypatch
) -> None:
    puts, told = stored(refused=True), []
    monkeypatch.setattr(marks, "put", lambda settings, kind, name, mark: told.append(mark.holds))
    half = point(-1, Tier.LOCAL)
    for _ in range(3):
        with pytest.raises(PermanentError, match="the quota is used up"):
            unchanged_since(half)
    assert puts == [(Tier.S3, half.id)] * 3
    assert told == [half.id] * 3, "the tier that has it was looked at"


def test_what_lies_elsewhere_now_is_another_point(unchanged_since, stored, monkeypatch) -> None:
    puts = stored()
    monkeypatch.setattr(trees, "_present", lambda settings, asset: {"lifeboat.yaml": Path("/x")})
    assert unchanged_since(point(-1, Tier.LOCAL)) is None
    assert unchanged_since(point(-1)) == point(-1).id, "for nothing has changed"
    assert not puts
