"""Where incidents are kept: `records/incidents/<id>/incident.jsonl`, here and in the bucket.

Lines are only ever added. They are on this host's disk first; where there is none (a server that is
lost, a disk that is full) they are held until the bucket has them. Nothing here begins a vault.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.incident import (
    Event,
    EventKind,
    Incident,
    Severity,
    State,
    add_up,
    incident_id,
    read_events,
    severity_of,
)
from lifeboat.settings import Settings
from lifeboat.tools import filesystem
from tasks import clock, places

log = logging.getLogger("lifeboat")

FILE_NAME = "incident.jsonl"
_PREFIX = "records/incidents/"
_NEWEST = 50  # so many are looked at; older ones are found by their id

when_changed: list[Callable[[Settings, Incident, Event], None]] = []
"""Called after each line, in order; what one raises is logged and goes no further."""
when_closed: list[Callable[[Settings, Incident], None]] = []
"""Called after an incident was closed, likewise."""

_held: dict[tuple[Path, str], list[str]] = {}  # what no disk has taken yet
_guard = threading.RLock()


# --- reading ---------------------------------------------------------------------------------


def directory(settings: Settings) -> Path:
    return places.records_directory(settings) / "incidents"


def key(id: str, name: str = FILE_NAME) -> str:
    """Where a document of an incident lies in the bucket."""
    return f"{_PREFIX}{id}/{name}"


def read(settings: Settings, id: str) -> Incident | None:
    """Give an incident, of this host or else of the bucket; None if neither has it.

    Raises TransientError if it is not here and the bucket does not answer.
    """
    lines = _lines_here(settings, id)
    if not lines and id in _ids_in_bucket(settings):
        lines = _lines_in_bucket(settings, id)
    return add_up(read_events(lines), id=id)


def list_incidents(settings: Settings, *, in_bucket: bool | None = None) -> tuple[Incident, ...]:
    """Give the newest incidents, the newest first.

    Those of this host; those of the bucket too if `in_bucket` says so, or if this host has none. A
    bucket that does not answer has none.
    """
    ids = _ids_here(settings)
    if in_bucket or (in_bucket is None and not ids):
        try:
            ids |= _ids_in_bucket(settings)
        except RecoveryError as error:
            log.warning("Looking for incidents in the bucket: %s", error)
    found = []
    for id in sorted(ids, reverse=True)[:_NEWEST]:
        try:
            incident = read(settings, id)
        except RecoveryError as error:
            log.warning("Reading the incident %s: %s", id, error)
            continue
        if incident:
            found.append(incident)
    return tuple(found)


def find(settings: Settings, id: str = "") -> Incident:
    """Give the incident of that id; without one, the newest that is not closed.

    Raises PreconditionError if there is none.
    """
    if id:
        incident = read(settings, id)
    else:
        known = list_incidents(settings)
        incident = next((i for i in known if i.state is not State.CLOSED), None)
    if incident is None:
        what = f"no incident {id}" if id else "no incident that is not closed"
        raise PreconditionError(
            f"Looking for an incident of {settings.platform}: there is {what}.",
            hint="`lifeboat incident list` shows all of them; `lifeboat incident open` opens one.",
        )
    return incident


def _path(settings: Settings, id: str) -> Path:
    return directory(settings) / id / FILE_NAME


def _ids_here(settings: Settings) -> set[str]:
    held = {id for place, id in _held if place == directory(settings)}
    try:
        return held | {path.name for path in directory(settings).iterdir() if path.is_dir()}
    except OSError:
        return held


def _ids_in_bucket(settings: Settings) -> set[str]:
    keys = [item.key for item in places.bucket(settings).list(_PREFIX)]
    return {k.removeprefix(_PREFIX).split("/")[0] for k in keys if k.endswith(f"/{FILE_NAME}")}


def _lines_here(settings: Settings, id: str) -> list[str]:
    with _guard:
        held = list(_held.get((directory(settings), id), ()))
    try:
        return _path(settings, id).read_text().splitlines() + held
    except OSError:
        return held


def _lines_in_bucket(settings: Settings, id: str) -> list[str]:
    return places.bucket(settings).get(key(id)).decode().splitlines()


# --- writing ---------------------------------------------------------------------------------


def open_incident(
    settings: Settings,
    *,
    title: str,
    scenario: str = "",
    severity: Severity | None = None,
    commander: str = "",
    drill: bool | None = None,
    by: str = "",
    run: str = "",
    at: datetime | None = None,
    began_at: datetime | None = None,
) -> Incident:
    """Open an incident. `began_at` says since when there is trouble, if that is known.

    `drill` is by itself what the platform is: staging has drills and no incidents.
    """
    at = at or clock.now()
    id = incident_id(scenario, at, secrets.token_hex(2))
    data: dict[str, Any] = {
        "platform": settings.platform,
        "title": title,
        "scenario": scenario,
        "drill": settings.environment == "staging" if drill is None else drill,
        "severity": str(severity or severity_of(scenario)),
        "commander": commander or _first_commander(settings),
    }
    if began_at:
        data["began_at"] = began_at.isoformat()
    event = Event(at=at, kind=EventKind.OPENED, text=title, by=by, run=run, data=data)
    log.info("Incident %s is open: %s", id, title)
    return append(settings, id, event)


def _first_commander(settings: Settings) -> str:
    return next((person.name for person in settings.people.incident_commander), "")


def append(settings: Settings, id: str, event: Event) -> Incident:
    """Add a line to an incident; give what it has become. The bucket gets it by `mirror`.

    Raises RecoveryError if there is no such incident.
    """
    with _guard:
        _bring_here(settings, id)
        _write(settings, id, event.line())
        incident = add_up(read_events(_lines_here(settings, id)), id=id)
    if incident is None:
        raise RecoveryError(f"Adding to the incident {id}: it was never opened.")
    for act in list(when_changed):
        _call(act, settings, incident, event)
    if event.kind is EventKind.CLOSED:
        for act in list(when_closed):
            _call(act, settings, incident)
    return incident


def _call(act: Callable[..., None], *values: object) -> None:
    try:
        act(*values)
    except Exception as error:
        # What follows an incident must not stop what it follows.
        name = getattr(act, "__name__", act)
        log.warning("After a change of an incident, %s: %s", name, error)


def _bring_here(settings: Settings, id: str) -> None:
    """An incident that only the bucket has is continued with all its lines."""
    if _lines_here(settings, id):
        return
    try:
        if id not in _ids_in_bucket(settings):
            return
        lines = _lines_in_bucket(settings, id)
    except RecoveryError as error:
        log.warning("Looking for the incident %s in the bucket: %s", id, error)
        return
    for line in lines:
        _write(settings, id, line)


def _write(settings: Settings, id: str, line: str) -> None:
    where = (directory(settings), id)
    lines = [*_held.get(where, ()), line]
    written = 0
    try:
        if settings.vault.local.is_dir():
            path = _path(settings, id)
            path.parent.mkdir(parents=True, exist_ok=True)
            for text in lines:
                filesystem.append_line_durably(path, text)
                written += 1
    except OSError as error:
        log.warning("Writing down the incident %s on this host: %s", id, error.strerror)
    if lines[written:]:
        _held[where] = lines[written:]
    else:
        _held.pop(where, None)


def mirror(settings: Settings, id: str) -> bool:
    """Copy an incident to the bucket, where it survives the host. Say whether it is there."""
    try:
        with _guard:
            lines = _lines_here(settings, id)
        text = "".join(f"{line}\n" for line in lines)
        places.bucket(settings).put(key(id), text.encode())
    except RecoveryError as error:
        log.warning("The incident %s is not in the bucket yet: %s", id, error)
        return False
    return True
