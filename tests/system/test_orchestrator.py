"""The orchestrator is a casualty too: its database destroyed and brought back, with its history.

On a Prefect server with a PostgreSQL of its own, which the tests may destroy.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from lifeboat.core.errors import PreconditionError, VerificationFailed
from lifeboat.settings import Settings
from lifeboat.tools import postgres
from staging.orchestrator import DATABASE, Orchestrator
from tasks import places
from tasks.prefect_server import deployment, orchestrator
from tests.system import prefect_ui
from tests.system.conftest import Host

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PLATFORM = "cad-test"
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    made = Orchestrator(
        tmp_path_factory.mktemp("casualty") / "orchestrator", platform=PLATFORM, environment={}
    )
    made.create()
    try:
        made.start_server()
        yield made
    finally:
        made.destroy()


@pytest.fixture
def to_server(server: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    to = server.environment()
    for name in ("LIFEBOAT_ORCHESTRATOR_PASSWORD",):
        monkeypatch.setenv(name, to[name])
    with temporary_settings(
        {
            PREFECT_API_URL: to["PREFECT_API_URL"],
            PREFECT_API_AUTH_STRING: to["PREFECT_API_AUTH_STRING"],
        }
    ):
        yield


@pytest.fixture
def protected(host: Host, server: Orchestrator, to_server: None) -> Host:
    """A host whose lifeboat.yaml knows Prefect's database."""
    server.protect(host.root / "lifeboat.yaml")
    return host


def until(what: str, true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def scheduled(ui: prefect_ui.Ui, state: str = "SCHEDULED") -> list[dict]:
    wanted = {"state": {"type": {"any_": [state]}}}
    return ui.post("/flow_runs/filter", flow_runs=wanted)


def test_history_comes_back_after_the_database_was_destroyed(protected, server) -> None:
    """Backed up, proven, destroyed, recovered with no Prefect at all; then everything goes on."""
    host, settings, ui = protected, protected.settings, prefect_ui.Ui(server)
    deployment.apply(settings)
    names = set(ui.deployments(PLATFORM))
    assert f"{PLATFORM}.backup-orchestrator" in names
    form = ui.deployments(PLATFORM)[f"{PLATFORM}.ship-wal"]
    known = [ui.start(form) for _ in range(5)]
    ui.post("/variables/", name="asked_for", value="42")

    host.run("backup", "orchestrator", "--without-prefect")
    [point] = orchestrator.list_points(settings)
    assert set(point.copies) == set(places.RESTIC_TIERS)
    assert point.runs >= 5 and point.deployments == len(names)
    assert statuses(settings) == {
        "orchestrator-local": "PASS",
        "orchestrator-s3": "PASS",
        "orchestrator-verified": "FAIL",
    }

    # The disk of its database dies; the server, on an empty one, begins anew.
    server.stop()
    shutil.rmtree(server.directory / "database")
    server.start_server()
    assert not ui.deployments(PLATFORM)
    host.run("backup", "orchestrator", "--without-prefect")
    newest, older = orchestrator.list_points(settings)
    assert older.id == point.id and statuses(settings)["orchestrator-local"] == "FAIL", (
        "what began anew is not a backup of the history"
    )
    server.stop()
    server.start_database()

    told = host.run("recover", "orchestrator", "--dry-run").stdout
    assert point.id in told and newest.id not in told, "an emptied history is not the newest"
    host.run("recover", "orchestrator", "--approve", "another", ok=7)
    done = host.run("recover", "orchestrator", "--approve", PLATFORM)
    assert "moved aside: Prefect's database" in done.stdout

    server.start_server()
    assert set(ui.deployments(PLATFORM)) == names
    assert {ui.run(run)["id"] for run in known} == set(known)
    assert (
        ui.get("/variables/name/asked_for")["value"] == 42
        or ui.get("/variables/name/asked_for")["value"] == "42"
    )
    before = {run["id"] for run in scheduled(ui)}
    later = ui.deployments(PLATFORM)[f"{PLATFORM}.ship-wal"]["id"]
    ui.post(f"/deployments/{later}/schedule")
    until("no run is scheduled any more", lambda: {r["id"] for r in scheduled(ui)} - before)
    to = server.environment()
    access = {name: to[name] for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")}
    [record] = [name for name in host.records() if name.startswith("recover-orchestrator")][-1:]
    assert record in host.run("reconcile", **access).stdout, "it ran while no server was there"
    assert record not in host.run("reconcile", **access).stdout, "and is shown once"
    [shown] = ui.post("/flow_runs/filter", flow_runs={"name": {"any_": [record]}})
    assert (
        shown["state"]["type"] == "COMPLETED" and "Ran without Prefect" in shown["state"]["message"]
    )
    assert "restored from" in ui.artifacts(shown["id"])[f"{PLATFORM}-result"]["data"]
    kept = postgres.database_names(orchestrator.connection(settings))
    assert [n for n in kept if n.startswith(f"{DATABASE}_before_")] and not [
        n for n in kept if "_incoming_" in n
    ]


def statuses(settings: Settings) -> dict[str, str]:
    return {finding.name: str(finding.status) for finding in orchestrator.findings(settings)}


def test_a_point_is_proven_in_a_scratch_server_and_a_lost_row_is_found(
    protected, server, tmp_path
) -> None:
    settings = protected.settings
    protected.run("backup", "orchestrator", "--without-prefect")
    point = orchestrator.prove(settings, tmp_path)
    assert statuses(settings)["orchestrator-verified"] == "PASS"
    [known] = orchestrator.list_points(settings)
    assert known.id == point.id and known.verified_at

    dump, facts, _ = orchestrator.fetch(settings, known, places.RESTIC_TIERS, tmp_path / "again")
    live = orchestrator.connection(settings)
    try:
        made = postgres.make_database(live, f"{DATABASE}_incoming_test", dump)
        orchestrator.question(made, facts)
        postgres.query(made, "INSERT INTO variable (name, value) VALUES ('canary', '1')")
        with pytest.raises(VerificationFailed, match=r"public\.variable"):
            orchestrator.question(made, facts)
    finally:
        # What a recovery that was killed left behind: the next one removes it.
        assert postgres.drop_databases(live, f"{DATABASE}_incoming_")


def test_another_database_is_never_taken_for_prefects(protected, server) -> None:
    yaml = protected.root / "lifeboat.yaml"
    yaml.write_text(yaml.read_text().replace(f"name: {DATABASE}", "name: postgres"))
    refused = protected.run("backup", "orchestrator", "--without-prefect", ok=3)
    assert "has no table public.flow_run" in refused.stderr
    with pytest.raises(PreconditionError, match="there is none"):
        orchestrator.prove(protected.settings, protected.root)
