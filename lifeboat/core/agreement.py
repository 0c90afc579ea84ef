"""Whether what a person agreed to is still what would be done; the world goes on as they read."""

from __future__ import annotations

from lifeboat.core.plan import RecoveryPlan

STILL_TRUE_SECONDS = 60.0
"""So long a plan is taken to be true without another look, if no recovery ended meanwhile."""


def differences(agreed: RecoveryPlan, now: RecoveryPlan) -> tuple[str, ...]:
    """Say what of a plan has changed that somebody who agreed to it would want to know.

    Newer recovery points in place of older ones are no change: less is lost with them.
    """
    told = []
    for name, before, after in (
        ("what was found", agreed.symptoms, now.symptoms),
        ("what it brings back to", agreed.target, now.target),
        ("what is lost", agreed.expected_loss, now.expected_loss),
        ("what it touches", ", ".join(agreed.touches), ", ".join(now.touches)),
        ("the steps", "; ".join(agreed.steps), "; ".join(now.steps)),
    ):
        if before != after:
            told.append(f"{name} was: {before}; now: {after}")
    for asset in dict.fromkeys(point.asset for point in agreed.points):
        newest = max(p.taken_at for p in agreed.points if p.asset is asset)
        left = [p for p in now.points if p.asset is asset]
        if not left:
            told.append(f"there is no recovery point of the {asset} any more")
        elif max(p.taken_at for p in left) < newest:
            told.append(f"the newest recovery point of the {asset} is an older one now")
    suspicious = {p.id for p in now.passed_over} - {p.id for p in agreed.passed_over}
    if suspicious:
        told.append(f"passed over as suspicious besides: {', '.join(sorted(suspicious))}")
    return tuple(told)
