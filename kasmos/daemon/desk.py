"""The desk where tasks are handed in by themselves: checked whole, bounded in number, each accepted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

import attrs
import trio

from kasmos.daemon.conversations import find_conversation
from kasmos.daemon.gate import Gate
from kasmos.daemon.shapes import TaskSubmittedWire
from kasmos.daemon.single import Prepared, TaskRequest, prepare_task
from kasmos.daemon.terms import OrchestratorLike, Surroundings
from kasmos.daemon.wire import task_status
from kasmos.exceptions import Mistake, RequestError
from kasmos.model.view import TaskView
from kasmos.orchestration.budgets import Shortage
from kasmos.orchestration.intake import TaskAccepted, TaskSubmission

_REFUSED = "the task cannot be run as it was asked for"


def budget_exceeded(shortage: Shortage, surroundings: Surroundings) -> RequestError:
    """What is told to whoever hands in work that may not be paid for."""
    return RequestError(429, "budget_exceeded", shortage.reason, retry_after=surroundings.retry_after(shortage))


class TaskDesk:
    """Takes tasks for one supervisor.

    Args:
        gate: whether tasks are taken.
        get_task: finds a task by what it is called; `RequestError` if there is none.
    """

    def __init__(
        self,
        orchestrator: OrchestratorLike,
        surroundings: Surroundings,
        gate: Gate,
        get_task: Callable[[str], TaskView],
    ) -> None:
        self._orchestrator = orchestrator
        self._surroundings = surroundings
        self._gate = gate
        self._get_task = get_task
        self._in_hand = 0

    async def submit(self, request: TaskRequest, key: str) -> TaskSubmittedWire:
        """Accept a task; see `Tasks.submit`."""
        digest = request.digest()
        cursor = self._orchestrator.world.seq
        # Also while the supervisor leaves, or the queue is full: what was accepted is there, and is told of.
        found = self._orchestrator.find_submitted(key, digest) if key else None
        if found is not None:
            return self._answer(found, cursor, ())
        self._gate.require_open()
        most = self._surroundings.present().orchestration.max_queued
        if self._orchestrator.queued_tasks + self._in_hand >= most:
            detail = f"{most} tasks wait already; try again when some of them have begun"
            raise RequestError(429, "queue_full", detail)
        self._in_hand += 1
        try:
            prepared, needs = await self._prepare(request)
            shortage = self._surroundings.shortage(self._orchestrator.world, prepared.task.agent)
            if shortage is not None:
                raise budget_exceeded(shortage, self._surroundings)
            submission = TaskSubmission(
                prepared.task, prepared.settings, self._surroundings.workspace, digest, needs, key
            )
            self._gate.require_open()
            accepted = await self._orchestrator.submit_task(submission)
        finally:
            self._in_hand -= 1
        return self._answer(accepted, cursor, prepared.warnings)

    async def refuse(self, request: TaskRequest, mistakes: Iterable[Mistake]) -> NoReturn:
        """Refuse a task with mistakes; see `Tasks.refuse`."""
        _, _, others = await self._look(request)
        told = {mistake.place: mistake for mistake in (*others, *mistakes)}
        raise RequestError(400, "invalid_body", _REFUSED, sorted(told.values(), key=lambda one: one.place))

    async def _prepare(self, request: TaskRequest) -> tuple[Prepared, tuple[str, ...]]:
        prepared, needs, mistakes = await self._look(request)
        if prepared is None or mistakes:
            raise RequestError(400, "invalid_body", _REFUSED, mistakes)
        return prepared, needs

    async def _look(self, request: TaskRequest) -> tuple[Prepared | None, tuple[str, ...], list[Mistake]]:
        """What it comes to, the tasks it needs, and every mistake."""
        earlier, conversation, mistakes = await self._look_up_conversation(request)
        if earlier is not None:
            workdir = request.workdir or earlier.spec.workdir or self._orchestrator.world.runs[earlier.run_id].project
            agent = request.agent or earlier.spec.agent or self._default_agent_of(earlier)
            request = attrs.evolve(request, agent=agent, workdir=workdir)

        def check() -> tuple[Prepared | None, tuple[Mistake, ...]]:
            return prepare_task(request, self._surroundings.configure({}), self._surroundings.workspace, conversation)

        # In a thread: the configuration may have to be read.
        prepared, found = await trio.to_thread.run_sync(check)
        mistakes += found
        needs = []
        for index, name in enumerate(request.needs):
            try:
                needs.append(self._get_task(name).id)
            except RequestError as error:
                mistakes.append(Mistake(f"$.needs[{index}]", error.detail, "the id of a task that was handed in"))
        return prepared, tuple(dict.fromkeys(needs)), mistakes

    async def _look_up_conversation(self, request: TaskRequest) -> tuple[TaskView | None, str, list[Mistake]]:
        """The task whose conversation is gone on with, that conversation, and what stands against it."""
        if not request.continues:
            return None, "", []
        place = "$.continue"
        try:
            earlier = self._get_task(request.continues)
        except RequestError as error:
            return None, "", [Mistake(place, error.detail, "a task whose program has had a conversation")]
        if earlier.outcome is None:
            return (
                earlier,
                "",
                [Mistake(place, f"task {earlier.id} is still under way", "wait for its end")],
            )
        sessions = self._orchestrator.world.sessions
        found = await find_conversation(earlier, sessions, self._surroundings.read_ended)
        if found:
            return earlier, found, []
        problem = f"task {earlier.id} has no conversation that is known"
        return earlier, "", [Mistake(place, problem, "hand in a task of its own, without it")]

    def _default_agent_of(self, task: TaskView) -> str | None:
        return self._orchestrator.world.runs[task.run_id].settings.default_agent

    def _answer(self, accepted: TaskAccepted, cursor: int, warnings: tuple[Mistake, ...]) -> TaskSubmittedWire:
        if not accepted.same:
            detail = f"task {accepted.task_id} was handed in with this Idempotency-Key, and it was another task"
            raise RequestError(409, "idempotency_conflict", detail)
        run = self._orchestrator.world.runs[accepted.task_id]
        if accepted.repeated:
            # Its events, from the first on, come after the one before it was accepted.
            cursor = min(cursor, run.first_seq - 1)
        status = task_status(run.tasks[accepted.task_id])
        return TaskSubmittedWire(accepted.task_id, status, accepted.repeated, cursor, warnings)
