"""Each of the eighteen checks passes on a healthy platform and fails when its subject is broken."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import psutil
import psycopg
import pytest

from lifeboat.core.checks import CHECK_NAMES, Status
from lifeboat.core.points import Asset, DatabaseFacts, Facts, point_id
from lifeboat.core.status_page import ServiceState as Shown
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import postgres
from lifeboat.tools.stacks import ServiceState, ServiceStatus
from staging import faults
from staging.platform.cad_platform.models import load_model, make_model
from staging.seed import KNOWN_QUERY
from staging.site import Site
from tasks import trees, verification
from tasks.checks.context import Context
from tasks.database import connection
from tasks.people import status_page

pytestmark = [pytest.mark.system]


@pytest.fixture(scope="module")
def settings(staging_site: Site) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in staging_site.environment().items():
            patch.setenv(name, value)
        yield load_settings(staging_site.settings_path)


@pytest.fixture(scope="module")
def expected(settings: Settings) -> dict[Asset, Facts]:
    now = datetime.now(timezone.utc)
    server = connection(settings)
    database = DatabaseFacts(
        system_identifier="1",
        timeline=1,
        start_lsn="0/0",
        stop_lsn="0/1",
        server_version="18",
        wal_segment_bytes=1 << 24,
        started_at=now,
        stopped_at=now,
        tables=postgres.row_counts(server),
    )
    return {
        Asset.DATABASE: Facts(
            point=point_id(Asset.DATABASE, now),
            asset=Asset.DATABASE,
            platform=settings.platform,
            host="x",
            taken_at=now,
            database=database,
        ),
        Asset.FILES: trees.gather_facts(settings, Asset.FILES),
        Asset.MODELS: trees.gather_facts(settings, Asset.MODELS),
    }


def verify(site: Site, settings: Settings, expected: dict[Asset, Facts]):
    return verification.verify_platform(settings, site.stack, expected)


def test_a_healthy_platform_passes_all_eighteen(staging_site, settings, expected) -> None:
    before = postgres.row_counts(connection(settings))
    verdict = verify(staging_site, settings, expected)
    assert [(c.name, c.evidence) for c in verdict.not_passed] == []
    assert verdict.total == 18
    assert all(check.evidence for check in verdict.checks)
    soon(
        lambda: postgres.row_counts(connection(settings))["public.drawings"],
        before["public.drawings"],
    )
    assert not list(staging_site.files.glob(".lifeboat-probe*"))


def test_the_status_page_does_not_call_well_what_runs_and_answers_nobody(
    staging_site, settings, expected
) -> None:
    shown = {s.name: s.state for s in status_page.look(settings).services}
    assert set(settings.status_page.health) <= shown.keys()
    assert set(shown.values()) == {Shown.OPERATIONAL}
    with frozen(Broken(staging_site, settings, expected), "ai-service"):
        page = status_page.look(settings)
    shown = {s.name: s.state for s in page.services}
    assert [name for name, state in shown.items() if state is Shown.NOT_ANSWERING] == ["ai-service"]
    assert page.overall == "Partial outage"


def soon(value: Callable[[], object], wanted: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while (found := value()) != wanted:
        assert time.monotonic() < deadline, f"{found!r}, not {wanted!r}"
        time.sleep(0.1)


def test_without_configuration_or_facts_a_check_is_unknown(staging_site, settings) -> None:
    bare = settings.model_copy(update={"checks": type(settings.checks)()})
    context = Context(settings=bare, stack=staging_site.stack, expected={})
    unknown = {
        name
        for name in CHECK_NAMES
        if name not in ("memory-stable", "cpu-normal")
        and verification.try_check(context, name).status is Status.UNKNOWN
    }
    assert unknown == {
        *("health-endpoints", "redis-reachable", "authentication", "file-round-trip", "search"),
        *("ai-inference", "admin-dashboard", "tables-complete", "file-counts"),
        *("models-loadable", "response-times"),
    }


def test_a_check_that_hangs_is_unknown_and_keeps_nobody(
    staging_site, settings, expected, monkeypatch
) -> None:
    quick = checks_with(settings, timeouts={"search": 0.5}, window_seconds=0.5, start_seconds=0)
    monkeypatch.setitem(verification.CHECKS, "search", lambda context: time.sleep(30) or "")
    began = time.monotonic()
    verdict = verify(staging_site, quick, expected)
    assert time.monotonic() - began < 15
    assert [(c.name, c.status) for c in verdict.not_passed] == [("search", Status.UNKNOWN)]
    assert "hangs" in verdict.not_passed[0].evidence


def checks_with(settings: Settings, **changes) -> Settings:
    return settings.model_copy(update={"checks": settings.checks.model_copy(update=changes)})


# --- one way to break what each check looks at -----------------------------------------------


@dataclasses.dataclass
class Broken:
    """The platform as the check will see it."""

    site: Site
    settings: Settings
    stack: object


@contextmanager
def stopped(b: Broken, service: str) -> Iterator[None]:
    b.site.stack.stop([service])
    yield
    b.site.stack.start([service])
    b.site.wait_until_healthy()


@contextmanager
def changed(b: Broken, do: str, undo: str, *, user: str = "postgres") -> Iterator[None]:
    """Change something in the database by SQL, and change it back."""
    run_sql(b.site, do, user)
    try:
        yield
    finally:
        run_sql(b.site, undo, user)


def run_sql(site: Site, statements: str, user: str = "postgres") -> None:
    # What is tested here may be the very setting that keeps others from writing.
    with psycopg.connect(
        site.dsn(user),
        autocommit=True,
        options="-c default_transaction_read_only=off -c synchronous_commit=local",
    ) as db:
        for statement in statements.split(";"):
            db.execute(statement)


@contextmanager
def replaced(path: Path, content: bytes | None) -> Iterator[None]:
    """Put a file (None: nothing) where something was, and put that back."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        if content is not None:
            path.write_bytes(content)
        yield
    finally:
        path.unlink(missing_ok=True)
        aside.rename(path)


