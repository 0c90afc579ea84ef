"""A worker hears of its runs; while it can't, it asks as often as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from websockets.asyncio.server import ServerConnection, serve

from tasks.prefect_server import announcements
from tasks.prefect_server.announcements import Announcements

EVENT = {
    "occurred": "2026-11-27T12:00:00Z",
    "event": "prefect.flow-run.Scheduled",
    "resource": {"prefect.resource.id": "prefect.flow-run.1"},
}


def told_of(pool: str) -> str:
    """As the server tells of a run of a pool."""
    of_pool = {
        "prefect.resource.id": f"prefect.work-pool.{pool}",
        "prefect.resource.name": pool,
        "prefect.resource.role": "work-pool",
    }
    event = {**EVENT, "id": str(uuid4()), "related": [of_pool]}
    return json.dumps({"type": "event", "event": event})


class EventServer:
    """As much of Prefect's event stream as a listener meets."""

    def __init__(self) -> None:
        self.wanted: list[dict] = []
        self.connections: list[ServerConnection] = []

    async def answer(self, connection: ServerConnection) -> None:
        assert json.loads(await connection.recv())["token"] == "lifeboat:secret"
        await connection.send(json.dumps({"type": "auth_success"}))
        self.wanted.append(json.loads(await connection.recv())["filter"])
        self.connections.append(connection)
        await connection.wait_closed()

    async def tell(self, pool: str) -> None:
        await self.connections[-1].send(told_of(pool))


@asynccontextmanager
async def listening(port: int, asked: list[str]) -> AsyncIterator[Announcements]:
    async def ask() -> list[str]:
        asked.append("asked")
        return ["a run"] if len(asked) != 2 else []

    told = {
        PREFECT_API_URL: f"http://127.0.0.1:{port}/api",
        PREFECT_API_AUTH_STRING: "lifeboat:secret",
    }
    with temporary_settings(told):
        heard = Announcements("backups", "cad-ai", ask)
        task = asyncio.create_task(heard.listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(true_of: object) -> None:
    async with asyncio.timeout(30):
        while not true_of():
            await asyncio.sleep(0.01)


def test_it_asks_when_it_is_told_and_otherwise_seldom(monkeypatch) -> None:
    monkeypatch.setattr(announcements, "_AGAIN_SECONDS", 0.1)

    async def check() -> None:
        events, asked = EventServer(), []
        async with serve(events.answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with listening(port, asked) as heard:
                # The server may hear last what is wanted. Asked for is what was due before.
                await until(lambda: asked and events.connections)
                await until(lambda: not heard.is_time_to_ask)  # within seconds: it would be told
                await events.tell("recoveries")
                await events.tell("backups")
                # The second question finds nothing, as before the server has committed.
                await until(lambda: len(asked) == 3)
                # The connection is lost: it asks as it is told to, and connects again.
                await events.connections[-1].close()
                await until(lambda: heard.is_time_to_ask)
                await until(lambda: len(events.connections) == 2 and len(asked) == 4)
                await until(lambda: not heard.is_time_to_ask)
        [wanted, _] = events.wanted
        assert wanted["any_resource"]["labels"]["prefect.resource.name"] == ["cad-ai"]

    asyncio.run(check())


def test_without_a_server_it_asks_each_time() -> None:
    async def check() -> None:
        asked: list[str] = []
        async with listening(9, asked) as heard:
            for _ in range(5):
                assert heard.is_time_to_ask
                await asyncio.sleep(0.05)
        assert not asked

    asyncio.run(check())
