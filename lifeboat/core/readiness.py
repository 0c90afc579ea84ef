"""Readiness: whether the platform could be recovered now, and how well, on one page.

Pure: put together of a look at the objectives and of what is on record. What is not known is said
as such; nothing is estimated here that was not estimated there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from lifeboat.core.alarms import Finding, worst
from lifeboat.core.checks import Status
from lifeboat.core.drill import DrillOnRecord
from lifeboat.core.followups import FollowUp, by_urgency
from lifeboat.core.forms import Scenario
from lifeboat.core.marks import TestResult, Verified
from lifeboat.core.objectives import Report
from lifeboat.core.points import Asset, Tier
from lifeboat.core.review_evidence import CONTACT_DAYS, ContactSeen
from lifeboat.core.reviews import Standing
from lifeboat.core.timeline import Outcome, Phase, RunRecord, phase_seconds

# In the order of the plan, whose sections they are.
SCENARIOS: Mapping[Scenario, str] = {
    "database": "Database server failure",
    "server": "Complete server failure",
    "files": "File storage corruption",
    "models": "AI model loss",
}
_SHOWN = 12  # of the newest measured recoveries of a scenario
_UTC = timezone.utc


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Now(_Frozen):
    """One scenario, if it came about now. Seconds None: not known, and `why` says why not."""

    scenario: Scenario
    title: str
    lost_seconds: float | None
    lost_status: Status
    rpo_seconds: float
    lost_why: str
    back_seconds: float | None
    back_status: Status
    rto_seconds: float
    back_why: str

    @computed_field
    @property
    def status(self) -> Status:
        return worst([self.lost_status, self.back_status])


class Measured(_Frozen):
    """A recovery that was carried out: in a drill from the fault to the last check, in earnest
    from the start of the run to its end.
    """

    scenario: Scenario
    at: datetime
    seconds: float
    passed: bool
    by: str  # id of the drill or run
    how: Literal["drill", "in earnest"]
    lost_seconds: float | None = None
    phases: dict[Phase, float] = {}


class AssetNow(_Frozen):
    """What there is of an asset. Ages in seconds; None: there is none, or it can't be seen."""

    asset: Asset
    age_here_seconds: float | None
    age_s3_seconds: float | None
    verified_age_seconds: float | None
    tested_at: datetime | None
    test_passed: bool | None
    test_told: str
    restored_bytes: int | None
    restore_seconds: float | None


class Ending(_Frozen):
    """A certificate, and when it ends."""

    path: str
    ends_at: datetime
    days_left: float


class Person(_Frozen):
    """Somebody on the card, and when the number was last tried."""

    who: str
    phone: str
    confirmed_at: datetime | None
    fresh: bool


class Task(_Frozen):
    """A follow-up that is open."""

    id: str
    title: str
    owner: str
    wanted_at: datetime
    status: str
    source: str
    rehearsal: bool


class Held(_Frozen):
    """Where a test or review stands."""

    kind: str
    title: str
    owner: str
    status: str
    last_at: datetime | None
    last_told: str
    due_at: datetime


