"""What Prefect's server says of runs that are due on this host: nobody need ask all the time.

A worker that asks for runs twice a second is quick, and fifty of them are all that one server can
bear. The server tells of each run at once, over one connection that stays open.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventResourceFilter

log = logging.getLogger("lifeboat")

# A run that is due by its schedule was made long ago, and is not announced again. It has to be
# found within the 10 s that a worker looks ahead, or it would begin late; whoever asks regularly
# does so up to 3 s after that is due.
ASK_ANYWAY_SECONDS = 6.0
_AGAIN_SECONDS = 5.0
# The server tells before it commits: who asks at once may find nothing.
_COMMITTED_SECONDS = 0.3


class Announcements:
    """Asks for runs by `ask` whenever one comes to be due in the queue of the pool; one at a time.

    While the server can't be heard, it is always time to ask: who polls then does so as if there
    were none of this. A run is never lost by it, but may begin some seconds late where the server
    is heard and tells nothing.
    """

    def __init__(self, pool: str, queue: str, ask: Callable[[], Awaitable[list[Any]]]) -> None:
        self._pool = pool
        self._ask = ask
        self._one_at_a_time = asyncio.Lock()
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
        """Whether somebody who asks regularly should do so now."""
        return not self._heard or time.monotonic() - self._asked_at >= ASK_ANYWAY_SECONDS

    async def ask(self) -> list[Any]:
        """Ask, and give what was found; never while somebody else does: an answer that is old by
        the time that it comes could start a run once more that has ended since.
        """
        async with self._one_at_a_time:
            found = await self._ask()
            self._asked_at = time.monotonic()
            return found

    async def listen(self) -> None:
        """Listen until cancelled; connect again whenever the connection is lost."""
        while True:
            try:
                async with get_events_subscriber(
                    filter=self._of_interest, reconnection_attempts=0
                ) as told:
                    self._heard = True
                    await self.ask()  # what came before anybody listened
                    async for event in told:
                        if self._is_of_our_pool(event) and not await self.ask():
                            await asyncio.sleep(_COMMITTED_SECONDS)
                            await self.ask()
            except Exception as error:
                # Of whatever kind: a server that is away, an older one, a proxy that lets no
                # websocket through. Asking goes on as without this.
                log.debug("Listening for runs: %r", error)
            finally:
                self._heard = False
            await asyncio.sleep(_AGAIN_SECONDS)

    def _is_of_our_pool(self, event: Event) -> bool:
        # Each pool has a queue of this name.
        return any(r.role == "work-pool" and r.name == self._pool for r in event.related)
