"""What agents say, over the API: pages, streams, the WebSocket and the clients, from any place on."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

import kasmos
from kasmos.client.aio import Client
from kasmos.client.results import AgentEnded, AgentSaid
from kasmos.exceptions import RequestError
from kasmos.model.agent_event import Result, ToolCall
from kasmos.model.event import Record, SessionStarted
from tests.e2e.supervisor_world import LIMIT, Live, Site, make_site

DATA = Path(__file__).parents[1]
RECORDED = DATA / "data" / "transcripts" / "claude" / "task.out"
CONFIG = f"""
[orchestration]
default_agent = "shell"

[agents.coder]
program = "{DATA / "programs" / "replay"}"
harness = "claude"
exit_grace = "10m"
[agents.coder.env]
REPLAY = "{RECORDED}"

[agents.waits]
program = "{DATA / "programs" / "replay"}"
harness = "claude"
[agents.waits.env]
REPLAY = "{RECORDED}"
REPLAY_GATE = "gate"
"""


@pytest.fixture
def site(root: Path) -> Site:
    return make_site(root, CONFIG)


async def page(here: Live, path: str, **query: Any) -> Any:
    response = await here.http.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def all_pages(here: Live, path: str, limit: int) -> list[Any]:
    found: list[Any] = []
    cursor = ""
    while True:
        told = await page(here, path, limit=limit, wait=30, **({"cursor": cursor} if cursor else {}))
        assert len(told["events"]) <= limit
        found += told["events"]
        cursor = told["cursor"]
        if told["ended"]:
            return found


async def lines_of(here: Live, path: str, kind: str = "application/x-ndjson") -> AsyncGenerator[str, None]:
    async with here.http.stream("GET", path, headers={"Accept": kind}) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == kind
        async for line in response.aiter_lines():
            yield line


async def test_pages_of_an_ended_session(site: Site) -> None:
    """Pages of any size have the same events in the same order, and the last one what they came to."""
    async with site.supervisor() as here:
        task = await here.submit("Do it.", agent="coder")
        await here.ended(task)
        whole = await page(here, f"/v1/tasks/{task}/agent-events", limit=1000)
        kinds = [one["event"]["type"] for one in whole["events"]]
        assert {"message", "tool_call", "tool_result", "result"} <= set(kinds)
        assert (whole["ended"], whole["lost"]) == (True, 0)
        assert whole["conclusion"]["outcome"] == "succeeded"
        for limit in (1, 2, 7):
            assert await all_pages(here, f"/v1/tasks/{task}/agent-events", limit) == whole["events"]
        session = whole["session_id"]
        for one in whole["events"]:
            told = await page(here, f"/v1/sessions/{session}/agent-events", cursor=one["cursor"], limit=1000)
            assert told["events"] == whole["events"][whole["events"].index(one) + 1 :]
        # The offset is that of the line in the output.
        data = RECORDED.read_bytes()
        for one in whole["events"]:
            assert data[one["offset"] : one["offset"] + 1] == b"{"


async def test_a_stream_while_the_agent_works(site: Site) -> None:
    """A stream has what was said before and what is said from then on, and ends with the session."""
    async with site.supervisor() as here:
        task = await here.submit("Do it.", agent="waits")
        seen: list[Any] = []
        with trio.fail_after(LIMIT):
            async for line in lines_of(here, await session_path(here, task)):
                seen.append(json.loads(line))
                if seen[-1].get("event", {}).get("type") == "tool_call":
                    (site.project / "gate").touch()
        assert seen[-1]["type"] == "agent_events_ended"
        assert seen[-1]["conclusion"]["outcome"] == "succeeded"
        ended = await page(here, f"/v1/tasks/{task}/agent-events", limit=1000)
        assert [one for one in seen if one["type"] == "agent_event"] == ended["events"]


async def session_path(here: Live, task: str) -> str:
    """Where the events of a task's first session are, once there is one."""
    async with aclosing(lines_of(here, f"/v1/tasks/{task}/events")) as lines:
        async for line in lines:
            told = json.loads(line)
            if told["type"] == "session_started":
                return f"/v1/sessions/{told['session_id']}/agent-events"
    raise AssertionError("it has had no session")


