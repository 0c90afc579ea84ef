"""What to tell people of what is not good: news, reminders, and that it is good again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Trouble(BaseModel):
    """Something that is not good now, under a name that stays."""

    model_config = ConfigDict(frozen=True)

    subject: str
    status: str  # FAIL or UNKNOWN
    evidence: str
    advice: str = ""

    @property
    def in_words(self) -> str:
        told = f"{self.status} {self.subject}: {self.evidence}"
        return f"{told}\n  -> {self.advice}" if self.advice else told


class Known(BaseModel):
    """What people were told of one subject, and when."""

    # An older Lifeboat may read what a newer one has written.
    model_config = ConfigDict(frozen=True, extra="ignore")

    status: str
    told_at: datetime


class Severity(StrEnum):
    ALARM = "alarm"
    GOOD = "good"


class Notice(BaseModel):
    """One message, and what people know once it has reached one of them."""

    model_config = ConfigDict(frozen=True)

    severity: Severity
    title: str
    body: str
    known: Mapping[str, Known]

    @property
    def is_alarm(self) -> bool:
        return self.severity is Severity.ALARM


def make_notice(
    platform: str,
    troubles: Mapping[str, Trouble],
    known: Mapping[str, Known],
    *,
    judged: frozenset[str],
    again_after: timedelta,
    now: datetime,
) -> Notice | None:
    """Make one message of all that is news; None if nothing is.

    News is what is not good and was not told, or was told as another status or too long ago; and
    what was told and is good again. `judged` are the subjects that were looked at: of the others
    in `known` nothing is said.
    """
    news = [
        trouble
        for subject, trouble in troubles.items()
        if _is_news(trouble, known.get(subject), again_after, now)
    ]
    good = sorted((known.keys() & judged) - troubles.keys())
    if not news and not good:
        return None
    still = sorted(troubles.keys() - {trouble.subject for trouble in news})
    parts = ["\n".join(trouble.in_words for trouble in news)] if news else []
    if good:
        parts.append("Good again: " + ", ".join(good))
    if still:
        parts.append("Told before, and not good yet: " + ", ".join(still))
    rest = {subject: told for subject, told in known.items() if subject not in good}
    told = {t.subject: Known(status=t.status, told_at=now) for t in news}
    return Notice(
        severity=Severity.ALARM if news else Severity.GOOD,
        title=f"{platform}: {_title(news, good)}",
        body="\n\n".join(parts),
        known={**rest, **told},
    )


def _is_news(trouble: Trouble, known: Known | None, again_after: timedelta, now: datetime) -> bool:
    if known is None or known.status != trouble.status:
        return True
    # A clock that was set back must not silence anything.
    return not timedelta(0) <= now - known.told_at < again_after


def _title(news: list[Trouble], good: list[str]) -> str:
    subjects = [trouble.subject for trouble in news] or good
    shown = ", ".join(subjects[:3]) + (f" and {len(subjects) - 3} more" if subjects[3:] else "")
    return f"not protected as it should be: {shown}" if news else f"good again: {shown}"
