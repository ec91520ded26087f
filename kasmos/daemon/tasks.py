"""Tasks: looked at, handed in by themselves, stopped, tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

from kasmos.daemon.desk import TaskDesk
from kasmos.daemon.gate import Gate
from kasmos.daemon.handover import Handover
from kasmos.daemon.naming import run_called, task_called
from kasmos.daemon.runs import Runs
from kasmos.daemon.shapes import TaskSubmittedWire
from kasmos.daemon.single import TaskRequest
from kasmos.daemon.terms import OrchestratorLike, Surroundings
from kasmos.exceptions import Mistake, RequestError
from kasmos.model.takeover import HandBack
from kasmos.model.view import SessionView, TaskView, World
from kasmos.store.lookup import newest_session


class Tasks:
    """The tasks of one supervisor, of plans and by themselves; for what every method may raise see `Service`."""

    def __init__(self, orchestrator: OrchestratorLike, surroundings: Surroundings, runs: Runs, gate: Gate) -> None:
        self._orchestrator = orchestrator
        self._surroundings = surroundings
        self._runs = runs
        self._gate = gate
        self._desk = TaskDesk(orchestrator, surroundings, gate, self.get)
        self._handover = Handover(orchestrator, surroundings, self.get)

    @property
    def _world(self) -> World:
        return self._orchestrator.world

    def list(
        self, *, run: str | None = None, agent: str | None = None, status: Callable[[TaskView], bool]
    ) -> tuple[TaskView, ...]:
        """Tasks of one run or of all, newest run first, in plan order."""
        runs = (run_called(self._world, run),) if run is not None else self._runs.list()
        tasks = (task for each in runs for task in each.tasks.values())
        return tuple(task for task in tasks if status(task) and agent in (None, self._agent_of(task)))

    def get(self, name: str) -> TaskView:
        """The task called so: its id, or a number or name in the newest run of a plan."""
        return task_called(self._world, name)

    def newest_session(self, name: str) -> SessionView:
        """The newest session that ran a task's agent.

        Raises:
            RequestError: 404 `no_session` if it has had none.
        """
        task = self.get(name)
        session = newest_session(self._world, task)
        if session is None:
            raise RequestError(404, "no_session", f"task {task.id} has had no session yet")
        return session

    async def submit(self, request: TaskRequest, *, key: str = "") -> TaskSubmittedWire:
        """Accept a task that is asked for by itself. Once it is accepted, it is done by this supervisor or the next.

        Args:
            request: what is asked for.
            key: with the same key, the same request is given the same task, however often it is made.

        Raises:
            RequestError: 400 `invalid_body` with every mistake, 409 `idempotency_conflict`, 429 `queue_full`.
            ConfigError: the configuration is wrong.
            BackendUnavailableError: its backend cannot run here.
            StoreError: it cannot be recorded at present; asking again with the same key tells.

        Cancellation: the task may have been accepted.
        """
        return await self._desk.submit(request, key)

    async def refuse(self, request: TaskRequest, mistakes: Iterable[Mistake]) -> NoReturn:
        """Refuse a task of which *mistakes* are known, with all others at once.

        Args:
            request: what can be made out of what was asked for.

        Raises:
            RequestError: 400 `invalid_body` with every mistake, one for each place.
            ConfigError: the configuration is wrong.
        """
        await self._desk.refuse(request, mistakes)

    async def retry(self, name: str, *, resume: bool = False) -> TaskView:
        """Try one task again; with *resume*, in its program's conversation."""
        task = self.get(name)
        await self._runs.retry(task.run_id, (task.spec.id,), resume=resume)
        return self._again(task)

    async def cancel(self, name: str) -> TaskView:
        """Stop a task for good, whether it runs, waits or is queued."""
        task = self.get(name)
        await self._orchestrator.stop_task(task.run_id, task.spec.id)
        return self._again(task)

    async def attach(self, name: str, who: str, *, now: bool = False, check: bool = False) -> TaskView:
        """Have a headless task's conversation opened in a terminal; see `Handover.attach`."""
        self._gate.require_open()
        return await self._handover.attach(name, who, now=now, check=check)

    async def detach(self, name: str, back: HandBack) -> TaskView:
        """Let a conversation that was taken over go on headless; see `Handover.detach`."""
        return await self._handover.detach(name, back)

    def _again(self, task: TaskView) -> TaskView:
        return self._world.runs[task.run_id].tasks[task.spec.id]

    def _agent_of(self, task: TaskView) -> str | None:
        return task.spec.agent or self._world.runs[task.run_id].settings.default_agent
