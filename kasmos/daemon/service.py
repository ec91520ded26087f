"""Every command and every query: the only door to a running supervisor.

The API translates HTTP into these calls and their answers into JSON; `kas run` makes some of them
itself. Nothing is decided here that the orchestrator decides: the service finds what is meant,
refuses what does not exist, and passes on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import attrs
import trio

from kasmos.config.schema import Config
from kasmos.daemon.bus import Bus, Subscription
from kasmos.exceptions import (
    ConfigError,
    InteractiveOnlyError,
    Mistake,
    RequestError,
    SessionClosedError,
    SupervisionError,
)
from kasmos.model.event import Record
from kasmos.model.plan import Plan, RunSettings
from kasmos.model.profile import ExecutionMode
from kasmos.model.view import RunView, SessionView, TaskView, World
from kasmos.plans import load_plan
from kasmos.sessions.protocol import ExecutionSession, OutputChunk
from kasmos.store.lookup import match_runs, match_sessions, match_tasks, newest_session

T = TypeVar("T")

STDIN = "-"
"""The source of a plan that came from no file."""


class AcceptedLike(Protocol):
    """**Protocol.** What became of a submission."""

    @property
    def run_id(self) -> str:
        """The run that executes the plan."""

    @property
    def continued(self) -> bool:
        """An unfinished run of the same plan was taken up."""

    @property
    def following(self) -> bool:
        """The run was under way already; nothing was started."""


class OrchestratorLike(Protocol):
    """**Protocol.** What the service asks of the orchestrator.

    Every command raises `SupervisionError` when it does not fit the present state.
    """

    @property
    def world(self) -> World:
        """The present, as folded from the journal."""

    @property
    def accepting(self) -> bool:
        """Whether new work is taken; False from the moment a shutdown begins."""

    async def submit(
        self,
        plan: Plan,
        *,
        source: str,
        key: str,
        digest: str,
        settings: RunSettings,
        project: str,
        fresh: bool,
    ) -> AcceptedLike:
        """Start, continue or join a run of *plan*."""

    async def advance(self, run_id: str) -> None:
        """Let a parked run go on."""

    async def cancel_run(self, run_id: str, reason: str) -> None:
        """End a run for good."""

    async def retry(self, run_id: str, task_ids: tuple[str, ...] = ()) -> None:
        """Try tasks again; none named means all that did not succeed."""

    async def stop_task(self, run_id: str, task_id: str) -> None:
        """Stop a task for good."""

    async def stop_session(self, session_id: str) -> None:
        """Stop one session."""

    def live_session(self, session_id: str) -> ExecutionSession | None:
        """The session, while it is held open."""


@attrs.frozen
class Surroundings:
    """What the service is given by the composition root."""

    project: str
    """The directory tasks run in. Absolute."""
    configure: Callable[[Mapping[str, object]], Config]
    """Loads the configuration anew, with these key paths on top. Blocks on the disk."""
    read_ended: Callable[[SessionView, int, int], OutputChunk]
    """Reads the output of a session that is not held open. Blocks on the disk; `OSError` when it is gone."""


@attrs.frozen
class RunOverrides:
    """What a submission sets for its run only, above the configuration. None leaves it alone."""

    agent: str | None = None
    mode: str | None = None
    max_concurrent: int | None = None
    task_timeout: float | str | None = None
    on_failure: str | None = None

    def flags(self) -> dict[str, object]:
        """As key paths of the configuration."""
        pairs = {
            "orchestration.default_agent": self.agent,
            "orchestration.max_concurrent": self.max_concurrent,
            "orchestration.task_timeout": self.task_timeout,
            "orchestration.on_failure": self.on_failure,
        }
        return {key: value for key, value in pairs.items() if value is not None}


@attrs.frozen
class Submitted:
    """The answer to a submission."""

    run_id: str
    continued: bool
    following: bool
    cursor: int
    """Number of the newest event before the submission: a new run's events all come after it."""
    warnings: tuple[Mistake, ...]


