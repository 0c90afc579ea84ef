"""Prefect's history and the truth, brought together: dead runs ended, unseen runs shown.

Needs a Prefect server that answers, and looks at the processes and records of this host.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from lifeboat.core import account, reconciliation
from lifeboat.core.reconciliation import Process, Seen, Trace
from lifeboat.core.timeline import Outcome, RunRecord, run_began_at
from lifeboat.settings import Settings
from lifeboat.tools import lives, process
from tasks import clock, journals, places
from tasks.journals import Fate, Journal
from tasks.orchestration import step
from tasks.record import RECORD_NAME

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

log = logging.getLogger("lifeboat")

UNSEEN_TAG = "without-prefect"
_SHOWN = ("recover-", "drill-")
_SHOWN_DAYS = 90  # Prefect's own vacuum removes older ones
_PAGE = 200
_HEARTBEAT = "prefect.flow-run.heartbeat"
_UNSETTLED = ("RUNNING", "PENDING", "PAUSED", "CANCELLING")


class Reconciled(BaseModel):
    """What was put right: the runs that were ended, and the records that were shown."""

    model_config = ConfigDict(frozen=True)

    ended: Mapping[str, str]  # the state by the run's name
    shown: tuple[str, ...]

    def in_words(self) -> str:
        told = [f"{name} is {state.lower()}" for name, state in self.ended.items()]
        told += [f"{name} ran without Prefect and is shown" for name in self.shown]
        return "; ".join(told) or "Prefect's history agrees with what happened"


@step()
def reconcile(settings: Settings) -> Reconciled:
    """End the runs of this host that are dead, and show recoveries and drills that ran unseen.

    Never touches a run that is alive. One that is paused for approval is ended only if its process
    is proven to be gone: an approval would come to nobody. Safe to do again, and from several
    places at once.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = {journal.flow_run: journal for journal in _recent(settings) if journal.flow_run}
        ended = dict(_end_dead_runs(client, settings, found))
        shown = tuple(_show_unseen(client, settings))
    done = Reconciled(ended=ended, shown=shown)
    if ended or shown:
        log.warning("Reconciling: %s", done.in_words())
    return done


# --- runs that Prefect takes for running -----------------------------------------------------


def _end_dead_runs(
    client: SyncPrefectClient, settings: Settings, found: Mapping[str, Journal]
) -> Iterator[tuple[str, str]]:
    own = _own_run()
    for run in _unsettled(client):
        mine = run.get("work_queue_name") == settings.platform or run["id"] in found
        if not mine or run["id"] == own:
            continue
        end = reconciliation.judge(_seen(client, settings, run, found.get(run["id"])))
        if end is None:
            continue
        # Looked at again: it may have come to its end, or to a question, meanwhile.
        state = client.request("GET", "/flow_runs/{id}", path_params={"id": run["id"]}).json()
        if state["state"]["id"] != run["state"]["id"]:
            continue
        body = {"state": {"type": end.state, "message": end.message}, "force": True}
        client.request(
            "POST", "/flow_runs/{id}/set_state", path_params={"id": run["id"]}, json=body
        )
        yield run["name"], end.state


