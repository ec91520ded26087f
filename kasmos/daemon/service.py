"""Every command and every query: the only door to a running supervisor.

The API translates HTTP into these calls and their answers into JSON; `kas run` makes some of them
itself. Nothing is decided here that the orchestrator decides: the service finds what is meant,
refuses what does not exist, and passes on.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, TypeVar

import attrs
import trio

from kasmos.daemon.access import Refusal
from kasmos.daemon.agents import AgentWire, describe_agents
from kasmos.daemon.bus import Bus, Subscription
from kasmos.daemon.conversations import find_conversation
from kasmos.daemon.desk import TaskDesk, budget_exceeded
from kasmos.daemon.life import Health, Life
from kasmos.daemon.present import Present
from kasmos.daemon.reading import OutputReader
from kasmos.daemon.shapes import TaskSubmittedWire
from kasmos.daemon.single import TaskRequest
from kasmos.daemon.terminals import Terminals
from kasmos.daemon.terms import STDIN, AcceptedLike, OrchestratorLike, Output, RunOverrides, Submitted, Surroundings
from kasmos.daemon.transcripts import Transcripts
from kasmos.exceptions import (
    ConfigError,
    Mistake,
    PlanError,
    RequestError,
    SupervisionError,
)
from kasmos.harnesses.equip import equip_all
from kasmos.model.approval import Answer, ApprovalState
from kasmos.model.event import AccessRefused, Record
from kasmos.model.plan import Origin, Plan, RunSettings
from kasmos.model.profile import ExecutionMode
from kasmos.model.view import AccountView, ApprovalView, RunView, SessionView, TaskView, World
from kasmos.orchestration.approvals import told, wrong_with
from kasmos.orchestration.assembly import refusals
from kasmos.plans import load_plan
from kasmos.store.lookup import match_runs, match_sessions, match_tasks, newest_session

__all__ = ["RunOverrides", "Service", "Surroundings", "plan_key"]

T = TypeVar("T")

DELIVERY_PATIENCE = 5.0
"""Seconds that who answers waits until the session has taken the answer."""

_SETTINGS = {
    "agent": "default_agent",
    "mode": "execution_mode",
    "max_concurrent": "max_concurrent",
    "task_timeout": "task_timeout",
    "on_failure": "on_failure",
}
"""Which setting of a run each of `RunOverrides` is."""


@attrs.frozen
class _Prepared:
    plan: Plan
    source: str
    digest: str
    settings: RunSettings
    warnings: tuple[Mistake, ...]


class Service:
    """Commands and queries over one supervisor.

    Raises:
        RequestError: in every method that takes a name: 404 `unknown_run`, `unknown_task` or
            `unknown_session`, 409 `ambiguous`; in every one that begins work: 503 `draining`.
        SupervisionError: in every command, when it does not fit the present state.
    """

    def __init__(self, orchestrator: OrchestratorLike, bus: Bus, surroundings: Surroundings) -> None:
        self._orchestrator = orchestrator
        self._bus = bus
        self._surroundings = surroundings
        self._reader = OutputReader(orchestrator, bus, surroundings.read_ended)
        self.transcripts = Transcripts(self._reader)
        self._desk = TaskDesk(orchestrator, surroundings, self.get_task)
        self._present = Present(orchestrator.world, bus)
        self.terminals = Terminals(orchestrator, self.get_session, surroundings.last_screen)

    # --- queries ------------------------------------------------------------------

    @property
    def world(self) -> World:
        """The present. Read it, never change it."""
        return self._orchestrator.world

    @property
    def present(self) -> Present:
        """What is under way, up to date."""
        self._present.look()
        return self._present

    @property
    def life(self) -> Life:
        """Where the supervisor is in its life, and how it is asked to leave."""
        return self._surroundings.life

    @property
    def health(self) -> Health:
        """Whether it is well."""
        return self._surroundings.health

    @property
    def accepting(self) -> bool:
        """Whether new work is taken."""
        return self._orchestrator.accepting and self.life.order is None

    @property
    def project(self) -> str:
        """The directory of the project."""
        return self._surroundings.project

    @property
    def workspace(self) -> str:
        """The directory tasks run in."""
        return self._surroundings.workspace

    def list_runs(self, origin: Origin | None = None) -> list[RunView]:
        """Every run, or every one of this origin, newest first."""
        return [run for run in reversed(self.world.runs.values()) if origin in (None, run.origin)]

    @property
    def queue_limit(self) -> int:
        """How many of them may wait."""
        return self._surroundings.present().orchestration.max_queued

    def last_output_at(self, session: SessionView) -> float | None:
        """When a live session last wrote something."""
        return self._surroundings.last_output_at(session.id) if session.state.live else None

    @property
    def queue_depth(self) -> int:
        """How many tasks that were handed in by themselves wait."""
        return self._orchestrator.queued_tasks

    def get_run(self, name: str) -> RunView:
        """The run with this id, or whose id alone begins so."""
        return _only("run", name, match_runs(self.world, name))

    def list_tasks(
        self, *, run: str | None = None, agent: str | None = None, status: Callable[[TaskView], bool]
    ) -> list[TaskView]:
        """Tasks of one run or of all, newest run first, in plan order."""
        runs = [self.get_run(run)] if run is not None else self.list_runs()
        tasks = (task for each in runs for task in each.tasks.values())
        return [task for task in tasks if status(task) and agent in (None, self._agent_of(task))]

    def get_task(self, name: str) -> TaskView:
        """The task called so: its id, or a number or name in the newest run of a plan."""
        return _only("task", name, match_tasks(self.world, name))

    def list_sessions(self) -> list[SessionView]:
        """Every session, newest first."""
        return list(reversed(self.world.sessions.values()))

    def get_session(self, name: str) -> SessionView:
        """The session with this id or name, or the newest one of the task called so."""
        return _only("session", name, match_sessions(self.world, name))

    def get_task_session(self, name: str) -> SessionView:
        """The newest session that ran a task's agent.

        Raises:
            RequestError: 404 `no_session` if it has had none.
        """
        task = self.get_task(name)
        session = newest_session(self.world, task)
        if session is None:
            raise RequestError(404, "no_session", f"task {task.id} has had no session yet")
        return session

    def approvals(self, state: ApprovalState | None = ApprovalState.OPEN) -> list[ApprovalView]:
        """What sessions ask, oldest first: in this state, or all that is remembered."""
        return [view for view in self.world.approvals.values() if state in (None, view.state)]

    def get_approval(self, approval_id: str) -> ApprovalView:
        """The approval with this id.

        Raises:
            RequestError: 404 `unknown_approval`.
        """
        view = self.world.approvals.get(approval_id)
        if view is None:
            detail = f"there is no approval {approval_id!r}; `kas approvals` lists what waits"
            raise RequestError(404, "unknown_approval", detail)
        return view

    async def list_agents(self) -> tuple[AgentWire, ...]:
        """Every agent profile in force, and whether it can be used."""
        around = self._surroundings

        def look() -> tuple[AgentWire, ...]:
            return describe_agents(around.present(), around.environ, around.workspace)

        return await trio.to_thread.run_sync(look)

    def output_bytes(self, session: SessionView) -> int:
        """How much a session has written so far."""
        return self._reader.size(session)

    def _agent_of(self, task: TaskView) -> str | None:
        return task.spec.agent or self.world.runs[task.run_id].settings.default_agent

    async def read_output(self, name: str, offset: int, limit: int, wait: float = 0.0) -> Output:
        """Read a session's output from an absolute offset; a negative one counts from the end.

        Args:
            name: what the session is called.
            offset: where to begin.
            limit: the most bytes to give.
            wait: seconds to wait for something to read, if there is nothing yet.

        Raises:
            RequestError: 410 `output_gone` if it was removed.

        Cancellation: no effect.
        """
        session = self.get_session(name)
        return await self._reader.read(session, offset, limit, wait)

    def refused(self, refusal: Refusal) -> None:
        """Record that somebody was not let in. Never blocks."""
        self._surroundings.record(AccessRefused(refusal.address, refusal.reason, refusal.attempts))

    async def wait_for_output(self, session_id: str, offset: int) -> None:
        """Wait until there may be something to read of a session's output; it may be nothing all the same.

        Cancellation: no effect.
        """
        await self._reader.wait(session_id, offset)

    async def subscribe(self, after: int) -> Subscription:
        """Listen to every event with a number above *after*, from history into the present.

        Raises:
            RequestError: 400 `cursor_ahead` if the journal has never been that far.
        """
        if after > self._bus.newest and not await self._bus.reaches(after):
            detail = f"cursor {after} is ahead of the journal, which is at {self._bus.newest}"
            raise RequestError(400, "cursor_ahead", detail)
        return self._bus.subscribe(after)

    def nudge(self) -> None:
        """Wake every subscription that waits, although there is nothing new. Never blocks."""
        self._bus.nudge()

    def concerns(self, record: Record, run_id: str, task_id: str | None = None) -> bool:
        """Whether an event is about this run, or about this task of it."""
        event = record.event
        session = self.world.sessions.get(getattr(event, "session_id", ""))
        about_run = session.run_id if session is not None else getattr(event, "run_id", None)
        about_task = session.task_id if session is not None else getattr(event, "task_id", None)
        return about_run == run_id and task_id in (None, about_task)

    # --- commands -----------------------------------------------------------------

    async def submit_run(
        self,
        document: bytes,
        source: str,
        *,
        fresh: bool = False,
        overrides: RunOverrides | None = None,
        patience: float = math.inf,
    ) -> Submitted:
        """Start a run of a plan document, continue its unfinished one, or join the one under way.

        Args:
            source: the document's absolute path, or `-`.
            fresh: start anew even if there is an unfinished run of the same plan.
            patience: seconds to wait for it to be recorded.

        Raises:
            StoreError: it cannot be recorded at present; it may begin all the same, later.
            PlanError: the document is wrong.
            ConfigError: the configuration or an override is wrong.
            SupervisionError: the document has changed and its run is unfinished.
        """
        self._refuse_when_draining()
        shortage = self._surroundings.shortage(self.world, None)
        if shortage is not None and not shortage.waits:
            raise budget_exceeded(shortage, self._surroundings)
        prepared = await trio.to_thread.run_sync(self._prepare, document, source, overrides or RunOverrides())
        cursor = self.world.seq
        accepted = await self._orchestrator.submit(
            prepared.plan,
            source=prepared.source,
            key=plan_key(document, source),
            digest=prepared.digest,
            settings=prepared.settings,
            project=self.workspace,
            fresh=fresh,
            patience=patience,
        )
        return Submitted(
            run_id=accepted.run_id,
            continued=accepted.continued,
            following=accepted.following,
            cursor=cursor,
            warnings=prepared.warnings + self._not_applied(accepted, prepared.settings, overrides or RunOverrides()),
        )

    async def submit_task(self, request: TaskRequest, *, key: str = "") -> TaskSubmittedWire:
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

    async def refuse_task(self, request: TaskRequest, mistakes: Iterable[Mistake]) -> NoReturn:
        """Refuse a task of which *mistakes* are known, with all others at once.

        Args:
            request: what can be made out of what was asked for.

        Raises:
            RequestError: 400 `invalid_body` with every mistake, one for each place.
            ConfigError: the configuration is wrong.
        """
        await self._desk.refuse(request, mistakes)

    def _not_applied(self, accepted: AcceptedLike, wanted: RunSettings, overrides: RunOverrides) -> tuple[Mistake, ...]:
        """What was asked for this run, and comes too late: its settings are those it began with."""
        run = self.world.runs.get(accepted.run_id) if accepted.continued else None
        if run is None or not run.unfinished:
            return ()
        warnings = []
        for option, setting in _SETTINGS.items():
            kept = getattr(run.settings, setting)
            if getattr(overrides, option) is not None and getattr(wanted, setting) != kept:
                what = f"run {run.id} keeps what it began with, {'no value' if kept is None else kept}"
                warnings.append(Mistake(option, f"not applied: {what}", "`kas run --fresh` starts anew"))
        return tuple(warnings)

    def _prepare(self, document: bytes, source: str, overrides: RunOverrides) -> _Prepared:
        """Parse and check a document against the configuration in force. Runs in a thread."""
        config = self._surroundings.configure(overrides.flags())
        settings = config.run_settings()
        if overrides.mode is not None:
            settings = attrs.evolve(settings, execution_mode=_mode(overrides.mode))
        wanted = settings.execution_mode
        mode = None if wanted is None else ExecutionMode(wanted)
        parsed = load_plan(document, source, equip_all(config.agents, mode), settings.default_agent)
        names = dict.fromkeys(task.agent or settings.default_agent or "" for task in parsed.plan.tasks)
        refused = refusals(config.agents, names, os.environ, mode)
        if refused:
            raise PlanError(refused)
        return _Prepared(
            plan=parsed.plan,
            source=source if source == STDIN else os.path.realpath(source),
            digest=hashlib.sha256(document).hexdigest(),
            settings=settings,
            warnings=parsed.warnings,
        )

    async def release_account(self, name: str, who: str) -> AccountView:
        """Let a parked account be used again.

        Raises:
            RequestError: 404 `unknown_account`.
            SupervisionError: it is not parked.
        """
        if name not in self.world.accounts:
            raise RequestError(404, "unknown_account", f"there is no account {name!r}; `kas accounts` lists them")
        await self._orchestrator.release_account(name, who)
        return self.world.accounts[name]

    async def _reconfigure(self) -> None:
        """See to it that a profile that was mended counts for what is begun next.

        Raises:
            ConfigError: the configuration is wrong, and the old one stays in force.
        """
        await trio.to_thread.run_sync(self._surroundings.configure, {})

    async def advance(self, name: str) -> RunView:
        """Let a parked run go on past the wave it waits after."""
        run = self.get_run(name)
        self._refuse_when_draining()
        await self._reconfigure()
        await self._orchestrator.advance(run.id)
        return self.world.runs[run.id]

    async def continue_run(self, name: str) -> RunView:
        """Take up a run that was interrupted; one that is under way goes on as it is."""
        run = self.get_run(name)
        self._refuse_when_draining()
        await self._reconfigure()
        await self._orchestrator.continue_run(run.id)
        return self.world.runs[run.id]

    async def cancel_run(self, name: str, reason: str) -> RunView:
        """End a run for good: its sessions are stopped, what has not started never will."""
        run = self.get_run(name)
        await self._orchestrator.cancel_run(run.id, reason)
        return self.world.runs[run.id]

    async def cancel_all(self, reason: str) -> list[RunView]:
        """End every unfinished run for good."""
        asked = []
        for run in self.list_runs():
            if not run.unfinished:
                continue
            try:
                await self._orchestrator.cancel_run(run.id, reason)
            except SupervisionError:
                # It may have ended by itself meanwhile, which is what was wanted.
                if self.world.runs[run.id].unfinished:
                    raise
            else:
                asked.append(self.world.runs[run.id])
        return asked

    async def retry_run(self, name: str, tasks: Iterable[str] = (), *, resume: bool = False) -> RunView:
        """Try tasks of a run again; none named means all that did not succeed.

        Args:
            name: the run.
            tasks: of it.
            resume: go on with their programs' conversations, where there are any.
        """
        run = self.get_run(name)
        chosen = tuple(_task_of(run, task) for task in tasks)
        self._refuse_when_draining()
        await self._reconfigure()
        await self._retry(run, chosen, resume=resume)
        return self.world.runs[run.id]

    async def retry_task(self, name: str, *, resume: bool = False) -> TaskView:
        """Try one task again; with *resume*, in its program's conversation."""
        task = self.get_task(name)
        self._refuse_when_draining()
        await self._reconfigure()
        await self._retry(self.world.runs[task.run_id], (task.spec.id,), resume=resume)
        return self._again(task)

    async def _retry(self, run: RunView, chosen: tuple[str, ...], *, resume: bool) -> None:
        found: dict[str, str] = {}
        for task in run.tasks.values() if resume else ():
            if not chosen or task.spec.id in chosen:
                sessions = self.world.sessions
                found[task.spec.id] = await find_conversation(task, sessions, self._surroundings.read_ended)
        unknown = [name for name in chosen if resume and not found.get(name)]
        if unknown:
            detail = f"task {', '.join(unknown)} has no conversation that is known; retry it without resuming"
            raise RequestError(409, "no_conversation", detail)
        await self._orchestrator.retry(run.id, chosen, found)

    async def cancel_task(self, name: str) -> TaskView:
        """Stop a task for good, whether it runs, waits or is queued."""
        task = self.get_task(name)
        await self._orchestrator.stop_task(task.run_id, task.spec.id)
        return self._again(task)

    async def stop_session(self, name: str) -> SessionView:
        """Stop one session, politely and then firmly."""
        session = self.get_session(name)
        if not session.state.live:
            raise SupervisionError(f"session {session.id} has ended already")
        await self._orchestrator.stop_session(session.id)
        return self.world.sessions[session.id]

    async def resolve_approval(self, approval_id: str, answer: Answer, who: str) -> ApprovalView:
        """Answer what a session asks, in the name of a person; the approval as it is then.

        Raises:
            RequestError: 404 `unknown_approval`; 409 `already_resolved`, 409 `answer_not_offered`.
            StaleApprovalError: it is not asked any more; the session was told nothing.
        """
        view = self.get_approval(approval_id)
        if view.answer is not None:
            raise RequestError(409, "already_resolved", f"approval {approval_id} was answered already: {told(view)}")
        if view.state is ApprovalState.OPEN and (wrong := wrong_with(view.ask, answer)):
            raise RequestError(409, "answer_not_offered", f"approval {approval_id}: {wrong}")
        return await self._orchestrator.resolve_approval(approval_id, answer, who, patience=DELIVERY_PATIENCE)

    def _again(self, task: TaskView) -> TaskView:
        return self.world.runs[task.run_id].tasks[task.spec.id]

    def _refuse_when_draining(self) -> None:
        if not self.accepting:
            raise RequestError(503, "draining", "the supervisor is shutting down and takes no new work")
        self.health.require_writable()


def plan_key(document: bytes, source: str) -> str:
    """What makes two documents the same plan: the file they are in; where there is none, their content."""
    return f"digest:{hashlib.sha256(document).hexdigest()}" if source == STDIN else os.path.realpath(source)


def _only(what: str, name: str, found: Sequence[T]) -> T:
    if not found:
        raise RequestError(404, f"unknown_{what}", f"there is no {what} {name!r}")
    if len(found) > 1:
        raise RequestError(409, "ambiguous", f"{name!r} is the beginning of {len(found)} {what}s' ids")
    return found[0]


def _task_of(run: RunView, name: str) -> str:
    """The id in the plan of a task that is named with or without its run."""
    task_id = name.removeprefix(f"{run.id}.")
    if task_id not in run.tasks:
        raise RequestError(404, "unknown_task", f"run {run.id} has no task {name!r}")
    return task_id


def _mode(word: str) -> str:
    if word not in list(ExecutionMode):
        known = ", ".join(mode.value for mode in ExecutionMode)
        raise ConfigError([Mistake("mode", f"there is no execution mode {word!r}", f"one of {known}")])
    return word
