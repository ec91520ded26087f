"""Slots: how many children may run at once, and whose turn it is when one becomes free.

Runs that got less than they wanted stand in one queue, first come, first served, one at a time: thousands of them may
wait, and a slot that becomes free wakes those at the head of the queue and nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from itertools import islice

from kasmos.model.view import Active, BackingOff, Pending, RunState, TaskView, World


class Slots:
    """The slots of one supervisor, and the queue for them. Never blocks.

    Args:
        limit: how many children may run at once.
        children: those that run.
        world: gives the present.
    """

    def __init__(self, limit: int, children: Sized, world: Callable[[], World]) -> None:
        self.limit = limit
        """How many children may run at once; what runs already goes on when it is lowered."""
        self.promised = 0
        """How many more children there will be when what is being recorded is durable."""
        self._children = children
        self._world = world
        self._queue: dict[str, None] = {}
        self._orphans: set[tuple[str, str]] | None = None
        """Tasks an earlier supervisor left under way and that have no child yet; None before the first look."""

    def free_for(self, run_id: str, ending: int = 0) -> int:
        """How many children a run may start: not those for whom others have waited longer, nor those for what other
        runs are still to take up again.

        Args:
            run_id: the run.
            ending: children that do nothing more: their slots are free already.
        """
        others = sum(1 for run, _ in self._waiting_orphans() if run != run_id)
        free = self.limit - len(self._children) + ending - self.promised - others
        for position, queued in enumerate(islice(self._queue, max(0, free))):
            if queued == run_id:
                return free - position
        return max(0, free - len(self._queue))

    def taken_up(self, run_id: str, task_id: str) -> None:
        """A task has a child again."""
        if self._orphans:
            self._orphans.discard((run_id, task_id))

    def queue(self, run_id: str, *, served: bool) -> None:
        """A run wants more than it got: it keeps its place, or has to queue up again if it got something."""
        if served:
            self._queue.pop(run_id, None)
        self._queue[run_id] = None

    def leave(self, run_id: str) -> None:
        """A run wants no more."""
        self._queue.pop(run_id, None)

    def heads(self) -> Iterator[str]:
        """The runs for which there is a slot now, the longest waiting first."""
        free = self.limit - len(self._children) - self.promised
        yield from [run_id for run_id in islice(self._queue, max(0, free)) if self.free_for(run_id) > 0]

    def _waiting_orphans(self) -> set[tuple[str, str]]:
        orphans = self._find_orphans() if self._orphans is None else self._orphans
        runs = self._world().runs
        self._orphans = {(run, task) for run, task in orphans if is_under_way(runs[run].tasks[task])}
        return self._orphans

    def _find_orphans(self) -> set[tuple[str, str]]:
        going = (run for run in self._world().runs.values() if run.state in (RunState.RUNNING, RunState.PARKED))
        return {(run.id, name) for run in going for name, task in run.tasks.items() if is_under_way(task)}


def is_under_way(task: TaskView) -> bool:
    """Whether something has been begun for it that has not ended."""
    return isinstance(task.state, Active | BackingOff)


def is_pending(task: TaskView) -> bool:
    """Whether nothing has been begun for it."""
    return isinstance(task.state, Pending)
