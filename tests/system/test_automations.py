"""What Prefect's server tells people by itself, through to a mail server and a web server.

On a real server with a real worker; only the time until it tells is shorter than declared.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from lifeboat.settings import load_settings
from staging.orchestrator import Orchestrator
from tasks import clock, events
from tasks.prefect_server import automations, deployment
from tests.system import prefect_ui, receivers, settings_file
from tests.system.conftest import Host, copy_host
from tests.system.receivers import Inbox

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PLATFORM = "cad-test"
POOL = "lifeboat-backups"
PASSWORD = "canary-of-the-web-server"
SOON = 15


@dataclass
class Stage:
    host: Host
    ui: prefect_ui.Ui
    chat: Inbox
    mail: Inbox
    declared: Path

    def apply(self) -> deployment.Applied:
        settings = load_settings(self.host.root / "lifeboat.yaml")
        return deployment.apply(settings, automations_file=self.declared)

    def automations(self) -> dict[str, dict]:
        found = self.ui.post("/automations/filter", limit=200)
        return {a["name"]: a for a in found if PLATFORM in a["tags"]}

    def told(self, wanted: str) -> list[str]:
        return [f"{title}\n{text}" for title, text in self.chat.got if wanted in title]

    def until_told(self, wanted: str, *, about: str = "") -> str:
        for inbox in (self.chat, self.mail):
            until(lambda box=inbox: [t for t in box.titles if wanted in t], wanted, self.chat)

        def fitting() -> list[str]:
            return [told for told in self.told(wanted) if about in told]

        until(fitting, f"{wanted} about {about}", self.chat)
        return fitting()[0]


def environment_of(stage: Stage) -> dict[str, str]:
    lines = (stage.ui.server.directory / "environment.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def database_of(stage: Stage) -> str:
    """Where Prefect's own database is."""
    return environment_of(stage)["PREFECT_API_DATABASE_CONNECTION_URL"].replace("+asyncpg", "")


