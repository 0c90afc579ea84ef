"""A recovery proves the copy that it restored: from a host's own nothing follows for S3."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from lifeboat.core.errors import PermanentError, TransientError
from lifeboat.core.marks import Kind, Verified
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.settings import Settings, load_settings
from tasks import catalogue, clock, marks, recovery
from tasks.record import recorded
from tests.unit.smallest_settings import SMALLEST

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
POINT = "files-20260131T110000Z"


class Bucket:
    """A bucket of marks, which may be away."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.away = False

    def _answers(self) -> None:
        if self.away:
            raise TransientError("no route")

    def put(self, key: str, data: bytes) -> None:
        self._answers()
        self.objects[key] = (data, datetime.now(timezone.utc))

    def get(self, key: str) -> bytes:
        self._answers()
        if key not in self.objects:
            raise PermanentError("there is no such object")
        return self.objects[key][0]

    def list(self, prefix: str) -> list[SimpleNamespace]:
        self._answers()
        return [
            SimpleNamespace(key=key, modified_at=at)
            for key, (_, at) in self.objects.items()
            if key.startswith(prefix)
        ]

    def delete(self, keys: list[str]) -> None:
        self._answers()
        for key in keys:
            self.objects.pop(key, None)

    def restic_location(self, name: str) -> str:
        return f"s3:{id(self)}/{name}"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = Bucket()
    monkeypatch.setattr(marks, "bucket", lambda settings: bucket)
    return bucket


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
    return load_settings(tmp_path / "lifeboat.yaml")


def listed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> RecoveryPoint:
    def points_in(settings, asset, tier) -> list[RecoveryPoint]:
        at = NOON - timedelta(hours=1)
        return [RecoveryPoint(asset=asset, id=POINT, taken_at=at, copies={tier: "x"}, bytes=1)]

    monkeypatch.setattr(catalogue, "_points_in", points_in)
    with clock.set_to(NOON):
        [point] = catalogue.list_points(settings, assets=(Asset.FILES,))
    return point


def recover(settings: Settings, tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    good = SimpleNamespace(good=True)
    monkeypatch.setattr(recovery, "verify", lambda settings, expected: good)
    with clock.set_to(NOON), recorded("recover-files", platform="cad", directory=None) as run:
        run.uses_points("files-that-were-only-looked-at")
        run.uses_points(POINT, restored_from=tier)
        recovery.prove_recovered(settings, {})


@pytest.mark.parametrize("tier", list(Tier))
def test_only_what_came_out_of_s3_is_proven_there(settings, bucket, monkeypatch, tier) -> None:
    recover(settings, tier, monkeypatch)
    point = listed(settings, monkeypatch)
    assert point.verified_at == NOON
    assert point.verified_in(Tier.LOCAL) == NOON
    assert point.verified_in(Tier.S3) == (NOON if tier is Tier.S3 else None)
    assert list(bucket.objects) == [marks.key_of(Kind.VERIFIED, POINT)]


@pytest.mark.parametrize("lost", ["nothing", "the host", "the bucket"])
def test_what_s3_proved_stays_proven_whatever_is_recovered_later(
    settings, bucket, monkeypatch, lost
) -> None:
    with clock.set_to(NOON - timedelta(hours=9)):
        marks.mark_verified(settings, [POINT], by="t", tier=Tier.S3, restore_seconds=2.0)
    if lost == "the host":
        marks.path_of(settings, Kind.VERIFIED, POINT).unlink()
        bucket.away = True  # the mark is only there, and can't be seen now
        recover(settings, Tier.LOCAL, monkeypatch)
        bucket.away = False
    if lost == "the bucket":
        bucket.objects.clear()
    recover(settings, Tier.LOCAL, monkeypatch)
    assert listed(settings, monkeypatch).verified_in(Tier.S3) == NOON - timedelta(hours=9)
    marks.remove(settings, Kind.VERIFIED, POINT)  # as a restore test that fails does
    recover(settings, Tier.LOCAL, monkeypatch)
    assert listed(settings, monkeypatch).verified_in(Tier.S3) is None


@pytest.mark.parametrize(
    ("more", "from_s3"),
    [
        ({}, False),
        ({"restore_seconds": 2.0}, True),
        ({"tier": "s3"}, True),
        ({"tier": "hot"}, False),
    ],
)
def test_a_mark_from_before_the_tier_was_noted_is_read(more, from_s3) -> None:
    text = json.dumps({"point": POINT, "verified_at": NOON.isoformat(), "by": "x", **more})
    assert Verified.model_validate_json(text).from_s3 == from_s3
