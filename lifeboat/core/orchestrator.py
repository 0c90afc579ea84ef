"""Recovery points of Prefect's own database: which one to choose, and which to let go.

Its history is small and made anew by any server that starts on an empty database. So the danger is
not a lost copy but a copy of an emptied history that stands in for the whole one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lifeboat.core.errors import PreconditionError
from lifeboat.core.plan import age_in_words
from lifeboat.core.points import Tier

ASSET = "orchestrator"
DUMP_NAME = "prefect.dump"
HISTORY = "public.flow_run"
DEPLOYMENTS = "public.deployment"
TOLD = (
    HISTORY,
    DEPLOYMENTS,
    "public.automation",
    "public.block_document",
    "public.variable",
    "public.work_pool",
)
"""What a person misses when it is gone, by table."""

_EVERY_ONE_FOR = timedelta(days=2)
_SHRUNK = 0.5


class OrchestratorFacts(BaseModel):
    """`lifeboat.json` beside the dump: what it holds, counted in the same snapshot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = 1
    point: str
    asset: str = ASSET
    platform: str
    host: str
    taken_at: datetime
    database: str
    server_version: str
    rows: Mapping[str, int]

    def in_words(self) -> str:
        """What of a history a person knows by name."""
        return rows_in_words(self.rows)


class OrchestratorPoint(BaseModel):
    """One moment to which Prefect's database can be brought back."""

    model_config = ConfigDict(frozen=True)

    id: str
    taken_at: datetime
    copies: Mapping[Tier, str]  # restic snapshot by tier
    runs: int
    deployments: int
    verified_at: datetime | None = None


def rows_in_words(rows: Mapping[str, int]) -> str:
    """E.g. `120 flow runs, 18 deployments, ...`."""
    names = (table.partition(".")[2].replace("_", " ") for table in TOLD)
    told = (f"{rows.get(table, 0)} {name}s" for table, name in zip(TOLD, names, strict=True))
    return ", ".join(told)


def point_id(taken_at: datetime) -> str:
    """Name a point so that names sort by time."""
    return f"{ASSET}-{taken_at:%Y%m%dT%H%M%SZ}"


def merged(points: Iterable[OrchestratorPoint]) -> tuple[OrchestratorPoint, ...]:
    """Join what each tier knows of the same point; newest first."""
    found: dict[str, OrchestratorPoint] = {}
    for point in points:
        known = found.get(point.id)
        copies = {**known.copies, **point.copies} if known else point.copies
        found[point.id] = point.model_copy(update={"copies": copies})
    return tuple(sorted(found.values(), key=lambda point: point.taken_at, reverse=True))


def emptied(points: Collection[OrchestratorPoint]) -> dict[str, str]:
    """The points that hold much less than one before them, each with the reason.

    Prefect's own vacuum takes old runs a few at a time; half of them at once, or all deployments,
    is a server that began anew.
    """
    found = {}
    fullest = 0
    deployed = False
    for point in sorted(points, key=lambda point: point.taken_at):
        if point.runs < fullest * _SHRUNK:
            found[point.id] = f"{point.runs} flow runs, where one before it holds {fullest}"
        elif deployed and not point.deployments:
            found[point.id] = "no deployment, where one before it holds some"
        else:
            fullest = point.runs
            deployed = deployed or bool(point.deployments)
    return found


def choose(
    points: Collection[OrchestratorPoint], *, named: str = "", tiers: Collection[Tier] = tuple(Tier)
) -> OrchestratorPoint:
    """Give the point of that name, or the newest whole one with a copy in one of `tiers`.

    Raise PreconditionError if there is none.
    """
    here = [point for point in points if set(tiers) & set(point.copies)]
    if named:
        found = next((point for point in here if point.id == named), None)
        if found is None:
            raise PreconditionError(
                f"Choosing {named}: there is no such point of the orchestrator.",
                hint=f"There are {', '.join(p.id for p in here[:5]) or 'none'}.",
            )
        return found
    suspicious = emptied(points)
    chosen = next(
        (
            p
            for p in sorted(here, key=lambda point: point.taken_at, reverse=True)
            if p.id not in suspicious
        ),
        None,
    )
    if chosen is None:
        raise PreconditionError(
            f"Choosing a point of the orchestrator: there is none in {' or '.join(tiers)}.",
            hint="`lifeboat backup orchestrator` makes one.",
        )
    return chosen


def to_remove(
    points: Collection[OrchestratorPoint], *, days: float, minimum: int, now: datetime
) -> tuple[OrchestratorPoint, ...]:
    """Say which points of one tier go: those too old, and after two days all but one a day.

    Never the newest few, the newest verified one, nor the newest whole one.
    """
    newest_first = sorted(points, key=lambda point: point.taken_at, reverse=True)
    suspicious = emptied(points)
    kept = {point.id for point in newest_first[:minimum]}
    verified = (p for p in newest_first if p.verified_at)
    whole = (p for p in newest_first if p.id not in suspicious)
    kept |= {point.id for point in (next(verified, None), next(whole, None)) if point}
    of_day: dict[object, str] = {}
    for point in newest_first:
        age = now - point.taken_at
        if age <= _EVERY_ONE_FOR:
            kept.add(point.id)
        elif age <= timedelta(days=days) and point.id not in suspicious:
            of_day.setdefault(point.taken_at.date(), point.id)
    kept |= set(of_day.values())
    return tuple(point for point in newest_first if point.id not in kept)


def age_problem(
    points: Collection[OrchestratorPoint], *, late_seconds: float, now: datetime
) -> tuple[str, str]:
    """What is known of the newest whole point, and what is wrong with it (empty: nothing)."""
    suspicious = emptied(points)
    newest = max(
        (p for p in points if p.id not in suspicious), key=lambda p: p.taken_at, default=None
    )
    if newest is None:
        return "", "there is no backup of Prefect's database"
    age = now - newest.taken_at
    told = f"{newest.id}, {age_in_words(age)} old, {newest.runs} flow runs"
    if suspicious:
        last = max(suspicious)
        if last > newest.id:
            return told, f"{last} holds {suspicious[last]}"
    if age.total_seconds() > late_seconds:
        return told, f"the newest is {age_in_words(age)} old"
    return told, ""
