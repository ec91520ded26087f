"""How a daemon leaves: what runs is waited for, left to the next one, or stopped; and it says which.

What has not begun stays queued in the journal in any case, and the next daemon goes on with it by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from kasmos.daemon.bus import Bus
from kasmos.model import event as ev
from kasmos.model.session import StopReason
from kasmos.model.view import Active, BackingOff, RunState, TaskView, World
from kasmos.orchestration.orchestrator import Orchestrator
from kasmos.supervision.supervisor import Supervisor


@attrs.frozen
class Departure:
    """What became of what ran."""

    left: tuple[str, ...] = ()
    """Names of sessions that run on, for the next supervisor."""
    stopped: tuple[str, ...] = ()
    """Names of sessions that were stopped; their tasks begin anew."""
    queued: int = 0
    """Tasks that wait for the next supervisor."""

    def __str__(self) -> str:
        said = []
        if self.left:
            said.append(f"left running: {_some(self.left)}")
        if self.stopped:
            said.append(f"stopped, to begin anew: {_some(self.stopped)}")
        if not said:
            said.append("nothing ran")
        if self.queued:
            said.append(f"{self.queued} task{'s' * (self.queued != 1)} wait for the next daemon")
        return "; ".join(said)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


class Leaving:
    """Takes a supervisor out of its work."""

    def __init__(self, orchestrator: Orchestrator, supervisor: Supervisor, bus: Bus) -> None:
        self._orchestrator = orchestrator
        self._supervisor = supervisor
        self._bus = bus

    async def drain(self, reason: str) -> None:
        """Start nothing new, and wait until nothing runs.

        A task that waits for its next attempt, or for room on the disk, is not waited for.

        Cancellation: what runs goes on; nothing new is started all the same.
        """
        self._orchestrator.hand_on(reason)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._set_aside_what_waits)
            await self._orchestrator.wait_idle()
            nursery.cancel_scope.cancel()

    async def depart(self, reason: str, *, stop: bool) -> Departure:
        """Stop what runs, or leave it running; returns when nothing of it is ours any more.

        Cancellation: what still runs is left running.
        """
        self._orchestrator.hand_on(reason)
        names = tuple(session.spec.name for session in self._orchestrator.live_sessions)
        if stop:
            self._supervisor.request_stop_all(StopReason.INTERRUPTED)
        else:
            self._supervisor.detach_all()
        await self._orchestrator.wait_idle()
        queued = count_waiting(self._orchestrator.world)
        return Departure(stopped=names, queued=queued) if stop else Departure(left=names, queued=queued)

    async def _set_aside_what_waits(self) -> None:
        world = self._orchestrator.world
        for run in world.runs.values():
            for task_id, task in run.tasks.items():
                if isinstance(task.state, BackingOff) or (isinstance(task.state, Active) and task.state.no_room):
                    self._supervisor.detach(run.id, task_id)
        async with self._bus.subscribe(world.seq) as batches:
            async for records in batches:
                for record in records:
                    match record.event:
                        case ev.TaskRetryScheduled(run_id=run_id, task_id=task_id):
                            self._supervisor.detach(run_id, task_id)
                        case ev.SessionNeverStarted(session_id=name, reason=why) if why:
                            session = world.sessions[name]
                            self._supervisor.detach(session.run_id or "", session.task_id or "")


def count_waiting(world: World) -> int:
    """How many tasks of runs that a supervisor goes on with by itself have neither ended nor run."""
    going = (run for run in world.runs.values() if run.state in (RunState.RUNNING, RunState.PARKED))
    return sum(1 for run in going for task in run.tasks.values() if task.outcome is None and not _runs(world, task))


def _runs(world: World, task: TaskView) -> bool:
    session = world.sessions.get(task.state.session_id) if isinstance(task.state, Active) else None
    return session is not None and session.state.live
