"""Events, and output and agents' events of named sessions, over one WebSocket. The one module that imports
trio-websocket.

What is wanted is kept here, and said again on each new connection, from the place that was reached: so a supervisor may
be replaced by another, and a connection break, without a gap or a repeat.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from kasmos.client.results import AgentEnded, AgentSaid, Gap, Session, SessionOutput
from kasmos.client.shapes import FIRST_PAUSE, LONGEST_PAUSE, SILENCE, TIMEOUT, read_agent_line, refusal
from kasmos.exceptions import ClientError, RequestError
from kasmos.model.codec import CodecError, decode, decode_record
from kasmos.model.event import Record
from kasmos.model.value import define, frozen

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes; the event of a large plan is long."""
BUFFER = 64
"""Items that may wait to be taken; beyond that, the supervisor is made to wait."""
_PATH = "/v1/ws"

Connection = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Item = Record | SessionOutput | AgentSaid | AgentEnded | Gap


@frozen
class Where:
    """Where the supervisor listens, and what lets us in."""

    socket_path: str | None
    url: str | None
    token: str | None = attrs.field(default=None, repr=False)

    async def open_stream(self) -> Connection:
        """Open a connection, encrypted where the address says so.

        Raises:
            OSError: nobody listens.
        """
        if self.url is None:
            assert self.socket_path is not None
            return await trio.open_unix_socket(self.socket_path)
        parts = urlsplit(self.url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        if secure:
            return await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True)
        return await trio.open_tcp_stream(host, port)

    async def greet(self, nursery: trio.Nursery, stream: Connection) -> WebSocketConnection:
        """Make a WebSocket of a connection; its reader lives in *nursery*."""
        parts = urlsplit(self.url or "http://kasmos")
        headers = [] if self.token is None else [(b"Authorization", f"Bearer {self.token}".encode())]
        path = f"{parts.path.rstrip('/')}{_PATH}"
        return await wrap_client_stream(
            nursery, stream, parts.netloc, path, extra_headers=headers, max_message_size=MAX_MESSAGE
        )


@define
class _Wanted:
    """Something of a session that is wanted."""

    what: str
    """`output` or `agent_events`."""
    session_id: str
    place: int | str
    """Where to go on: an offset, or a cursor."""
    asked_on: WebSocketConnection | None = None
    """The connection on which it was asked for last."""
    unconfirmed: int = 0
    """Subscriptions whose confirmation has not come; what comes before it belongs to an earlier one."""


