"""New points are looked at as soon as they are made, and accepted by a person if they are right."""

from __future__ import annotations

import logging

from lifeboat.core.errors import PreconditionError
from lifeboat.core.marks import Accepted, Kind
from lifeboat.core.points import Facts, RecoveryPoint
from lifeboat.settings import Settings
from tasks import catalogue, clock, marks
from tasks.orchestration import step
from tasks.record import current_run

log = logging.getLogger("lifeboat")


@step()
def look_at_new_point(settings: Settings, facts: Facts) -> str:
    """Compare a point that was just made with those before it; say what speaks against it.

    Empty if nothing does. A suspicious point is no failure of the backup, but it is told loudly.
    """
    points = catalogue.list_points(settings, assets=(facts.asset,), tolerate_failures=True)
    suspicion = next((point.suspicion for point in points if point.id == facts.point), "")
    if suspicion:
        told = current_run().record.facts.get("suspicious")
        current_run().fact(suspicious=f"{told}; {suspicion}" if told else suspicion)
        log.warning(
            "SUSPICIOUS: %s is kept, but will not be restored from: %s. "
            "If it is right as it is: lifeboat accept %s --why ...",
            facts.point,
            suspicion,
            facts.point,
        )
    return suspicion


def accept(settings: Settings, point_id: str, *, why: str) -> tuple[RecoveryPoint, ...]:
    """Trust a suspicious point from now on; give the newer ones that still are suspicious.

    Raises PreconditionError if there is no such point or nothing speaks against it.
    """
    points = catalogue.list_points(settings, tolerate_failures=True)
    point = next((point for point in points if point.id == point_id), None)
    if point is None:
        raise PreconditionError(
            f"Accepting {point_id}: there is no such recovery point.",
            hint="`lifeboat points` lists them.",
        )
    if not point.suspicion:
        raise PreconditionError(f"Accepting {point_id}: it is not suspicious.")
    mark = Accepted(point=point_id, why=why, since=clock.now())
    marks.put(settings, Kind.ACCEPTED, point_id, mark, bucket_first=True)
    left = catalogue.list_points(settings, assets=(point.asset,), tolerate_failures=True)
    return tuple(p for p in left if p.suspicion and p.taken_at > point.taken_at)
