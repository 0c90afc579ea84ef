"""What an operator chooses from: kinds of assets, tiers, rungs and reviews.

They stand apart from the models that use them because every command names some of them: building
those models takes longer than all else that `lifeboat --help` does.
"""

from __future__ import annotations

from enum import StrEnum


class Asset(StrEnum):
    DATABASE = "database"
    FILES = "files"
    MODELS = "models"
    CONFIG = "config"


class Tier(StrEnum):
    """Where a copy lies, cheapest to restore from first."""

    HOT = "hot"  # a plain copy of the database, ready to be renamed into place
    LOCAL = "local"  # the restic repository on this host
    S3 = "s3"  # the restic repository in the bucket


class Rung(StrEnum):
    """A cure for a lost database."""

    RESTART = "restart"
    HOT = "hot"
    LOCAL = "local"
    S3 = "s3"

    @property
    def tier(self) -> Tier | None:
        return None if self is Rung.RESTART else Tier(self.value)


class ReviewKind(StrEnum):
    """The plan's monthly tests, quarterly reviews and annual activities."""

    RESTORE_TEST = "restore-test"
    FAILOVER_TEST = "failover-test"
    COMMUNICATION_TEST = "communication-test"
    CONTACTS = "contacts"
    PROCEDURES = "procedures"
    SCENARIOS = "scenarios"
    OBJECTIVES = "objectives"
    FULL_DRILL = "full-drill"
    PLAN = "plan"
    TRAINING = "training"
    VENDORS = "vendors"