class Feed:
    """What is subscribed to, as it happens; made by `Client.open_feed`. Iterate over it in one Trio task.

    Raises:
        ClientError: while iterating: no supervisor was reached for as long as the patience lasts.
        RequestError: while iterating: a subscription was refused, or a session's output is gone; that subscription is
            over, and iterating goes on with the others.
    """

    def __init__(
        self,
        where: Where,
        find: Callable[[str], Awaitable[Session]],
        after: int | None,
        run: str | None,
        patience: float,
    ) -> None:
        self._where = where
        self._find = find
        self._after = after
        self._run = run
        self._patience = patience
        self._wanted: dict[str, _Wanted] = {}
        """By the names of their subscriptions."""
        self._socket: WebSocketConnection | None = None
        self._saying = trio.Lock()
        self._send, self._receive = trio.open_memory_channel[Item | RequestError](BUFFER)
        self._failure: ClientError | RequestError | None = None
        self._lost_at: float | None = None

    @property
    def cursor(self) -> int | None:
        """Number of the newest event that came; None without events."""
        return self._after

    async def follow_output(self, session: str, offset: int = 0) -> str:
        """Have the output of a session in the feed, from an absolute offset on; the session's id.

        Following it already, it is followed from there anew.

        Raises:
            RequestError: there is no such session.
            ClientError: the supervisor could not be asked.

        Cancellation: it may be followed nevertheless.
        """
        return await self._follow("output", session, offset)

    async def leave_output(self, session_id: str) -> None:
        """Have no more of a session's output in the feed. Idempotent; what has come before may still be given out."""
        await self._leave("output", session_id)

    async def follow_agent_events(self, session: str, cursor: str = "") -> str:
        """Have what a session's agent says and does in the feed, behind a place in it; the session's id.

        As for `follow_output`. That its program writes no events that are known shows while iterating.
        """
        return await self._follow("agent_events", session, cursor)

    async def leave_agent_events(self, session_id: str) -> None:
        """Have no more of it in the feed; as for `leave_output`."""
        await self._leave("agent_events", session_id)

    async def _follow(self, what: str, session: str, place: int | str) -> str:
        session_id = (await self._find(session)).id
        name = f"{what} {session_id}"
        async with self._saying:
            if name in self._wanted:
                await self._say({"unsubscribe": what, "session": session_id})
            self._wanted[name] = _Wanted(what, session_id, place)
            await self._subscribe(name)
        return session_id

    async def _leave(self, what: str, session_id: str) -> None:
        async with self._saying:
            if self._wanted.pop(f"{what} {session_id}", None) is not None:
                await self._say({"unsubscribe": what, "session": session_id})

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Item:
        """The next item.

        Cancellation: nothing is skipped; may be called again.
        """
        try:
            item = await self._receive.receive()
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from None
            raise StopAsyncIteration from None
        if isinstance(item, RequestError):
            raise item
        return item

    # --- the connection -----------------------------------------------------------------

    async def keep(self) -> None:
        """Be connected, again and again, until the patience is over. What ends it shows while iterating."""
        pause = 0.0
        with self._send:
            while self._failure is None:
                await trio.sleep(pause)
                try:
                    await self._connect_and_listen()
                except* ConnectionRejected as group:
                    # Raised by the connection's own reader, in the nursery.
                    self._failure = _refused(_first(group))
                except* (OSError, ConnectionClosed, HandshakeError, trio.TooSlowError, ClientError):
                    pass
                if self._failure is not None:
                    return
                now = trio.current_time()
                # A connection on which something came begins the count anew.
                since = self._lost_at = now if self._lost_at is None else self._lost_at
                pause = 0.0 if since == now else min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
                if now + pause > since + self._patience:
                    self._failure = ClientError("no supervisor is running (nobody listens, or it breaks off)")

    async def _connect_and_listen(self) -> None:
        with trio.fail_after(TIMEOUT):
            stream = await self._where.open_stream()
        try:
            async with trio.open_nursery() as nursery:
                await self._listen(nursery, stream)
        finally:
            await trio.aclose_forcefully(stream)  # noqa: ASYNC102  # it waits for nothing

    async def _listen(self, nursery: trio.Nursery, stream: Connection) -> None:
        try:
            with trio.fail_after(TIMEOUT):
                socket = await self._where.greet(nursery, stream)
            self._socket = socket
            await self._subscribe_all()
            while True:
                with trio.fail_after(SILENCE):
                    message = await socket.get_message()
                self._lost_at = None
                await self._take(message)
        finally:
            self._socket = None
            nursery.cancel_scope.cancel()

    async def _subscribe_all(self) -> None:
        async with self._saying:
            if self._after is not None:
                said = {"subscribe": "events", "after": self._after}
                await self._say(said if self._run is None else {**said, "run": self._run})
        for name in list(self._wanted):
            async with self._saying:
                # Whoever follows at this very moment may have asked on this connection already.
                wanted = self._wanted.get(name)
                if wanted is not None and wanted.asked_on is not self._socket:
                    wanted.unconfirmed = 0
                    await self._subscribe(name)

    async def _subscribe(self, name: str) -> None:
        wanted = self._wanted[name]
        wanted.unconfirmed += self._socket is not None
        wanted.asked_on = self._socket
        place = "offset" if wanted.what == "output" else "cursor"
        await self._say({"subscribe": wanted.what, "session": wanted.session_id, place: wanted.place})

    async def _say(self, message: dict[str, Any]) -> None:
        """Say it if somebody hears it; if not, the next connection begins with what is wanted then."""
        if self._socket is not None:
            with suppress(ConnectionClosed):
                await self._socket.send_message(json.dumps(message))

    # --- what comes ---------------------------------------------------------------------

    async def _take(self, message: str | bytes) -> None:
        try:
            said = json.loads(message)
        except ValueError as error:
            raise ClientError(f"the supervisor's message is not JSON: {error}") from error
        match said:
            case {"type": "subscribed", "name": str(name)}:
                if (wanted := self._wanted.get(name)) is not None:
                    wanted.unconfirmed -= wanted.unconfirmed > 0
            case {"type": "output"}:
                output = decode(message, SessionOutput)
                await self._give(f"output {output.session_id}", output, output.next_offset, ended=output.ended)
            case {"type": "agent_event" | "agent_events_ended"}:
                await self._take_agent(message)
            case {"type": "gap"}:
                await self._send.send(decode(message, Gap))
            case {"type": "error"}:
                await self._take_error(said)
            case {"seq": int(seq)}:
                try:
                    record = decode_record(message)
                except CodecError:
                    return  # an event that only a newer kasmos knows
                await self._send.send(record)
                self._after = seq

    async def _take_agent(self, message: str | bytes) -> None:
        told = read_agent_line(message)
        if told is not None:
            ended = isinstance(told, AgentEnded)
            await self._give(f"agent_events {told.session_id}", told, told.cursor, ended=ended)

    async def _give(self, name: str, item: Item, place: int | str, *, ended: bool) -> None:
        """Give out what came of a subscription, and know where it goes on."""
        wanted = self._wanted.get(name)
        if wanted is None or wanted.unconfirmed:
            return
        await self._send.send(item)
        wanted.place = place
        if ended:
            self._wanted.pop(name, None)

    async def _take_error(self, said: dict[str, Any]) -> None:
        name = str(said.get("name", ""))
        error = RequestError(int(said.get("status", 400)), str(said.get("code")), str(said.get("detail")))
        self._wanted.pop(name, None)
        if name == "events":
            self._after = None
        await self._send.send(error)


def _first(group: BaseExceptionGroup[ConnectionRejected]) -> ConnectionRejected:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _refused(error: ConnectionRejected) -> ClientError | RequestError | None:
    """What a refusal tells; None where another supervisor may come that does not refuse."""
    if error.status_code >= 500:
        return None
    kind = dict(error.headers or ()).get(b"content-type", b"").decode()
    return refusal(error.status_code, kind, error.body or b"")


@asynccontextmanager
async def open_feed(
    where: Where,
    find: Callable[[str], Awaitable[Session]],
    *,
    after: int | None,
    run: str | None,
    patience: float = math.inf,
) -> AsyncGenerator[Feed, None]:
    """Open a feed; see `Client.open_feed`."""
    feed = Feed(where, find, after, run, patience)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.keep)
            try:
                yield feed
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        failure = group.exceptions[0]
    if failure is not None:
        # The nursery is ours: what the body raised leaves as it came.
        raise failure
