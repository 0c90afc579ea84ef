"""What dead runs leave: told apart from what the living use, and cleaned up only with proof."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lifeboat.core.errors import LockBusy
from lifeboat.settings import Settings, load_settings
from lifeboat.tools import lives
from tasks import journals, leftovers, locks, places
from tasks.journals import Fate
from tasks.record import recorded
from tests.unit.smallest_settings import SMALLEST

POINT = "database-20260131T031500Z"


@pytest.fixture(autouse=True)
def _no_bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What lies in S3 is shown with a real store in tests/system."""
    monkeypatch.setattr(leftovers, "_remote_locks", lambda settings, asset: [])
    monkeypatch.setattr(leftovers, "_uploads", lambda settings: [])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "lifeboat.yaml").write_text(SMALLEST)
    (tmp_path / "data/postgres").mkdir(parents=True)
    return load_settings(tmp_path / "lifeboat.yaml")


@pytest.fixture(scope="module")
def dead_pid() -> int:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    return int(done.stdout)


def a_journal(
    settings: Settings, run: str, *events: dict, pid: int, host: str = "", **begin: object
) -> Path:
    path = places.runs_directory(settings) / run / "journal.jsonl"
    path.parent.mkdir(parents=True)
    procedure = run.rsplit("-", 2)[0]
    first = {"at": time.time(), "event": "run-began", "procedure": procedure, "pid": pid}
    first |= {"host": host or socket.gethostname(), **begin}
    path.write_text("".join(json.dumps(event) + "\n" for event in (first, *events)))
    return path


def fate(settings: Settings, run: str = "backup-files-1-a") -> Fate:
    return journals.fate_of(places.runs_directory(settings), run)


# --- is it dead? ----------------------------------------------------------------------------


def test_a_process_that_is_gone_is_proof_and_one_that_lives_is_not(settings, dead_pid) -> None:
    a_journal(settings, "backup-files-1-a", pid=dead_pid)
    a_journal(settings, "backup-files-1-b", pid=os.getpid())
    assert fate(settings) is Fate.INTERRUPTED
    assert fate(settings, "backup-files-1-b") is Fate.ALIVE
    assert fate(settings, "never-heard-of-1-a") is Fate.UNKNOWN
    assert [one.dead for one in Fate] == [True, True, False, False]


@pytest.mark.parametrize(
    ("begin", "expected"),
    [
        ({"life": "this one"}, Fate.ALIVE),
        ({"life": "another-boot/77"}, Fate.INTERRUPTED),
        ({"at": 86400.0}, Fate.INTERRUPTED),  # of an older Lifeboat: only the time tells
        ({"at": 86400.0, "life": "this one"}, Fate.ALIVE),  # however the clock was set since
        ({"host": "elsewhere"}, Fate.UNKNOWN),
        ({"pid": None}, Fate.INTERRUPTED),
    ],
)
def test_a_number_that_is_used_again_is_not_taken_for_the_run(settings, begin, expected) -> None:
    pid = os.getpid()
    if begin.get("life") == "this one":
        begin = {**begin, "life": lives.life_of(pid)}
    a_journal(settings, "backup-files-1-a", **{"pid": pid, **begin})
    assert fate(settings) is expected


