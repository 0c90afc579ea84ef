"""Kinds of damage to the vault, and who finds each of them, by name.

One real vault is made of the staging platform. Each case takes a copy of it, in a directory and
under a prefix of its own, harms it, and asks the command that is to find it. What only a look at
the objectives can find is in the table too, so that none is forgotten.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
import pytest

from lifeboat.core.marks import Kind
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import seal
from staging.site import Site
from tasks import catalogue, marks, places
from tests.system import settings_file

pytestmark = [pytest.mark.system]

PROVEN = ("config", "files", "models", "database")


@pytest.fixture(scope="module")
def whole(staging_site: Site, lifeboat) -> Iterator[Site]:
    """A platform with a whole vault, its services stopped: proving it needs none of them."""
    site = staging_site
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.environment().items():
            patch.setenv(name, value)
        site.stack.start(["wal-receiver"])
        for asset in ("config", "files", "models", "database"):
            done = lifeboat(site.settings_path, "backup", asset)
            assert done.returncode == 0, done.stderr
        # Three segments of WAL that no base copy carries with it.
        with psycopg.connect(site.dsn("postgres"), autocommit=True) as connection:
            for number in range(3):
                connection.execute("CREATE TABLE IF NOT EXISTS written (n int)")
                connection.execute("INSERT INTO written VALUES (%s)", [number])
                connection.execute("SELECT pg_switch_wal()")
            connection.execute("INSERT INTO written VALUES (99)")
        assert lifeboat(site.settings_path, "wal", "ship").returncode == 0
        site.stack.down()
        yield site


@dataclass
class Vault:
    """A copy of the whole vault, to be harmed."""

    site: Site
    config: Path
    settings: Settings
    lifeboat: Callable[..., subprocess.CompletedProcess[str]]

    def object(self, key: str) -> Object:
        return Object(self, key)

    def packs(self, asset: Asset) -> list[Object]:
        """Of the repository in S3, the largest first."""
        root = places.repository(self.settings, asset, Tier.S3).location.rpartition("/")[2]
        prefix = "database/repository" if asset is Asset.DATABASE else root
        found = places.bucket(self.settings).list(f"{prefix}/data/")
        return [Object(self, item.key) for item in sorted(found, key=lambda o: -o.bytes)]

    def indexes(self, prefix: str) -> list[Object]:
        return [Object(self, o.key) for o in places.bucket(self.settings).list(f"{prefix}/index/")]

    def segments(self) -> list[Object]:
        """The closed WAL segments in the bucket, oldest first."""
        found = places.bucket(self.settings).list("database/wal/")
        return [Object(self, o.key) for o in found if re.search(r"/[0-9A-F]{24}\.zst\.age$", o.key)]

    def put_wal(self, system_identifier: str, name: str, data: bytes) -> None:
        recipient = (places.wal_directory(self.settings) / "recipient.txt").read_text().strip()
        key = f"database/wal/{system_identifier}/{name[:8]}/{name}.zst.age"
        places.bucket(self.settings).put(key, seal.seal(data, recipient))

    def results(self) -> dict[str, bool]:
        """How the newest test of each asset ended, as the bucket alone tells it."""
        shutil.rmtree(places.records_directory(self.settings) / Kind.TESTS, ignore_errors=True)
        return {n: m.passed for n, m in marks.read_all(self.settings, Kind.TESTS).items()}

    def verified(self) -> set[str]:
        return {m.point for m in marks.read_all(self.settings, Kind.VERIFIED).values()}

    def newest(self, asset: Asset) -> str:
        return catalogue.list_points(self.settings, assets=(asset,), tiers=(Tier.S3,))[0].id


@dataclass
class Object:
    """Something in the bucket."""

    vault: Vault
    key: str

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2].removesuffix(".zst.age")

    def read(self) -> bytes:
        return places.bucket(self.vault.settings).get(self.key)

    def write(self, data: bytes) -> None:
        places.bucket(self.vault.settings).put(self.key, data)

    def flip(self, at: int = 1234) -> None:
        data = bytearray(self.read())
        data[at] ^= 1
        self.write(bytes(data))

    def cut(self) -> None:
        data = self.read()
        self.write(data[: len(data) // 2])

    def remove(self) -> None:
        places.bucket(self.vault.settings).delete([self.key])


@pytest.fixture
def vault(whole: Site, lifeboat) -> Iterator[Vault]:
    """A copy of its own for each case, of which every byte is read by one test."""
    name = f"case-{secrets.token_hex(4)}x"
    settings = load_settings(whole.settings_path)
    original = places.bucket(settings)
    config = whole.server / f"{name}.yaml"
    own = {"vault.local": f"vaults/{name}", "vault.s3.prefix": name, "keep.read_all_days": 1}
    settings_file.change(whole.settings_path, own, to=config)
    copy = load_settings(config)
    keys = [o.key for o in original.list() if not o.key.startswith("case-")]
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda key: places.bucket(copy).put(key, original.get(key)), keys))
    shutil.copytree(settings.vault.local, copy.vault.local, symlinks=True)
    shutil.rmtree(copy.vault.local / "cache", ignore_errors=True)
    yield Vault(whole, config, copy, partial(lifeboat, config))
    config.unlink()
    shutil.rmtree(copy.vault.local, ignore_errors=True)
    places.bucket(copy).delete([o.key for o in places.bucket(copy).list()])


# --- the damages ----------------------------------------------------------------------------


def flipped_bit(vault: Vault) -> str:
    pack = vault.packs(Asset.FILES)[0]
    pack.flip()
    return rf"damaged packs: {pack.name};.*--from local.*/file-backups repair packs {pack.name}`"


def missing_pack(vault: Vault) -> str:
    pack = vault.packs(Asset.MODELS)[0]
    pack.remove()
    return rf"missing packs: {pack.name};.*--from local.*/model-backups repair index`"


def missing_index(vault: Vault) -> str:
    for index in vault.indexes("file-backups"):
        index.remove()
    return r"its index lacks what the points refer to.*/file-backups repair index`"


def truncated_segment(vault: Vault) -> str:
    segment = vault.segments()[-2]
    segment.cut()
    return rf"{segment.name}.*cut short"


def missing_segment(vault: Vault) -> str:
    segment = vault.segments()[-2]
    segment.remove()
    return rf"segment {segment.name} is missing.*lifeboat backup database"


def damaged_segment(vault: Vault) -> str:
    """Sealed as it should be, but its content was damaged before."""
    segment = vault.segments()[-2]
    system_identifier = segment.key.split("/")[2]
    vault.put_wal(system_identifier, segment.name, b"\0" * (16 << 20))
    return rf"ended at \S+, in segment {segment.name}"


def foreign_timeline(vault: Vault) -> str:
    """Of a copy of the database that went its own way before our base copy was made."""
    system_identifier = vault.segments()[0].key.split("/")[2]
    vault.put_wal(system_identifier, "00000007.history", b"1\t0/1000028\tno recovery target\n")
    vault.put_wal(system_identifier, "000000070000000000000001", b"\1" * (16 << 20))
    return r"timelines: 7 appeared at .* is not part of its history"


def wrong_password(vault: Vault) -> str:
    return "Set LIFEBOAT_VAULT_PASSWORD to the password with which this vault was made"


def emptied_config(vault: Vault) -> str:
    path = vault.site.server / "config/nginx/nginx.prod.conf"
    whole = path.read_bytes()
    path.write_bytes(b"")
    try:
        done = vault.lifeboat("backup", "config")
    finally:
        path.write_bytes(whole)
    assert done.returncode == 0, done.stderr
    return r"nginx/nginx\.prod\.conf is empty"


@dataclass(frozen=True)
class Damage:
    """One kind: how it is done (giving what must be said), where, and who finds it."""

    act: Callable[[Vault], str] | None
    asset: Asset
    detected_by: str = "test-restore"
    exit_code: int = 4
    still_verified: bool = False  # the point that was the newest before
    environment: dict[str, str] = field(default_factory=dict)


DAMAGES = {
    "flipped bit in a pack": Damage(flipped_bit, Asset.FILES),
    "missing pack": Damage(missing_pack, Asset.MODELS),
    "missing index": Damage(missing_index, Asset.FILES),
    "truncated WAL object": Damage(truncated_segment, Asset.DATABASE),
    "damaged WAL segment": Damage(damaged_segment, Asset.DATABASE),
    "missing segment": Damage(missing_segment, Asset.DATABASE),
    "foreign timeline": Damage(foreign_timeline, Asset.DATABASE),
    "wrong password": Damage(
        wrong_password,
        Asset.CONFIG,
        exit_code=3,
        still_verified=True,
        environment={"LIFEBOAT_VAULT_PASSWORD": "not-the-one"},
    ),
    "emptied config file": Damage(emptied_config, Asset.CONFIG, still_verified=True),
    "deleted hot copy file": Damage(None, Asset.DATABASE, detected_by="watch-objectives"),
    "S3 returning stale listings": Damage(None, Asset.DATABASE, detected_by="watch-objectives"),
}
FOUND_HERE = [name for name, kind in DAMAGES.items() if kind.detected_by == "test-restore"]


def test_every_kind_of_damage_has_someone_who_finds_it() -> None:
    assert {d.detected_by for d in DAMAGES.values()} == {"test-restore", "watch-objectives"}
    assert len(FOUND_HERE) >= 8


@pytest.mark.parametrize("name", FOUND_HERE)
def test_a_restore_test_names_what_is_damaged(vault: Vault, name: str) -> None:
    damage = DAMAGES[name]
    assert damage.act
    older, newest = f"{damage.asset}-20200101T000000Z", vault.newest(damage.asset)
    marks.mark_verified(vault.settings, [older, newest], by="a test of better days", tier=Tier.S3)
    said = damage.act(vault)
    done = vault.lifeboat("test-restore", "--asset", damage.asset, **damage.environment)
    assert re.search(said, done.stderr, re.DOTALL), done.stderr
    assert done.returncode == damage.exit_code, done.stderr
    assert vault.results() == {str(damage.asset): False}
    assert list((vault.settings.vault.local / "restore-tests").iterdir()) == []
    # What was proven bad is not verified any longer; a test that could not look proves nothing.
    assert vault.verified() == {older} | ({newest} if damage.still_verified else set())


def test_a_whole_vault_is_proven_and_what_is_not_ours_does_not_confuse_it(vault: Vault) -> None:
    """Segments without a history, and of another database, are no damage."""
    system_identifier = vault.segments()[0].key.split("/")[2]
    vault.put_wal(system_identifier, "000000050000000000000009", b"\1" * (16 << 20))
    vault.put_wal("7000000000000000001", "00000009.history", b"1\t0/1000028\tx\n")
    vault.put_wal("7000000000000000001", "000000090000000000000001", b"\1" * (16 << 20))
    done = vault.lifeboat("test-restore", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert vault.results() == dict.fromkeys(PROVEN, True)
    assert {point.rpartition("-")[0] for point in vault.verified()} == set(PROVEN)
    facts = told["facts"]
    assert facts["wal_replayed_segments"] >= 4
    assert facts["files_s3_read"] == facts["database_local_read"] == "1/1"
    [mark] = [
        m
        for m in marks.read_all(vault.settings, Kind.VERIFIED).values()
        if m.point.startswith("database-")
    ]
    assert mark.restored_bytes == facts["database_bytes"]
    assert mark.wal_replayed_bytes > 32 << 20
    assert mark.restore_seconds > 0 and mark.wal_replay_seconds > 0


def do_as_it_says(vault: Vault, said: str, work: Path) -> None:
    """Run the commands of restic that a message names."""
    commands = re.findall(r"`restic (-r \S+ repair [^`]*)`", said)
    assert commands
    for command in commands:
        subprocess.run(
            [vault.settings.restic_program(), *command.split()],
            env={
                **os.environ,
                "RESTIC_PASSWORD": os.environ["LIFEBOAT_VAULT_PASSWORD"],
                "RESTIC_CACHE_DIR": str(work / "cache"),
            },
            cwd=work,
            check=True,
            capture_output=True,
        )


@pytest.mark.parametrize("name", ["flipped bit in a pack", "missing index"])
def test_what_the_message_says_to_do_mends_the_repository(
    vault: Vault, tmp_path: Path, name: str
) -> None:
    damage = DAMAGES[name]
    assert damage.act
    damage.act(vault)
    failed = vault.lifeboat("test-restore", "--asset", damage.asset)
    do_as_it_says(vault, failed.stderr, tmp_path)
    assert vault.lifeboat("backup", damage.asset).returncode == 0
    *_, older = catalogue.list_points(vault.settings, assets=(damage.asset,), tiers=(Tier.S3,))
    for point in ("", older.id):
        done = vault.lifeboat("test-restore", "--asset", damage.asset, "--point", point)
        assert done.returncode == 0, done.stderr


def test_what_is_lost_for_good_is_told_and_let_go(vault: Vault, tmp_path: Path) -> None:
    """With its pack an older point has lost its facts, which are nowhere else in S3."""
    missing_pack(vault)
    for words in (r"packs: \w+; points that lack", r"not found in index.*Some points have lost"):
        failed = vault.lifeboat("test-restore", "--asset", "models")
        assert failed.returncode == 4
        assert re.search(words, failed.stderr, re.DOTALL), failed.stderr
        do_as_it_says(vault, failed.stderr, tmp_path)
        assert vault.lifeboat("backup", "models").returncode == 0
    done = vault.lifeboat("test-restore", "--asset", "models")
    assert done.returncode == 0, done.stderr