@attrs.frozen
class Output:
    """A piece of a session's output, and whether more can follow."""

    chunk: OutputChunk
    ended: bool
    """Nothing will ever follow this piece."""


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

    # --- queries ------------------------------------------------------------------

    @property
    def world(self) -> World:
        """The present. Read it, never change it."""
        return self._orchestrator.world

    @property
    def accepting(self) -> bool:
        """Whether new work is taken."""
        return self._orchestrator.accepting

    @property
    def project(self) -> str:
        """The directory tasks run in."""
        return self._surroundings.project

    def list_runs(self) -> list[RunView]:
        """Every run, newest first."""
        return list(reversed(self.world.runs.values()))

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
        """The task called so: `RUN.TASK`, or a number or name in the newest run."""
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

    def output_bytes(self, session: SessionView) -> int:
        """How much a session has written so far."""
        live = self._orchestrator.live_session(session.id)
        return live.output_bytes if live is not None else session.output_bytes

    def _agent_of(self, task: TaskView) -> str | None:
        return task.spec.agent or self.world.runs[task.run_id].settings.default_agent

    async def read_output(self, name: str, offset: int, limit: int, wait: float = 0.0) -> Output:
        """Read a session's output from an absolute offset; a negative one counts from the end.

        Args:
            wait: seconds to wait for something to read, if there is nothing yet.

        Raises:
            RequestError: 410 `output_gone` if it was removed.

        Cancellation: no effect.
        """
        session = self.get_session(name)
        if offset < 0:
            offset = max(0, self.output_bytes(session) + offset)
        deadline = trio.current_time() + wait
        while True:
            # Taken before the look, so that what happens in between is not missed.
            news = self._bus.news
            output = await self._read_now(session.id, offset, limit)
            if output.chunk.data or output.chunk.lost or output.ended or trio.current_time() >= deadline:
                return output
            with trio.move_on_at(deadline):
                await self._wait_for_output(session.id, offset, news)

    async def _read_now(self, session_id: str, offset: int, limit: int) -> Output:
        live = self._orchestrator.live_session(session_id)
        if live is not None:
            if offset >= live.output_bytes:
                return Output(OutputChunk(live.output_bytes, b""), ended=False)
            try:
                # A thread: what memory no longer holds is read from the log.
                chunk = await trio.to_thread.run_sync(live.read_nowait, offset, limit)
            except SessionClosedError:
                pass  # It ended between the look and the read: the log has it all.
            else:
                return Output(chunk, ended=False)
        session = self.world.sessions[session_id]
        try:
            chunk = await trio.to_thread.run_sync(self._surroundings.read_ended, session, offset, limit)
        except OSError as error:
            detail = f"the output of session {session_id} is gone: {error.strerror or error}"
            raise RequestError(410, "output_gone", detail) from error
        return Output(chunk, ended=not session.state.live and len(chunk.data) < limit)

    async def _wait_for_output(self, session_id: str, offset: int, news: trio.Event) -> None:
        live = self._orchestrator.live_session(session_id)
        if live is not None:
            try:
                if (await live.read(offset, 1)).data:
                    return
            except SessionClosedError:
                pass
        # It has ended and its end is not committed yet, or it is about to be opened or adopted:
        # either way the next thing to happen is an event.
        await news.wait()

    async def subscribe(self, after: int) -> Subscription:
        """Listen to every event with a number above *after*, from history into the present.

        Raises:
            RequestError: 400 `cursor_ahead` if the journal has never been that far.
        """
        if after > self._bus.newest and not await self._bus.reaches(after):
            detail = f"cursor {after} is ahead of the journal, which is at {self._bus.newest}"
            raise RequestError(400, "cursor_ahead", detail)
        return self._bus.subscribe(after)

    def concerns(self, record: Record, run_id: str, task_id: str | None = None) -> bool:
        """Whether an event is about this run, or about this task of it."""
        event = record.event
        session = self.world.sessions.get(getattr(event, "session_id", ""))
        about_run = session.run_id if session is not None else getattr(event, "run_id", None)
        about_task = session.task_id if session is not None else getattr(event, "task_id", None)
        return about_run == run_id and task_id in (None, about_task)

    # --- commands -----------------------------------------------------------------

    async def submit_run(
        self, document: bytes, source: str, *, fresh: bool = False, overrides: RunOverrides | None = None
    ) -> Submitted:
        """Start a run of a plan document, continue its unfinished one, or join the one under way.

        Args:
            source: the document's absolute path, or `-`.
            fresh: start anew even if there is an unfinished run of the same plan.

        Raises:
            PlanError: the document is wrong.
            ConfigError: the configuration or an override is wrong.
            SupervisionError: the document has changed and its run is unfinished.
        """
        self._refuse_when_draining()
        prepared = await trio.to_thread.run_sync(self._prepare, document, source, overrides or RunOverrides())
        cursor = self.world.seq
        accepted = await self._orchestrator.submit(
            prepared.plan,
            source=prepared.source,
            key=f"digest:{prepared.digest}" if source == STDIN else prepared.source,
            digest=prepared.digest,
            settings=prepared.settings,
            project=self.project,
            fresh=fresh,
        )
        return Submitted(
            run_id=accepted.run_id,
            continued=accepted.continued,
            following=accepted.following,
            cursor=cursor,
            warnings=prepared.warnings,
        )

    def _prepare(self, document: bytes, source: str, overrides: RunOverrides) -> _Prepared:
        """Parse and check a document against the configuration as it is now. Runs in a thread."""
        config = self._surroundings.configure(overrides.flags())
        settings = config.run_settings()
        if overrides.mode is not None:
            settings = attrs.evolve(settings, execution_mode=_mode(overrides.mode))
        parsed = load_plan(document, source, config.agents, settings.default_agent)
        return _Prepared(
            plan=parsed.plan,
            source=source if source == STDIN else os.path.realpath(source),
            digest=hashlib.sha256(document).hexdigest(),
            settings=settings,
            warnings=parsed.warnings,
        )

    async def advance(self, name: str) -> RunView:
        """Let a parked run go on past the wave it waits after."""
        run = self.get_run(name)
        self._refuse_when_draining()
        await self._orchestrator.advance(run.id)
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

    async def retry_run(self, name: str, tasks: Iterable[str] = ()) -> RunView:
        """Try tasks of a run again; none named means all that did not succeed."""
        run = self.get_run(name)
        chosen = tuple(_task_of(run, task) for task in tasks)
        self._refuse_when_draining()
        await self._orchestrator.retry(run.id, chosen)
        return self.world.runs[run.id]

    async def retry_task(self, name: str) -> TaskView:
        """Try one task again."""
        task = self.get_task(name)
        self._refuse_when_draining()
        await self._orchestrator.retry(task.run_id, (task.spec.id,))
        return self._again(task)

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

    def get_terminal(self, name: str) -> ExecutionSession:
        """The live session with a terminal that *name* means.

        Raises:
            InteractiveOnlyError: its backend has none.
            SessionClosedError: it is not open.
        """
        session = self.get_session(name)
        live = self._orchestrator.live_session(session.id)
        interactive = live.capabilities.interactive if live else session.backend is ExecutionMode.TMUX
        if not interactive:
            raise InteractiveOnlyError(f"session {session.id} runs {session.backend}: it has no terminal")
        if live is None:
            raise SessionClosedError(f"session {session.id} is not open")
        return live

    def _again(self, task: TaskView) -> TaskView:
        return self.world.runs[task.run_id].tasks[task.spec.id]

    def _refuse_when_draining(self) -> None:
        if not self.accepting:
            raise RequestError(503, "draining", "the supervisor is shutting down and takes no new work")


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
