"""What all forms have in common: the order of their fields, the platform, plan and approval."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TIME_PATTERN = r"^(|\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)$"
DATE_PATTERN = r"^(|\d{4}-\d{2}-\d{2})$"
INCIDENT_PATTERN = r"^(|[A-Za-z0-9][A-Za-z0-9._-]{0,63})$"
POINT_PATTERN = r"^(|[a-z]+-\d{8}T\d{6}Z[a-z0-9-]*)$"

Approval = Literal["ask", "preapproved"]

# What is the same each time comes last.
_LAST = ("because", "dry_run", "approval", "approval_seconds", "config")


def moment(text: str) -> datetime:
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


class OfPlatform(Form):
    config: str = Field(
        default="",
        title="lifeboat.yaml",
        description="Path of lifeboat.yaml; empty means the one that the host uses.",
    )


class Deed(Form):
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
