"""What is known as production, and what a run that nobody approves has in common with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field


class Production(BaseModel):
    """A platform that is production: by its name, its host, its database. Empty: not known."""

    # A newer Lifeboat may add keys; an older one must still be able to read it from a vault.
    # A system identifier looks like a number.
    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    platform: str = Field(default="", description="Name of the platform.")
    host: str = Field(default="", description="Name of its host.")
    system_identifier: str = Field(default="", description="The one of its database cluster.")


class Target(BaseModel):
    """What a run is about to touch."""

    model_config = ConfigDict(frozen=True)

    platform: str
    hosts: frozenset[str]
    system_identifiers: frozenset[str]


def in_common(target: Target, known: Iterable[Production]) -> tuple[str, ...]:
    """What the target shares with production, in words; empty: nothing."""
    return tuple(dict.fromkeys(told for one in known for told in _shared(target, one)))


def _shared(target: Target, one: Production) -> Iterator[str]:
    if one.platform and one.platform == target.platform:
        yield f"the name {one.platform}"
    if one.host and one.host in target.hosts:
        yield f"the host {one.host}"
    if one.system_identifier and one.system_identifier in target.system_identifiers:
        yield f"the database system identifier {one.system_identifier}"