async def test_server_sent_events_resume(site: Site) -> None:
    """A browser that comes back with the last id it saw goes on just behind that event."""
    async with site.supervisor() as here:
        task = await here.submit("Do it.", agent="coder")
        await here.ended(task)
        path = f"/v1/tasks/{task}/agent-events"
        ids, data = [], []
        async for line in lines_of(here, path, "text/event-stream"):
            if line.startswith("id: "):
                ids.append(line[4:])
            if line.startswith("data: "):
                data.append(line[6:])
        assert len(ids) == len(data)
        headers = {"Accept": "text/event-stream", "Last-Event-ID": ids[2]}
        again = await here.http.get(path, headers=headers)
        assert [line[6:] for line in again.text.splitlines() if line.startswith("data: ")] == data[3:]


async def test_over_two_supervisors(site: Site) -> None:
    """A cursor that one supervisor gave holds with the next one."""
    async with site.supervisor() as here:
        task = await here.submit("Do it.", agent="coder")
        await here.ended(task)
        path = f"/v1/tasks/{task}/agent-events"
        first = await page(here, path, limit=3)
    async with site.supervisor() as here:
        rest = await page(here, path, cursor=first["cursor"], limit=1000)
        whole = await page(here, path, limit=1000)
    assert first["events"] + rest["events"] == whole["events"]


async def test_who_says_nothing_that_is_known(site: Site) -> None:
    """A program whose stream is not known has no events, and is told so; a place that is none is a mistake."""
    async with site.supervisor() as here:
        task = await here.submit("echo hello")
        await here.ended(task)
        refused = await here.http.get(f"/v1/tasks/{task}/agent-events")
        assert (refused.status_code, refused.json()["code"]) == (409, "no_agent_events")
        wrong = await here.http.get(f"/v1/tasks/{task}/agent-events?cursor=here&limit=0")
        assert wrong.status_code == 400
        assert [one["place"] for one in wrong.json()["mistakes"]] == ["query.cursor", "query.limit"]


async def test_output_that_is_gone(site: Site) -> None:
    """Events of an agent whose output was removed are gone, as its output is."""
    async with site.supervisor() as here:
        task = await here.submit("Do it.", agent="coder")
        session = (await here.ended(task))["session_id"]
        (site.root.session_dir(session) / "output.log").unlink()
        for kind in ("application/json", "application/x-ndjson"):
            gone = await here.http.get(f"/v1/tasks/{task}/agent-events", headers={"Accept": kind})
            assert (gone.status_code, gone.json()["code"]) == (410, "output_gone")


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", "text/event-stream"])
async def test_a_place_that_was_never_reached(site: Site, kind: str) -> None:
    """A place ahead of all that an ended session has said or written is refused, as one ahead of the journal is."""
    async with site.supervisor() as here:
        task = await here.submit("Do it.", agent="coder")
        await here.ended(task)
        end = (await page(here, f"/v1/tasks/{task}/agent-events", limit=1000))["cursor"]
        offset, _, seen = end.partition(".")
        for place in (f"{offset}.{int(seen or 0) + 1}", f"{int(offset) + 1}"):
            path = f"/v1/tasks/{task}/agent-events?cursor={place}"
            ahead = await here.http.get(path, headers={"Accept": kind})
            assert (ahead.status_code, ahead.json()["code"]) == (400, "cursor_ahead")
        last = await here.http.get(f"/v1/tasks/{task}/agent-events?cursor={end}", headers={"Accept": kind})
        assert last.status_code == 200


