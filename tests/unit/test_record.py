"""What runs leave behind, and what of it goes again."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from lifeboat.core.checks import CheckResult, Verdict
from lifeboat.core.errors import PermanentError
from lifeboat.core.points import Asset
from lifeboat.core.timeline import (
    Outcome,
    Phase,
    RunRecord,
    StepRecord,
    run_began_at,
    run_id,
)
from lifeboat.tools import filesystem
from tasks import alarms, backup, journals, record
from tasks.record import JOURNAL_NAME, recorded

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=timezone.utc)


def left(directory: Path, procedure: str, *, days_old: float, ended: bool = True) -> Path:
    place = directory / run_id(procedure, NOW - timedelta(days=days_old), "4f2a")
    place.mkdir()
    first = {"at": time.time(), "event": "run-began", "procedure": procedure, "pid": 2**22 + 1}
    (place / JOURNAL_NAME).write_text(json.dumps({**first, "host": socket.gethostname()}) + "\n")
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
    journal = alive / JOURNAL_NAME
    journal.write_text(journal.read_text().replace(str(2**22 + 1), str(os.getpid())))
    fates = {journal.run: journal.fate() for journal in journals.unfinished(tmp_path)}
    assert fates == {dead.name: journals.Fate.INTERRUPTED, alive.name: journals.Fate.ALIVE}


def recovered(
    directory: Path,
    procedure: str,
    outcome: Outcome,
    *,
    hours_old: float,
    phase: Phase,
    step: str = "step",
) -> str:
    """The record of a recovery with one step."""
    place = left(directory, procedure, days_old=hours_old / 24)
    only = StepRecord(name=step, phase=phase, began_at=1, ended_at=2, outcome=Outcome.DONE)
    told = RunRecord(
        id=place.name,
        procedure=procedure,
        platform="cad",
        began_at=1,
        outcome=outcome,
        steps=(only,),
    )
    (place / record.RECORD_NAME).write_text(told.model_dump_json())
    return place.name


def with_a_verdict(directory: Path, run: str, status: str = "PASS") -> None:
    path = directory / run / record.RECORD_NAME
    check = CheckResult(name="x", status=status, evidence="3", seconds=0)
    verdict = Verdict(checks=(check,)).model_dump(mode="json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "verdict": verdict}))


def test_what_stopped_backups_is_known_until_something_has_started_them(tmp_path: Path) -> None:
    def fail(procedure: str, step: str, *, hours_old: float) -> str:
        return recovered(
            tmp_path,
            procedure,
            Outcome.FAILED,
            hours_old=hours_old,
            phase=Phase.RESTORE,
            step=step,
        )

    assert journals.left_stopped_by(tmp_path) == ()
    fail("recover-database", "restart-database", hours_old=9)
    fail("recover-files", "stop-services", hours_old=9)
    fail("recover-orchestrator", "stop-services", hours_old=9)
    assert journals.left_stopped_by(tmp_path) == (), "they leave backups alone"
    server = fail("recover-server", "restore-configuration", hours_old=8)
    database = fail("recover-database", "stop-services", hours_old=7)
    assert journals.left_stopped_by(tmp_path) == (database, server)
    recovered(tmp_path, "recover-files", Outcome.DONE, hours_old=6, phase=Phase.DECIDE)  # dry run
    red = recovered(tmp_path, "verify-recovery", Outcome.DONE, hours_old=5, phase=Phase.VERIFY)
    with_a_verdict(tmp_path, red, "FAIL")
    assert journals.left_stopped_by(tmp_path) == (database, server)
    dead = left(tmp_path, "recover-database", days_old=0.1, ended=False)
    assert journals.left_stopped_by(tmp_path) == (database, server), "it only looked"
    line = {"event": "step-began", "step": "stop-services", "phase": "restore"}
    with (dead / JOURNAL_NAME).open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    assert journals.left_stopped_by(tmp_path) == (database, server, dead.name)
    green = recovered(tmp_path, "recover-files", Outcome.DONE, hours_old=4, phase=Phase.VERIFY)
    with_a_verdict(tmp_path, green)
    assert journals.left_stopped_by(tmp_path) == (dead.name,), "until its journal is closed"


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
    for status, hours_old in (("FAIL", 2.8), ("PASS", 2.7)):
        verified = recovered(
            tmp_path, "verify-recovery", Outcome.DONE, hours_old=hours_old, phase=Phase.VERIFY
        )
        with_a_verdict(tmp_path, verified, status)
        assert bool(before()) is (status == "FAIL")
    recovered(tmp_path, "recover-database", Outcome.FAILED, hours_old=2, phase=Phase.START)
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


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk that is full while `full.now` says so."""
    disk = SimpleNamespace(now=False)
    append = filesystem.append_line_durably

    def append_if_there_is_room(path: Path, line: str) -> None:
        if disk.now:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, line)

    monkeypatch.setattr(filesystem, "append_line_durably", append_if_there_is_room)
    return disk


def test_a_full_disk_stops_no_run_that_only_tells(tmp_path: Path, full, caplog) -> None:
    with recorded("recover-files", platform="cad", directory=tmp_path) as run:
        full.now = True
        run.fact(files_damaged=3)
        assert "No space left on device" in caplog.text
        full.now = False
        run.about_to("remove points")
    assert run.directory
    written = [json.loads(line)["event"] for line in (run.directory / JOURNAL_NAME).open()]
    assert written[:3] == ["run-began", "fact", "about-to"], "in the order in which it happened"


def test_nothing_is_destroyed_that_can_not_be_written_down(tmp_path: Path, full) -> None:
    with (
        pytest.raises(PermanentError, match=r"Writing the journal of .*No space left") as refused,
        recorded("recover-files", platform="cad", directory=tmp_path) as run,
    ):
        full.now = True
        run.about_to("remove points")
    assert "lifeboat tidy" in (refused.value.hint or "")


def test_a_run_that_can_not_be_recorded_does_not_begin(tmp_path: Path, full) -> None:
    full.now = True
    with (
        pytest.raises(PermanentError, match="No space left"),
        recorded("recover-files", platform="cad", directory=tmp_path),
    ):
        pytest.fail("it began")


def test_a_backup_that_can_not_begin_its_record_is_told(tmp_path, full, monkeypatch) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(
        alarms, "tell_of_failure", lambda _, procedure, evidence: told.append((procedure, evidence))
    )
    full.now = True
    settings = SimpleNamespace(platform="cad", vault=SimpleNamespace(local=tmp_path))
    with pytest.raises(PermanentError), backup.backup_run(settings, Asset.FILES):
        pytest.fail("it began")
    [(procedure, evidence)] = told
    assert procedure == "backup-files"
    assert "No space left on device" in evidence
