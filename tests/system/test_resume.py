"""A recovery killed with kill -9 under its worker, or with it: told as it is, then taken up again.

On a real server, by real workers, on a platform whose models are lost.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from lifeboat.settings import load_settings
from staging import faults
from staging.orchestrator import Orchestrator
from staging.site import Site
from tasks import journals, places
from tasks.journals import Journal
from tasks.prefect_server import deployment
from tests.system import prefect_ui, settings_file

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PLATFORM = "cad-ai-staging"
POOL = "lifeboat-recoveries"
PATIENCE_SECONDS = 150


@pytest.fixture(scope="module")
def site(staging_site: Site, lifeboat) -> Site:
    own = {"keep.files_seconds": 3600, "keep.on_change_seconds": 3600}
    own |= {"vault.s3.prefix": "resume", **settings_file.QUICK_CHECKS}
    settings_file.change(staging_site.settings_path, own)
    staging_site.stack.start(["wal-receiver"])
    for asset in ("config", "files", "models", "database"):
        done = lifeboat(staging_site.settings_path, "backup", asset, **staging_site.environment())
        assert done.returncode == 0, done.stderr
    return staging_site


@pytest.fixture(scope="module")
def ui(site: Site, prefect_server: Orchestrator) -> Iterator[prefect_ui.Ui]:
    to = prefect_server.environment()
    with temporary_settings(
        {
            PREFECT_API_URL: to["PREFECT_API_URL"],
            PREFECT_API_AUTH_STRING: to["PREFECT_API_AUTH_STRING"],
        }
    ):
        deployment.apply(load_settings(site.settings_path))
        yield prefect_ui.Ui(prefect_server)


@pytest.fixture
def begin_worker(
    site: Site, prefect_server: Orchestrator, tmp_path: Path
) -> Iterator[Callable[[], subprocess.Popen]]:
    with ExitStack() as workers:

        def begin() -> subprocess.Popen:
            directory = tmp_path / f"worker-{time.monotonic_ns()}"
            directory.mkdir()
            return workers.enter_context(
                prefect_ui.worker(prefect_server, POOL, PLATFORM, directory, **site.environment())
            )

        yield begin


def whole(site: Site) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in site.models.iterdir() if path.is_file()}


def journal_of(site: Site, run: str, step: str) -> Journal:
    """The journal of a run, as soon as it says that a step has begun."""
    directory = places.runs_directory(load_settings(site.settings_path))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        for name in sorted(os.listdir(directory), reverse=True):
            journal = journals.read(directory, name) if name.startswith("recover-") else None
            if journal and journal.flow_run == run:
                if any(event.get("step") == step for event in journal.events):
                    return journal
                break
        assert time.monotonic() < deadline, f"it does not come to {step}"
        time.sleep(0.005)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Path(f"/proc/{pid}").exists():
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # its parent has not looked yet
        assert time.monotonic() < deadline
        time.sleep(0.01)


def approve(ui: prefect_ui.Ui, run: str) -> None:
    ui.until_it_asks(run)
    ui.answer(run, decision="approve", platform=PLATFORM, approver="Ada", reason="3 a.m.")


def reconcile(site: Site, ui: prefect_ui.Ui, lifeboat) -> str:
    environment = {**site.environment(), **ui.server.environment()}
    done = lifeboat(site.settings_path, "reconcile", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_killed_recovery_is_taken_up_again(ui, site, begin_worker, lifeboat) -> None:
    before = whole(site)
    form = ui.deployments(PLATFORM)[f"{PLATFORM}.recover-models"]
    faults.break_site(site, "delete-models")
    worker = begin_worker()

    # The run alone: the worker sees it.
    first = ui.start(form)
    approve(ui, first)
    journal = journal_of(site, first, "rewrite-damaged")
    kill(int(journal.events[0]["pid"]))
    ui.until_it_ends_as(first, "Crashed")

    # One that waits for its approval is nobody's to end.
    second = ui.start(form)
    ui.until_it_asks(second)
    reconcile(site, ui, lifeboat)
    assert ui.run(second)["state"]["type"] == "PAUSED"
    approve(ui, second)

    # The run and its worker: nobody sees it, and it says Running for ever.
    journal = journal_of(site, second, "restart-services")
    os.killpg(worker.pid, signal.SIGKILL)
    kill(int(journal.events[0]["pid"]))
    assert ui.run(second)["state"]["type"] == "RUNNING"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "crashed" not in (told := reconcile(site, ui, lifeboat)):
        assert time.monotonic() < deadline, told
    ended = ui.run(second)["state"]
    assert ended["type"] == "CRASHED"
    for words in ("restart services", "`lifeboat recover models`", journal.run):
        assert words in ended["message"], ended["message"]
    assert ui.run(first)["state"]["type"] == "CRASHED"

    # The button again.
    begin_worker()
    third = ui.start(form)
    approve(ui, third)
    ui.until_it_ends_as(third, "Completed")
    assert whole(site) == before
    assert "continues after" in ui.artifacts(third)[f"{PLATFORM}-result"]["data"]
