"""The section `status_page`: what the public sees, and where it is written."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from lifeboat.core.checklist import Request
from lifeboat.settings.base import Section, SitePath


class HostedPage(Section):
    """A status page that somebody else hosts, told by the API of Atlassian Statuspage."""

    api: str = Field(
        default="https://api.statuspage.io/v1",
        pattern=r"^https?://",
        description="Address of the API; another one for a service that imitates it.",
    )
    page: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="Id of the page.")
    token: str = Field(
        default="${STATUSPAGE_TOKEN}",
        pattern=r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$",
        description="The API's token: `${NAME}` of a variable or of the secrets file.",
    )
    components: Mapping[str, str] = Field(
        default={}, description="The component's id, by the name of the service that it shows."
    )
    timeout_seconds: float = Field(default=5, gt=0, le=60, description="For each request.")


class StatusPage(Section):
    """A page with each service's state and the incidents, which survives the platform."""

    enabled: bool = Field(default=False, description="Write the page.")
    title: str = Field(default="", description="Its title; empty: the platform's name.")
    url: str = Field(default="", description="Where people read it; for the feed's links.")
    web_roots: tuple[SitePath, ...] = Field(
        default=(), description="Directories of web servers that get it too; they must exist."
    )
    health: Mapping[str, Request] = Field(
        default={},
        description="A request that a service answers if it is well, by the service's name. One "
        "that runs and does not answer so is shown as not answering.",
    )
    hosted: HostedPage | None = Field(
        default=None, description="A hosted status page that is told the same."
    )
    prefix: str = Field(
        default="status/",
        pattern=r"^([A-Za-z0-9._-]+/)+$",
        description="Its place in the vault's bucket, below the vault's own prefix.",
    )
