"""The stability watch: what is usual, what has drifted from it, and what the logs tell of."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core import stability
from lifeboat.core.checks import Verdict
from lifeboat.core.stability import LogCount, Look, Sample, ServiceSample
from lifeboat.settings import load_settings
from lifeboat.tools.stacks import ServiceState, ServiceStatus
from tasks import stability as watch

NOW = datetime(2026, 6, 1, 3, 0, tzinfo=timezone.utc)
MB = 1_000_000


def a_service(**more: object) -> ServiceSample:
    told = {
        "running": True,
        "memory_bytes": 200 * MB,
        "cpu_percent": 10.0,
        "started_at": 1000.0,
        "log": LogCount(lines=500, errors=2, last="error: x"),
        **more,
    }
    return ServiceSample(**told)


def a_sample(minutes: float = 0, *, service: ServiceSample | None = None, **more) -> Sample:
    told = {"services": {"backend": service or a_service()}, "answer_seconds": 0.1, **more}
    return Sample(at=NOW + timedelta(minutes=minutes), **told)


USUAL = stability.baseline_of([a_sample(m) for m in range(0, 90, 15)])


def drifted(sample: Sample, earlier: Sample | None = None) -> list[str]:
    return [d.told for d in stability.drifts(sample, USUAL, earlier, percent=50)]


def test_what_is_as_before_has_not_drifted() -> None:
    assert drifted(a_sample(100), a_sample(90)) == []


@pytest.mark.parametrize(
    ("service", "told"),
    [
        (a_service(memory_bytes=301 * MB), "301 MB of memory, before 200 MB"),
        (a_service(cpu_percent=31.0), "31 % of a core, before 10 %"),
        (a_service(running=False), "does not run"),
        (a_service(started_at=1010.0), "started again"),
    ],
)
def test_each_kind_of_drift_is_told(service: ServiceSample, told: str) -> None:
    found = drifted(a_sample(100, service=service), a_sample(90))
    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    "service",
    [
        a_service(memory_bytes=299 * MB),
        a_service(cpu_percent=29.0),  # three times as much, and not worth a word
        a_service(cpu_percent=None),
        a_service(started_at=1000.4),
    ],
)
def test_noise_is_no_drift(service: ServiceSample) -> None:
    assert drifted(a_sample(100, service=service), a_sample(90)) == []


def test_answers_checks_missing_services_and_blind_looks_are_told() -> None:
    assert "0.40 s, before 0.10 s" in drifted(a_sample(100, answer_seconds=0.4))[0]
    assert "401" in drifted(a_sample(100, failed_checks={"authentication": "FAIL 401"}))[0]
    assert "does not run" in drifted(a_sample(100, services={}))[0]
    assert drifted(Sample(at=NOW, trouble="no engine")) == ["no engine"]


def test_what_is_usual_is_the_middle_and_blind_looks_do_not_count() -> None:
    noisy = [
        a_sample(0),
        a_sample(15),
        a_sample(30, service=a_service(memory_bytes=9000 * MB)),
        Sample(at=NOW + timedelta(minutes=45), trouble="away"),
    ]
    usual = stability.baseline_of(noisy)
    assert usual
    assert (usual.samples, usual.services["backend"].memory_bytes) == (3, 200 * MB)
    assert usual.until == noisy[2].at
    assert stability.baseline_of([noisy[-1]]) is None


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("2026-06-01 ERROR something", True),
        ("Traceback (most recent call last):", True),
        ("FATAL:  terminating connection", True),
        ("psycopg.OperationalError: x", True),
        ("GET /terror HTTP/1.1 200", False),
        ("errors=0 all is well", False),
        ("Out of memory: Killed process 1", True),
    ],
)
def test_lines_that_tell_of_an_error_are_counted(line: str, counts: bool) -> None:
    assert stability.count_errors(f"good\n\n{line}\n").errors == int(counts)
    assert stability.count_errors(f"good\n\n{line}\n").lines == 2


def anomalies(errors: int) -> list[str]:
    count = LogCount(lines=500, errors=errors, last="FATAL: y")
    sample = a_sample(service=a_service(log=count))
    return [a.told for a in stability.anomalies(sample, USUAL)]


def test_more_errors_than_before_are_an_anomaly_with_the_last_of_them() -> None:
    assert anomalies(9) == []
    [told] = anomalies(50)
    assert "50 of its last 500 lines" in told
    assert "(10.0 %, before 0.4 %)" in told
    assert "FATAL: y" in told
    [unknown] = [
        a.told
        for a in stability.anomalies(
            a_sample(service=a_service(log=LogCount(lines=10, errors=5))), None
        )
    ]
    assert "before not known" in unknown


def test_the_end_of_a_watch_says_how_often_what_drifted() -> None:
    bad = a_sample(100, service=a_service(running=False))
    looks = [
        Look(sample=a_sample(m), source="r", drifts=stability.drifts(s, USUAL, None, percent=50))
        for m, s in ((0, a_sample(0)), (15, bad), (30, bad))
    ]
    told = stability.conclusion(looks, USUAL, 24)
    assert "3 looks in 24.0 hours, 2 with drift" in told
    assert "backend (2)" in told
    assert "nothing to compare with" in stability.conclusion(looks, None, 24)
    assert "No log tells of more errors" in stability.log_conclusion(looks, USUAL)


def test_what_never_ran_is_not_missed() -> None:
    idle = a_service(running=False, memory_bytes=0)
    both = [a_sample(m, services={"backend": a_service(), "keeper": idle}) for m in (0, 15, 30)]
    usual = stability.baseline_of(both)
    assert usual and not usual.services["keeper"].ran
    assert stability.drifts(both[0], usual, None, percent=50) == ()


# --- taking a look --------------------------------------------------------------------------

YAML = """\
platform: cad-test
environment: staging
stack: {kind: process, supervisor_config: x.conf, critical_services: [postgres, backend]}
database: {service: postgres, name: cad, data_directory: data/postgres}
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml]}
vault: {local: backups, s3: {bucket: lifeboat-vault}}
"""


class BusyWhileChecked:
    """A stack whose backend works, and complains in its log, only for who checks it."""

    def __init__(self) -> None:
        self.backend = ServiceStatus("backend", ServiceState.RUNNING, pid=7, memory_bytes=MB)
        self.log = "started\n"

    def status(self) -> tuple[ServiceStatus, ...]:
        return (self.backend,)

    def logs(self, service: str, lines: int = 50) -> str:
        return self.log

    def verify(self, *_, **__) -> Verdict:
        self.backend = replace(self.backend, cpu_seconds=60.0, memory_bytes=900 * MB)
        self.log += "error: wrong password\n" * 3
        return Verdict.of([], expected=[])


def test_the_work_of_its_own_checks_is_not_measured(tmp_path: Path, monkeypatch) -> None:
    """Everyday looks are without checks, so that each watch would tell of a drift."""
    (tmp_path / "lifeboat.yaml").write_text(YAML)
    stack = BusyWhileChecked()
    monkeypatch.setattr(watch, "_LEAST_SECONDS", 0.01)
    monkeypatch.setattr(watch.services, "stack_of", lambda settings: stack)
    monkeypatch.setattr(watch.verification, "verify_platform", stack.verify)
    settings = load_settings(tmp_path / "lifeboat.yaml")
    everyday = watch.take_sample(settings, with_checks=False)
    watched = watch.take_sample(settings, with_checks=True)
    assert stack.backend.cpu_seconds, "the checks were run"
    assert watched.checks and watched.services == everyday.services
    usual = stability.baseline_of([everyday])
    assert stability.drifts(watched, usual, everyday, percent=50) == ()
