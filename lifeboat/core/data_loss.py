"""How much data a recovery lost at most, as time: until when it brought each asset back.

A recovery can't see what it has lost; it knows until when its sources held everything. A drill
counts the loss from outside, and must never find more than is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from lifeboat.core.points import Asset

NOTHING = "nothing is lost"
_UNTIL, _BECAUSE, _CHOSEN = "_until", "_until_because", "_until_chosen"


class Until(BaseModel):
    """Until when an asset was brought back; `moment` None: nothing of it is lost."""

    model_config = ConfigDict(frozen=True)

    asset: Asset
    moment: datetime | None
    because: str
    chosen: bool = False  # somebody asked for that moment

    def as_facts(self) -> dict[str, str | bool]:
        """The same as facts of a run."""
        told = self.moment.isoformat() if self.moment else NOTHING
        facts: dict[str, str | bool] = {
            f"{self.asset}{_UNTIL}": told,
            f"{self.asset}{_BECAUSE}": self.because,
        }
        return facts | ({f"{self.asset}{_CHOSEN}": True} if self.chosen else {})


def of_facts(facts: Mapping[str, Any]) -> tuple[Until, ...]:
    """What the facts of a run say of it, by asset."""
    return tuple(
        Until(
            asset=asset,
            moment=None if told == NOTHING else datetime.fromisoformat(str(told)),
            because=str(facts.get(f"{asset}{_BECAUSE}", "")),
            chosen=bool(facts.get(f"{asset}{_CHOSEN}", False)),
        )
        for asset in Asset
        if (told := facts.get(f"{asset}{_UNTIL}"))
    )


def figures(facts: Mapping[str, Any], *, began_at: datetime) -> dict[str, Any]:
    """What an incident keeps of it: seconds between what came back and the trouble, at most.

    Empty where the recovery restored nothing and said nothing. Files that came back from nowhere
    are counted beside it, for no time says how much was lost with them.
    """
    known = of_facts(facts)
    gone = {"files_gone": facts["files_lost"]} if facts.get("files_lost") else {}
    if not known:
        return gone

    def seconds(one: Until) -> float:
        return max(0.0, (began_at - one.moment).total_seconds()) if one.moment else 0.0

    return {
        "lost_at_most_seconds": max(map(seconds, known)),
        "lost_because": "; ".join(f"{one.asset}: {one.because}" for one in known),
        "lost_as_asked": any(one.chosen for one in known),
        **gone,
    }
