"""An asynchronous client for programs on Trio. The one module that imports httpx.

Streams of events come back by themselves: when a supervisor dies and another takes its place, or a
connection breaks, the stream resumes at the number after the last event it gave out.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx
import trio

from kasmos.client.results import AgentEnded, AgentSaid, Concluded, Task, TaskOutput
from kasmos.client.shapes import (
    NDJSON,
    SILENCE,
    TIMEOUT,
    OutputPiece,
    agent_events_path,
    events_path,
    output_path,
    output_piece,
    read_agent_line,
    read_json,
    refusal,
    submission,
    task_events_path,
)
from kasmos.client.verbs import Verbs
from kasmos.exceptions import ClientError
from kasmos.model.codec import CodecError, decode, decode_record
from kasmos.model.event import Record, SessionStarting
from kasmos.model.session import SessionKind

if TYPE_CHECKING:
    from kasmos.client.feed import Feed

E = TypeVar("E")

PATIENCE = 30.0
"""Seconds for which a stream tries to reach a supervisor again before it gives up."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


@asynccontextmanager
async def connect(
    socket_path: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    timeout: float = TIMEOUT,
) -> AsyncIterator[Client]:
    """Open a client of the supervisor that listens on a socket, or over TCP. Nothing is sent yet.

    Every stream of the client is closed when the scope is left.

    Args:
        socket_path: the Unix socket.
        url: where it listens over TCP, such as `http://127.0.0.1:7878`; instead of the socket.
        token: what lets us in over TCP, where one is needed.
        timeout: seconds for an answer.
    """
    if (socket_path is None) == (url is None):
        raise ValueError("one of socket_path and url is needed")
    transport = httpx.AsyncHTTPTransport(uds=None if socket_path is None else os.fspath(socket_path))
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        transport=transport, base_url=url or "http://kasmos", headers=headers, timeout=timeout
    ) as http:
        client = Client(http, timeout, None if socket_path is None else os.fspath(socket_path), url, token)
        try:
            yield client
        finally:
            # Closing a connection waits for nobody; the shield lets it happen although we are cancelled.
            with trio.move_on_after(1.0, shield=True):
                await client.close_streams()


