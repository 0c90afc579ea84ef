"""The staging platform does what a user expects, and every fault really breaks it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psycopg
import pytest

from lifeboat.core.errors import PreconditionError
from lifeboat.tools.stacks import ServiceState
from staging import faults, load, processes
from staging.faults import Harm
from staging.seed import make_drawing
from staging.site import CRITICAL, DEFERRED, Site

pytestmark = [pytest.mark.system]


@pytest.fixture(scope="module")
def engineer(staging_site):
    return load.client_of(staging_site)


@pytest.fixture(scope="module")
def admin(staging_site):
    return load.client_of(staging_site, admin=True)


def states(site):
    return {service.name: service.state for service in site.status()}


def health(site, which="backend"):
    try:
        answer = httpx.get(f"{getattr(site.base_urls, which)}/health", timeout=5)
    except httpx.HTTPError as error:
        return type(error).__name__
    return answer.status_code


def soon(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_everything_runs_but_the_backups(staging_site):
    running = {name for name, state in states(staging_site).items() if state == "running"}
    assert running == {*CRITICAL, *DEFERRED}
    assert health(staging_site) == health(staging_site, "ai") == 200


def test_only_its_owner_reads_the_secrets(staging_site):
    for path in (
        staging_site.secret_path,
        staging_site.server / ".env.production",
        staging_site.supervisor_config,
        staging_site.server / "config" / "certs" / "cad.key",
    ):
        assert path.stat().st_mode & 0o077 == 0
    on_the_server = (staging_site.server / ".env.production").read_text()
    assert staging_site.environment()["LIFEBOAT_VAULT_PASSWORD"] not in on_the_server


def test_login(staging_site, engineer):
    assert engineer.call("GET", "/me")["email"] == staging_site.facts.engineer
    url = staging_site.base_urls.backend
    wrong = {"email": staging_site.facts.engineer, "password": "wrong"}
    assert httpx.post(f"{url}/auth/login", json=wrong).status_code == 401
    assert httpx.get(f"{url}/me").status_code == 401
    assert httpx.get(f"{url}/files", headers={"Authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize("kind", ["dxf", "step", "stl"])
def test_an_upload_comes_back_is_on_disk_and_becomes_searchable(staging_site, engineer, kind):
    drawing = make_drawing(7, kind, salt="upload")
    digest = hashlib.sha256(drawing.content).hexdigest()
    made = engineer.upload(drawing.name, drawing.content)
    assert made["sha256"] == digest
    assert engineer.request("GET", f"/files/{made['id']}/content").content == drawing.content
    on_disk = staging_site.files / digest[:2] / digest[2:4] / f"{digest}.{kind}"
    assert on_disk.read_bytes() == drawing.content
    found = soon(
        lambda: (
            engineer.call("GET", "/search", params={"q": "upload00007 manifold"})["results"]
            if kind != "dxf"
            else engineer.call("GET", "/search", params={"q": "manifold OUTLINE"})["results"]
        )
    )
    soon(
        lambda: (
            made["id"]
            in {
                result["id"]
                for result in engineer.call("GET", "/search", params={"q": "upload00007"})[
                    "results"
                ]
            }
        )
    )
    assert found


def test_an_upload_of_something_else_is_refused(engineer):
    assert engineer.request("POST", "/files", files={"file": ("a.exe", b"x")}).status_code == 415
    assert engineer.request("POST", "/files", files={"file": ("a.dxf", b"")}).status_code == 422


def test_rows(engineer):
    made = engineer.create_project("gearbox")
    assert engineer.call("GET", f"/projects/{made['id']}")["name"] == "gearbox"
    assert engineer.request("GET", "/projects/999999").status_code == 404


def test_seeded_drawings_are_found(staging_site, engineer):
    results = engineer.call("GET", "/search", params={"q": staging_site.facts.search_word})
    assert len(results["results"]) >= 3
    assert engineer.call("GET", "/files")["total"] >= staging_site.facts.drawings


def test_the_models_give_their_known_answers(staging_site):
    facts = staging_site.facts
    assert {"default", "tolerances"} == set(facts.known_answers)
    for model_id, answer in facts.known_answers.items():
        asked = {"model_id": model_id, "query": facts.known_query}
        said = httpx.post(f"{staging_site.base_urls.ai}/ai/inference", json=asked).json()
        assert said["answer"] == answer


def test_the_dashboard_is_for_administrators(admin, engineer):
    assert engineer.request("GET", "/admin").status_code == 403
    page = admin.request("GET", "/admin")
    assert page.status_code == 200
    assert "Administration" in page.text
    assert admin.call("GET", "/admin/stats")["users"] >= 7


def test_lifeboats_role_may_do_what_backups_need_and_no_more(staging_site):
    with psycopg.connect(staging_site.dsn("lifeboat"), autocommit=True) as connection:
        connection.execute("SELECT count(*) FROM drawings")
        connection.execute("SELECT pg_create_restore_point('x'), pg_switch_wal()")
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        connection.execute("SELECT pg_reload_conf()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM drawings")


def test_what_was_not_indexed_is_after_the_next_start(staging_site, engineer):
    staging_site.stack.stop(["celery-worker"])
    drawing = make_drawing(11, "step", salt="queue")
    made = engineer.upload(drawing.name, drawing.content)
    with psycopg.connect(staging_site.dsn(), autocommit=True) as connection:
        # The queue is lost with Redis' data, and with it every session.
        staging_site.stack.stop(["backend", "redis"])
        for path in (staging_site.server / "data" / "redis").rglob("*.aof"):
            path.unlink()
        staging_site.stack.start(["redis", "backend", "celery-worker"])
        staging_site.wait_until_healthy()
        soon(
            lambda: connection.execute(
                "SELECT 1 FROM drawing_index WHERE drawing_id = %s", [made["id"]]
            ).fetchone()
        )


def test_the_load_survives_an_outage_and_its_record_agrees(staging_site, tmp_path):
    record, stop_file = tmp_path / "record.jsonl", tmp_path / "stop"
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "staging.load", "--site", staging_site.root),
            *("--record", record, "--rate", "20", "--stop-file", stop_file),
        ]
    )
    try:
        soon(lambda: record.exists() and len(load.read_record(record)) > 15)
        staging_site.stack.stop(["postgres"])
        soon(lambda: health(staging_site) == 503)
        before = len(load.read_record(record))
        staging_site.stack.start(["postgres"])
        soon(lambda: len(load.read_record(record)) > before + 5)
        stop_file.touch()
        assert child.wait(20) == 0
    finally:
        child.kill()
    assert record.read_text().count('"outage"') == 1
    losses = load.compare(record, dsn=staging_site.dsn(), files=staging_site.files)
    assert not losses.any
    assert losses.acknowledged_rows > 10
    assert losses.acknowledged_files > 5

    # And what is gone is counted.
    entries = load.read_record(record)
    row = next(entry for entry in entries if entry.kind == "row")
    file = next(entry for entry in entries if entry.kind == "file")
    with psycopg.connect(staging_site.dsn(), autocommit=True) as connection:
        connection.execute("DELETE FROM projects WHERE id = %s", [row.id])
    next(staging_site.files.rglob(f"{file.sha256}.*")).write_bytes(b"spoilt")
    losses = load.compare(record, dsn=staging_site.dsn(), files=staging_site.files)
    assert losses.rows_lost == 1
    assert losses.files_lost >= 1
    assert row.name in losses.names
    assert file.name in losses.names


def test_fault_kill_database(staging_site, reset_staging):
    reset_staging()
    broken = faults.break_site(staging_site, "kill-database")
    assert len(broken.damages) > 1
    soon(lambda: states(staging_site)["postgres"] is ServiceState.FAILED)
    assert health(staging_site) == 503
    time.sleep(2)  # long enough for supervisor to bring it back, which it must not
    assert states(staging_site)["postgres"] is ServiceState.FAILED
    with pytest.raises(PreconditionError, match="none runs"):
        faults.kill_database(staging_site)
    staging_site.stack.restart(["postgres"])
    soon(lambda: health(staging_site) == 200)


def test_fault_drop_table(staging_site, reset_staging):
    assert faults.drop_table(staging_site).names == ("drawing_index",)
    with (
        psycopg.connect(staging_site.dsn()) as connection,
        pytest.raises(psycopg.errors.UndefinedTable),
    ):
        connection.execute("SELECT * FROM drawing_index")
    assert health(staging_site) == 503


def test_fault_damage_files(staging_site):
    before = digests(staging_site.files)
    broken = faults.damage_files(staging_site, share=0.2)
    after = digests(staging_site.files)
    changed = {name for name, digest in before.items() if after.get(name) != digest}
    assert changed == set(broken.names)
    assert {damage.harm for damage in broken.damages} == {
        Harm.DELETED,
        Harm.TRUNCATED,
        Harm.FLIPPED,
    }
    deleted = {damage.name for damage in broken.damages if damage.harm is Harm.DELETED}
    assert before.keys() - after.keys() == deleted


def test_fault_corrupt_and_delete_models(staging_site):
    broken = faults.corrupt_models(staging_site)
    assert broken.names == ("default.safetensors", "tolerances.safetensors")
    # Without a restart: a model is only as good as its file.
    assert health(staging_site, "ai") == 503
    listed = httpx.get(f"{staging_site.base_urls.ai}/models").json()["models"]
    assert [model["loaded"] for model in listed] == [False, False]
    faults.delete_models(staging_site)
    asked = {"model_id": "default", "query": "x"}
    answer = httpx.post(f"{staging_site.base_urls.ai}/ai/inference", json=asked)
    assert answer.status_code == 503
    staging_site.stack.restart(["ai-service"])
    soon(lambda: health(staging_site, "ai") == 503)


def test_fault_overwrite_pages(staging_site, reset_staging):
    reset_staging()
    assert faults.overwrite_pages(staging_site).names[0] == "drawings"
    staging_site.stack.restart(["postgres"])

    def reads():
        try:
            with psycopg.connect(staging_site.dsn()) as connection:
                connection.execute("SELECT * FROM drawings").fetchall()
        except psycopg.errors.DataCorrupted:
            return "corrupted"
        except psycopg.OperationalError:
            return None  # still starting
        return "nothing is wrong"

    assert soon(reads) == "corrupted"


def test_fault_destroy_data_directory(staging_site, reset_staging):
    reset_staging()
    faults.destroy_data_directory(staging_site)
    assert not staging_site.database_directory.exists()
    assert health(staging_site) == 503


def test_fault_lose_server(staging_site, reset_staging):
    reset_staging()
    pids = [service.pid for service in staging_site.status() if service.pid]
    assert len(pids) == 6
    faults.lose_server(staging_site)
    assert not staging_site.server.exists()
    assert processes.processes_of(staging_site.server) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert health(staging_site) == "ConnectError"
    # Outside, everything is as it was.
    assert httpx.get(staging_site.base_urls.s3).status_code == 403
    assert staging_site.origin.is_dir()
    assert "LIFEBOAT_VAULT_PASSWORD" in staging_site.environment()
    assert staging_site.exists


def test_an_unknown_fault_names_those_there_are(staging_site):
    with pytest.raises(PreconditionError, match="kill_database"):
        faults.break_site(staging_site, "nonsense")


def test_destroy_leaves_no_process_and_no_file_even_after_a_crash(tmp_path):
    site = Site(tmp_path / "site")
    site.create(scale=0.03, database_bytes=0)
    with pytest.raises(PreconditionError, match="not empty"):
        site.create()
    site.start(["postgres", "redis", "backend"])
    supervisor = int((site.server / "run" / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    site.destroy()
    assert processes.processes_of(site.root) == []
    assert list(tmp_path.iterdir()) == []
    ports = site.ports
    assert not [p for p in Path("/tmp").glob("seaweedfs-*") if str(ports.s3_grpc) in p.name]
    site.destroy()  # already so


def test_destroy_refuses_a_directory_that_is_no_site(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(PreconditionError, match="does not look like one"):
        Site(tmp_path).destroy()
    assert (tmp_path / "thesis.tex").exists()


def digests(directory):
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }
