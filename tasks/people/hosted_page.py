"""The hosted status page: told what ours shows, after people were told, and never in the way."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from lifeboat.core import hosted_page as core
from lifeboat.core.communication import Audience
from lifeboat.core.errors import RecoveryError
from lifeboat.core.incident import Delivered, Event, EventKind
from lifeboat.core.status_page import IncidentView, StatusPage
from lifeboat.settings import Settings
from tasks import clock
from tasks.people import incidents

if TYPE_CHECKING:
    from lifeboat.tools.hosted_status import HostedPage

log = logging.getLogger("lifeboat")

TO = "hosted status page"
_MOMENT = "published"
_LATE_DAYS = 7


def publish(settings: Settings, page: StatusPage) -> tuple[str, ...]:
    """Make the hosted page show what ours does; give what went wrong. Never raises.

    What was told, and what was not taken, is in the incident's lines. Safe to do again: only what
    the hosted page does not have yet is sent.
    """
    told = settings.status_page.hosted
    if told is None:
        return ()
    from lifeboat.tools.hosted_status import HostedPage

    wanted = [i for i in page.incidents if _is_told(settings, page, i)]
    failed: list[str] = []
    try:
        with HostedPage(
            api=told.api,
            page=told.page,
            token=settings.fill(told.token),
            timeout_seconds=told.timeout_seconds,
        ) as hosted:
            if told.components:
                services = {service.name: service.state for service in page.services}
                there = hosted.components()
                changes = core.components_to_change(services, told.components, there)
                for id, status in changes.items():
                    hosted.set_component(id, status)
            known = {i.ours: i for i in hosted.incidents()} if wanted else {}
            for incident in reversed(wanted):
                _tell(settings, hosted, incident, known.get(incident.id))
    except Exception as error:
        # Also a defect: a page that somebody else holds must not stop a recovery.
        why = str(error) if isinstance(error, RecoveryError) else type(error).__name__
        log.warning("%s", why)
        failed.append(why)
        for incident in wanted:
            _note(settings, incident.id, not_taken={TO: why}, since=incident.changed_at)
    return tuple(failed)


def _is_told(settings: Settings, page: StatusPage, incident: IncidentView) -> bool:
    """Those outside hear of nothing that is only a plan, of no drill, and of nothing long over."""
    if incident.drill and not settings.communication.drill_to_people:
        return False
    if (page.written_at - incident.changed_at).days >= _LATE_DAYS:
        return False
    return incident.is_public


def _tell(
    settings: Settings,
    hosted: HostedPage,
    incident: IncidentView,
    there: core.HostedIncident | None,
) -> None:
    sent = 0
    while steps := core.steps_for(incident, there):
        for step in steps:
            there = hosted.carry_out(step)
            sent += 1
        if sent > len(incident.updates):  # a page that forgets what it was told
            break
    if sent:
        _note(settings, incident.id, channel=TO)


def _note(
    settings: Settings,
    id: str,
    *,
    channel: str = "",
    not_taken: dict[str, str] | None = None,
    since: datetime | None = None,
) -> None:
    """Write into the incident what became of it: a failure once, and only if there was something
    to tell, which is if nothing was taken `since`.
    """
    incident = incidents.read(settings, id)
    if incident is None:
        return
    earlier = [m for m in incident.messages if m.to == TO]
    if since and earlier and (not earlier[-1].reached or earlier[-1].at >= since):
        return
    done = Delivered(
        at=clock.now(),
        audience=Audience.STATUS_PAGE,
        moment=_MOMENT,
        to=TO,
        title=incident.title,
        channel=channel,
        not_taken=not_taken or {},
    )
    text = f"{TO}: up to date" if channel else f"{TO} WAS NOT REACHED"
    data = done.model_dump(mode="json", exclude={"at"})
    event = Event(at=done.at, kind=EventKind.MESSAGE, text=text, by="lifeboat", data=data)
    incidents.append(settings, id, event)