def a_drawing(b: Broken) -> Path:
    return sorted(path for path in b.site.files.rglob("*") if path.is_file())[3]


def bit_flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    return bytes(data)


def another_model(path: Path) -> bytes:
    """A sound model of the same name that answers the known question otherwise."""
    now = load_model(path)
    for seed in range(1000, 1100):
        content = make_model(now.id, now.labels, seed=seed, rows=64)
        other = path.with_name("other.tmp")
        other.write_bytes(content)
        try:
            if load_model(other).answer(KNOWN_QUERY).label != now.answer(KNOWN_QUERY).label:
                return content
        finally:
            other.unlink()
    raise AssertionError("no seed gives another answer")


@contextmanager
def frozen(b: Broken, service: str) -> Iterator[None]:
    """The service lives and answers nothing."""
    [pid] = [s.pid for s in b.site.status() if s.name == service]
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for member in family:
        member.send_signal(signal.SIGSTOP)
    b.settings = checks_with(b.settings, timeout_seconds=1.5)
    yield
    for member in family:
        member.send_signal(signal.SIGCONT)


@contextmanager
def beside(b: Broken, code: str) -> Iterator[None]:
    """A real process that misbehaves, seen as one more service of the stack."""
    child = subprocess.Popen([sys.executable, "-c", code])
    real = b.site.stack

    class WithOneMore:
        def status(self) -> tuple[ServiceStatus, ...]:
            seen = psutil.Process(child.pid)
            times = seen.cpu_times()
            one = ServiceStatus(
                "rogue",
                ServiceState.RUNNING,
                child.pid,
                seen.create_time(),
                seen.memory_info().rss,
                times.user + times.system,
            )
            return (*real.status(), one)

    b.stack = WithOneMore()
    time.sleep(0.3)
    try:
        yield
    finally:
        child.kill()
        child.wait()


