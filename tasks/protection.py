"""The bucket's protection from whoever finds our key: set by `lifeboat prepare s3`, and checked."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import PermanentError, PreconditionError, RecoveryError
from lifeboat.core.protection import Finding, Protection, State, Wanted, due_for_renewal, wrong
from lifeboat.core.versions import Form, form_of
from lifeboat.settings import S3, Settings
from lifeboat.tools import s3
from tasks import clock, many, places
from tasks.orchestration import side_by_side, step

log = logging.getLogger("lifeboat")

_SAMPLED = 3  # of each repository's packs


class NotSeen(PermanentError):
    """Our key may not look, so nothing is known."""


class Preparation(BaseModel):
    """What was changed in the bucket, or would be, what could not be, and how it is now."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    dry_run: bool
    changes: tuple[str, ...]
    refusals: tuple[str, ...]
    findings: tuple[Finding, ...]
    without: dict[Protection, str]

    @property
    def good(self) -> bool:
        return not wrong(self.findings, self.without)

    def in_words(self) -> str:
        would = "would be set" if self.dry_run else "set"
        lines = [f"{would}: {change}" for change in self.changes]
        lines += [f"NOT set: {refusal}" for refusal in self.refusals]
        lines += [finding.in_words() for finding in self.findings]
        lines += [f"{name}: done without ({why})" for name, why in self.without.items()]
        if not self.changes and not self.refusals:
            lines.insert(0, "nothing had to be changed")
        return "\n".join(f"{self.bucket}: {line}" for line in lines)


def wanted_of(told: S3) -> Wanted:
    """How a bucket should be protected, by its settings."""
    return Wanted(
        undo_days=told.undo_days,
        lock_days=told.lock_days,
        lock_mode=told.lock_mode,
        passing=places.PASSING_IN_S3,
        rewritten=places.REWRITTEN_IN_S3,
    )


@step(retries=1)
def prepare_bucket(settings: Settings, *, dry_run: bool = False) -> Preparation:
    """Set all protections that are not excused, then look whether they are in force.

    Needs an administrator's key. Safe to run again. All are tried; what the store or the key does
    not allow is told as a refusal.
    """
    bucket, want = places.bucket(settings), wanted_of(settings.vault.s3)
    bucket.reachable()
    changes, refusals = [], []
    for protection in s3.SETTABLE:
        if protection in settings.vault.s3.without:
            continue
        try:
            changes.append(s3.protect(bucket, want, protection, dry_run=dry_run))
        except PreconditionError as error:
            refusals.append(str(error))
    if not dry_run:
        try:
            renewed = renew_locks(settings, everything=True)
            changes.append(f"locks of {renewed} objects renewed" if renewed else "")
        except RecoveryError as error:
            refusals.append(str(error))
    return Preparation(
        bucket=bucket.name,
        dry_run=dry_run,
        changes=tuple(filter(None, changes)),
        refusals=tuple(refusals),
        # An administrator's key can delete versions; whether the host's can is for the host to see.
        findings=look(settings, leave_out=(Protection.WRITER_RIGHTS,)),
        without=dict(settings.vault.s3.without),
    )


def look(settings: Settings, *, leave_out: Iterable[Protection] = ()) -> tuple[Finding, ...]:
    """How each protection stands, but for those that are done without."""
    bucket, want = places.bucket(settings), wanted_of(settings.vault.s3)
    excused = {*settings.vault.s3.without, *leave_out}
    if Protection.OBJECT_LOCK in excused:
        excused.add(Protection.LOCK_RENEWAL)
    looks = {
        str(protection): functools.partial(_look, bucket, want, protection)
        for protection in Protection
        if protection not in excused
    }
    return tuple(finding for finding in side_by_side(looks).values() if finding)


def _look(bucket: s3.Bucket, want: Wanted, protection: Protection) -> Finding | None:
    if protection is Protection.LOCK_RENEWAL:
        return _look_at_renewal(bucket, want)
    return s3.look(bucket, want, protection)


def require_protection(settings: Settings) -> str:
    """Give the evidence that the bucket is protected.

    Raises PreconditionError with all that is missing and not excused, and NotSeen if our key may
    not look and nothing else is wrong.
    """
    findings = look(settings)
    missing = wrong(findings, ())
    if missing:
        unseen = all(finding.state is State.UNKNOWN for finding in missing)
        told = "; ".join(finding.in_words() for finding in missing)
        kind = NotSeen if unseen else PreconditionError
        raise kind(f"Looking at the protection of bucket {settings.vault.s3.bucket}: {told}")
    told = [f"{finding.protection}: {finding.evidence}" for finding in findings]
    told += [f"without {name} ({why})" for name, why in settings.vault.s3.without.items()]
    return "; ".join(told)


# --- locks that are renewed -------------------------------------------------------------------


@step(retries=1)
def renew_locks(settings: Settings, *, everything: bool = False) -> int:
    """Lock anew what restic and the WAL still need, before its lock ends; give how many were.

    Each day some, so that each object's turn comes three times within `lock_days`; or everything
    at once. Nothing is done where the bucket has no Object Lock, or is done without it.
    """
    told = settings.vault.s3
    if Protection.OBJECT_LOCK in told.without:
        return 0
    bucket, want, now = places.bucket(settings), wanted_of(settings.vault.s3), clock.now()
    try:
        retention = s3.default_retention(bucket)
    except (s3.Absent, s3.Denied) as error:
        log.warning("Locks in bucket %s are not renewed: %s", bucket.name, error)
        return 0
    if retention is None:
        return 0
    mode, days = retention
    due = [
        item.key
        for item in bucket.list()
        if form_of(item.key) in (Form.RESTIC, Form.WAL)
        and (everything or due_for_renewal(item.key, item.modified_at, want, now=now))
    ]
    until = now + timedelta(days=max(days, want.lock_days))
    many.act_on_all(
        due,
        lambda key: s3.lock(bucket, key, mode=mode, until=until),
        doing=f"Renewing locks in bucket {bucket.name}",
    )
    return len(due)


def _look_at_renewal(bucket: s3.Bucket, want: Wanted) -> Finding | None:
    """Look at some old packs. Their names are hashes, so the first ones listed are a fair sample.

    None where nothing is locked at all, which is told of Object Lock itself.
    """
    try:
        if s3.default_retention(bucket) is None:
            return None
        now = clock.now()
        old = [
            item.key
            for packs in places.PACKS_IN_S3
            for item in sorted(bucket.list(packs, at_most=1000), key=lambda item: item.modified_at)[
                :_SAMPLED
            ]
        ]
        lapsed = [
            key for key in old if (until := s3.locked_until(bucket, key)) is None or until < now
        ]
    except s3.Absent:
        return None
    except s3.Denied as told:
        return Finding(
            protection=Protection.LOCK_RENEWAL,
            state=State.UNKNOWN,
            evidence=f"this key may not look ({told})",
            remedy="Give it the policy of docs/s3.md.",
        )
    return Finding(
        protection=Protection.LOCK_RENEWAL,
        state=State.EXPOSED if lapsed else State.PROTECTED,
        evidence=f"of the oldest {len(old)} packs in a sample, {len(lapsed)} are no longer locked",
        remedy="The daily prune renews locks if the key has s3:PutObjectRetention; "
        "`lifeboat prepare s3` renews all at once."
        if lapsed
        else "",
    )
