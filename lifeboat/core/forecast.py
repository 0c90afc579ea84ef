"""How long a recovery that is about to begin should take, by what was measured before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from lifeboat.core.marks import Verified
from lifeboat.core.points import Asset, RecoveryPoint
from lifeboat.core.survey import Rehearsal


class Forecast(BaseModel):
    """`seconds` is the sum of what is known; `unmeasured` names what it leaves out."""

    model_config = ConfigDict(frozen=True)

    seconds: float = 0.0
    basis: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()

    def and_(self, seconds: float, told: str) -> Forecast:
        """With a part more, of which is known how long it takes."""
        basis = (*self.basis, f"{told}: {seconds:.1f} s")
        return self.model_copy(update={"seconds": self.seconds + seconds, "basis": basis})

    def without(self, told: str) -> Forecast:
        """With a part more, of which is not known how long it takes."""
        return self.model_copy(update={"unmeasured": (*self.unmeasured, told)})


def restore_seconds(point: RecoveryPoint, measured: Verified) -> float | None:
    """How long it takes to restore a point as fast as that one was; None if that does not tell."""
    if not measured.restored_bytes or not measured.restore_seconds:
        return None
    return point.bytes / measured.restored_bytes * measured.restore_seconds


def forecast(
    points: Iterable[RecoveryPoint],
    *,
    measured: Mapping[Asset, Verified],
    rehearsal: Rehearsal | None,
    renamed: bool = False,
    repaired: bool = False,
) -> Forecast:
    """Add up what restoring these points, replaying the WAL, starting and verifying take.

    `renamed`: the database's base need not be copied. `repaired`: only what is damaged is written,
    so that the time of a whole restore is the most that it takes. How much WAL there is shows only
    when it is collected: it is taken for as much as the restore test replayed.
    """
    found = Forecast()
    for point in points:
        mark = measured.get(point.asset)
        if renamed and point.asset is Asset.DATABASE:
            found = found.and_(0.0, "the hot copy is renamed into place")
        elif mark is None or (seconds := restore_seconds(point, mark)) is None:
            found = found.without(f"restoring {point.asset}: no restore test has measured it yet")
        else:
            at_most = "at most " if repaired else ""
            size = f"{point.bytes / 1e6:.0f} MB"
            found = found.and_(seconds, f"{point.asset}: {at_most}{size} as fast as {mark.by}")
        if point.asset is Asset.DATABASE:
            found = _with_replay(found, mark)
    if rehearsal is None:
        return found.without("start and verification: no recovery or drill of it is on record")
    return found.and_(
        rehearsal.start_seconds + rehearsal.verify_seconds,
        f"start and verification as in {rehearsal.by}",
    )


def _with_replay(found: Forecast, mark: Verified | None) -> Forecast:
    if mark is None or not mark.wal_replayed_bytes or not mark.wal_replay_seconds:
        return found.without("replaying the WAL: no restore test has measured it yet")
    size = f"{mark.wal_replayed_bytes / 1e6:.0f} MB"
    return found.and_(mark.wal_replay_seconds, f"WAL: {size} replayed as in {mark.by}")
