"""A flow as it is run: by its deployment, on `lifeboat work`, pressed or due at a moment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import httpx

from bench import ours
from bench.ours import LIFEBOAT
from bench.world import World
from lifeboat.core.timeline import RunRecord
from staging.orchestrator import Orchestrator
from staging.site import PLATFORM

_PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.05
_AHEAD_SECONDS = 15.0  # workers fetch what is due within ten seconds
_OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Prefect:
    """A Prefect server, and both workers of the world's platform."""

    def __init__(self, server: Orchestrator, http: httpx.Client, world: World) -> None:
        self.server, self._http, self._world = server, http, world
        self._deployments = {d["name"]: d for d in self._post("/deployments/filter")}
        for deployment in self._deployments.values():
            # What runs by schedule would be at work beside what is measured.
            self._post(f"/deployments/{deployment['id']}/pause_deployment")

    def _post(self, path: str, **body: Any) -> Any:
        answer = self._http.post(path, json=body).raise_for_status()
        return answer.json() if answer.content else None

    def press(self, name: str, **request: Any) -> tuple[float, float, RunRecord]:
        """(when Run was pressed, when the run had ended, its record). Raises RuntimeError if it did
        not end well.
        """
        return self._run(name, time.time(), request)

    def be_due(self, name: str, **request: Any) -> tuple[float, float, RunRecord]:
        """The same of a run that is due at a moment that was known before, as by a schedule."""
        return self._run(name, time.time() + _AHEAD_SECONDS, request)

    def _run(
        self, name: str, due: float, request: dict[str, Any]
    ) -> tuple[float, float, RunRecord]:
        deployment = self._deployments[f"{PLATFORM}.{name}"]
        known = set(ours.records(self._world))
        given = {**deployment["parameters"].get("request", {}), **request}
        parameters = {**deployment["parameters"], **({"request": given} if given else {})}
        details = {"scheduled_time": datetime.fromtimestamp(due, timezone.utc).isoformat()}
        run = self._post(
            f"/deployments/{deployment['id']}/create_flow_run",
            parameters=parameters,
            state={"type": "SCHEDULED", "state_details": details},
        )["id"]
        while (state := self._http.get(f"/flow_runs/{run}").json()["state"])["type"] not in _OVER:
            if time.time() - due > _PATIENCE_SECONDS:
                break
            time.sleep(_LOOK_SECONDS)
        ended = time.time()
        record = ours.newest_record(self._world, known)
        if state["type"] != "COMPLETED" or record is None:
            raise RuntimeError(f"{name} ended as {state['name']}: {state['message']}")
        return due, ended, record


@contextmanager
def prefect(world: World) -> Iterator[Prefect]:
    """Prefect beside the world, with its platform deployed."""
    known = world.environment_of_commands()
    server = Orchestrator(world.peers / "prefect", platform=PLATFORM, environment=known)
    server.create()
    try:
        server.start_server()
        environment = {**known, **server.environment()}
        subprocess.run([LIFEBOAT, "deploy"], env=environment, check=True, stdout=subprocess.DEVNULL)
        user, _, password = server.password.partition(":")
        with httpx.Client(base_url=f"{server.url}/api", auth=(user, password), timeout=60) as http:
            made = Prefect(server, http, world)
            server.start_workers()
            yield made
    finally:
        server.destroy()
