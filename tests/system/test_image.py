"""Lifeboat's own image: built once, looked at, and alone with a bucket on an emptied engine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from lifeboat.settings import load_settings
from staging.contained_site import ContainedSite
from staging.ports import choose_free
from tests.system import settings_file
from tests.system.image import Image
from tests.system.test_recoveries import PLATFORM, Shell

pytestmark = [
    pytest.mark.system,
    # The first test pays for the images.
    pytest.mark.timeout(900),
]

WORKERS = ("worker-backups", "worker-recoveries")
_TABLES = ("users", "projects", "drawings", "drawing_index", "project_revisions", "ai_results")


def test_its_programs_are_those_that_lifeboat_needs(image: Image) -> None:
    told = image.shell(
        "lifeboat version; python3 --version; restic version; git --version; postgres --version;"
        " pg_receivewal --version; pg_verifybackup --version; docker compose version --short"
    )
    assert "Python 3.13." in told
    assert "restic 0.1" in told
    assert "git version 2." in told
    assert told.count("(PostgreSQL) 17.") == 3
    assert told.splitlines()[-1].startswith("2.")
    zones = "import zoneinfo; print(zoneinfo.TZPATH, zoneinfo.ZoneInfo('Europe/Berlin'))"
    assert image.shell(f'python -c "{zones}"').split() == ["()", "Europe/Berlin"]


def test_nothing_of_this_machine_is_in_it(image: Image) -> None:
    """Neither where packages came from nor whom this machine trusts."""
    history = image.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image.name)
    found = image.shell(
        "ls -A /run/secrets /root/.config /root/.cache /opt/build 2>/dev/null;"
        "env; cat /etc/pip.conf 2>/dev/null; find / -xdev -name pytest -o -xdev -name moto"
    )
    assert "PIP_INDEX" not in history + found
    assert "pip.conf" not in found
    assert "/pytest" not in found
    assert "/moto" not in found


def test_the_server_past_one_machine_is_made_of_it(image: Image) -> None:
    image.build("lifeboat-server")
    server = f"{image.name}-server"
    try:
        look = "import prefect_redis, prefect; print(prefect.__version__)"
        told = image.docker("run", "--rm", "--network=none", server, "version")
        assert "3.8.8" in told
        python = ("--entrypoint=/opt/lifeboat/.venv/bin/python", server, "-c", look)
        assert image.docker("run", "--rm", "--network=none", *python).strip() == "3.8.8"
    finally:
        image.docker("image", "rm", "--force", server)


class ImageShell(Shell):
    """An operator's shell on a host that has an engine and the image, and nothing else of ours."""

    image: Image
    mounts: tuple[Path, ...]

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        own = {"LIFEBOAT_CONFIG": str(self.site.settings_path), **environment}
        return self.image.start(
            *words,
            volumes=self.site.volumes,
            mounts=self.mounts,
            env_file=self.site.secret_path,
            environment=own,
        )


@pytest.fixture(scope="module")
def shell(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageShell]:
    """A platform on containers, whose backups the image makes."""
    site = ContainedSite(tmp_path_factory.mktemp("image") / "site")
    try:
        site.create(scale=0.1)
        quiet = {"keep.files_seconds": 3600, "keep.on_change_seconds": 3600}
        settings_file.change(site.settings_path, quiet | settings_file.QUICK_CHECKS)
        site.start()
        shell = ImageShell(site, tmp_path_factory.mktemp("outside"), patience_seconds=400)
        shell.image, shell.mounts = image, (site.root,)
        shell.run("enrol")
        site.stack.start(["wal-receiver"])
        for asset in ("config", "files", "models", "database"):
            shell.run("backup", asset)
        yield shell
    finally:
        site.destroy()


def content_of(site: ContainedSite) -> dict[str, object]:
    """Every row of the platform, and every file and model, as they are."""
    content: dict[str, object] = {}
    with psycopg.connect(site.dsn()) as connection:
        for table in _TABLES:
            rows = connection.execute(f"SELECT md5(t::text) FROM {table} AS t ORDER BY 1")
            content[table] = rows.fetchall()
    for place in (site.files, site.models):
        for path in place.rglob("*"):
            if path.is_file():
                content[f"{place.name}/{path.relative_to(place)}"] = path.read_bytes()
    return content


