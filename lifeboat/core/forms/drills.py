"""The forms of what only looks, and of the drill, which breaks nothing but staging."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lifeboat.core.forms.base import Form, OfPlatform

Scenario = Literal["database", "files", "models", "server"]


class Verify(OfPlatform):
    """The plan's eighteen checks against the live platform."""


class Diagnose(OfPlatform):
    """Find out which of the plan's scenarios fits what is seen."""


class Drill(Form):
    """Break the staging platform in every way of the plan, get it back, and measure."""

    root: str = Field(
        default=".lifeboat/staging",
        title="Staging directory",
        description="Directory of the staging platform; made anew. Without a slash in front: below "
        "the home directory of the worker's user, or where the command is run.",
    )
    stack: Literal["process", "compose"] = Field(
        default="process",
        title="Runs as",
        description="What the staging platform runs as: plain processes, or containers.",
    )
    reports: str = Field(
        default=".lifeboat/drills",
        title="Directory of reports",
        description="Directory in which the report is left; without a slash in front as above.",
    )
    scenarios: list[Scenario] = Field(
        default=["database", "files", "models", "server"],
        min_length=1,
        title="What to break",
        description="What to break, in this order.",
    )
    scale: float = Field(
        default=1.0, gt=0, le=1000, title="Size of the data", description="Size of the sample data."
    )
    writes_per_second: float = Field(
        default=10,
        gt=0,
        le=200,
        title="Writes per second",
        description="How fast the load generator writes.",
    )
    server_load_seconds: float = Field(
        default=70,
        ge=5,
        le=3600,
        title="Seconds of load before the server is lost",
        description="How long the load writes before the server is lost: more than the 60 s that "
        "must be back.",
    )
    seed: int = Field(default=0, ge=0, description="Chooses what is damaged.")
    kill: Literal["nothing", "orchestrator"] = Field(
        default="nothing",
        title="What is killed besides",
        description="In the middle of each recovery. orchestrator: Prefect's server, one that is "
        "made for the drill; not with the scenario server.",
    )
    keep: bool = Field(
        default=False,
        title="Keep the staging platform",
        description="Leave the staging platform running afterwards.",
    )
    channels: list[str] = Field(
        default=[],
        title="Who is told",
        description="Apprise addresses to which all messages of the drill's incidents go, without "
        "passwords; none: nobody is told.",
    )
    record_in: str = Field(
        default="",
        title="On record in",
        description="lifeboat.yaml of the platform for whose sake this drill is held: the result "
        "is put on record in its vault.",
    )

    @model_validator(mode="after")
    def _server_needs_no_orchestrator(self) -> Drill:
        if self.kill == "orchestrator" and "server" in self.scenarios:
            raise ValueError(
                "with the server its workers are lost, and nobody is left to go on: leave the "
                "scenario server out"
            )
        return self
