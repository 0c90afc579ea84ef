"""A drill of the orchestrator as a casualty: Prefect's server is killed in mid-recovery.

The recovery runs as an operator starts it, by its deployment, on a worker, on a Prefect server that
is made for the drill. It has to go on by itself, and history has to know in the end how it ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lifeboat.core.errors import PermanentError, VerificationFailed
from lifeboat.core.forms import Drill
from lifeboat.core.timeline import Phase, RunRecord
from lifeboat.settings import CONFIG_VARIABLE, Settings
from lifeboat.tools import process
from staging.orchestrator import Orchestrator
from tasks import journals, places
from tasks.drill import Stage, Trial
from tasks.orchestration import step
from tasks.prefect_server import reconciliation
from tasks.record import RECORD_NAME

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

log = logging.getLogger("lifeboat")

_WORKER_SECONDS = 120.0
_RECOVERY_SECONDS = 1800.0
_HISTORY_SECONDS = 180.0
_OFTEN_SECONDS = 0.05  # a restore of a small staging platform takes less than a second
_POOL = "lifeboat-recoveries"
_BUSY = (Phase.FETCH, Phase.RESTORE, Phase.REPLAY)


@dataclass(frozen=True)
class Outage:
    """The server that is going to be killed, with a worker that recovers the staging platform."""

    orchestrator: Orchestrator
    settings: Settings


@contextlib.contextmanager
def orchestrated(stage: Stage, request: Drill) -> Iterator[Outage | None]:
    """A Prefect server with a worker while the drill lasts; None if none is to be killed."""
    if request.kill == "nothing":
        yield None
        return
    directory = Path(request.root).absolute()
    environment = {**stage.site.environment(), CONFIG_VARIABLE: str(stage.site.settings_path)}
    orchestrator = Orchestrator(
        directory.with_name(f"{directory.name}-orchestrator"),
        platform=stage.settings.platform,
        environment=environment,
    )
    orchestrator.destroy()  # of an earlier drill that was cut short
    try:
        _start(orchestrator, environment)
        yield Outage(orchestrator, stage.settings)
    finally:
        orchestrator.destroy()


@step()
def _start(orchestrator: Orchestrator, environment: Mapping[str, str]) -> None:
    orchestrator.create()
    orchestrator.start_server()
    # In a process of its own: in one that runs alone the flows are none of Prefect's.
    process.run(
        [sys.executable, "-c", "from lifeboat.cli import main; main()", "deploy"],
        doing="Applying the deployments for the drill",
        env={**environment, **orchestrator.environment()},
    )
    orchestrator.start_workers()
    with _at(orchestrator) as client:
        _wait(
            lambda: _worker_is_there(client),
            _WORKER_SECONDS,
            f"no worker asks for runs; see {orchestrator.directory}/logs",
        )


def _worker_is_there(client: SyncPrefectClient) -> bool:
    found = client.request(
        "POST", "/work_pools/{name}/workers/filter", path_params={"name": _POOL}, json={}
    )
    return any(worker["status"] == "ONLINE" for worker in found.json())


@step()
def recover_through_outage(trial: Trial, outage: Outage) -> RunRecord:
    """Recover by the deployment; kill the server in mid-recovery, and start it when that is over.

    Gives the recovery's own record, and in its facts when the server was killed, for how long it
    was away, and how its history ends. Raises VerificationFailed if history tells another end.
    """
    settings, orchestrator = outage.settings, outage.orchestrator
    runs = places.runs_directory(settings)
    with _at(orchestrator) as client:
        found = client.read_deployment_by_name(
            f"recover-{trial.name}/{settings.platform}.recover-{trial.name}"
        )
        asked = {**found.parameters.get("request", {}), "approval": "preapproved"}
        flow_run = str(
            client.create_flow_run_from_deployment(found.id, parameters={"request": asked}).id
        )
        journal = _wait(
            lambda: _journal_of(runs, flow_run), _WORKER_SECONDS, "the recovery does not begin"
        )
        phase = _wait(
            lambda: _busy_phase(runs, journal), _RECOVERY_SECONDS, f"{journal} restores nothing"
        )
        killed_at = time.time()
        killed = _kill_server(orchestrator)
        log.warning("Prefect's server was killed (%d processes) in the phase %s.", killed, phase)
        record_path = runs / journal / RECORD_NAME
        _wait(record_path.exists, _RECOVERY_SECONDS, f"{journal} does not end without its server")
        record = RunRecord.model_validate_json(record_path.read_bytes())
        orchestrator.start_server()
        away = time.time() - killed_at
        log.info(
            "Prefect's server is back after %.0f s; the recovery ended %s.", away, record.outcome
        )
        state = _wait(
            lambda: _end_in_history(client, settings, flow_run),
            _HISTORY_SECONDS,
            f"history does not say how {journal} ended",
        )
    facts = {
        "orchestrator_killed_in": str(phase),
        "orchestrator_killed_at_seconds": round(killed_at - record.began_at, 1),
        "orchestrator_away_seconds": round(away, 1),
        "history": state,
    }
    if state != "COMPLETED":
        raise VerificationFailed(
            f"Recovering through an outage of Prefect's server: {journal} ended {record.outcome}, "
            f"and history says {state}.",
            hint=f"{record.error or 'It has no error.'} Its record: {record_path}",
        )
    return record.model_copy(update={"facts": {**record.facts, **facts}})


def _journal_of(runs: Path, flow_run: str) -> str:
    for path in runs.glob("recover-*"):
        journal = journals.read(runs, path.name)
        if journal and journal.flow_run == flow_run:
            return path.name
    return ""


def _busy_phase(runs: Path, run: str) -> Phase | None:
    """The phase in which data is being brought back; None: it is not, yet."""
    if (runs / run / RECORD_NAME).exists():
        raise PermanentError(
            f"Running the drill: {run} ended before the server was killed.",
            hint="Its record says why; with a larger --scale there is more to restore.",
        )
    journal = journals.read(runs, run)
    told = [e.get("phase") for e in journal.events] if journal else []
    return next((phase for phase in _BUSY if str(phase) in told), None)


def _kill_server(orchestrator: Orchestrator) -> int:
    """Kill the server and its children at once, as the kernel does when memory is out."""
    [pid] = [s.pid for s in orchestrator.stack.status() if s.name == "server"]
    if not pid:
        raise PermanentError("Running the drill: Prefect's server does not run.")
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(member.pid, signal.SIGKILL)
    # Its supervisor would start it again at once.
    orchestrator.stack.stop(["server"])
    return len(family)


def _end_in_history(client: SyncPrefectClient, settings: Settings, flow_run: str) -> str:
    """Name of the end that the server knows, after its history was brought up to date."""
    reconciliation.reconcile(settings)
    state = client.read_flow_run(flow_run).state  # type: ignore[arg-type]
    return state.type.value if state and state.is_final() else ""


@contextlib.contextmanager
def _at(orchestrator: Orchestrator) -> Iterator[SyncPrefectClient]:
    """A client of the drill's own server, which all that is called inside talks to as well."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    to = orchestrator.environment()
    access = {
        PREFECT_API_URL: to["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: to["PREFECT_API_AUTH_STRING"],
    }
    with temporary_settings(access), get_client(sync_client=True) as client:
        yield client


def _wait(condition: Callable[[], Any], seconds: float, why: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        if time.monotonic() > deadline:
            raise PermanentError(f"Running the drill: {why} ({seconds:g} s).")
        time.sleep(_OFTEN_SECONDS)
    return met
