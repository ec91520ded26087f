"""The supervisor: its nursery owns every child.

A child that fails by a bug of ours ends its own task, with a cause, and nothing else.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from kasmos.model import event as ev
from kasmos.model.session import StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.value import define
from kasmos.supervision.recipe import Surroundings

if TYPE_CHECKING:
    from kasmos.supervision.child import Child


@define(eq=False)
class _Entry:
    child: Child
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class Supervisor:
    """Runs children; made by `open_supervisor`."""

    def __init__(self, nursery: trio.Nursery, around: Surroundings, report: Callable[[str], None]) -> None:
        self._nursery = nursery
        self._around = around
        self._report = report
        self._entries: dict[tuple[str, str], _Entry] = {}

    @property
    def surroundings(self) -> Surroundings:
        """What children are made with."""
        return self._around

    def children(self, run_id: str) -> dict[str, Child]:
        """The live children of a run, by task id."""
        return {task: entry.child for (run, task), entry in self._entries.items() if run == run_id}

    def __len__(self) -> int:
        return len(self._entries)

    def start(self, child: Child, ended: Callable[[], None]) -> None:
        """Run a child; *ended* is called when it is over, whatever happened. Never blocks."""
        entry = _Entry(child)
        self._entries[child.run_id, child.task_id] = entry
        self._nursery.start_soon(self._run, entry, ended)

    async def _run(self, entry: _Entry, ended: Callable[[], None]) -> None:
        child = entry.child
        try:
            with entry.scope:
                await child.run()
        # A bug of ours must not take the other children down: it is this task's failure.
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            name = f"{child.run_id}.{child.task_id}"
            self._report(f"a bug of kasmos ended task {name}: {error!r}; `kas why {name}` shows where")
            cause = Cause(CauseKind.INTERNAL, f"a bug of kasmos: {error!r}", tail=text[-2000:])
            await self._around.ledger.append(ev.TaskEnded(child.run_id, child.task_id, Outcome.LOST, cause))
        finally:
            del self._entries[child.run_id, child.task_id]
            ended()

    def start_stray(self, session_id: str, end: Callable[[], Awaitable[None]]) -> None:
        """Deal with a session that belongs to no task, beside the children. Never blocks."""

        async def run() -> None:
            try:
                await end()
            # As for children: our bug ends this one thing.
            except Exception as error:
                self._report(f"a bug of kasmos: the stray session {session_id} was not ended: {error!r}")

        self._nursery.start_soon(run)

    def request_stop_all(self, reason: StopReason) -> None:
        """Ask every child to stop. Never blocks."""
        for entry in self._entries.values():
            entry.child.request_stop(reason)

    def hurry_all(self) -> None:
        """Cut every stop short. Never blocks."""
        for entry in self._entries.values():
            entry.child.hurry()

    def detach(self, run_id: str, task_id: str) -> None:
        """Leave a task to the next supervisor, its program too if one runs. Never blocks."""
        entry = self._entries.get((run_id, task_id))
        if entry is not None:
            entry.child.detach()
            entry.scope.cancel()

    def detach_all(self) -> None:
        """Leave every running program to the next supervisor. Never blocks."""
        for entry in list(self._entries.values()):
            entry.child.detach()
            entry.scope.cancel()


@asynccontextmanager
async def open_supervisor(around: Surroundings, *, report: Callable[[str], None]) -> AsyncGenerator[Supervisor, None]:
    """Open the supervisor's nursery.

    Leaving the scope detaches what still runs: whoever wants it stopped has asked, and waited, before.
    """
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, around, report)
        try:
            yield supervisor
        finally:
            supervisor.detach_all()
