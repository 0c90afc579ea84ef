"""Services that the stack has and lifeboat.yaml has not: told before a server is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifeboat.core.errors import PreconditionError
from lifeboat.settings import Settings, load_settings
from lifeboat.tools.stacks import ServiceState, ServiceStatus
from tasks import backup, preflight, services
from tasks.checks import system_health
from tasks.checks.context import Context

YAML = """\
platform: cad-test
environment: staging
stack:
  kind: process
  supervisor_config: x.conf
  critical_services: [postgres]
  deferred_services: [metrics]
  backup_services: [keeper]
  without: {migrate: "runs once at a deploy"}
database: {service: postgres, name: cad, data_directory: data/postgres}
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml]}
vault: {local: backups, s3: {bucket: lifeboat-vault}}
checks: {containers_running: {settle_seconds: 0}}
"""
RUNNING, STOPPED = ServiceState.RUNNING, ServiceState.STOPPED
GOOD = {"postgres": RUNNING, "metrics": STOPPED, "keeper": STOPPED, "migrate": STOPPED}


class Stack:
    """Services in these states."""

    def __init__(self, states: dict[str, ServiceState]) -> None:
        self.states = states

    def status(self) -> tuple[ServiceStatus, ...]:
        return tuple(ServiceStatus(name, state, pid=1) for name, state in self.states.items())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(YAML)
    (tmp_path / "backups").mkdir()
    return load_settings(tmp_path / "lifeboat.yaml")


def preflight_of(settings: Settings, monkeypatch: pytest.MonkeyPatch, **more) -> str:
    monkeypatch.setattr(services, "stack_of", lambda settings: Stack(GOOD | more))
    return preflight._services(settings)


def running(settings: Settings, **more: ServiceState) -> str:
    context = Context(settings=settings, stack=Stack(GOOD | more), expected={})
    return system_health.containers_running(context)


def test_the_check_of_the_settings_fails_for_a_service_that_was_forgotten(
    settings, monkeypatch
) -> None:
    assert "all 3 are known" in preflight_of(settings, monkeypatch), "migrate is excused"
    with pytest.raises(PreconditionError) as refused:
        preflight_of(settings, monkeypatch, worker=RUNNING, mailer=STOPPED)
    assert "the stack has worker, mailer, which" in str(refused.value)
    assert "`stack: {without: {worker: why}}`" in str(refused.value)


def test_where_somebody_runs_the_platform_it_is_told_and_no_failure(settings: Settings) -> None:
    told = running(settings, worker=RUNNING, once=STOPPED)
    assert "worker running, not in lifeboat.yaml, once stopped, not in lifeboat.yaml" in told
    assert "migrate" not in told


def test_on_a_rebuilt_server_what_nobody_started_is_told_aloud(settings: Settings, caplog) -> None:
    """It fails no recovery: it may be a job that ran once, at a deploy long ago."""
    (settings.vault.local / backup.UNPROVEN_NAME).write_text("by recover-server-1")
    running(settings, worker=RUNNING)
    assert not caplog.text
    assert "worker stopped, not in lifeboat.yaml" in running(settings, worker=STOPPED)
    assert "worker not running: not in lifeboat.yaml, so that the recovery did not" in caplog.text
    backup.allow_backups(settings)
    caplog.clear()
    running(settings, worker=STOPPED)
    assert not caplog.text
