"""Reading a session's output, wherever it is: from the live session, or from what an ended one has left."""

from __future__ import annotations

from collections.abc import Callable

import trio

from kasmos.daemon.bus import Bus
from kasmos.daemon.terms import OrchestratorLike, Output
from kasmos.exceptions import RequestError, SessionClosedError
from kasmos.model.view import SessionView
from kasmos.sessions.protocol import OutputChunk


def ahead(place: str, session_id: str) -> RequestError:
    """The refusal of a place that a session which has ended has never reached."""
    return RequestError(400, "cursor_ahead", f"{place} is ahead of the output of session {session_id}, which has ended")


class OutputReader:
    """Reads output, and waits for it.

    A session may end, and its end be committed, at any moment in between: whoever waits is woken by both.
    """

    def __init__(
        self,
        orchestrator: OrchestratorLike,
        bus: Bus,
        read_ended: Callable[[SessionView, int, int], OutputChunk],
    ) -> None:
        self._orchestrator = orchestrator
        self._bus = bus
        self._read_ended = read_ended

    def size(self, session: SessionView) -> int:
        """How much a session has written so far."""
        live = self._orchestrator.live_session(session.id)
        return live.output_bytes if live is not None else session.output_bytes

    async def read(self, session: SessionView, offset: int, limit: int, wait: float) -> Output:
        """Read from an absolute offset, or one from the end if it is negative; wait if there is nothing yet.

        Raises:
            RequestError: 410 `output_gone` if it was removed; 400 `cursor_ahead` if it has ended and never was so long.

        Cancellation: no effect.
        """
        if offset < 0:
            offset = max(0, self.size(session) + offset)
        deadline = trio.current_time() + wait
        while True:
            # Taken before the look, so that what happens in between is not missed.
            news = self._bus.news
            output = await self._read_now(session.id, offset, limit)
            if output.chunk.data or output.chunk.lost or output.ended or trio.current_time() >= deadline:
                return output
            with trio.move_on_at(deadline):
                await self._wait_for_output(session.id, offset, news)

    async def wait(self, session_id: str, offset: int) -> None:
        """Wait until there may be something to read from an absolute offset on; it may be nothing all the same.

        Cancellation: no effect.
        """
        await self._wait_for_output(session_id, offset, self._bus.news)

    async def _read_now(self, session_id: str, offset: int, limit: int) -> Output:
        live = self._orchestrator.live_session(session_id)
        if live is not None:
            if offset >= live.output_bytes:
                return Output(OutputChunk(live.output_bytes, b""), ended=False)
            try:
                # A thread: what memory no longer holds is read from the log.
                chunk = await trio.to_thread.run_sync(live.read_nowait, offset, limit)
            except SessionClosedError:
                pass  # It ended between the look and the read: the log has it all.
            else:
                return Output(chunk, ended=False)
        session = self._orchestrator.world.sessions.get(session_id)
        if session is None:
            raise RequestError(410, "output_gone", f"session {session_id} was forgotten while it was read")
        try:
            chunk = await trio.to_thread.run_sync(self._read_ended, session, offset, limit)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and session.state.live:
                # Intent comes first: its log is about to be made.
                return Output(OutputChunk(offset, b""), ended=False)
            detail = f"the output of session {session_id} is gone: {error.strerror or error}"
            raise RequestError(410, "output_gone", detail) from error
        ended = not session.state.live and len(chunk.data) < limit
        if ended and not chunk.data and await self._is_ahead(session, offset):
            raise ahead(f"offset {offset}", session.id)
        return Output(chunk, ended=ended)

    async def _is_ahead(self, session: SessionView, offset: int) -> bool:
        """Whether a session that has ended never wrote so much."""
        if offset <= session.output_bytes:
            return False
        # Of one that was lost nobody counted the bytes.
        before = await trio.to_thread.run_sync(self._read_ended, session, offset - 1, 1)
        return not before.data and not before.lost

    async def _wait_for_output(self, session_id: str, offset: int, news: trio.Event) -> None:
        live = self._orchestrator.live_session(session_id)
        if live is not None:
            try:
                if (await live.read(offset, 1)).data:
                    return
            except SessionClosedError:
                pass
        # It has ended and its end is not committed yet, or it is about to be opened or adopted:
        # either way the next thing to happen is an event.
        await news.wait()
