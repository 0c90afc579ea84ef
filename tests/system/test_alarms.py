"""Alarms go all the way: to a mail server and a web server that really take them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from staging.ports import choose_free
from tests.system import receivers
from tests.system.conftest import Host
from tests.system.receivers import Inbox

pytestmark = [pytest.mark.system]

PASSWORD = "canary-of-the-mail-server"


@pytest.fixture
def chat() -> Iterator[Inbox]:
    with receivers.chat() as inbox:
        yield inbox


@pytest.fixture
def mail() -> Iterator[Inbox]:
    with receivers.mail() as inbox:
        yield inbox


def with_channels(host: Host, *inboxes: Inbox) -> None:
    channels = ", ".join(
        f'{{name: channel-{number}, url: "{inbox.address}"}}'
        for number, inbox in enumerate(inboxes)
    )
    host.write_yaml(sections=f"alarms: {{channels: [{channels}]}}\n")


def test_the_way_to_people_can_be_tried(host: Host, chat: Inbox, mail: Inbox) -> None:
    with_channels(host, chat, mail)
    done = host.run("alarms", "test")
    assert done.stdout == "channel-0: taken\nchannel-1: taken\n"
    assert chat.titles == mail.titles == ["cad-test: a test of the alarms"]


def test_a_dead_channel_is_told_and_the_other_is_served(
    host: Host, chat: Inbox, mail: Inbox
) -> None:
    dead = Inbox(f"json://ops:${{HOOK_PASSWORD}}@127.0.0.1:{choose_free(1)[0]}/hook")
    chat.refuses = True
    with_channels(host, dead, chat, mail)
    done = host.run("alarms", "test", "--json", ok=4, HOOK_PASSWORD=PASSWORD)
    first, second, third = json.loads(done.stdout)
    assert "was not taken" in first["error"]
    assert "503" in second["error"]
    assert not third["error"]
    assert mail.got
    assert PASSWORD not in done.stdout + done.stderr


def test_without_a_channel_a_test_is_refused(host: Host) -> None:
    assert "names no channel" in host.run("alarms", "test", ok=3).stderr


def test_an_address_of_no_service_is_told(host: Host) -> None:
    with_channels(host, Inbox("carrier-pigeon://loft"))
    assert "no service that Apprise knows" in host.run("alarms", "test", ok=4).stdout


def test_a_failed_backup_is_told_once_and_when_it_is_good_again(host: Host, chat: Inbox) -> None:
    with_channels(host, chat)
    models = host.root / "data/models"
    models.rename(host.root / "data/gone")
    host.run("backup", "models", ok=3)
    host.run("backup", "models", ok=3)
    [(title, text)] = chat.got
    assert title == "cad-test: not protected as it should be: run-backup-models"
    assert str(models) in text
    assert host.canary not in text
    (host.root / "data/gone").rename(models)
    host.run("backup", "models")
    assert chat.titles[1:] == ["cad-test: good again: run-backup-models"]
    host.run("backup", "models")
    assert len(chat.got) == 2


def test_what_reached_nobody_is_told_by_the_next_look(host: Host, chat: Inbox) -> None:
    with_channels(host, chat)
    chat.refuses = True
    host.run("watch", ok=4)
    assert not chat.got
    chat.refuses = False
    host.run("watch", ok=4)
    [(title, text)] = chat.got
    assert title.startswith("cad-test: not protected as it should be: ")
    assert "-> " in text, "with what to do next"
    host.run("watch", ok=4)
    assert len(chat.got) == 1, "what was told is no news"
    history = (host.root / "backups/records/alarms.jsonl").read_text().splitlines()
    first, second = map(json.loads, history)
    assert "503" in first["channels"]["channel-0"]
    assert second["channels"] == {"channel-0": "taken"}


def test_a_vault_that_is_not_there_is_told_and_not_begun_anew(host: Host, chat: Inbox) -> None:
    """The directory may be the place where a disk is not mounted."""
    with_channels(host, chat)
    vault = host.root / "backups"
    shutil.rmtree(vault)
    host.run("watch", ok=4)
    assert chat.got
    assert not vault.exists()
    refused = host.run("backup", "config", ok=3)
    assert "Is its disk mounted?" in refused.stderr
    assert not (vault / "config").exists()
    host.run("prepare")
    host.run("backup", "config")
