"""Giving a command: a run is had to oneself from the look at it to the commit of what follows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from kasmos.exceptions import SupervisionError
from kasmos.model.view import RunView, TaskView, World
from kasmos.orchestration.driver import Driver

COMMIT_TIMEOUT = 5.0
"""Seconds that who gives a command waits for their turn, then for its record, until they are told that it cannot be."""


class Command:
    """How commands are given; one for all."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def _world(self) -> World:
        return self._driver.world

    @asynccontextmanager
    async def over(self, run_id: str) -> AsyncGenerator[None, None]:
        """Have a run to oneself, from a look at it to the commit of what follows.

        Who asked cannot go away in between: what is recorded is also acted upon.

        Raises:
            SupervisionError: there is no such run; or nothing can be recorded.
        """
        self.run(run_id)
        lock = self._driver.lock(run_id)
        # Bounded, both: a full disk must not keep anybody from leaving, and who has the lock may be waiting for it.
        with trio.move_on_after(COMMIT_TIMEOUT) as turn:
            await lock.acquire()
        if turn.cancelled_caught:
            raise SupervisionError("nothing can be recorded at present; ask again when it can")
        try:
            commit = trio.CancelScope(shield=True, deadline=trio.current_time() + COMMIT_TIMEOUT)
            with commit:
                yield
        finally:
            lock.release()
        if commit.cancelled_caught:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise SupervisionError("nothing can be recorded at present; what was asked for may still come to pass")

    def require_accepting(self) -> None:
        """See to it that new work is taken.

        Raises:
            SupervisionError: the supervisor is leaving.
        """
        if self._driver.leaving is not None:
            raise SupervisionError("the supervisor is leaving and takes no new work; try again when it has left")

    def run(self, run_id: str) -> RunView:
        """The run with this id.

        Raises:
            SupervisionError: there is none.
        """
        run = self._world.runs.get(run_id)
        if run is None:
            raise SupervisionError(f"there is no run {run_id}; `kas runs` lists them")
        return run

    def task(self, run_id: str, task_id: str) -> TaskView:
        """A task of a run, by the plan's id.

        Raises:
            SupervisionError: there is no such run, or it has no such task.
        """
        run = self.run(run_id)
        if task_id not in run.tasks:
            raise SupervisionError(f"run {run_id} has no task {task_id}; it has {', '.join(run.tasks)}")
        return run.tasks[task_id]
