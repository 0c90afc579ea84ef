"""What may be asked of the flows that run by themselves; those of operators are in `forms`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lifeboat.core.points import Asset


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    config: str = Field(
        default="", description="Path of lifeboat.yaml; empty means the one that the host uses."
    )


class Enrol(Request):
    """Let Lifeboat into the platform's running database."""

    superuser: str = Field(
        default="postgres", min_length=1, description="The database's superuser."
    )
    dry_run: bool = Field(default=False, description="Say what would be changed; change nothing.")


class Backup(Request):
    """A backup of one asset into both tiers."""

    only_if_changed: bool = Field(
        default=True,
        description="Configuration and models: make no new point while the newest one, in both "
        "tiers, holds what is there. Files and database are always backed up.",
    )


class Prune(Request):
    """Remove the recovery points that the policy lets go, and the WAL that no base needs."""

    dry_run: bool = Field(
        default=False, description="Say what would go and why; remove nothing, end as DryRun."
    )


class RestoreTest(Request):
    """Prove recovery points by restoring them from S3 into a scratch place."""

    assets: list[Asset] = Field(
        default=list(Asset), min_length=1, description="The newest point of which assets."
    )
    point: str = Field(
        default="",
        description="Name of the one point, or of the set, to test; empty: the newest of each "
        "asset, of a set that is not verified yet its member.",
    )
    sample_percent: float = Field(
        default=100,
        gt=0,
        le=100,
        description="For stores too large to restore each time: of files and models only so much "
        "of the repository is read, at random. Less than 100 proves the store and no point, so "
        "it marks none verified.",
    )


class WatchObjectives(Request):
    """Judge from the stores whether the plan's promises hold now."""

    source: Literal["host", "s3"] = Field(
        default="host",
        description="On the platform's host, both tiers; or from any machine, the bucket alone.",
    )
    bucket: str = Field(default="", description="For s3: name of the bucket that holds the vault.")
    endpoint: str = Field(
        default="", description="For s3: URL of the service; empty means Amazon's own."
    )
    region: str = Field(default="us-east-1", description="For s3: the bucket's region.")
    prefix: str = Field(default="", description="For s3: the vault's place inside the bucket.")

    @model_validator(mode="after")
    def _names_a_bucket(self) -> WatchObjectives:
        if self.source == "s3" and not self.bucket:
            raise ValueError("from s3, the bucket has to be named")
        return self


class EscalateIncidents(Request):
    """Tell the next people of incidents that nobody has acknowledged in time."""
