"""What the Prefect UI shows of a run: its plan, the clock, the progress, the checks, the record.

Outside of a flow run all of it does nothing. Nothing of it ever stops or delays a recovery: it is
sent by a thread of its own, the newest state of each only, and what can't be sent is dropped.
Known secrets are masked before anything leaves the process.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lifeboat.core import account
from lifeboat.core.plan import RecoveryPlan, size_in_words
from lifeboat.core.secrecy import SHORTEST
from lifeboat.settings import Settings, secrets_of_environment
from lifeboat.tools import process, restic
from lifeboat.tools.report import seconds_in_words
from tasks.orchestration import in_flow_run
from tasks.record import Run

log = logging.getLogger("lifeboat")

TICK_SECONDS = 5.0
"""So often the clock moves on while a long step runs."""
LAST_WORD_SECONDS = 10.0
"""So long the end of a run waits until the server has what happened last."""


@dataclass(frozen=True)
class _Shown:
    kind: str
    data: Any
    description: str


class Board:
    """The artifacts of one run. Keys are `<platform>-<what>`, so that platforms stay apart."""

    def __init__(self, run: Run, settings: Settings | None) -> None:
        from prefect.context import FlowRunContext

        self._run = run
        self._settings = settings
        self._doing = ""
        self._platform = run.record.platform
        flow_run = FlowRunContext.get().flow_run  # type: ignore[union-attr]
        self._flow_run_id = flow_run.id if flow_run else None
        self._waiting: dict[str, _Shown] = {}
        self._ids: dict[str, Any] = {}
        self._wake = threading.Condition()
        self._ended = False
        # With the context of the flow run: its settings say which server it is.
        context = contextvars.copy_context()
        self._sender = threading.Thread(
            target=lambda: context.run(self._send_all), name="artifacts", daemon=True
        )

    def open(self) -> None:
        self._run.listen(self._heard)
        self._sender.start()

    def belongs_to(self, settings: Settings) -> None:
        """Which platform it is, where a recovery learns that on its way."""
        self._settings = settings
        self._platform = settings.platform

    def show(self, what: str, kind: str, data: Any, description: str = "") -> None:
        """Show the newest state of something; what was shown of it before is replaced."""
        if not self._platform:
            return
        key = re.sub(r"[^a-z0-9]+", "-", f"{self._platform} {what}".lower()).strip("-")
        with self._wake:
            self._waiting[key] = _Shown(kind, data, description)
            self._wake.notify()

    def close(self) -> None:
        """Show how it ended, and give the sender a moment to send that."""
        record = self._run.record
        self.show("timeline", "table", account.timeline_table(record), "Every step of the run")
        told = account.result(record, places=self._places())
        self.show("result", "markdown", told, f"How {record.procedure} ended, and its record")
        self._tick()
        with self._wake:
            self._ended = True
            self._wake.notify()
        self._sender.join(LAST_WORD_SECONDS)

    def _heard(self, event: str, details: Mapping[str, Any]) -> None:
        if event == "step-began":
            self._doing = str(details["step"]).replace("-", " ")
        if event == "verdict" and (verdict := self._run.record.verdict):
            told = f"{verdict.passed} of {verdict.total} checks passed"
            self.show("checks", "markdown", account.checks(verdict), told)
        if event in ("step-began", "step-ended"):
            self._tick()

    def _tick(self) -> None:
        record = self._run.record
        rto = record.facts.get("objective_rto_seconds")
        told = account.clock(
            record.model_copy(update={"platform": self._platform}),
            now=time.time(),
            doing=self._doing,
            rto_seconds=float(rto) if rto else None,
        )
        self.show("clock", "markdown", told, "The recovery's clock against its RTO")

    def _places(self) -> dict[str, str]:
        found = {}
        if self._run.directory:
            found["on the platform's host"] = str(self._run.directory)
        if self._settings:
            s3 = self._settings.vault.s3
            key = "/".join(filter(None, (s3.prefix, f"records/runs/{self._run.id}/record.json")))
            found["in the bucket"] = f"s3://{s3.bucket}/{key}"
            if s3.endpoint:
                found["at the store"] = f"{s3.endpoint.rstrip('/')}/{s3.bucket}/{quote(key)}"
        return found

    # --- the sender's thread ----------------------------------------------------------------

    def _send_all(self) -> None:
        try:
            from prefect.client.orchestration import get_client

            with get_client(sync_client=True) as client:
                while self._send_next(client):
                    pass
        except Exception as error:
            log.warning("The UI is not shown what happens: %s: %s", type(error).__name__, error)

    def _send_next(self, client: Any) -> bool:
        with self._wake:
            if not self._waiting and not self._ended:
                self._wake.wait(TICK_SECONDS)
            waiting, self._waiting = self._waiting, {}
            ended = self._ended
        for key, shown in waiting.items():
            try:
                self._send(client, key, shown)
            except Exception as error:
                log.debug("The artifact %s could not be sent: %s", key, error)
        if not waiting and not ended:
            self._tick()
        return bool(waiting) or not ended

    def _send(self, client: Any, key: str, shown: _Shown) -> None:
        from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

        description = self._masked(shown.description)
        data = shown.data
        if isinstance(data, str):
            data = self._masked(data)
        elif shown.kind == "table":
            rows = [{name: self._masked(text) for name, text in row.items()} for row in data]
            data = json.dumps(rows)
        if key in self._ids:
            update = ArtifactUpdate(data=data, description=description)
            client.update_artifact(self._ids[key], update)
            return
        created = client.create_artifact(
            ArtifactCreate(
                key=key,
                type=shown.kind,
                description=description,
                data=data,
                flow_run_id=self._flow_run_id,
            )
        )
        self._ids[key] = created.id

    def _masked(self, text: str) -> str:
        known = self._settings.known_secrets() if self._settings else secrets_of_environment()
        values = {secret.value for secret in known if len(secret.value) >= SHORTEST}
        return process.mask(text, {*values, *(quote(value, safe="") for value in values)})


_board: contextvars.ContextVar[Board | None] = contextvars.ContextVar("board", default=None)


@contextmanager
def shown(run: Run, settings: Settings | None = None) -> Iterator[None]:
    """Show a run in the Prefect UI, if it is a flow run; also how it ended. Never raises."""
    board = _opened(run, settings)
    token = _board.set(board)
    try:
        yield
    finally:
        _board.reset(token)


def _opened(run: Run, settings: Settings | None) -> Board | None:
    if not in_flow_run():
        return None
    try:
        board = Board(run, settings)
        board.open()
    except Exception as error:
        log.warning("The UI is not shown what happens: %s: %s", type(error).__name__, error)
        return None
    run.when_finished(lambda _: board.close())
    return board


def belongs_to(settings: Settings) -> None:
    """Tell the board which platform it shows, where the recovery began without its settings."""
    if board := _board.get():
        board.belongs_to(settings)


def show_plan(plan: RecoveryPlan) -> None:
    """Show what is about to be done, before it is approved."""
    if board := _board.get():
        board.show("recovery-plan", "markdown", plan.in_markdown(), f"{plan.procedure}: its plan")


def show_progress(what: str, now: restic.Progress) -> None:
    """Show how far a restore is: bytes, per cent, and the time that is left."""
    if board := _board.get():
        left = f", about {seconds_in_words(now.seconds_left)} left" if now.seconds_left else ""
        done, total = size_in_words(now.bytes_done), size_in_words(now.bytes_total)
        told = f"{what}: {done} of {total}, {now.percent:.0f} %{left}"
        board.show(f"progress {what}", "progress", round(now.percent, 1), told)
