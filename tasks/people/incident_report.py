"""The post-incident report: made from an incident's record, kept beside it here and in S3."""

from __future__ import annotations

import logging
from pathlib import Path

from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.followups import FollowUp
from lifeboat.core.incident import Incident
from lifeboat.core.incident_report import IncidentReport
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, pages
from tasks import clock, places
from tasks.people import followups, incidents

log = logging.getLogger("lifeboat")


def make_report(settings: Settings, incident: Incident) -> IncidentReport:
    """Add up the report; what no record holds is marked in it as a gap."""
    return IncidentReport(
        incident=incident,
        written_at=clock.now(),
        objective_rto_seconds=settings.objectives.rto_seconds,
        objective_rpo_seconds=settings.objectives.rpo_seconds,
        follow_ups=_follow_ups(settings, incident),
    )


def write_report(settings: Settings, incident: Incident) -> Path:
    """Write `report.md` and `report.html` beside the incident; give the latter's path.

    A bucket that does not answer is only told. Raises PreconditionError if this host can't keep
    them; the bucket has them then.
    """
    report = make_report(settings, incident)
    texts = {"report.html": pages.report_html(report), "report.md": pages.report_markdown(report)}
    kinds = {"report.html": "text/html; charset=utf-8", "report.md": "text/markdown"}
    try:
        for name, text in texts.items():
            key = incidents.key(incident.id, name)
            places.bucket(settings).put(key, text.encode(), content_type=kinds[name])
    except RecoveryError as error:
        log.warning("The report of %s is only on this host: %s", incident.id, error)
    directory = incidents.directory(settings) / incident.id
    try:
        # Where the vault is not mounted, nothing is begun on the disk below it.
        if settings.vault.local.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            filesystem.atomic_write(directory / name, text.encode())
    except OSError as error:
        raise PreconditionError(
            f"Keeping the report of {incident.id} in {directory}: {error.strerror}.",
            hint="Look whether the vault's disk is mounted and has room. The bucket has the "
            "report, unless the log says otherwise.",
        ) from error
    return directory / "report.html"


def follow_incidents() -> None:
    """Write the report whenever an incident is closed."""
    if write_report not in incidents.when_closed:
        incidents.when_closed.append(write_report)


def _follow_ups(settings: Settings, incident: Incident) -> tuple[FollowUp, ...]:
    """What the incident, or one of its recoveries, left to do; the most urgent first."""
    sources = {incident.id, *incident.runs}
    found = [f for f in followups.read_all(settings) if f.source in sources]
    return tuple(sorted(found, key=lambda follow_up: follow_up.wanted_at))
