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


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """A Docker engine with debian:trixie-slim, and Compose v2; DOCKER_HOST names it.

    Mark what uses it with `pytest.mark.xdist_group("docker")`: there is one for all. Where there
    can be none the test is skipped, and fails if LIFEBOAT_REQUIRE_DOCKER=1.
    """
    sys.path.insert(0, str(SCRIPTS))
    try:
        import docker_engine
        import fetch_compose
    finally:
        sys.path.remove(str(SCRIPTS))
    was_there = docker_engine.running_privately()
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
    if not was_there:
        docker_engine.stop()
