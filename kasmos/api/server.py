"""Serving the application on a Unix socket: the one module that knows Hypercorn.

As released, Hypercorn 0.18 under Quart-Trio 0.12 can be frozen by one client. What is mended here,
each with a test of its name in `tests/e2e/test_server.py`:

1. Sending is shielded without a deadline, so a client that stops reading holds up shutdown for ever.
2. The end of a response is handled inside the scope that Quart cancels at that moment, so
   `Connection: close` is ignored and idle connections are never closed.
3. With it: after an early answer to a large body, the connection wedges.
4. Sending on a closed WebSocket does not yield, so a loop of sends freezes everything.
5. An empty binary WebSocket message arrives as None.
6. An existing socket file is removed even if it is in use; see `kasmos.daemon.door`.
7. Listening sockets are made inheritable. Ours is made there.
8. The file's mode is made by changing the process's umask for a moment. Ours is set on the socket before it is bound.
9. The peer's credentials are not in the scope.
10. After an answer that did not wait for the request's body, the connection is closed at once. A client that is still
    sending the body meets a broken pipe then, and does not read why it was refused.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import h11
import hypercorn.trio.run
import trio
from hypercorn.config import Config, Sockets
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import LifespanState
from hypercorn.utils import wrap_app
from quart_trio.asgi import TrioASGIWebsocketConnection

from kasmos.api.farewell import Farewell
from kasmos.config.addresses import split_address
from kasmos.daemon.door import BACKLOG, Door
from kasmos.exceptions import StoreError
from kasmos.model.value import frozen

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from kasmos.api.app import KasmosApp

_log = logging.getLogger("kasmos.api.server")

SEND_TIMEOUT = 20.0
"""Seconds that one piece of an answer may take to be taken by the client."""

PIECE = 65_536
"""Bytes sent under one deadline, so that a slow client which does read is not dropped."""

CLOSE_TIMEOUT = 1.0
"""Seconds that closing a connection may take."""

READY_TIMEOUT = 20.0
"""Seconds that making a connection ready for its next request may take: it waits for nobody but this process, and one
that is held up for a moment must not hang up on who has just asked something."""

LINGER_TIMEOUT = 2.0
"""Seconds that a client is given to finish a request that was answered before it had."""

KEEP_ALIVE_TIMEOUT = 15.0
"""Seconds that a connection may be idle, or take to send a request's head."""


WEBSOCKET_MESSAGE = 65_536
"""Bytes of one message that a client sends."""


@frozen
class Peer:
    """Who is at the other end of a Unix socket, as the kernel says."""

    pid: int
    uid: int
    gid: int


class _NotTakenError(Exception):
    """A client does not read."""

    def __init__(self, rest: memoryview) -> None:
        super().__init__()
        self.rest = rest
        """What it was not given any more."""


