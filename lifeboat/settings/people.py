"""The sections `people` and `communication`: who is told what of an incident, and by which way."""

from __future__ import annotations

from datetime import date, time
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field

from lifeboat.settings.alarms import Channel
from lifeboat.settings.base import Section, SitePath


def _plain(value: object) -> object:
    """Take the dashes, blanks and brackets out of a number as people write it."""
    if isinstance(value, int):  # YAML reads +15550101 as a number, and loses the plus
        value = f"+{value}"
    return "".join(c for c in value if c not in " -()/.") if isinstance(value, str) else value


Phone = Annotated[str, BeforeValidator(_plain), Field(pattern=r"^\+[1-9]\d{6,14}$")]
"""A telephone number that can be dialled from anywhere (E.164): `+1 555 0101 000`."""


class Person(Section):
    """Somebody to be told, and who answers the telephone."""

    name: str = Field(min_length=2, max_length=80, description="As colleagues call them.")
    phone: Phone | None = Field(
        default=None, description="With the country, e.g. +1 555 010 1000; quoted."
    )
    email: str | None = Field(
        default=None, pattern=r"^[^@\s]+@[^@\s]+$", description="For people; messages go by url."
    )
    confirmed_on: date | None = Field(
        default=None, description="When somebody last tried that these ways reach them."
    )
    channels: tuple[Channel, ...] = Field(
        default=(), description="In this order: the next one only if one does not take a message."
    )


class People(Section):
    """The roles of the plan, and who has them."""

    incident_commander: tuple[Person, ...] = Field(
        default=(), description="Who leads; the first is the commander of a new incident."
    )
    technical_team: tuple[Person, ...] = Field(default=(), description="Who recovers.")
    management: tuple[Person, ...] = Field(
        default=(), description="Who answers for it; told too when nobody acknowledges."
    )
    support: tuple[Person, ...] = Field(default=(), description="Who answers customers.")

    @property
    def by_role(self) -> dict[str, tuple[Person, ...]]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class External(Section):
    """Ways to those outside; each list is tried in order until a channel takes the message."""

    status_page: tuple[Channel, ...] = Field(default=(), description="A hosted status page.")
    customer_email: tuple[Channel, ...] = Field(default=(), description="Mail to customers.")
    customer_sms: tuple[Channel, ...] = Field(default=(), description="Short messages.")
    social_media: tuple[Channel, ...] = Field(default=(), description="The public at large.")

    @property
    def by_name(self) -> dict[str, tuple[Channel, ...]]:
        return {name: getattr(self, name) for name in type(self).model_fields}


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{value!r} is no time zone; `Europe/Berlin` is one") from error
    return value


class QuietHours(Section):
    """When only what is critical is told. It may go over midnight."""

    begin: time = Field(description='From when on, quoted for YAML: "22:00".')
    end: time = Field(description='Until when: "07:00".')
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="In whose time, e.g. Europe/Berlin."
    )


class Communication(Section):
    """How people are told of an incident."""

    external: External = Field(default=External(), description="Customers and the public.")
    quiet_hours: QuietHours | None = Field(
        default=None, description="When only critical incidents are told; none: at any time."
    )
    at_most_per_hour: int = Field(
        default=12,
        ge=1,
        description="So many updates an hour for each audience; what opens, recovers or closes an "
        "incident always goes out.",
    )
    escalate_after_minutes: float = Field(
        default=15,
        gt=0,
        description="If nobody acknowledges an incident for so long, the next people are told, "
        "and after each further so long the next.",
    )
    timeout_seconds: float = Field(
        default=10, gt=0, description="How long a channel may take for a message."
    )
    templates: SitePath | None = Field(
        default=None,
        description="Directory with your own texts, named `<moment>.<audience>.txt.j2` or "
        "`<moment>.txt.j2`; the others stay ours.",
    )
    drill_channels: tuple[Channel, ...] = Field(
        default=(), description="All that a drill's messages go to, whomever they are meant for."
    )
    drill_to_people: bool = Field(
        default=False, description="Let a drill tell people and customers as if it were real."
    )