class Readiness(_Frozen):
    """All that the page shows."""

    platform: str
    environment: str
    at: datetime
    scenarios: tuple[Now, ...]
    measured: tuple[Measured, ...]  # oldest first
    assets: tuple[AssetNow, ...]
    red: tuple[Finding, ...]
    findings: int
    coverage: Finding | None
    follow_ups: tuple[Task, ...]
    follow_ups_done: int
    reviews: tuple[Held, ...]
    certificates: tuple[Ending, ...]
    certificate_days: float
    people: tuple[Person, ...]
    gaps: tuple[str, ...]  # what could not be seen, and what is missing

    @computed_field
    @property
    def status(self) -> Status:
        """PASS: every scenario can be recovered from within both objectives, and it is proven."""
        return worst([scenario.status for scenario in self.scenarios])

    @property
    def good(self) -> bool:
        return self.status is Status.PASS and not self.red

    def in_words(self) -> str:
        """The answer in one sentence, as the page begins."""
        bad = [now.title for now in self.scenarios if now.status is Status.FAIL]
        unknown = [now.title for now in self.scenarios if now.status is Status.UNKNOWN]
        if not self.scenarios:
            return "Not known: nothing could be looked at."
        if bad:
            also = f" Not proven: {', '.join(unknown)}." if unknown else ""
            return f"No, not within the objectives: {', '.join(bad)}.{also}"
        if unknown:
            return f"Perhaps. It is not proven for: {', '.join(unknown)}."
        late = sum(one.status == "overdue" and not one.rehearsal for one in self.follow_ups)
        if self.red or late:
            told = [f"{len(self.red)} of {self.findings} findings need somebody"] * bool(self.red)
            told += [f"{late} follow-ups are overdue"] * bool(late)
            return f"Yes, and {', and '.join(told)}."
        return "Yes. Every scenario is within both objectives, and nothing else is amiss."

    def of(self, scenario: Scenario) -> tuple[Measured, ...]:
        """The newest measured recoveries of a scenario, oldest first."""
        return tuple(m for m in self.measured if m.scenario == scenario)[-_SHOWN:]


def put_together(
    report: Report,
    *,
    environment: str,
    drills: Iterable[DrillOnRecord],
    recoveries: Iterable[RunRecord],
    tests: Mapping[Asset, TestResult],
    restores: Mapping[Asset, Verified],
    follow_ups: Sequence[FollowUp],
    standings: Iterable[Standing],
    certificates: Mapping[str, datetime],
    certificate_days: float,
    contacts: Iterable[ContactSeen],
    unseen: Mapping[str, str],
    now: datetime,
) -> Readiness:
    """Put the page together. `unseen`: what could not be looked at, by name, with the reason."""
    measured = sorted((*_of_drills(drills), *_of_recoveries(recoveries)), key=lambda m: m.at)
    people = tuple(_person(contact, now) for contact in contacts)
    scenarios = _scenarios(report)
    return Readiness(
        platform=report.platform,
        environment=environment,
        at=now,
        scenarios=scenarios,
        measured=tuple(measured),
        assets=tuple(_asset(asset, report, tests, restores) for asset in Asset),
        red=report.red,
        findings=len(report.findings),
        coverage=next((f for f in report.findings if f.name == "coverage"), None),
        follow_ups=tuple(
            Task(
                id=one.id,
                title=one.title,
                owner=one.owner,
                wanted_at=one.wanted_at,
                status=one.status(now),
                source=one.source,
                rehearsal=one.rehearsal,
            )
            for one in by_urgency(follow_ups, now)
            if not one.is_done
        ),
        follow_ups_done=sum(one.is_done for one in follow_ups),
        reviews=tuple(map(_held, standings)),
        certificates=tuple(
            Ending(path=path, ends_at=at, days_left=(at - now).total_seconds() / 86400)
            for path, at in sorted(certificates.items(), key=lambda item: item[1])
        ),
        certificate_days=certificate_days,
        people=people,
        gaps=tuple(_gaps(unseen, measured, people, "certificates" in unseen or certificates)),
    )


def _scenarios(report: Report) -> tuple[Now, ...]:
    exposures = {exposure.scenario: exposure for exposure in report.exposures}
    estimates = {estimate.scenario: estimate for estimate in report.estimates}
    found = []
    for scenario, title in SCENARIOS.items():
        lost, back = exposures.get(scenario), estimates.get(scenario)
        if lost is None or back is None:
            continue
        told = (*back.unmeasured, *back.basis)
        if back.unrehearsed:
            told += ("start and verification not known: no drill of it is on record",)
        found.append(
            Now(
                scenario=scenario,
                title=title,
                lost_seconds=lost.seconds,
                lost_status=lost.status,
                rpo_seconds=lost.objective_seconds,
                lost_why="; ".join(f"{part.what}: {part.rests_on}" for part in lost.parts),
                back_seconds=None if back.unmeasured else back.seconds,
                back_status=back.status,
                rto_seconds=back.objective_seconds,
                back_why="; ".join(told),
            )
        )
    return tuple(found)


