"""The status page and its feed: written to the bucket and to web roots, and never in the way."""

from __future__ import annotations

import logging

from lifeboat.core.errors import RecoveryError
from lifeboat.core.incident import Event, EventKind, Incident
from lifeboat.core.status_page import ServiceState, StatusPage, make_page
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, pages
from lifeboat.tools.stacks import ServiceState as Running
from tasks import clock, services
from tasks.orchestration import step
from tasks.people import incidents
from tasks.places import bucket

log = logging.getLogger("lifeboat")

_PUBLIC_EVENTS = (
    *(EventKind.OPENED, EventKind.JOINED, EventKind.DECIDED, EventKind.RECOVERED),
    *(EventKind.FAILED, EventKind.SEVERITY, EventKind.CLOSED),
)


@step()
def write_status_page(settings: Settings) -> tuple[str, ...]:
    """Write the page, if there is to be one. Give where it could not be written; never raises."""
    if not settings.status_page.enabled:
        return ()
    return publish(settings)


def publish(settings: Settings) -> tuple[str, ...]:
    """Write page and feed wherever they belong, each place by itself; give what went wrong."""
    page = look(settings)
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
    return make_page(
        title=settings.status_page.title or settings.platform,
        url=settings.status_page.url,
        services=states,
        incidents=incidents.list_incidents(settings),
        now=clock.now(),
    )


def follow_incidents() -> None:
    """Write the page at each event that the public is told of, in the incident's own thread."""
    if _after_change not in incidents.when_changed:
        incidents.when_changed.append(_after_change)


def _after_change(settings: Settings, _: Incident, event: Event) -> None:
    if event.kind in _PUBLIC_EVENTS and settings.status_page.enabled:
        publish(settings)