@contextmanager
def allowing(b: Broken, section: str, **limits) -> Iterator[None]:
    told = getattr(b.settings.checks, section).model_copy(update=limits)
    b.settings = checks_with(b.settings, **{section: told})
    yield


ENGINEER = "(SELECT id FROM users WHERE email LIKE 'engineer@%')"
GROWS = "import time\nkept=[]\nwhile True: kept.append(bytearray(8<<20)); time.sleep(0.1)"

CASES: list[tuple[str, str, Callable[[Broken], object], str]] = [
    ("containers-running", "a worker is stopped", lambda b: stopped(b, "celery-worker"), "celery"),
    ("health-endpoints", "a service is stopped", lambda b: stopped(b, "ai-service"), "no answer"),
    (
        "database-connections",
        "it takes no writes",
        lambda b: changed(
            b,
            "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()",
            "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()",
        ),
        "read_only",
    ),
    (
        "database-connections",
        "commits wait for a dead receiver",
        lambda b: changed(
            b,
            "ALTER SYSTEM SET synchronous_standby_names = 'lifeboat'; SELECT pg_reload_conf()",
            "ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()",
        ),
        "commits hang",
    ),
    (
        "database-connections",
        "connections run out",
        lambda b: allowing(b, "database_connections", max_used_percent=0.5),
        "of 100 connections",
    ),
    ("redis-reachable", "it is stopped", lambda b: stopped(b, "redis"), "does not answer"),
    (
        "file-storage-reachable",
        "the directory is gone",
        lambda b: replaced(b.site.files, b"no directory"),
        "not a directory",
    ),
    (
        "authentication",
        "a password hash is damaged",
        lambda b: changed(
            b,
            "CREATE TABLE kept AS SELECT id, password_hash FROM users;"
            f"UPDATE users SET password_hash = 'x' WHERE id = {ENGINEER}",
            "UPDATE users u SET password_hash = k.password_hash FROM kept k WHERE k.id = u.id;"
            "DROP TABLE kept",
        ),
        "POST /auth/login: status",
    ),
    (
        "file-round-trip",
        "uploads can't be stored",
        lambda b: replaced(b.site.server / "run" / "incoming", b"no directory"),
        "status 5",
    ),
    (
        "search",
        "the index is empty",
        lambda b: changed(
            b,
            "CREATE TABLE kept AS SELECT * FROM drawing_index; DELETE FROM drawing_index",
            "INSERT INTO drawing_index SELECT * FROM kept ON CONFLICT DO NOTHING; DROP TABLE kept",
        ),
        "results is 0",
    ),
    (
        "ai-inference",
        "another model answers",
        lambda b: replaced(
            b.site.models / "default.safetensors",
            another_model(b.site.models / "default.safetensors"),
        ),
        "answer is",
    ),
    (
        "admin-dashboard",
        "the administrator is none",
        lambda b: changed(
            b,
            "UPDATE users SET is_admin = false WHERE email LIKE 'admin@%'",
            "UPDATE users SET is_admin = true WHERE email LIKE 'admin@%'",
        ),
        "status 403",
    ),
    (
        "tables-complete",
        "a table is missing",
        lambda b: changed(
            b,
            "ALTER TABLE ai_results RENAME TO kept",
            "ALTER TABLE kept RENAME TO ai_results",
        ),
        "public.ai_results is missing",
    ),
    (
        "tables-complete",
        "rows are missing",
        lambda b: changed(
            b,
            "CREATE TABLE kept AS SELECT * FROM project_revisions LIMIT 1;"
            "DELETE FROM project_revisions WHERE ctid IN (SELECT ctid FROM project_revisions"
            " LIMIT 1)",
            "INSERT INTO project_revisions SELECT * FROM kept; DROP TABLE kept",
        ),
        "public.project_revisions has",
    ),
    ("file-counts", "a file is missing", lambda b: moved_out(b), "files of"),
    (
        "models-loadable",
        "a model is cut short",
        lambda b: replaced(
            b.site.models / "tolerances.safetensors",
            (b.site.models / "tolerances.safetensors").read_bytes()[:1000],
        ),
        "tolerances is not loaded",
    ),
    (
        "models-loadable",
        "a model is missing",
        lambda b: replaced(b.site.models / "default.safetensors", None),
        "is missing",
    ),
    (
        "user-data-intact",
        "a bit of a drawing is flipped",
        lambda b: replaced(a_drawing(b), bit_flipped(a_drawing(b))),
        "is altered",
    ),
    (
        "user-data-intact",
        "a drawing is missing",
        lambda b: replaced(a_drawing(b), None),
        "is missing",
    ),
    (
        "user-data-intact",
        "a foreign key dangles",
        lambda b: changed(
            b,
            "CREATE TABLE kept AS SELECT * FROM projects ORDER BY id LIMIT 1;"
            "SET session_replication_role = replica;"
            "DELETE FROM projects WHERE id = (SELECT id FROM kept)",
            "SET session_replication_role = replica;"
            "INSERT INTO projects OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept",
        ),
        "refer to no projects",
    ),
    ("response-times", "a service is frozen", lambda b: frozen(b, "ai-service"), "no answer"),
    (
        "response-times",
        "answers come late",
        lambda b: allowing(b, "response_times", p95_seconds=1e-6),
        "p95",
    ),
    ("memory-stable", "a service leaks", lambda b: beside(b, GROWS), "rogue grew"),
    (
        "memory-stable",
        "the host has no memory left",
        lambda b: allowing(b, "memory_stable", available_percent=99.99),
        "of the host's memory",
    ),
    ("cpu-normal", "a service runs away", lambda b: running_away(b), "rogue never"),
    (
        "disk-space",
        "a disk is full",
        lambda b: allowing(b, "disk_space", free_percent=99.99),
        "GB free",
    ),
]


