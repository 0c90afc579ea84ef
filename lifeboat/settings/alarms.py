"""The section `alarms`: whom to tell when the platform is not protected as it should be."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from lifeboat.core.checklist import PLACEHOLDER
from lifeboat.settings.base import Name, Section


def _without_password(url: str) -> str:
    """lifeboat.yaml is committed to git: no password in it."""
    if "://" not in url:
        raise ValueError("is no address: `mailtos://`, `slack://`, `json://` and others are")
    try:
        password = urlsplit(PLACEHOLDER.sub("", url)).password
    except ValueError as error:
        raise ValueError(f"is no address: {error}") from error
    if password:
        raise ValueError(
            "has a password in clear; write `${NAME}`, and set NAME in the environment or in "
            "`secrets_file`"
        )
    return url


class Channel(Section):
    """One way to somebody: mail, a chat, a pager."""

    name: Name = Field(description="What it is called in logs.")
    url: Annotated[str, AfterValidator(_without_password)] = Field(
        description="Apprise's address of it, e.g. mailtos://user:${SMTP_PASSWORD}@host?to=a@b.c; "
        "secrets as `${NAME}`."
    )


class Alarms(Section):
    """Whom to tell that a backup failed or is late, or that another promise does not hold."""

    channels: tuple[Channel, ...] = Field(
        default=(), description="All of them get every message; none: the log alone tells."
    )
    again_hours: float = Field(
        default=24, gt=0, description="After so long what is still not good is told again."
    )
    timeout_seconds: float = Field(
        default=10, gt=0, description="How long a channel may take for a message."
    )