def until(condition: Callable[[], object], what: str, seen: object) -> None:
    deadline = time.monotonic() + prefect_ui.PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came: {seen}"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def stage(
    _first_host: Host, prefect_server: Orchestrator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("told")
    to = prefect_server.environment()
    access = {
        PREFECT_API_URL: to["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: to["PREFECT_API_AUTH_STRING"],
    }
    with contextlib.ExitStack() as held:
        patch = held.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("HOOK_PASSWORD", PASSWORD)
        host = copy_host(_first_host, directory, patch)
        chat = held.enter_context(receivers.chat("ops:${HOOK_PASSWORD}@"))
        mail = held.enter_context(receivers.mail())
        channels = [{"name": n, "url": i.address} for n, i in (("Chat", chat), ("mail", mail))]
        own = {"alarms.channels": channels, "alarms.again_hours": 30 / 3600}
        settings_file.change(host.root / "lifeboat.yaml", own)
        declared = directory / "automations.yaml"
        text = automations.DECLARATION.read_text()
        for seconds in (600, 300):
            assert f"within_seconds: {seconds}" in text
            text = text.replace(f"within_seconds: {seconds}", f"within_seconds: {SOON}")
        assert "at_least_seconds: 900" in text
        declared.write_text(text.replace("at_least_seconds: 900", f"within_seconds: {SOON}"))
        held.enter_context(temporary_settings(access))
        made = Stage(host, prefect_ui.Ui(prefect_server), chat, mail, declared)
        yield made
        settings_file.change(host.root / "lifeboat.yaml", {"alarms.channels": []})
        made.apply()


def test_what_is_declared_is_there_once_and_no_secret_is_in_clear(stage: Stage) -> None:
    first = stage.apply()
    there = stage.automations()
    assert {f"{PLATFORM}.run-crashed", f"{PLATFORM}.worker-away"} < there.keys()
    assert {f"{PLATFORM}.silent-ship-wal", f"{PLATFORM}.silent-ship-wal-still"} < there.keys()
    assert set(first.automations.changed) == there.keys()
    again = stage.apply()
    assert again.automations.changed == again.automations.removed == ()
    ids = {name: (a["id"], a["updated"]) for name, a in there.items()}
    assert ids == {n: (a["id"], a["updated"]) for n, a in stage.automations().items()}, (
        "to write one again would make the server forget how long something was silent"
    )
    blocks = stage.ui.post("/block_documents/filter", limit=200)
    kept = json.dumps([there, blocks])
    assert {"cad-test-channel-chat", "cad-test-channel-mail"} <= {b["name"] for b in blocks}
    assert PASSWORD not in kept
    assert environment_of(stage)["PREFECT_SERVER_ENCRYPTION_KEY"]
    with psycopg.connect(database_of(stage)) as connection:
        rows = connection.execute("SELECT data::text FROM block_document").fetchall()
    assert rows and PASSWORD not in str(rows)

    less = stage.declared.read_text().replace("backup-models, ", "")
    with_less = stage.declared.with_name("less.yaml")
    with_less.write_text(less)
    settings = load_settings(stage.host.root / "lifeboat.yaml")
    taken_back = deployment.apply(settings, automations_file=with_less)
    gone = f"{PLATFORM}.silent-backup-models"
    assert set(taken_back.automations.removed) == {gone, f"{gone}-still"}


def test_crashed_stuck_missing_and_a_dead_worker_are_told(stage: Stage, tmp_path: Path) -> None:
    """All at once, for each takes its time: they do not wait for each other."""
    stage.apply()
    ui, host = stage.ui, stage.host
    forms = ui.deployments(PLATFORM)

    hanging = host.root / "hanging-restic"
    hanging.write_text(f"#!/bin/sh\ntouch {host.root}/hangs\nexec sleep 600\n")
    hanging.chmod(0o755)
    slow = host.root / "slow.yaml"
    settings_file.change(
        host.root / "lifeboat.yaml", {"vault.restic_program": str(hanging)}, to=slow
    )
    failing = host.root / "failing-restic"
    failing.write_text("#!/bin/sh\necho 'Fatal: no space left on device' >&2\nexit 1\n")
    failing.chmod(0o755)
    broken = host.root / "broken.yaml"
    settings_file.change(
        host.root / "lifeboat.yaml", {"vault.restic_program": str(failing)}, to=broken
    )
    with prefect_ui.worker(ui.server, POOL, PLATFORM, tmp_path) as worker:
        # What a run can tell, it tells: that it failed, and that the next one is good again.
        bad = ui.start(forms[f"{PLATFORM}.backup-config"], config=str(broken))
        ui.until_it_ends_as(bad, "Failed")
        told = stage.until_told("not protected as it should be: run-backup-config")
        assert "no space left on device" in told
        good = ui.start(forms[f"{PLATFORM}.backup-config"])
        ui.until_it_ends_as(good, "Completed")
        stage.until_told("good again: run-backup-config")
        # Red objectives and a drill that is too old: the watch tells both.
        ui.until_it_ends_as(ui.start(forms[f"{PLATFORM}.watch-objectives"]), "NotGood")
        told = stage.until_told("not protected as it should be", about=" drill-age: ")
        assert "FAIL" in told
        dying = ui.start(forms[f"{PLATFORM}.backup-files"], config=str(slow))
        until((host.root / "hangs").exists, "a backup that hangs", ui.log(dying))
        # The worker tells it a moment after it has started it.
        until(lambda: ui.run(dying)["infrastructure_pid"], "its process", ui.log(dying))
        pid = int(ui.run(dying)["infrastructure_pid"].split(":")[-1])
        os.kill(pid, signal.SIGKILL)
        ui.until_it_ends_as(dying, "Crashed")
        told = stage.until_told("backup-files crashed", about=ui.run(dying)["name"])
        assert "SIGKILL" in told
        assert f"{ui.server.url}/runs/flow-run/{dying}" in told or dying in told
        worker.kill()
    stuck = ui.post(
        f"/deployments/{forms[f'{PLATFORM}.backup-models']['id']}/create_flow_run",
        parameters={},
        state={"type": "PENDING"},
    )["id"]

    told = stage.until_told("a run does not begin", about=stuck)
    assert "backup-models was given to a worker" in told
    told = stage.until_told(f"no backup-config for {SOON} s")
    assert "lifeboat watch" in told
    told = stage.until_told("no worker takes the runs")
    assert "recover from a shell" in told
    assert "no backup-platform for 30 s" in stage.until_told("no backup-platform"), "it never ran"
    stage.until_told("nobody watches any more")
    # Not so of the worker: under load it may have been away for a moment at its start too.
    crashes = [t for t in stage.told("crashed") if ui.run(dying)["name"] in t]
    assert len(crashes) == 1, crashes
    assert PASSWORD not in str(stage.mail.got)


def test_what_was_missed_while_the_server_was_away_is_told_when_it_is_back(stage: Stage) -> None:
    stage.apply()
    server, finished = stage.ui.server, f"lifeboat.{PLATFORM}.backup-files"
    waiting = "SELECT count(*) FROM automation_bucket WHERE last_event::text LIKE %s"
    with psycopg.connect(database_of(stage), autocommit=True) as connection:
        stage.ui.post_list(
            "/events",
            {
                "event": events.FINISHED,
                "occurred": clock.now().isoformat(),
                "resource": {"prefect.resource.id": finished},
                "id": str(uuid4()),
            },
        )
        until(
            lambda: connection.execute(waiting, [f"%{finished}%"]).fetchone()[0],
            "a silence to measure",
            stage.chat,
        )
        server.stack.stop(["server"])
        stage.chat.got.clear()
        stage.mail.got.clear()
        # As after an hour: that long the silences have been over when the server is back.
        connection.execute(
            """UPDATE automation_bucket SET start = start - interval '1 hour', "end" = "end" """
            "- interval '1 hour'"
        )
    server.start_server()
    told = stage.until_told(f"no backup-files for {SOON} s")
    assert "lifeboat watch" in told


def test_without_a_channel_there_is_none(stage: Stage) -> None:
    stage.apply()
    settings_file.change(stage.host.root / "lifeboat.yaml", {"alarms.channels": []})
    gone = stage.apply()
    assert len(gone.automations.removed) > 10
    assert stage.automations() == {}
    names = {b["name"] for b in stage.ui.post("/block_documents/filter", limit=200)}
    assert not {name for name in names if name.startswith(PLATFORM)}