@contextmanager
def running_away(b: Broken) -> Iterator[None]:
    # On a machine that is shared even an endless loop does not get the whole core that it wants.
    code = (
        "import contextlib, os\nwith contextlib.suppress(OSError): os.nice(-19)\nwhile True: pass"
    )
    with beside(b, code), allowing(b, "cpu_normal", service_percent=10):
        yield


@contextmanager
def moved_out(b: Broken) -> Iterator[None]:
    path = a_drawing(b)
    aside = b.site.server / "aside"
    path.rename(aside)
    yield
    aside.rename(path)


def test_no_check_is_without_a_case() -> None:
    assert {name for name, *_ in CASES} == set(CHECK_NAMES)


@pytest.mark.parametrize(
    ("name", "what", "breaking", "seen"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
def test_a_check_fails_when_its_subject_is_broken(
    staging_site, settings, expected, name, what, breaking, seen
) -> None:
    quiet = checks_with(settings, start_seconds=0)
    broken = Broken(staging_site, quiet, staging_site.stack)
    with breaking(broken):
        context = Context(settings=broken.settings, stack=broken.stack, expected=expected)
        found = verification.try_check(context, name)
    assert found.status is Status.FAIL, f"{what}: {found.status} {found.evidence}"
    assert seen in found.evidence
    healed = Context(settings=settings, stack=staging_site.stack, expected=expected)
    if name not in ("memory-stable", "cpu-normal"):
        again = verification.try_check(healed, name, time.monotonic() + 15)
        assert again.status is Status.PASS, again.evidence


def test_a_damaged_page_of_a_table_fails_the_tables(
    staging_site, settings, expected, reset_staging
) -> None:
    faults.break_site(staging_site, "overwrite-pages", seed=random.randrange(1000))
    staging_site.stack.start(["postgres"])
    context = Context(settings=settings, stack=staging_site.stack, expected=expected)
    found = verification.try_check(context, "tables-complete", time.monotonic() + 5)
    reset_staging()
    assert found.status is Status.FAIL
    assert "damaged" in found.evidence
