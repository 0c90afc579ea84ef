"""The platform on Docker Compose, as it really runs: enrolled, broken, and brought back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import psycopg
import pytest

from lifeboat.tools.stacks import ServiceState
from staging import faults
from staging.compose_site import ComposeSite
from tests.system import settings_file
from tests.system.test_recoveries import PLATFORM, Shell, rungs

pytestmark = [
    pytest.mark.system,
    # The first test pays for the images: three minutes on two cores.
    pytest.mark.timeout(900),
]

POSTGRES_USER = 999


class DockerShell(Shell):
    """An operator's shell that knows which engine is meant."""

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        return super().start(*words, DOCKER_HOST=os.environ["DOCKER_HOST"], **environment)


@pytest.fixture(scope="module")
def shell(
    docker_host: str, quick_restic: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerShell]:
    site = ComposeSite(tmp_path_factory.mktemp("containers") / "site")
    site.create(scale=0.1)
    own = {"vault.restic_program": str(quick_restic)}
    settings_file.change(site.settings_path, own | settings_file.QUICK_CHECKS)
    site.start()
    site.stack.start(["wal-receiver"])
    shell = DockerShell(site, tmp_path_factory.mktemp("outside"), patience_seconds=400)
    for asset in ("config", "files", "models", "database"):
        shell.run("backup", asset)
    yield shell
    site.destroy()


@pytest.fixture(scope="module")
def engine(docker_host: str) -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


def container_of(engine: docker.DockerClient, site: ComposeSite, service: str) -> Any:
    return engine.containers.get(f"{site.project}-{service}-1")


def shape_of(container: Any) -> tuple:
    """What of a container would show a tool or a mount that was added."""
    attrs = container.attrs
    mounts = sorted((m["Destination"], m.get("Name", ""), m["RW"]) for m in attrs["Mounts"])
    return attrs["Image"], attrs["Config"]["Cmd"], attrs["Config"]["Entrypoint"], mounts


def everything_belongs_to_postgres(directory: Path) -> bool:
    owners = {
        (path.lstat().st_uid, path.lstat().st_gid) for path in (directory, *directory.rglob("*"))
    }
    return owners == {(POSTGRES_USER, POSTGRES_USER)}


def test_all_services_are_healthy_and_answer_through_one_port(shell: DockerShell) -> None:
    states = {status.name: status.state for status in shell.site.status()}
    assert {states[name] for name in (*ComposeSite.critical, *ComposeSite.deferred)} == {
        ServiceState.RUNNING
    }
    assert "18 of 18 passed" in shell.run("verify").stdout


def test_enrolling_again_changes_nothing(shell: DockerShell) -> None:
    assert shell.run("enrol").stdout.strip() == "changed: nothing"


def test_enrolling_says_what_it_changes_and_does_only_that(shell: DockerShell) -> None:
    with psycopg.connect(shell.site.dsn("postgres"), autocommit=True) as connection:
        connection.execute("REVOKE pg_monitor FROM lifeboat")
        connection.execute("ALTER ROLE lifeboat PASSWORD 'another'")
        told = shell.run("enrol", "--dry-run").stdout
        assert "would be changed" in told
        assert "member of pg_monitor" in told
        [(member,)] = connection.execute("SELECT pg_has_role('lifeboat', 'pg_monitor', 'USAGE')")
        assert not member, "a dry run changes nothing"
        done = shell.run("enrol").stdout.splitlines()
    assert done[0] == "changed:"
    assert [line.strip() for line in done[1:]] == [
        "role lifeboat: the password of lifeboat.yaml",
        "lifeboat is a member of pg_monitor",
    ]
    assert shell.run("enrol").stdout.strip() == "changed: nothing"


def test_a_superuser_that_is_not_let_in_is_refused(shell: DockerShell) -> None:
    assert "--superuser" in shell.run("enrol", "--superuser", "nobody", ok=3).stderr


def test_check_finds_the_programs_of_the_servers_own_image(shell: DockerShell) -> None:
    done = shell.start("check", "--json")
    out, _ = done.communicate(timeout=120)
    assert '"programs and server are PostgreSQL 17' in out


def test_the_content_of_the_volume_is_replaced_by_rename(
    shell: DockerShell, engine: docker.DockerClient
) -> None:
    """Owner and modes stay the image's own; nothing is added to the database's container."""
    site = shell.site
    before = shape_of(container_of(engine, site, "postgres"))
    record = shell.write()
    faults.break_site(site, "destroy-data-directory")
    told = shell.recover("database")
    assert rungs(told)["hot"] == "done"
    shell.nothing_lost(record)
    assert everything_belongs_to_postgres(site.database_directory)
    assert site.database_directory.stat().st_mode & 0o777 == 0o700
    assert shape_of(container_of(engine, site, "postgres")) == before


