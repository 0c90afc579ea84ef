"""What deployments/automations.yaml declares: of what Prefect's server tells people by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SHORTEST_SECONDS = 10
"""A shorter time to wait for something Prefect's server does not take."""

_State = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]+$")]


class _Automation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z-]*$", description="PLATFORM.NAME is its name in the UI.")
    description: str = Field(min_length=20, description="What an operator reads of it.")
    subject: str = Field(min_length=5, description="First line of the message.")
    body: str = Field(min_length=20, description="The message: what is wrong and what to do next.")


class RunEnters(_Automation):
    """A run of the platform enters one of these states."""

    kind: Literal["run-enters"]
    states: tuple[_State, ...] = Field(min_length=1, description="By their names.")


class RunStays(_Automation):
    """A run of the platform stays in one of these states."""

    kind: Literal["run-stays"]
    states: tuple[_State, ...] = Field(min_length=1, description="By their names.")
    within_seconds: float = Field(ge=SHORTEST_SECONDS, description="So long it may.")


class WorkerAway(_Automation):
    """No worker asks for the platform's runs."""

    kind: Literal["worker-away"]
    within_seconds: float = Field(ge=SHORTEST_SECONDS, description="So soon it may be back.")


class Silence(_Automation):
    """An event of ours does not come any more, or never came; one automation for each deployment.

    How long each may be silent follows from its schedule and `watch.late_factor`.
    """

    kind: Literal["silence"]
    event: str = Field(pattern=r"^lifeboat\.[a-z.]+$", description="The event's name.")
    of: tuple[str, ...] = Field(min_length=1, description="Deployments, without the platform.")
    resource: str = Field(
        default="", description="Whose event it is; empty: it has the deployment's name."
    )
    at_least_seconds: float = Field(
        default=SHORTEST_SECONDS, ge=SHORTEST_SECONDS, description="So long it may in any case."
    )
    within_seconds: float | None = Field(
        default=None, ge=SHORTEST_SECONDS, description="So long it may, whatever its schedule says."
    )

    def window_seconds(self, *, every_seconds: float, late_factor: float) -> float:
        """How long it may be silent, where it is due so often."""
        if self.within_seconds is not None:
            return self.within_seconds
        return max(self.at_least_seconds, every_seconds * late_factor)


Automation = Annotated[RunEnters | RunStays | WorkerAway | Silence, Field(discriminator="kind")]


class Automations(BaseModel):
    """All of deployments/automations.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    automations: tuple[Automation, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_each_once(self) -> Automations:
        names = [automation.name for automation in self.automations]
        twice = sorted(name for name in set(names) if names.count(name) > 1)
        if twice:
            raise ValueError(f"{twice[0]} is declared twice")
        return self
