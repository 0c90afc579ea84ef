"""`lifeboat work`: each run at once, in a process of its own; crashes and endings are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from staging.orchestrator import Orchestrator
from tests.system import prefect_ui

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
QUEUE = "host-1"


@contextmanager
def working(
    server: Orchestrator, pool: str, directory: Path, *more: str
) -> Iterator[subprocess.Popen]:
    environment = {
        **os.environ,
        **server.environment(),
        "PREFECT_HOME": str(directory / "home"),
        "PYTHONPATH": str(ROOT),
    }
    words = ["--pool", pool, "--work-queue", QUEUE, "--name", pool]
    if "--poll-seconds" not in more:
        words += ["--poll-seconds", "0.5"]
    with (directory / f"{pool}.log").open("wb") as log:
        child = subprocess.Popen(
            [Path(sys.executable).with_name("lifeboat"), "work", *words, *more],
            env=environment,
            cwd=directory,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


@pytest.fixture(scope="module")
def ui(prefect_server: Orchestrator) -> prefect_ui.Ui:
    return prefect_ui.Ui(prefect_server)


@pytest.fixture(scope="module")
def press(ui: prefect_ui.Ui) -> Callable[..., str]:
    """Declares a pool where there is none, and starts a run there; gives the run's id."""
    deployments: dict[tuple[str, str], str] = {}

    def declare(pool: str, queue: str) -> str:
        if pool not in {known for known, _ in deployments}:
            ui.post("/work_pools/", name=pool, type="process")
        made = ui.post(
            "/deployments/",
            name=f"{pool}-of-{queue}",
            flow_id=ui.post("/flows/", name="linger")["id"],
            entrypoint="tests.system.lingering.linger",
            work_pool_name=pool,
            work_queue_name=queue,
            job_variables={"stream_output": False, "env": {"TOLD_BY_THE_POOL": pool}},
        )
        return made["id"]

    def start(pool: str, directory: Path, *, queue: str = QUEUE, **parameters: Any) -> str:
        to = pool, queue
        if to not in deployments:
            deployments[to] = declare(pool, queue)
        told = {"directory": str(directory), **parameters}
        body = {"parameters": told, "state": {"type": "SCHEDULED"}}
        return ui.post(f"/deployments/{deployments[to]}/create_flow_run", **body)["id"]

    return start


def until(directory: Path, count: int) -> list[list[str]]:
    """What the runs wrote when they began: their process, its parent, their pool."""
    deadline = time.monotonic() + 150
    while len(found := sorted(directory.glob("*.began"))) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} runs began"
        time.sleep(0.1)
    return [path.read_text().split() for path in found]


def test_two_pools_each_run_in_a_process_of_its_own(ui, press, prefect_server, tmp_path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with (
        working(prefect_server, "warm-one", tmp_path) as one,
        working(prefect_server, "warm-two", tmp_path) as two,
    ):
        anothers = press("warm-one", runs, queue="another-platform")
        started = [press(pool, runs) for pool in ("warm-one", "warm-two", "warm-one", "warm-one")]
        for run in started:
            ui.until_it_ends_as(run, "Completed")
        began = until(runs, 4)
        assert len({pid for pid, _, _ in began}) == 4, "a process is used once"
        parents = {(pool, int(parent)) for _, parent, pool in began}
        assert parents == {("warm-one", one.pid), ("warm-two", two.pid)}
        ui.until_logged(started[0], "lingering")
        assert ui.run(anothers)["state"]["type"] == "SCHEDULED", "the host of another platform's"


def test_a_run_begins_when_it_is_pressed_and_not_when_the_worker_asks_next(
    ui, press, prefect_server, tmp_path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with working(prefect_server, "warm-one", tmp_path, "--poll-seconds", "600"):
        # What was due before it listened; nor is anything told to the other queue's host.
        ui.until_it_ends_as(press("warm-one", runs), "Completed")
        anothers = press("warm-one", runs, queue="another-platform")
        for _ in range(2):
            ui.until_it_ends_as(press("warm-one", runs), "Completed")
        assert ui.run(anothers)["state"]["type"] == "SCHEDULED"


def test_a_killed_run_is_crashed_and_the_next_one_runs(ui, press, prefect_server, tmp_path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with working(prefect_server, "warm-one", tmp_path) as worker:
        run = press("warm-one", runs, seconds=300)
        [[pid, _, _]] = until(runs, 1)
        os.kill(int(pid), signal.SIGKILL)
        assert "-9" in ui.until_it_ends_as(run, "Crashed")["state"]["message"]
        # One that waits is killed too: the run that would have been its gets another.
        waiting = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        deadline = time.monotonic() + 60
        while not (idle := waiting.read_text().split()):
            assert time.monotonic() < deadline, "no process waits for the next run"
            time.sleep(0.1)
        for process in idle:
            os.kill(int(process), signal.SIGKILL)
        ui.until_it_ends_as(press("warm-one", runs), "Completed")


def test_sigterm_lets_a_run_end_and_takes_no_other(ui, press, prefect_server, tmp_path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with working(prefect_server, "warm-two", tmp_path, "--drain-seconds", "120") as worker:
        run = press("warm-two", runs, until_there=str(tmp_path / "go"))
        until(runs, 1)
        worker.terminate()
        other = press("warm-two", runs)
        (tmp_path / "go").touch()
        ui.until_it_ends_as(run, "Completed")
        assert worker.wait(60) == 0
        assert ui.run(other)["state"]["type"] == "SCHEDULED"


def test_a_run_that_outlasts_the_drain_cleans_up_and_is_crashed(
    ui, press, prefect_server, tmp_path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with working(prefect_server, "warm-three", tmp_path, "--drain-seconds", "0") as worker:
        run = press("warm-three", runs, seconds=300)
        [[pid, _, _]] = until(runs, 1)
        worker.terminate()
        assert worker.wait(60) == 0
        ui.until_it_ends_as(run, "Crashed")
        assert (runs / f"{pid}.cleaned").exists()
        assert not Path(f"/proc/{pid}").exists()
