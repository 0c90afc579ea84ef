"""A host's own keys open its vault sooner, and nothing depends on them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lifeboat.core.errors import PermanentError, VerificationFailed
from lifeboat.core.points import Asset, Tier
from lifeboat.settings import Settings
from lifeboat.tools import restic
from lifeboat.tools.restic.keys import key_file
from tasks import clock, host_keys, places, vault
from tests.system import vault_site
from tests.system.vault_site import back_up

pytestmark = [pytest.mark.system]


@pytest.fixture(scope="module")
def made(
    quick_restic: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, Path]]:
    """A vault with one backup of the models, and a copy of its part on this host."""
    root = tmp_path_factory.mktemp("host")
    with (
        pytest.MonkeyPatch.context() as patch,
        vault_site.store(tmp_path_factory.mktemp("s3")) as s3,
    ):
        settings = vault_site.make(s3, quick_restic, root, patch)
        back_up(settings, Asset.MODELS)
        untouched = root / "untouched"
        shutil.copytree(settings.vault.local, untouched)
        yield settings, untouched


@pytest.fixture
def settings(made: tuple[Settings, Path]) -> Settings:
    """The host as it was after its first backup; the bucket keeps what earlier tests put there."""
    settings, untouched = made
    shutil.rmtree(settings.vault.local)
    shutil.copytree(untouched, settings.vault.local)
    return settings


def repository(settings: Settings, tier: Tier = Tier.LOCAL) -> restic.Repository:
    return places.repository(settings, Asset.MODELS, tier)


def as_another_host(settings: Settings, tier: Tier = Tier.LOCAL) -> restic.Repository:
    """The same for somebody who has the vault's password, and nothing of this host."""
    return replace(repository(settings, tier), host_keys=None)


def own_key(settings: Settings, tier: Tier = Tier.LOCAL) -> restic.HostKey:
    own = repository(settings, tier).own_key
    assert own is not None
    return own


def keys_directory(settings: Settings) -> Path:
    return places.repository_directory(settings, Asset.MODELS) / "keys"


def keys_in(settings: Settings, tier: Tier) -> Mapping[str, bytes]:
    return host_keys._Keys(settings, Asset.MODELS, tier).read()


def is_of_host(key: bytes) -> bool:
    return json.loads(key)["username"] == "lifeboat: this host"


def remove_keys(settings: Settings, *, of_host: bool) -> None:
    """From the local repository: those of this host, or all others."""
    for path in keys_directory(settings).iterdir():
        if is_of_host(path.read_bytes()) == of_host:
            path.unlink()


def without_host_key(settings: Settings) -> None:
    """As it was before this host had any."""
    shutil.rmtree(settings.vault.local / "host-keys")
    remove_keys(settings, of_host=True)


def let_pass(settings: Settings, seconds: float) -> None:
    path = own_key(settings).path
    os.utime(path, (0, path.stat().st_mtime - seconds))


@pytest.fixture
def tried(settings: Settings, tmp_path: Path) -> Callable[[], list[str]]:
    """List the snapshots, and tell for each run of restic what it was to open them with."""
    told, recorder = tmp_path / "told", tmp_path / "restic-that-tells"
    recorder.write_text(
        f'#!/bin/sh\necho "${{RESTIC_KEY_HINT:-the password}}" >>{told}\n'
        f'exec {settings.vault.restic_program} "$@"\n'
    )
    recorder.chmod(0o755)

    def look() -> list[str]:
        told.write_text("")
        of_password = own_key(settings).of_password or "the password"
        replace(repository(settings), program=recorder).snapshots()
        return told.read_text().replace(of_password, "the password").splitlines()

    return look


@pytest.mark.parametrize("tier", [Tier.LOCAL, Tier.S3])
def test_a_host_has_a_key_of_its_own_and_the_password_opens_all_the_same(
    settings: Settings, tier: Tier, tried: Callable[[], list[str]]
) -> None:
    own = own_key(settings, tier)
    assert own.may_be_used and own.path.stat().st_mode & 0o077 == 0
    assert len(keys_in(settings, tier)) == 2 and own.id in keys_in(settings, tier)
    assert tried() == [own_key(settings).id]
    before = len(as_another_host(settings, tier).snapshots())
    back_up(settings, Asset.MODELS)
    assert len(as_another_host(settings, tier).snapshots()) == before + 1
    assert own_key(settings, tier) == own and len(keys_in(settings, tier)) == 2
    assert not repository(settings, tier).check(read="100%").problems


