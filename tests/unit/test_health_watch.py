"""The health watch beside people who act: what it saw minutes ago is no reason any more."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from lifeboat.core.diagnosis import Cure, Diagnosis, Scenario
from lifeboat.core.health import Look, Pause
from lifeboat.settings import Settings, load_settings
from lifeboat.tools.stacks import ServiceState, ServiceStatus
from tasks import events, health, services

YAML = """\
platform: cad-test
environment: staging
stack: {kind: process, supervisor_config: supervisord.conf, critical_services: [postgres, worker]}
database: {service: postgres, name: cad, data_directory: data/postgres, bin_directory: /usr}
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml]}
health: {failures: 2}
vault: {local: backups, s3: {bucket: vault}}
"""
NOW = datetime.now(timezone.utc)
BAD, WELL = Look(at=NOW, wrong=("it is down",)), Look(at=NOW, wrong=())
CURE = Cure(scenario=Scenario.DATABASE, evidence="gone", command="lifeboat recover database")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(YAML)
    settings = load_settings(tmp_path / "lifeboat.yaml")
    health.records_directory(settings).mkdir(parents=True)
    return settings


@pytest.fixture
def proposed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The procedures that were proposed."""
    found: list[str] = []

    def propose(platform: str, procedure: str, **more: object) -> tuple[str, str]:
        found.append(procedure)
        return "run", "url"

    monkeypatch.setattr(health.proposals, "can_propose", lambda: True)
    monkeypatch.setattr(health.proposals, "propose", propose)
    return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What people were told that something is wrong with, each time it is news."""
    found: list[dict] = []

    def tell(settings: Settings, troubles: dict, **more: object) -> None:
        if statuses([troubles]) != statuses(found[-1:] or [{}]):
            found.append(troubles)

    monkeypatch.setattr(health.alarms, "tell_people", tell)
    return found


def statuses(told: list[dict]) -> list[str]:
    """What people know by each message; "good" if nothing is wrong any more."""
    return [next((t.status for t in troubles.values()), "good") for troubles in told]


def judged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *, then: Look | None, during=lambda: None
) -> health.Health:
    """Judge the second bad look, whose diagnosis takes a while; `then` is what is seen after it."""
    health.judge(settings, BAD)

    def diagnose(_: Settings) -> Diagnosis:
        during()
        return Diagnosis(platform="cad-test", cures=(CURE,))

    monkeypatch.setattr(health.diagnosis, "find_what_is_wrong", diagnose)
    monkeypatch.setattr(health, "look", lambda _: then)
    return health.judge(settings, BAD)


def test_what_is_still_bad_after_the_diagnosis_is_proposed(
    settings, monkeypatch, proposed, told
) -> None:
    assert judged(settings, monkeypatch, then=BAD).streak.proposal
    assert proposed == ["recover-database"]
    assert statuses(told) == ["FAIL", "PROPOSED"]


def test_people_are_told_before_everything_is_read(settings, monkeypatch, proposed, told) -> None:
    heard: list[str] = []
    judged(settings, monkeypatch, then=BAD, during=lambda: heard.extend(statuses(told)))
    assert heard == ["FAIL"]


def test_what_fits_is_told_though_nothing_is_proposed(settings, monkeypatch, told) -> None:
    monkeypatch.setattr(health.proposals, "can_propose", lambda: False)
    judged(settings, monkeypatch, then=BAD)
    assert statuses(told) == ["FAIL", "DIAGNOSED"]
    [trouble] = told[-1].values()
    assert trouble.advice == CURE.command


def test_what_somebody_recovers_meanwhile_is_not_proposed(
    settings, monkeypatch, proposed, told
) -> None:
    assert judged(settings, monkeypatch, then=None).streak.proposal is None
    assert (proposed, statuses(told)) == ([], ["FAIL"])


def test_what_became_well_meanwhile_is_not_proposed_and_told_as_well_again(
    settings, monkeypatch, proposed, told
) -> None:
    found = judged(settings, monkeypatch, then=WELL)
    assert found.good
    assert health.read_streak(settings).failures == 0
    assert (proposed, statuses(told)) == ([], ["FAIL", "good"])


def test_who_diagnoses_for_long_gives_signs_of_life_and_not_for_ever(
    settings, monkeypatch, proposed, told
) -> None:
    """Its next looks are cancelled meanwhile, and the server would say that nobody looks."""
    sent: list[tuple[str, str]] = []

    def until_silent() -> None:
        deadline = time.monotonic() + 10
        while len(sent) < 3 or any(t.name == "signs-of-life" for t in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    monkeypatch.setattr(events, "SIGN_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(events, "_SIGNS", 3)
    monkeypatch.setattr(events, "tell_finished", lambda *about: sent.append(about[:2]))
    judged(settings, monkeypatch, then=BAD, during=until_silent)
    assert sent == [("cad-test", "watch-health")] * 3


def test_a_pause_that_was_asked_for_during_the_diagnosis_holds(
    settings, monkeypatch, proposed, told
) -> None:
    pause = Pause(until=NOW + timedelta(hours=2), why="new disks", by="Ada")
    judged(settings, monkeypatch, then=BAD, during=lambda: health.pause(settings, pause))
    assert (proposed, statuses(told)) == ([], ["FAIL"])
    assert health.read_streak(settings).pause == pause


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (ServiceStatus("worker", ServiceState.RUNNING), None),
        (ServiceStatus("worker", ServiceState.STARTING), None),
        (
            ServiceStatus("worker", ServiceState.STARTING, failing=True, detail="exit code 1"),
            "worker does not stay up (exit code 1)",
        ),
        (ServiceStatus("worker", ServiceState.STOPPED), "worker does not run (stopped)"),
        (None, "worker does not run (unknown to the stack)"),
    ],
)
def test_a_service_that_starts_for_ever_does_not_run(settings, monkeypatch, status, words) -> None:
    there = [ServiceStatus("postgres", ServiceState.RUNNING), *([status] if status else [])]
    stack = SimpleNamespace(status=lambda: tuple(there))
    monkeypatch.setattr(services, "stack_of", lambda _: stack)
    monkeypatch.setattr(health, "_answers", lambda _: [])
    seen = health.look(settings)
    assert seen
    assert seen.wrong == ((words,) if words else ())
