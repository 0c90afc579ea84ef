"""Which certificates end soon, and which are not in the backup. Pure decisions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import PurePath

from pydantic import BaseModel, ConfigDict

from lifeboat.core.plan import age_in_words
from lifeboat.core.points import Facts


class Expiring(BaseModel):
    """A certificate that has ended, or will before long."""

    model_config = ConfigDict(frozen=True)

    path: str
    ends_at: datetime
    now: datetime

    @property
    def ended(self) -> bool:
        return self.ends_at <= self.now

    def in_words(self) -> str:
        if self.ended:
            return f"The certificate {self.path} ended {age_in_words(self.now - self.ends_at)} ago"
        return (
            f"The certificate {self.path} ends in {age_in_words(self.ends_at - self.now)} "
            f"({self.ends_at:%Y-%m-%d %H:%M} UTC)"
        )


def expiring(
    certificates: Mapping[str, datetime], *, now: datetime, days: float
) -> tuple[Expiring, ...]:
    """Of certificates by path, those that have ended or end within `days`; the soonest first."""
    found = (
        Expiring(path=path, ends_at=ends_at, now=now)
        for path, ends_at in certificates.items()
        if ends_at <= now + timedelta(days=days)
    )
    return tuple(sorted(found, key=lambda certificate: (certificate.ends_at, certificate.path)))


def kept_elsewhere(facts: Facts) -> tuple[str, ...]:
    """The certificates of a configuration of which only a link was backed up.

    They have absolute paths outside of its directories.
    """
    roots = [PurePath(told.path) for told in facts.directories.values()]
    paths = [PurePath(path) for path in facts.certificates]
    return tuple(
        sorted(
            str(path)
            for path in paths
            if path.is_absolute() and not any(path.is_relative_to(root) for root in roots)
        )
    )
