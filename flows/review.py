from __future__ import annotations

from lifeboat.core.forms import Review
from lifeboat.core.reviews import Evidence, SignedOff
from lifeboat.settings import load_settings
from tasks.orchestration import procedure
from tasks.people import followups, reminders, reviews
from tasks.record import recorded


@procedure("review")
def review(request: Review) -> SignedOff | tuple[Evidence, ...]:
    """Testing and maintenance: hold one of the plan's tests and reviews, and sign it off.

    Before you start: do what the review is about; `lifeboat review show` says what that is.

    1. Gather what the machine knows about it, from the records.
    2. Sign it off: who, what was decided, what was found. What the machine saw fail can't be signed
       off as passed.
    3. Open a follow-up for each finding.

    What it changes: one record in `records/reviews/`, and follow-ups, in both tiers.
    If it fails: nothing was signed.
    Evidence: the record itself, with who, when, and what was known.
    """
    settings = load_settings(request.config or None)
    with recorded("review", platform=settings.platform, directory=None):
        evidence = reviews.gather_evidence(settings, request.kind)
        if request.dry_run:
            return evidence
        signed = reviews.sign_off(settings, request, evidence)
        reminders.show(
            followups.read_all(settings),
            reminders.standings_of(settings),
            platform=settings.platform,
        )
    return signed
