"""The sessions that run at this moment, in this process."""

from __future__ import annotations

import trio

from kasmos.sessions.protocol import ExecutionSession


class LiveSessions:
    """The sessions that run at this moment, by id."""

    def __init__(self) -> None:
        self._sessions: dict[str, ExecutionSession] = {}
        self._some = trio.Event()
        """Set while there is one."""
        self._none = trio.Event()
        """Set while there is none."""
        self._none.set()

    def started(self, session: ExecutionSession) -> None:
        """A session runs."""
        self._sessions[session.spec.id] = session
        self._some.set()
        if self._none.is_set():
            self._none = trio.Event()

    def ended(self, session_id: str) -> None:
        """A session has ended."""
        self._sessions.pop(session_id, None)
        if not self._sessions:
            if self._some.is_set():
                self._some = trio.Event()
            self._none.set()

    async def wait_any(self) -> None:
        """Wait until a session runs. Cancellation: no effect."""
        await self._some.wait()

    async def wait_none(self) -> None:
        """Wait until no session runs. Cancellation: no effect."""
        await self._none.wait()

    def all(self) -> list[ExecutionSession]:
        """Every session that runs."""
        return list(self._sessions.values())

    def get(self, session_id: str) -> ExecutionSession | None:
        """The live session with this id."""
        return self._sessions.get(session_id)
