from __future__ import annotations

from lifeboat.core.followups import FollowUp
from lifeboat.core.requests import Request
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.people import followups, reminders
from tasks.record import recorded


@procedure("remind-people")
def remind_people(request: Request = Request()) -> tuple[FollowUp, ...]:
    """Post-recovery actions, tests and reviews: remind their owners until they are done.

    1. Close what Lifeboat does itself, where the records show that it is done.
    2. Schedule the drill that a recovery asks for, where there is a Prefect server.
    3. Tell, by the channels of `alarms`, what is due and what is overdue; again each day.
    4. Show all of it in the UI.

    What it changes: lines in `records/followups/`, a scheduled drill; people get messages.
    If it fails: the next one does it; nothing is forgotten.
    Evidence: `lifeboat followups`, `lifeboat reviews`; `records/alarms.jsonl` has who was told.
    """
    settings = load_settings(request.config or None)
    with recorded("remind-people", platform=settings.platform, directory=None):
        found = reminders.close_what_is_done(settings)
        reminders.schedule_drills(settings, found)
        standings = reminders.standings_of(settings)
        reminders.tell(settings, found, standings)
        found = followups.read_all(settings)
        reminders.show(found, standings, platform=settings.platform)
    return found
