"""The run's own journal: every step, on disk beside the vault, before and after it happens.

Each line of `records/runs/<id>/journal.jsonl` is flushed to the disk before the step goes on, so
that whatever dies, what was done is known. `record.json` is the summary, written at the end.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lifeboat.core.checks import Verdict
from lifeboat.core.errors import NotApproved, PermanentError
from lifeboat.core.kinds import Tier
from lifeboat.core.timeline import (
    MovedAside,
    Outcome,
    Phase,
    RungAttempt,
    RunRecord,
    StepRecord,
    run_id,
)
from lifeboat.tools import filesystem, lives
from tasks import clock

log = logging.getLogger("lifeboat")

JOURNAL_NAME = "journal.jsonl"
RECORD_NAME = "record.json"

flow_run: contextvars.ContextVar[str] = contextvars.ContextVar("flow_run", default="")
"""The id of the Prefect flow run that the process is in; empty: it runs without Prefect."""

Listener = Callable[[str, Mapping[str, object]], None]


class Run:
    """Collects what happens in one procedure. Safe to use from several threads."""

    def __init__(self, procedure: str, platform: str, directory: Path | None) -> None:
        now = clock.now()
        self.id = run_id(procedure, now, secrets.token_hex(2))
        self.directory: Path | None = None
        self._guard = threading.Lock()
        self._unwritten: list[str] = []
        self._when_finished: list[Callable[[Run], None]] = []
        self._listeners: list[Listener] = []
        self._when_step_begins: list[Callable[[Run, str], None]] = []
        self._idle = self._noteworthy = False
        self._restored: dict[str, Tier] = {}
        self._record = RunRecord(
            id=self.id, procedure=procedure, platform=platform, began_at=now.timestamp()
        )
        host = socket.gethostname()
        pid = os.getpid()
        began = {"pid": pid, "host": host, "life": lives.life_of(pid), "flow_run": flow_run.get()}
        self._write("run-began", procedure=procedure, **began)
        if directory:
            self.keep_in(directory)

    @property
    def record(self) -> RunRecord:
        return self._record

    def keep_in(self, directory: Path) -> None:
        """Write the journal below a directory from now on, and what was noted until now first.

        The recovery of a lost server begins where nothing may be written yet. Raises PermanentError
        where it can't be written: a run that died without it could not be cleaned up after.
        """
        place = directory / self.id
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._no_journal(place, error) from error
        with self._guard:
            self.directory = place
            self._flush(needed=True)

    def step_began(self, name: str, phase: Phase | None, at: float) -> None:
        log.info("%s ...", name.replace("-", " "))
        self._write("step-began", step=name, phase=phase)
        for act in self._when_step_begins:
            act(self, name.replace("-", " "))

    def step_ended(self, step: StepRecord) -> None:
        self._add_to("steps", step)
        self._write("step-ended", **step.model_dump(mode="json"))

    def rung(self, attempt: RungAttempt) -> None:
        self._add_to("rungs", attempt)
        self._write("rung", **attempt.model_dump(mode="json"))

    def moved_aside(self, what: str, where: Path) -> None:
        log.warning("Moved aside, not removed: %s is now %s", what, where)
        moved = MovedAside(what=what, where=str(where))
        self._add_to("moved_aside", moved)
        self._write("moved-aside", **moved.model_dump(mode="json"))

    def about_to(self, act: str, **details: str) -> None:
        """Write down a destructive act before it is done; raises PermanentError if it can't be."""
        self._write("about-to", needed=True, act=act, **details)

    def tell(self, event: str, **details: object) -> None:
        """Note what whoever listens wants to know, and the summary does not hold."""
        self._write(event, **details)

    @property
    def restored(self) -> Mapping[str, Tier]:
        """The points that were restored, and the tier whose copy it was."""
        return self._restored

    def uses_points(self, *ids: str, restored_from: Tier | None = None) -> None:
        with self._guard:
            points = tuple(dict.fromkeys((*self._record.points, *ids)))
            self._record = self._record.model_copy(update={"points": points})
            if restored_from:
                self._restored |= dict.fromkeys(ids, restored_from)
        self._write("uses-points", points=ids, restored_from=restored_from)

    def fact(self, **facts: str | int | float | bool) -> None:
        """Keep a figure or a circumstance that the report should show."""
        with self._guard:
            known = {**self._record.facts, **facts}
            self._record = self._record.model_copy(update={"facts": known})
        self._write("fact", **facts)

    def verdict(self, verdict: Verdict) -> None:
        self._add(verdict=verdict)
        checks = [check.model_dump(mode="json") for check in verdict.checks]
        self._write("verdict", passed=verdict.passed, total=verdict.total, checks=checks)

    def keep(self, name: str, text: str) -> None:
        """Leave a document beside the journal."""
        if self.directory:
            try:
                filesystem.atomic_write(self.directory / name, text.encode())
            except OSError as error:
                log.error("%s of %s could not be kept: %s", name, self.id, error)

    def when_step_begins(self, act: Callable[[Run, str], None]) -> None:
        """Do something, which must not raise, whenever a step begins; it is given the step."""
        self._when_step_begins.append(act)

    def when_finished(self, act: Callable[[Run], None]) -> None:
        """Do something with the record once it is complete, however the run ends."""
        self._when_finished.append(act)

    def listen(self, listener: Listener) -> None:
        """Tell of each event, with its details, once it is in the journal."""
        self._listeners.append(listener)

    def found_nothing_to_do(self) -> None:
        """If the run ends well, and did nothing noteworthy besides, it leaves no record."""
        self._idle = True

    def did_something_noteworthy(self) -> None:
        """Leave a record in any case."""
        self._noteworthy = True

    def finish(self, outcome: Outcome, error: str | None = None) -> None:
        self._add(ended_at=time.time(), outcome=outcome, error=error)
        self._write("run-ended", outcome=outcome, error=error)
        if self.directory and self._idle and not self._noteworthy and outcome is Outcome.DONE:
            shutil.rmtree(self.directory)
            return
        if self.directory:
            text = self._record.model_dump_json(indent=2).encode()
            filesystem.atomic_write(self.directory / RECORD_NAME, text)
        for act in self._when_finished:
            act(self)

    def _add_to(self, field: str, thing: object) -> None:
        # What is there is read within the guard: restores side by side must not lose each other's.
        with self._guard:
            longer = (*getattr(self._record, field), thing)
            self._record = self._record.model_copy(update={field: longer})

    def _add(self, **changes: object) -> None:
        with self._guard:
            self._record = self._record.model_copy(update=changes)

    def _write(self, event: str, *, needed: bool = False, **details: object) -> None:
        """Add a line to the journal. What is not `needed` waits for the next one on a full disk:
        nothing that only tells may stop what it tells of.
        """
        line = json.dumps({"at": time.time(), "event": event, **details}, default=str)
        with self._guard:
            self._unwritten.append(line)
            self._flush(needed=needed)
        for listener in self._listeners:
            try:
                listener(event, details)
            except Exception as error:
                # Whoever listens must not stop what is told of.
                log.warning("%s is not shown: %s: %s", event, type(error).__name__, error)

    def _flush(self, *, needed: bool) -> None:
        while self.directory and self._unwritten:
            try:
                filesystem.append_line_durably(self.directory / JOURNAL_NAME, self._unwritten[0])
            except OSError as error:
                if needed:
                    raise self._no_journal(self.directory, error) from error
                log.error("The journal of %s could not be written: %s", self.id, error)
                return
            self._unwritten.pop(0)

    def _no_journal(self, place: Path, error: OSError) -> PermanentError:
        return PermanentError(
            f"Writing the journal of {self.id} in {place.parent}: {error.strerror or error}.",
            hint="Make room on that disk, then run it again: `lifeboat tidy` removes what killed "
            "runs left; *.damaged-* and *.partial beside the data are copies that were kept aside.",
        )


class _NoRun(Run):
    """Used outside any run: a step called by itself, in a test or a shell."""

    def __init__(self) -> None:
        super().__init__("step", "", None)


_current: contextvars.ContextVar[Run | None] = contextvars.ContextVar("run", default=None)


def current_run() -> Run:
    return _current.get() or _NoRun()


@contextmanager
def recorded(procedure: str, *, platform: str, directory: Path | None) -> Iterator[Run]:
    """Record a whole procedure; the record is left behind also when it fails or is interrupted."""
    run = Run(procedure, platform, directory)
    token = _current.set(run)
    try:
        yield run
    except BaseException as error:
        outcome = Outcome.FAILED
        if isinstance(error, NotApproved):
            outcome = Outcome.NOT_APPROVED
            run.fact(not_approved=type(error).__name__)
        _finish(run, outcome, str(error) or type(error).__name__)
        raise
    else:
        _finish(run, Outcome.DONE, None)
    finally:
        _current.reset(token)


def _finish(run: Run, outcome: Outcome, error: str | None) -> None:
    try:
        run.finish(outcome, error)
    except OSError as problem:
        # A full disk must not turn a good recovery into a failed one.
        log.error("The record of %s could not be written: %s", run.id, problem)
