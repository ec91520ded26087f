"""No client can hold the server up. Each defect of the web stack that is mended has a test of its name here.

An upgrade of Hypercorn, Quart or Quart-Trio that brings one back fails the test that names it.

Where a time is over, the clock is a mock one: both ends of a Unix socket are in this process, and what one writes the
other can read at once, so there is nothing that the clock could jump past.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.trio.worker_context import TrioSingleTask
from quart import request, websocket
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, wrap_client_stream

from kasmos.api import serve_api, server
from kasmos.api.app import KasmosApp, peer_allowed
from kasmos.exceptions import StoreError
from tests.e2e.api_world import Api, FakeOrchestrator, make_app, open_api

SOON = 40.0
"""Seconds; generous, and below what the defects would take."""


async def open_raw(api: Api, text: str = "") -> trio.SocketStream:
    """A connection on which this request's head was sent."""
    stream = await trio.open_unix_socket(str(api.socket))
    if text:
        await stream.send_all(text.replace("\n", "\r\n").encode())
    return stream


async def read_to_end(stream: trio.SocketStream) -> bytes:
    """Everything until the server closes."""
    data = b""
    with trio.fail_after(SOON):
        try:
            async for piece in stream:
                data += piece
        except trio.BrokenResourceError:
            pass  # Closed while we were sending: what was received counts.
    return data


async def send_for_ever(stream: trio.SocketStream) -> None:
    """Send until the server does not take it any more."""
    while True:
        await stream.send_all(b"x")


async def read_answer(stream: trio.SocketStream) -> bytes:
    """One whole answer whose body is a JSON object."""
    data = b""
    with trio.fail_after(SOON):
        while not data.endswith(b"}"):
            piece = await stream.receive_some(65_536)
            assert piece, data
            data += piece
    return data


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds that no event tells of."""
    with trio.fail_after(SOON):
        while not condition():  # noqa: ASYNC110  # the server's inside has no event for us
            await trio.sleep(0.01)


def fill_journal(api: Api, megabytes: int = 4) -> None:
    """Make a history that no socket's buffer holds."""
    for number in range(megabytes * 10):
        api.orchestrator.start_run(f"r{number}", tasks=400)


GET_EVENTS = "GET /v1/events HTTP/1.1\nHost: kasmos\n\n"
GET_HEALTH = "GET /healthz HTTP/1.1\nHost: kasmos\n\n"


# --- 1: sending without a deadline -----------------------------------------------------


async def test_a_client_that_stops_reading_cannot_hold_up_shutdown(autojump_clock: MockClock, root: Path) -> None:
    """(1) With a client that does not read, shutdown takes its grace and no longer."""
    with trio.fail_after(SOON):
        async with open_api(root, grace=0.1) as api:
            fill_journal(api)
            stalled = await open_raw(api, GET_EVENTS)
            await until(lambda: api.orchestrator.bus.subscribers == 1)
    await stalled.aclose()


async def test_a_client_that_stops_reading_cannot_hold_up_cancellation(root: Path) -> None:
    """(1) With a client that does not read, cancelling the server takes no time."""
    orchestrator = FakeOrchestrator()
    path = root / "kas.sock"
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_api, make_app(orchestrator), path, shutdown=trio.Event(), grace=60))
            for number in range(20):
                orchestrator.start_run(f"r{number}", tasks=400)
            stalled = await trio.open_unix_socket(str(path))
            await stalled.send_all(GET_EVENTS.replace("\n", "\r\n").encode())
            await until(lambda: orchestrator.bus.subscribers == 1)
            nursery.cancel_scope.cancel()
    await stalled.aclose()


