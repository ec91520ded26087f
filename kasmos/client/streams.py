"""The streams of the asynchronous client: they come back by themselves.

When a supervisor dies and another takes its place, or a connection breaks, a stream resumes at the number
after the last event it gave out. How it is reached is the client's: a `Source`.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, Self, TypeVar
from urllib.parse import quote

import trio

from kasmos.client.results import AgentEnded, AgentSaid, Concluded, Task, TaskOutput
from kasmos.client.shapes import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    agent_events_path,
    events_path,
    read_agent_line,
    task_events_path,
)
from kasmos.exceptions import ClientError, RequestError
from kasmos.model.codec import CodecError, decode, decode_record
from kasmos.model.event import Record, SessionStarting
from kasmos.model.session import SessionKind

E = TypeVar("E")


class Answer(Protocol):
    """An answer that goes on for as long as it likes."""

    async def next_piece(self) -> bytes | None:
        """The next bytes of it; None when the supervisor has ended it in order.

        Raises:
            ClientError: it broke off.
        """

    async def aclose(self) -> None:
        """Leave it."""


class Source(Protocol):
    """Where answers come from."""

    async def ask(self, path: str) -> bytes:
        """The whole answer.

        Raises:
            ClientError: the supervisor cannot be reached.
            RequestError: it refused.
        """

    async def open_answer(self, path: str) -> Answer:
        """An answer in lines of JSON, as it comes; raises as `ask`."""


class Stream(Generic[E]):
    """Events in order, without a gap or a repeat, over as many connections as it takes.

    Iterate over it, once and in one Trio task.

    Raises:
        ClientError: while iterating: no supervisor was reached for as long as the patience lasts.
        RequestError: while iterating: it refused, for instance because the run is unknown.
    """

    def __init__(self, source: Source, after: int, run: str | None, patience: float) -> None:
        self._source = source
        self._cursor = after
        self._run = run
        self._patience = patience
        self._answer: Answer | None = None
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
            if self._answer is None:
                self._answer = await self._source.open_answer(self._path())
            piece = await self._answer.next_piece()
        except ClientError as error:
            await self._hang_up()
            await self._wait_to_retry(error)
        except trio.Cancelled:
            # Maybe in the middle of a piece: a new connection starts after the last whole event.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await self._hang_up()
            raise
        else:
            if piece is not None:
                self._take(piece)
            else:
                await self._leave_or_retry()

    async def _leave_or_retry(self) -> None:
        await self._hang_up()
        if await self._is_over():
            self._closed = True
        else:
            # It left in order. Whoever takes its place has the same journal.
            await self._wait_to_retry(ClientError("the supervisor broke off its answer: the stream has ended"))

    def _take(self, piece: bytes) -> None:
        self._pause, self._silent_since = 0.0, None
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._items.extend(item for line in lines if line and (item := self._read(line)) is not None)

    async def _wait_to_retry(self, error: ClientError) -> None:
        now = trio.current_time()
        since = self._silent_since = now if self._silent_since is None else self._silent_since
        if now + self._pause > since + self._patience:
            raise error
        # Nobody listens: there is no event to wait for, so it is tried again, ever less often.
        await trio.sleep(self._pause)
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)

    async def _hang_up(self) -> None:
        answer, self._answer, self._rest = self._answer, None, b""
        if answer is not None:
            await answer.aclose()


class EventStream(Stream[Record]):
    """Every event, or every one about a run; see `Stream`."""


class TaskStream(Stream["Record | TaskOutput"]):
    """Everything about one task, until it has ended; see `Stream`."""

    def __init__(self, source: Source, task: str, after: int, output: bool, patience: float) -> None:
        super().__init__(source, after, None, patience)
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
            answer = await self._source.ask(f"/v1/tasks/{quote(self._task, safe='')}")
        except (ClientError, RequestError):
            return False
        return decode(answer, Task).ended


class AgentEventStream(Stream[AgentSaid]):
    """What a session's agent says and does, until the session has ended; see `Stream`."""

    def __init__(self, source: Source, session: str, cursor: str, patience: float) -> None:
        super().__init__(source, 0, None, patience)
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
