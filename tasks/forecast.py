"""How long a recovery should take, looked up in what restore tests, recoveries and drills left."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from lifeboat.core.forecast import Forecast, forecast
from lifeboat.core.forms import Scenario
from lifeboat.core.points import RecoveryPoint
from lifeboat.core.survey import Unseen
from lifeboat.settings import Settings
from tasks import places, survey_vault
from tasks.looking import seen
from tasks.orchestration import side_by_side

log = logging.getLogger("lifeboat")


def of_recovery(
    settings: Settings,
    scenario: Scenario,
    points: Iterable[RecoveryPoint],
    *,
    renamed: bool = False,
    repaired: bool = False,
) -> Forecast:
    """Forecast a recovery from the bucket's notes, or from this host's if it can't be reached.

    Never raises: what can't be read counts as never measured, and is told.
    """
    away = seen(lambda: places.bucket(settings).reachable())
    notes = survey_vault.Notes(settings, in_bucket=not isinstance(away, Unseen))

    def rehearsals():
        if isinstance(away, Unseen):
            return survey_vault.rehearsals_of(notes.drills())
        return survey_vault.rehearsals(settings, notes.drills(), scenario)

    found = side_by_side(
        {"measured": lambda: seen(notes.measured), "rehearsals": lambda: seen(rehearsals)}
    )
    for told in (away, *found.values()):
        if isinstance(told, Unseen):
            log.warning("Looking up how long it takes: %s", told.why)
    measured, carried_out = found["measured"], found["rehearsals"]
    known = () if isinstance(carried_out, Unseen) else carried_out
    ours = (rehearsal for rehearsal in known if rehearsal.scenario == scenario)
    return forecast(
        points,
        measured={} if isinstance(measured, Unseen) else measured,
        rehearsal=max(ours, key=lambda rehearsal: rehearsal.ended_at, default=None),
        renamed=renamed,
        repaired=repaired,
    )