def test_a_zombie_is_dead(settings) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    life = lives.life_of(child.pid)
    deadline = time.monotonic() + 10
    while lives.life_of(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    a_journal(settings, "backup-files-1-a", pid=child.pid, life=life)
    assert fate(settings) is Fate.INTERRUPTED
    child.wait()


def test_a_run_that_ended_is_dead_although_its_process_lives(settings) -> None:
    with recorded("backup-files", platform="p", directory=places.runs_directory(settings)) as run:
        assert fate(settings, run.id) is Fate.ALIVE
    assert fate(settings, run.id) is Fate.ENDED


def test_a_line_that_a_crash_cut_short_stops_nobody(settings, dead_pid) -> None:
    path = a_journal(
        settings, "backup-files-1-a", {"event": "step-began", "step": "x"}, pid=dead_pid
    )
    path.write_text(path.read_text() + '{"at": 1, "ev')
    [journal] = journals.unfinished(places.runs_directory(settings))
    assert journal.last_words == "last: x"
    journal.close(by="me")
    assert fate(settings) is Fate.ENDED
    path.write_text("")
    assert list(journals.unfinished(places.runs_directory(settings))) == []


# --- interrupted runs -----------------------------------------------------------------------


def test_an_interrupted_run_is_told_once(settings, dead_pid) -> None:
    step = {"event": "step-began", "step": "store-snapshot"}
    moved = {"event": "moved-aside", "what": "the data", "where": "/data.damaged-x"}
    a_journal(settings, "backup-files-1-a", step, pid=dead_pid)
    a_journal(settings, "recover-database-1-a", moved, pid=dead_pid)
    a_journal(settings, "backup-models-1-a", pid=os.getpid())
    a_journal(settings, "backup-config-1-a", pid=dead_pid, host="elsewhere")
    told = [leftover.in_words() for leftover in leftovers.tidy(settings, dry_run=True)]
    assert told == [
        "The run backup-files-1-a was interrupted (last: store-snapshot): would be noted",
        "The run recover-database-1-a was interrupted (last: moved-aside; the data is now "
        "/data.damaged-x): would be noted",
    ]
    assert len(leftovers.tidy(settings)) == 2
    assert leftovers.tidy(settings) == ()
    end = json.loads(
        (places.runs_directory(settings) / "backup-files-1-a/journal.jsonl")
        .read_text()
        .splitlines()[-1]
    )
    assert (end["event"], end["outcome"]) == ("run-ended", "interrupted")
    assert end["found_by"].startswith("tidy-")


def test_a_backup_leaves_it_to_the_next_recovery_to_tell_of_one(settings, dead_pid) -> None:
    a_journal(settings, "recover-database-1-a", pid=dead_pid)
    leftovers.tidy_before(settings, "files")
    assert fate(settings, "recover-database-1-a") is Fate.INTERRUPTED


def test_it_costs_little_with_years_of_runs_behind(settings) -> None:
    runs = places.runs_directory(settings)
    for number in range(5000):
        (runs / f"backup-files-{number}-a").mkdir(parents=True)
        (runs / f"backup-files-{number}-a" / "record.json").touch()
    began = time.process_time()
    assert list(journals.unfinished(runs)) == []
    assert time.process_time() - began < 0.5


# --- base copies beside the data directory ---------------------------------------------------


@pytest.fixture
def incoming(settings):
    """Make one as a recovery leaves it that died after it was brought."""

    def make(run: str, *, pid: int, hot_copy: str = "", noted: bool = True) -> Path:
        path = settings.database.data_directory.with_name(f"postgres.incoming-{run}")
        path.mkdir()
        (path / "PG_VERSION").write_text("18")
        about = {"event": "about-to", "act": leftovers.BRINGING, "incoming": str(path)}
        a_journal(settings, run, *([about | {"hot_copy": hot_copy}] if noted else ()), pid=pid)
        return path

    return make


def test_a_restored_copy_of_a_dead_recovery_goes_with_its_scratch(
    settings, incoming, dead_pid
) -> None:
    path = incoming("recover-database-1-a", pid=dead_pid)
    for kind in ("wal", "part"):
        path.with_name(f"{path.name}.{kind}").mkdir()
    damaged = path.with_name("postgres.damaged-recover-database-1-a")
    failed = path.with_name("postgres.failed-hot-recover-database-1-a")
    for aside in (damaged, failed):
        aside.mkdir()
    found = leftovers.tidy(settings, dry_run=True)
    assert path.exists() and sum("incoming" in one.where for one in found) == 3
    leftovers.tidy(settings)
    there = {entry.name for entry in path.parent.iterdir()}
    assert there == {"postgres", damaged.name, failed.name}


def test_nothing_of_a_living_or_an_unknown_run_is_touched(settings, incoming, dead_pid) -> None:
    alive = incoming("recover-database-1-a", pid=os.getpid())
    alive.with_name(f"{alive.name}.wal").mkdir()
    strange = alive.with_name("postgres.incoming-from-somewhere")
    unexplained = incoming("recover-database-1-b", pid=dead_pid, noted=False)
    started = incoming("recover-database-1-c", pid=dead_pid)
    (started / "postmaster.pid").touch()
    odd = started.with_name(f"{started.name}.kept-by-hand")
    strange.mkdir(), odd.mkdir()
    before = sorted(path.name for path in alive.parent.iterdir())
    found = leftovers.tidy(settings)
    stays = {Path(one.where).name for one in found if one.done.startswith("left as it is")}
    assert stays == {strange.name, unexplained.name, started.name, odd.name}
    assert sorted(path.name for path in alive.parent.iterdir()) == before


def test_the_hot_copy_goes_back_where_it_was(settings, incoming, dead_pid) -> None:
    place = places.hot_directory(settings) / POINT
    place.mkdir(parents=True)
    (place / "lifeboat.json").write_text("{}")
    path = incoming("recover-database-1-a", pid=dead_pid, hot_copy=str(place))
    leftovers.tidy(settings, dry_run=True)
    assert path.exists()
    leftovers.put_hot_copy_back(settings)
    assert (place / "base/PG_VERSION").read_text() == "18"
    assert not path.exists()
    leftovers.put_hot_copy_back(settings)


@pytest.mark.parametrize("newer", [True, False])
def test_without_its_place_it_goes_only_if_a_newer_one_is_there(
    settings, incoming, dead_pid, newer
) -> None:
    place = places.hot_directory(settings) / POINT
    if newer:
        (place.parent / "database-20260131T091500Z").mkdir(parents=True)
    path = incoming("recover-database-1-a", pid=dead_pid, hot_copy=str(place))
    leftovers.tidy(settings)
    assert path.exists() is not newer


def test_a_copy_of_the_hot_copy_goes_while_the_hot_copy_is_in_its_place(
    settings, incoming, dead_pid
) -> None:
    place = places.hot_directory(settings) / POINT
    (place / "base").mkdir(parents=True)
    (place / "base/whole").touch()
    path = incoming("recover-database-1-a", pid=dead_pid, hot_copy=str(place))
    leftovers.tidy(settings)
    assert not path.exists() and (place / "base/whole").exists()


# --- the rest -------------------------------------------------------------------------------


def test_a_half_written_hot_copy_goes_while_no_backup_runs(settings) -> None:
    half = places.hot_directory(settings) / "20260131T031500Z.partial"
    whole = places.hot_directory(settings) / POINT
    for path in (half / "base", whole / "base"):
        path.mkdir(parents=True)
    with locks.backup_lock(settings, "database", run="backup-database"):
        leftovers.tidy_before(settings, "files")
    assert half.exists()
    [found] = leftovers.tidy(settings)
    assert found.what == "The half-written hot copy"
    assert not half.exists() and whole.exists()


def test_restore_tests_of_dead_runs_go_and_of_others_stay(settings, dead_pid) -> None:
    root = settings.vault.local / "restore-tests"
    for run, pid in (("test-restore-1-a", dead_pid), ("test-restore-1-b", os.getpid())):
        (root / run / "database/base").mkdir(parents=True)
        a_journal(settings, run, pid=pid)
    (root / "of-unknown-origin").mkdir()
    with locks.backup_lock(settings, "restore-test", run="test-restore"):
        leftovers.tidy_before(settings, "files")
    assert len(list(root.iterdir())) == 3, "its next run is at work there"
    leftovers.tidy_before(settings, "files")
    assert {path.name for path in root.iterdir()} == {"test-restore-1-b", "of-unknown-origin"}


def test_what_a_dead_repair_looked_at_goes_and_a_living_ones_stays(settings, dead_pid) -> None:
    root = places.repairs_directory(settings)
    for run, pid in (("recover-files-1-a", dead_pid), ("recover-files-1-b", os.getpid())):
        (root / run / "0").mkdir(parents=True)
        a_journal(settings, run, pid=pid)
    (root / "of-unknown-origin").mkdir()
    leftovers.tidy_before(settings, "files")
    assert {path.name for path in root.iterdir()} == {"recover-files-1-b", "of-unknown-origin"}


def test_unfinished_files_of_dead_processes_go(settings, dead_pid) -> None:
    directory = places.records_directory(settings) / "verified"
    directory.mkdir(parents=True)
    old, young = directory / f".a.json.{dead_pid}.7", directory / f".b.json.{dead_pid}.7"
    alive, other = directory / f".c.json.{os.getpid()}.7", directory / ".hidden.json"
    for path in (old, young, alive, other):
        path.touch()
        if path is not young:
            os.utime(path, (1, 1))
    leftovers.tidy_before(settings, "files")
    assert set(directory.iterdir()) == {young, alive, other}


def test_the_key_that_a_dead_run_left_in_a_temporary_directory_goes(settings, tmp_path) -> None:
    old, young, others = (
        tmp_path / f"lifeboat-{name}" for name in ("aaaaaaaa", "b" * 8, "settings")
    )
    for path in (old, young, others):
        path.mkdir()
        (path / "wal-key.txt").write_text("AGE-SECRET-KEY-1")
    (others / "notes.txt").touch()
    for path in (old, others):
        os.utime(path, (1, 1))
    leftovers.tidy_before(settings, "files")
    assert not old.exists()
    assert young.exists() and others.exists()


def test_while_a_recovery_runs_nothing_is_tidied(settings) -> None:
    with locks.recovery_lock(settings, run="recover-database"), pytest.raises(LockBusy):
        leftovers.tidy(settings)


def test_what_fails_is_told_and_the_rest_goes_on(settings, dead_pid, monkeypatch, caplog) -> None:
    def broken(settings):
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(leftovers, "_restore_tests", broken)
    a_journal(settings, "backup-files-1-a", pid=dead_pid)
    leftovers.tidy_before(settings, "files")
    assert "Permission denied" in caplog.text
    assert fate(settings) is Fate.ENDED


def test_of_two_who_would_tidy_one_does(settings, dead_pid) -> None:
    a_journal(settings, "backup-files-1-a", pid=dead_pid)
    with locks.tidying(settings) as ours:
        assert ours
        leftovers.tidy_before(settings, "files")
        assert fate(settings) is Fate.INTERRUPTED
    leftovers.tidy_before(settings, "files")
    assert fate(settings) is Fate.ENDED
