"""What runs leave behind, and what of it goes again."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lifeboat.core.timeline import (
    Outcome,
    Phase,
    RunRecord,
    StepRecord,
    run_began_at,
    run_id,
)
from tasks import journals, record

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=timezone.utc)


def left(directory: Path, procedure: str, *, days_old: float, ended: bool = True) -> Path:
    place = directory / run_id(procedure, NOW - timedelta(days=days_old), "4f2a")
    place.mkdir()
    first = {"at": time.time(), "event": "run-began", "procedure": procedure, "pid": 2**22 + 1}
    (place / record.JOURNAL_NAME).write_text(
        json.dumps({**first, "host": socket.gethostname()}) + "\n"
    )
    if ended:
        (place / record.RECORD_NAME).write_text("{}")
    return place


def test_the_name_of_a_run_says_when_it_began() -> None:
    assert run_began_at(run_id("test-restore", NOW, "00ff")) == NOW


def test_everyday_records_go_and_evidence_stays(tmp_path: Path) -> None:
    old = [left(tmp_path, name, days_old=31) for name in ("backup-files", "prune-backups")]
    stays = [
        left(tmp_path, "backup-files", days_old=29),
        left(tmp_path, "recover-database", days_old=400),
        left(tmp_path, "test-restore", days_old=400),
        left(tmp_path, "backup-models", days_old=31, ended=False),
    ]
    gone = journals.forget_everyday_runs(tmp_path, began_before=NOW - timedelta(days=30))
    assert gone == len(old)
    assert set(tmp_path.iterdir()) == set(stays)


def test_a_run_without_an_end_is_unfinished_unless_it_lives(tmp_path: Path) -> None:
    left(tmp_path, "recover-files", days_old=1)
    dead = left(tmp_path, "recover-files", days_old=2, ended=False)
    alive = left(tmp_path, "recover-models", days_old=3, ended=False)
    journal = alive / record.JOURNAL_NAME
    journal.write_text(journal.read_text().replace(str(2**22 + 1), str(os.getpid())))
    fates = {journal.run: journal.fate() for journal in journals.unfinished(tmp_path)}
    assert fates == {dead.name: journals.Fate.INTERRUPTED, alive.name: journals.Fate.ALIVE}


def recovered(
    directory: Path, procedure: str, outcome: Outcome, *, hours_old: float, phase: Phase
) -> str:
    """The record of a recovery with one step."""
    place = left(directory, procedure, days_old=hours_old / 24)
    step = StepRecord(name="step", phase=phase, began_at=1, ended_at=2, outcome=Outcome.DONE)
    told = RunRecord(
        id=place.name,
        procedure=procedure,
        platform="cad",
        began_at=1,
        outcome=outcome,
        steps=(step,),
    )
    (place / record.RECORD_NAME).write_text(told.model_dump_json())
    return place.name


def test_a_recovery_that_failed_is_taken_up_until_one_is_done(tmp_path: Path) -> None:
    def before() -> str | None:
        found = journals.failed_before(tmp_path, "recover-database")
        return found.id if found else None

    assert before() is None
    recovered(tmp_path, "recover-database", Outcome.DONE, hours_old=9, phase=Phase.START)
    recovered(tmp_path, "recover-files", Outcome.FAILED, hours_old=8, phase=Phase.START)
    assert before() is None
    failed = recovered(
        tmp_path, "recover-database", Outcome.FAILED, hours_old=7, phase=Phase.RESTORE
    )
    # One that was refused, or looked only, has put nothing right.
    recovered(tmp_path, "recover-database", Outcome.FAILED, hours_old=6, phase=Phase.DECIDE)
    recovered(tmp_path, "recover-database", Outcome.DONE, hours_old=5, phase=Phase.FETCH)
    (left(tmp_path, "recover-database", days_old=0.2) / record.RECORD_NAME).write_text("{")
    assert before() == failed
    proven = recovered(tmp_path, "recover-files", Outcome.DONE, hours_old=4, phase=Phase.VERIFY)
    assert before() == failed, "it has checked nothing"
    path = tmp_path / proven / record.RECORD_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "verdict": {"checks": []}}))
    assert before() is None
    recovered(tmp_path, "recover-database", Outcome.FAILED, hours_old=3, phase=Phase.START)
    assert before()
    recovered(tmp_path, "recover-database", Outcome.DONE, hours_old=1, phase=Phase.VERIFY)
    assert before() is None


def test_a_failed_run_leaves_its_record(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        record.recorded("backup-files", platform="cad", directory=tmp_path) as run,
    ):
        raise RuntimeError("the disk is full")
    told = json.loads((tmp_path / run.id / record.RECORD_NAME).read_text())
    assert told["outcome"] == "failed"
    assert told["error"] == "the disk is full"
    assert journals.last_run_at(tmp_path, "backup-files") == run_began_at(run.id)