class Client(Verbs):
    """A supervisor's commands and queries; made by `connect`.

    Raises:
        ClientError: in every method: it could not be reached, or broke off its answer.
        RequestError: in every method: it refused.
    """

    def __init__(
        self, http: httpx.AsyncClient, timeout: float, socket_path: str | None, url: str | None, token: str | None
    ) -> None:
        self._http = http
        self._timeout = timeout
        self._where = (socket_path, url, token)
        self._streams: set[Stream[Any]] = set()

    async def ask(self, path: str) -> bytes:
        return (await self._exchange("GET", path)).content

    async def tell(
        self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None, patient: bool = False
    ) -> bytes:
        headers = {} if key is None else {"Idempotency-Key": key}
        give_up = trio.current_time() + (PATIENCE if patient else 0.0)
        pause = FIRST_PAUSE
        while True:
            try:
                return (await self._exchange("POST", path, json=dict(body or {}), headers=headers)).content
            except ClientError:
                if trio.current_time() + pause > give_up:
                    raise
            # Nobody listens: there is nothing to wait for but the next one's coming.
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def get(self, path: str) -> Any:
        """Ask, and give back the answer's JSON."""
        return read_json((await self._exchange("GET", path)).content)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Command, and give back the answer's JSON.

        Cancellation: the command may have been carried out.
        """
        return read_json((await self._exchange("POST", path, json=dict(body or {}))).content)

    async def status(self) -> Any:
        """The snapshot of `GET /v1/status`."""
        return await self.get("/v1/status")

    async def submit_run(self, document: bytes, source: str, **options: Any) -> Any:
        """Submit a plan document, and give back what became of it.

        Args:
            source: the document's absolute path, or `-`.
            options: `fresh`, `agent`, `mode`, `max_concurrent`, `task_timeout`, `on_failure`.

        Cancellation: the run may have been started.
        """
        return await self.post("/v1/runs", submission(document, source, options))

    async def output(self, session: str, offset: int = 0, *, limit: int = 65_536, wait: float = 0.0) -> OutputPiece:
        """Read a session's output from an absolute offset; a negative one counts from the end.

        Args:
            wait: seconds to wait for something to read.
        """
        path = output_path(session, offset, limit, wait)
        response = await self._exchange("GET", path, timeout=self._timeout + wait)
        return output_piece(response.headers.get, response.content)

    def events(self, after: int = 0, *, run: str | None = None, patience: float = PATIENCE) -> EventStream:
        """Every event with a number above *after*, history first, then as they happen, for ever.

        Args:
            run: only those about this run.
            patience: seconds without a supervisor after which the stream fails with `ClientError`.
        """
        stream = EventStream(self._http, after, run, patience)
        self._streams.add(stream)
        return stream

    def follow(self, task: str, *, after: int = 0, output: bool = True, patience: float = PATIENCE) -> TaskStream:
        """Everything about a task, history first, until it has ended: its events, and what its agent writes.

        Args:
            task: the task's id.
            after: only events with numbers above this one.
            output: whether what its agent writes is part of it.
            patience: seconds without a supervisor after which the stream fails with `ClientError`.
        """
        stream = TaskStream(self._http, task, after, output, patience)
        self._streams.add(stream)
        return stream

    def agent_events(self, session: str, *, cursor: str = "", patience: float = PATIENCE) -> AgentEventStream:
        """What a session's agent says and does, from the beginning until the session has ended.

        Usage::

            async for said in kas.agent_events("coder"):
                match said.event:
                    case Message(text=text): ...
                    case ToolCall(tool=tool, input=given): ...

        The kinds of event are in `kasmos.model.agent_event`.

        Args:
            session: its id or name, or a task, of which the newest session is meant.
            cursor: only what is behind this place, the `cursor` of an event.
            patience: seconds without a supervisor after which the stream fails with `ClientError`.
        """
        stream = AgentEventStream(self._http, session, cursor, patience)
        self._streams.add(stream)
        return stream

    @asynccontextmanager
    async def open_feed(
        self, *, after: int | None = 0, run: str | None = None, patience: float = PATIENCE
    ) -> AsyncIterator[Feed]:
        """Subscribe to events and to the output of sessions, over one WebSocket that comes back by itself.

        Usage::

            async with kas.open_feed(after=(await kas.status())["seq"]) as feed:
                await feed.follow_output("coder")
                async for item in feed:
                    match item:
                        case SessionOutput(text=text): ...
                        case Record(event=event): ...

        Args:
            after: events with numbers above this one, history first; None leaves events out.
            run: only those about this run.
            patience: seconds without a supervisor after which iterating fails with `ClientError`.

        Cancellation: reaches the block.
        """
        # Late: most who connect need no WebSocket.
        from kasmos.client import feed as feeds

        async with feeds.open_feed(
            feeds.Where(*self._where), self.session, after=after, run=run, patience=patience
        ) as feed:
            yield feed

    async def wait(self, task: str) -> Task:
        """Wait until a task has ended, over as many supervisors as that takes; the task as it is then."""
        async for _ in self.follow(task, output=False):
            pass
        return await self.task(task)

    async def close_streams(self) -> None:
        """Close every stream that is still open."""
        while self._streams:
            await self._streams.pop().aclose()

    async def _exchange(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise _unreached(error) from error
        if response.is_error:
            raise refusal(response.status_code, response.headers.get("Content-Type", ""), response.content)
        return response


class Stream(Generic[E]):
    """Events in order, without a gap or a repeat, over as many connections as it takes.

    Iterate over it, once and in one Trio task.

    Raises:
        ClientError: while iterating: no supervisor was reached for as long as the patience lasts.
        RequestError: while iterating: it refused, for instance because the run is unknown.
    """

    def __init__(self, http: httpx.AsyncClient, after: int, run: str | None, patience: float) -> None:
        self._http = http
        self._cursor = after
        self._run = run
        self._patience = patience
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None
        self._rest = b""
        self._items: deque[E] = deque()
        self._closed = False
        self._pause = 0.0
        self._silent_since: float | None = None

    @property
    def cursor(self) -> int:
        """Number of the newest event that was given out; where another stream would resume."""
        return self._cursor

    def _path(self) -> str:
        return events_path(self._cursor, self._run)

    def _read(self, line: bytes) -> E | None:
        """What a line says; None for a heartbeat, or an event that only a newer kasmos knows."""
        try:
            return decode_record(line)  # type: ignore[return-value]  # a stream of records, here
        except CodecError:
            return None

    async def _is_over(self) -> bool:
        """Whether a stream that the supervisor has ended is to be left at that."""
        return False

    def _give_out(self, item: E) -> None:
        """An item is given out: the place to resume is after it."""
        if isinstance(item, Record):
            self._cursor = item.seq

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """The next event.

        Cancellation: nothing is skipped; may be called again.
        """
        while not self._items or self._closed:
            if self._closed:
                raise StopAsyncIteration
            await self._receive()
        item = self._items.popleft()
        self._give_out(item)
        return item

    async def aclose(self) -> None:
        """Leave the stream. Idempotent."""
        self._closed = True
        await self._hang_up()

    async def _receive(self) -> None:
        """Wait for a piece of the answer, on a new connection if need be."""
        try:
            if self._pieces is None:
                self._pieces = await self._open()
            self._take(await anext(self._pieces))
        except StopAsyncIteration:
            await self._hang_up()
            if await self._is_over():
                self._closed = True
                return
            # It left in order. Whoever takes its place has the same journal.
            await self._wait_to_retry(httpx.RemoteProtocolError("the stream has ended"))
        except httpx.HTTPError as error:
            await self._hang_up()
            await self._wait_to_retry(error)
        except trio.Cancelled:
            # Maybe in the middle of a piece: a new connection starts after the last whole event.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await self._hang_up()
            raise

    def _take(self, piece: bytes) -> None:
        self._pause, self._silent_since = 0.0, None
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._items.extend(item for line in lines if line and (item := self._read(line)) is not None)

    async def _wait_to_retry(self, error: httpx.HTTPError) -> None:
        now = trio.current_time()
        since = self._silent_since = now if self._silent_since is None else self._silent_since
        if now + self._pause > since + self._patience:
            raise _unreached(error) from error
        # Nobody listens: there is no event to wait for, so it is tried again, ever less often.
        await trio.sleep(self._pause)
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)

    async def _open(self) -> AsyncIterator[bytes]:
        request = self._http.build_request(
            "GET",
            self._path(),
            headers={"Accept": NDJSON},
            timeout=httpx.Timeout(TIMEOUT, read=SILENCE),
        )
        response = await self._http.send(request, stream=True)
        if response.is_error:
            body = await response.aread()
            raise refusal(response.status_code, response.headers.get("Content-Type", ""), body)
        self._response = response
        return response.aiter_raw()

    async def _hang_up(self) -> None:
        response, self._response = self._response, None
        self._pieces, self._rest = None, b""
        if response is not None:
            await response.aclose()


class EventStream(Stream[Record]):
    """Every event, or every one about a run; see `Stream`."""


class TaskStream(Stream["Record | TaskOutput"]):
    """Everything about one task, until it has ended; see `Stream`."""

    def __init__(self, http: httpx.AsyncClient, task: str, after: int, output: bool, patience: float) -> None:
        super().__init__(http, after, None, patience)
        self._task = task
        self._output = output
        self._offset = 0

    def _path(self) -> str:
        return task_events_path(self._task, self._cursor, self._offset if self._output else None)

    def _read(self, line: bytes) -> Record | TaskOutput | None:
        if b'"type":"output"' in line[:20]:
            return decode(line, TaskOutput)
        return super()._read(line)

    def _give_out(self, item: Record | TaskOutput) -> None:
        super()._give_out(item)
        match item:
            case TaskOutput():
                self._offset = item.next_offset
            case Record(event=SessionStarting(kind=SessionKind.AGENT, attended=False)):
                self._offset = 0

    async def _is_over(self) -> bool:
        try:
            response = await self._http.get(f"/v1/tasks/{quote(self._task, safe='')}")
        except httpx.HTTPError:
            return False
        return not response.is_error and decode(response.content, Task).ended


class AgentEventStream(Stream[AgentSaid]):
    """What a session's agent says and does, until the session has ended; see `Stream`."""

    def __init__(self, http: httpx.AsyncClient, session: str, cursor: str, patience: float) -> None:
        super().__init__(http, 0, None, patience)
        self._session = session
        self._place = cursor
        self._ended = False
        self.conclusion: Concluded | None = None
        """What its program said of its own end, once the stream has ended and if it said anything."""

    @property
    def place(self) -> str:
        """The place behind the newest event that was given out; where another stream would go on."""
        return self._place

    def _path(self) -> str:
        return agent_events_path(self._session, self._place)

    def _read(self, line: bytes) -> AgentSaid | None:
        try:
            said = read_agent_line(line)
        except CodecError:
            return None
        if isinstance(said, AgentEnded):
            self._ended, self.conclusion = True, said.conclusion
            return None
        return said

    def _give_out(self, item: AgentSaid) -> None:
        # By its id from now on: its name may be that of a newer session when the connection breaks.
        self._session, self._place = item.session_id, item.cursor

    async def _is_over(self) -> bool:
        return self._ended


def _unreached(error: httpx.HTTPError) -> ClientError:
    if isinstance(error, httpx.ConnectError):
        return ClientError("no supervisor is running (nobody listens on its socket)")
    if isinstance(error, httpx.TimeoutException):
        return ClientError("the supervisor does not answer")
    return ClientError(f"the supervisor broke off its answer: {error or type(error).__name__}")
