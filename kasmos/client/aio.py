"""An asynchronous client for programs on Trio. The one module that imports httpx.

Its streams of events come back by themselves: see `kasmos.client.streams`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import trio

from kasmos.client.results import Task
from kasmos.client.shapes import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    NDJSON,
    PATIENCE,
    SILENCE,
    TIMEOUT,
    OutputPiece,
    output_path,
    output_piece,
    read_json,
    refusal,
    submission,
)
from kasmos.client.streams import AgentEventStream, Answer, EventStream, Stream, TaskStream
from kasmos.client.verbs import Verbs
from kasmos.exceptions import ClientError

if TYPE_CHECKING:
    from kasmos.client.feed import Feed


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
        stream = EventStream(self, after, run, patience)
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
        stream = TaskStream(self, task, after, output, patience)
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
        stream = AgentEventStream(self, session, cursor, patience)
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

    async def open_answer(self, path: str) -> Answer:
        """An answer in lines of JSON that is read as it comes, for as long as it goes on.

        Raises:
            ClientError: the supervisor cannot be reached.
            RequestError: it refused.
        """
        timeout = httpx.Timeout(TIMEOUT, read=SILENCE)
        try:
            request = self._http.build_request("GET", path, headers={"Accept": NDJSON}, timeout=timeout)
            response = await self._http.send(request, stream=True)
            if response.is_error:
                body = await response.aread()
                raise refusal(response.status_code, response.headers.get("Content-Type", ""), body)
        except httpx.HTTPError as error:
            raise _unreached(error) from error
        return _LongAnswer(response)

    async def _exchange(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise _unreached(error) from error
        if response.is_error:
            raise refusal(response.status_code, response.headers.get("Content-Type", ""), response.content)
        return response


class _LongAnswer:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces = response.aiter_raw()

    async def next_piece(self) -> bytes | None:
        try:
            return await anext(self._pieces, None)
        except httpx.HTTPError as error:
            raise _unreached(error) from error

    async def aclose(self) -> None:
        await self._response.aclose()


def _unreached(error: httpx.HTTPError) -> ClientError:
    if isinstance(error, httpx.ConnectError):
        return ClientError("no supervisor is running (nobody listens on its socket)")
    if isinstance(error, httpx.TimeoutException):
        return ClientError("the supervisor does not answer")
    return ClientError(f"the supervisor broke off its answer: {error or type(error).__name__}")
