"""The forms that an operator fills in: one flat model for each flow that a person starts.

The UI draws them, and its server checks them before a run begins; the command line fills in the
same ones. So every field has a sentence, a default where there can be one, and bounds that are told
in the schema and not only by a validator. A moment is a string with a pattern, for the UI's picker
has five-minute steps and its server takes anything for a moment.
"""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lifeboat.core.ladder import Rung
from lifeboat.core.points import Tier, end_of_day
from lifeboat.core.review_kinds import Decision, ReviewKind

TIME_PATTERN = r"^(|\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)$"
DATE_PATTERN = r"^(|\d{4}-\d{2}-\d{2})$"
INCIDENT_PATTERN = r"^(|[A-Za-z0-9][A-Za-z0-9._-]{0,63})$"
POINT_PATTERN = r"^(|[a-z]+-\d{8}T\d{6}Z[a-z0-9-]*)$"

Source = Literal["cheapest", "local", "s3"]
Approval = Literal["ask", "preapproved"]
Scenario = Literal["database", "files", "models", "server"]

# What is the same each time comes last.
_LAST = ("because", "dry_run", "approval", "approval_seconds", "config")


def _moment(text: str) -> datetime:
    """A moment as an operator types it; without a zone it is UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _in_order(schema: dict[str, Any]) -> None:
    """Number the fields: the server's database forgets in which order a schema named them."""
    own = [name for name in schema["properties"] if name not in _LAST]
    names = own + [name for name in _LAST if name in schema["properties"]]
    schema["properties"] = {
        name: {**schema["properties"][name], "position": position}
        for position, name in enumerate(names)
    }


class Form(BaseModel):
    """What all of them have in common: nothing is added to them, and nothing changed in them."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_in_order)


class _OfPlatform(Form):
    config: str = Field(
        default="",
        title="lifeboat.yaml",
        description="Path of lifeboat.yaml; empty means the one that the host uses.",
    )


class _Deed(Form):
    """What touches a platform: shown as a plan, and approved."""

    dry_run: bool = Field(
        default=False,
        title="Dry run",
        description="Make and show the plan, touch nothing, end as DryRun.",
    )
    approval: Approval = Field(
        default="ask",
        description="Show the plan and wait until a person types the platform's name; or go on "
        "without, which only a platform with environment: staging allows.",
    )
    approval_seconds: int = Field(
        default=3600,
        ge=10,
        le=86400,
        title="Seconds to approve in",
        description="How long the run waits for the approval. After that it ends as "
        "NobodyApproved, with nothing touched.",
    )


class _Recovery(_Deed, _OfPlatform):
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
            _moment(value)
        return value

    @property
    def target_time(self) -> datetime | None:
        return _moment(self.to_time) if self.to_time else None


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


class RecoverServer(_Deed):
    """Scenario 2: the whole server is lost. Needs the bucket and the vault's password, no more."""

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


class ProvisionServer(_Deed):
    """Scenario 2 without a machine: one is made in EC2, and recovers the platform by itself."""

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


