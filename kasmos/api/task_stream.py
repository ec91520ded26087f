"""One task as a stream: its events, each line with the task's id, and what its agent writes, until it has ended."""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable, Mapping

import trio

from kasmos.api.lines import NDJSON, SSE
from kasmos.api.streams import Stream
from kasmos.daemon.bus import Subscription
from kasmos.daemon.service import Service
from kasmos.exceptions import RequestError
from kasmos.model import event as ev
from kasmos.model.codec import encode
from kasmos.model.event import Record
from kasmos.model.session import SessionKind
from kasmos.model.view import Ended, SessionState, TaskView

OUTPUT_PIECE = 16_384
"""Bytes of output in one line, at most."""


class TaskStream(Stream):
    """Everything about one task, until it has ended.

    Args:
        task: which.
        output: whether what its agent writes is part of it.
        offset: where to begin with the output of the session that is under way.
    """

    def __init__(
        self, service: Service, subscription: Subscription, kind: str, task: TaskView, *, output: bool, offset: int = 0
    ) -> None:
        super().__init__(subscription, kind)
        self._service = service
        self._run_id, self._task_id = task.run_id, task.spec.id
        self._id = task.id
        self._single = task.spec.single
        # Who comes back after the end has seen all there is.
        self._over = isinstance(task.state, Ended) and task.ended_seq <= subscription.cursor
        self._follower = _OutputLines(service, self._line, task, offset) if output else None
        if self._follower is not None and subscription.cursor:
            self._follower.begin_with_present(subscription.cursor)

    @property
    def heartbeat(self) -> bytes:
        return self._line({"type": "heartbeat", "task_id": self._id}) if self.kind == NDJSON else b": heartbeat\n\n"

    async def render(self, record: Record) -> bytes:
        if not self._service.concerns(record, self._run_id, self._task_id if not self._single else None):
            return b""
        before = b""
        if self._follower is not None:
            before = await self._follower.before(record)
        return before + self.lines.render(record, self.kind, task_id=self._id if self._single else None)

    def is_last(self, record: Record) -> bool:
        # An end that a retry has undone is not the last one.
        event = record.event
        if not isinstance(event, ev.TaskEnded) or (event.run_id, event.task_id) != (self._run_id, self._task_id):
            return False
        return isinstance(self._service.world.runs[self._run_id].tasks[self._task_id].state, Ended)

    async def beside(self) -> bytes:
        return b"" if self._follower is None else await self._follower.ready()

    def waits_beside(self) -> Callable[[], Awaitable[None]] | None:
        return None if self._follower is None else self._follower.wait

    def _line(self, value: Mapping[str, object]) -> bytes:
        if self.kind == SSE:
            return b"event: %s\ndata: %s\n\n" % (str(value["type"]).encode(), encode(value))
        return encode(value) + b"\n"


class _OutputLines:
    """What the agent of a task writes, as lines without numbers; each says where it stands in its session's output."""

    def __init__(
        self, service: Service, line: Callable[[Mapping[str, object]], bytes], task: TaskView, offset: int
    ) -> None:
        self._service = service
        self._line = line
        self._run_id, self._task_id, self._id = task.run_id, task.spec.id, task.id
        self._session: str | None = None
        self._first_offset = offset
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def begin_with_present(self, cursor: int) -> None:
        """Take up the session that was begun before the place where the stream begins, and had not ended there."""
        task = self._service.world.runs[self._run_id].tasks[self._task_id]
        for session_id in reversed(task.sessions):
            session = self._service.world.sessions.get(session_id)
            if session is not None and session.kind is SessionKind.AGENT and not session.attended:
                if session.first_seq <= cursor and (session.state.live or session.last_seq > cursor):
                    self._follow(session_id, self._first_offset)
                return

    async def before(self, record: Record) -> bytes:
        """What has to be told before this event is."""
        event = record.event
        if isinstance(event, ev.SessionStarting) and event.kind is SessionKind.AGENT and not event.attended:
            text = await self._drain()
            self._follow(event.session_id, 0)
            return text
        ends = ev.SessionEnded | ev.SessionLost | ev.SessionStartFailed | ev.TaskEnded
        return await self._drain() if isinstance(event, ends) else b""

    async def ready(self) -> bytes:
        """What can be read now."""
        session = self._service.world.sessions.get(self._session or "")
        # Before it has started, there is no place yet where it could have written.
        if session is None or session.state is SessionState.STARTING:
            return b""
        return await self._read()

    async def wait(self) -> None:
        """Wait until there may be more to read."""
        if self._session is None:
            await trio.sleep_forever()
        else:
            await self._service.sessions.wait_for_output(self._session, self._offset)

    def _follow(self, session_id: str, offset: int) -> None:
        self._session, self._offset = session_id, offset
        self._decoder.reset()

    async def _drain(self) -> bytes:
        parts = []
        while self._session is not None and (part := await self._read(final=True)):
            parts.append(part)
        self._session = None
        return b"".join(parts)

    async def _read(self, *, final: bool = False) -> bytes:
        assert self._session is not None
        try:
            output = await self._service.sessions.read_output(self._session, self._offset, OUTPUT_PIECE)
        except RequestError as error:
            told = {"type": error.code, "task_id": self._id, "session_id": self._session, "detail": error.detail}
            self._session = None
            return self._line(told)
        chunk = output.chunk
        self._offset = chunk.end
        text = self._decoder.decode(chunk.data, final=final and len(chunk.data) < OUTPUT_PIECE)
        if not text and not chunk.lost:
            return b""
        return self._line(
            {
                "type": "output",
                "task_id": self._id,
                "session_id": self._session,
                "offset": chunk.offset,
                "next_offset": chunk.end,
                "lost": chunk.lost,
                "text": text,
            }
        )