async def test_a_client_that_stops_reading_is_dropped(
    autojump_clock: MockClock, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(1) A client that takes nothing for as long as the deadline is dropped, and nobody else notices."""
    monkeypatch.setattr(server, "SEND_TIMEOUT", 0.3)
    async with open_api(root) as api:
        fill_journal(api)
        stalled = await open_raw(api, GET_EVENTS)
        await until(lambda: api.orchestrator.bus.subscribers == 1)
        assert (await api.get("/healthz")).status_code == 200
        await until(lambda: api.orchestrator.bus.subscribers == 0)
        await stalled.aclose()


async def test_a_client_that_is_dropped_reads_why(
    autojump_clock: MockClock, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(1) Who did not read for too long, and reads then, finds a whole stream whose last line says why it ends."""
    monkeypatch.setattr(server, "SEND_TIMEOUT", 0.3)
    for media_type, last in (
        ("application/x-ndjson", b'{"type":"dropped","reason":"you have read nothing'),
        ("text/event-stream", b'event: dropped\ndata: {"type":"dropped","reason":"you have read nothing'),
    ):
        (root / media_type[:4]).mkdir()
        async with open_api(root / media_type[:4]) as api:
            fill_journal(api)
            stalled = await open_raw(api, GET_EVENTS.replace("\n\n", f"\nAccept: {media_type}\n\n"))
            await until(lambda api=api: api.orchestrator.bus.subscribers == 1)
            await until(lambda api=api: api.orchestrator.bus.subscribers == 0)
            data = await read_to_end(stalled)
            assert last in data[-400:]
            assert data.endswith(b"\r\n0\r\n\r\n")
            await stalled.aclose()


async def test_a_websocket_that_is_dropped_reads_why(
    autojump_clock: MockClock, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(1) A WebSocket whose client did not read is closed with a code and the reason, behind what it had not read."""
    monkeypatch.setattr(server, "SEND_TIMEOUT", 0.3)
    async with open_api(root) as api, trio.open_nursery() as nursery:
        fill_journal(api)
        stream = await open_raw(api)
        connection = await wrap_client_stream(nursery, stream, "kasmos", "/v1/ws")
        await connection.send_message('{"subscribe": "events"}')
        await until(lambda: api.orchestrator.bus.subscribers == 1)
        await until(lambda: api.orchestrator.bus.subscribers == 0)
        closed = None
        with trio.fail_after(SOON):
            while closed is None:
                try:
                    await connection.get_message()
                except ConnectionClosed as error:
                    closed = error.reason
        assert closed.code == 1013
        assert "read nothing for too long" in closed.reason
        await stream.aclose()


async def test_a_slow_client_that_reads_is_not_dropped(
    mock_clock: MockClock, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(1) The deadline is for one piece: a large answer may take many times as long."""
    monkeypatch.setattr(server, "SEND_TIMEOUT", 0.5)
    async with open_api(root) as api:
        api.orchestrator.start_run()
        session = api.orchestrator.start_session("r1", "1")
        session.write(b"x" * 1_000_000)
        stream = await open_raw(
            api,
            "GET /v1/sessions/1/output?limit=1000000 HTTP/1.1\nHost: k\nConnection: close\n\n",
        )
        started, size = trio.current_time(), 0
        while piece := await stream.receive_some(65_536):
            size += len(piece)
            # The server has sent what there is room for, and waits; its time goes by only here.
            await wait_all_tasks_blocked()
            mock_clock.jump(0.1)
        assert size > 1_000_000
        assert trio.current_time() - started > 1.0
        await stream.aclose()


# --- 2: connections that never close ---------------------------------------------------


async def test_connection_close_closes(root: Path) -> None:
    """(2) A client that asks for `Connection: close` sees the end right after the answer."""
    async with open_api(root) as api:
        stream = await open_raw(api, GET_HEALTH.replace("\n\n", "\nConnection: close\n\n"))
        data = await read_to_end(stream)
        assert data.startswith(b"HTTP/1.1 200 ")
        assert data.endswith(b"}")
        await stream.aclose()


async def test_an_idle_connection_is_closed(
    autojump_clock: MockClock, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(2) A connection is closed when it has been idle for long enough after an answer."""
    monkeypatch.setattr(server, "KEEP_ALIVE_TIMEOUT", 0.2)
    async with open_api(root) as api:
        stream = await open_raw(api, GET_HEALTH)
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 200 ")
        await stream.aclose()


async def test_a_connection_that_never_asks_is_closed(
    autojump_clock: MockClock, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends nothing, or one byte at a time, does not keep its connection."""
    monkeypatch.setattr(server, "KEEP_ALIVE_TIMEOUT", 0.2)
    async with open_api(root) as api:
        silent = await open_raw(api)
        assert await read_to_end(silent) == b""
        await silent.aclose()
        slow = await open_raw(api)
        with pytest.raises(trio.BrokenResourceError):
            await _send_slowly(slow, b"GET /" + b"x" * 1000)
        await slow.aclose()


async def _send_slowly(stream: trio.SocketStream, data: bytes) -> None:
    for byte in data:
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.01)


async def ask_over_one_connection(api: Api, times: int) -> None:
    """Ask so often, and be answered each time."""
    stream = await open_raw(api)
    for _ in range(times):
        await stream.send_all(GET_HEALTH.replace("\n", "\r\n").encode())
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 200 ")
    await stream.aclose()


async def test_connections_are_used_again(root: Path) -> None:
    """(2) Many requests go over one connection."""
    async with open_api(root) as api:
        await ask_over_one_connection(api, 5)


async def test_a_connection_outlives_a_moment_in_which_nothing_moves(
    mock_clock: MockClock, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(2) A server that is held up while it makes a connection ready for its next request answers that, too."""
    restart = TrioSingleTask.restart

    async def held_up(*given: Any) -> None:
        mock_clock.jump(3.0)
        await restart(*given)

    monkeypatch.setattr(TrioSingleTask, "restart", held_up)
    async with open_api(root) as api:
        await ask_over_one_connection(api, 3)


async def test_shutdown_does_not_wait_for_idle_connections(root: Path) -> None:
    """(2) A shutdown with idle connections takes no time, whatever its grace."""
    with trio.fail_after(SOON):
        async with open_api(root, grace=60) as api:
            idle = await open_raw(api)
            used = await open_raw(api, GET_HEALTH)
            await read_answer(used)
            assert (await api.get("/healthz")).status_code == 200
            api.shutdown.set()
            await read_to_end(idle)
            await read_to_end(used)
    await idle.aclose()
    await used.aclose()


# --- 3: the connection after an early answer -------------------------------------------


async def test_an_early_answer_does_not_wedge_the_client(root: Path) -> None:
    """(3) After an answer that came before its request's body was read, the next request is answered."""
    async with open_api(root) as api:
        for _ in range(20):
            with trio.fail_after(SOON):
                response = await api.http.post("/v1/none", content=b"x" * 300_000)
                assert response.status_code == 404
                assert (await api.get("/healthz")).status_code == 200


async def test_a_413_can_be_read(root: Path) -> None:
    """(3) A client that is still sending a body that is too large gets the whole refusal."""
    async with open_api(root) as api:
        stream = await open_raw(api, "POST /v1/stop HTTP/1.1\nHost: k\nContent-Length: 100000000\n\n")
        data = await read_to_end(stream)
        assert data.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"too_large"' in data
        await stream.aclose()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_client_may_finish_what_was_answered_early(
    root: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """(10) A client whose request is answered before its body has come can still send that, and is not cut off."""
    monkeypatch.setattr(server, "LINGER_TIMEOUT", 60.0)
    async with open_api(root, grace=0.1) as api:
        stream = await open_raw(api, f"{method} /v1/none HTTP/1.1\nHost: k\nContent-Length: 4\n\n")
        # All is said, and the client has the end of it, before it goes on.
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 404 ")
        await stream.send_all(b"nu")
        await stream.send_all(b"ll")
        await stream.aclose()


async def test_a_client_that_does_not_finish_is_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(10) A client that goes on and on with a request that was answered is cut off."""
    monkeypatch.setattr(server, "LINGER_TIMEOUT", 0.1)
    async with open_api(root) as api:
        stream = await open_raw(api, "POST /v1/none HTTP/1.1\nHost: k\nContent-Length: 100000000\n\n")
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 404 ")
        with trio.fail_after(SOON), pytest.raises(trio.BrokenResourceError):
            await send_for_ever(stream)
        await stream.aclose()


# --- 4 and 5: WebSockets ---------------------------------------------------------------


def _with_sockets(app: KasmosApp) -> None:
    @app.websocket("/flood")
    async def flood() -> None:
        while True:
            await websocket.send("x")

    @app.websocket("/echo")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())


async def test_sending_to_a_closed_websocket_yields(root: Path) -> None:
    """(4) A handler that sends for ever ends when its client leaves, and freezes nothing meanwhile."""
    async with open_api(root, prepare=_with_sockets) as api, trio.open_nursery() as nursery:
        stream = await open_raw(api)
        connection = await wrap_client_stream(nursery, stream, "kasmos", "/flood")
        assert await connection.get_message() == "x"
        await stream.aclose()
        with trio.fail_after(SOON):
            assert (await api.get("/healthz")).status_code == 200
            api.shutdown.set()
        # The client still has messages that nobody takes from it.
        nursery.cancel_scope.cancel()


async def test_an_empty_binary_message_arrives(root: Path) -> None:
    """(5) An empty binary message is a message."""
    async with open_api(root, prepare=_with_sockets) as api, trio.open_nursery() as nursery:
        stream = await open_raw(api)
        connection = await wrap_client_stream(nursery, stream, "kasmos", "/echo")
        with trio.fail_after(SOON):
            for message in (b"", "text", b"bytes", ""):
                await connection.send_message(message)
                assert len(await connection.get_message()) == len(message)
            await connection.aclose()
            with pytest.raises(ConnectionClosed):
                await connection.get_message()


# --- 6, 7, 8: the socket -----------------------------------------------------------------


async def test_a_stale_socket_is_replaced(root: Path) -> None:
    """(6) A dead supervisor's socket file is no obstacle; ours is removed at the end."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(root / "kas.sock"))
    async with open_api(root) as api:
        assert (await api.get("/healthz")).status_code == 200
    assert not api.socket.exists()


async def test_something_else_in_the_way_is_left_alone(root: Path) -> None:
    """(6) A file that is no socket is never removed; the server says so and does not start."""
    path = root / "kas.sock"
    path.write_text("precious")
    with pytest.raises(StoreError, match="in the way"):
        await serve_api(make_app(FakeOrchestrator()), path, shutdown=trio.Event())
    assert path.read_text() == "precious"


async def test_another_supervisors_socket_is_not_removed_at_the_end(root: Path) -> None:
    """(6) If the file was replaced meanwhile, the new one is left."""
    async with open_api(root) as api:
        api.socket.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(api.socket))
    assert api.socket.exists()
    other.close()


async def test_the_socket_is_private(root: Path) -> None:
    """(8) The socket is for its owner only from its first moment, and the process's umask stays as it is."""
    before = os.umask(0)
    try:
        async with open_api(root) as api:
            assert stat.S_IMODE(api.socket.stat().st_mode) == 0o600
            assert os.umask(0) == 0
    finally:
        os.umask(before)


async def test_the_socket_is_not_inherited(root: Path) -> None:
    """(7) A program that is started with every inheritable descriptor does not get the server's."""
    async with open_api(root) as api:
        listeners = [fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_listener(fd)]
        assert listeners
        assert not any(os.get_inheritable(fd) for fd in listeners)
        assert (await api.get("/healthz")).status_code == 200


def _is_listener(descriptor: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
    except OSError:
        return False  # The directory's own descriptor, closed meanwhile.
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


async def test_a_path_that_is_too_long_is_refused(root: Path) -> None:
    """A socket path that the kernel cannot take is refused with what to do."""
    with pytest.raises(StoreError, match="shorter state root"):
        await serve_api(make_app(FakeOrchestrator()), root / ("x" * 110), shutdown=trio.Event())


# --- 9: credentials ---------------------------------------------------------------------


async def test_the_peer_is_known(root: Path) -> None:
    """(9) A request's scope has the kernel's word on who sent it."""

    def with_peer(app: KasmosApp) -> None:
        @app.get("/peer")
        async def peer() -> list[int]:
            told = request.scope["state"]["peer"]
            return [told.pid, told.uid, told.gid]

    async with open_api(root, prepare=with_peer) as api:
        assert (await api.get("/peer")).json() == [os.getpid(), os.getuid(), os.getgid()]


def test_only_our_user_and_root_are_let_in() -> None:
    """A peer is let in for its user id; an unknown one is not."""
    assert peer_allowed(os.getuid())
    assert peer_allowed(0)
    assert not peer_allowed(os.getuid() + 1)
    assert not peer_allowed(None)


_ASK = """
import http.client, os, socket, sys
os.setuid(65534)
connection = http.client.HTTPConnection("kasmos")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("GET", "/v1/status")
response = connection.getresponse()
print(response.status, response.read().decode())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_refused(root: Path) -> None:
    """A process of another user is refused even if the socket's mode was loosened."""
    async with open_api(root) as api:
        await trio.Path(root).chmod(0o711)
        await trio.Path(api.socket).chmod(0o666)
        done = await trio.run_process(
            [sys.executable, "-I", "-S", "-c", _ASK, str(api.socket)],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert done.stdout.startswith(b"403 "), done.stdout
    assert b"forbidden_peer" in done.stdout


# --- ends and oddities -------------------------------------------------------------------


async def test_readers_are_given_the_last_events_at_shutdown(root: Path) -> None:
    """At shutdown a stream hands out what has happened and ends in order, long before the grace is over."""
    with trio.fail_after(SOON):
        async with open_api(root, grace=60) as api, api.http.stream("GET", "/v1/events") as response:
            await until(lambda: api.orchestrator.bus.subscribers == 1)
            api.orchestrator.start_run()
            api.shutdown.set()
            lines = [line async for line in response.aiter_lines()]
    assert len(lines) == 2


async def test_long_polls_are_answered_at_shutdown(root: Path) -> None:
    """At shutdown a long poll is answered with what there is."""
    with trio.fail_after(SOON):
        async with open_api(root, grace=60) as api, trio.open_nursery() as nursery:
            api.orchestrator.start_run()
            session = api.orchestrator.start_session("r1", "1")

            async def poll() -> None:
                response = await api.get("/v1/sessions/1/output?wait=50")
                assert (response.status_code, response.content) == (200, b"")

            nursery.start_soon(poll)
            await session.waited_for.wait()
            api.shutdown.set()


async def test_a_reader_that_leaves_is_forgotten(root: Path) -> None:
    """When a client leaves, its stream ends."""
    async with open_api(root) as api:
        stream = await open_raw(api, GET_EVENTS)
        await until(lambda: api.orchestrator.bus.subscribers == 1)
        await stream.aclose()
        await until(lambda: api.orchestrator.bus.subscribers == 0)


@pytest.mark.parametrize(
    "text",
    [
        "NONSENSE\n\n",
        "POST /v1/stop HTTP/1.1\nHost: k\nContent-Length: many\n\n",
        "GET /healthz HTTP/1.1\nHost: k\nX: " + "x" * 70_000 + "\n\n",
        "GET /%ff%00 HTTP/1.1\nHost: k\nConnection: close\n\n",
    ],
)
async def test_nonsense_is_refused(root: Path, text: str) -> None:
    """What is no request is answered 4xx without HTML, its connection is closed, and the rest goes on."""
    async with open_api(root) as api:
        stream = await open_raw(api, text)
        data = await read_to_end(stream)
        assert data.startswith(b"HTTP/1.1 4"), data
        assert b"html" not in data.lower()
        await stream.aclose()
        assert (await api.get("/healthz")).status_code == 200


async def test_a_body_that_does_not_come_is_not_waited_for(autojump_clock: MockClock, root: Path) -> None:
    """A request whose body does not arrive in time is 408."""

    def impatient(app: KasmosApp) -> None:
        app.config["BODY_TIMEOUT"] = 0.1

    async with open_api(root, prepare=impatient) as api:
        stream = await open_raw(
            api,
            "POST /v1/stop HTTP/1.1\nHost: k\nContent-Type: application/json\nContent-Length: 9\n\n{",
        )
        data = await read_to_end(stream)
        assert data.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in data
        await stream.aclose()


async def test_a_request_that_is_cut_hurts_nobody(root: Path) -> None:
    """A client that leaves in the middle of its request leaves nothing behind."""
    async with open_api(root) as api:
        for text in ("GET /heal", "POST /v1/stop HTTP/1.1\nHost: k\nContent-Length: 9\n\n{"):
            stream = await open_raw(api, text)
            await stream.aclose()
        assert (await api.get("/healthz")).status_code == 200


async def test_many_readers_share_what_happens(root: Path) -> None:
    """Readers that read get every event, however many others do not."""
    async with open_api(root, grace=0.2) as api:
        fill_journal(api, megabytes=1)
        newest = api.orchestrator.world.seq
        stalled = [await open_raw(api, GET_EVENTS) for _ in range(10)]
        got = []

        async def read() -> None:
            async with api.http.stream("GET", f"/v1/events?after={newest}") as response:
                lines = response.aiter_lines()
                got.append([await anext(lines) for _ in range(20)])

        with trio.fail_after(SOON):
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(read)
                await until(lambda: api.orchestrator.bus.subscribers == 50)
                for number in range(10):
                    api.orchestrator.start_run(f"new{number}", tasks=1)
        assert len(got) == 40
        assert all(lines == got[0] for lines in got)
        for stream in stalled:
            await stream.aclose()
