"""A hole behind the newest base copy: a run of its deployment is started, and not every minute."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from lifeboat.core.errors import TransientError
from tasks import clock
from tasks.prefect_server import runs
from tasks.wal import wal_continuity, wal_hurry

SETTINGS = SimpleNamespace(platform="cad")
NIGHT = datetime(2026, 1, 31, 3, 14, tzinfo=timezone.utc)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []

    def start(platform: str, procedure: str, *, key: str, doing: str) -> tuple[str, str]:
        found.append((platform, procedure, key))
        return "an id", ""

    monkeypatch.setattr(runs, "start", start)
    monkeypatch.setattr(runs, "there_is_a_server", lambda: True)
    monkeypatch.setattr(wal_continuity, "base_is_due_because", lambda _: "segment 7 is missing")
    monkeypatch.setattr(clock, "now", lambda: NIGHT)
    return found


def test_it_is_asked_for_once_in_a_quarter_of_an_hour(started, monkeypatch) -> None:
    for minute in (0, 1, 15):
        monkeypatch.setattr(clock, "now", lambda minute=minute: NIGHT + timedelta(minutes=minute))
        wal_hurry.hurry_base_copy(SETTINGS)
    assert {(platform, procedure) for platform, procedure, _ in started} == {
        ("cad", "backup-database")
    }
    first, second, third = (key for _, _, key in started)
    # The server takes a key once. 3:15 and 3:29 are of one quarter, 3:14 of the one before.
    assert first != second == third


def test_without_a_hole_or_a_server_nothing_is_started(started, monkeypatch) -> None:
    monkeypatch.setattr(runs, "there_is_a_server", lambda: False)
    wal_hurry.hurry_base_copy(SETTINGS)
    monkeypatch.setattr(runs, "there_is_a_server", lambda: True)
    monkeypatch.setattr(wal_continuity, "base_is_due_because", lambda _: None)
    wal_hurry.hurry_base_copy(SETTINGS)
    assert started == []


def test_a_server_that_takes_no_run_stops_no_wal(started, monkeypatch, caplog) -> None:
    def refuse(*_, **__) -> None:
        raise TransientError("the server does not take it")

    monkeypatch.setattr(runs, "start", refuse)
    wal_hurry.hurry_base_copy(SETTINGS)
    assert "was not asked for: the server does not take it" in caplog.text
