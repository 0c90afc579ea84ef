"""Tables that have fewer rows than their base copy: a fault, but not of queues and sessions."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lifeboat.core.errors import VerificationFailed
from lifeboat.core.points import Asset, DatabaseFacts, Facts
from lifeboat.core.suspicion import Policy
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import filesystem, postgres
from tasks import database, places
from tasks.checks import data_integrity
from tasks.checks.context import Context, Failed
from tasks.questions.database import compare_rows
from tests.unit.smallest_settings import SMALLEST

YAML = (
    SMALLEST
    + """\
suspicion: {except_tables: [public.sessions, "*.queue_*", public.dropped]}
checks: {tables_complete: {tables: {sessions: {at_least: 1}}}}
"""
)
NOW = datetime(2026, 1, 31, 3, 15, tzinfo=timezone.utc)
POINT = "database-20260131T031500Z"
BASE = DatabaseFacts(
    system_identifier="1",
    timeline=1,
    start_lsn="0/0",
    stop_lsn="0/1",
    server_version="18",
    wal_segment_bytes=1 << 24,
    started_at=NOW,
    stopped_at=NOW,
    tables={
        "public.drawings": 1000,
        "public.sessions": 500,
        "jobs.queue_mail": 30,
        "public.dropped": 7,
    },
)
PURGED = {"public.drawings": 1000, "public.sessions": 3, "jobs.queue_mail": 0}
SERVER: Any = None


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LIFEBOAT_DATABASE_PASSWORD", "x")
    file = tmp_path / "live" / "lifeboat.yaml"
    file.parent.mkdir()
    file.write_text(YAML)
    return load_settings(file)


# --- the check after a recovery ---------------------------------------------------------------


def check(settings: Settings, have: dict[str, int], patch: pytest.MonkeyPatch) -> str:
    patch.setattr(postgres, "row_counts", lambda _: have)
    patch.setattr(postgres, "read_every_row", lambda _: None)
    facts = Facts(
        point=POINT,
        asset=Asset.DATABASE,
        platform="cad-test",
        host="x",
        taken_at=NOW,
        database=BASE,
    )
    stack: Any = None
    context = Context(settings=settings, stack=stack, expected={Asset.DATABASE: facts})
    return data_integrity.tables_complete(context)


def test_tables_that_empty_themselves_may_be_smaller_or_gone(settings, monkeypatch) -> None:
    assert check(settings, PURGED, monkeypatch).startswith("2 of 2 tables, 1003 rows")


def test_of_other_tables_every_row_counts_and_the_setting_is_named(settings, monkeypatch) -> None:
    with pytest.raises(Failed, match=r"^public\.drawings has 999 rows, not 1000 or more \("):
        check(settings, {**PURGED, "public.drawings": 999}, monkeypatch)
    strict = settings.model_copy(update={"suspicion": Policy()})
    with pytest.raises(Failed) as failed:
        check(strict, PURGED, monkeypatch)
    told = str(failed.value)
    assert "public.dropped is missing; " in told
    assert "public.sessions has 3 rows, not 500" in told
    assert "name it in suspicion.except_tables" in told


def test_what_is_asked_for_by_name_is_no_exception(settings, monkeypatch) -> None:
    with pytest.raises(Failed, match="^public.sessions has 0 rows, not 1 or more$"):
        check(settings, {**PURGED, "public.sessions": 0}, monkeypatch)


# --- the restore test -------------------------------------------------------------------------


def test_a_restore_test_lets_them_be_too(settings, monkeypatch) -> None:
    monkeypatch.setattr(postgres, "identify", lambda _: SimpleNamespace(system_identifier="1"))
    monkeypatch.setattr(postgres, "sequences", lambda _: {})
    monkeypatch.setattr(postgres, "row_counts", lambda _: PURGED)
    compare_rows(SERVER, POINT, BASE, 0, settings.suspicion)
    with pytest.raises(VerificationFailed, match="sessions has 3 rows.*suspicion.except_tables"):
        compare_rows(SERVER, POINT, BASE, 0, Policy())


# --- what a base copy says of itself ----------------------------------------------------------


def test_rows_that_go_while_the_database_is_copied_are_not_expected(settings, monkeypatch) -> None:
    rows = iter([{"a": 10, "b": 10, "gone": 10}, {"a": 12, "b": 4, "new": 1}])
    numbers = iter([{"a_id": 10, "gone_id": 3}, {"a_id": 12}])
    backup = postgres.BaseBackup(
        timeline=1, start_lsn="0/0", stop_lsn="0/1", started_at=NOW, stopped_at=NOW
    )
    identity = postgres.Identity("1", 1, "18.6", 180006, 1 << 24, in_recovery=False)
    for name, answer in {
        "require_same_major": None,
        "identify": identity,
        "database_bytes": 0,
        "base_backup": backup,
    }.items():
        monkeypatch.setattr(postgres, name, lambda *_, answer=answer, **__: answer)
    monkeypatch.setattr(postgres, "row_counts", lambda _: next(rows))
    monkeypatch.setattr(postgres, "sequences", lambda _: next(numbers))
    monkeypatch.setattr(filesystem, "require_free", lambda *_, **__: None)
    places.hot_directory(settings).mkdir(parents=True)
    copy = database.copy_base(settings)
    assert copy.tables == {"a": 10, "b": 4}
    assert copy.sequences == {"a_id": 10}
