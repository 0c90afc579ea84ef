from __future__ import annotations

from lifeboat.core.readiness import Readiness
from lifeboat.core.requests import Request
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.people import readiness
from tasks.record import recorded


@procedure("show-readiness")
def show_readiness(request: Request = Request()) -> Readiness:
    """Whether the platform could be recovered now, and how well: one page for everybody.

    1. Look at both tiers and at the host, as `watch-objectives` does.
    2. Read what is on record: drills, recoveries, restore tests, follow-ups, reviews.
    3. Write the page, and its data as JSON, into the bucket and the local vault.

    What it changes: `records/readiness.html` and `.json`, in both tiers.
    If it fails: the page of the last time stays, with its date.
    Evidence: the page itself.
    """
    settings = load_settings(request.config or None)
    with recorded("show-readiness", platform=settings.platform, directory=None):
        found = readiness.gather(settings)
        readiness.publish(settings, found)
    # That something is not good is what the page is for: `watch-objectives` ends red for it.
    return found
