"""Sessions: looked at, read, stopped."""

from __future__ import annotations

from kasmos.daemon.naming import session_called
from kasmos.daemon.reading import OutputReader
from kasmos.daemon.terms import OrchestratorLike, Output, Surroundings
from kasmos.exceptions import SupervisionError
from kasmos.model.view import SessionView, World


class Sessions:
    """The sessions of one supervisor; for what every method may raise see `Service`."""

    def __init__(self, orchestrator: OrchestratorLike, surroundings: Surroundings, reader: OutputReader) -> None:
        self._orchestrator = orchestrator
        self._surroundings = surroundings
        self._reader = reader

    @property
    def _world(self) -> World:
        return self._orchestrator.world

    def list(self) -> tuple[SessionView, ...]:
        """Every session, newest first."""
        return tuple(reversed(self._world.sessions.values()))

    def get(self, name: str) -> SessionView:
        """The session with this id or name, or the newest one of the task called so."""
        return session_called(self._world, name)

    def output_bytes(self, session: SessionView) -> int:
        """How much a session has written so far."""
        return self._reader.size(session)

    def last_output_at(self, session: SessionView) -> float | None:
        """When a live session last wrote something."""
        return self._surroundings.last_output_at(session.id) if session.state.live else None

    async def read_output(self, name: str, offset: int, limit: int, wait: float = 0.0) -> Output:
        """Read a session's output from an absolute offset; a negative one counts from the end.

        Args:
            name: what the session is called.
            offset: where to begin.
            limit: the most bytes to give.
            wait: seconds to wait for something to read, if there is nothing yet.

        Raises:
            RequestError: 410 `output_gone` if it was removed; 400 `cursor_ahead` if it has ended and never was so long.

        Cancellation: no effect.
        """
        session = self.get(name)
        return await self._reader.read(session, offset, limit, wait)

    async def wait_for_output(self, session_id: str, offset: int) -> None:
        """Wait until there may be something to read of a session's output; it may be nothing all the same.

        Cancellation: no effect.
        """
        await self._reader.wait(session_id, offset)

    async def stop(self, name: str) -> SessionView:
        """Stop one session, politely and then firmly."""
        session = self.get(name)
        if not session.state.live:
            raise SupervisionError(f"session {session.id} has ended already")
        await self._orchestrator.stop_session(session.id)
        return self._world.sessions[session.id]
