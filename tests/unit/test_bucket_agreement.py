"""The bucket's recovery while a person reads its plan: nobody is held up, and the host goes on."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

import flows.recover_bucket
from lifeboat.core.errors import NoLongerNeeded, PlanChanged
from lifeboat.core.forms import RecoverBucket
from lifeboat.core.points import Asset
from lifeboat.core.protection import Wanted
from lifeboat.core.versions import Version, histories
from lifeboat.tools.s3 import Bucket
from tasks import agreement, approval, bucket_agreement, bucket_recovery, locks
from tasks.bucket_recovery import Place
from tasks.record import recorded

ATTACK = datetime(2026, 11, 25, 3, 10, 7, tzinfo=timezone.utc)
HEX = "0123456789abcdef" * 4
CONFIG, PACK = "file-backups/config", f"file-backups/data/01/{HEX}"
SEGMENT = "database/wal/7576/00000001/000000010000000000000007.zst.age"
MARK = "records/sightings/files.json"
WANTED = Wanted(undo_days=30, lock_days=30, lock_mode="governance")
REQUEST = RecoverBucket(approval="ask")


class Store:
    """The versions that a bucket lists: (seconds after the attack, content or "" if deleted)."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple[float, str]]] = {
            key: [(-90, "good"), (0, "garbage")] for key in (CONFIG, PACK, MARK)
        }

    def read(self, _: Place):
        return histories(
            Version(
                key=key,
                id=f"{key}#{number}",
                at=ATTACK + timedelta(seconds=seconds),
                current=number == len(told) - 1,
                bytes=len(content),
                etag=content,
                marker=not content,
            )
            for key, told in self.told.items()
            for number, (seconds, content) in reversed(list(enumerate(told)))
        )

    def beginning_of(self, _: Bucket, key: str) -> bytes:
        return self.told[key][-1][1].encode()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(bucket_recovery, "read_versions", store.read)
    monkeypatch.setattr(bucket_recovery.s3, "beginning_of", store.beginning_of)
    monkeypatch.setattr(bucket_recovery.s3, "dangerous_rules", lambda *_: [])
    return store


@pytest.fixture
def agree(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Agree to the plan while the lock is held; `meanwhile` happens until a person says yes."""
    settings = SimpleNamespace(vault=SimpleNamespace(local=tmp_path))

    def run(meanwhile=lambda settings: None, *, settings=settings) -> bucket_agreement.Found:
        def approve(*_, waiting) -> None:
            with waiting():
                meanwhile(settings)

        monkeypatch.setattr(approval, "approve", approve)
        monkeypatch.setattr(agreement, "STILL_TRUE_SECONDS", 0.0)
        bucket = Bucket(
            endpoint=None, name="vault", region="x", access_key="a", secret_key="b", prefix=""
        )
        place = Place(bucket=bucket, name="cad", wanted=WANTED)
        look = functools.partial(bucket_agreement.look, place, REQUEST)
        found = look()
        with _held(settings), recorded("recover-bucket", platform="cad", directory=None):
            again = functools.partial(look, agreed=found)
            return agreement.agree(found, REQUEST, settings, again=again)

    return run


@contextmanager
def _held(settings):
    if settings is None:
        yield
        return
    with locks.recovery_lock(settings, run="recover-bucket"):
        yield


def keys(found: bucket_agreement.Found) -> list[str]:
    return [version.key for version in found.choice.bring_back]


def test_backups_go_on_while_its_plan_waits(agree) -> None:
    def back_up(settings) -> None:
        with locks.backup_lock(settings, Asset.FILES, run="backup-files"):
            pass

    assert keys(agree(back_up)) == [CONFIG, PACK, MARK]


def test_the_flow_has_its_plan_agreed_to_as_every_other_recovery() -> None:
    text = inspect.getsource(flows.recover_bucket)
    assert "agreement.agree(" in text and "approval.approve(" not in text


def test_what_the_host_has_put_right_meanwhile_is_left_alone_and_is_no_other_plan(
    agree, store
) -> None:
    def back_up(_) -> None:
        store.told[MARK].append((600, '{"a": "sighting"}'))
        store.told["file-backups/data/02/" + HEX] = [(600, "a new pack")]

    assert keys(agree(back_up)) == [CONFIG, PACK]


def test_what_is_destroyed_meanwhile_needs_another_approval(agree, store) -> None:
    def attack_again(_) -> None:
        store.told[SEGMENT] = [(-90, "good"), (600, "")]

    with pytest.raises(PlanChanged, match=r"1 objects are deleted, 3 overwritten"):
        agree(attack_again)


def test_what_somebody_has_brought_back_meanwhile_is_not_brought_back_again(agree, store) -> None:
    def bring_back(_) -> None:
        for key in (CONFIG, PACK, MARK):
            store.told[key].append((600, "good"))

    with pytest.raises(NoLongerNeeded, match="are there and as they were"):
        agree(bring_back)


def test_a_server_that_was_rebuilt_meanwhile_has_not_brought_the_bucket_back(agree) -> None:
    def rebuild(settings) -> None:
        runs = settings.vault.local / "records/runs"
        with recorded("recover-server", platform="cad", directory=runs):
            pass

    assert keys(agree(rebuild)) == [CONFIG, PACK, MARK]


def test_without_settings_it_is_looked_at_again_too(agree, store) -> None:
    def put_right(_) -> None:
        store.told[MARK].append((600, '{"a": "sighting"}'))

    assert keys(agree(put_right, settings=None)) == [CONFIG, PACK]
