"""What Prefect's automations hear of: events, and none outside of a flow run."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lifeboat.core.objectives import Report
from tasks.orchestration import in_flow_run

log = logging.getLogger("lifeboat")

OBJECTIVES = "lifeboat.objectives"
"""One for each look; its payload says how many findings are good, and names those that are not."""
FINISHED = "lifeboat.finished"
"""A backup or an upkeep ended well; its resource is `lifeboat.<platform>.<procedure>`."""
RED = "lifeboat.finding.red"
"""One for each finding that is not good; its resource is `lifeboat.<platform>.<finding>`."""
SIGN_EVERY_SECONDS = 300.0
"""So often what is at work for long says that it is alive."""
_SIGNS = 144  # at most: half a day
_LAST_SIGN_SECONDS = 5.0


def emit(event: str, *, platform: str, subject: str, payload: Mapping[str, object]) -> None:
    """Tell Prefect; outside of a flow run do nothing. Never raises: telling must not stop doing."""
    if not in_flow_run():
        return
    try:
        from prefect.events import emit_event

        emit_event(
            event=event,
            resource={
                "prefect.resource.id": f"lifeboat.{platform}.{subject}",
                "prefect.resource.name": f"{subject} of {platform}",
                "lifeboat.platform": platform,
            },
            payload=dict(payload),
        )
    except Exception as error:
        log.warning("The event %s of %s could not be sent: %s", event, subject, error)


def tell_finished(platform: str, procedure: str, run: str) -> None:
    """Send that a backup or an upkeep ended well. Where these stop, the server tells people."""
    emit(FINISHED, platform=platform, subject=procedure, payload={"run": run})


@contextmanager
def signs_of_life(platform: str, procedure: str, run: str) -> Iterator[None]:
    """Within the block send every few minutes that a procedure is alive, as if it had ended well.

    Its next runs are cancelled as long as it is at work, so that the server would call it silent.
    One that hangs is called so all the same, hours later.
    """
    ended = threading.Event()
    context = contextvars.copy_context()

    def send() -> None:
        for _ in range(_SIGNS):
            if ended.wait(SIGN_EVERY_SECONDS):
                return
            context.run(tell_finished, platform, procedure, run)

    thread = threading.Thread(target=send, name="signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LAST_SIGN_SECONDS)


def tell_objectives(report: Report) -> None:
    """Send what a look at the objectives found."""
    for finding in report.red:
        emit(
            RED,
            platform=report.platform,
            subject=finding.name,
            payload=finding.model_dump(mode="json"),
        )
    emit(
        OBJECTIVES,
        platform=report.platform,
        subject="objectives",
        payload={
            "good": report.good,
            "passed": report.passed,
            "total": len(report.findings),
            "red": [finding.name for finding in report.red],
            "seen_from": report.seen_from,
        },
    )
