"""What earlier runs have left of themselves: which ended, which live, and which are dead.

A run is dead only if that is proven: its journal says that it ended, or it ran on this host and
its process is gone. Of another host's run, or of one without a journal, nothing is known.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lifeboat.core.timeline import MovedAside, Outcome, Phase, RunRecord, run_began_at
from lifeboat.tools import filesystem, lives
from tasks.record import JOURNAL_NAME, RECORD_NAME

_ENDED = "run-ended"
_INTERRUPTED = "interrupted"
_EVERYDAY = ("backup", "prune", "ship-wal", "watch-objectives")
_TOUCHING = (Phase.RESTORE, Phase.REPLAY, Phase.START, Phase.VERIFY)
_VERIFYING = "verify-recovery"
# Those after which backups do not run before they are started again, and from which step on.
_STOPPING = ("recover-database", "recover-server")
_STOP_STEPS = frozenset({"stop-services", "restore-configuration"})
_SLACK_SECONDS = 60.0  # between two clocks that tell the same moment


class Fate(StrEnum):
    """What has become of a run."""

    ENDED = "ended"  # well or not, it came to its end
    INTERRUPTED = "interrupted"  # its process is gone, and never said an end
    ALIVE = "alive"
    UNKNOWN = "unknown"

    @property
    def dead(self) -> bool:
        """Whether what it left behind is surely nobody's any more."""
        return self in (Fate.ENDED, Fate.INTERRUPTED)


class Journal(BaseModel):
    """The journal of one run, as far as it can be read."""

    model_config = ConfigDict(frozen=True)

    path: Path
    events: tuple[Mapping[str, Any], ...]

    @property
    def run(self) -> str:
        return self.path.parent.name

    @property
    def procedure(self) -> str:
        return str(self._begin.get("procedure", "?"))

    @property
    def flow_run(self) -> str:
        """The id of its run in Prefect; empty if it ran without."""
        return str(self._begin.get("flow_run") or "")

    @property
    def last_words(self) -> str:
        last = self.events[-1] if self.events else {}
        return f"last: {last.get('step') or last.get('event') or 'nothing'}"

    @property
    def _begin(self) -> Mapping[str, Any]:
        return self.events[0] if self.events else {}

    def fate(self) -> Fate:
        if any(event.get("event") == _ENDED for event in self.events):
            return Fate.ENDED
        if self._begin.get("host") != socket.gethostname():
            return Fate.UNKNOWN
        return Fate.ALIVE if self._process_lives() else Fate.INTERRUPTED

    def _process_lives(self) -> bool:
        pid = int(self._begin.get("pid") or 0)
        now = lives.life_of(pid) if pid > 0 else None
        if now is None:
            return False
        if self._begin.get("life"):
            return now == self._begin["life"]
        began = lives.began_at(pid)
        return began is None or began <= float(self._begin.get("at") or 0) + _SLACK_SECONDS

    @property
    def began_steps(self) -> frozenset[str]:
        return frozenset(
            str(event.get("step")) for event in self.events if event.get("event") == "step-began"
        )

    def acts(self, act: str) -> tuple[Mapping[str, Any], ...]:
        """What was written before each act of this name."""
        return tuple(e for e in self.events if e.get("event") == "about-to" and e.get("act") == act)

    def record(self) -> RunRecord:
        """What is known of an interrupted run."""
        return RunRecord(
            id=self.run,
            procedure=self.procedure,
            platform="",
            began_at=float(self._begin.get("at") or 0),
            error=self.last_words,
            moved_aside=tuple(
                MovedAside(what=str(event.get("what")), where=str(event.get("where")))
                for event in self.events
                if event.get("event") == "moved-aside"
            ),
        )

    def close(self, *, by: str) -> None:
        """Write down that it was interrupted, so that it is told once and not for ever."""
        end = {"at": time.time(), "event": _ENDED, "outcome": _INTERRUPTED, "found_by": by}
        filesystem.append_line_durably(self.path, json.dumps(end))


def read(directory: Path, run: str) -> Journal | None:
    """The journal of a run; None if there is none. A line that a crash cut short is left out."""
    path = directory / run / JOURNAL_NAME
    try:
        lines = path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Journal(path=path, events=tuple(filter(None, map(_event, lines))))


