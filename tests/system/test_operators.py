"""Recoveries as an operator starts them in the UI: form, plan, approval, clock, checks, record.

On a real server, by a real worker, on a platform whose models are lost.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from lifeboat.core.checks import CHECK_NAMES
from lifeboat.core.health import Health, Proposal
from lifeboat.settings import load_settings
from staging import faults
from staging.orchestrator import Orchestrator
from staging.site import Site
from tasks import artifacts, health, places
from tasks.prefect_server import deployment
from tasks.record import recorded
from tests.system import browser, prefect_ui, receivers, settings_file

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PLATFORM = "cad-ai-staging"
POOL = "lifeboat-recoveries"


@pytest.fixture(scope="module")
def to_server(prefect_server: Orchestrator) -> Iterator[None]:
    to = prefect_server.environment()
    with temporary_settings(
        {
            PREFECT_API_URL: to["PREFECT_API_URL"],
            PREFECT_API_AUTH_STRING: to["PREFECT_API_AUTH_STRING"],
        }
    ):
        yield


@pytest.fixture(scope="module")
def site(staging_site: Site, lifeboat) -> Site:
    own = {"keep.files_seconds": 3600, "keep.on_change_seconds": 3600}
    own |= {"vault.s3.prefix": "operators", **settings_file.QUICK_CHECKS}
    settings_file.change(staging_site.settings_path, own)
    staging_site.stack.start(["wal-receiver"])
    for asset in ("config", "files", "models", "database"):
        done = lifeboat(staging_site.settings_path, "backup", asset, **staging_site.environment())
        assert done.returncode == 0, done.stderr
    return staging_site


@pytest.fixture(scope="module")
def ui(
    site: Site,
    prefect_server: Orchestrator,
    to_server: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[prefect_ui.Ui]:
    deployment.apply(load_settings(site.settings_path))
    directory = tmp_path_factory.mktemp("worker")
    with prefect_ui.worker(prefect_server, POOL, PLATFORM, directory, **site.environment()):
        yield prefect_ui.Ui(prefect_server)


@pytest.fixture
def lost_models(site: Site) -> Iterator[dict[str, bytes]]:
    """Models as they were before some of them were lost; whatever happens, all are back then."""
    whole = {path.name: path.read_bytes() for path in site.models.iterdir()}
    faults.break_site(site, "delete-models")
    assert contents(site.models) != {n: hashlib.sha256(c).hexdigest() for n, c in whole.items()}
    yield whole
    for name, content in whole.items():
        if not (site.models / name).exists():
            (site.models / name).write_bytes(content)


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def touched(site: Site) -> dict[str, dict[str, str]]:
    """What a recovery of models may touch."""
    return {name: contents(site.server / "data" / name) for name in ("models", "files")}


def test_a_plan_is_read_mistyped_and_rejected_and_nothing_is_touched(
    ui, site, lost_models, lifeboat
) -> None:
    form = ui.deployments(PLATFORM)[f"{PLATFORM}.recover-models"]
    assert "source" in ui.refuses(form, source="tape")
    before = touched(site)
    run = ui.start(form)
    ui.until_it_asks(run)
    plan = ui.artifacts(run)[f"{PLATFORM}-recovery-plan"]["data"]
    for part in ("**What is lost:**", "never verified", "## How long", "## Steps", "models-2"):
        assert part in plan, plan
    assert "restoring models: no restore test has measured it yet" in plan

    refused = ui.answer(run, decision="approve", platform=PLATFORM, approver="x")
    assert refused["status"] == "REJECT", "a name of one letter is nobody's"
    ui.answer(run, decision="approve", platform="cad-ai-production", approver="Ada")
    ui.until_it_asks(run, attempt=2)
    ui.answer(run, decision="reject", platform="", approver="Ada", reason="wrong platform")
    ended = ui.until_it_ends_as(run, "Rejected")
    assert ended["state"]["type"] == "CANCELLED"
    assert "rejected by Ada: wrong platform" in ended["state"]["message"]
    assert touched(site) == before

    ui.retry(run)
    ui.until_it_asks(run)
    ui.answer(run, decision="reject", platform="", approver="Ada", reason="once more")
    ended = ui.until(run, lambda r: r["state"]["name"] == "Rejected", "It does not end Rejected")
    assert "rejected by Ada: once more" in ended["state"]["message"]
    assert touched(site) == before

    late = ui.start(form, approval_seconds=10)
    ended = ui.until_it_ends_as(late, "NobodyApproved")
    assert ended["state"]["type"] == "CANCELLED"
    assert "nobody approved the plan within 10 s" in ended["state"]["message"]
    assert touched(site) == before

    # A plan that waits holds nobody up, and is not carried out when another has done it.
    waiting = ui.start(form)
    ui.until_it_asks(waiting)
    for words in (("backup", "config", "--always"), ("recover", "models", "--approve", PLATFORM)):
        done = lifeboat(site.settings_path, *words, **site.environment())
        assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in site.models.iterdir()} == lost_models
    ui.answer(waiting, decision="approve", platform=PLATFORM, approver="Ada")
    ended = ui.until_it_ends_as(waiting, "Overtaken")
    assert ended["state"]["type"] == "CANCELLED"
    assert "recover-models-" in ended["state"]["message"]

    faults.break_site(site, "delete-models")
    approved = ui.start(form)
    ui.until_it_asks(approved)
    ui.answer(approved, decision="approve", platform=PLATFORM, approver="Ada", reason="3 a.m.")
    ui.until_it_ends_as(approved, "Completed")
    assert {path.name: path.read_bytes() for path in site.models.iterdir()} == lost_models
    shown = ui.artifacts(approved)
    clock = shown[f"{PLATFORM}-clock"]["data"]
    assert "recovered" in clock and "(RTO)" in clock and "| restore |" in clock
    progress = [a for key, a in shown.items() if key.startswith(f"{PLATFORM}-progress-")]
    assert [a["data"] for a in progress] == [100.0]
    assert "MB of" in progress[0]["description"] or "kB of" in progress[0]["description"]
    checks = shown[f"{PLATFORM}-checks"]["data"]
    assert re.findall(r"^\| ([a-z-]+) \| PASS \| \S", checks, re.M) == list(CHECK_NAMES)
    assert "rewrite damaged" in [row["step"] for row in ui.table(approved, f"{PLATFORM}-timeline")]
    result = shown[f"{PLATFORM}-result"]["data"]
    assert "approved by: Ada" in result and "18 of 18 checks passed" in result
    record = next(line for line in result.splitlines() if line.startswith("## The record"))
    run_id = record.split("`")[1]
    settings = load_settings(site.settings_path)
    assert (places.runs_directory(settings) / run_id / "record.json").exists()
    assert f"/operators/records/runs/{run_id}/record.json" in result
    log = ui.log(approved)
    assert "The plan:" in log and "rewrite damaged ..." in log, "the UI's log tells each step"
    for one in (run, late, approved):
        kept = ui.all_that_is_kept(one)
        for name, secret in site.secrets().items():
            assert secret not in kept or not name.endswith(("PASSWORD", "KEY")), name


def test_the_ui_is_told_nothing_secret_and_holds_nobody_up(
    to_server, site, prefect_server, tmp_path, monkeypatch
) -> None:
    """A secret in what a check saw; then a server that dies while a run goes on."""
    import prefect

    canary = site.secrets()["POSTGRES_PASSWORD"]
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    settings = load_settings(site.settings_path)
    monkeypatch.setattr(artifacts, "LAST_WORD_SECONDS", 30.0)

    @prefect.flow(name="telling", persist_result=False)
    def telling() -> str:
        with (
            recorded("recover-x", platform=PLATFORM, directory=tmp_path) as run,
            artifacts.shown(run, settings),
        ):
            run.fact(seen=f"password is {canary}")
        return str(prefect.context.FlowRunContext.get().flow_run.id)

    @prefect.flow(name="dying", persist_result=False)
    def dying() -> float:
        began = time.monotonic()
        with (
            temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
            recorded("recover-y", platform=PLATFORM, directory=tmp_path) as run,
            artifacts.shown(run, settings),
        ):
            for number in range(100):
                run.step_began(f"step-{number}", None, time.time())
        return time.monotonic() - began

    ui = prefect_ui.Ui(prefect_server)
    told = ui.artifacts(telling())[f"{PLATFORM}-result"]["data"]
    assert canary not in told and "seen: password is ***" in told

    monkeypatch.setattr(artifacts, "LAST_WORD_SECONDS", 0.5)
    assert dying() < 20
    assert os.listdir(tmp_path)


@pytest.fixture
def database_that_is_broken(site: Site, lifeboat) -> Iterator[None]:
    """A platform whose database a test destroys; it is there before the test, and after it."""

    def there() -> None:
        if not site.database_directory.exists():
            words = ("recover", "database", "--approve", PLATFORM)
            done = lifeboat(site.settings_path, *words, **site.environment())
            assert done.returncode == 0, done.stderr

    there()
    yield
    there()


@pytest.mark.usefixtures("database_that_is_broken")
def test_what_stays_bad_is_proposed_once_and_taken_back_when_it_is_well(
    ui, site, tmp_path, monkeypatch
) -> None:
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    form = ui.deployments(PLATFORM)[f"{PLATFORM}.recover-database"]
    with receivers.chat() as chat:
        own = tmp_path / "lifeboat.yaml"
        told = {"alarms.channels": [{"name": "chat", "url": chat.address}], "health.failures": 2}
        settings_file.change(site.settings_path, told, to=own)
        own.replace(site.settings_path.with_name("health.yaml"))
        settings = load_settings(site.settings_path.with_name("health.yaml"))

        def look() -> Health:
            return health.judge(settings, health.look(settings))

        def until_well() -> Health:
            deadline = time.monotonic() + 150
            while not (now := look()).good:
                assert time.monotonic() < deadline, now
            return now

        def until_proposed() -> Proposal:
            # Not always at once: while the process manager still tries, nothing is diagnosed.
            deadline = time.monotonic() + 150
            while (found := look()).streak.proposal is None:
                assert time.monotonic() < deadline, found
            return found.streak.proposal

        until_well()
        known = ui.runs(form)
        faults.break_site(site, "destroy-data-directory")
        assert "the database does not answer" in look().look.wrong
        assert ui.runs(form) == known, "once is no reason"
        proposed = until_proposed()
        assert look().streak.proposal == look().streak.proposal == proposed
        assert ui.runs(form) - known == {proposed.run}
        ui.until_it_asks(proposed.run)
        plan = ui.artifacts(proposed.run)[f"{PLATFORM}-recovery-plan"]["data"]
        assert re.search(r"Proposed by the health watch: \d+ looks in a row were bad", plan)
        assert {title for title, _ in chat.got} == {f"{PLATFORM}: is not well"}
        (_, at_once), *_, (_, text) = chat.got
        assert "FAIL health-platform" in at_once and "the database does not answer" in at_once
        assert "recover-database waits for your approval" in text and proposed.run in text

        ui.answer(proposed.run, decision="approve", platform=PLATFORM, approver="Ada")
        ui.until_it_ends_as(proposed.run, "Completed")
        checks = ui.artifacts(proposed.run)[f"{PLATFORM}-checks"]["data"]
        assert "18 of 18 checks passed" in checks
        assert until_well().streak.proposal is None
        assert chat.titles[-1] == f"{PLATFORM}: is not well: good again"

        site.stack.stop(["postgres"])
        proposed = until_proposed()
        ui.until_it_asks(proposed.run)
        site.stack.start(["postgres"])
        assert until_well().streak.proposal is None
        ended = ui.until_it_ends_as(proposed.run, "Withdrawn")
        assert "came back to health by itself" in ended["state"]["message"]


@pytest.mark.usefixtures("database_that_is_broken")
def test_a_person_recovers_the_database_with_a_browser(ui, site, tmp_path) -> None:
    """Runs it from its form, reads the plan, rejects once, approves once, and opens the checks."""
    form = ui.deployments(PLATFORM)[f"{PLATFORM}.recover-database"]
    faults.break_site(site, "destroy-data-directory")

    with browser.opened(tmp_path, password=ui.server.password) as page:

        def start() -> str:
            known = ui.runs(form)
            fields = ("From where", "Point in time", "Which cures may be tried", "Submit")
            page.go(f"{ui.server.url}/v2/deployments/deployment/{form['id']}/run", *fields)
            page.click("Submit", "button")
            return ui.until_new_run(form, known)

        def open_approval(run: str) -> str:
            ui.until_it_asks(run)
            page.go(f"{ui.server.url}/v2/runs/flow-run/{run}", "Paused", "Artifacts")
            page.click("Open menu", "button")
            page.click("Resume", "[role=menuitem]")
            return page.until("Resume Flow Run", "What is lost:", "How long", "Your name")

        run = start()
        plan = open_approval(run)
        page.picture("approval")
        assert "data directory: it is not there" in plan and "database-2" in plan
        page.type("Your name", "Ada")
        page.type("Reason", "only looking")
        page.click("Resume", "[role=dialog] button")
        page.until("Rejected")
        ended = ui.until_it_ends_as(run, "Rejected")
        assert "rejected by Ada: only looking" in ended["state"]["message"]
        assert not site.database_directory.exists()

        run = start()
        open_approval(run)
        page.type("Name of the platform", PLATFORM)
        page.type("Your name", "Ada")
        page.choose("Decision", "approve")
        page.click("Resume", "[role=dialog] button")
        ui.until_it_ends_as(run, "Completed")
        page.until("Completed")
        checks = ui.artifacts(run)[f"{PLATFORM}-checks"]["id"]
        shown = ("18 of 18 checks passed", *CHECK_NAMES)
        page.go(f"{ui.server.url}/v2/artifacts/artifact/{checks}", *shown)
        page.picture("checks")
