"""The section `health`: when bad looks at the platform become the proposal of a recovery."""

from __future__ import annotations

from pydantic import Field

from lifeboat.settings.base import Section


class HealthWatch(Section):
    """What the health watch does, which looks each minute where there is a Prefect server."""

    failures: int = Field(
        default=3, ge=2, le=60, description="So many bad looks in a row before people are asked."
    )
    propose: bool = Field(
        default=True,
        description="Start the recovery that fits, which waits for approval; else only tell.",
    )
    approval_seconds: int = Field(
        default=14400, ge=60, le=86400, description="So long a proposal waits for a person."
    )
