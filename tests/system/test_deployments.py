"""prefect.yaml on a real Prefect server with its PostgreSQL: applied, applied again, taken back."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from lifeboat.core.errors import PreconditionError, SettingsError, TransientError
from lifeboat.core.requests import WatchObjectives
from lifeboat.settings.alarms import Alarms, Channel
from lifeboat.settings.model import Watch
from staging.orchestrator import Orchestrator
from tasks.prefect_server import deployment
from tasks.prefect_server.deployment import DECLARATION
from tests.system import prefect_ui

pytestmark = [pytest.mark.system]

PLATFORM = "cad-ai-staging"
MISSED = 40


@pytest.fixture
def server(prefect_server: Orchestrator) -> Orchestrator:
    return prefect_server


def apply(
    file: Path = DECLARATION,
    platform: str = PLATFORM,
    alarms: Alarms | None = None,
    **access: str,
) -> deployment.Applied:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    settings = SimpleNamespace(
        platform=platform,
        file=Path("/srv/lifeboat.yaml"),
        alarms=alarms or Alarms(),
        watch=Watch(),
        fill=str,
    )
    to = {
        PREFECT_API_URL: access["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: access.get("PREFECT_API_AUTH_STRING"),
    }
    with temporary_settings(to):
        return deployment.apply(settings, file)


def ask(server: Orchestrator, path: str, **body) -> list[dict]:
    user, _, password = server.environment()["PREFECT_API_AUTH_STRING"].partition(":")
    answer = httpx.post(f"{server.url}/api{path}", json=body, auth=(user, password), timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def schedules(server: Orchestrator) -> dict[str, set[str]]:
    return {
        deployment["entrypoint"]: {schedule["slug"] for schedule in deployment["schedules"]}
        for deployment in ask(server, "/deployments/filter")
        if PLATFORM in deployment["tags"]
    }


def test_the_api_asks_for_a_password(server) -> None:
    assert httpx.post(f"{server.url}/api/deployments/filter", json={}).status_code == 401
    with pytest.raises(PreconditionError, match="PREFECT_API_AUTH_STRING"):
        apply(PREFECT_API_URL=server.environment()["PREFECT_API_URL"])


def test_without_a_server_nothing_is_deployed() -> None:
    with pytest.raises(TransientError, match="does not answer"):
        apply(PREFECT_API_URL="http://127.0.0.1:9/api")
    with pytest.raises(PreconditionError, match="no Prefect server is configured"):
        apply(PREFECT_API_URL="")


def test_what_is_declared_is_there_and_nothing_else_of_ours(server, tmp_path) -> None:
    access = server.environment()
    known = {pool["name"] for pool in ask(server, "/work_pools/filter")}
    first = apply(**access)
    # Another module may have been at this server before.
    assert set(first.pools_made) == {"lifeboat-backups", "lifeboat-recoveries"} - known
    pools = {pool["name"] for pool in ask(server, "/work_pools/filter")}
    assert pools >= {"lifeboat-backups", "lifeboat-recoveries"}
    assert first.removed == ()
    there = schedules(server)
    assert there["flows.backup_database.backup_database"] == {"every-six-hours"}
    assert there["flows.recover_database.recover_database"] == set()

    again = apply(**access)
    assert (again.pools_made, again.removed) == ((), ())
    assert schedules(server) == there

    apply(platform="another-platform", **access)
    less = tmp_path / "prefect.yaml"
    kept, _ = DECLARATION.read_text().split("  # --- recoveries")
    schedule = '{slug: every-half-hour, cron: "*/30 * * * *", timezone: UTC, active: true}'
    assert schedule in kept
    less.write_text(kept.replace(f"    schedules:\n      - {schedule}\n", ""))
    taken_back = apply(less, **access)
    assert f"{PLATFORM}.recover-database" in taken_back.removed
    assert schedules(server)["flows.backup_files.backup_files"] == set()
    assert "flows.recover_database.recover_database" not in schedules(server)
    others = [d for d in ask(server, "/deployments/filter") if "another-platform" in d["tags"]]
    assert len(others) == len(there), "another platform's deployments stay"


def test_workers_that_start_at_the_same_moment_apply_it_side_by_side(server) -> None:
    hook = Channel(name="hook", url="json://127.0.0.1:9/hook")

    def one(_: int) -> deployment.Applied:
        return apply(
            platform="side-by-side", alarms=Alarms(channels=(hook,)), **server.environment()
        )

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(one, range(2))
    assert first.deployed == second.deployed
    there = ask(server, "/deployments/filter", limit=200)
    names = [d["name"] for d in there if "side-by-side" in d["tags"]]
    assert sorted(names) == sorted(first.deployed)
    told = [a["name"] for a in ask(server, "/automations/filter", limit=200)]
    ours = [name for name in told if name.startswith("side-by-side.")]
    assert len(set(ours)) == len(ours) > 0
    assert one(0).automations.changed == ()


def test_a_cron_yields_scheduled_runs(server) -> None:
    """With other versions of its dependencies Prefect looks healthy and schedules nothing."""
    apply(**server.environment())
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    deadline = time.monotonic() + 90
    while not ask(server, "/flow_runs/filter", flow_runs=scheduled):
        assert time.monotonic() < deadline, "a cron was deployed and no run is scheduled"
        time.sleep(0.5)


def test_a_mistake_changes_nothing(server, tmp_path) -> None:
    apply(**server.environment())
    before = schedules(server)
    wrong = tmp_path / "prefect.yaml"
    wrong.write_text(DECLARATION.read_text().replace("    schedules:", "    schedles:"))
    with pytest.raises(SettingsError, match="did you mean `schedules`"):
        apply(wrong, **server.environment())
    assert schedules(server) == before


def test_after_an_outage_one_backup_runs_and_not_forty(server, tmp_path) -> None:
    """Runs that became late while no worker was there: one is carried out, the rest are cancelled.

    Their backup fails at once, for there is no platform, so that its place is soon free again.
    """
    apply(**server.environment())
    ui = prefect_ui.Ui(server)
    name = f"{PLATFORM}.backup-files"
    deployment_id = ui.deployments(PLATFORM)[name]["id"]
    now = datetime.now(timezone.utc)
    late = [
        ui.post(
            f"/deployments/{deployment_id}/create_flow_run",
            state={
                "type": "SCHEDULED",
                "state_details": {"scheduled_time": str(now - timedelta(minutes=30 * missed))},
            },
        )["id"]
        for missed in range(1, MISSED + 1)
    ]
    mine = {"id": {"any_": late}}
    with prefect_ui.worker(server, "lifeboat-backups", PLATFORM, tmp_path):
        deadline = time.monotonic() + prefect_ui.PATIENCE_SECONDS
        over = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        while True:
            ends = [run["state_type"] for run in ui.post("/flow_runs/filter", flow_runs=mine)]
            if len(ends) == MISSED and all(end in over for end in ends):
                break
            assert time.monotonic() < deadline, ends
            time.sleep(0.5)
    assert len([end for end in ends if end != "CANCELLED"]) == 1, ends


def test_a_platform_is_watched_from_outside_by_a_deployment_of_its_own(
    server: Orchestrator,
) -> None:
    """As docs/many-hosts.md says, for a bucket at Amazon: no endpoint."""
    file = DECLARATION.with_name("deployments") / "many-hosts" / "outside.yaml"
    place = {"BUCKET": "vault-of-cad", "PREFIX": "cad", "ENDPOINT": "", "REGION": "eu-west-1"}
    told = {f"LIFEBOAT_{name}": value for name, value in place.items()}
    pool = {"name": "lifeboat-outside", "type": "process"}
    user, _, password = server.password.partition(":")
    httpx.post(f"{server.url}/api/work_pools/", json=pool, auth=(user, password)).raise_for_status()
    done = subprocess.run(
        [
            Path(sys.executable).with_name("prefect"),
            *("--no-prompt", "deploy", "--all", "--prefect-file", file),
        ],
        env={**os.environ, **server.environment(), **told, "LIFEBOAT_PLATFORM": PLATFORM},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    apply(**server.environment())  # the platform's own leave it alone
    name = f"{PLATFORM}.watch-from-outside"
    [found] = [d for d in ask(server, "/deployments/filter") if d["name"] == name]
    form = WatchObjectives.model_validate(found["parameters"]["request"])
    assert (form.source, form.bucket, form.prefix) == ("s3", "vault-of-cad", "cad")
    assert (form.endpoint, form.region) == ("", "eu-west-1")
    module, _, function = found["entrypoint"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))
    assert str(Path.cwd()) not in str(found["pull_steps"]), "the place it was called from"
    # Other tests share the server.
    gone = httpx.delete(f"{server.url}/api/deployments/{found['id']}", auth=(user, password))
    gone.raise_for_status()
