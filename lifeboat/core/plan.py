"""What a destructive run is about to do, said before it does it (DESIGN, section 5)."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lifeboat.core.forecast import Forecast
from lifeboat.core.points import RecoveryPoint


class RecoveryPlan(BaseModel):
    """Read by the person who approves: what comes back, what is lost, what is touched."""

    model_config = ConfigDict(frozen=True)

    procedure: str
    platform: str
    symptoms: str
    seen_beside: str = ""  # otherwise a minute later, so no part of what is agreed to
    points: tuple[RecoveryPoint, ...]
    passed_over: tuple[RecoveryPoint, ...] = ()  # suspicious ones that are newer
    target: str  # "newest" or a point in time
    expected_loss: str
    touches: tuple[str, ...]
    steps: tuple[str, ...]
    made_at: datetime
    forecast: Forecast | None = None
    objective_rto_seconds: float | None = None
    because: str = ""  # why somebody, or the health watch, started it

    def in_words(self) -> str:
        """Plain text for a terminal, a log or an artifact."""
        lines = [
            f"{self.procedure} on {self.platform}",
            *([f"  Why:             {self.because}"] if self.because else []),
            f"  What was found:  {self._found()}",
            f"  Bring back to:   {self.target}",
        ]
        for point in self.points:
            age = age_in_words(self.made_at - point.taken_at)
            where = ", ".join(point.tiers)
            verified = self._verified(point)
            lines.append(f"  Recovery point:  {point.id}, {age} old, in {where}, {verified}")
            if point.suspicion:  # it was named
                lines.append(f"                   SUSPICIOUS: {point.suspicion}.")
        for asset in dict.fromkeys(point.asset for point in self.passed_over):
            newest, *others = (point for point in self.passed_over if point.asset is asset)
            more = f" (and {len(others)} before it)" if others else ""
            age = age_in_words(self.made_at - newest.taken_at)
            lines.append(f"  Passed over:     {newest.id}, {age} old{more}: {newest.suspicion}.")
            lines.append(f"                   If it is right: {self._trusting(newest.id)}")
        lines.append(f"  What is lost:    {self.expected_loss}")
        lines += [f"  How long:        {told}" for told in self._duration()[:1]]
        lines += [f"                   {told}" for told in self._duration()[1:]]
        lines += [f"  Touches:         {place}" for place in self.touches]
        lines += [f"  Step {number}: {step}" for number, step in enumerate(self.steps, start=1)]
        return "\n".join(lines)

    def in_markdown(self) -> str:
        """The same for the UI, where it is read before it is approved."""
        points = [
            f"| `{point.id}` | {age_in_words(self.made_at - point.taken_at)} | "
            f"{', '.join(point.tiers)} | {self._verified(point)} |"
            for point in self.points
        ]
        over = [f"- SUSPICIOUS: `{p.id}`, {p.suspicion}" for p in self.points if p.suspicion]
        over += [
            f"- Passed over: `{point.id}`, {point.suspicion}. If it is right: "
            f"`{self._trusting(point.id)}`"
            for point in self.passed_over
        ]
        return "\n".join(
            [
                f"# {self.procedure} on {self.platform}",
                *(("", f"**Why:** {self.because}") if self.because else ()),
                *("", f"**What was found:** {self._found()}", ""),
                *(f"**Bring back to:** {self.target}", ""),
                *(f"**What is lost:** {self.expected_loss}", ""),
                *("| recovery point | age | in | verified |", "|---|---|---|---|", *points, ""),
                *over,
                *("## How long", "", *(f"- {told}" for told in self._duration()), ""),
                *("## What it touches", "", *(f"- {place}" for place in self.touches), ""),
                *("## Steps", "", *(f"{n}. {step}" for n, step in enumerate(self.steps, start=1))),
            ]
        )

    def _found(self) -> str:
        return self.symptoms + (f" ({self.seen_beside})" if self.seen_beside else "")

    def _verified(self, point: RecoveryPoint) -> str:
        if point.verified_at is None:
            return "never verified by a restore"
        where = " from this host's copy only" if point.verified_here_only else ""
        return f"verified {age_in_words(self.made_at - point.verified_at)} ago{where}"

    def _duration(self) -> list[str]:
        """How long it should take, and on what that is based; empty: it was not asked."""
        if self.forecast is None:
            return []
        about = age_in_words(timedelta(seconds=self.forecast.seconds))
        known = f"about {about}" if self.forecast.seconds else "not known"
        more = ", and more that was never measured" if self.forecast.unmeasured else ""
        more = more if self.forecast.seconds else ": not all of it was ever measured"
        rto = self.objective_rto_seconds
        limit = f" (RTO {age_in_words(timedelta(seconds=rto))})" if rto else ""
        return [
            f"{known}{more}{limit}",
            *self.forecast.basis,
            *(f"not measured: {told}" for told in self.forecast.unmeasured),
        ]

    def _trusting(self, point: str) -> str:
        # A machine that is new has no settings with which to accept anything.
        if self.procedure == "recover-server":
            return f"recover with --trust {point}"
        return f"lifeboat accept {point} --why ..."


def age_in_words(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    if seconds < 172800:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} days"


def size_in_words(size_bytes: int) -> str:
    """Give e.g. `1.2 GB`, as disks are sold."""
    size, units = float(size_bytes), ("bytes", "kB", "MB", "GB", "TB")
    for unit in units:
        if size < 1000 or unit == units[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