def test_a_host_s_key_opens_nothing_without_the_vault_s_password(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_keys(settings, of_host=False)  # so that this host's own key is the only one
    assert len(repository(settings).snapshots()) == 1
    with pytest.raises(restic.WrongPassword):
        as_another_host(settings).snapshots()
    monkeypatch.setenv("LIFEBOAT_VAULT_PASSWORD", "another one")
    with pytest.raises(restic.WrongPassword):
        repository(settings).snapshots()
    assert own_key(settings).id, "it may be the password that is wrong, and not the key"


def test_a_password_that_no_longer_opens_the_vault_is_noticed_within_an_hour(
    settings: Settings, tried: Callable[[], list[str]]
) -> None:
    """As if there were no key beside it: this host would be the last that can open it."""
    let_pass(settings, 3601)
    assert tried() == ["the password"]
    assert tried() == [own_key(settings).id]
    remove_keys(settings, of_host=False)
    let_pass(settings, 3601)
    with pytest.raises(restic.WrongPassword):
        back_up(settings, Asset.MODELS)


def test_a_clock_that_was_ahead_does_not_put_the_password_off(
    settings: Settings, tried: Callable[[], list[str]]
) -> None:
    let_pass(settings, -86400)
    assert tried() == ["the password"]


def test_without_its_key_in_the_repository_the_password_opens_and_the_next_backup_makes_one(
    settings: Settings, tried: Callable[[], list[str]]
) -> None:
    first = own_key(settings).id
    remove_keys(settings, of_host=True)
    assert tried() == [first, "the password"]
    assert tried() == ["the password"]
    back_up(settings, Asset.MODELS)
    assert own_key(settings).id not in ("", first)
    assert tried() == [own_key(settings).id]


@pytest.mark.parametrize("tier", [Tier.LOCAL, Tier.S3])
def test_a_host_that_has_lost_its_keys_replaces_them(
    settings: Settings, tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of today stay: they may be those of another host of the same name."""
    first = own_key(settings, tier)
    before = set(keys_in(settings, tier))
    others = {name for name, key in keys_in(settings, tier).items() if not is_of_host(key)}
    shutil.rmtree(first.path.parent)
    back_up(settings, Asset.MODELS)
    own = own_key(settings, tier)
    assert own.id not in ("", first.id)
    assert set(keys_in(settings, tier)) == {*before, own.id}
    in_two_days = clock.now() + timedelta(days=2)
    monkeypatch.setattr(host_keys.clock, "now", lambda: in_two_days)
    shutil.rmtree(first.path.parent)
    host_keys.make_missing(settings, [Asset.MODELS])
    newest = own_key(settings, tier)
    assert newest.id not in ("", first.id, own.id)
    assert set(keys_in(settings, tier)) == others | {newest.id}
    assert as_another_host(settings, tier).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": "x", "bits": "00"}'])
def test_what_is_kept_and_can_t_be_read_counts_as_nothing(
    settings: Settings, content: bytes, tried: Callable[[], list[str]]
) -> None:
    own_key(settings).path.write_bytes(content)
    assert tried() == ["the password"]
    let_pass(settings, 86401)
    back_up(settings, Asset.MODELS)
    assert tried() == [own_key(settings).id]


def test_a_repository_that_is_made_anew_is_opened_by_the_password(settings: Settings) -> None:
    """And not only by the key that this host still has to the one that was there before."""
    shutil.rmtree(places.repository_directory(settings, Asset.MODELS))
    assert own_key(settings).may_be_used
    vault.prepare_vault(settings)
    assert as_another_host(settings).exists() and not own_key(settings).id
    back_up(settings, Asset.MODELS)
    assert len(as_another_host(settings).snapshots()) == 1
    assert own_key(settings).may_be_used


def test_the_password_is_never_hidden_among_too_many_keys(
    settings: Settings, caplog: pytest.LogCaptureFixture, tried: Callable[[], list[str]]
) -> None:
    """Of more than twenty restic tries none, whichever the right one is."""
    without_host_key(settings)
    for number in range(9):
        _, data = key_file(b"{}", "of another host")
        data = json.dumps(json.loads(data) | {"hostname": f"host-{number}"}).encode()
        (keys_directory(settings) / hashlib.sha256(data).hexdigest()).write_bytes(data)
    back_up(settings, Asset.MODELS)
    assert "it has 10" in caplog.text and "restic key remove" in caplog.text
    assert len(keys_in(settings, Tier.LOCAL)) == 10
    assert tried() == ["the password"]
    caplog.clear()
    back_up(settings, Asset.MODELS)
    assert "it has 10" not in caplog.text, "it is tried again in a day"


def test_a_key_of_ours_that_is_damaged_in_the_repository_hides_no_other_here(
    settings: Settings, tried: Callable[[], list[str]]
) -> None:
    own = own_key(settings)
    path = keys_directory(settings) / own.id
    path.write_bytes(path.read_bytes().replace(b'"r": 8', b'"r": 9'))
    assert tried() == [own.id, "the password"]
    # Elsewhere none is named, and restic takes them in no order: so that the damaged one is first,
    # it is alone.
    of_password = keys_directory(settings) / own.of_password
    of_password.rename(settings.vault.local / "kept")
    with pytest.raises(VerificationFailed, match="Move that file out of the repository's keys"):
        as_another_host(settings).snapshots()
    (settings.vault.local / "kept").rename(of_password)
    path.unlink()
    assert as_another_host(settings).snapshots()


def test_a_recovery_does_not_end_for_a_password_that_was_removed(settings: Settings) -> None:
    """In its middle an hour may be over. Who backs up afterwards is told."""
    remove_keys(settings, of_host=False)
    let_pass(settings, 3601)
    with restic.at_any_age():
        assert repository(settings).snapshots() and repository(settings).exists()
    with pytest.raises(restic.WrongPassword):
        repository(settings).snapshots()


def test_the_password_s_own_key_is_never_taken_for_one_of_this_host(settings: Settings) -> None:
    """Whatever the name of the user by whom restic made it."""
    long_ago = {"created": "2020-01-01T00:00:00+00:00", "hostname": socket.gethostname()}
    for name in ("lifeboat", "root"):
        key = json.dumps(long_ago | {"username": name}).encode()
        assert not restic.is_left_by_this_host(key, clock.now())
    ours = json.loads(key_file(b"{}", "x")[1]) | long_ago
    assert restic.is_left_by_this_host(json.dumps(ours).encode(), clock.now())


def test_a_key_that_does_not_open_is_taken_away_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_host_key(settings)

    def refuse(self: object, own: restic.HostKey) -> None:
        raise restic.WrongPassword("it does not open")

    monkeypatch.setattr(restic.Repository, "require_opened_by", refuse)
    before = set(keys_in(settings, Tier.LOCAL)), set(keys_in(settings, Tier.S3))
    back_up(settings, Asset.MODELS)
    assert (set(keys_in(settings, Tier.LOCAL)), set(keys_in(settings, Tier.S3))) == before
    assert not own_key(settings).id


def test_a_key_that_was_put_there_and_forgotten_by_a_crash_is_taken_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_host_key(settings)

    class Killed(BaseException):
        pass

    def die(self: object, own: restic.HostKey) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(restic.Repository, "require_opened_by", die)
        patch.setattr(host_keys._Keys, "remove", lambda self, names: None)  # it is dead
        with pytest.raises(Killed):
            host_keys.make_missing(settings, [Asset.MODELS])
    [dead] = own_key(settings).made
    assert dead in keys_in(settings, Tier.LOCAL)
    let_pass(settings, 86401)
    back_up(settings, Asset.MODELS)
    assert set(keys_in(settings, Tier.LOCAL)) == {
        own_key(settings).of_password,
        own_key(settings).id,
    }


def test_no_backup_fails_for_a_key_of_this_host(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("this library knows no such thing")

    monkeypatch.setattr(hashlib, "scrypt", fail)
    without_host_key(settings)
    assert back_up(settings, Asset.MODELS)
    assert "this library knows no such thing" in caplog.text


def test_no_backup_fails_for_a_lock_that_can_t_be_had(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_host_key(settings)
    (settings.vault.local / "host-keys.lock").unlink(missing_ok=True)
    (settings.vault.local / "host-keys.lock").mkdir()
    assert back_up(settings, Asset.MODELS)
    assert "can't be given keys of its own" in caplog.text


def test_any_password_that_restic_takes_is_good(
    quick_restic: Path, made: tuple[Settings, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment may hold bytes that are no text."""
    store = replace(
        repository(made[0]), location=str(tmp_path / "repository"), password="pass\udcffword"
    )
    store.initialise()
    assert store.own_key
    new, data = store.new_host_key(store.own_key)
    (tmp_path / "repository" / "keys" / new.id).write_bytes(data)
    store.require_opened_by(new)


def test_where_no_key_may_be_written_backups_go_on_without_one(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(self: object, name: str, data: bytes) -> None:
        raise PermanentError("Writing a key: the policy does not allow it.")

    monkeypatch.setattr(host_keys._Keys, "write", refuse)
    without_host_key(settings)
    point = back_up(settings, Asset.MODELS)
    assert caplog.text.count("the policy does not allow it") == 2
    for tier in places.RESTIC_TIERS:
        newest = repository(settings, tier).snapshots()[-1]
        assert newest.tags["point"] == point
    back_up(settings, Asset.MODELS)
    assert caplog.text.count("the policy does not allow it") == 2


def test_nothing_is_made_where_it_is_not_wanted(settings: Settings) -> None:
    without_host_key(settings)
    unwanted = settings.model_copy(
        update={"vault": settings.vault.model_copy(update={"host_keys": False})}
    )
    back_up(unwanted, Asset.MODELS)
    assert not (settings.vault.local / "host-keys").exists()
    assert len(keys_in(settings, Tier.LOCAL)) == 1
