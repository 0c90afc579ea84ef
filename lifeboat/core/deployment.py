"""What prefect.yaml declares: which flow runs when, where, and what happens if it still runs.

Prefect itself accepts unknown keys of a deployment and never looks at them again, so that a typing
mistake means no backups. Here every key is known, and a schedule says whether it is active.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lifeboat.core.errors import SettingsError

MANAGED = "lifeboat"
"""Tag of every deployment that we made, so that we may remove it when it is not declared."""

_VARIABLE = re.compile(r"\{\{ *\$(\w+) *\}\}")
T = TypeVar("T")


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ScheduleDeclaration(_Declared):
    """When a deployment runs by itself."""

    slug: str = Field(
        pattern=r"^[a-z0-9-]+$",
        description="Its name, by which it is told from others of the deployment.",
    )
    cron: str = Field(min_length=9, description="Minute, hour, day, month, weekday.")
    timezone: str = Field(default="UTC", description="Time zone of the cron.")
    active: bool = Field(description="Whether it runs; also for one that was paused in the UI.")
    parameters: Mapping[str, Any] = Field(default={}, description="Instead of the deployment's.")


class ConcurrencyDeclaration(_Declared):
    """How many runs at once, and what becomes of one more."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"]
    grace_period_seconds: int = Field(default=60, ge=60, le=86400)


class WorkPoolDeclaration(_Declared):
    """Where it runs."""

    name: str
    work_queue_name: str = Field(min_length=1, description="One for each host.")
    job_variables: Mapping[str, Any] = Field(default={})


class DeploymentDeclaration(_Declared):
    """One flow of one platform, as an operator finds it in the UI."""

    name: str = Field(
        pattern=r"^[^/%&<>]+\.[a-z-]+$",
        description="PLATFORM.FLOW: the list in the UI shows nothing else of it.",
    )
    entrypoint: str = Field(
        pattern=r"^flows\.[a-z_]+\.[a-z_]+$",
        description="Module and function. A path would load the file a second time.",
    )
    description: str = Field(min_length=20, description="What the operator reads. Markdown.")
    tags: tuple[str, ...] = Field(min_length=3)
    parameters: Mapping[str, Any] = Field(default={})
    enforce_parameter_schema: Literal[True]
    concurrency_limit: ConcurrencyDeclaration | None = None
    work_pool: WorkPoolDeclaration
    schedules: tuple[ScheduleDeclaration, ...] = ()
    only_with: str = Field(
        default="",
        description="Section of lifeboat.yaml without which there is nothing to run; empty: none.",
    )
    only_where: str = Field(
        default="",
        description="Python package that its flow needs and not every installation has, as images "
        "of containers; empty: none.",
    )

    @property
    def flow(self) -> str:
        """Name of the flow's file and function."""
        return self.entrypoint.rpartition(".")[2]

    @property
    def platform(self) -> str:
        """Name of the platform."""
        return self.name.rpartition(".")[0]

    @model_validator(mode="after")
    def _is_safe(self) -> DeploymentDeclaration:
        missing = [tag for tag in (MANAGED, self.platform) if tag not in self.tags]
        if missing:
            raise ValueError(f"its tags lack {missing[0]}, so that it would never be removed again")
        if self.name != f"{self.platform}.{self.flow.replace('_', '-')}":
            raise ValueError(f"its name does not end in the name of its flow, {self.flow}")
        slugs = [schedule.slug for schedule in self.schedules]
        if len(slugs) != len(set(slugs)):
            raise ValueError("two of its schedules have the same slug")
        if "recovery" in self.tags:
            # Its lease would kill a recovery that outlives the server; the lock lies at the data.
            if self.concurrency_limit is not None:
                raise ValueError("a recovery has no concurrency limit: the lock lies at the data")
            if self.schedules:
                raise ValueError("a recovery has no schedule: a person decides")
        elif self.schedules and (
            self.concurrency_limit is None
            or self.concurrency_limit.collision_strategy != "CANCEL_NEW"
        ):
            raise ValueError(
                "what has a schedule cancels new runs while one runs: after an outage one backup "
                "is wanted, not forty"
            )
        return self


class Declaration(_Declared):
    """All of prefect.yaml."""

    name: str
    prefect_version: str = Field(alias="prefect-version")
    pull: tuple[Mapping[str, Any], ...] | None = None
    definitions: Mapping[str, Any] = Field(default={}, description="Anchors for the rest.")
    deployments: tuple[DeploymentDeclaration, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_each_once(self) -> Declaration:
        seen = [deployment.name for deployment in self.deployments]
        twice = sorted(name for name in set(seen) if seen.count(name) > 1)
        if twice:
            raise ValueError(f"{twice[0]} is declared twice")
        return self


def fill_variables(value: T, known: Mapping[str, str], *, what: str) -> T:
    """Replace each `{{ $NAME }}` in the strings of a declaration; `what` is its file in messages.

    Raises SettingsError if a name is not known.
    """

    def filled(part: Any) -> Any:
        if isinstance(part, str):
            unknown = [name for name in _VARIABLE.findall(part) if name not in known]
            if unknown:
                raise SettingsError(
                    f"Reading {what}: there is no variable {unknown[0]}.",
                    hint=f"There are {', '.join(known)}.",
                )
            return _VARIABLE.sub(lambda match: known[match[1]], part)
        if isinstance(part, Mapping):
            return {key: filled(item) for key, item in part.items()}
        if isinstance(part, (list, tuple)):
            return [filled(item) for item in part]
        return part

    return filled(value)
