"""How a daemon leaves: what runs is waited for, left to the next one, or stopped; and it says which.

What has not begun stays queued in the journal in any case, and the next daemon goes on with it by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from kasmos.daemon.bus import Bus
from kasmos.model import event as ev
from kasmos.model.event import Event
from kasmos.model.session import StopReason
from kasmos.model.value import frozen
from kasmos.model.view import Active, BackingOff, RunState, TaskView, World
from kasmos.orchestration.orchestrator import Orchestrator
from kasmos.store.unwritten import some_of, what_becomes_of
from kasmos.supervision.supervisor import Supervisor

STUCK_TIMEOUT = 5.0
"""Seconds that a disk which takes nothing is waited for when nothing runs here any more."""
HURRIED_TIMEOUT = 0.5
"""The same after a second signal."""


@frozen
class Departure:
    """What became of what ran."""

    left: tuple[str, ...] = ()
    """Names of sessions that run on, for the next supervisor."""
    stopped: tuple[str, ...] = ()
    """Names of sessions that were stopped; their tasks begin anew."""
    queued: int = 0
    """Tasks that wait for the next supervisor."""
    unwritten: tuple[Event, ...] = ()
    """What could not be recorded of it."""

    def __str__(self) -> str:
        said = []
        if self.left:
            said.append(f"left running: {some_of(self.left)}")
        if self.stopped:
            said.append(f"stopped, to begin anew: {some_of(self.stopped)}")
        if not said:
            said.append("nothing ran")
        if self.queued:
            said.append(f"{self.queued} task{'s' * (self.queued != 1)} wait for the next daemon")
        if self.unwritten:
            said.append(f"the disk takes nothing: {len(self.unwritten)} events are not recorded")
            said += what_becomes_of(self.unwritten)
        return "; ".join(said)


@frozen
class Disk:
    """What is to be known of the journal's disk in order to leave."""

    wait_stuck: Callable[[float], Awaitable[None]]
    """Waits until something has waited for so many seconds to be recorded, and still does."""
    unwritten: Callable[[], tuple[Event, ...]]
    """What has not been recorded yet."""
    note_stop: Callable[[str, StopReason], None]
    """Has a session's own records say why it was stopped. Blocks on the disk, and needs no room."""


class Leaving:
    """Takes a supervisor out of its work.

    A disk that takes nothing is waited for within a bound, and never costs a program its life: who is told to leave
    leaves.
    """

    def __init__(self, orchestrator: Orchestrator, supervisor: Supervisor, bus: Bus, disk: Disk) -> None:
        self._orchestrator = orchestrator
        self._supervisor = supervisor
        self._bus = bus
        self._disk = disk
        self._hurried = trio.Event()

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
        recorded = await self.wait_unless_stuck(self._orchestrator.wait_idle)
        unwritten = () if recorded else self._give_up()
        queued = count_waiting(self._orchestrator.world)
        return Departure((), names, queued, unwritten) if stop else Departure(names, (), queued, unwritten)

    async def interrupt(self, reason: str) -> Departure:
        """Stop what runs and put unfinished tasks back; returns when nothing of it is ours any more.

        Cancellation: what still runs is left running.
        """
        names = tuple(session.spec.name for session in self._orchestrator.live_sessions)
        recorded = await self.wait_unless_stuck(partial(self._orchestrator.interrupt, reason))
        return Departure(stopped=names, unwritten=() if recorded else self._give_up())

    async def wait_unless_stuck(self, wait: Callable[[], Awaitable[None]]) -> bool:
        """Wait for something that has to be recorded; False if that was given up.

        It is, when nothing runs here any more and the disk has taken nothing for `STUCK_TIMEOUT` seconds.
        """
        done = False
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await self._wait_hopeless()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            await wait()
            done = True
            nursery.cancel_scope.cancel()
        return done

    def hurry(self) -> None:
        """Cut every stop short, and hardly wait for the disk. Never blocks."""
        self._orchestrator.hurry()
        self._hurried.set()

    async def _wait_hopeless(self) -> None:
        while True:
            # What is being stopped has its own bounds.
            await self._orchestrator.wait_none_live()
            async with trio.open_nursery() as nursery:

                async def stuck(seconds: float, since: trio.Event | None) -> None:
                    if since is not None:
                        await since.wait()
                    await self._disk.wait_stuck(seconds)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(stuck, STUCK_TIMEOUT, None)
                nursery.start_soon(stuck, HURRIED_TIMEOUT, self._hurried)
            if not self._orchestrator.live_sessions:
                return

    def _give_up(self) -> tuple[Event, ...]:
        """Let go of what waits to be recorded, so that the next supervisor makes the same of it as we would have."""
        unwritten = self._disk.unwritten()
        for event in unwritten:
            if isinstance(event, ev.StopRequested):
                self._disk.note_stop(event.session_id, event.reason)
        self._supervisor.detach_all()
        return unwritten

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
