"""The section `stack`: what runs the services, and which there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from lifeboat.settings.base import VOLUMES_DIRECTORY, Name, Section, SitePath


class ProcessRunner(Section):
    """Services as plain processes under supervisor."""

    kind: Literal["process"] = Field(description="What runs the services: `process` or `compose`.")
    supervisor_config: SitePath = Field(description="supervisor's configuration file.")


class ComposeRunner(Section):
    """Services as containers of Docker Compose."""

    kind: Literal["compose"] = Field(description="What runs the services: `process` or `compose`.")
    compose_file: SitePath = Field(description="The Compose file, docker-compose.prod.yml.")
    env_file: SitePath | None = Field(
        default=None, description="Environment file that is given to `docker compose --env-file`."
    )
    project_name: Name | None = Field(
        default=None, description="Name of the Compose project; default: Compose's own."
    )
    compose_program: SitePath | None = Field(
        default=None,
        description="Compose v2 as a program of its own; default: the one in the tool folder, or "
        "else the plugin of `docker`, or `docker-compose` on PATH.",
    )


Runner = Annotated[ProcessRunner | ComposeRunner, Field(discriminator="kind")]


class _Services(Section):
    critical_services: tuple[str, ...] = Field(
        min_length=1,
        description="Services without which the platform is down, in their order of starting.",
    )
    deferred_services: tuple[str, ...] = Field(
        default=(), description="Services that are started after the platform has been verified."
    )
    backup_services: tuple[str, ...] = Field(
        default=(),
        description="Services that make backups (the WAL receiver, the keeper); a recovery starts "
        "them last, so that they never back up what is not proven.",
    )
    without: Mapping[str, Annotated[str, Field(min_length=1)]] = Field(
        default={},
        description="Services of the stack that no recovery is to start, each with the reason: "
        '`{migrate: "runs once at a deploy"}`.',
    )
    backup_stack: Runner | None = Field(
        default=None,
        description="What runs backup_services, where the platform's own stack does not.",
    )

    @property
    def services(self) -> tuple[str, ...]:
        """All that are named here."""
        return (*self.critical_services, *self.deferred_services, *self.backup_services)


class ProcessStackSettings(ProcessRunner, _Services):
    """A platform of plain processes under supervisor."""


class ComposeStackSettings(ComposeRunner, _Services):
    """A platform of containers, as one project of Docker Compose."""

    volumes_directory: SitePath = Field(
        default=VOLUMES_DIRECTORY,
        description="Where the engine keeps its volumes: `volumes` below its data root.",
    )


StackSettings = Annotated[ProcessStackSettings | ComposeStackSettings, Field(discriminator="kind")]
