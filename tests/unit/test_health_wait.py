"""The verdict waits for services whose own health checks have not spoken yet, and for no others."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lifeboat.core.checks import Verdict
from lifeboat.settings import Settings, load_settings
from lifeboat.tools.stacks import ServiceState, ServiceStatus
from tasks import verification
from tasks.checks.context import Failed

YAML = """\
platform: cad-test
environment: staging
stack: {kind: process, supervisor_config: x.conf, critical_services: [postgres, backend]}
database: {service: postgres, name: cad, data_directory: data/postgres}
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml]}
vault: {local: backups, s3: {bucket: lifeboat-vault}}
checks: {start_seconds: 0, containers_running: {settle_seconds: 0}}
"""
RUNNING, STARTING = ServiceState.RUNNING, ServiceState.STARTING
CONTAINERS = ("containers-running",)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(YAML)
    monkeypatch.setattr(verification, "_AGAIN_SECONDS", 0.01)
    return load_settings(tmp_path / "lifeboat.yaml")


def with_checks(settings: Settings, **changes) -> Settings:
    checks = settings.checks.model_copy(update=changes)
    return settings.model_copy(update={"checks": checks})


@dataclass
class Starting:
    """A backend that is starting for so many looks, or for ever, and is something else then."""

    looks: float = float("inf")
    then: ServiceState = RUNNING
    failing: bool = False  # then
    age: float = 25.0
    seen: int = field(default=0, init=False)

    def status(self) -> tuple[ServiceStatus, ...]:
        self.seen += 1
        over = self.seen > self.looks
        began = time.time() - self.age
        return (
            ServiceStatus("postgres", RUNNING, pid=1, started_at=began),
            ServiceStatus(
                "backend",
                self.then if over else STARTING,
                pid=2,
                started_at=began,
                detail="unhealthy: 503" if over and self.failing else "starting",
                failing=over and self.failing,
            ),
        )


def verify(settings: Settings, stack: Starting, *names: str) -> tuple[Verdict, float]:
    began = time.monotonic()
    verdict = verification.verify_platform(settings, stack, {}, names=(*CONTAINERS, *names))
    return verdict, time.monotonic() - began


def test_what_its_own_health_check_has_not_judged_yet_is_waited_for(settings: Settings) -> None:
    """Docker probes for the first time after 30 s, where nobody says otherwise."""
    verdict, _ = verify(settings, Starting(looks=30))
    assert verdict.good, verdict.in_words()


def test_it_may_become_healthy_while_others_still_read(settings: Settings, monkeypatch) -> None:
    stack = Starting(looks=5)

    def read(context) -> str:
        while stack.seen < 6:
            stack.status()
        time.sleep(0.2)
        return "read"

    monkeypatch.setitem(verification.CHECKS, "tables-complete", read)
    verdict, _ = verify(settings, stack, "tables-complete")
    assert verdict.good, verdict.in_words()


def test_other_checks_that_failed_meanwhile_are_tried_again(settings, monkeypatch) -> None:
    stack, tried = Starting(looks=30), []

    def answer(context) -> str:
        tried.append(stack.seen)
        if stack.seen < 30:
            raise Failed("503")
        return "200"

    def damaged(context) -> str:
        tried.append("data")
        raise Failed("two rows are lost")

    monkeypatch.setitem(verification.CHECKS, "health-endpoints", answer)
    monkeypatch.setitem(verification.CHECKS, "user-data-intact", damaged)
    verdict, _ = verify(settings, stack, "health-endpoints", "user-data-intact")
    assert [(c.name, c.evidence) for c in verdict.not_passed] == [
        ("user-data-intact", "two rows are lost")
    ]
    assert tried.count("data") == 1, "waiting brings nothing back"


@pytest.mark.parametrize(
    ("stack", "told"),
    [
        (Starting(looks=10, then=STARTING, failing=True), "backend is starting unhealthy: 503"),
        (Starting(looks=10, then=ServiceState.FAILED), "backend is failed"),
        (Starting(looks=10, then=ServiceState.STOPPED), "backend is stopped"),
        (Starting(age=301), "backend is starting"),
    ],
)
def test_one_that_is_dead_unhealthy_or_too_slow_ends_the_wait(settings, stack, told) -> None:
    verdict, seconds = verify(settings, stack)
    [failed] = verdict.not_passed
    assert told in failed.evidence
    assert seconds < 5


def test_the_wait_is_bounded_from_the_start_of_the_service(settings: Settings) -> None:
    bounded = with_checks(settings, healthy_seconds=26)
    verdict, seconds = verify(bounded, Starting(age=25.5))
    assert not verdict.good
    assert 0.4 < seconds < 5
