"""What a look at the vault, and at the host where there is one to look at, has found.

Findings of fact, without judgement: `core.objectives` judges. What could not be looked at is
`Unseen`, with the reason, and never looks like something good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from lifeboat.core.continuity import Continuity
from lifeboat.core.coverage import Place
from lifeboat.core.drill import DrillOnRecord
from lifeboat.core.forms import Scenario
from lifeboat.core.marks import Sighting, TestResult, Verified
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.protection import Finding as ProtectionFinding
from lifeboat.core.reviews import Shelf

SeenFrom = Literal["host", "s3"]


class Cause(StrEnum):
    """Why something could not be looked at."""

    PASSWORD = "password"  # it is there, and our secret does not open it
    MISSING = "missing"  # it is not there
    DAMAGED = "damaged"  # it is there and can't be read
    UNREACHABLE = "unreachable"  # nothing is known of it


@dataclass(frozen=True)
class Unseen:
    """Something that could not be looked at, and why."""

    why: str
    cause: Cause = Cause.UNREACHABLE


@dataclass(frozen=True)
class Parts:
    """What a restic repository consists of, counted by the names of its files."""

    config: bool
    keys: int
    indexes: int
    snapshots: int
    stunted: tuple[str, ...] = ()  # files that are too small to be what they are called


@dataclass(frozen=True)
class Store:
    """One asset's repository in one tier."""

    asset: Asset
    tier: Tier
    points: tuple[RecoveryPoint, ...] | Unseen  # newest first
    parts: Parts | Unseen


@dataclass(frozen=True)
class WalFile:
    """A file of the write-ahead log; its name without what says that it is sealed."""

    name: str
    bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class Log:
    """The write-ahead log of one tier."""

    continuity: Continuity | Unseen
    files: tuple[WalFile, ...] | Unseen
    sealed: bool  # whether the files are sealed objects, not plain segments
    key: bool | Unseen = True  # whether the key that opens sealed objects is in this tier's vault


@dataclass(frozen=True)
class Rehearsal:
    """A recovery that was carried out to its end: in earnest, or in a drill."""

    scenario: Scenario
    by: str  # id of its record
    ended_at: datetime
    start_seconds: float
    verify_seconds: float


@dataclass(frozen=True)
class HotCopy:
    """The plain copy that can be renamed into place. `problem`: what is wrong with it, if anything
    is.
    """

    point: str
    taken_at: datetime
    problem: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and what to do about it."""

    what: str
    advice: str


@dataclass(frozen=True)
class Receiver:
    """The WAL receiver as the server sees it. `kept_percent`: of what the slot may keep for it."""

    streaming: bool
    synchronous: bool = False
    lag_bytes: int = 0
    kept_percent: float = 0.0
    problems: tuple[Problem, ...] = ()  # the worst first


@dataclass(frozen=True)
class Listing:
    """Whether an object that was just written is in the bucket's listing, and back as written."""

    listed: bool
    same_content: bool
    seconds: float


@dataclass(frozen=True)
class Space:
    """The file system of the local vault."""

    free_bytes: int
    reserve_bytes: int = 0  # what a backup leaves free


@dataclass(frozen=True)
class Interrupted:
    """A run that began and neither ended nor lives."""

    id: str
    procedure: str
    began_at: datetime
    told: str  # what it did last


@dataclass(frozen=True)
class HostReport:
    """What the host's own look said last, as the bucket tells it."""

    at: datetime
    red: Mapping[str, str]  # evidence by name of the finding


@dataclass(frozen=True)
class Host:
    """What can be seen only on the platform's own host."""

    hot_copy: HotCopy | None | Unseen
    receiver: Receiver | Unseen
    listing: Listing | Unseen
    space: Space | Unseen
    places: tuple[Place, ...] | Unseen
    interrupted: tuple[Interrupted, ...] | Unseen
    protection: tuple[ProtectionFinding, ...] | Unseen = ()  # of the bucket
    unproven: str = ""  # the recovery whose verification has not passed; empty: there is none


@dataclass(frozen=True)
class Survey:
    """All that was seen in one look."""

    platform: str
    seen_from: SeenFrom
    stores: tuple[Store, ...]
    logs: Mapping[Tier, Log]
    measured: Mapping[Asset, Verified] | Unseen  # the newest restore whose time was taken
    tests: Mapping[Asset, TestResult] | Unseen
    sightings: Mapping[str, Sighting] | Unseen
    drills: tuple[DrillOnRecord, ...] | Unseen
    rehearsals: tuple[Rehearsal, ...] | Unseen
    certificates: Mapping[str, datetime] | Unseen
    emptied: tuple[str, ...] | Unseen  # configuration files without content that should have some
    certificates_elsewhere: tuple[str, ...] = ()  # of which only a link is in the configuration
    reviews: Shelf | Unseen = Shelf()
    host: Host | None = None  # None: seen from another machine
    host_report: HostReport | None | Unseen = None
    unreadable_settings: Mapping[str, str] = field(
        default_factory=dict  # points whose lifeboat.yaml can't be used, newer than the one used
    )

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers that were looked at."""
        return tuple(tier for tier in Tier if any(store.tier is tier for store in self.stores))

    def store(self, asset: Asset, tier: Tier) -> Store | None:
        return next((s for s in self.stores if (s.asset, s.tier) == (asset, tier)), None)
