"""What restic says while it runs: progress and actions on one stream, its troubles on the other."""

from __future__ import annotations

import collections
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lifeboat.core.errors import PreconditionError
from lifeboat.tools.restic.answers import NAMED_FILES, OnProgress, Progress
from lifeboat.tools.restic.errors import GaveUp, meaning

log = logging.getLogger("lifeboat.restic")

STALL_SECONDS = 1800.0
"""So long a backup may stand still before it counts as hanging: restic has been seen to wait for
itself for ever when a disk was full."""

PROGRESS_SECONDS = 0.2

_NOISE = re.compile(
    r"\x1b\[\d*K|^Fatal: |^the `unlock` command .*|^Is there a repository at .*"
    # Of a file that could not be restored at all; why is said before.
    r"|^(lchown|UtimesNano|chmod) .*: no such file or directory"
    # What to do is ours to say.
    r"|^The repository (index )?(is|contains) damaged.*|^Damaged pack files can.*|^restic repair .*"
)
# What a check says of damage, with the whole name of what is damaged.
_PACK = re.compile(r"\bpack ([0-9a-f]{64})\b")
_MISSING = re.compile(r"\bpack ([0-9a-f]{64}): does not exist")
_INDEX = re.compile(r"\bindex ([0-9a-f]{64})\b")
SNAPSHOT = re.compile(r'(?:belongs to snapshot |"snapshot":")([0-9a-f]{64})')
_RETRYING = re.compile(r"returned error, retrying after ([\d.hmsµn]+): (.*)")
_DURATION = re.compile(r"([\d.]+)(h|ms|m|s|µs|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


@dataclass
class Heard:
    """What restic says on standard output, line by line: progress, actions, and the summary."""

    on_progress: OnProgress | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    # action -> name -> size
    actions: dict[str, dict[str, int]] = field(
        default_factory=lambda: collections.defaultdict(dict)
    )
    _began: float = field(default_factory=time.monotonic)
    _reported: float = 0.0
    _done: tuple[int, int] = (0, 0)
    _moved_at: float = field(default_factory=time.monotonic)

    def require_progress(self) -> None:
        """Raise GaveUp if what is told of has stood still for too long."""
        if time.monotonic() - self._moved_at > STALL_SECONDS:
            raise GaveUp(f"it made no progress for {STALL_SECONDS:g} s")

    def take(self, line: str) -> None:
        if '"action":"unchanged"' in line:
            return  # most lines, and counted in the summary
        try:
            told = json.loads(line)
        except ValueError:
            return  # a line for people
        kind = told.get("message_type")
        if kind == "status":
            done = (told.get("bytes_done", 0), told.get("files_done", 0))
            if done != self._done:
                self._done, self._moved_at = done, time.monotonic()
            self._report(told)
        elif kind == "verbose_status":
            self.actions[told["action"]][told["item"].removeprefix("/")] = told.get("size", 0)
        elif kind == "summary":
            self.summary = told
            total = told.get("total_bytes", told.get("total_bytes_processed", 0))
            files = told.get("total_files", told.get("total_files_processed", 0))
            self._reported = 0.0  # the end is always told
            self._report(
                {"percent_done": 1.0, "bytes_done": total, "total_bytes": total}
                | {"files_done": files, "total_files": files}
            )

    def _report(self, told: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if self.on_progress is None or now - self._reported < PROGRESS_SECONDS:
            return
        self._reported = now
        share = told.get("percent_done", 0.0)
        progress = Progress(
            percent=100 * share,
            bytes_done=told.get("bytes_done", told.get("bytes_restored", 0)),
            bytes_total=told.get("total_bytes", 0),
            files_done=told.get("files_done", told.get("files_restored", 0)),
            files_total=told.get("total_files", 0),
            seconds_left=(now - self._began) * (1 - share) / share if share else None,
        )
        try:
            self.on_progress(progress)
        except Exception:
            # A broken progress bar must not stop a recovery.
            log.exception("Progress can't be shown")
            self.on_progress = None


@dataclass
class Problems:
    """What restic says on standard error. Raises GaveUp when its retrying leads nowhere."""

    patience_seconds: float = 60.0
    count: int = 0
    items: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    stored_again: int = 0  # files whose blobs the repository had lost
    packs: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)  # of the packs
    indexes: dict[str, None] = field(default_factory=dict)
    # The first say what happened, the last how it ended.
    _first: list[str] = field(default_factory=list)
    _last: collections.deque[str] = field(
        default_factory=lambda: collections.deque(maxlen=NAMED_FILES)
    )
    _failing_since: float | None = None

    def begin(self, patience_seconds: float) -> None:
        """Forget what an attempt before this one said."""
        vars(self).update(vars(Problems(patience_seconds)))

    @property
    def text(self) -> str:
        """The first and the last messages, without repetition."""
        return "; ".join(dict.fromkeys([*self._first, *self._last]))

    def take(self, line: str) -> None:
        if line.startswith("{"):
            self._take_json(line)
        elif line.endswith("does not exist, skipping"):
            self.skipped.append(line.removesuffix("does not exist, skipping").strip())
        elif found := _RETRYING.search(line):
            self._say(found[2])
            self._lose_patience(found[2], _seconds_of(found[1]))
        elif "operation successful after" in line:
            self._failing_since = None
        else:
            self._say(line)

    def _take_json(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return
        if told.get("message_type") == "error":
            # `check` says it otherwise than the others.
            message = told.get("error", told).get("message", "")
            if "storing the file again" in message:
                self.stored_again += 1
                return
            self.count += 1
            if len(self.items) < NAMED_FILES:
                self.items.append(told.get("item") or "?")
            self._say(message)
        elif told.get("message_type") == "exit_error":
            self._say(told["message"])

    def _say(self, text: str) -> None:
        self.packs |= dict.fromkeys(_PACK.findall(text))
        self.missing |= dict.fromkeys(_MISSING.findall(text))
        self.indexes |= dict.fromkeys(_INDEX.findall(text))
        for line in filter(None, (_NOISE.sub("", line).strip() for line in text.splitlines())):
            if len(self._first) < NAMED_FILES // 2:
                self._first.append(line)
            else:
                self._last.append(line)

    def _lose_patience(self, message: str, delay_seconds: float) -> None:
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        waited_then = now + delay_seconds - self._failing_since
        hopeless = meaning(message)[0] is PreconditionError
        if hopeless or waited_then > self.patience_seconds:
            raise GaveUp(message)


def _seconds_of(duration: str) -> float:
    """Given Go's `1m8.8s`, return 68.8."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))
