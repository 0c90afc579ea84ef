"""The section `status_page`: what the public sees, and where it is written."""

from __future__ import annotations

from pydantic import Field

from lifeboat.settings.base import Section, SitePath


class StatusPage(Section):
    """A page with each service's state and the incidents, which survives the platform."""

    enabled: bool = Field(default=False, description="Write the page.")
    title: str = Field(default="", description="Its title; empty: the platform's name.")
    url: str = Field(default="", description="Where people read it; for the feed's links.")
    web_roots: tuple[SitePath, ...] = Field(
        default=(), description="Directories of web servers that get it too; they must exist."
    )
    prefix: str = Field(
        default="status/",
        pattern=r"^([A-Za-z0-9._-]+/)+$",
        description="Its place in the vault's bucket, below the vault's own prefix.",
    )
