"""The gate before new work: whether it is taken, and by which configuration it is done."""

from __future__ import annotations

import trio

from kasmos.daemon.terms import OrchestratorLike, Surroundings
from kasmos.exceptions import RequestError


class Gate:
    """The gate of one supervisor."""

    def __init__(self, orchestrator: OrchestratorLike, surroundings: Surroundings) -> None:
        self._orchestrator = orchestrator
        self._surroundings = surroundings

    @property
    def open(self) -> bool:
        """Whether new work is taken."""
        return self._orchestrator.accepting and self._surroundings.life.order is None

    def require_open(self) -> None:
        """See to it that work may begin.

        Raises:
            RequestError: 503 `draining`, or what `Health.require_writable` says.
        """
        if not self.open:
            raise RequestError(503, "draining", "the supervisor is shutting down and takes no new work")
        self._surroundings.health.require_writable()

    async def reconfigure(self) -> None:
        """See to it that a profile that was mended counts for what is begun next.

        Raises:
            ConfigError: the configuration is wrong, and the old one stays in force.
        """
        await trio.to_thread.run_sync(self._surroundings.configure, {})