class RecoverBucket(_Deed, _OfPlatform):
    """The bucket's objects were deleted or overwritten; their old versions remain.

    With the bucket's coordinates it needs no lifeboat.yaml, and no password of the vault either.
    """

    bucket: str = Field(
        default="", description="Name of the bucket; empty means the one of lifeboat.yaml."
    )
    endpoint: str = Field(
        default="",
        title="S3 service",
        description="URL of the S3 service; empty means Amazon's own.",
    )
    region: str = Field(default="us-east-1", description="The bucket's region.")
    prefix: str = Field(
        default="", title="Place in the bucket", description="The vault's place inside the bucket."
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
            _moment(value)
        return value

    @property
    def moment(self) -> datetime | None:
        return _moment(self.as_of) if self.as_of else None


class Verify(_OfPlatform):
    """The plan's eighteen checks against the live platform."""


class Diagnose(_OfPlatform):
    """Find out which of the plan's scenarios fits what is seen."""


IncidentSeverity = Literal["critical", "major", "minor"]


class OpenIncident(_OfPlatform):
    """Something is wrong: tell people, and begin its record."""

    title: str = Field(
        default="", max_length=200, title="What is wrong", description="In one sentence; needed."
    )
    scenario: Literal["unknown", "database", "server", "files", "models"] = Field(
        default="unknown",
        description="What is hit, as far as known; a recovery of it joins this incident.",
    )
    severity: IncidentSeverity = Field(
        default="major", description="Critical: nobody can work. It wakes people."
    )
    commander: str = Field(
        default="", max_length=80, description="Who leads; empty: the first of lifeboat.yaml."
    )


class _OfIncident(_OfPlatform):
    incident: str = Field(
        default="",
        pattern=INCIDENT_PATTERN,
        title="Incident",
        description="Its id; empty means the newest that is not closed.",
    )
    by: str = Field(
        default="", max_length=80, title="Your name", description="It goes on record; needed."
    )


class UpdateIncident(_OfIncident):
    """Tell people how it stands, change the severity or the commander, or say you are on it."""

    text: str = Field(
        default="",
        max_length=2000,
        title="What to tell",
        description="It goes to all internal roles; empty tells nobody.",
    )
    customers_too: bool = Field(
        default=False,
        title="Customers too",
        description="Tell the same to the status page and the customers.",
    )
    severity: Literal["unchanged", "critical", "major", "minor"] = Field(
        default="unchanged", description="How bad it is now."
    )
    commander: str = Field(
        default="", max_length=80, description="Who leads from now on; empty: as before."
    )
    acknowledge: bool = Field(
        default=False, title="I am on it", description="I am on it: nobody else needs to be woken."
    )


class CloseIncident(_OfIncident):
    """It is over, and people may be told so."""

    text: str = Field(
        default="", max_length=2000, title="How it ended", description="For the record; needed."
    )


class CommunicationTest(_OfPlatform):
    """Try every way to people, or say that the test message came."""

    received: str = Field(
        default="",
        max_length=80,
        title="It has reached me",
        description="Your name, if a test message has reached you; empty sends one to everybody.",
    )
    customers_too: bool = Field(
        default=False,
        title="Customers too",
        description="Send it by the ways to customers and the public as well.",
    )


class Drill(Form):
    """Break the staging platform in every way of the plan, get it back, and measure."""

    root: str = Field(
        default=".lifeboat/staging",
        title="Staging directory",
        description="Directory of the staging platform; made anew.",
    )
    stack: Literal["process", "compose"] = Field(
        default="process",
        title="Runs as",
        description="What the staging platform runs as: plain processes, or containers.",
    )
    reports: str = Field(
        default=".lifeboat/drills",
        title="Directory of reports",
        description="Directory in which the report is left.",
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


class FollowUpDeed(_OfPlatform):
    """What has become of a follow-up, or a new one."""

    deed: Literal["done", "note", "put off", "assign", "add", "reopen"] = Field(
        title="What has happened",
        description="done: it was done. note: say how far it is. put off: remind later. assign: "
        "another owner. add: a new one. reopen: it was not done after all.",
    )
    follow_up: str = Field(
        default="",
        pattern=r"^(|[a-z0-9][a-z0-9-]*)$",
        title="Follow-up",
        description="Its name as the table shows it, or how that begins; empty for a new one.",
    )
    by: str = Field(
        min_length=2, max_length=80, title="Who", description="Your name, as it goes on record."
    )
    note: str = Field(
        default="",
        max_length=2000,
        description="What was done or found; for a new one, how it is to be done.",
    )
    days: float = Field(
        default=7, gt=0, le=366, description="Put off, add: in how many days it is to be done."
    )
    owner: str = Field(
        default="", max_length=80, description="Assign, add: who is to do it; a person or a role."
    )
    title: str = Field(
        default="", max_length=200, description="Add: what is to be done, in one line."
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> FollowUpDeed:
        if self.deed == "add":
            if not self.title:
                raise ValueError("a new follow-up needs a title")
        elif not self.follow_up:
            raise ValueError(f"{self.deed}: which follow-up?")
        if self.deed == "assign" and not self.owner:
            raise ValueError("assign: to whom?")
        if self.deed == "note" and not self.note:
            raise ValueError("note: what is to be noted?")
        return self


class Review(_OfPlatform):
    """Sign off a test or review of the plan: what was looked at, found and decided."""

    kind: ReviewKind = Field(title="Which", description="The test or review that was held.")
    by: str = Field(
        min_length=2, max_length=80, title="Who signs off", description="As it goes on record."
    )
    decision: Decision = Field(
        description="passed: all is as it should be. passed with findings: good enough until the "
        "next one, and each finding becomes a follow-up. failed: it stays an alarm until it is "
        "held again."
    )
    findings: list[Annotated[str, Field(min_length=3, max_length=500)]] = Field(
        default=[],
        max_length=20,
        description="What was found that is to be changed, one each; a follow-up is opened for "
        "each.",
    )
    dry_run: bool = Field(
        default=False,
        title="Only show",
        description="Show what the machine knows about it; sign nothing, end as DryRun.",
    )

    @model_validator(mode="after")
    def _fits_its_findings(self) -> Review:
        if self.decision == "passed" and self.findings:
            raise ValueError("with findings the decision is `passed with findings` or `failed`")
        if self.decision != "passed" and not self.findings:
            raise ValueError(f"{self.decision}: what was found?")
        return self