def _of_drills(drills: Iterable[DrillOnRecord]) -> Iterable[Measured]:
    for drill in drills:
        for found in drill.scenarios:
            if found.name in SCENARIOS:
                yield Measured(
                    scenario=found.name,  # type: ignore[arg-type]
                    at=drill.ended_at,
                    seconds=found.rto_seconds,
                    passed=found.passed,
                    by=drill.id,
                    how="drill",
                    lost_seconds=found.rpo_seconds,
                    phases=found.phases
                    or {Phase.START: found.start_seconds, Phase.VERIFY: found.verify_seconds},
                )


def _of_recoveries(recoveries: Iterable[RunRecord]) -> Iterable[Measured]:
    for run in recoveries:
        scenario = run.procedure.removeprefix("recover-")
        if scenario not in SCENARIOS or run.ended_at is None or run.facts.get("dry_run"):
            continue
        if run.outcome is Outcome.NOT_APPROVED:
            continue  # nothing was done
        good = run.outcome is Outcome.DONE and run.verdict is not None and run.verdict.good
        yield Measured(
            scenario=scenario,  # type: ignore[arg-type]
            at=datetime.fromtimestamp(run.ended_at, tz=_UTC),
            seconds=run.seconds,
            passed=good,
            by=run.id,
            how="in earnest",
            phases=phase_seconds(run.steps),
        )


def _asset(
    asset: Asset,
    report: Report,
    tests: Mapping[Asset, TestResult],
    restores: Mapping[Asset, Verified],
) -> AssetNow:
    def age(*tiers: Tier) -> float | None:
        found = [a.seconds for a in report.backup_ages if a.asset is asset and a.tier in tiers]
        return min(found, default=None)

    verified = next((a.seconds for a in report.verified_ages if a.asset is asset), None)
    test, restore = tests.get(asset), restores.get(asset)
    told = ""
    if test:
        told = f"{test.point or 'no point'}{f': {test.error}' if test.error else ''}"
    return AssetNow(
        asset=asset,
        age_here_seconds=age(Tier.LOCAL, Tier.HOT),
        age_s3_seconds=age(Tier.S3),
        verified_age_seconds=verified,
        tested_at=test.ended_at if test else None,
        test_passed=test.passed if test else None,
        test_told=told,
        restored_bytes=restore.restored_bytes if restore else None,
        restore_seconds=restore.restore_seconds if restore else None,
    )


def _person(contact: ContactSeen, now: datetime) -> Person:
    at = contact.confirmed_at
    fresh = at is not None and (now - at).total_seconds() <= CONTACT_DAYS * 86400
    return Person(who=contact.who, phone=contact.phone, confirmed_at=at, fresh=fresh)


def _held(one: Standing) -> Held:
    last = one.last
    return Held(
        kind=str(one.wanted.kind),
        title=one.title,
        owner=one.wanted.owner,
        status=one.status,
        last_at=last.at if last else None,
        last_told=f"{last.decision}, {last.by}" if last else "never held",
        due_at=one.due_at,
    )


def _gaps(
    unseen: Mapping[str, str],
    measured: Sequence[Measured],
    people: Sequence[Person],
    certificates: object,
) -> Iterable[str]:
    for what, why in unseen.items():
        yield f"{what.capitalize()}: {why}"
    known = {m.scenario for m in measured}
    missing = [title for scenario, title in SCENARIOS.items() if scenario not in known]
    if missing and "drills" not in unseen:
        yield f"No drill and no recovery is on record of: {', '.join(missing)}."
    if not people:
        yield "There is nobody to call: lifeboat.yaml has no contacts."
    if not certificates:
        yield "No certificate is among the files of the configuration."
