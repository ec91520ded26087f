"""Both clients speak with a supervisor, and say clearly when there is none."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from kasmos import __version__
from kasmos.api import serve_api
from kasmos.client import streams
from kasmos.client.aio import connect
from kasmos.client.sync import Supervisor
from kasmos.exceptions import ClientError, RequestError
from kasmos.model import event as ev
from kasmos.model.task import Outcome
from tests.e2e.api_world import LIMIT, PLAN, Api, make_app, open_api

T = TypeVar("T")


@pytest.fixture
async def api(root: Path) -> AsyncIterator[Api]:
    """A served API with nothing in it."""
    async with open_api(root) as api:
        yield api


async def blocking(ask: Callable[[], T]) -> T:
    """Call the blocking client as a command does: not on the loop that serves it."""
    with trio.fail_after(LIMIT):
        return await trio.to_thread.run_sync(ask)


# --- the blocking client ------------------------------------------------------------


async def test_a_command_asks_and_commands(api: Api) -> None:
    """The blocking client submits a plan, looks at the run, and ends it."""
    supervisor = Supervisor(api.socket)
    assert await blocking(supervisor.alive)
    told = await blocking(partial(supervisor.submit_run, PLAN.encode(), "-", max_concurrent=3, agent=None))
    run = await blocking(partial(supervisor.get, f"/v1/runs/{told['run_id']}"))
    assert run["run"]["max_concurrent"] == 3
    ended = await blocking(partial(supervisor.post, f"/v1/runs/{told['run_id']}/cancel", {"reason": "r"}))
    assert ended["cancel_reason"] == "r"


async def test_who_is_not_well_answers_all_the_same(api: Api) -> None:
    """Commands reach a supervisor that says that it is not well, such as one whose disk is full."""
    api.orchestrator.writable = False
    supervisor = Supervisor(api.socket)
    assert await blocking(supervisor.alive)
    assert supervisor.version == __version__
    told = await blocking(partial(supervisor.get, "/v1/daemon"))
    assert told["problems"] == ["the journal cannot be written at present (is the disk full?)"]


async def test_a_refusal_is_an_error_with_its_mistakes(api: Api) -> None:
    """A refusal is a `RequestError` with the stable code and every mistake."""
    supervisor = Supervisor(api.socket)
    with pytest.raises(RequestError) as caught:
        await blocking(partial(supervisor.submit_run, b"no plan", "-"))
    assert (caught.value.status, caught.value.code) == (400, "invalid_plan")
    assert caught.value.mistakes
    with pytest.raises(RequestError, match="there is no run 'x'"):
        await blocking(partial(supervisor.get, "/v1/runs/x"))
    with pytest.raises(RequestError) as caught:
        await blocking(partial(supervisor.submit_run, b"\xff" * 10, "-"))
    assert caught.value.code == "invalid_plan"


async def test_a_document_that_is_too_large_is_refused_and_not_a_broken_pipe(api: Api) -> None:
    """A refusal that comes while the body is still being sent is read all the same."""
    supervisor = Supervisor(api.socket)
    with pytest.raises(RequestError) as caught:
        await blocking(partial(supervisor.submit_run, b"x" * 20_000_000, "-"))
    assert caught.value.code == "too_large"


async def test_output_is_read_to_its_end(api: Api) -> None:
    """A follower reads output piece by piece, byte for byte, until it has ended."""
    api.orchestrator.start_run()
    session = api.orchestrator.start_session("r1", "1")
    session.write(b"one\xff")
    supervisor = Supervisor(api.socket)
    first = await blocking(partial(supervisor.read_output, "w1t1-task-1"))
    assert (first.data, first.next_offset, first.ended) == (b"one\xff", 4, False)
    session.write(b"two")
    api.orchestrator.end_task("r1", "1")
    rest = await blocking(partial(supervisor.read_output, first.session_id, first.next_offset, wait=5.0))
    assert (rest.data, rest.offset, rest.lost, rest.ended) == (b"two", 4, 0, True)


async def test_events_are_followed_until_the_supervisor_leaves(api: Api) -> None:
    """The blocking client's stream ends in order when the supervisor does."""
    api.orchestrator.start_run()
    seen = []

    def follow() -> None:
        for record in Supervisor(api.socket).events(0, run="r1"):
            seen.append(record.seq)
            if record.seq == 2:
                trio.from_thread.run_sync(api.orchestrator.commit, ev.RunEnded("r1", Outcome.FAILED))
                trio.from_thread.run_sync(api.shutdown.set)

    await blocking(follow)
    assert seen == [1, 2, 3]