def test_a_volume_that_was_removed_comes_back(
    shell: DockerShell, engine: docker.DockerClient
) -> None:
    """Without it the image makes an empty database, which must not be taken for a cure."""
    site = shell.site
    shell.run("backup", "database")
    record = shell.write()
    container_of(engine, site, "postgres").remove(force=True)
    engine.volumes.get(f"{site.project}_pgdata").remove()
    told = shell.recover("database")
    assert "hot" in rungs(told)
    shell.nothing_lost(record)
    assert everything_belongs_to_postgres(site.database_directory)


def test_a_killed_container_needs_a_restart_only(shell: DockerShell) -> None:
    record = shell.write()
    faults.break_site(shell.site, "kill-database")
    told = shell.recover("database")
    assert rungs(told) == {"restart": "done"}
    shell.nothing_lost(record)


def test_files_in_a_volume_are_repaired(shell: DockerShell) -> None:
    shell.site.stack.stop(["keeper"])
    shell.run("backup", "files")
    whole = {p: (p.read_bytes(), p.stat().st_uid) for p in files_of(shell.site.files)}
    faults.break_site(shell.site, "damage-files", seed=5)
    shell.recover("files", "--from", "s3")
    assert {p: (p.read_bytes(), p.stat().st_uid) for p in files_of(shell.site.files)} == whole


@pytest.mark.parametrize("fault", ["delete-models", "corrupt-models"])
def test_models_in_a_volume_come_back(shell: DockerShell, fault: str) -> None:
    faults.break_site(shell.site, fault)
    shell.recover("models")


def files_of(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_a_strangers_container_on_the_volume_is_told_and_nothing_is_touched(
    shell: DockerShell, engine: docker.DockerClient
) -> None:
    site = shell.site
    stranger = engine.containers.run(
        "debian:trixie-slim",
        ["sleep", "600"],
        name=f"{site.project}-stranger",
        volumes={f"{site.project}_pgdata": {"bind": "/data", "mode": "rw"}},
        detach=True,
    )
    try:
        faults.break_site(site, "destroy-data-directory")
        words = ("recover", "database", "--approve", PLATFORM)
        assert stranger.name in shell.run(*words, ok=3).stderr
        assert not site.database_directory.exists()
    finally:
        stranger.remove(force=True)
    shell.without_hot_copy()
    assert rungs(shell.recover("database"))["local"] == "done"


def without_the_image_of_the_log_collector(site: ComposeSite, work: Path) -> None:
    """As when the registry of what is deferred is down at that hour."""
    author = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    clone = ("git", "clone", "--quiet", "--branch", "production", str(site.origin), str(work))
    subprocess.run(clone, check=True)
    path = work / "docker-compose.prod.yml"
    text = path.read_text()
    own = (
        "    image: ${IMAGES:?}-log-collector\n"
        "    build: {context: docker/log-collector, network: host}\n"
    )
    assert own in text
    path.write_text(text.replace(own, "    image: 127.0.0.1:1/log-collector\n"))
    for words in (("commit", "--quiet", "-am", "Elsewhere"), ("push", "--quiet")):
        subprocess.run(["git", "-C", str(work), *author, *words], check=True)


def test_the_server_comes_back_from_the_bucket(
    shell: DockerShell, engine: docker.DockerClient
) -> None:
    """Last, because it takes everything away: containers, volumes, images, and the directory."""
    from lifeboat.settings import load_settings

    site = shell.site
    shell.site.stack.stop(["keeper"])
    written = shell.write()
    for asset in ("files", "database", "config"):
        shell.run("backup", asset)
    shell.run("wal", "ship")
    s3 = load_settings(site.settings_path).vault.s3
    without_the_image_of_the_log_collector(site, shell.outside / "code")
    faults.break_site(site, "lose-server")
    for image in ("app", "postgres", "redis", "web"):
        engine.images.remove(f"cad-staging-{image}", force=True)
    where = ("--bucket", s3.bucket, "--endpoint", s3.endpoint, "--into", str(site.server))
    environment = {"LIFEBOAT_CONFIG": "/nonexistent"}
    words = ("recover", "server", *where, "--approve", PLATFORM, "--json")
    told = shell.run(*words, **environment).stdout
    assert '"status": "FAIL"' not in told
    record = json.loads(told)
    assert "log-collector" in record["facts"]["deferred_services_down"]
    assert record["outcome"] == "done"
    running = {status.name for status in site.status() if status.pid}
    assert {"prometheus", "keeper", "wal-receiver"} <= running
    assert "log-collector" not in running
    shell.nothing_lost(written)
    assert everything_belongs_to_postgres(site.database_directory)
    assert "18 of 18 passed" in shell.run("verify").stdout
