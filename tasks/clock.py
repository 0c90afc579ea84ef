"""The moment by which decisions are made: the real one, or the one that a simulation sets.

Only what is decided or written down goes by it: how old a point is, what is due, when something was
seen. How long to wait and how long something took go by the monotonic clock.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

_set: contextvars.ContextVar[datetime | None] = contextvars.ContextVar("clock", default=None)


def now() -> datetime:
    """The moment, in UTC."""
    return _set.get() or datetime.now(timezone.utc)


@contextmanager
def set_to(moment: datetime) -> Iterator[None]:
    """Let it be `moment` within the block, also in what it does side by side."""
    token = _set.set(moment)
    try:
        yield
    finally:
        _set.reset(token)
