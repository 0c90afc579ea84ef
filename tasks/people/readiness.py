"""The readiness page: gathered from the stores and the records, written where it survives."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from lifeboat.core import objectives, readiness
from lifeboat.core.drill import DrillOnRecord
from lifeboat.core.errors import RecoveryError
from lifeboat.core.marks import Kind
from lifeboat.core.readiness import Readiness
from lifeboat.core.survey import Unseen
from lifeboat.core.timeline import RunRecord
from lifeboat.settings import Settings
from lifeboat.tools import filesystem, readiness_page
from tasks import clock, marks, places, survey
from tasks.looking import seen
from tasks.orchestration import step
from tasks.people import contacts, followups
from tasks.people.reviews import standings
from tasks.record import RECORD_NAME
from tasks.survey_vault import parse_record

log = logging.getLogger("lifeboat")

PAGE_NAME, DATA_NAME = "readiness.html", "readiness.json"
_NEWEST = 60  # drills and recoveries
_RUNS = "records/runs/"

T = TypeVar("T")


@step()
def gather(settings: Settings) -> Readiness:
    """Look at everything and put it together. What can't be seen is told on the page."""
    found = survey.of_host(settings)
    now = clock.now()
    report = objectives.judge(found, survey.limits_of(settings), now)
    unseen: dict[str, str] = {}

    def known(what: str, value: T | Unseen, otherwise: T) -> T:
        if isinstance(value, Unseen):
            unseen[what] = value.why
            return otherwise
        return value

    # Without it some of this is what this host alone knows.
    known("the bucket", seen(lambda: places.bucket(settings).reachable()), None)
    return readiness.put_together(
        report,
        environment=settings.environment,
        drills=known("drills", seen(lambda: _drills(settings)), ()),
        recoveries=known("recoveries", seen(lambda: _recoveries(settings)), ()),
        tests=known("restore tests", found.tests, {}),
        restores=known("restore times", found.measured, {}),
        follow_ups=known("follow-ups", seen(lambda: followups.read_all(settings)), ()),
        standings=known("reviews", seen(lambda: standings(settings)), ()),
        certificates=known("certificates", found.certificates, {}),
        certificate_days=settings.watch.certificate_days,
        contacts=contacts.contacts_of(settings),
        unseen=unseen,
        now=now,
    )


def _drills(settings: Settings) -> tuple[DrillOnRecord, ...]:
    found = marks.read_all(settings, Kind.DRILLS, tolerate_failures=True)
    drills = (mark for mark in found.values() if isinstance(mark, DrillOnRecord))
    return tuple(sorted(drills, key=lambda drill: drill.ended_at)[-_NEWEST:])


def _recoveries(settings: Settings) -> tuple[RunRecord, ...]:
    """The newest recoveries in earnest, of this host and of those before it."""
    here = {p.name: p for p in places.runs_directory(settings).glob("recover-*")}
    there: set[str] = set()
    try:
        keys = (item.key for item in places.bucket(settings).list(f"{_RUNS}recover-"))
        there = {k.removeprefix(_RUNS).split("/")[0] for k in keys if k.endswith(RECORD_NAME)}
    except RecoveryError as error:
        log.warning("The recoveries of other hosts can't be read: %s", error)
    return tuple(_records(settings, here, there))


def _records(settings: Settings, here: dict[str, Path], there: set[str]) -> Iterable[RunRecord]:
    def by_time(name: str) -> str:
        return name.rsplit("-", 2)[1] if name.count("-") > 2 else ""

    for name in sorted({*here, *there}, key=by_time)[-_NEWEST:]:
        try:
            if name in here:
                data = (here[name] / RECORD_NAME).read_bytes()
            else:
                data = places.bucket(settings).get(f"{_RUNS}{name}/{RECORD_NAME}")
        except (FileNotFoundError, RecoveryError):
            continue  # it runs, or was interrupted
        if record := parse_record(data):
            yield record


@step()
def publish(settings: Settings, found: Readiness) -> Path | None:
    """Write the page and its data into the bucket and the local vault; give the local path.

    A bucket that is away is told; None where this host has no vault.
    """
    page = readiness_page.render_html(found).encode()
    data = found.model_dump_json(indent=2).encode()
    written = ((PAGE_NAME, page, "text/html; charset=utf-8"), (DATA_NAME, data, "application/json"))
    try:
        for name, content, kind in written:
            places.bucket(settings).put(f"records/{name}", content, content_type=kind)
    except RecoveryError as error:
        log.warning("The readiness page is only on this host: %s", error)
    if not settings.vault.local.is_dir():
        return None
    directory = places.records_directory(settings)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content, _ in written:
        filesystem.atomic_write(directory / name, content)
    return directory / PAGE_NAME


def render(found: Readiness) -> str:
    """The page, to be written elsewhere."""
    return readiness_page.render_html(found)
