"""How long a recovery would take now, from what restore tests and earlier recoveries measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lifeboat.core.alarms import Finding, Limits, failed, passed, unknown
from lifeboat.core.checks import Status
from lifeboat.core.exposure import trusted, usable_reach
from lifeboat.core.forecast import restore_seconds
from lifeboat.core.forms import Scenario
from lifeboat.core.plan import age_in_words
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.survey import Rehearsal, Survey, Unseen


class Estimate(BaseModel):
    """How long this scenario's recovery would take. `seconds` is the sum of what is known;
    `unmeasured` names what it leaves out because no restore test has measured it.
    """

    model_config = ConfigDict(frozen=True)

    scenario: Scenario
    seconds: float
    objective_seconds: float
    basis: tuple[str, ...]
    unmeasured: tuple[str, ...]
    unrehearsed: bool  # without start and verification, which no recovery on record tells

    @property
    def status(self) -> Status:
        if self.seconds > self.objective_seconds:
            return Status.FAIL
        return Status.UNKNOWN if self.unmeasured else Status.PASS


def estimates(survey: Survey, limits: Limits, now: datetime) -> tuple[Estimate, ...]:
    """One estimate for each scenario of the plan.

    Of a lost server, whose data is restored side by side, the times of all assets are added: they
    share the network.
    """
    here = Tier.LOCAL if Tier.LOCAL in survey.tiers else Tier.S3
    everything = (Asset.DATABASE, Asset.FILES, Asset.MODELS, Asset.CONFIG)
    asked: tuple[tuple[Scenario, tuple[Asset, ...], Tier], ...] = (
        ("database", (Asset.DATABASE,), here),
        ("server", everything, Tier.S3),
        ("files", (Asset.FILES,), here),
        ("models", (Asset.MODELS,), here),
    )
    found = []
    for scenario, assets, tier in asked:
        sum_up = _Sum(survey, tier, now)
        for asset in assets:
            sum_up.restore(asset, by_rename=scenario == "database")
        if Asset.DATABASE in assets:
            sum_up.replay()
        rehearsal = _newest(survey, scenario)
        if rehearsal:
            sum_up.start_and_verify(rehearsal)
        found.append(
            Estimate(
                scenario=scenario,
                seconds=sum_up.seconds,
                objective_seconds=limits.rto_seconds,
                basis=tuple(sum_up.basis),
                unmeasured=tuple(sum_up.unmeasured),
                unrehearsed=rehearsal is None,
            )
        )
    return tuple(found)


class _Sum:
    def __init__(self, survey: Survey, tier: Tier, now: datetime) -> None:
        self._survey, self._tier, self._now = survey, tier, now
        self.seconds = 0.0
        self.basis: list[str] = []
        self.unmeasured: list[str] = []

    def restore(self, asset: Asset, *, by_rename: bool) -> None:
        if by_rename and self._has_hot_copy():
            self.basis.append("the hot copy is renamed into place")
            return
        point = _newest_point(self._survey, asset, self._tier, self._now)
        if point is None:
            self.unmeasured.append(f"{asset}: no point in {self._tier} that can be restored")
            return
        measured = self._survey.measured
        mark = None if isinstance(measured, Unseen) else measured.get(asset)
        seconds = restore_seconds(point, mark) if mark else None
        if mark is None or seconds is None:
            self.unmeasured.append(f"{asset}: no restore of it was measured yet")
            return
        self._add(seconds, f"{asset}: {point.bytes / 1e6:.0f} MB as fast as {mark.point}")

    def replay(self) -> None:
        log = self._survey.logs.get(self._tier)
        if log is None or isinstance(log.continuity, Unseen):
            self.unmeasured.append("WAL: how much there is to replay is not known")
            return
        reach = usable_reach(self._survey, log.continuity)
        if reach is None:
            return  # without a base copy, which is told already
        needed = reach.segments * reach.base.segment_bytes
        measured = self._survey.measured
        mark = None if isinstance(measured, Unseen) else measured.get(Asset.DATABASE)
        if mark is None or not mark.wal_replayed_bytes or not mark.wal_replay_seconds:
            self.unmeasured.append(f"WAL: no replay was measured yet ({needed / 1e6:.0f} MB)")
            return
        seconds = needed / mark.wal_replayed_bytes * mark.wal_replay_seconds
        self._add(seconds, f"WAL: {needed / 1e6:.0f} MB to replay")

    def start_and_verify(self, rehearsal: Rehearsal) -> None:
        self._add(
            rehearsal.start_seconds + rehearsal.verify_seconds,
            f"start and verification as in {rehearsal.by}",
        )

    def _add(self, seconds: float, told: str) -> None:
        self.seconds += seconds
        self.basis.append(f"{told}: {seconds:.1f} s")

    def _has_hot_copy(self) -> bool:
        host = self._survey.host
        if host is None or host.hot_copy is None or isinstance(host.hot_copy, Unseen):
            return False
        return not host.hot_copy.problem


def _newest_point(survey: Survey, asset: Asset, tier: Tier, now: datetime) -> RecoveryPoint | None:
    store = survey.store(asset, tier)
    if store is None or isinstance(store.points, Unseen):
        return None
    return next(iter(trusted(store.points, now)), None)


def _newest(survey: Survey, scenario: Scenario) -> Rehearsal | None:
    if isinstance(survey.rehearsals, Unseen):
        return None
    ours = (r for r in survey.rehearsals if r.scenario == scenario)
    return max(ours, key=lambda rehearsal: rehearsal.ended_at, default=None)


def recovery_time_findings(found: Sequence[Estimate]) -> Iterator[Finding]:
    for estimate in found:
        name = f"{estimate.scenario}-recovery-time"
        known = age_in_words(timedelta(seconds=estimate.seconds))
        told = "; ".join(
            (*estimate.unmeasured, *([] if estimate.unmeasured else [known]), *estimate.basis)
        )
        if estimate.unrehearsed:
            told += "; start and verification not known: no recovery or drill is on record"
        if estimate.status is Status.FAIL:
            limit = age_in_words(timedelta(seconds=estimate.objective_seconds))
            yield failed(
                name,
                f"{told} (RTO {limit})",
                "Take base copies more often, let the host hold the hot copy, or restore over a "
                "faster way; a restore test measures again.",
            )
        elif estimate.status is Status.UNKNOWN:
            yield unknown(name, told, "Run `lifeboat test-restore`: it measures.")
        else:
            yield passed(name, told)