class SafeTCPServer(TCPServer):
    """A connection that no client can keep open against our will."""

    dropped: ClassVar[int] = 0
    """How many clients of this process were dropped because they did not read."""

    async def run(self) -> None:
        """Serve one connection, with its peer's credentials in the scope (9)."""
        tcp = self.stream.socket.family != socket.AF_UNIX
        peer = None if tcp else _peer_of(self.stream)
        self.farewell = Farewell()
        self._reading = trio.CancelScope()
        given = {"peer": peer, "tcp": tcp, "farewell": self.farewell, "straight": self._send}
        self.state = LifespanState({**self.state, **given})
        await super().run()

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for, within a bound."""
        if isinstance(event, RawData):
            await self._send(event.data)
            return
        # (2) Shielded: Quart cancels us exactly now, and the connection has to be closed or recycled.
        bound = CLOSE_TIMEOUT if isinstance(event, Closed) else READY_TIMEOUT
        with trio.CancelScope(shield=True, deadline=trio.current_time() + bound) as scope:
            if isinstance(event, Closed) and self._is_spoken_to():
                await self._hear_out()
            else:
                await super().protocol_send(event)
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self.stream)

    async def _read_data(self) -> None:
        # Its end closes the connection.
        with self._reading:
            await super()._read_data()

    def _is_spoken_to(self) -> bool:
        """Whether the client is in the middle of a request."""
        connection = getattr(self.protocol.protocol, "connection", None)
        return isinstance(connection, h11.Connection) and connection.their_state is h11.SEND_BODY

    async def _hear_out(self) -> None:
        """Say that this was all, and go on reading for a moment; what is read then is thrown away (10)."""
        with suppress(trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            await self.stream.send_eof()
        self._reading.deadline = trio.current_time() + LINGER_TIMEOUT
        await self.protocol.handle(Closed())

    async def _send(self, data: bytes) -> None:
        # (1) Not shielded. A piece that was cut off leaves the stream useless, so then it is closed.
        rest = memoryview(data)
        try:
            # Most often the kernel takes it at once, and it is a crowd of readers that is sent to.
            if not self.send_lock.locked():
                rest = rest[self._write(rest) :]
            if not rest:
                return
            async with self.send_lock:
                while rest:
                    rest = await self._send_piece(rest)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except _NotTakenError as stopped:
            type(self).dropped += 1
            _log.warning("a client was dropped: it did not read for %s s", SEND_TIMEOUT)
            self._say_farewell(stopped.rest)
            await trio.aclose_forcefully(self.stream)
        except trio.Cancelled:
            await trio.aclose_forcefully(self.stream)
            raise
        else:
            return
        await self.protocol.handle(Closed())

    async def _send_piece(self, data: memoryview) -> memoryview:
        """Send what has a deadline of its own; what is left of the whole."""
        piece, rest = data[:PIECE], data[PIECE:]
        with trio.move_on_after(SEND_TIMEOUT):
            while piece:
                await trio.lowlevel.wait_writable(self.stream.socket)
                piece = piece[self._write(piece) :]
        if piece:
            raise _NotTakenError(data[len(data) - len(rest) - len(piece) :])
        return rest

    def _write(self, data: memoryview) -> int:
        """How much of it the kernel takes now.

        Raises:
            OSError: the client, or our end of the connection, is gone.
        """
        try:
            return os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return 0

    def _say_farewell(self, rest: memoryview) -> None:
        """Tell a client that is dropped why, for when it reads at last: where there is still room for it.

        What it was not sent, but is within a message of the protocol, has to come before that.
        """
        words = self.farewell.words
        if not words or len(rest) > PIECE:
            return
        with suppress(OSError):
            # The kernel has taken all that was allowed to it, so it is allowed a little more.
            allowed = self.stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, allowed + 2 * PIECE)
            self._write(memoryview(bytes(rest) + words))

    async def _initiate_server_close(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self.protocol.handle(Closed())
        await trio.aclose_forcefully(self.stream)


class SafeWS(TrioASGIWebsocketConnection):
    """A WebSocket whose handler cannot spin."""

    async def handle_messages(self, nursery: trio.Nursery, receive: Any) -> None:  # type: ignore[override]
        """Hand over messages, the empty ones too (5)."""
        await super().handle_messages(nursery, partial(_with_payload, receive))

    async def send_data(self, send: Any, data: str | bytes) -> None:
        """Send a message, and let others run (4)."""
        await super().send_data(send, data)
        await trio.lowlevel.checkpoint()


async def _with_payload(receive: Any) -> Any:
    event = await receive()
    if event["type"] == "websocket.receive" and not event.get("bytes") and event.get("text") is None:
        return {**event, "text": ""}
    return event


async def serve_api(
    app: KasmosApp,
    socket_path: Path,
    *,
    shutdown: trio.Event,
    grace: float = 5.0,
    door: Door | None = None,
    listen: Sequence[str] = (),
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *app* on a Unix socket, and on the TCP addresses *listen*, until *shutdown* is set.

    The caller holds the lock of the state root: a socket file that is there is a dead supervisor's.
    One that was opened already is given as *door*, and closed here.
    Reports to *task_status*, once clients can connect, where over TCP: port 0 has become a real one.
    When *shutdown* is set, no connection is accepted any more, streams hand out what there is and end, and whatever
    is left after *grace* seconds is cut off. The socket file is removed at the end.

    Raises:
        StoreError: the socket cannot be made, or an address cannot be had; nothing is served.

    Cancellation: as a shutdown without grace.
    """
    door = door or Door(socket_path)
    tcp: list[socket.socket] = []
    app.asgi_websocket_class = SafeWS
    # The class is looked up when serving begins: the one seam there is. Versions are pinned for it.
    hypercorn.trio.run.TCPServer = SafeTCPServer  # type: ignore[attr-defined]

    async def asked_to_end() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.beat)
            await shutdown.wait()
            nursery.cancel_scope.cancel()
        app.close()

    try:
        for address in listen:
            tcp.append(_listen_tcp(*split_address(address)))  # noqa: PERF401  # those before a wrong one are closed
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(
                    hypercorn.trio.run.worker_serve,
                    wrap_app(app, 0, "asgi"),
                    _config(grace),
                    sockets=Sockets([], [door.listener, *tcp], []),
                    shutdown_trigger=asked_to_end,
                )
            )
            task_status.started([_url(sock) for sock in tcp])
    finally:
        door.close()
        for sock in tcp:
            sock.close()


async def serve_tcp(
    app: QuartTrio,
    host: str,
    port: int,
    *,
    shutdown: trio.Event,
    grace: float = 5.0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *app*, which has no streams, on a TCP address until *shutdown* is set.

    Reports to *task_status*, once clients can connect, the address it listens on: port 0 has become a real one.

    Raises:
        StoreError: the address cannot be had.

    Cancellation: as a shutdown without grace.
    """
    listener = _listen_tcp(host, port)
    hypercorn.trio.run.TCPServer = SafeTCPServer  # type: ignore[attr-defined]
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(
                    hypercorn.trio.run.worker_serve,
                    wrap_app(app, 0, "asgi"),
                    _config(grace),
                    sockets=Sockets([], [listener], []),
                    shutdown_trigger=shutdown.wait,
                )
            )
            task_status.started(_url(listener))
    finally:
        listener.close()


def readers_dropped() -> int:
    """How many clients of this process were dropped because they did not read."""
    return SafeTCPServer.dropped


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen_tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        sock = socket.socket(family, kind)
    except OSError as error:
        raise StoreError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.setblocking(False)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        cures: dict[int | None, str] = {
            errno.EADDRINUSE: "; something else is there: choose another port, or 0 for any that is free",
            errno.EADDRNOTAVAIL: "; this machine does not have that address",
            errno.EACCES: "; ports below 1024 are for root: choose another one",
        }
        raise StoreError(f"cannot listen on {host}:{port}: {error.strerror}{cures.get(error.errno, '')}") from error
    return sock


def _config(grace: float) -> Config:
    config = Config()
    config.graceful_timeout = grace
    config.keep_alive_timeout = KEEP_ALIVE_TIMEOUT
    config.include_server_header = False
    config.websocket_max_message_size = WEBSOCKET_MESSAGE
    config.accesslog = None
    config.errorlog = _log
    return config


def _peer_of(stream: Any) -> Peer:
    sock = stream.socket
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", packed))
