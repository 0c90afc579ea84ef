"""Whether the plan's promises hold now: judged from what is in the stores, and never from what a
job said of itself.

UNKNOWN is never green: what could not be looked at is an alarm like what is bad.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pydantic import BaseModel, ConfigDict, computed_field

from lifeboat.core import backup_findings as backups
from lifeboat.core import host_findings as on_host
from lifeboat.core import store_findings as stores
from lifeboat.core.alarms import Finding, Limits
from lifeboat.core.backup_findings import Age
from lifeboat.core.checks import Status
from lifeboat.core.exposure import Exposure, exposure_findings, exposures
from lifeboat.core.recovery_time import Estimate, estimates, recovery_time_findings
from lifeboat.core.survey import SeenFrom, Survey

_ORDER = {Status.FAIL: 0, Status.UNKNOWN: 1, Status.PASS: 2}


class Report(BaseModel):
    """What one look at the objectives came to."""

    # A newer Lifeboat may add keys to the report that an older one reads.
    model_config = ConfigDict(frozen=True, extra="ignore")

    platform: str
    seen_from: SeenFrom
    at: datetime
    exposures: tuple[Exposure, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    backup_ages: tuple[Age, ...] = ()
    verified_ages: tuple[Age, ...] = ()
    findings: tuple[Finding, ...]

    @computed_field
    @property
    def good(self) -> bool:
        """Whether all that was looked at is good, and all of it could be looked at."""
        return bool(self.findings) and not self.red

    @property
    def red(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.status is not Status.PASS)

    @property
    def worst_first(self) -> tuple[Finding, ...]:
        return tuple(sorted(self.findings, key=lambda finding: _ORDER[finding.status]))

    @property
    def passed(self) -> int:
        return len(self.findings) - len(self.red)

    def in_words(self) -> str:
        """What is not good, in one line."""
        told = "; ".join(f"{f.name} {f.status}: {f.evidence}" for f in self.red)
        return f"{self.passed} of {len(self.findings)} findings are good. {told}".strip()


def judge(survey: Survey, limits: Limits, now: datetime) -> Report:
    """Judge a survey by the platform's numbers. Every look gives a finding, whatever it saw."""
    lost, times = exposures(survey, limits, now), estimates(survey, limits, now)
    return Report(
        platform=survey.platform,
        seen_from=survey.seen_from,
        at=now,
        exposures=lost,
        estimates=times,
        backup_ages=backups.backup_ages(survey, now),
        verified_ages=backups.verified_ages(survey, now),
        findings=(
            *exposure_findings(lost),
            *recovery_time_findings(times),
            *_findings(survey, limits, now),
        ),
    )


def _findings(survey: Survey, limits: Limits, now: datetime) -> Iterator[Finding]:
    yield from backups.backup_age_findings(survey, limits, now)
    yield from backups.wal_lag_findings(survey, limits, now)
    yield from backups.verified_age_findings(survey, limits, now)
    yield from backups.restore_test_findings(survey, now)
    yield from backups.suspicious_findings(survey, now)
    yield from backups.clock_findings(survey, now)
    yield from backups.drill_findings(survey, limits, now)
    yield from backups.held_review_findings(survey, limits, now)
    yield from stores.vault_opens_findings(survey)
    yield from stores.wal_key_findings(survey)
    yield from stores.repository_findings(survey)
    yield from stores.wal_continuity_findings(survey, limits, now)
    yield from stores.foreign_findings(survey, limits)
    yield from stores.wal_files_findings(survey)
    yield from stores.configuration_findings(survey)
    yield from stores.certificate_findings(survey, limits, now)
    if survey.host is None:
        yield from on_host.host_watch_findings(survey, limits, now)
        return
    yield from on_host.hot_copy_findings(survey, survey.host, now)
    yield from on_host.receiver_findings(survey.host, limits)
    yield from on_host.listing_findings(survey.host)
    yield from on_host.protection_findings(survey.host)
    yield from on_host.free_space_findings(survey, survey.host, limits, now)
    yield from on_host.coverage_findings(survey.host, limits)
    yield from on_host.interrupted_findings(survey.host, now)
    yield from on_host.verified_host_findings(survey.host)


_HOST_ONLY = frozenset(
    {
        *("hot-copy", "wal-receiver", "bucket-listing", "bucket-protection", "free-space"),
        *("coverage", "interrupted-runs", "host-verified"),
    }
)


def only_on_host(name: str) -> bool:
    """Whether another machine can't have this finding, and must go by the host's own report."""
    return name in _HOST_ONLY or name.endswith("-local")
