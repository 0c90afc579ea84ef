"""The forms of recoveries: the plan's scenarios, and those of the bucket and of Prefect."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import Field, field_validator, model_validator

from lifeboat.core.forms.base import (
    DATE_PATTERN,
    INCIDENT_PATTERN,
    POINT_PATTERN,
    TIME_PATTERN,
    Approval,
    Deed,
    Form,
    OfPlatform,
    moment,
)
from lifeboat.core.ladder import Rung
from lifeboat.core.points import Tier, end_of_day

Source = Literal["cheapest", "local", "s3"]


class _InBucket(Form):
    bucket: str = Field(min_length=3, description="Name of the bucket that holds the vault.")
    endpoint: str = Field(
        default="",
        title="S3 service",
        description="URL of the S3 service; empty means Amazon's own.",
    )
    region: str = Field(default="us-east-1", description="The bucket's region.")
    prefix: str = Field(
        default="", title="Place in the bucket", description="The vault's place inside the bucket."
    )


class _Recovery(Deed, OfPlatform):
    source: Source = Field(
        default="cheapest",
        title="From where",
        description="Where to restore from: the cheapest copy that works, only this host's copies, "
        "or only S3.",
    )

    because: str = Field(
        default="",
        max_length=500,
        title="Why now",
        description="Why it is started, for who approves it and for the record; may be empty.",
    )

    @property
    def only_from(self) -> Tier | None:
        return None if self.source == "cheapest" else Tier(self.source)


class RecoverDatabase(_Recovery):
    """Scenario 1: the database server failed."""

    to_time: str = Field(
        default="",
        pattern=TIME_PATTERN,
        title="Point in time",
        description="Bring the database back to this moment, e.g. 2026-01-31T03:15:00Z "
        "(no zone means UTC); empty means the newest.",
    )
    rungs: list[Rung] = Field(
        default=list(Rung),
        min_length=1,
        title="Cures",
        description="Which cures may be tried. They are tried from the cheapest to the dearest, "
        "until one holds.",
    )

    @field_validator("to_time")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if value:
            moment(value)
        return value

    @property
    def target_time(self) -> datetime | None:
        return moment(self.to_time) if self.to_time else None


class _RecoverDirectories(_Recovery):
    date: str = Field(
        default="",
        pattern=DATE_PATTERN,
        title="Day",
        description="Repair from the newest point of this day or before it (UTC), "
        "e.g. 2026-01-31; empty means the latest.",
    )

    point: str = Field(
        default="",
        pattern=POINT_PATTERN,
        title="Recovery point",
        description="Repair from this recovery point, e.g. files-20260131T031500Z, whatever is "
        "newer; empty means the date decides.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> _RecoverDirectories:
        if self.date and self.point:
            raise ValueError("give a date or a point, not both")
        return self

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        if value:
            date.fromisoformat(value)
        return value

    @property
    def not_after(self) -> datetime | None:
        return end_of_day(date.fromisoformat(self.date)) if self.date else None


class RecoverFiles(_RecoverDirectories):
    """Scenario 3: the file storage is corrupt."""


class RecoverModels(_RecoverDirectories):
    """Scenario 4: AI models are lost."""


class RecoverOrchestrator(_Recovery):
    """Prefect's own database is lost."""

    point: str = Field(
        default="",
        pattern=POINT_PATTERN,
        title="Recovery point",
        description="Bring this point back, e.g. orchestrator-20260131T031500Z, whatever is newer; "
        "empty means the newest that holds a whole history.",
    )


class RecoverServer(Deed, _InBucket):
    """Scenario 2: the whole server is lost. Needs the bucket and the vault's password, no more."""

    into: str = Field(
        min_length=1,
        title="Directory",
        description="Directory on this machine for the platform; it must be empty or not exist.",
    )
    platform: str = Field(
        default="",
        title="Expected platform",
        description="Name of the platform that is expected in the bucket; another one is refused.",
    )
    trust: list[str] = Field(
        default=[],
        title="Suspicious points to trust",
        description="Names of suspicious recovery points that are right all the same.",
    )
    rehearsal: bool = Field(
        default=False,
        description="A drill on another machine, while the platform itself goes on: nothing is "
        "written to the bucket, and no backup is ever made from here.",
    )
    report: str = Field(
        default="",
        pattern=INCIDENT_PATTERN,
        title="Incident to report under",
        description="Name of the incident under which the bucket is told how far this is: for "
        "who made this machine and waits.",
    )

    @model_validator(mode="after")
    def _rehearse_in_silence(self) -> RecoverServer:
        if self.rehearsal and self.report:
            raise ValueError("a rehearsal writes nothing to the bucket, so it can't report there")
        return self


class ProvisionServer(Deed, _InBucket):
    """Scenario 2 without a machine: one is made in EC2, and recovers the platform by itself."""

    into: str = Field(
        default="",
        title="Directory",
        description="Directory on the new machine for the platform; empty: the lost server's.",
    )
    platform: str = Field(
        default="",
        title="Expected platform",
        description="Name of the platform that is expected in the bucket; another one is refused.",
    )
    incident: str = Field(
        default="",
        pattern=INCIDENT_PATTERN,
        title="Incident",
        description="Name of the incident: the same one never makes a second machine. Empty: by "
        "the day, lost-20260131.",
    )
    on_failure: Literal["keep", "end"] = Field(
        default="keep",
        title="If it does not recover",
        description="Whether a machine that did not recover is kept or ended.",
    )
    aws_profile: str = Field(
        default="",
        title="Credentials of EC2",
        description="Credentials of EC2, by their name; empty: the environment's.",
    )


class RecoverBucket(Deed, OfPlatform, _InBucket):
    """The bucket's objects were deleted or overwritten; their old versions remain.

    With the bucket's coordinates it needs no lifeboat.yaml, and no password of the vault either.
    """

    bucket: str = Field(
        default="", description="Name of the bucket; empty means the one of lifeboat.yaml."
    )
    as_of: str = Field(
        default="",
        pattern=TIME_PATTERN,
        title="Last good moment",
        description="The last moment before the attack, e.g. 2026-01-31T03:09:59Z (no zone means "
        "UTC); empty means the one that the versions themselves tell.",
    )
    hide_newer: bool = Field(
        default=False,
        title="Hide what came later",
        description="Also hide restic's objects that came after that moment, where a repository "
        "was made anew in the place of the one that was destroyed.",
    )
    approval: Approval = Field(
        default="ask",
        description="Show the plan and wait until a person types the name of the platform (without "
        "lifeboat.yaml: of the bucket); or go on without, which only a platform with "
        "environment: staging allows.",
    )

    @field_validator("as_of")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if value:
            moment(value)
        return value

    @property
    def moment(self) -> datetime | None:
        return moment(self.as_of) if self.as_of else None
