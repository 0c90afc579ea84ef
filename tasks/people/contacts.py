"""Whom to call, and when each number was last tried: what the settings say of people."""

from __future__ import annotations

from datetime import datetime, time, timezone

from lifeboat.core.review_evidence import ContactSeen
from lifeboat.settings import Settings


def contacts_of(settings: Settings) -> tuple[ContactSeen, ...]:
    """Everybody with a number in `people`, then those that only the card has (vendors, say)."""
    people = [
        ContactSeen(
            who=f"{role.replace('_', ' ').capitalize()}: {person.name}",
            phone=person.phone,
            confirmed_at=person.confirmed_on
            and datetime.combine(person.confirmed_on, time(), tzinfo=timezone.utc),
        )
        for role, persons in settings.people.by_role.items()
        for person in persons
        if person.phone
    ]
    known = {_digits(contact.phone) for contact in people}
    on_card = [
        ContactSeen(who=f"{contact.role} {contact.name}".strip(), phone=contact.phone)
        for contact in settings.card.contacts
        if _digits(contact.phone) not in known
    ]
    return (*people, *on_card)


def _digits(phone: str) -> str:
    return "".join(filter(str.isdigit, phone))
