"""What Prefect's automations hear of: events, and none outside of a flow run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from lifeboat.core.objectives import Report
from tasks.orchestration import in_flow_run

log = logging.getLogger("lifeboat")

OBJECTIVES = "lifeboat.objectives"
"""One for each look; its payload says how many findings are good, and names those that are not."""
FINISHED = "lifeboat.finished"
"""A backup or an upkeep ended well; its resource is `lifeboat.<platform>.<procedure>`."""
RED = "lifeboat.finding.red"
"""One for each finding that is not good; its resource is `lifeboat.<platform>.<finding>`."""


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
