"""Alarms go all the way: to a mail server and a web server that really take them."""

from __future__ import annotations

import email
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiosmtpd.controller import Controller

from staging.ports import choose_free
from tests.system.conftest import Host

pytestmark = [pytest.mark.system]

PASSWORD = "canary-of-the-mail-server"


@dataclass
class Inbox:
    """What a receiver was sent, as title and text; `refuses` makes it take nothing."""

    address: str = ""
    got: list[tuple[str, str]] = field(default_factory=list)
    refuses: bool = False

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.got]


@pytest.fixture
def chat() -> Iterator[Inbox]:
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not inbox.refuses:
                inbox.got.append((told["title"], told["message"]))
            self.send_response(503 if inbox.refuses else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        inbox.address = f"json://127.0.0.1:{server.server_port}/hook"
        yield inbox
        server.shutdown()


@pytest.fixture
def mail() -> Iterator[Inbox]:
    inbox = Inbox()

    class Handler:
        async def handle_DATA(self, server: object, session: object, envelope) -> str:
            message = email.message_from_bytes(envelope.content, policy=policy.default)
            text = message.get_body(("plain", "html")).get_content()
            inbox.got.append((message["subject"], text))
            return "250 OK"

    controller = Controller(Handler(), hostname="127.0.0.1", port=choose_free(1)[0])
    controller.start()
    inbox.address = (
        f"mailto://127.0.0.1:{controller.port}?to=ops@example.com&from=lifeboat@example.com"
    )
    yield inbox
    controller.stop()


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
