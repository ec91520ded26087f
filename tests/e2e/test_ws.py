"""Events and output over a WebSocket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.e2e.api_world import Api, open_api

SOON = 100.0


@asynccontextmanager
async def talk(api: Api) -> AsyncIterator[WebSocketConnection]:
    async with trio.open_nursery() as nursery:
        stream = await trio.open_unix_socket(str(api.socket))
        connection = await wrap_client_stream(nursery, stream, "kasmos", "/v1/ws")
        yield connection
        with trio.move_on_after(SOON, shield=True):
            await connection.aclose()
            await stream.aclose()


async def say(connection: WebSocketConnection, **message: Any) -> None:
    await connection.send_message(json.dumps(message))


async def hear(connection: WebSocketConnection) -> dict[str, Any]:
    with trio.fail_after(SOON):
        return dict(json.loads(await connection.get_message()))


async def test_events_from_any_point(root: Path) -> None:
    """Events come from the number that is asked for on, history first, and no more once that is unsaid."""
    async with open_api(root) as api:
        api.orchestrator.start_run()
        async with talk(api) as connection:
            await say(connection, subscribe="events", after=1)
            assert await hear(connection) == {"type": "subscribed", "name": "events"}
            assert (await hear(connection))["type"] == "wave_started"
            api.orchestrator.start_session("r1", "1")
            assert [(await hear(connection))["seq"] for _ in range(2)] == [3, 4]
            await say(connection, subscribe="events")
            assert (await hear(connection))["code"] == "conflict"
            await say(connection, unsubscribe="events")
            assert (await hear(connection))["type"] == "unsubscribed"
            api.orchestrator.start_run("r2")
            await say(connection, subscribe="nothing")
            assert (await hear(connection))["code"] == "invalid_message"


async def test_output_of_a_session(root: Path) -> None:
    """Output of a named session comes as it is written, with its place, until it has ended."""
    async with open_api(root) as api:
        api.orchestrator.start_run()
        session = api.orchestrator.start_session("r1", "1")
        session.write("grü".encode()[:-1])
        async with talk(api) as connection:
            await say(connection, subscribe="output", session="1")
            assert (await hear(connection))["name"] == "output s-r1-1-1"
            first = await hear(connection)
            session.write("grü".encode()[-1:])
            second = await hear(connection)
            assert first["text"] + second["text"] == "grü"
            assert (second["offset"], second["next_offset"]) == (first["next_offset"], 4)
            api.orchestrator.end_task("r1", "1")
            while not (await hear(connection))["ended"]:
                pass
            await say(connection, subscribe="output", session="nobody")
            assert (await hear(connection))["code"] == "unknown_session"
            await connection.send_message("no JSON")
            assert (await hear(connection))["code"] == "invalid_json"


async def test_a_supervisor_that_leaves_says_so(root: Path) -> None:
    """When the supervisor leaves, the connection is closed with 1001."""
    async with open_api(root) as api, talk(api) as connection:
        await say(connection, subscribe="events")
        await hear(connection)
        api.shutdown.set()
        with trio.fail_after(SOON), pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert caught.value.reason.code == 1001
