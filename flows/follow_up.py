from __future__ import annotations

from datetime import timedelta

from lifeboat.core.followups import FollowUp
from lifeboat.core.forms import FollowUpDeed
from lifeboat.settings import load_settings
from tasks import clock
from tasks.orchestration import procedure
from tasks.people import followups, reminders
from tasks.record import recorded


@procedure("follow-up")
def follow_up(request: FollowUpDeed) -> FollowUp:
    """Post-recovery actions: say that one is done, put it off, give it to somebody, add one.

    1. Find the follow-up, by its name or how that begins.
    2. Write down what was done to it, by whom and when; nothing is ever taken out again.
    3. Show all that is open.

    What it changes: one line is added to `records/followups/`, in both tiers.
    If it fails: nothing was changed; the message says which names there are.
    Evidence: `records/followups/`, `lifeboat followups`.
    """
    settings = load_settings(request.config or None)
    until = clock.now() + timedelta(days=request.days)
    with recorded("follow-up", platform=settings.platform, directory=None):
        if request.deed == "add":
            found = followups.add(
                settings,
                request.title,
                owner=request.owner,
                due_at=until,
                by=request.by,
                how=request.note,
            )
        elif request.deed == "done":
            found = followups.act(
                settings, request.follow_up, "done", by=request.by, note=request.note
            )
        elif request.deed == "put off":
            found = followups.act(
                settings,
                request.follow_up,
                "snoozed",
                by=request.by,
                note=request.note,
                until=until,
            )
        elif request.deed == "assign":
            found = followups.act(
                settings,
                request.follow_up,
                "assigned",
                by=request.by,
                note=request.note,
                owner=request.owner,
            )
        else:
            deed = "reopened" if request.deed == "reopen" else "noted"
            found = followups.act(
                settings, request.follow_up, deed, by=request.by, note=request.note
            )
        reminders.show(
            followups.read_all(settings),
            reminders.standings_of(settings),
            platform=settings.platform,
        )
    return found