async def test_no_supervisor_is_said_plainly(root: Path) -> None:
    """Without a socket, or with a dead one, the error says that nobody listens."""
    supervisor = Supervisor(root / "kas.sock")
    assert not await blocking(supervisor.alive)
    with pytest.raises(ClientError, match="no supervisor is running"):
        await blocking(partial(supervisor.get, "/healthz"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(root / "kas.sock"))
    with pytest.raises(ClientError, match="no supervisor is running"):
        await blocking(partial(supervisor.post, "/v1/stop", {"all": True}))
    async with connect(root / "kas.sock") as client:
        with pytest.raises(ClientError, match="no supervisor is running"):
            await client.status()


@pytest.mark.parametrize(
    ("said", "ask", "message"),
    [
        (b"", lambda supervisor: supervisor.get("/healthz"), "could not be reached"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", lambda s: s.get("/x"), "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", lambda s: s.get("/x"), "not JSON"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", lambda s: s.get("/x"), "answered 500"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", lambda s: s.read_output("x"), "is no output"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n",
            lambda s: list(s.stream_lines("/x")),
            "broke off",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n",
            lambda s: list(s.stream_lines("/x")),
            "broke off",
        ),
    ],
)
async def test_a_supervisor_that_dies_is_told_from_one_that_ends(
    root: Path, said: bytes, ask: Callable[[Supervisor], Any], message: str
) -> None:
    """An answer that is cut short, or is none, is a `ClientError`; never half an answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "kas.sock"))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65_536)
                connection.sendall(said)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer)
            with pytest.raises(ClientError, match=message):
                await blocking(partial(ask, Supervisor(root / "kas.sock")))


# --- the asynchronous client ----------------------------------------------------------


async def test_a_program_asks_and_commands(api: Api) -> None:
    """The asynchronous client has the same verbs."""
    async with connect(api.socket) as client:
        told = await client.submit_run(PLAN.encode(), "-")
        assert (await client.status())["runs"][0]["run_id"] == told["run_id"]
        session = api.orchestrator.start_session(told["run_id"], "1")
        session.write(b"hello")
        piece = await client.output("1", 1)
        assert (piece.data, piece.next_offset) == (b"ello", 5)
        with pytest.raises(RequestError) as caught:
            await client.post(f"/v1/runs/{told['run_id']}/advance")
        assert caught.value.code == "conflict"


async def test_a_stream_survives_its_supervisors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across supervisors that come and go, a stream has every event once and in order."""
    monkeypatch.setattr(streams, "LONGEST_PAUSE", 0.05)
    numbers = []
    async with open_api(root) as api, connect(api.socket) as client:
        world, events = api.orchestrator, client.events(0)
        shutdown = api.shutdown
        async with trio.open_nursery() as nursery:
            for life in range(4):
                world.start_run(f"r{life}", tasks=1)
                with trio.fail_after(LIMIT):
                    numbers += [(await anext(events)).seq for _ in range(2)]
                shutdown.set()
                shutdown = trio.Event()
                with trio.fail_after(LIMIT):
                    await _serve_next(nursery, api, shutdown)
            shutdown.set()
    assert numbers == list(range(1, 9))


async def _serve_next(nursery: trio.Nursery, api: Api, shutdown: trio.Event) -> None:
    """Start the next supervisor when the last one has left."""
    while api.socket.exists():  # noqa: ASYNC110  # its removal is no event for us
        await trio.sleep(0.01)
    app = make_app(api.orchestrator)
    await nursery.start(partial(serve_api, app, api.socket, shutdown=shutdown, grace=0.1))


async def test_a_stream_gives_up_in_the_end(api: Api) -> None:
    """When no supervisor takes the dead one's place, the stream fails after its patience."""
    api.orchestrator.start_run()
    async with connect(api.socket) as client:
        events = client.events(0, patience=0.1)
        assert [(await anext(events)).seq for _ in range(2)] == [1, 2]
        api.shutdown.set()
        with trio.fail_after(LIMIT), pytest.raises(ClientError, match=r"broke off|no supervisor"):
            await anext(events)


async def test_a_stream_that_is_refused_says_why(api: Api) -> None:
    """A stream of an unknown run fails at once, with the supervisor's reason."""
    async with connect(api.socket) as client:
        with pytest.raises(RequestError, match="there is no run"):
            await anext(client.events(0, run="none"))


async def test_a_stream_that_is_cancelled_goes_on_where_it_was(api: Api) -> None:
    """A wait for the next event that is cancelled loses nothing and repeats nothing."""
    api.orchestrator.start_run()
    async with connect(api.socket) as client:
        events = client.events(0)
        assert [(await anext(events)).seq for _ in range(2)] == [1, 2]
        with trio.move_on_after(0.05) as scope:
            await anext(events)
        assert scope.cancelled_caught
        api.orchestrator.start_session("r1", "1")
        with trio.fail_after(LIMIT):
            assert [(await anext(events)).seq for _ in range(2)] == [3, 4]
        assert events.cursor == 4


async def test_leaving_the_scope_closes_the_streams(api: Api) -> None:
    """A client that is left holds no stream open, and its streams are over."""
    api.orchestrator.start_run()
    async with connect(api.socket) as client:
        events = client.events(0)
        await anext(events)
        await anext(events)
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    with trio.fail_after(LIMIT):
        while api.orchestrator.bus.subscribers:  # noqa: ASYNC110  # the server's inside has no event for us
            await trio.sleep(0.01)
