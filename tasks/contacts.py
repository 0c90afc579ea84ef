"""Whom to call, and when each number was last tried: what the settings say of people."""

from __future__ import annotations

from datetime import datetime, time, timezone

from lifeboat.core.review_evidence import ContactSeen
from lifeboat.settings import Settings


def contacts_of(settings: Settings) -> tuple[ContactSeen, ...]:
    """Everybody on the card, the first to call first."""
    return tuple(
        ContactSeen(
            who=f"{contact.role} {contact.name}".strip(),
            phone=contact.phone,
            confirmed_at=_moment(getattr(contact, "confirmed_on", None)),
        )
        for contact in settings.card.contacts
    )


def _moment(day: object) -> datetime | None:
    if day is None or isinstance(day, datetime):
        return day
    return datetime.combine(day, time(), tzinfo=timezone.utc)  # type: ignore[arg-type]
