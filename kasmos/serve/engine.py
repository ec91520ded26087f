"""A supervisor at work, as those hold it who brought it up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import trio

from kasmos.daemon.bus import Bus
from kasmos.daemon.leaving import Leaving, count_waiting
from kasmos.daemon.recovery import Findings
from kasmos.daemon.service import Service
from kasmos.exceptions import StoreError
from kasmos.model import event as ev
from kasmos.model.approval import ApprovalState
from kasmos.model.value import frozen
from kasmos.model.view import World
from kasmos.orchestration.orchestrator import Orchestrator
from kasmos.serve.web import readers_dropped
from kasmos.store.journal import Journal
from kasmos.store.lock import StateLock
from kasmos.telemetry.sources import Sources


class Ground:
    """What the supervisor stands on: the lock of its state root. It is looked at with every commit."""

    def __init__(self, root: Path, lock: StateLock) -> None:
        self.root = root
        self.lost = trio.Event()
        """Set when the lock's file is not ours any more: another supervisor may be at work."""
        self._lock = lock

    def look(self) -> None:
        """See whether it is still there."""
        if not self._lock.still_ours():
            self.lost.set()


_IN_HAND = (ev.SessionAdopted, ev.SessionEnded, ev.SessionLost, ev.SessionNeverStarted, ev.SessionStartFailed)
"""What is recorded when a session that was left is in hand again."""


@frozen
class Engine:
    """A supervisor at work."""

    service: Service
    orchestrator: Orchestrator
    journal: Journal
    bus: Bus
    findings: Findings
    """What recovery found; runs in `to_continue` are under way again, if they were to be taken up."""
    abandon: Callable[[], None]
    """Leaves every running program to the next supervisor; never blocks. Cancel the scope afterwards."""
    ground: Ground
    """What it all stands on; see `watch_ground`."""
    leaving: Leaving
    """How a daemon leaves."""
    awaited: frozenset[str] = frozenset()
    """Sessions of an earlier supervisor that were to be taken up again when this one began."""
    began_at: int = 0
    """Journal number before anything was taken up."""

    async def wait_adopted(self) -> None:
        """Wait until every session that an earlier supervisor left is in hand again, or known to be over."""
        missing = set(self.awaited)
        if not missing:
            return
        async with self.bus.subscribe(self.began_at) as batches:
            async for records in batches:
                missing -= {record.event.session_id for record in records if isinstance(record.event, _IN_HAND)}
                if not missing:
                    return

    async def watch_ground(self) -> NoReturn:
        """Wait until the state root is not ours any more; programs are then left running.

        Raises:
            StoreError: that has happened.
        """
        await self.ground.lost.wait()
        running = ", ".join(f"{session.spec.name} (pid {session.pid})" for session in self.orchestrator.live_sessions)
        self.abandon()
        left = f"; left running: {running}" if running else ""
        raise StoreError(
            f"the state root {self.ground.root} was removed or replaced under this supervisor: "
            f"it begins nothing more and leaves{left}"
        )

    def sources(self) -> Sources:
        """What metrics ask for."""
        return Sources(
            world=lambda: self.journal.world,
            queued=lambda: count_waiting(self.journal.world),
            running=lambda: [
                (session.spec.backend.value, session.spec.profile, session.output_bytes)
                for session in self.orchestrator.live_sessions
            ],
            approvals=lambda: _pending(self.journal.world),
            readers=lambda: self.bus.subscribers,
            dropped=readers_dropped,
            ready=lambda: self.service.life.ready,
        )


def _pending(world: World) -> int:
    """How many questions of agents wait for a human."""
    return sum(1 for approval in world.approvals.values() if approval.state is ApprovalState.OPEN)