def _event(line: str) -> Mapping[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def fate_of(directory: Path, run: str) -> Fate:
    journal = read(directory, run)
    return journal.fate() if journal else Fate.UNKNOWN


def unfinished(directory: Path) -> Iterator[Journal]:
    """The journals without an end, oldest first: of the living, the dead, and the unknown."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    for name in names:
        # The record is written at the end of a run; this way thousands of old runs cost little.
        if os.path.exists(directory / name / RECORD_NAME):
            continue
        journal = read(directory, name)
        if journal and journal.events and journal.fate() is not Fate.ENDED:
            yield journal


def failed_before(directory: Path, procedure: str) -> RunRecord | None:
    """The newest recovery of this kind that touched the platform here, if it failed or was stopped,
    and nothing has proven since that the platform is well: no recovery of any kind, and no
    verification.

    What it had stopped may be down still, whatever the data is like by now.
    """
    for record in _newest_first(directory, "recover-*", f"{_VERIFYING}-*"):
        if _proves(record):
            return None
        touched = any(step.phase in _TOUCHING for step in record.steps)
        if touched and record.procedure == procedure:
            return record if record.outcome is not Outcome.DONE else None
    return None


def left_stopped_by(directory: Path) -> tuple[str, ...]:
    """The recoveries after which backups and deferred services may still be stopped: those of the
    database or the server that had stopped them, or were to start them, and did not come to their
    end, since a recovery of any kind did or a verification has passed.
    """
    found = []
    for record in _newest_first(directory, "recover-*", f"{_VERIFYING}-*"):
        if _proves(record):  # which starts them
            break
        if _leaves_stopped(record.procedure, {step.name for step in record.steps}):
            found.append(record.id)
    dead = (
        journal.run
        for journal in unfinished(directory)
        if journal.fate() is Fate.INTERRUPTED
        and _leaves_stopped(journal.procedure, journal.began_steps)
    )
    return (*found, *dead)


def _leaves_stopped(procedure: str, steps: Collection[str]) -> bool:
    return procedure in _STOPPING and not _STOP_STEPS.isdisjoint(steps)


def _proves(record: RunRecord) -> bool:
    good = record.verdict is not None and (record.verdict.good or record.procedure != _VERIFYING)
    return record.outcome is Outcome.DONE and good


def _newest_first(directory: Path, *kinds: str) -> Iterator[RunRecord]:
    found = (path for kind in kinds for path in directory.glob(f"{kind}/{RECORD_NAME}"))
    # By the moment in their names.
    for path in sorted(found, key=lambda path: path.parent.name.rsplit("-", 2)[1:], reverse=True):
        try:
            yield RunRecord.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue  # pruned at this moment, or not written to its end


def recoveries_done_since(directory: Path, moment: datetime) -> tuple[RunRecord, ...]:
    """The recoveries of this host that were done after a moment; dry runs are none."""
    found = []
    for path in directory.glob(f"recover-*/{RECORD_NAME}"):
        try:
            if path.stat().st_mtime < moment.timestamp():
                continue
            record = RunRecord.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue  # pruned at this moment, or not written to its end
        if record.outcome is Outcome.DONE and not record.facts.get("dry_run"):
            found.append(record)
    return tuple(found)


def last_run_at(directory: Path, procedure: str) -> datetime | None:
    """When a procedure last began on this host, by the names of its records; None if never."""
    began = (run_began_at(path.name) for path in directory.glob(f"{procedure}-*"))
    return max(began, default=None)


def forget_everyday_runs(directory: Path, *, began_before: datetime) -> int:
    """Remove the records of old backups, prunes and looks that came to their end; say how many.

    What a recovery, a drill or a restore test has left is evidence and stays.
    """
    everyday = [
        path
        for prefix in _EVERYDAY
        for path in directory.glob(f"{prefix}-*")
        if (path / RECORD_NAME).exists() and run_began_at(path.name) < began_before
    ]
    for path in everyday:
        shutil.rmtree(path)
    return len(everyday)
