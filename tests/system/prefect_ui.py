"""What an operator does in the Prefect UI, by the API that the UI uses; and a real worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from staging.orchestrator import Orchestrator

PATIENCE_SECONDS = 270  # a recovery takes 100 s where a container is built beside it


class Ui:
    """One operator at one server."""

    def __init__(self, server: Orchestrator) -> None:
        self.server = server
        user, _, password = server.password.partition(":")
        self._http = httpx.Client(base_url=f"{server.url}/api", auth=(user, password), timeout=60)

    def post(self, path: str, **body: Any) -> Any:
        answer = self._http.post(path, json=body)
        assert answer.status_code < 300, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def post_list(self, path: str, *items: Mapping[str, Any]) -> None:
        answer = self._http.post(path, json=list(items))
        assert answer.status_code < 300, f"{path}: {answer.status_code} {answer.text}"

    def get(self, path: str) -> Any:
        answer = self._http.get(path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer.json()

    def deployments(self, platform: str) -> dict[str, dict]:
        found = self.post("/deployments/filter")
        return {d["name"]: d for d in found if platform in d["tags"]}

    def start(self, deployment: Mapping[str, Any], **request: Any) -> str:
        """Fill in the form and run it; give the run's id."""
        parameters = {"request": {**deployment["parameters"].get("request", {}), **request}}
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.post(f"/deployments/{deployment['id']}/create_flow_run", **body)["id"]

    def refuses(self, deployment: Mapping[str, Any], **request: Any) -> str:
        """Fill in a form that the server does not take; give what it says."""
        parameters = {"request": {**deployment["parameters"].get("request", {}), **request}}
        answer = self._http.post(
            f"/deployments/{deployment['id']}/create_flow_run",
            json={"parameters": parameters, "state": {"type": "SCHEDULED"}},
        )
        assert answer.status_code in (409, 422), answer.text
        return answer.text

    def runs(self, deployment: Mapping[str, Any]) -> set[str]:
        mine = {"id": {"any_": [deployment["id"]]}}
        return {run["id"] for run in self.post("/flow_runs/filter", deployments=mine)}

    def until_new_run(self, deployment: Mapping[str, Any], known: set[str]) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (new := self.runs(deployment) - known):
            assert time.monotonic() < deadline, "no run was started"
            time.sleep(0.2)
        return new.pop()

    def run(self, run_id: str) -> dict:
        return self.get(f"/flow_runs/{run_id}")

    def until(self, run_id: str, wanted: Callable[[dict], bool], what: str) -> dict:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            run = self.run(run_id)
            if wanted(run):
                return run
            over = run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            if over or time.monotonic() > deadline:
                raise AssertionError(f"{what}: {run['state']}\n{self.log(run_id)}")
            time.sleep(0.3)

    def until_it_asks(self, run_id: str, attempt: int = 1) -> dict:
        def asks(run: dict) -> bool:
            told = run["state"]["state_details"]
            key = told["pause_key"] or ""
            return run["state"]["type"] == "PAUSED" and key.endswith(f"-{attempt}")

        return self.until(run_id, asks, "It does not ask for an approval")

    def until_it_ends_as(self, run_id: str, name: str) -> dict:
        return self.until(run_id, lambda r: r["state"]["name"] == name, f"It does not end {name}")

    def retry(self, run_id: str) -> dict:
        """What the button *Retry* does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        return self.post(f"/flow_runs/{run_id}/set_state", state=state, force=True)

    def answer(self, run_id: str, **typed: str) -> dict:
        """Fill in the form of a paused run; give what the server says."""
        return self.post(f"/flow_runs/{run_id}/resume", run_input=typed)

    def artifacts(self, run_id: str) -> dict[str, dict]:
        mine = {"flow_run_id": {"any_": [run_id]}}
        return {a["key"]: a for a in self.post("/artifacts/filter", artifacts=mine)}

    def table(self, run_id: str, key: str) -> list[dict]:
        return json.loads(self.artifacts(run_id)[key]["data"])

    def log(self, run_id: str) -> str:
        mine = {"flow_run_id": {"any_": [run_id]}}
        return "\n".join(line["message"] for line in self.post("/logs/filter", logs=mine))

    def until_logged(self, run_id: str, text: str) -> None:
        """Wait for a line of a run: the server takes what is logged in batches."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in (said := self.log(run_id)):
            assert time.monotonic() < deadline, f"{text} is not in the log:\n{said}"
            time.sleep(0.3)

    def all_that_is_kept(self, run_id: str) -> str:
        """Everything that the server holds of a run."""
        return json.dumps([self.run(run_id), self.artifacts(run_id)]) + self.log(run_id)


@contextmanager
def worker(
    server: Orchestrator, pool: str, platform: str, directory: Path, **environment: str
) -> Iterator[subprocess.Popen]:
    """A worker of the platform's host."""
    log = (directory / f"{pool}.log").open("w")
    child = subprocess.Popen(
        ["prefect", "worker", "start", "--pool", pool, "--work-queue", platform],
        executable=str(Path(os.sys.executable).with_name("prefect")),
        env={
            **os.environ,
            **server.environment(),
            "PREFECT_HOME": str(directory / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            **environment,
        },
        cwd=directory,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        log.close()
