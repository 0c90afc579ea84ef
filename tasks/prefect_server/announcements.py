"""What Prefect's server says of runs that are due on this host: nobody need ask all the time.

A worker that asks for runs twice a second is quick, and fifty of them are all that one server can
bear. The server tells of each run at once, over one connection that stays open.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventResourceFilter

log = logging.getLogger("lifeboat")

# A run that is due by its schedule was made long ago, and is not announced again: it has to be
# found within the 10 s that a worker looks ahead, or it would begin late.
ASK_ANYWAY_SECONDS = 8.0
_AGAIN_SECONDS = 5.0


class Announcements:
    """Calls `ask` whenever a run of the queue comes to be due, and says when to ask without that.

    While the server can't be heard, `is_time_to_ask` is always true: who polls then does so as if
    there were none of this. A run is never lost by it, but may begin 8 s late where the server is
    heard and tells nothing.
    """

    def __init__(self, queue: str, ask: Callable[[], Awaitable[object]]) -> None:
        self._ask = ask
        self._heard = False
        self._asked_at = -ASK_ANYWAY_SECONDS
        # The state by its type: a run that is tried again is announced as AwaitingRetry.
        self._of_interest = EventFilter(
            resource=EventResourceFilter(labels={"prefect.state-type": ["SCHEDULED"]}),
            # Of any resource, although it is a related one: by those the server filters what it
            # has stored, and not what it tells.
            any_resource=EventAnyResourceFilter(
                labels={
                    "prefect.resource.role": ["work-queue"],
                    "prefect.resource.name": [queue],
                }
            ),
        )

    @property
    def is_time_to_ask(self) -> bool:
        """Whether somebody who asks regularly should do so now; if so, it counts as done."""
        now = time.monotonic()
        if self._heard and now - self._asked_at < ASK_ANYWAY_SECONDS:
            return False
        self._asked_at = now
        return True

    async def listen(self) -> None:
        """Listen until cancelled; connect again whenever the connection is lost."""
        while True:
            try:
                async with get_events_subscriber(
                    filter=self._of_interest, reconnection_attempts=0
                ) as told:
                    self._heard = True
                    await self._ask()  # what came before anybody listened
                    async for _ in told:
                        await self._ask()
            except Exception as error:
                # Of whatever kind: a server that is away, an older one, a proxy that lets no
                # websocket through. Asking goes on as without this.
                log.debug("Listening for runs: %r", error)
            finally:
                self._heard = False
            await asyncio.sleep(_AGAIN_SECONDS)
