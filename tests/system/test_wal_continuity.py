"""Holes in the log of a real vault (restic, S3), found by looking at the store alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.continuity import Foreign
from lifeboat.core.points import Asset, DatabaseFacts, DirectoryFacts, Facts, Tier, point_id
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import restic, seal
from staging.ports import choose_ports
from staging.s3 import S3Server
from tasks import catalogue, places, vault
from tasks.wal import wal_continuity
from tests.system.vault_site import HOST_YAML

pytestmark = [pytest.mark.system]

BUCKET = "lifeboat-wal"
SYSTEM = "7412345678901234567"
SIZE = 16 << 20
VAULT_YAML = """\
vault:
  local: backups
  s3: {{endpoint: "{endpoint}", bucket: {bucket}, prefix: {prefix}}}
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(
        tmp_path_factory.mktemp("s3"), choose_ports(), "test-access", "test-secret-key"
    )
    server.start()
    try:
        server.create_bucket(BUCKET)
        yield server
    finally:
        server.stop()


@pytest.fixture
def settings(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LIFEBOAT_VAULT_PASSWORD", "password")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
    yaml = tmp_path / "lifeboat.yaml"
    prefix = f"test-{secrets.token_hex(4)}"
    told = VAULT_YAML.format(endpoint=s3.endpoint, bucket=BUCKET, prefix=prefix)
    yaml.write_text(HOST_YAML + told)
    settings = load_settings(yaml)
    vault.prepare_vault(settings)
    return settings


def a_base(settings: Settings, *, hours_old: float, segment: int, timeline: int = 1) -> str:
    """A point that says it is a base copy, in both tiers."""
    base = settings.directory / "base"
    base.mkdir(exist_ok=True)
    (base / "PG_VERSION").write_text("18")
    taken_at = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=hours_old)
    facts = Facts(
        point=point_id(Asset.DATABASE, taken_at),
        asset=Asset.DATABASE,
        platform=settings.platform,
        host="x",
        taken_at=taken_at,
        database=DatabaseFacts(
            system_identifier=SYSTEM,
            timeline=timeline,
            start_lsn=f"0/{segment:X}000028",
            stop_lsn=f"0/{segment:X}000100",
            server_version="18.6",
            wal_segment_bytes=SIZE,
            started_at=taken_at,
            stopped_at=taken_at,
            tables={},
        ),
        directories={"base": DirectoryFacts(path=str(base), files=1, bytes=2)},
    )
    note = settings.directory / "lifeboat.json"
    note.write_text(facts.model_dump_json())
    vault.store_in_both_tiers(settings, facts, [note, base])
    return facts.point


def put_wal(settings: Settings, *names: str, system: str = SYSTEM, content: str = "wal") -> None:
    recipient = vault.wal_recipient(settings)
    for name in names:
        path = places.wal_directory(settings) / system / name[:8] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        key = f"{places.WAL_PREFIX}{system}/{name[:8]}/{name}{places.SEALED}"
        places.bucket(settings).put(key, seal.seal(content.encode(), recipient))


def segment_name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}00000000{number:08X}"


TIERS = (Tier.LOCAL, Tier.S3)


def test_both_logs_are_seen_whole_and_then_with_a_hole(settings: Settings) -> None:
    old, new = (
        a_base(settings, hours_old=7, segment=2),
        a_base(settings, hours_old=1, segment=5),
    )
    put_wal(settings, *(segment_name(n) for n in range(2, 8)), f"{segment_name(8)}.partial")
    for tier in TIERS:
        found = wal_continuity.look(settings, tier)
        assert [reach.base.point for reach in found.reaches] == [new, old]
        assert found.whole_from and found.whole_from.base.point == old
        assert found.newest_name == segment_name(8)
        assert found.foreign == ()

    gone = segment_name(3)
    key = f"{places.WAL_PREFIX}{SYSTEM}/00000001/{gone}{places.SEALED}"
    places.bucket(settings).delete([key])
    (places.wal_directory(settings) / SYSTEM / "00000001" / gone).unlink()
    for tier in TIERS:
        found = wal_continuity.look(settings, tier)
        assert [reach.missing for reach in found.reaches] == ["", gone]
        assert found.whole_from and found.whole_from.base.point == new


def test_a_timeline_is_followed_through_its_history(settings: Settings) -> None:
    point = a_base(settings, hours_old=1, segment=2)
    put_wal(settings, segment_name(2), segment_name(3, 2), f"{segment_name(4, 2)}.partial")
    for tier in TIERS:
        unknown = wal_continuity.look(settings, tier)
        assert unknown.foreign == (Foreign(SYSTEM, 2),)
        assert unknown.newest_name == segment_name(2)
    put_wal(settings, "00000002.history", content="1\t0/3000100\tno recovery target\n")
    for tier in TIERS:
        found = wal_continuity.look(settings, tier)
        assert found.foreign == ()
        assert (found.timeline, found.newest_name) == (2, segment_name(4, 2))
        assert found.whole_from and found.whole_from.base.point == point


def test_wal_of_another_cluster_is_told_apart(settings: Settings) -> None:
    a_base(settings, hours_old=1, segment=2)
    put_wal(settings, segment_name(2))
    put_wal(settings, segment_name(9), system="666")
    for tier in TIERS:
        found = wal_continuity.look(settings, tier)
        assert found.foreign == (Foreign("666"),)
        assert found.newest_name == segment_name(2)


def test_looking_opens_no_base_whose_tags_tell_all(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_base(settings, hours_old=2, segment=2)
    told = catalogue.base_copies(settings, Tier.S3)
    dumped = []

    def dump(self, snapshot_id: str, path: str, real=restic.Repository.dump) -> bytes:
        dumped.append(path)
        return real(self, snapshot_id, path)

    monkeypatch.setattr(restic.Repository, "dump", dump)
    wal_continuity.look(settings, Tier.S3)
    assert dumped == []

    # A copy of an earlier Lifeboat has no such tag, and is read once.
    monkeypatch.setattr(catalogue, "WAL", "not-there")
    catalogue._bases_of.clear()
    assert catalogue.base_copies(settings, Tier.S3) == told
    assert catalogue.base_copies(settings, Tier.S3) == told
    assert len(dumped) == 1


def test_without_a_base_or_any_wal_nothing_is_reached(settings: Settings) -> None:
    for tier in TIERS:
        found = wal_continuity.look(settings, tier)
        assert (found.newest_base, found.earliest, found.newest_name) == (None, None, "")