def test_the_image_checks_and_verifies_the_platform(shell: ImageShell) -> None:
    assert "18 of 18 passed" in shell.run("verify").stdout
    child = shell.start("check", "--json")
    out, _ = child.communicate(timeout=120)
    failed = {c["name"]: c["evidence"] for c in json.loads(out)["checks"] if c["status"] == "FAIL"}
    # The vault and the engine's volumes are two mounts here, and it is honest about the price.
    assert failed.keys() == {"rename"}, failed


@pytest.fixture
def orchestrated(shell: ImageShell) -> Iterator[dict[str, str]]:
    """The environment of a Compose project of docker-compose.yml's; it is removed again."""
    site = shell.site
    environment = {
        **site.environment(),
        "LIFEBOAT_PROJECT": f"{site.project}-prefect",
        "LIFEBOAT_PORT": str(choose_free(1)[0]),
        "LIFEBOAT_PLATFORM": PLATFORM,
        "LIFEBOAT_DIRECTORY": str(site.server),
        "LIFEBOAT_MOUNT": str(site.root),
        "LIFEBOAT_VOLUMES": str(site.volumes),
        "DOCKER_SOCKET": shell.image.socket,
    }
    try:
        yield environment
    finally:
        shell.image.compose("down", "--volumes", "--timeout=20", **environment)


def test_one_command_starts_prefect_and_its_workers(
    shell: ImageShell, orchestrated: dict[str, str]
) -> None:
    """What an operator presses in the UI runs where the data is, and nobody else may press it."""

    def compose(*words: str) -> str:
        return shell.image.compose(*words, **orchestrated)

    told = json.loads(compose("config", "--format", "json"))["services"]
    ports = [port for service in told.values() for port in service.get("ports", ())]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}

    try:
        compose("up", "--detach", "--wait", "--wait-timeout=300", *WORKERS)
    finally:
        print(compose("logs", "--tail=60", *WORKERS))
    lines = compose("exec", "-T", "prefect-server", "cat", "/run/lifeboat/prefect.env").splitlines()
    password = dict(line.split("=", 1) for line in lines)["PREFECT_API_AUTH_STRING"]
    url = f"http://127.0.0.1:{orchestrated['LIFEBOAT_PORT']}/api"
    assert httpx.post(f"{url}/flows/count", json={}).status_code == 401
    assert password not in compose("config", "--format", "json")
    with httpx.Client(base_url=url, auth=tuple(password.split(":")), timeout=30) as api:
        name = f"/deployments/name/diagnose/{PLATFORM}.diagnose"
        deployment = api.get(name).raise_for_status().json()["id"]
        asked = api.post(f"/deployments/{deployment}/create_flow_run", json={}).raise_for_status()
        run, deadline = asked.json(), time.monotonic() + 180
        while run["state_type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert time.monotonic() < deadline, run["state_name"]
            time.sleep(0.5)
            run = api.get(f"/flow_runs/{run['id']}").raise_for_status().json()
    assert run["state_name"] == "Completed", compose("logs", "--tail=40", "worker-recoveries")


def test_the_image_alone_rebuilds_the_platform(shell: ImageShell) -> None:
    """Last, because it takes everything away but the bucket and the engine."""
    site = shell.site
    record = shell.write()
    site.containers.stop(["celery-worker", "backend"])
    before = content_of(site)
    for asset in ("files", "config"):
        shell.run("backup", asset)
    shell.run("wal", "ship")
    s3 = load_settings(site.settings_path).vault.s3
    site.lose_server()
    assert not site.server.exists()
    assert not list(site.volumes.glob(f"{site.project}_*"))

    site.server.mkdir()
    shell.mounts = (site.server, site.origin)
    told = shell.run(
        *("recover", "server", "--into", str(site.server), "--approve", PLATFORM, "--json"),
        LIFEBOAT_BUCKET=s3.bucket,
        LIFEBOAT_ENDPOINT=s3.endpoint,
        LIFEBOAT_CONFIG="/nonexistent",
    )
    checks = json.loads(told.stdout)["verdict"]["checks"]
    assert len(checks) == 18
    assert [check["name"] for check in checks if check["status"] != "PASS"] == []
    after = content_of(site)
    assert {name for name in before if before[name] != after.get(name)} == set()
    shell.nothing_lost(record)
