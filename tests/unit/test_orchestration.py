"""One procedure, with Prefect and without: retries, side by side, and the journal on disk."""

from __future__ import annotations

import importlib
import inspect
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from lifeboat.core.checks import CheckResult, Verdict
from lifeboat.core.errors import (
    NobodyApproved,
    PermanentError,
    PreconditionError,
    RecoveryError,
    Rejected,
    TransientError,
)
from lifeboat.core.timeline import Outcome, Phase
from lifeboat.tools import process
from tasks import orchestration
from tasks.orchestration import side_by_side, step
from tasks.record import current_run, recorded

ROOT = Path(__file__).resolve().parents[2]
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("[a-z]*.py"))


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestration, "RETRY_WAITS_SECONDS", (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("error", "calls"), [(TransientError("later"), 3), (PermanentError("never"), 1)]
)
def test_only_what_may_pass_is_tried_again(error: RecoveryError, calls: int) -> None:
    made = []

    @step(retries=2)
    def act() -> None:
        made.append(1)
        raise error

    with pytest.raises(type(error)):
        act()
    assert len(made) == calls


def test_every_attempt_is_recorded_with_its_phase_and_its_end(tmp_path: Path) -> None:
    attempts = iter([TransientError("busy"), None])

    @step(Phase.FETCH, retries=1)
    def fetch_it() -> str:
        if error := next(attempts):
            raise error
        return "done"

    with recorded("recover-x", platform="p", directory=tmp_path) as run:
        assert fetch_it() == "done"
    assert [(s.name, s.phase, s.outcome) for s in run.record.steps] == [
        ("fetch-it", Phase.FETCH, Outcome.FAILED),
        ("fetch-it", Phase.FETCH, Outcome.DONE),
    ]
    on_disk = json.loads((tmp_path / run.id / "record.json").read_text())
    assert on_disk["outcome"] == "done"
    events = [
        json.loads(line)["event"]
        for line in (tmp_path / run.id / "journal.jsonl").read_text().splitlines()
    ]
    assert events[0] == "run-began"
    assert events[-1] == "run-ended"


def test_a_run_that_fails_leaves_its_record_too(tmp_path: Path) -> None:
    with (
        pytest.raises(PermanentError),
        recorded("recover-x", platform="p", directory=tmp_path) as run,
    ):
        raise PermanentError("It broke.")
    assert run.record.outcome is Outcome.FAILED
    assert run.record.error == "It broke."


def test_what_happens_before_there_is_a_place_is_written_when_there_is_one(tmp_path: Path) -> None:
    with recorded("recover-server", platform="p", directory=None) as run:
        run.fact(early=True)
        assert not list(tmp_path.iterdir())
        run.keep_in(tmp_path)
        run.fact(late=True)
    text = (tmp_path / run.id / "journal.jsonl").read_text()
    assert text.index("run-began") < text.index("early") < text.index("late")


def test_side_by_side_tries_all_and_tells_all() -> None:
    done = threading.Event()

    def fail(text: str):
        def act():
            raise PreconditionError(text)

        return act

    with pytest.raises(PreconditionError, match=r"2 of 3 failed: \[a\] one \[b\] two"):
        side_by_side({"a": fail("one"), "b": fail("two"), "c": done.set})
    assert done.is_set()
    with pytest.raises(PreconditionError, match="^one$"):
        side_by_side({"a": fail("one"), "c": done.set})
    assert side_by_side({"x": lambda: 1, "y": lambda: 2}) == {"x": 1, "y": 2}
    with pytest.raises(ZeroDivisionError):
        side_by_side({"a": fail("one"), "b": lambda: 1 / 0})


def test_side_by_side_keeps_the_run() -> None:
    with recorded("x", platform="p", directory=None) as run:
        assert side_by_side({"id": lambda: current_run().id}) == {"id": run.id}


@pytest.mark.parametrize("flow", FLOWS)
def test_without_prefect_no_flow_imports_it(flow: str) -> None:
    code = (
        "import sys; from tasks import orchestration; orchestration.run_alone();"
        f"import flows.{flow}; sys.exit('prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_same_procedure_is_a_prefect_flow_otherwise() -> None:
    code = (
        "import prefect; from flows.verify_recovery import verify_recovery as flow;"
        "assert isinstance(flow, prefect.Flow), flow; assert flow.name == 'verify-recovery'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flow", FLOWS)
def test_each_flow_reads_as_a_runbook(flow: str) -> None:
    """Purpose, numbered steps, what it changes, what if it fails, and the evidence."""
    text = (ROOT / "flows" / f"{flow}.py").read_text()
    for part in ("1. ", "If it fails:", "Evidence:"):
        assert part in text, f"{flow} lacks {part!r}"
    assert len(text.splitlines()) < 150


@pytest.mark.parametrize("name", FLOWS)
def test_what_may_be_not_good_says_what_is_wrong(name: str) -> None:
    """It becomes the message of the red run in the UI."""
    function = getattr(importlib.import_module(f"flows.{name}"), name)
    result = inspect.signature(function).return_annotation
    for kind in get_args(result) or (result,):
        assert hasattr(kind, "in_words") or not hasattr(kind, "good"), kind


def ended(result: object, **asked: object) -> object:
    """How a flow run of a procedure ends that gives this result."""
    request = SimpleNamespace(**asked)
    return orchestration._naming_ends(lambda request: result)(request)


@pytest.mark.parametrize("kind", [Rejected, NobodyApproved])
def test_what_was_not_approved_is_cancelled_by_name_and_raised_in_a_shell(kind) -> None:
    def refuse(request: object) -> None:
        raise kind("No.", hint="Nothing was touched.")

    state = orchestration._naming_ends(refuse)(SimpleNamespace())
    assert (state.name, state.is_cancelled()) == (kind.__name__, True)
    assert state.message == "No. Nothing was touched."
    with pytest.raises(kind):
        state.result(_sync=True)


def test_a_dry_run_ends_in_a_state_of_its_own() -> None:
    assert ended("the plan", dry_run=True).name == "DryRun"
    assert ended("the record", dry_run=False) == "the record"


def test_a_run_by_a_deployment_is_green_only_if_what_it_found_is_good(monkeypatch) -> None:
    unknown = Verdict.of([], expected=["search"])
    assert ended(unknown) is unknown, "from a shell the verdict itself is wanted"
    monkeypatch.setattr(orchestration, "_runs_by_deployment", lambda: True)
    state = ended(unknown)
    assert (state.name, state.is_failed()) == ("NotGood", True)
    assert "search UNKNOWN" in state.message
    good = Verdict.of([CheckResult(name="search", status="PASS", evidence="3", seconds=0)])
    good = good.model_copy(update={"checks": good.checks[7:8]})
    assert ended(good) is good


def test_ctrl_c_ends_what_runs_side_by_side_and_waits_for_no_restore() -> None:
    ended: list[str] = []
    never_began: list[str] = []

    def restore() -> None:
        try:
            process.run(["sleep", "60"], doing="Restoring")
        except KeyboardInterrupt as error:
            ended.append(str(error))
            raise

    def both() -> None:
        side_by_side({"a": restore, "b": restore})  # as the restores of a lost server

    began = time.monotonic()
    here = threading.get_ident()
    ctrl_c = threading.Timer(0.5, lambda: signal.pthread_kill(here, signal.SIGINT))
    ctrl_c.start()
    work = {"nested": both, "own": restore, "later": lambda: never_began.append("later")}
    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, at_once=2)
    assert time.monotonic() - began < 20
    assert ended == ["Restoring: ended, as what it was part of was given up"] * 3
    assert not never_began
    process.run(["true"], doing="Going on")