def _unsettled(client: SyncPrefectClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        body = {
            "flow_runs": {"state": {"type": {"any_": list(_UNSETTLED)}}},
            "limit": _PAGE,
            "offset": len(found),
        }
        page = client.request("POST", "/flow_runs/filter", json=body).json()
        found += page
        if len(page) < _PAGE:
            return found


def _seen(
    client: SyncPrefectClient, settings: Settings, run: Mapping[str, Any], journal: Journal | None
) -> Seen:
    known = _process_of(settings, run)
    silent = None
    waits = run["state"]["type"] in ("PENDING", "PAUSED")
    if known in (Process.ELSEWHERE, Process.NONE) and not waits:
        silent = _silent_seconds(client, run["id"])
    since = datetime.fromisoformat(run["state"]["timestamp"].replace("Z", "+00:00"))
    return Seen(
        name=run["name"],
        state=run["state"]["type"],
        state_age_seconds=(clock.now() - since).total_seconds(),
        process=known,
        trace=_trace(journal) if journal else None,
        silent_seconds=silent,
    )


def _process_of(settings: Settings, run: Mapping[str, Any]) -> Process:
    """Whether the process lives to which the worker gave this run.

    A work queue is one host's, so that without a name of the host it is ours.
    """
    host, _, pid = str(run.get("infrastructure_pid") or "").rpartition(":")
    if not pid.isdecimal():
        return Process.NONE
    ours = host == socket.gethostname() if host else run["work_queue_name"] == settings.platform
    if not ours:
        return Process.ELSEWHERE
    if lives.life_of(int(pid)) is None:
        return Process.GONE
    began = lives.began_at(int(pid))
    started = run.get("start_time")
    if began is None or not started:
        return Process.ALIVE
    # The same number is another program's by now, if that one began after the run.
    moment = datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp()
    return Process.ALIVE if began <= moment + reconciliation.SETTLE_SECONDS else Process.GONE


def _silent_seconds(client: SyncPrefectClient, run: str) -> float | None:
    body = {
        "filter": {
            "event": {"name": [_HEARTBEAT]},
            "resource": {"id": [f"prefect.flow-run.{run}"]},
            "occurred": {"since": (clock.now() - timedelta(days=6)).isoformat()},
            "order": "DESC",
        },
        "limit": 1,
    }
    events = client.request("POST", "/events/filter", json=body).json()["events"]
    if not events:
        return None
    last = datetime.fromisoformat(events[0]["occurred"].replace("Z", "+00:00"))
    return (clock.now() - last).total_seconds()


def _trace(journal: Journal) -> Trace:
    known = journal.record()
    fate = journal.fate()
    end = next((e for e in journal.events if e.get("event") == "run-ended"), {})
    steps = [str(e["step"]) for e in journal.events if e.get("event") == "step-began"]
    return Trace(
        record=journal.run,
        procedure=journal.procedure,
        where=str(journal.path.parent),
        alive=fate is Fate.ALIVE,
        outcome=str(end.get("outcome") or ""),
        error=str(end.get("error") or ""),
        last_step=steps[-1].replace("-", " ") if steps else "",
        moved_aside=known.moved_aside,
    )


def _own_run() -> str:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else ""


def _recent(settings: Settings) -> Iterator[Journal]:
    directory = places.runs_directory(settings)
    since = clock.now() - timedelta(days=_SHOWN_DAYS)
    names = sorted(os.listdir(directory)) if directory.is_dir() else []
    for name in names:
        try:
            recent = run_began_at(name) > since
        except (IndexError, ValueError):
            continue  # not a run's
        journal = journals.read(directory, name) if recent else None
        if journal and journal.events:
            yield journal


# --- runs that Prefect has not seen ----------------------------------------------------------


def _show_unseen(client: SyncPrefectClient, settings: Settings) -> Iterator[str]:
    """A flow run for each recovery and drill that ran while no server was there, or whose run the
    server lost with its history.
    """
    hidden = [secret.value for secret in settings.known_secrets()]
    for journal in _recent(settings):
        path = journal.path.with_name(RECORD_NAME)
        if not journal.run.startswith(_SHOWN) or not path.exists():
            continue
        if journal.flow_run and _is_known(client, journal.flow_run):
            continue
        try:
            record = RunRecord.model_validate_json(path.read_bytes())
        except ValueError:
            log.warning("%s can't be read, and is not shown in Prefect.", path)
            continue
        if _show(client, settings, record, path.parent, hidden):
            yield record.id


def _is_known(client: SyncPrefectClient, flow_run: str) -> bool:
    body = {"flow_runs": {"id": {"any_": [flow_run]}}}
    return bool(client.request("POST", "/flow_runs/count", json=body).json())


def _show(
    client: SyncPrefectClient,
    settings: Settings,
    record: RunRecord,
    where: Path,
    hidden: list[str],
) -> bool:
    known = {"flow_runs": {"name": {"any_": [record.id]}, "tags": {"all_": [UNSEEN_TAG]}}}
    if client.request("POST", "/flow_runs/count", json=known).json():
        return False
    flow = client.create_flow_from_name(record.procedure)
    states = {Outcome.DONE: "COMPLETED", Outcome.NOT_APPROVED: "CANCELLED"}
    state = states.get(record.outcome, "FAILED") if record.outcome else "CRASHED"
    began = datetime.fromtimestamp(record.began_at, timezone.utc)
    told = f"Ran without Prefect from {began:%Y-%m-%d %H:%M:%S} UTC for {record.seconds:.0f} s."
    message = process.mask(f"{told} {record.error or ''} Its record: {where}", hidden)
    run = client.request(
        "POST",
        "/flow_runs/",
        json={
            "flow_id": str(flow),
            "name": record.id,
            # Two that look at the same moment make one.
            "idempotency_key": record.id,
            "tags": ["lifeboat", settings.platform, UNSEEN_TAG],
            "state": {"type": state, "message": message},
        },
    ).json()
    result = process.mask(account.result(record, places={"On this host": str(where)}), hidden)
    client.request(
        "POST",
        "/artifacts/",
        json={
            "key": f"{settings.platform}-result",
            "type": "markdown",
            "data": result,
            "description": f"How {record.procedure} ended, and its record",
            "flow_run_id": run["id"],
        },
    )
    return True
