"""What holds for all tests, and what several levels share: a Docker engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

# How fast examples are made depends on what else the machine is doing, and is no defect.
settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")


sys.path.insert(0, str(SCRIPTS))
try:
    import docker_engine
    import fetch_compose
finally:
    sys.path.remove(str(SCRIPTS))

_ENGINE_WAS_THERE = pytest.StashKey[bool]()

# Handed out first, or a worker would be busy with one of them long after the others are done.
_LONGEST = (
    "test_containers",
    "test_120_days",
    "test_recoveries",
    "test_operators",
    "test_drill_incidents",
    "test_wal_failures",
    "test_guide",
    "test_automations",
    "test_resume",
    "test_drill_outage",
    "test_image",
    "test_orchestrator",
    "test_damage",
    "test_vault",
    "test_bucket_recovery",
    "test_sets",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = len(_LONGEST)
    place = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, last))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ENGINE_WAS_THERE] = bool(docker_engine.running_privately())


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the engine that a test started: not a worker does, for others may still need it."""
    if not hasattr(config, "workerinput") and not config.stash.get(_ENGINE_WAS_THERE, True):
        docker_engine.stop()


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """A Docker engine with debian:trixie-slim, and Compose v2; DOCKER_HOST names it.

    Where there can be none the test is skipped, and fails if LIFEBOAT_REQUIRE_DOCKER=1.
    """
    try:
        fetch_compose.find() or fetch_compose.fetch()
        host = docker_engine.ensure()
    except docker_engine.Unavailable as reason:
        if os.environ.get("LIFEBOAT_REQUIRE_DOCKER") == "1":
            pytest.fail(f"LIFEBOAT_REQUIRE_DOCKER=1, but: {reason}")
        pytest.skip(str(reason))
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    yield host
    if before is None:
        del os.environ["DOCKER_HOST"]
    else:
        os.environ["DOCKER_HOST"] = before
