"""deployments/many-hosts: what Compose and Kubernetes are told is the same, and holds no secret."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "deployments" / "many-hosts"
PAGE = (ROOT / "docs/many-hosts.md").read_text()
SECRETS = {
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_REDIS_MESSAGING_URL",
    "PREFECT_SERVER_DOCKET_URL",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_ENCRYPTION_KEY",
}


def told_by_file() -> dict[str, str]:
    lines = (HERE / "server.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def manifests(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all((HERE / "kubernetes" / name).read_text()))


def containers(name: str) -> list[dict[str, Any]]:
    found = []
    for manifest in manifests(name):
        if template := manifest.get("spec", {}).get("template"):
            found += template["spec"]["containers"]
    assert found
    return found


def test_each_setting_is_one_that_prefect_knows() -> None:
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings

    # The one is prefect-redis's, the other read from the environment alone.
    others = {"PREFECT_REDIS_MESSAGING_URL", "PREFECT_SERVER_ENCRYPTION_KEY"}
    names = told_by_file().keys() | (SECRETS - others)
    known = _get_settings_fields(Settings).keys()
    assert names <= known, names - known


def test_kubernetes_is_told_what_compose_is() -> None:
    (told,) = (m["data"] for m in manifests("server.yaml") if m["kind"] == "ConfigMap")
    assert {**told, **told_by_file()} == told
    assert told.keys() - told_by_file().keys() == {"PREFECT_SERVER_UI_API_URL", "PREFECT_UI_URL"}
    compose = YAML(typ="safe").load((HERE / "docker-compose.yml").read_text())
    for name in ("server-1", "server-2", "services", "migrate"):
        service = compose["services"][name]
        assert service["env_file"] == ["server.env"]
        assert service["environment"].keys() >= SECRETS
    ours = {tuple(container["args"]): container["name"] for container in containers("server.yaml")}
    for name in ("server-1", "services", "migrate"):
        assert tuple(compose["services"][name]["command"]) in ours, name


def test_secrets_come_by_reference() -> None:
    for container in containers("server.yaml"):
        assert {"secretRef": {"name": "lifeboat-server"}} in container["envFrom"]
    for container in containers("worker.yaml"):
        for variable in container["env"]:
            name = variable["name"]
            secret = re.search("PASSWORD|KEY|AUTH", name)
            assert bool(secret) is ("valueFrom" in variable), name
    # What a person makes of it is in the page, with each name that is asked for.
    made = set(re.findall(r"--from-literal=(\w+)=", PAGE))
    asked = {v["name"] for c in containers("worker.yaml") for v in c["env"] if "valueFrom" in v}
    assert made >= SECRETS | asked
    for file in ("docker-compose.yml", "server.env"):
        assert not re.search(r"(?im)password(: +|=)[^$\s]", (HERE / file).read_text())


def test_compose_takes_the_file() -> None:
    import fetch_compose  # the tests' conftest.py knows where it is

    found = fetch_compose.find()
    if found is None:
        pytest.skip("there is no Docker Compose v2; `python3 scripts/fetch_compose.py` fetches it")
    needed = {
        name: "x" for name in re.findall(r"\$\{(\w+):\?", (HERE / "docker-compose.yml").read_text())
    }
    words = [*found.split(), "--file", str(HERE / "docker-compose.yml"), "config", "--quiet"]
    done = subprocess.run(
        words, env={**os.environ, **needed}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_what_is_wanted_of_python_is_pinned() -> None:
    assert re.search(
        r"^prefect-redis==\S+ \\\n +--hash=", (HERE / "requirements.txt").read_text(), re.M
    )
