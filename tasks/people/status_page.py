"""The status page and its feed: written to the bucket and to web roots, and never in the way.

A hosted page is told the same, after people were: it may take its time, and be away.
"""

from __future__ import annotations

import functools
import logging

from lifeboat.core.checklist import Request
from lifeboat.core.errors import RecoveryError
from lifeboat.core.incident import Event, EventKind, Incident
from lifeboat.core.status_page import ServiceState, StatusPage, make_page
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, pages
from lifeboat.tools.stacks import ServiceState as Running
from tasks import clock, services
from tasks.orchestration import side_by_side, step
from tasks.people import hosted_page, incident_log, incidents
from tasks.places import bucket

log = logging.getLogger("lifeboat")

_HEALTH_SECONDS = 2.0

_PUBLIC_EVENTS = (
    *(EventKind.OPENED, EventKind.JOINED, EventKind.DECIDED, EventKind.RECOVERED),
    *(EventKind.FAILED, EventKind.SEVERITY, EventKind.CLOSED),
)


@step()
def write_status_page(settings: Settings) -> tuple[str, ...]:
    """Write the page, if there is to be one. Give where it could not be written; never raises."""
    told = settings.status_page
    if not (told.enabled or told.hosted):
        return ()
    page = look(settings)
    return (
        *(publish(settings, page) if told.enabled else ()),
        *hosted_page.publish(settings, page),
    )


def publish(settings: Settings, page: StatusPage) -> tuple[str, ...]:
    """Write page and feed wherever they belong, each place by itself; give what went wrong."""
    files = {
        "index.html": ("text/html; charset=utf-8", pages.status_html(page).encode()),
        "feed.xml": ("application/atom+xml", pages.status_feed(page).encode()),
    }
    failed = []
    for root in settings.status_page.web_roots:
        try:
            # A web root that is not mounted is not begun on the disk below it.
            if not root.is_dir():
                raise FileNotFoundError(2, "there is no such directory", str(root))
            for name, (_, data) in files.items():
                filesystem.atomic_write(root / name, data)
                (root / name).chmod(0o644)
        except OSError as error:
            failed.append(f"Writing the status page to {root}: {error.strerror}.")
    try:
        for name, (kind, data) in files.items():
            bucket(settings).put(settings.status_page.prefix + name, data, content_type=kind)
    except RecoveryError as error:
        failed.append(str(error))
    for told in failed:
        log.warning("%s", told)
    return tuple(failed)


def look(settings: Settings) -> StatusPage:
    """Give what the page shows now. What can't be looked at is unknown."""
    names = (*settings.stack.critical_services, *settings.stack.deferred_services)
    states = dict.fromkeys(names, ServiceState.UNKNOWN)
    try:
        found = {s.name: s.state for s in services.stack_of(settings).status()}
    except (RecoveryError, OSError) as error:
        log.warning("Looking at the services for the status page: %s", error)
    else:
        for name in names:
            if name in found:
                runs = found[name] is Running.RUNNING
                states[name] = ServiceState.OPERATIONAL if runs else ServiceState.DOWN
        asked = {
            name: functools.partial(_answers, settings, request)
            for name, request in settings.status_page.health.items()
            if states.get(name) is ServiceState.OPERATIONAL
        }
        for name, answers in side_by_side(asked).items():
            if not answers:
                states[name] = ServiceState.NOT_ANSWERING
    return make_page(
        title=settings.status_page.title or settings.platform,
        url=settings.status_page.url,
        services=states,
        # A server that was rebuilt knows only its own; the page has the history of the platform.
        incidents=incidents.list_incidents(settings, in_bucket=True),
        now=clock.now(),
    )


def _answers(settings: Settings, request: Request) -> bool:
    """Whether a service answers as it should, and soon: people wait for what comes after."""
    from lifeboat.tools import http

    try:
        with http.Client(
            base_url=settings.checks.base_url,
            timeout_seconds=min(_HEALTH_SECONDS, settings.checks.timeout_seconds),
            secret=settings.secret,
        ) as client:
            client.send(request)
    except RecoveryError as error:
        log.info("For the status page: %s", error)
        return False
    return True


def follow_incidents() -> None:
    """Write the page at each event that the public is told of, in the incident's own thread."""
    if _after_change not in incidents.when_changed:
        incidents.when_changed.append(_after_change)
        incident_log.when_told.append(_after_told)


def _after_told(settings: Settings, _: Incident, event: Event) -> None:
    if event.kind in _PUBLIC_EVENTS:
        tell_hosted(settings)


def tell_hosted(settings: Settings) -> None:
    """Tell the hosted page what is new, once people have been told. Never raises."""
    if settings.status_page.hosted:
        hosted_page.publish(settings, look(settings))


def _after_change(settings: Settings, _: Incident, event: Event) -> None:
    if event.kind in _PUBLIC_EVENTS and settings.status_page.enabled:
        publish(settings, look(settings))
