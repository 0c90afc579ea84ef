"""From pressing Run to a flow's first step: `lifeboat work` against Prefect's process worker.

One server on PostgreSQL, both workers at the same time on a pool each, pressed in turn:

    python -m bench.press_to_first_step [PRESSES]
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from bench.parts import Asked
from staging.orchestrator import Orchestrator

PATIENCE_SECONDS = 120
ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sys.executable).parent
COMMANDS = {
    # As it was until now: a poll every 2 s.
    "prefect worker": (SCRIPTS / "prefect", "worker", "start", "--type", "process"),
    "lifeboat work": (SCRIPTS / "lifeboat", "work", "--poll-seconds", "0.5"),
}


@contextlib.contextmanager
def worker(server: Orchestrator, command: str, pool: str, directory: Path) -> Iterator[None]:
    environment = {
        **os.environ,
        **server.environment(),
        "PREFECT_HOME": str(directory / pool),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PYTHONPATH": str(ROOT),
    }
    words = [*COMMANDS[command], "--pool", pool, "--work-queue", "here", "--name", pool]
    with (directory / f"{pool}.log").open("wb") as log:
        running = subprocess.Popen(
            words, env=environment, cwd=directory, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield
        finally:
            running.terminate()
            running.wait(60)


def declare(http: httpx.Client, pool: str) -> str:
    http.post("/work_pools/", json={"name": pool, "type": "process"}).raise_for_status()
    template = {
        "job_configuration": {
            "stream_output": "{{ stream_output }}",
            "env": "{{ env }}",
        },
        "variables": {
            "properties": {
                "stream_output": {"type": "boolean", "default": False},
                "env": {"type": "object", "default": {}},
            }
        },
    }
    http.patch(f"/work_pools/{pool}", json={"base_job_template": template}).raise_for_status()
    flow = http.post("/flows/", json={"name": "press"}).json()["id"]
    body = {
        "name": pool,
        "flow_id": flow,
        "entrypoint": "bench.first_step.press",
        "work_pool_name": pool,
        "work_queue_name": "here",
    }
    return http.post("/deployments/", json=body).raise_for_status().json()["id"]


def press(http: httpx.Client, deployment: str, file: Path) -> float:
    """Seconds from pressing Run until the first step ran."""
    pressed = time.time()
    body = {"parameters": {"file": str(file)}, "state": {"type": "SCHEDULED"}}
    run = http.post(f"/deployments/{deployment}/create_flow_run", json=body).json()["id"]
    while not (file.exists() and (said := file.read_text())):
        if time.time() - pressed > PATIENCE_SECONDS:
            raise SystemExit(f"It did not start: {http.get(f'/flow_runs/{run}').json()['state']}")
        time.sleep(0.02)
    # Until it is over, and the next one is pressed at any moment of the poll.
    while http.get(f"/flow_runs/{run}").json()["state"]["type"] != "COMPLETED":
        time.sleep(0.1)
    time.sleep(random.uniform(2, 4))
    return float(said) - pressed


def measure(presses: int) -> dict[str, list[float]]:
    """Seconds of each press, by the worker's command."""
    directory = Path(tempfile.mkdtemp(prefix="press-"))
    server = Orchestrator(directory / "prefect", platform="bench", environment={})
    server.create()
    try:
        server.start_server()
        user, _, password = server.password.partition(":")
        pools = dict(zip(COMMANDS, ("plain", "warm"), strict=True))
        with (
            httpx.Client(base_url=f"{server.url}/api", auth=(user, password), timeout=60) as http,
            contextlib.ExitStack() as workers,
        ):
            deployments = {command: declare(http, pool) for command, pool in pools.items()}
            for command, pool in pools.items():
                workers.enter_context(worker(server, command, pool, directory))
            taken: dict[str, list[float]] = {command: [] for command in COMMANDS}
            for turn in range(presses + 1):
                for command, deployment in deployments.items():
                    seconds = press(http, deployment, directory / f"{pools[command]}-{turn}")
                    if turn:  # the first one compiles
                        taken[command].append(seconds)
                        print(f"{command:15} {seconds:5.2f} s", file=sys.stderr, flush=True)
        return taken
    finally:
        server.destroy()


def measure_trigger(asked: Asked) -> Iterator[str]:
    """The section of the benchmark: twice as many presses as rounds of everything else."""
    taken = measure(2 * asked.rounds)
    yield "From pressing Run until the first step of a flow runs, on a Prefect server with"
    yield "PostgreSQL; both workers wait at the same time, and are pressed in turn."
    yield ""
    yield "| worker | median s | from | to |"
    yield "|---|---:|---:|---:|"
    for command, seconds in taken.items():
        middle = statistics.median(seconds)
        yield f"| {command} | {middle:.2f} | {min(seconds):.2f} | {max(seconds):.2f} |"


def main() -> None:
    taken = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
    for command, seconds in taken.items():
        middle = statistics.median(seconds)
        print(f"{command:15} median {middle:.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")
    slow, quick = (statistics.median(taken[command]) for command in COMMANDS)
    print(f"ratio {slow / quick:.1f}")


if __name__ == "__main__":
    main()