async def test_from_another_program(site: Site) -> None:
    """A program has what an agent says as values, while it says it, from any place on, and what it came to."""
    async with site.supervisor() as here, kasmos.connect(socket=site.root.socket) as kas:
        task = await kas.submit("Do it.", agent="waits", name="worker")
        await session_path(here, task.id)
        stream, said = kas.agent_events("worker"), []
        with trio.fail_after(LIMIT):
            async for one in stream:
                said.append(one)
                if isinstance(one.event, ToolCall):
                    (site.project / "gate").touch()
        assert isinstance(said[-1].event, Result)
        assert stream.conclusion is not None
        assert stream.conclusion.outcome == "succeeded"
        assert [one async for one in kas.agent_events("worker", cursor=said[3].cursor)] == said[4:]
        shell = await kas.submit("true", agent="shell")
        await kas.wait(shell.id)
        with pytest.raises(RequestError, match="no events of an agent"):
            await anext(kas.agent_events(shell.id))


async def test_a_stream_goes_on_with_the_next_supervisor(site: Site) -> None:
    """A stream and a feed come back by themselves when another supervisor takes over: every event once."""
    seen: list[AgentSaid] = []
    fed: list[AgentSaid] = []
    begun, followed, over = trio.Event(), trio.Event(), trio.Event()

    async def follow(kas: Client, task: str) -> None:
        async for one in kas.agent_events(task):
            seen.append(one)
            begun.set()

    async def feed(kas: Client, task: str) -> None:
        async with kas.open_feed(after=None) as items:
            await items.follow_agent_events(task)
            followed.set()
            async for item in items:
                match item:
                    case AgentSaid():
                        fed.append(item)
                    case AgentEnded(conclusion=conclusion):
                        assert conclusion is not None
                        assert conclusion.outcome == "succeeded"
                        return

    async def both() -> None:
        async with kasmos.connect(socket=site.root.socket) as kas, trio.open_nursery() as nursery:
            task = await kas.submit("Do it.", agent="waits")
            await find_session(kas, task.id)
            nursery.start_soon(follow, kas, task.id)
            nursery.start_soon(feed, kas, task.id)
        over.set()

    async with trio.open_nursery() as nursery:
        async with site.supervisor() as here:
            nursery.start_soon(both)
            with trio.fail_after(LIMIT):
                await begun.wait()
                await followed.wait()
            here.engine.abandon()
        (site.project / "gate").touch()
        async with site.supervisor() as here:
            with trio.fail_after(LIMIT):
                await over.wait()
            whole = await page(here, f"/v1/sessions/{seen[0].session_id}/agent-events", limit=1000)
    assert [one.cursor for one in seen] == [one["cursor"] for one in whole["events"]]
    assert fed == seen


async def find_session(kas: Client, task: str) -> None:
    """Wait until the task has a session."""
    async for item in kas.follow(task, output=False):
        if isinstance(item, Record) and isinstance(item.event, SessionStarted):
            return


async def test_over_a_websocket(site: Site) -> None:
    """A feed has what agents say of the sessions that are followed, until they are left; refusals are errors."""
    async with site.supervisor() as here, kasmos.connect(socket=site.root.socket) as kas:
        task = await here.submit("Do it.", agent="coder")
        shell = await here.submit("true")
        await here.ended(task)
        await here.ended(shell)
        whole = await page(here, f"/v1/tasks/{task}/agent-events", limit=1000)
        async with kas.open_feed(after=None) as feed:
            session = await feed.follow_agent_events(task, whole["events"][1]["cursor"])
            said = []
            with trio.fail_after(LIMIT):
                while isinstance(item := await anext(feed), AgentSaid):
                    said.append(item)
            assert isinstance(item, AgentEnded)
            assert [one.cursor for one in said] == [one["cursor"] for one in whole["events"][2:]]
            assert {one.session_id for one in said} == {session}
            for bad in ((shell, ""), (task, "nowhere")):
                await feed.follow_agent_events(*bad)
                with pytest.raises(RequestError), trio.fail_after(LIMIT):
                    await anext(feed)
            await feed.leave_agent_events(session)
